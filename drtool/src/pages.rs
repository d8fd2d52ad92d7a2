//! `drtool completions` and `drtool man`: pages made from the same declarations as the help.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;
use confman_cli::failure::{Failure, stdout_failed};

use crate::codes;

/// Print a completion script
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Write the manual pages
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The directory for them
    dir: PathBuf,
}

pub(crate) fn completions(args: &CompletionsArgs) -> Result<ExitCode, Failure> {
    // Into memory first: the generator panics when its writer fails.
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut crate::cli::declared(),
        "drtool",
        &mut script,
    );
    std::io::stdout()
        .lock()
        .write_all(&script)
        .map_err(|error| stdout_failed(&error))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn man(args: &ManArgs) -> Result<ExitCode, Failure> {
    let failed = |error: std::io::Error| codes::local("write manual pages to", &args.dir, &error);
    std::fs::create_dir_all(&args.dir).map_err(failed)?;
    clap_mangen::generate_to(crate::cli::declared(), &args.dir).map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}
