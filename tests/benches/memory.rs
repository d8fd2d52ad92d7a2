//! I6: the greatest memory of a node while it snapshots and while it restores a large state, from the store and from a peer, and of a drill
//! over it.
//!
//! `cargo bench -p confman-tests --bench memory -- --entries 1000000 --large 20`
//!
//! Three nodes; many values of 256 bytes and some of 100 MB; then a snapshot, then a lost disk, then another without the store. It prints one JSON
//! document and ends with 1 when a node was more than the bound above its idle memory while it took, restored, sent or received the
//! snapshot, or the drill needed more than that by itself. What filling took is shown beside them: that is the write path, with its caches and what is on its way to followers.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use confman_tests::agree;
use confman_tests::argument::argument;
use confman_tests::binary;
use confman_tests::cluster::{CONFIG, Cluster, META, Plan};
use confman_tests::restore::tool;
use confman_tests::wait::wait_until;
use serde_json::{Value, json};

const SMALL_VALUE_BYTES: usize = 256;
const LARGE_VALUE_BYTES: usize = 100 * 1024 * 1024;
/// The aim is 256 MiB, which is held by little: the README has the figures.
const BOUND_OVER_IDLE_KIB: u64 = 320 * 1024;
const LONG: Duration = Duration::from_secs(900);

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let (entries, large) = (argument("--entries", 100_000)?, argument("--large", 2)?);
    binary::confman_rebuilt()?;
    binary::drtool_rebuilt()?;
    let cluster = Plan::new("memory")
        // Seldom by themselves, so that the snapshot that is measured is a large one; without any the log would never be purged.
        .env("CONFMAN_SNAPSHOT_LOG_THRESHOLD", "200000")
        .env("CONFMAN_SNAPSHOT_BYTES_THRESHOLD", "1099511627776")
        .env("CONFMAN_SNAPSHOT_TIME_THRESHOLD_SECS", "31536000")
        .env("CONFMAN_SNAPSHOT_LOG_MARGIN", "10")
        .env("CONFMAN_ELECTION_TIMEOUT_MIN_MS", "1500")
        .env("CONFMAN_ELECTION_TIMEOUT_MAX_MS", "3000")
        .start()
        .await?;
    let idle = memory(&cluster)?;
    let begin = Instant::now();
    fill(&cluster, entries, large).await?;
    let filled = begin.elapsed();
    agree::state_hashes(&cluster, CONFIG).await?;
    let after_fill = memory(&cluster)?;

    reset(&cluster)?;
    let begin = Instant::now();
    let taken = cluster.snapshot_within(CONFIG, LONG).await?;
    let snapshot_took = begin.elapsed();
    let while_snapshot = memory(&cluster)?;

    let victim = cluster.follower(CONFIG).await?;
    let restore_took = lose_disk(&cluster, victim).await?;
    let while_restore = memory(&cluster)?;
    let restore = cluster.group(victim, CONFIG).await?["restore"].clone();

    // A drill is of every group.
    cluster.snapshot_within(META, LONG).await?;
    let (drill_kib, drill_took) = drill(&cluster).await?;

    // Without the store the state comes from the leader, which builds a snapshot of its own and streams it.
    cluster.stop_store().await;
    let transfer_took = lose_disk(&cluster, victim).await?;
    let while_transfer = memory(&cluster)?;
    let transfer = cluster.group(victim, CONFIG).await?["restore"].clone();
    ensure!(transfer["source"] == "peer", "{transfer}");

    let idle_kib = idle.iter().map(|(now, _)| *now).max().context("no nodes")?;
    let peak = |measured: &[(u64, u64)]| {
        measured
            .iter()
            .map(|(_, peak)| *peak)
            .max()
            .unwrap_or_default()
    };
    let names = cluster.nodes().iter().map(|node| node.name.clone());
    let names: Vec<String> = names.collect();
    // Where a phase began counts too: a peak cannot be less than what an earlier phase left.
    let each = |measured: &[(u64, u64)]| {
        let nodes = names.iter().zip(measured);
        nodes
            .map(|(name, (now, peak))| {
                let measured = json!({ "peakMib": peak / 1024, "afterMib": now / 1024 });
                (name.clone(), measured)
            })
            .collect::<serde_json::Map<_, _>>()
    };
    let over_idle = |measured: &[(u64, u64)]| peak(measured).saturating_sub(idle_kib) / 1024;
    let document = json!({
        "entries": entries, "smallValueBytes": SMALL_VALUE_BYTES, "largeValues": large,
        "largeValueBytes": LARGE_VALUE_BYTES, "fillSeconds": filled.as_secs_f64(),
        "snapshotSeconds": snapshot_took.as_secs_f64(), "snapshot": taken,
        "restoreSeconds": restore_took.as_secs_f64(), "restore": restore,
        "peerTransferSeconds": transfer_took.as_secs_f64(), "peerTransfer": transfer,
        "drillSeconds": drill_took.as_secs_f64(), "drillPeakMib": drill_kib / 1024,
        "idleMib": idle_kib / 1024, "boundOverIdleMib": BOUND_OVER_IDLE_KIB / 1024,
        "peakOverIdleMib": {
            "fill": over_idle(&after_fill), "snapshot": over_idle(&while_snapshot), "restore": over_idle(&while_restore),
            "peerTransfer": over_idle(&while_transfer),
        },
        "nodes": {
            "lost": cluster.node(victim).name,
            "fill": each(&after_fill), "snapshot": each(&while_snapshot), "restore": each(&while_restore),
            "peerTransfer": each(&while_transfer),
        },
    });
    println!("{document:#}");
    let worst = [&while_snapshot, &while_restore, &while_transfer]
        .map(|measured| over_idle(measured))
        .into_iter()
        .chain([drill_kib / 1024])
        .max();
    cluster.finish()?;
    let within = worst.unwrap_or_default() <= BOUND_OVER_IDLE_KIB / 1024;
    Ok(if within {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Takes a node's disk and waits until it is back with its state, with the memory of all nodes counted from then on.
async fn lose_disk(cluster: &Cluster, victim: usize) -> anyhow::Result<Duration> {
    cluster.node(victim).kill()?;
    cluster.node(victim).wipe()?;
    reset(cluster)?;
    let begin = Instant::now();
    cluster.node(victim).start()?;
    wait_until("the node is back", LONG, || async {
        let ready = cluster.api(victim).get("/health/ready").send().await?;
        ready.expect(&[200])?;
        Ok(())
    })
    .await?;
    let took = begin.elapsed();
    agree::state_hashes(cluster, CONFIG).await?;
    Ok(took)
}

fn memory(cluster: &Cluster) -> anyhow::Result<Vec<(u64, u64)>> {
    cluster
        .nodes()
        .iter()
        .filter(|node| node.pid().is_some())
        .map(|node| node.memory_kib())
        .collect()
}

fn reset(cluster: &Cluster) -> anyhow::Result<()> {
    cluster
        .nodes()
        .iter()
        .filter(|node| node.pid().is_some())
        .try_for_each(|node| node.reset_peak_memory())
}

async fn fill(cluster: &Cluster, entries: usize, large: usize) -> anyhow::Result<()> {
    let per_namespace = 10_000;
    for (place, from) in (0..entries).step_by(per_namespace).enumerate() {
        let count = per_namespace.min(entries - from);
        cluster
            .fill(
                &format!("small/n{place}"),
                "k",
                count,
                &"v".repeat(SMALL_VALUE_BYTES - 8),
            )
            .await?;
        if place % 10 == 0 {
            eprintln!("{from} of {entries} entries");
        }
    }
    let leader = cluster.wait_leader(CONFIG).await?;
    for number in 0..large {
        // Not compressible, and no two alike.
        let mut random = confman_tests::random::Random::new(number as u64);
        let bytes = random.bytes(LARGE_VALUE_BYTES);
        let answer = cluster
            .api(leader)
            .ask(
                reqwest::Method::PUT,
                &format!("/api/v1/config/large/v{number}"),
            )
            .header("content-type", "application/octet-stream")
            .timeout(LONG)
            .body(bytes)
            .send()
            .await?
            .expect(&[200, 201])?;
        let size: Value = answer.json()?["size"].clone();
        ensure!(size == LARGE_VALUE_BYTES, "stored {size} bytes");
        eprintln!("{} of {large} large values", number + 1);
    }
    Ok(())
}

/// A drill over what the store has: the greatest memory of `drtool`, which its throw-away node is no part of.
async fn drill(cluster: &Cluster) -> anyhow::Result<(u64, Duration)> {
    let scratch = cluster.dir()?.join("scratch");
    let scratch = scratch.to_str().context("a path that is no text")?;
    let command = tool(cluster, &["drill", "--scratch", scratch]).await;
    let begin = Instant::now();
    let child = command.spawn()?;
    let status = format!("/proc/{}/status", child.id().context("it has ended")?);
    let mut peak = 0;
    let ended = child.wait_with_output();
    tokio::pin!(ended);
    let output = loop {
        tokio::select! {
            ended = &mut ended => break ended?,
            () = tokio::time::sleep(Duration::from_millis(100)) => {
                // The system keeps the greatest; it is gone with the process.
                let text = std::fs::read_to_string(&status).unwrap_or_default();
                let line = text.lines().find(|line| line.starts_with("VmHWM:"));
                let kib = line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok());
                peak = peak.max(kib.unwrap_or_default());
            }
        }
    };
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(peak > 0, "no memory was seen");
    Ok((peak, begin.elapsed()))
}
