//! `drtool snapshot create`: have the cluster snapshot itself now.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use confman_cli::connect::TargetArgs;
use confman_cli::failure::Failure;
use confman_cli::{escape, output};
use confman_client::Client;
use confman_snapshot::GroupId;

use crate::context::Global;

/// Have the cluster snapshot itself now; with --wait ends when that is read back from the store and recorded
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Only this group, such as config/0 [default: all]
    #[arg(long, value_name = "GROUP")]
    group: Option<GroupId>,
    /// Wait until it is verified, for at most so many seconds [default: 3600]; the cluster goes on with it in any case
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "3600",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    wait: Option<u64>,
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
    let Some(seconds) = args.wait else {
        return order(&client, group.as_deref(), global).await;
    };
    let made = client.snapshot(group.as_deref(), Duration::from_secs(seconds));
    let answered = global
        .during("the cluster builds, uploads and reads back", made)
        .await;
    let list = answered?.value;
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

/// Has it begun, and says how to follow it.
async fn order(client: &Client, group: Option<&str>, global: &Global) -> Result<ExitCode, Failure> {
    let list = client.order_snapshot(group).await?.value;
    if global.json {
        output::json(&list)?;
        return Ok(ExitCode::SUCCESS);
    }
    for order in &list.items {
        let what = match order.under_way {
            false => "ordered",
            true => "one is under way already; it may not hold what was written since it began",
        };
        output::line(&format!("{}: {what}", escape::text(&order.group)))?;
    }
    output::line(
        "`drtool status` shows each group's newest verified snapshot, or why one failed; --wait waits for it",
    )?;
    Ok(ExitCode::SUCCESS)
}
