//! `drtool retention`: which snapshots stay, which may go, and why; and letting them go where no cluster does.
//!
//! - `view`: what the store tells about every object;
//! - `orders`: what restore orders need;
//! - `judged`: the verdict over each, by the nodes' own pure function;
//! - `apply`: the plan of what would change, and carrying it out.
//!
//! Promises (I10): nothing is judged by the clock but how long a mark is old; what is pinned, referred to or named by a
//! restore order stays; nothing goes that was not marked a grace ago; and nothing goes unless the generations that stay
//! have just been read to their ends.

mod apply;
mod judged;
mod orders;
mod view;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use confman_cli::escape;
use confman_cli::failure::Failure;
use confman_cli::output;
use confman_client::wire::Time;
use confman_snapshot::retention::Policy;
use serde::Serialize;

use super::pick::GroupArgs;
use super::{StoreArgs, now_us, settings_of_nodes};
use crate::codes;
use crate::context::Global;
use judged::Item;

/// Say which snapshots stay and which may go, with the reason of each
#[derive(Debug, Args)]
pub struct RetentionArgs {
    #[command(subcommand)]
    command: RetentionCommand,
}

#[derive(Debug, Subcommand)]
enum RetentionCommand {
    Show(ShowArgs),
}

/// Judge every snapshot in the store; with --apply, let go what may go
#[derive(Debug, Args)]
#[command(after_help = "\
A living cluster retires its snapshots by itself. --apply is for a bucket whose nodes may not delete, or whose cluster is \
gone. It keeps the nodes' two steps: the first run marks (an object under marks/), a later one, when the grace is \
over, deletes, after it has read the generations that stay to their ends. It wants to be told how many generations stay, \
because the bucket does not say.")]
struct ShowArgs {
    /// Verified generations that stay [default: CONFMAN_SNAPSHOT_RETENTION_COUNT, else 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    keep: Option<u16>,
    /// Seconds between mark and deletion [default: CONFMAN_SNAPSHOT_DELETE_GRACE_SECS, else 30]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=31_536_000))]
    grace: Option<u32>,
    /// Judge what is there now as if it were this time (RFC 3339)
    #[arg(long, value_name = "TIME", conflicts_with = "apply")]
    as_of: Option<Time>,
    /// Carry it out, after showing what that is
    #[arg(long)]
    apply: bool,
    /// Agree to the plan that is shown
    #[arg(long, requires = "apply")]
    yes: bool,
    #[command(flatten)]
    group: GroupArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// The document of `--json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    store: String,
    as_of: Time,
    keep: usize,
    grace_seconds: i64,
    items: Vec<Item>,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied: Option<apply::Applied>,
}

/// Runs the command.
///
/// # Errors
/// It did not do all it was asked.
pub async fn run(args: RetentionArgs, global: &Global) -> Result<ExitCode, Failure> {
    match args.command {
        RetentionCommand::Show(args) => show(&args, global).await,
    }
}

async fn show(args: &ShowArgs, global: &Global) -> Result<ExitCode, Failure> {
    let settings = settings_of_nodes()?;
    let grace = args.grace.map_or(settings.grace, |seconds| {
        std::time::Duration::from_secs(u64::from(seconds))
    });
    let policy = Policy {
        keep: args.keep.map_or(settings.count, usize::from),
        grace_us: i64::try_from(grace.as_micros()).unwrap_or(i64::MAX),
    };
    if args.apply && args.keep.is_none() && settings.count_is_default {
        return Err(codes::usage("RETENTION_COUNT_UNKNOWN", "how many generations stay was not said")
            .with_hint("say what the cluster's nodes are set to, with --keep or CONFMAN_SNAPSHOT_RETENTION_COUNT"));
    }
    let as_of_us = args.as_of.map_or_else(now_us, Time::as_us);
    let repository = args.store.open(global).await?;
    let looked = view::look(&repository, args.group.group.as_ref());
    let views = global
        .during("snapshots, marks and orders are read", looked)
        .await?;
    let items: Vec<Item> = views
        .iter()
        .flat_map(|view| judged::judge(view, &policy, as_of_us))
        .collect();
    let mut document = Document {
        store: repository.url().to_owned(),
        as_of: Time::from_us(as_of_us),
        keep: policy.keep,
        grace_seconds: policy.grace_us / 1_000_000,
        items,
        applied: None,
    };
    if !global.json {
        print(&document)?;
    }
    let mut code = ExitCode::SUCCESS;
    if args.apply {
        let applied = apply::run(&repository, &document.items, &views, args.yes, global).await?;
        code = applied.exit_code();
        if !global.json {
            applied.print()?;
        }
        document.applied = Some(applied);
    }
    if global.json {
        output::json(&document)?;
    }
    Ok(code)
}

fn print(document: &Document) -> Result<(), Failure> {
    let mut table = output::table(["GROUP", "ID", "SIZE", "VERDICT", "REASON"]);
    for item in &document.items {
        let cells = [
            item.group.to_string(),
            item.id.to_string(),
            output::bytes(item.bytes),
            item.decision.name().to_owned(),
            item.reason.clone(),
        ];
        table.add_row(cells.map(|cell| escape::text(&cell).into_owned()));
    }
    if document.items.is_empty() {
        output::line("no snapshots")?;
    } else {
        output::print_table(&table)?;
    }
    output::line(&format!(
        "{} generations stay, grace {} s, as of {}",
        document.keep, document.grace_seconds, document.as_of
    ))
}
