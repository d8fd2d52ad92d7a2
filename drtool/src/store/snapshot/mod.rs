//! `drtool snapshot`: what lies in the store.
//!
//! - `list`, `show`: what there is, what one holds;
//! - `verify`: whether it is what was written, and which object is not;
//! - `diff`, `fetch`: two of them side by side; one as local files;
//! - `pin`: what retention leaves alone;
//! - `summary`: how a snapshot is shown everywhere.
//!
//! - `create`: the one that asks a living cluster ([`crate::live::create`]), here because it is about snapshots too.
//!
//! Promises: nothing else here needs a node; none of these commands but `pin` and `unpin` writes to the store. A snapshot that cannot be read is
//! named and the others are gone on with; a store that cannot be asked ends the command.

mod diff;
mod fetch;
mod list;
mod pin;
mod show;
mod summary;
mod verify;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use confman_cli::failure::Failure;

use crate::context::Global;
use crate::live::create;

pub use summary::Summary;

/// List, show, verify, compare, fetch and pin the snapshots in the store; have one made
#[derive(Debug, Args)]
pub struct SnapshotArgs {
    #[command(subcommand)]
    command: SnapshotCommand,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // There is one in a process.
enum SnapshotCommand {
    Create(create::CreateArgs),
    List(list::ListArgs),
    Show(show::ShowArgs),
    Verify(verify::VerifyArgs),
    Diff(diff::DiffArgs),
    Fetch(fetch::FetchArgs),
    Pin(pin::PinArgs),
    Unpin(pin::UnpinArgs),
}

/// Runs the command.
///
/// # Errors
/// It did not do all it was asked.
pub async fn run(args: SnapshotArgs, global: &Global) -> Result<ExitCode, Failure> {
    match args.command {
        SnapshotCommand::Create(args) => create::run(&args, global).await,
        SnapshotCommand::List(args) => list::run(&args, global).await,
        SnapshotCommand::Show(args) => show::run(&args, global).await,
        SnapshotCommand::Verify(args) => verify::run(&args, global).await,
        SnapshotCommand::Diff(args) => diff::run(&args, global).await,
        SnapshotCommand::Fetch(args) => fetch::run(&args, global).await,
        SnapshotCommand::Pin(args) => pin::pin(&args, global).await,
        SnapshotCommand::Unpin(args) => pin::unpin(&args, global).await,
    }
}
