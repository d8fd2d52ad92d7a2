//! The object store is down, for minutes if need be: ordinary writes go on, nothing is purged, and it heals.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use confman_tests::agree;
use confman_tests::cluster::{CONFIG, Cluster, PATIENCE, Plan};
use confman_tests::load::{Load, LoadPlan};
use confman_tests::wait::wait_until;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::crash::judge;

#[tokio::test(flavor = "multi_thread")]
async fn i18_writes_go_on_while_the_store_is_down_and_nothing_is_purged() -> anyhow::Result<()> {
    let cluster = Plan::new("store-down")
        .env("CONFMAN_SNAPSHOT_LOG_THRESHOLD", "300")
        .env("CONFMAN_SNAPSHOT_LOG_MARGIN", "10")
        .start()
        .await?;
    cluster.fill("app", "k", 400, "value").await?;
    wait_until("a first snapshot", PATIENCE, || async {
        let group = cluster.group(0, CONFIG).await?;
        anyhow::ensure!(
            group["snapshot"]["index"].as_u64().unwrap_or(0) > 300,
            "{}",
            group["snapshotError"]
        );
        Ok(())
    })
    .await?;
    let recorded = |group: &serde_json::Value| group["snapshot"]["index"].as_u64().unwrap_or(0);

    cluster.stop_store().await;
    let load = Load::start(
        &cluster,
        &LoadPlan {
            writers: 3,
            readers: 1,
            ..LoadPlan::default()
        },
    );
    load.wait_progress(50, PATIENCE).await?;
    let at_stop = recorded(&cluster.group(0, CONFIG).await?);
    cluster.fill("app", "down", 1_500, "value").await?;
    load.wait_progress(100, PATIENCE).await?;
    wait_until("the failure shows in status", PATIENCE, || async {
        for index in 0..3 {
            if !cluster.group(index, CONFIG).await?["snapshotError"].is_null() {
                return Ok(());
            }
        }
        anyhow::bail!("no snapshotError on any node")
    })
    .await?;
    for index in 0..3 {
        let group = cluster.group(index, CONFIG).await?;
        assert!(
            recorded(&group) <= at_stop + 400,
            "a snapshot was recorded without a store: {group}"
        );
        assert!(
            group["purgedIndex"].as_u64().unwrap() <= recorded(&group),
            "{group}"
        );
        assert!(group["logEntries"].as_u64().unwrap() > 1_500, "{group}");
        // A store that is down does not make a node unready.
        cluster
            .api(index)
            .get("/health/ready")
            .send()
            .await?
            .expect(&[200])?;
    }
    let history = load.stop().await?;
    judge(&cluster, &history).await?;

    cluster.resume_store().await?;
    wait_until("a snapshot of all that", PATIENCE, || async {
        for index in 0..3 {
            let group = cluster.group(index, CONFIG).await?;
            anyhow::ensure!(
                recorded(&group) > at_stop + 1_500,
                "{} {}",
                group["snapshot"],
                group["snapshotError"]
            );
            anyhow::ensure!(
                group["snapshotError"].is_null(),
                "{}",
                group["snapshotError"]
            );
        }
        Ok(())
    })
    .await?;
    // The log is kept back to the snapshot before the newest: one more, and it goes.
    cluster.snapshot(CONFIG).await?;
    wait_until("the purge of all that", PATIENCE, || async {
        for index in 0..3 {
            let purged = cluster.group(index, CONFIG).await?["purgedIndex"].clone();
            anyhow::ensure!(purged.as_u64().unwrap_or(0) > at_stop + 1_000, "{purged}");
        }
        Ok(())
    })
    .await?;
    cluster.finish()
}

/// How long the store is away each time: longer than any of the nodes' own timeouts and pauses about it.
const AWAY: Duration = Duration::from_secs(75);

/// Takes connections where the store was, and answers nothing: a store that hangs, or a firewall that swallows.
async fn hang(address: &str) -> anyhow::Result<JoinHandle<()>> {
    let listener = TcpListener::bind(address).await?;
    Ok(tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            held.push(connection);
        }
    }))
}

/// For as long as the store is away writes are acknowledged.
async fn go_on(load: &Load) -> anyhow::Result<()> {
    let until = Instant::now() + AWAY;
    while Instant::now() < until {
        load.wait_progress(20, PATIENCE).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i18_minutes_without_the_store_and_beside_one_that_never_answers_stop_no_write()
-> anyhow::Result<()> {
    let cluster = Plan::new("store-minutes")
        .env("CONFMAN_SNAPSHOT_LOG_THRESHOLD", "300")
        .env("CONFMAN_SNAPSHOT_LOG_MARGIN", "10")
        .start()
        .await?;
    cluster.fill("app", "k", 400, "value").await?;
    cluster.snapshot(CONFIG).await?;
    let endpoint = match cluster.store().await.as_ref() {
        Some(store) => store.env()["AWS_ENDPOINT_URL"].clone(),
        None => anyhow::bail!("a cluster without a store"),
    };
    let address = endpoint.trim_start_matches("http://").to_owned();
    let load = Load::start(
        &cluster,
        &LoadPlan {
            writers: 2,
            readers: 1,
            // Enough to make snapshots due all the time, and not more than can be judged.
            pause: Duration::from_millis(40),
            ..LoadPlan::default()
        },
    );
    load.wait_progress(50, PATIENCE).await?;

    cluster.stop_store().await;
    go_on(&load).await?;
    let hanging = hang(&address).await?;
    go_on(&load).await?;
    hanging.abort();
    // What it holds is let go with it, and the address is free.
    assert!(hanging.await.is_err_and(|end| end.is_cancelled()));
    let before = cluster.group(0, CONFIG).await?["appliedIndex"].as_u64();
    let before = before.context("an index")?;
    cluster.resume_store().await?;
    let history = load.stop().await?;
    judge(&cluster, &history).await?;

    wait_until("a snapshot of all that", PATIENCE, || async {
        for index in 0..3 {
            let group = cluster.group(index, CONFIG).await?;
            anyhow::ensure!(
                group["snapshot"]["index"].as_u64() >= Some(before),
                "{} {}",
                group["snapshot"],
                group["snapshotError"]
            );
        }
        Ok(())
    })
    .await?;
    cluster.finish()
}

/// How often the nodes have said that they know what the store does.
fn probed(cluster: &Cluster) -> anyhow::Result<usize> {
    let mut count = 0;
    for node in cluster.nodes() {
        let log = node.log_text()?;
        let said = log.lines().filter(|line| {
            line.contains("object store probed") && line.contains("conditional_writes=\"honoured\"")
        });
        count += said.count();
    }
    Ok(count)
}

async fn wait_probed(cluster: &Cluster, times: usize) -> anyhow::Result<()> {
    wait_until("every node says what the store does", PATIENCE, || async {
        let now = probed(cluster)?;
        anyhow::ensure!(now == times, "{now} of {times}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i18_a_cluster_with_good_disks_starts_without_its_store_and_probes_it_later()
-> anyhow::Result<()> {
    let cluster = Plan::new("cold-no-store").start().await?;
    wait_probed(&cluster, 3).await?;
    cluster.fill("app", "k", 100, "value").await?;
    cluster.snapshot(CONFIG).await?;
    cluster.kill_all()?;
    cluster.stop_store().await;
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    cluster.write("app/k", &json!("v")).await?;
    agree::state_hashes(&cluster, CONFIG).await?;
    for node in cluster.nodes() {
        node.wait_log(&["the object store could not be probed"], PATIENCE)
            .await?;
    }
    assert_eq!(probed(&cluster)?, 3, "nobody has seen it since");
    cluster.resume_store().await?;
    wait_probed(&cluster, 6).await?;
    let metrics = cluster
        .api(0)
        .get("/metrics")
        .send()
        .await?
        .expect(&[200])?;
    let measured = "confman_store_conditional_writes 1";
    assert!(metrics.text().contains(measured), "{}", metrics.text());
    cluster.finish()
}
