//! The store is killed, frozen, full, slow, and out of reach of one node: ordinary writes go on, and snapshots when it is back.

use anyhow::ensure;
use confman_tests::cluster::{CONFIG, PATIENCE};
use confman_tests::containers::cluster::{ContainerCluster, story};
use confman_tests::containers::network::Direction;
use confman_tests::random::Random;
use confman_tests::wait::wait_until;
use reqwest::Method;

/// The newest recorded snapshot, as every node knows it.
async fn recorded(cluster: &ContainerCluster) -> anyhow::Result<u64> {
    let mut newest = 0;
    for index in 0..cluster.nodes.len() {
        let group = cluster.group(index, CONFIG).await?;
        newest = newest.max(group["snapshot"]["index"].as_u64().unwrap_or_default());
    }
    Ok(newest)
}

/// Waits until a snapshot is recorded that is newer than this one.
async fn wait_newer(cluster: &ContainerCluster, than: u64) -> anyhow::Result<()> {
    wait_until("a newer snapshot", PATIENCE, || async {
        let now = recorded(cluster).await?;
        ensure!(now > than, "the newest is {now}");
        Ok(())
    })
    .await
}

/// The store takes nothing more for a while: nodes say so, and go on.
async fn store_full(cluster: &ContainerCluster) -> anyhow::Result<()> {
    let load = cluster.load("store-full");
    cluster.fill_store(true).await?;
    load.wait_progress(600, PATIENCE).await?;
    wait_until(
        "a node says that no snapshot can be taken",
        PATIENCE,
        || async {
            for index in 0..3 {
                if !cluster.group(index, CONFIG).await?["snapshotError"].is_null() {
                    return Ok(());
                }
            }
            anyhow::bail!("no snapshotError on any node")
        },
    )
    .await?;
    let before = recorded(cluster).await?;
    cluster.fill_store(false).await?;
    wait_newer(cluster, before).await?;
    cluster.end(load, "store-full").await
}

/// The line of the store, and bytes that no codec makes fewer: to read them back takes eight seconds at the least.
const SLOW_STORE_KILOBITS: u32 = 3_000;
const SLOW_STORE_BYTES: usize = 3_000_000;
/// What a store sends only where something is read from it, and not in answer to what it is sent.
const READ_BACK_BYTES: u64 = 100_000;

/// What the store sends waits for its turn: a snapshot, which counts when it has been read back, takes its time, and no write waits for it.
async fn store_slow(cluster: &ContainerCluster) -> anyhow::Result<()> {
    let bytes = Random::new(Random::seed()).bytes(SLOW_STORE_BYTES);
    wait_until("a value that makes snapshots large", PATIENCE, || async {
        let put = cluster.api(0).ask(Method::PUT, "/api/v1/config/big/noise");
        let put = put.header("x-confman-forward", "true").body(bytes.clone());
        let answer = put.timeout(PATIENCE).send().await?;
        answer.expect(&[200, 201]).map(|_| ())
    })
    .await?;

    let store = &cluster.store_pod;
    store.slow(SLOW_STORE_KILOBITS).await?;
    let load = cluster.load("store-slow");
    wait_until("writes beside a slow snapshot", PATIENCE, || async {
        let sent = store.sent_slowly().await?.unwrap_or_default();
        let before = recorded(cluster).await?;
        load.wait_progress(100, PATIENCE).await?;
        let sent = store.sent_slowly().await?.unwrap_or_default() - sent;
        ensure!(sent > READ_BACK_BYTES, "the store sent {sent} bytes");
        ensure!(recorded(cluster).await? == before, "it was read back");
        Ok(())
    })
    .await?;
    let before = recorded(cluster).await?;
    wait_newer(cluster, before).await?;
    store.heal().await?;
    cluster.end(load, "store-slow").await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Docker and images: run .ci/containers"]
async fn i18_writes_go_on_while_the_store_is_killed_frozen_full_or_slow() -> anyhow::Result<()> {
    story("store", 3, async |cluster| {
        cluster.snapshot().await?;

        let load = cluster.load("store-killed");
        cluster.kill_store().await?;
        // More than a snapshot's worth: one is tried, and fails.
        load.wait_progress(600, PATIENCE).await?;
        let before = recorded(cluster).await?;
        cluster.restart_store().await?;
        wait_newer(cluster, before).await?;
        cluster.end(load, "store-killed").await?;

        let load = cluster.load("store-frozen");
        cluster.pause_store().await?;
        load.wait_progress(600, PATIENCE).await?;
        let before = recorded(cluster).await?;
        cluster.unpause_store().await?;
        wait_newer(cluster, before).await?;
        cluster.end(load, "store-frozen").await?;

        if cluster.can_fill_store() {
            store_full(cluster).await?;
        } else {
            eprintln!("SKIPPED store-full: this store cannot be filled from outside");
        }

        store_slow(cluster).await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Docker and images: run .ci/containers"]
async fn i18_a_node_that_cannot_reach_the_store_serves_and_the_others_make_the_snapshots()
-> anyhow::Result<()> {
    story("nostore", 3, async |cluster| {
        let load = cluster.load("no-store");
        load.wait_progress(50, PATIENCE).await?;
        let leader = cluster.wait_leader().await?;
        let pod = &cluster.nodes[leader].pod;
        pod.cut(&[&cluster.store_pod], Direction::Both).await?;
        let before = recorded(cluster).await?;
        load.wait_progress(600, PATIENCE).await?;
        wait_newer(cluster, before).await?;
        wait_until("it says so in its metrics", PATIENCE, || async {
            let page = cluster.metrics(leader).await?;
            let unreachable = page.sum("confman_store_errors_total", &["kind=\"wait\""]);
            ensure!(unreachable > 0.0, "no request to the store failed");
            Ok(())
        })
        .await?;
        // It is as ready as the others.
        cluster.wait_ready(leader).await?;
        // And it starts without the store: its disk is good.
        cluster.stop(leader).await?;
        cluster.start_node(leader).await?;
        cluster.wait_ready(leader).await?;
        pod.heal().await?;
        cluster.end(load, "no-store").await?;
        Ok(())
    })
    .await
}
