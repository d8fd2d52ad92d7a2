//! Every node is gone: restore from the store. One directory made offline.
//!
//! - `find`: which snapshot of every group, by what the operator asked for. `choose`: which snapshots of a group may be restored, best first: pure.
//! - `survey`: what the store holds and what of it is whole; reads only.
//! - `members`: who the new life begins with, and which ids nobody ever had.
//! - `plan`: the plan as a file and as text. `make` makes one, `apply` turns it into the restore order.
//! - `alive`: whether a node answers where a member should be. `look`: when that was asked, and asked again.
//! - `local`: that command: `copy` makes an inspection copy, `place` is the directory that is being filled.
//!
//! Promises: a plan says what is lost before anything is written (I15); it is refused where a node with data answers, and
//! when the store is no longer what it was made from; applying it is one object that appears at once or not at all, and
//! doing so again finds it (I17).
//!
//! Does not: restore the nodes. They do it themselves when they start empty (`confman-bootstrap`, `node/src/ordered`).

mod alive;
mod apply;
mod choose;
mod codes;
pub(crate) mod copy;
pub(crate) mod find;
mod local;
mod look;
mod make;
mod members;
pub(crate) mod place;
pub(crate) mod plan;
mod survey;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use confman_cli::failure::Failure;

pub use codes::CODES;
pub(crate) use make::operator;

use confman_snapshot::model::ClusterId;

use crate::context::Global;
use crate::store::reader::StoreReader;

/// Restore from the store: a cluster of which every node is gone, or one data directory
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    #[command(subcommand)]
    command: RestoreCommand,
}

#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
enum RestoreCommand {
    Plan(make::PlanArgs),
    Apply(apply::ApplyArgs),
    Local(local::LocalArgs),
}

/// Which cluster the store belongs to, in its newest life.
pub(crate) async fn cluster_of(
    store: &StoreReader,
    which: &find::WhichArgs,
) -> Result<ClusterId, Failure> {
    let seen = survey::survey(store, which.cluster.as_deref()).await?;
    let newest = seen.newest();
    Ok(ClusterId::new(seen.uuid, newest))
}

pub(crate) async fn run(args: RestoreArgs, global: &Global) -> Result<ExitCode, Failure> {
    match args.command {
        RestoreCommand::Plan(args) => make::run(&args, global).await,
        RestoreCommand::Apply(args) => apply::run(&args, global).await,
        RestoreCommand::Local(args) => local::run(&args, global).await,
    }
}
