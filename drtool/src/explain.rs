//! `drtool explain`: what a code means and what to do.

use std::process::ExitCode;

use clap::Args;
use confman_cli::failure::Failure;
use confman_cli::output;
use confman_client::ErrorKind;

use crate::codes;
use crate::context::Global;

/// Say what a code means and what to do about it
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The code, as it stands in brackets; all of them without it
    code: Option<String>,
}

pub(crate) fn run(args: &ExplainArgs, global: &Global) -> Result<ExitCode, Failure> {
    let found: Vec<&codes::Code> = match &args.code {
        Some(name) => vec![codes::find(name).ok_or_else(|| {
            codes::refuse(
                "CODE_UNKNOWN",
                ErrorKind::NotFound,
                format!("there is no code {name:?}"),
            )
            .with_hint("`drtool explain` lists all of them")
        })?],
        None => codes::ALL.iter().flat_map(|room| room.codes).collect(),
    };
    if global.json {
        let items: Vec<_> = found
            .iter()
            .map(|c| serde_json::json!({"code": c.name, "meaning": c.meaning, "remedy": c.remedy}))
            .collect();
        output::json(&serde_json::json!({ "items": items }))?;
    } else {
        for code in found {
            output::line(code.name)?;
            output::line(&format!("  {}", code.meaning))?;
            output::line(&format!("  What to do: {}", code.remedy))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
