//! `drtool snapshot create`: have the cluster snapshot itself now.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use confman_cli::connect::TargetArgs;
use confman_cli::failure::Failure;
use confman_cli::{escape, output};
use confman_snapshot::GroupId;

use crate::context::Global;

/// Have the cluster snapshot itself now; ends when that is read back from the store and recorded
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Only this group, such as config/0 [default: all]
    #[arg(long, value_name = "GROUP")]
    group: Option<GroupId>,
    /// For how long to wait until it is verified; the cluster goes on with it afterwards
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_value_t = 3600, default_missing_value = "3600",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    wait: u64,
    #[command(flatten)]
    to: TargetArgs,
}

/// Runs the command.
///
/// # Errors
/// No node answers, the store cannot be written, or it was not verified in time.
pub async fn run(args: &CreateArgs, global: &Global) -> Result<ExitCode, Failure> {
    let client = args.to.client(global.verbose, None)?;
    let group = args.group.as_ref().map(ToString::to_string);
    let answered = client
        .snapshot(group.as_deref(), Duration::from_secs(args.wait))
        .await?;
    let list = answered.value;
    if global.json {
        output::json(&list)?;
        return Ok(ExitCode::SUCCESS);
    }
    for item in &list.items {
        output::line(&format!(
            "{}: verified snapshot {} at index {}, {}, {:.2} s",
            escape::text(&item.group),
            escape::text(&item.id),
            item.index,
            output::bytes(item.bytes),
            item.seconds
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
