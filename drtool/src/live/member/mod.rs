//! `drtool member`: one command per intent.
//!
//! - [`change`]: plan, show, ask, send; [`follow`]: to the end of the change, with progress; [`list`]: who is there.
//!
//! Promises: what is shown is what the node would refuse or do by the same function; a command that is killed and run
//! again goes on with the same change, and is "nothing to do" when it is done; a node id that goes is retired only after
//! an operator agreed to the plan.
//!
//! Does not: take a step. The cluster's own executors do, whoever leads.

mod change;
mod follow;
mod list;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use confman_cli::connect::TargetArgs;
use confman_cli::failure::Failure;
use confman_client::wire::ChangeIntent;

use crate::context::Global;

/// List the members, or change who they are
#[derive(Debug, Args)]
pub(crate) struct MemberArgs {
    #[command(subcommand)]
    command: MemberCommand,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // There is one in a process.
enum MemberCommand {
    /// Show who is a member and what each shall be
    List(ListArgs),
    /// Take in a new node: a learner first, a voter when it has caught up
    Add {
        /// The node's name
        name: String,
        /// Where it listens for other nodes: HOST:PORT
        addr: String,
        /// Do not let it vote; `promote` does later
        #[arg(long)]
        learner: bool,
        #[command(flatten)]
        how: ChangeArgs,
    },
    /// Let a learner vote when it has caught up
    Promote {
        /// The node's name
        name: String,
        #[command(flatten)]
        how: ChangeArgs,
    },
    /// Take a voter's vote; it follows on
    Demote {
        /// The node's name
        name: String,
        #[command(flatten)]
        how: ChangeArgs,
    },
    /// Take a node out and retire its id; a name that is only expected is forgotten
    Remove {
        /// The node's name
        name: String,
        #[command(flatten)]
        how: ChangeArgs,
    },
    /// Let one node take the place of another, in one change
    Replace {
        /// The node that goes
        old: String,
        /// The node that comes: a learner, or a new name
        new: String,
        /// For a new name, where it listens for other nodes: HOST:PORT
        addr: Option<String>,
        #[command(flatten)]
        how: ChangeArgs,
    },
    /// Let a node lead
    TransferLeader {
        /// The node's name
        name: String,
        /// Only this group, for example config/0 [default: all]
        #[arg(long)]
        group: Option<String>,
        #[command(flatten)]
        how: ChangeArgs,
    },
}

/// Options of `list`.
#[derive(Debug, Args)]
struct ListArgs {
    /// Also those whose id is retired
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    to: TargetArgs,
}

/// Options of every change.
#[derive(Debug, Args)]
struct ChangeArgs {
    /// Show the plan and do nothing
    #[arg(long)]
    plan: bool,
    /// Agree to the plan beforehand
    #[arg(long)]
    yes: bool,
    /// Do it although fewer nodes may go afterwards than now
    #[arg(long)]
    allow_less_tolerance: bool,
    /// Return when the change is begun, instead of following it to its end
    #[arg(long)]
    no_wait: bool,
    /// Follow it for at most this long
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 600,
        conflicts_with = "no_wait"
    )]
    within: u64,
    #[command(flatten)]
    to: TargetArgs,
}

pub(crate) async fn run(args: MemberArgs, global: &Global) -> Result<ExitCode, Failure> {
    let (intent, how) = match args.command {
        MemberCommand::List(args) => return list::run(&args, global).await,
        MemberCommand::Add {
            name,
            addr,
            learner,
            how,
        } => {
            let intent = ChangeIntent::Add {
                name,
                peer_addr: addr,
                learner_only: learner,
            };
            (intent, how)
        }
        MemberCommand::Promote { name, how } => (ChangeIntent::Promote { name }, how),
        MemberCommand::Demote { name, how } => (ChangeIntent::Demote { name }, how),
        MemberCommand::Remove { name, how } => (ChangeIntent::Remove { name }, how),
        MemberCommand::Replace {
            old,
            new,
            addr,
            how,
        } => {
            let intent = ChangeIntent::Replace {
                old_name: old,
                name: new,
                peer_addr: addr,
            };
            (intent, how)
        }
        MemberCommand::TransferLeader { name, group, how } => {
            (ChangeIntent::TransferLeader { name, group }, how)
        }
    };
    change::run(intent, &how, global).await
}
