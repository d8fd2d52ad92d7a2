//! `drtool status`: every node's own account side by side, and what follows from them.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use confman_cli::connect::TargetArgs;
use confman_cli::failure::{Failure, stdout_failed};
use confman_client::Client;
use jiff::Timestamp;

use super::account::{self, Asked};
use super::report::{Report, Verdict};
use super::{judge, show};
use crate::codes;
use crate::context::Global;
use crate::drill::last::{self, Drills};
use crate::store::StoreArgs;

/// Show every node's own account of the cluster; exit code 0 healthy, 1 degraded, 6 no quorum
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Go on showing it, every so many seconds, until Ctrl-C; with --json one document a line
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
    /// Wait until the cluster is healthy, for at most so many seconds [default: 300], then show it
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "300",
          conflicts_with = "watch", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    wait_healthy: Option<u64>,
    #[command(flatten)]
    to: TargetArgs,
    #[command(flatten)]
    store: StoreArgs,
}

pub(crate) async fn run(args: &StatusArgs, global: &Global) -> Result<ExitCode, Failure> {
    let client = args.to.client(global.verbose, None)?;
    let Some(seconds) = args.watch else {
        let asked = async {
            match args.wait_healthy {
                None => account::ask_all(&client).await,
                Some(seconds) => wait_healthy(&client, Duration::from_secs(seconds), global).await,
            }
        };
        let looked = async { futures::join!(asked, drills(args, global)) };
        let (asked, drills) = global.during("every node is asked", looked).await;
        let report = judge::report(asked?, drills, now_us());
        if global.json {
            confman_cli::output::json(&report)?;
        } else {
            print(&show::text(&report, global.colored()))?;
        }
        return Ok(ExitCode::from(report.verdict.exit_code()));
    };
    watch(&client, args, Duration::from_secs(seconds), global).await
}

fn now_us() -> i64 {
    Timestamp::now().as_microsecond()
}

/// When the last drill was, where a store is named.
async fn drills(args: &StatusArgs, global: &Global) -> Option<Drills> {
    last::look(&args.store, now_us(), global).await
}

/// Asks every node and puts together what they say.
pub(crate) async fn look(client: &Client) -> Result<Report, Failure> {
    let asked = account::ask_all(client).await?;
    Ok(judge::report(asked, None, now_us()))
}

/// How often a cluster that is not healthy yet is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What the nodes say when they are healthy for the first time, or at last when the time is over.
async fn wait_healthy(client: &Client, bound: Duration, global: &Global) -> Result<Asked, Failure> {
    let deadline = tokio::time::Instant::now() + bound;
    let mut said = None;
    let bar = global.waiting("the cluster is to be healthy");
    loop {
        let asked = account::ask_all(client).await?;
        let report = judge::report(asked.clone(), None, now_us());
        let over = tokio::time::Instant::now() + LOOK_AGAIN > deadline;
        if report.verdict == Verdict::Healthy || over {
            return Ok(asked);
        }
        let waits_for = report.findings.first().map(|finding| finding.what.clone());
        if waits_for != said {
            if let Some(what) = &waits_for {
                global.note(format!("not healthy yet: {what}"));
                let line = format!("not healthy yet: {what}");
                bar.set_message(confman_cli::escape::text(&line).into_owned());
            }
            said = waits_for;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn watch(
    client: &Client,
    args: &StatusArgs,
    pause: Duration,
    global: &Global,
) -> Result<ExitCode, Failure> {
    // Drills are made by the week: once will do.
    let drills = drills(args, global).await;
    let clear = std::io::stdout().is_terminal() && !global.json;
    let mut code = 0;
    loop {
        let report = tokio::select! {
            asked = account::ask_all(client) => judge::report(asked?, drills.clone(), now_us()),
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::from(code)),
        };
        code = report.verdict.exit_code();
        if global.json {
            let line = serde_json::to_string(&report)
                .map_err(|error| codes::bug(format!("write the report: {error}")))?;
            print(&format!("{line}\n"))?;
        } else {
            let text = show::text(&report, global.colored());
            let head = if clear { "\u{1b}[H\u{1b}[2J" } else { "" };
            print(&format!(
                "{head}{}\n{text}\n",
                Timestamp::now()
                    .round(jiff::Unit::Second)
                    .unwrap_or_default()
            ))?;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::from(code)),
        }
    }
}

/// Text that is escaped already.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| stdout_failed(&error))
}
