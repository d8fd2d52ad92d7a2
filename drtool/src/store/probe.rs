//! `drtool store probe`: what a store really does, as a table with a verdict.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use confman_cli::escape;
use confman_cli::failure::Failure;
use confman_cli::output;
use confman_client::ErrorKind;
use confman_snapshot::repository::{
    LongProbe, ProbePlan, ProbeReport, StoreSettings, Suitability, Verdict,
};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::{StoreArgs, errors};
use crate::codes;
use crate::context::Global;

/// The answer "no" of a check.
const UNSUITABLE: u8 = 1;
const MIB: u64 = 1 << 20;
/// How many checks there are, for the bar.
const STEPS: u64 = 18;

/// Ask a store itself what it does
#[derive(Debug, Args)]
#[command(name = "store")]
pub struct StoreCommandArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    Probe(ProbeArgs),
}

/// Try out what a store really does: conditions, ranges, parts, deletions, clock, speed
#[derive(Debug, Args)]
#[command(after_help = "\
Writes objects under probe/ below the URL and deletes them, also after Ctrl-C; one that could not be deleted is named. The \
exit code is 1 when something that is needed does not work. Nothing depends on conditional writes: a store that ignores them \
is suitable, with limits.")]
struct ProbeArgs {
    /// The store [default: that of --store]
    #[arg(value_name = "URL", conflicts_with = "store")]
    url: Option<String>,
    /// Size of the large object in MiB; 0 leaves it out
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    big: u32,
    /// Rounds of small requests that are timed
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs the command.
///
/// # Errors
/// The store cannot be asked, or not even a small object can be put and read back.
pub async fn run(args: StoreCommandArgs, global: &Global) -> Result<ExitCode, Failure> {
    match args.command {
        StoreCommand::Probe(args) => probe(args, global).await,
    }
}

async fn probe(args: ProbeArgs, global: &Global) -> Result<ExitCode, Failure> {
    let store = StoreArgs {
        store: args.url.or(args.store.store),
    };
    let repository = store.open(global).await?;
    let is_s3 = repository.url().starts_with("s3");
    let (mut bulk, mut checksums, mut altered) = (None, None, None);
    if is_s3 {
        let in_bulk = [("AWS_DISABLE_BULK_DELETE", "false")];
        let summed = [
            ("AWS_CHECKSUM_ALGORITHM", "sha256"),
            ("AWS_UNSIGNED_PAYLOAD", "true"),
        ];
        bulk = Some(store.open_as(&in_bulk, false, global).await?);
        checksums = Some(store.open_as(&summed[..1], false, global).await?);
        altered = Some(store.open_as(&summed, true, global).await?);
    }
    let plan = ProbePlan {
        big_bytes: (args.big > 0).then_some(u64::from(args.big) * MIB),
        rounds: usize::try_from(args.rounds).unwrap_or(usize::MAX),
        bulk,
        checksums,
        altered,
        ..ProbePlan::default()
    };
    let probe = LongProbe::new(&repository, plan);
    let bar = global.progress("probe", STEPS);
    let running = probe.run(|check| {
        bar.set_message(check);
        bar.inc(1);
        global.note(format!("trying {check}"));
    });
    let ended = tokio::select! {
        ended = running => ended,
        // Only says that it shall stop: it ends by itself, and cleans up.
        () = until_stopped(&probe) => return Err(codes::refuse("BUG", ErrorKind::Bug, "the signals ended")),
    };
    bar.finish_and_clear();
    let report = ended.map_err(|error| errors::store(&error))?;
    let settings = repository.settings();
    if global.json {
        output::json(&Shown {
            report: &report,
            settings,
        })?;
    } else {
        for setting in &settings.in_force {
            output::line(&format!("in force: {}={}", setting.name, setting.value))?;
        }
        for name in &settings.ignored {
            output::line(&format!("not known, without effect: {name}"))?;
        }
        print(&report)?;
    }
    Ok(match report.suitability {
        Suitability::Suitable | Suitability::SuitableWithLimits => ExitCode::SUCCESS,
        Suitability::Unsuitable => ExitCode::from(UNSUITABLE),
        Suitability::Unknown => ExitCode::from(ErrorKind::Unknown.exit_code()),
    })
}

/// What was found, and with which of the store's own variables.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    report: &'a ProbeReport,
    settings: &'a StoreSettings,
}

/// Tells the probe to stop when the operator does; never ends.
async fn until_stopped(probe: &LongProbe) {
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signals) => {
                signals.recv().await;
            }
            // Without signals only kill -9 is left, and the next probe sweeps.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
    }
    probe.stop();
    eprintln!("stopping: the objects of the probe are deleted first");
    std::future::pending().await
}

fn print(report: &ProbeReport) -> Result<(), Failure> {
    let mut table = output::table(["CHECK", "NEEDED", "VERDICT", "FOUND"]);
    for check in &report.checks {
        let verdict = match check.verdict {
            Verdict::Good => "good",
            Verdict::NotOffered => "not offered",
            Verdict::Limited => "limited",
            Verdict::Ignored => "ignored",
            Verdict::Failed => "FAILED",
        };
        let needed = if check.required { "yes" } else { "no" };
        table.add_row([
            check.name.to_owned(),
            needed.to_owned(),
            verdict.to_owned(),
            escape::text(&check.found).into_owned(),
        ]);
    }
    output::print_table(&table)?;
    for latency in &report.latencies {
        output::line(&format!(
            "{:<7} median {:>8.2} ms   nine in ten {:>8.2} ms   longest {:>8.2} ms   ({} times)",
            latency.operation, latency.median_ms, latency.p90_ms, latency.max_ms, latency.count
        ))?;
    }
    if let (Some(up), Some(down)) = (
        report.upload_bytes_per_second,
        report.download_bytes_per_second,
    ) {
        output::line(&format!(
            "large object: {}/s up, {}/s down, one request at a time",
            output::bytes(up as u64),
            output::bytes(down as u64)
        ))?;
    }
    if report.swept > 0 {
        output::line(&format!(
            "{} objects that an earlier probe had left were deleted",
            report.swept
        ))?;
    }
    for object in &report.left_behind {
        output::line(&format!("LEFT BEHIND {object}: it could not be deleted"))?;
    }
    let verdict = match report.suitability {
        Suitability::Suitable => "suitable",
        Suitability::SuitableWithLimits => {
            "suitable, with limits: nothing that is needed is missing"
        }
        Suitability::Unsuitable => "NOT SUITABLE: something that is needed does not work",
        Suitability::Unknown => "unknown: the probe was stopped before its end",
    };
    output::line(&format!("{}: {verdict}", report.store))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_probe_of_memory_finds_it_suitable_and_leaves_nothing() {
        let dir = std::path::Path::new("/nowhere");
        let url = format!("memory://probe-{:016x}", rand::random::<u64>());
        let repository = confman_snapshot::Repository::open(&url, dir, [])
            .await
            .unwrap();
        let plan = ProbePlan {
            big_bytes: Some(MIB),
            rounds: 2,
            ..ProbePlan::default()
        };
        let mut steps = 0;
        let probe = LongProbe::new(&repository, plan);
        let report = probe.run(|_| steps += 1).await.unwrap();
        assert_eq!(steps, STEPS, "the bar is as long as the probe");
        assert_ne!(report.suitability, Suitability::Unsuitable, "{report:?}");
        assert_eq!(report.left_behind, Vec::<String>::new());
    }
}
