//! `confman dev`: a whole cluster on one machine, for trying things out.
//!
//! It starts an S3 server on loopback and one `confman serve` child process per node, each configured by
//! nothing but its environment, exactly as an operator would. `{dir}/dev.json` says all that a script needs.
//!
//! Promises:
//! - Ctrl-C, SIGTERM and `confman dev stop` stop every child; when this process is killed the children end too,
//!   because each reads a pipe that only this process holds open.
//! - Nothing is restarted behind the user's back: a node that exits is reported and stays down until
//!   `confman dev start`.
//! - `--fresh` removes only what an earlier `confman dev` made, and only in a directory that carries its mark
//!   and holds nothing else.
//!
//! It deliberately does not: listen beyond loopback, watch or heal nodes, or keep anything secret from the user
//! who runs it (key and token lie in the directory, readable by that user only).
//!
//! Where to go next: [`layout`] knows every file name, [`plan`] what each node is told, [`fleet`] the processes,
//! [`control`] the socket that the other terminal talks to, [`document`] `dev.json`.

mod announce;
mod certs;
mod control;
mod document;
mod fleet;
mod keeper;
pub(crate) mod layout;
mod plan;
mod ready;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use confman_client::ErrorKind;

/// `confman dev` and its actions on a cluster that runs already.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = false)]
pub struct DevArgs {
    /// Where the cluster lives: data, logs, keys, dev.json
    #[arg(long, default_value = "confman-dev", global = true, value_name = "DIR")]
    pub dir: PathBuf,
    /// How to start it (without an action).
    #[command(flatten)]
    pub start: StartArgs,
    /// What to do to a cluster that runs in another terminal.
    #[command(subcommand)]
    pub action: Option<DevAction>,
}

/// How to start a cluster.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// Number of nodes [default: 3, or as the directory has it]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=9))]
    pub nodes: Option<u16>,
    /// Number of configuration groups, fixed at birth [default: 1, or as the directory has it]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub shards: Option<u32>,
    /// An object store of yours instead of the built-in S3 server; its AWS_*, GOOGLE_* or AZURE_* come from the environment
    #[arg(long, value_name = "URL")]
    pub object_store: Option<String>,
    /// First API port; node N serves the API on base + 100 (N-1) and peers on the next one; 0 chooses free ports
    /// [default: 6100, or as the directory has it]
    #[arg(long, value_name = "PORT")]
    pub port_base: Option<u16>,
    /// Let the nodes speak TLS, with an authority and certificates made for this run
    #[arg(long)]
    pub tls: bool,
    /// Start over: remove what an earlier `confman dev` made in the directory
    #[arg(long)]
    pub fresh: bool,
}

/// What to do to one node, or to all of it, from another terminal.
#[derive(Debug, Subcommand)]
pub enum DevAction {
    /// Kill one node at once (SIGKILL); its data stays
    Kill(NodeArg),
    /// Kill one node and remove its data, as when a disk is lost
    Wipe(NodeArg),
    /// Start one node again
    Start(NodeArg),
    /// Stop one node in its tracks (SIGSTOP): it neither answers nor closes connections
    Pause(NodeArg),
    /// Let a paused node go on (SIGCONT)
    Resume(NodeArg),
    /// Show the nodes
    Status {
        /// One JSON document on stdout
        #[arg(long)]
        json: bool,
    },
    /// Stop everything, or one node, gracefully (SIGTERM, then SIGKILL after ten seconds)
    Stop {
        /// Only this node
        node: Option<String>,
        /// One JSON document on stdout
        #[arg(long)]
        json: bool,
    },
}

/// One node by name.
#[derive(Debug, Args)]
pub struct NodeArg {
    /// The node's name, for example node2 (or just 2)
    pub node: String,
    /// One JSON document on stdout: what was done, and the nodes as they are now
    #[arg(long)]
    pub json: bool,
}

/// Runs `confman dev` to its end, or one action against a running one. What goes wrong is told on stderr, and the exit
/// code is one of the table of all commands.
pub async fn run(args: DevArgs) -> ExitCode {
    let outcome = match args.action {
        None => run::start(&args.dir, &args.start).await,
        Some(action) => control::send(&args.dir, action).await,
    };
    outcome.unwrap_or_else(|error| {
        eprint!("{}", describe(&error));
        ExitCode::from(kind(&error).exit_code())
    })
}

/// An error whose remedy is not another command line or another directory.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Told {
    kind: ErrorKind,
    message: String,
}

impl Told {
    fn refused(message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Refused,
            message: message.into(),
        }
    }

    fn not_found(message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::NotFound,
            message: message.into(),
        }
    }

    fn unreachable(message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Unreachable,
            message: message.into(),
        }
    }
}

fn kind(error: &anyhow::Error) -> ErrorKind {
    error
        .downcast_ref::<Told>()
        .map_or(ErrorKind::Usage, |told| told.kind)
}

/// The error with its sources on one line, the hints below it.
fn describe(error: &anyhow::Error) -> String {
    let mut messages = Vec::new();
    let mut hints = String::new();
    for source in error.chain() {
        let text = source.to_string();
        let (message, hint) = text.split_once("\nhint: ").unwrap_or((&text, ""));
        messages.push(message.to_owned());
        if !hint.is_empty() {
            hints.push_str(&format!("hint: {hint}\n"));
        }
    }
    format!("error: {}\n{hints}", messages.join(": "))
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn what_is_not_told_otherwise_is_a_matter_of_usage() {
        let told = anyhow::Error::new(Told::refused("node1 is down")).context("kill node1");
        assert_eq!(kind(&told), ErrorKind::Refused);
        assert_eq!(kind(&anyhow::anyhow!("no such file")), ErrorKind::Usage);
    }

    #[test]
    fn hints_stand_below_the_whole_error() {
        let error = Err::<(), _>(anyhow::anyhow!("no such file"))
            .context("read dev.json\nhint: start a cluster with `confman dev`")
            .unwrap_err();
        assert_eq!(
            describe(&error),
            "error: read dev.json: no such file\nhint: start a cluster with `confman dev`\n"
        );
    }
}
