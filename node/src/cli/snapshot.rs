//! `confman snapshot`: have the state snapshotted now.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use confman_snapshot::GroupId;

use super::connect::{ConnectArgs, OutputArgs};
use super::escape;
use super::failure::Failure;
use super::output;

/// Snapshot the state to the object store now; ends when that is verified and recorded
#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    /// Only this group, for example config/0 [default: all]
    #[arg(long, value_name = "GROUP")]
    group: Option<GroupId>,
    /// Wait this long
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    wait: u64,
    #[command(flatten)]
    out: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(crate) async fn run(args: SnapshotArgs) -> Result<ExitCode, Failure> {
    let client = args.connect.client()?;
    let group = args.group.map(|group| group.to_string());
    let answered = client
        .snapshot(group.as_deref(), Duration::from_secs(args.wait.max(1)))
        .await?;
    args.connect.note(&answered);
    let list = answered.value;
    if args.out.json {
        output::json(&list)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = output::table(["GROUP", "INDEX", "SIZE", "SECONDS", "SNAPSHOT"]);
    for item in &list.items {
        table.add_row([
            escape::text(&item.group).into_owned(),
            item.index.to_string(),
            output::bytes(item.bytes),
            format!("{:.2}", item.seconds),
            escape::text(&item.id).into_owned(),
        ]);
    }
    output::print_table(&table)?;
    Ok(ExitCode::SUCCESS)
}
