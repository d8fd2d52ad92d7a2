//! I5: the latency of writes with and without a running snapshot, in the same run.
//!
//! `cargo bench -p confman-tests --bench latency -- --entries 1000000 --writers 8 --seconds 20`
//!
//! Three nodes with a state of that size; writers in a closed loop; first quiet, then beside one thread of the lowest priority
//! that does nothing but count, then with one snapshot after the other, then quiet again. It prints one JSON document. On a machine whose processors
//! are few, anything that runs beside the nodes shows in their slowest answers, however far back it stands: the second phase says how
//! much that is, so that what the third has beyond it is the snapshot's own. `TMPDIR=/dev/shm` leaves the disk out, which the
//! nodes of this bench share and those of a cluster do not.
//!
//! The object store, which is another machine in real life, runs here on threads that stand back and keeps its objects in memory, so that what it
//! takes is not counted as the nodes'.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use confman_tests::argument::argument;
use confman_tests::binary;
use confman_tests::cluster::{CONFIG, Cluster, Plan};
use confman_tests::store::Store;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(600);
const VALUE_BYTES: usize = 256;

/// Where the store keeps its objects: in memory where that can be had, for its disk is another machine's too.
fn objects_dir() -> std::io::Result<tempfile::TempDir> {
    match tempfile::tempdir_in("/dev/shm") {
        Ok(dir) => Ok(dir),
        Err(_) => tempfile::tempdir(),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let entries = argument("--entries", 200_000)?;
    let writers = argument("--writers", 8)?;
    let seconds = argument("--seconds", 15)?;
    binary::confman_rebuilt()?;
    let aside = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .on_thread_start(stand_back)
        .enable_all()
        .build()?;
    let disk = objects_dir()?;
    let objects = disk.path().join("s3");
    let store = aside
        .spawn(async move { Store::start(&objects).await })
        .await??;
    let mut plan = Plan::new("latency").without_store();
    for (name, value) in store.env() {
        plan = plan.env(&name, &value);
    }
    let cluster = plan
        // Snapshots on demand only, when the measurement wants them.
        .env("CONFMAN_SNAPSHOT_LOG_THRESHOLD", "1000000000")
        .env("CONFMAN_SNAPSHOT_BYTES_THRESHOLD", "1099511627776")
        .env("CONFMAN_SNAPSHOT_TIME_THRESHOLD_SECS", "31536000")
        .env("CONFMAN_HEARTBEAT_MS", "250")
        .env("CONFMAN_ELECTION_TIMEOUT_MIN_MS", "1500")
        .env("CONFMAN_ELECTION_TIMEOUT_MAX_MS", "3000")
        .start()
        .await?;
    for (place, from) in (0..entries).step_by(10_000).enumerate() {
        let count = 10_000.min(entries - from);
        cluster
            .fill(
                &format!("small/n{place}"),
                "k",
                count,
                &"v".repeat(VALUE_BYTES - 8),
            )
            .await?;
    }
    let leader = cluster.wait_leader(CONFIG).await?;
    let term = cluster.group(leader, CONFIG).await?["term"].clone();
    let span = Duration::from_secs(seconds as u64);
    let quiet = measure(&cluster, leader, writers, span, false).await?;
    let counting = Counting::start();
    let beside = measure(&cluster, leader, writers, span, false).await?;
    counting.stop();
    let busy = measure(&cluster, leader, writers, span, true).await?;
    let again = measure(&cluster, leader, writers, span, false).await?;
    let after = cluster.group(leader, CONFIG).await?["term"].clone();
    let document = json!({
        "entries": entries, "writers": writers, "valueBytes": VALUE_BYTES, "secondsEach": seconds,
        "quiet": quiet, "besideLowestPriority": beside, "whileSnapshots": busy, "quietAgain": again, "elections": term != after,
    });
    println!("{document:#}");
    cluster.finish()?;
    drop(store);
    aside.shutdown_background();
    Ok(())
}

fn stand_back() {
    // On Linux this is the calling thread alone; elsewhere the figures hold the store's share too.
    let _ = rustix::process::setpriority_process(None, 19);
}

/// A thread of the lowest priority that always has something to do.
struct Counting {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Counting {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let thread = std::thread::spawn(move || {
            stand_back();
            let mut count = 0_u64;
            while !seen.load(Ordering::Relaxed) {
                count = std::hint::black_box(count.wrapping_add(1));
            }
        });
        Self { stop, thread }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.join());
    }
}

async fn measure(
    cluster: &Cluster,
    leader: usize,
    writers: usize,
    span: Duration,
    snapshots: bool,
) -> anyhow::Result<Value> {
    let stop = Arc::new(AtomicBool::new(false));
    let writer = |number: usize| {
        let (api, stop) = (cluster.api(leader), stop.clone());
        async move {
            let mut latencies = Vec::new();
            let value = json!("w".repeat(VALUE_BYTES));
            while !stop.load(Ordering::Relaxed) {
                let path = format!("/api/v1/config/bench/w{number}-{}", latencies.len() % 100);
                let begin = Instant::now();
                api.put(&path, &value).send().await?.expect(&[200, 201])?;
                latencies.push(begin.elapsed());
            }
            anyhow::Ok(latencies)
        }
    };
    let tasks: Vec<_> = (0..writers)
        .map(|number| tokio::spawn(writer(number)))
        .collect();
    let begin = Instant::now();
    let mut taken = 0;
    while begin.elapsed() < span {
        if snapshots {
            cluster.snapshot_within(CONFIG, LONG).await?;
            taken += 1;
        } else {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let lasted = begin.elapsed();
    stop.store(true, Ordering::Relaxed);
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    latencies.sort_unstable();
    let at = |percent: f64| {
        let place = (latencies.len().saturating_sub(1)) as f64 * percent / 100.0;
        let latency = latencies
            .get(place.round() as usize)
            .copied()
            .unwrap_or_default();
        (latency.as_secs_f64() * 100_000.0).round() / 100.0
    };
    Ok(json!({
        "snapshots": taken,
        "writesPerSecond": (latencies.len() as f64 / lasted.as_secs_f64()).round(),
        "milliseconds": { "p50": at(50.0), "p90": at(90.0), "p99": at(99.0), "p999": at(99.9), "max": at(100.0) },
    }))
}
