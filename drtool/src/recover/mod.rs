//! A quorum is gone: collect, plan, apply, verify, undo.
//!
//! - [`collection`], [`directory`]: what is left, as one file of facts;
//! - [`decide`](decide::decide): the pure function from facts to a [`plan::Plan`], with an exact account of the loss.
//!
//! Promises:
//! - nothing is planned while a quorum lives or could form, from fewer directories than there are members unless the
//!   missing are given up by name, or from damaged, fenced or contradicting ones;
//! - a plan says beforehand what it loses (I15), is refused when it was changed, and when the directory was.
//!
//! Does not: need the store or a living node; both are asked when they are there.

mod codes;
mod collect;
pub mod collection;
pub mod decide;
pub mod directory;
mod file;
mod loss;
pub mod plan;
mod plan_command;
pub mod refusal;
mod survey;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use confman_cli::failure::Failure;

pub use codes::CODES;

use crate::context::Global;

/// Recover from a lost quorum: collect, plan
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
}

pub(crate) async fn run(args: RecoverArgs, global: &Global) -> Result<ExitCode, Failure> {
    match args.step {
        Step::Collect(args) => collect::run(&args, global).await,
        Step::Plan(args) => plan_command::run(&args, global),
    }
}

#[cfg(test)]
mod tests;
