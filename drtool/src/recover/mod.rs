//! A quorum is gone: collect, plan, apply, verify, undo.
//!
//! - [`collection`], [`directory`]: what is left, as one file of facts;
//! - [`decide`](decide::decide): the pure function from facts to a [`plan::Plan`], with an account of the loss (`loss`), or to what
//!   stands against one (`behind`: the store has what no directory has);
//! - `apply`, `undo`: one directory becomes what the plan says, or what it was; `swap` has the moves, `copy` the copy,
//!   `role` what a directory is to a plan, `store_side` the claim of the new incarnation;
//! - `ask`, `alive`: who still lives; `room`: whether the disk has room;
//! - `verify`: the living cluster against the plan.
//!
//! Promises:
//! - nothing is planned while a quorum lives or could form, from fewer directories than there are members unless the
//!   missing are given up by name, or from damaged, fenced or contradicting ones;
//! - who shall vote in the new life is what was wished for in the old one, and the plan says it;
//! - a plan says beforehand what it loses (I15), is refused when it was changed, and when the directory was;
//! - a repaired copy is swapped in, the old contents are kept, and what is killed half way can be gone on with or taken
//!   back (I17); no node starts on a directory in between.
//!
//! Does not: need the store or a living node; both are asked when they are there. Nor does it take entries from the store, which has
//! snapshots and no log.

mod alive;
mod apply;
mod ask;
mod behind;
mod codes;
mod collect;
pub mod collection;
mod copy;
pub mod decide;
pub mod directory;
mod expected;
mod file;
mod loss;
pub mod plan;
mod plan_command;
pub mod refusal;
mod role;
mod room;
mod sources;
mod store_side;
mod summary;
mod survey;
mod swap;
mod undo;
mod verify;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use confman_cli::failure::Failure;

pub(crate) use apply::data_failure;
pub use codes::CODES;

use crate::context::Global;

/// Recover from a lost quorum: collect, plan, apply, verify, undo
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct RecoverArgs {
    #[command(subcommand)]
    step: Step,
}

#[derive(Debug, Subcommand)]
enum Step {
    Collect(collect::CollectArgs),
    Plan(plan_command::PlanArgs),
    Apply(apply::ApplyArgs),
    Verify(verify::VerifyArgs),
    Undo(undo::UndoArgs),
}

pub(crate) async fn run(args: RecoverArgs, global: &Global) -> Result<ExitCode, Failure> {
    match args.step {
        Step::Collect(args) => collect::run(&args, global).await,
        Step::Plan(args) => plan_command::run(&args, global),
        Step::Apply(args) => apply::run(&args, global).await,
        Step::Verify(args) => verify::run(&args, global).await,
        Step::Undo(args) => undo::run(&args, global).await,
    }
}

#[cfg(test)]
mod tests;
