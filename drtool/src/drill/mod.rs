//! `drtool drill`: a restore rehearsed, so that it is known before the bad day what comes back, how fast, and how old.
//!
//! - `scratch`: the directory that it happens in, and its end. `node`: the throw-away node that is booted there.
//! - `living`: what the living cluster says, where it answers. `compare`: the restored state against the snapshots, byte by
//!   byte. `rehearse`: the phases in their order. `report`: what came out, as a document and as text.
//! - `last`: when the last one was, for `drtool status`.
//!
//! Promises: the real store is read, and one report is put into it; the real cluster is asked, over HTTP, and nothing of it is
//! touched. The node on the copy knows neither: another cluster's name, loopback, its own keys, nothing of this process's
//! environment. It ends with the drill, also on Ctrl-C; killed, it ends by itself, and the next drill sweeps.
//!
//! Does not: prove that the machines of a real restore are fast, or that anybody can reach them.

mod codes;
mod compare;
pub(crate) mod last;
mod living;
mod node;
mod rehearse;
pub(crate) mod report;
mod scratch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use confman_cli::connect::TargetArgs;
use confman_cli::failure::Failure;
use confman_cli::output;
use confman_client::ErrorKind;
use confman_snapshot::Repository;
use confman_snapshot::repository::DrillVerdict;
use tokio::signal::unix::{SignalKind, signal};

pub use codes::CODES;

use self::report::Drill;
use self::scratch::Scratch;
use crate::context::Global;
use crate::restore::find::WhichArgs;
use crate::store::{StoreArgs, errors};

/// Rehearse a restore: fetch, prove, boot a throw-away node on it, read from it, and keep a report in the store
#[derive(Debug, Args)]
pub(crate) struct DrillArgs {
    /// Where the scratch directory is made; it needs twice the size of the records [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Leave the scratch directory, to look at the copy
    #[arg(long)]
    keep: bool,
    /// The node's program [default: `confman` beside this one, else in PATH]
    #[arg(long, value_name = "FILE")]
    confman: Option<PathBuf>,
    /// How long the throw-away node may take to be ready
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    within: u64,
    /// How many values are compared byte for byte
    #[arg(long, value_name = "COUNT", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1000))]
    sample: u16,
    /// Who drills, for the report [default: the user of this shell]
    #[arg(long, value_name = "NAME")]
    operator: Option<String>,
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    to: TargetArgs,
}

pub(crate) async fn run(args: &DrillArgs, global: &Global) -> Result<ExitCode, Failure> {
    // Everything that can be wrong with the call is wrong before anything is done.
    let program = node::program(args.confman.as_deref())?;
    let client = args.to.client(global.verbose, None)?;
    let repository = args.store.open(global).await?;
    let scratch = Scratch::make(args.scratch.as_deref(), global)?;
    let mut booted = None;
    let job = rehearse::Job {
        args,
        program: &program,
        repository: &repository,
        client: &client,
        scratch: scratch.path(),
        global,
    };
    let ended = tokio::select! {
        ended = rehearse::rehearse(&job, &mut booted) => ended,
        () = stop_asked() => Err(interrupted()),
    };
    // Whatever came of it: first the node ends, then its directory goes.
    if let Some(node) = booted.take() {
        node.end().await;
    }
    let kept = scratch.close(args.keep);
    let mut drill = ended?;
    drill.kept = kept?.map(|path| path.display().to_string());
    let stored = store(&repository, &mut drill).await;
    if global.json {
        output::json(&drill)?;
    } else {
        crate::live::status::print(&drill.text())?;
    }
    stored?;
    Ok(match drill.verdict {
        DrillVerdict::Passed => ExitCode::SUCCESS,
        DrillVerdict::Degraded | DrillVerdict::Failed => {
            ExitCode::from(ErrorKind::Damaged.exit_code())
        }
    })
}

/// Puts the report into the store. A drill whose report is not kept has not been, for everybody else.
async fn store(repository: &Repository, drill: &mut Drill) -> Result<(), Failure> {
    let report = drill.report()?;
    match repository.put_report(&report).await {
        Ok(object) => {
            drill.object = Some(object);
            Ok(())
        }
        Err(error) => {
            let (kind, _) = errors::named(error.kind);
            let message = format!("keep the report: {}", errors::split(&error.to_string()).0);
            Err(crate::codes::refuse("DRILL_NOT_KEPT", kind, message).with_hint(
                "the drill itself is done, and told above; mend the store, or give this key the right to put objects under reports/, and drill again",
            ))
        }
    }
}

/// Ends with the first signal that asks this program to stop.
async fn stop_asked() {
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signals) => {
                signals.recv().await;
            }
            // Without signals only kill -9 is left: the node ends by itself then, and the next drill sweeps.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
    }
}

fn interrupted() -> Failure {
    crate::codes::refuse(
        "DRILL_CALLED_OFF",
        ErrorKind::Unknown,
        "the drill was called off",
    )
    .with_hint("its node has ended and its directory is gone; no report was kept")
}
