//! `confman bench`: a small load generator, to compare settings, machines and etcd with one and the same client.
//!
//! Promises: what is not measured is not printed; warming up does not count; errors are counted by kind beside the
//! figures, never left out silently; the loop is the same for every target.
//!
//! Does not: judge. A figure is worth what the quiet of its machine is worth.

mod load;
mod target;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use confman_client::ErrorKind;
use serde::Serialize;

use super::connect::{ConnectArgs, OutputArgs};
use super::failure::Failure;
use super::output;
use super::path::check_namespace;
use load::{Load, Measured};
use target::{Confman, Etcd, Target};

/// How reads are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Consistency {
    /// As of now
    Linearizable,
    /// At least as new as the newest write of this run
    ReadYourWrites,
    /// Whatever the node that is asked has
    Eventual,
}

/// Measure throughput and latency of writes and reads
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  confman bench --writers 32 --duration 30
  confman bench --writers 16 --rate 500 --duration 60        writes on a schedule: a pause shows in every write it delays
  confman bench --writers 0 --readers 64 --consistency eventual
  confman bench --target etcd=http://127.0.0.1:2379 --writers 32 --duration 30")]
pub(crate) struct BenchArgs {
    /// Tasks that write
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(0..=4096))]
    writers: u32,
    /// Tasks that read
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=4096))]
    readers: u32,
    /// Size of each value
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=104_857_600))]
    value_bytes: u32,
    /// How many keys are written and read
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    keys: u64,
    /// How long it is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    duration: u64,
    /// Workers start one after the other within this time, which is not measured
    #[arg(long, value_name = "SECONDS", default_value_t = 1)]
    ramp: u64,
    /// Writes a second, all writers together, on a schedule [default: each as soon as its last is answered]
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// How reads are made
    #[arg(long, value_enum, default_value_t = Consistency::Linearizable)]
    consistency: Consistency,
    /// Namespace for the keys
    #[arg(long, value_name = "NAMESPACE", default_value = "bench")]
    namespace: String,
    /// Spread the keys over so many namespaces (NAMESPACE-0, ...), to reach more shards
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    spread: u16,
    /// Something else than Confman: etcd=URLS drives etcd's v3 JSON gateway
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    #[command(flatten)]
    out: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// The document of `--json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    target: String,
    consistency: Consistency,
    writers: u32,
    readers: u32,
    value_bytes: u32,
    keys: u64,
    rate: Option<f64>,
    seconds: u64,
    writes: Option<Figures>,
    reads: Option<Figures>,
}

/// What was measured of one kind of request.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Figures {
    count: u64,
    per_second: f64,
    latency_ms: Latency,
    errors: u64,
    errors_by_kind: std::collections::BTreeMap<String, u64>,
    /// One for each second of the run.
    timeline: Vec<Second>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Latency {
    min: f64,
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Second {
    count: u64,
    max_ms: f64,
}

pub(crate) async fn run(args: BenchArgs) -> Result<ExitCode, Failure> {
    if args.writers == 0 && args.readers == 0 {
        return Err(Failure::usage(
            "no writers and no readers: there is nothing to measure",
        ));
    }
    if args
        .rate
        .is_some_and(|rate| !rate.is_finite() || rate <= 0.0)
    {
        return Err(Failure::usage(
            "--rate is a number of writes a second, above 0",
        ));
    }
    let (target, name) = target_of(&args)?;
    let load = Load {
        writers: args.writers,
        readers: args.readers,
        value_bytes: args.value_bytes as usize,
        keys: args.keys,
        ramp: Duration::from_secs(args.ramp),
        duration: Duration::from_secs(args.duration),
        rate: args.rate,
    };
    if args.readers > 0 {
        load::fill(&target, load).await.map_err(|what| {
            Failure::new(
                ErrorKind::Unreachable,
                format!("the keys could not be written: {what}"),
            )
        })?;
    }
    let run = load::run(&target, load).await;
    let report = Report {
        target: name,
        consistency: args.consistency,
        writers: args.writers,
        readers: args.readers,
        value_bytes: args.value_bytes,
        keys: args.keys,
        rate: args.rate,
        seconds: args.duration,
        writes: (args.writers > 0).then(|| figures(&run.writes, args.duration)),
        reads: (args.readers > 0).then(|| figures(&run.reads, args.duration)),
    };
    if args.out.json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    let count =
        |figures: &Option<Figures>| figures.as_ref().is_none_or(|figures| figures.count > 0);
    if count(&report.writes) && count(&report.reads) {
        Ok(ExitCode::SUCCESS)
    } else {
        Err(Failure::new(
            ErrorKind::Unreachable,
            "nothing was answered: these are no figures",
        ))
    }
}

fn target_of(args: &BenchArgs) -> Result<(Target, String), Failure> {
    if let Some(text) = &args.target {
        let Some(urls) = text.strip_prefix("etcd=") else {
            return Err(Failure::usage(format!("unknown target {text:?}"))
                .with_hint("--target etcd=http://127.0.0.1:2379"));
        };
        let timeout = Duration::from_secs(args.connect.to.timeout);
        return Ok((
            Target::Etcd(Etcd::new(urls, &args.namespace, args.consistency, timeout)?),
            text.clone(),
        ));
    }
    check_namespace(&args.namespace)?;
    if args.consistency == Consistency::ReadYourWrites && args.spread > 1 {
        return Err(Failure::usage(
            "a version token holds in one group: --spread and read-your-writes exclude each other",
        ));
    }
    let namespaces: Arc<[String]> = match args.spread {
        1 => Arc::new([args.namespace.clone()]),
        n => (0..n).map(|i| format!("{}-{i}", args.namespace)).collect(),
    };
    let client = args.connect.client()?;
    let name = client
        .endpoints()
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",");
    Ok((
        Target::Confman(Confman {
            client,
            namespaces,
            consistency: args.consistency,
            token: Arc::default(),
        }),
        name,
    ))
}

fn figures(measured: &Measured, seconds: u64) -> Figures {
    let histogram = &measured.latency_us;
    let ms = |us: u64| us as f64 / 1000.0;
    let quantile = |q: f64| {
        if histogram.is_empty() {
            0.0
        } else {
            ms(histogram.value_at_quantile(q))
        }
    };
    Figures {
        count: histogram.len(),
        per_second: histogram.len() as f64 / seconds as f64,
        latency_ms: Latency {
            min: if histogram.is_empty() {
                0.0
            } else {
                ms(histogram.min())
            },
            mean: histogram.mean() / 1000.0,
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: ms(histogram.max()),
        },
        errors: measured.errors.values().sum(),
        errors_by_kind: measured.errors.clone(),
        timeline: measured
            .seconds
            .iter()
            .map(|&(count, max)| Second {
                count,
                max_ms: ms(max),
            })
            .collect(),
    }
}

fn print(report: &Report) -> Result<(), Failure> {
    let Report {
        target,
        seconds,
        value_bytes,
        keys,
        writers,
        readers,
        ..
    } = report;
    output::line(&format!(
        "{target}: {writers} writers, {readers} readers, values of {value_bytes} bytes, {keys} keys, {seconds} s"
    ))?;
    let mut table = output::table([
        "",
        "COUNT",
        "PER SECOND",
        "MIN",
        "MEAN",
        "P50",
        "P90",
        "P99",
        "P99.9",
        "MAX",
        "ERRORS",
    ]);
    for (name, figures) in [("writes", &report.writes), ("reads", &report.reads)] {
        let Some(figures) = figures else { continue };
        let l = &figures.latency_ms;
        let ms = |value: f64| format!("{value:.2} ms");
        table.add_row([
            name.to_owned(),
            figures.count.to_string(),
            format!("{:.0}", figures.per_second),
            ms(l.min),
            ms(l.mean),
            ms(l.p50),
            ms(l.p90),
            ms(l.p99),
            ms(l.p999),
            ms(l.max),
            figures.errors.to_string(),
        ]);
    }
    output::print_table(&table)?;
    for figures in [&report.writes, &report.reads].into_iter().flatten() {
        for (what, count) in &figures.errors_by_kind {
            eprintln!("{count} x {}", super::escape::text(what));
        }
    }
    Ok(())
}
