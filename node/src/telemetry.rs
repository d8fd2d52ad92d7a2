//! Logs, metrics, and what happens when a thread panics.
//!
//! Promises
//! - log lines go to stderr, one a line, as text or JSON; stdout stays free for results;
//! - every histogram has fixed buckets, so that they can be added up over nodes;
//! - with [`abort_on_panic`] a panic anywhere is logged and ends the process with `SIGABRT` (a shell shows
//!   exit code 134): a panic inside a Raft task would otherwise leave a node that looks alive and is not.
//!
//! Does not: choose what is measured; each package names its own metrics.

use std::io::IsTerminal;
use std::panic;
use std::sync::OnceLock;
use std::time::Duration;

use confman_config::LogFormat;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry_sdk::trace::SdkTracer;
use tracing::Dispatch;
use tracing_subscriber::filter::FilterExt as _;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, Layer as _, fmt, registry};

use crate::traces;

/// Logging cannot begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The directives of `CONFMAN_LOG`.
    #[error("read the log filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Something else logs already.
    #[error("start logging: {0}")]
    Started(#[from] TryInitError),
}

/// Starts logging to stderr.
///
/// # Errors
/// When the filter is wrong, or logging has been started before in this process.
pub fn init_logs(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    init_logs_and_traces(format, filter, None)
}

/// As [`init_logs`], with spans handed to a tracer where there is one.
pub(crate) fn init_logs_and_traces(
    format: LogFormat,
    filter: &str,
    tracer: Option<SdkTracer>,
) -> Result<(), TelemetryError> {
    let colours = std::io::stderr().is_terminal();
    Ok(dispatch(format, filter, colours, std::io::stderr, tracer)?.try_init()?)
}

/// Log lines of `filter` to `writer`, and spans to the tracer.
pub(crate) fn dispatch<W>(
    format: LogFormat,
    filter: &str,
    colours: bool,
    writer: W,
    tracer: Option<SdkTracer>,
) -> Result<Dispatch, TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder().parse(filter)?;
    let lines = fmt::layer().with_writer(writer);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(colours).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let filter = filter.and(traces::not_in_log_lines());
    let logged = registry().with(lines.with_filter(filter));
    // Not a layer that may be none: with one, spans that nobody takes are asked about each time.
    Ok(match tracer {
        Some(tracer) => logged.with(traces::layer(tracer)).into(),
        None => logged.into(),
    })
}

/// From now on a panic of any thread is logged and ends the process with `SIGABRT`.
///
/// Not for tests that run several nodes in one process.
pub fn abort_on_panic() {
    panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let message = info.payload_as_str().unwrap_or("(no message)");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(
            thread = thread.name().unwrap_or("(unnamed)"),
            place,
            %backtrace,
            "a thread panicked and this process ends: {message}"
        );
        std::process::abort();
    }));
}

/// Seconds, from a read in memory to a write that waits for its time limit.
const LATENCY_BUCKETS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// Seconds, from a small snapshot to the restore of a large one.
const JOB_BUCKETS: [f64; 14] = [
    0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0,
];
/// Bytes, from a small value to a large snapshot.
const BYTES_BUCKETS: [f64; 12] = [
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    16_777_216.0,
    104_857_600.0,
    1_073_741_824.0,
    8_589_934_592.0,
    68_719_476_736.0,
];
/// Metrics about jobs that take long; all other times are latencies.
const JOB_PREFIXES: [&str; 2] = ["confman_snapshot_", "confman_restore_"];

/// How often what was measured is moved into its buckets, so that it does not pile up between scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The media type of `/metrics`.
pub(crate) const METRICS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Starts collecting metrics in this process; a second call gives the same handle.
pub fn init_metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(start_metrics).clone()
}

fn start_metrics() -> PrometheusHandle {
    let recorder = metrics_builder().build_recorder();
    let handle = recorder.handle();
    if let Err(error) = metrics::set_global_recorder(recorder) {
        tracing::error!(%error, "something else collects metrics already: /metrics stays empty");
    }
    crate::meters::describe();
    crate::meters::begin();
    let upkeep = handle.clone();
    let spawned = std::thread::Builder::new()
        .name("metrics-upkeep".to_owned())
        .spawn(move || {
            loop {
                std::thread::sleep(UPKEEP_INTERVAL);
                upkeep.run_upkeep();
            }
        });
    if let Err(error) = spawned {
        tracing::error!(%error, "start the upkeep of the metrics: memory grows until the next scrape");
    }
    handle
}

fn metrics_builder() -> PrometheusBuilder {
    // The first that fits counts, full names before prefixes before suffixes.
    let jobs = JOB_PREFIXES.map(|prefix| (Matcher::Prefix(prefix.to_owned()), &JOB_BUCKETS[..]));
    let bytes = (Matcher::Suffix("_bytes".to_owned()), &BYTES_BUCKETS[..]);
    let mut builder = buckets(PrometheusBuilder::new(), |builder| {
        builder.set_buckets(&LATENCY_BUCKETS)
    });
    for (matcher, values) in jobs.into_iter().chain([bytes]) {
        builder = buckets(builder, |builder| {
            builder.set_buckets_for_metric(matcher, values)
        });
    }
    builder
}

/// Applies buckets that are not empty, the only thing that can be wrong with them.
fn buckets<E: std::fmt::Debug>(
    builder: PrometheusBuilder,
    apply: impl FnOnce(PrometheusBuilder) -> Result<PrometheusBuilder, E>,
) -> PrometheusBuilder {
    #[allow(
        clippy::expect_used,
        reason = "only empty buckets are refused, and these are constants above"
    )]
    apply(builder).expect("buckets are not empty")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// Set in the child of [`a_panic_anywhere_is_logged_and_ends_the_process`].
    const CHILD: &str = "TELEMETRY_TEST_CHILD";

    /// A process that logs a line in the given format and then panics in a thread of its own.
    fn child() {
        let Some(format) = std::env::var_os(CHILD) else {
            return;
        };
        let format = if format == "json" {
            LogFormat::Json
        } else {
            LogFormat::Text
        };
        init_logs(format, "info").expect("the first in this process");
        init_logs(format, "info").expect_err("the second");
        tracing::debug!("below the filter");
        tracing::info!(answer = 42, "a line\n\x1b[31mred");
        abort_on_panic();
        let thread = std::thread::Builder::new().name("raft-core".to_owned());
        let thread = thread.spawn(|| panic!("boom {}", 7)).expect("started");
        let _ = thread.join();
        println!("still alive");
    }

    #[test]
    fn a_panic_anywhere_is_logged_and_ends_the_process() {
        use std::os::unix::process::ExitStatusExt;
        child();
        if std::env::var_os(CHILD).is_some() {
            return;
        }
        for format in ["text", "json"] {
            let test = concat!(
                module_path!(),
                "::a_panic_anywhere_is_logged_and_ends_the_process"
            );
            let (_, test) = test.split_once("::").expect("a crate");
            let output = Command::new(std::env::current_exe().expect("this program"))
                .args(["--exact", test, "--nocapture"])
                .env(CHILD, format)
                .output()
                .expect("started");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(
                output.status.signal(),
                Some(6),
                "{:?}: {stderr}",
                output.status
            );
            assert!(!String::from_utf8_lossy(&output.stdout).contains("still alive"));
            for part in ["boom 7", "raft-core", "telemetry.rs"] {
                assert!(stderr.contains(part), "{part} is missing in: {stderr}");
            }
            assert!(
                !stderr.contains("below the filter") && !stderr.contains('\x1b'),
                "{stderr:?}"
            );
            let line = stderr
                .lines()
                .find(|line| line.contains("42"))
                .expect("the line");
            if format == "json" {
                let line: serde_json::Value =
                    serde_json::from_str(line).expect("one object a line");
                assert_eq!(line["answer"], 42);
                assert_eq!(line["level"], "INFO");
            }
        }
    }

    #[test]
    fn histograms_have_the_buckets_of_their_kind() {
        let recorder = metrics_builder().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            metrics::histogram!("confman_api_request_seconds").record(0.003);
            metrics::histogram!("confman_snapshot_build_seconds").record(45.0);
            metrics::histogram!("confman_value_bytes").record(5000.0);
            metrics::counter!("confman_writes_total").increment(3);
        });
        let text = handle.render();
        for line in [
            "confman_api_request_seconds_bucket{le=\"0.0025\"} 0",
            "confman_api_request_seconds_bucket{le=\"0.005\"} 1",
            "confman_snapshot_build_seconds_bucket{le=\"30\"} 0",
            "confman_snapshot_build_seconds_bucket{le=\"60\"} 1",
            "confman_value_bytes_bucket{le=\"4096\"} 0",
            "confman_value_bytes_bucket{le=\"16384\"} 1",
            "confman_writes_total 3",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is missing in:\n{text}"
            );
        }
    }

    #[test]
    fn metrics_can_be_asked_for_twice() {
        let first = init_metrics();
        metrics::counter!("confman_test_total").increment(1);
        assert!(init_metrics().render().contains("confman_test_total 1"));
        assert!(first.render().contains("confman_test_total 1"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn i20_a_filter_that_the_settings_take_is_one(
            parts in prop::collection::vec(
                ("([a-z_0-9]{1,5}(::[a-z_]{1,5})?=)?", prop::sample::select(vec!["off", "error", "warn", "info", "debug", "trace", "inof", ""])),
                1..4,
            )
        ) {
            let filter: Vec<String> = parts.into_iter().map(|(module, level)| format!("{module}{level}")).collect();
            let filter = filter.join(",");
            use confman_config::catalog::Declared;
            if confman_config::catalog::LOG.accepts(&filter) {
                prop_assert!(EnvFilter::builder().parse(&filter).is_ok(), "{filter}");
            }
        }
    }
}
