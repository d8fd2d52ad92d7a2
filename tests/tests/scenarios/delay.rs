//! Nodes that are far from each other: everything between them arrives, and late.
//!
//! What can be borne follows from the heartbeat: a leader counts an answer to one that comes before the next (250 ms by itself).

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use confman_tests::cluster::{CONFIG, Cluster, META, PATIENCE, Plan};
use confman_tests::delay::{Delay, reach};
use confman_tests::load::{Load, LoadPlan};
use confman_tests::wait::wait_until;
use serde_json::{Value, json};

use crate::crash::judge;

/// Another continent: a round trip of 120 to 160 ms.
const FAR: (u64, u64) = (60, 20);
/// A round trip of 800 ms and more: three heartbeats are sent before one is answered.
const VERY_FAR: (u64, u64) = (400, 50);

/// A round trip of 700 ms.
const LONGER: (u64, u64) = (350, 0);

fn delay_all(cluster: &Cluster, (each_way, jitter): (u64, u64)) -> anyhow::Result<()> {
    (0..cluster.nodes().len())
        .try_for_each(|index| cluster.delay(index, Delay::millis(each_way, jitter)))
}

/// The terms of both groups, and who leads the configuration.
async fn terms(cluster: &Cluster) -> anyhow::Result<(u64, u64, usize)> {
    let leader = cluster.wait_leader(CONFIG).await?;
    let term = |group: Value| group["term"].as_u64().context("no term");
    let config = term(cluster.group(leader, CONFIG).await?)?;
    let meta = term(cluster.group(leader, META).await?)?;
    Ok((config, meta, leader))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i1_nodes_that_are_far_from_each_other_elect_nobody_anew_and_lose_nothing()
-> anyhow::Result<()> {
    let cluster = Plan::new("delay")
        .links()
        .env("CONFMAN_HEARTBEAT_MS", "250")
        // The heartbeat is what the way is measured against. A machine with much else to do must not be taken for a far one.
        .env("CONFMAN_ELECTION_TIMEOUT_MIN_MS", "4000")
        .env("CONFMAN_ELECTION_TIMEOUT_MAX_MS", "6000")
        .lay_out()
        .await?;
    // All links, from the birth on.
    delay_all(&cluster, FAR)?;
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    let before = terms(&cluster).await?;
    let leader = before.2;
    let follower = (leader + 1) % 3;
    let round_trip = Duration::from_millis(2 * FAR.0);
    let took = reach(&cluster.api(leader), &cluster.node(follower).name).await?;
    ensure!(took >= round_trip, "the links are short: {took:?}");
    let load = Load::start(&cluster, &LoadPlan::default());
    load.wait_progress(100, PATIENCE).await?;
    ensure!(terms(&cluster).await? == before, "somebody was elected");

    // One node only, so far away that no heartbeat to it is answered in time: the others are a quorum, and it follows.
    delay_all(&cluster, (0, 0))?;
    cluster.delay(follower, Delay::millis(VERY_FAR.0, VERY_FAR.1))?;
    let took = reach(&cluster.api(leader), &cluster.node(follower).name).await?;
    let round_trip = Duration::from_millis(2 * VERY_FAR.0);
    ensure!(took >= round_trip, "the link is short: {took:?}");
    load.wait_progress(500, PATIENCE).await?;
    let written = cluster.write("app/far", &json!("away")).await?.token()?;
    wait_until("the far one has it", PATIENCE, || async {
        let group = cluster.group(follower, CONFIG).await?;
        let applied = group["appliedIndex"].as_u64().unwrap_or_default();
        ensure!(applied >= written.index, "it is at {applied}");
        Ok(())
    })
    .await?;
    cluster.wait_ready(follower).await?;
    let read = cluster.read(follower, "app/far", "linearizable").await?;
    ensure!(read == Some(json!("away")), "{read:?}");
    ensure!(terms(&cluster).await? == before, "somebody was elected");

    // A leader that dies is followed by another one as soon as nearby: an election costs two round trips more.
    delay_all(&cluster, FAR)?;
    cluster.node(leader).kill()?;
    let died = Instant::now();
    let next = cluster.wait_leader(CONFIG).await?;
    eprintln!("another leader after {:?}", died.elapsed());
    ensure!(next != leader, "the dead one leads");
    load.wait_progress(50, PATIENCE).await?;
    cluster.node(leader).start()?;
    cluster.wait_ready(leader).await?;
    load.wait_progress(50, PATIENCE).await?;
    let history = load.stop().await?;
    eprintln!("{} operations", history.len());
    judge(&cluster, &history).await?;
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn a_longer_heartbeat_carries_a_longer_way() -> anyhow::Result<()> {
    let cluster = Plan::new("longer")
        .links()
        .env("CONFMAN_HEARTBEAT_MS", "1000")
        .env("CONFMAN_ELECTION_TIMEOUT_MIN_MS", "5000")
        .env("CONFMAN_ELECTION_TIMEOUT_MAX_MS", "8000")
        .start()
        .await?;
    let before = terms(&cluster).await?;
    delay_all(&cluster, LONGER)?;
    // A follower's read takes the way to the leader and back, and then the leader's to the others.
    for n in 0..3 {
        let value = json!(format!("value {n}"));
        cluster.write("app/far", &value).await?;
        for index in 0..3 {
            let read = cluster.read(index, "app/far", "linearizable").await?;
            ensure!(read.as_ref() == Some(&value), "{n} at {index}: {read:?}");
        }
    }
    ensure!(terms(&cluster).await? == before, "somebody was elected");
    cluster.finish()
}
