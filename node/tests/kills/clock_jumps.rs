//! Clocks that are years off on the bad day, and jump while a life is begun or the members change: it ends as it would have, no sooner and
//! no later. What is waited for is measured by clocks that nobody sets.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use confman_tests::agree;
use confman_tests::cluster::{CONFIG, Cluster, META, PATIENCE, Plan};
use confman_tests::judge;
use confman_tests::load::{Load, LoadPlan, NAMESPACE};
use confman_tests::members::{changed, members, named, voters};
use confman_tests::restore::{apply, lose_every_node, make_plan, run, snapshot_all, wait_spent};
use confman_tests::wait::wait_until;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::clock::{Clocks, YEAR};
use super::kit::revived;

const GROUPS: [&str; 2] = [META, CONFIG];
const OFF: i64 = 10 * YEAR;
/// A new life waits three of them for the silent.
const LOOKS_EVERY_MS: &str = "2000";
const WAITS: Duration = Duration::from_secs(6);
/// By how much the test may see the begin or the end of it late.
const SEEN_WITHIN: Duration = Duration::from_secs(1);
/// What a leader's clock says, one after the other, while the members change.
const JUMPS: [i64; 4] = [OFF, -OFF, 0, -OFF];
const JUMP_EVERY: Duration = Duration::from_millis(100);

/// What clients know before the bad day.
struct Known {
    audits: Vec<Value>,
    token: String,
}

async fn lived_in(name: &str) -> anyhow::Result<(Clocks, Known)> {
    let plan = Plan::new(name).env("CONFMAN_STORE_FENCE_INTERVAL_MS", LOOKS_EVERY_MS);
    let clocks = Clocks::start(plan).await?;
    let cluster = &clocks.cluster;
    for text in ["older", "newer"] {
        cluster.fill("app", "k", 50, text).await?;
    }
    let token = cluster.write("app/last", &json!("word")).await?.token()?;
    for group in GROUPS {
        agree::state_hashes(cluster, group).await?;
    }
    let known = Known {
        audits: agree::audits(cluster, Some("app")).await?,
        token: token.to_string(),
    };
    Ok((clocks, known))
}

/// Waits until one of these has said that; gives the line.
async fn said(cluster: &Cluster, nodes: &[usize], words: &[&str]) -> anyhow::Result<String> {
    let nodes = nodes.iter().map(|index| cluster.node(*index));
    let logs = nodes.map(|node| Box::pin(node.wait_log(words, PATIENCE)));
    Ok(futures::future::select_ok(logs).await?.0)
}

/// Waits until one of these, whose clocks are off by so much, says that it waits; sets them as far off in the other direction then, and gives
/// how long it took from there until it began.
async fn jump_while_it_waits(
    clocks: &Clocks,
    nodes: &[usize],
    off: i64,
) -> anyhow::Result<Duration> {
    let cluster = &clocks.cluster;
    let waits = said(cluster, nodes, &["does not begin yet", "it waits until"]).await?;
    let since = Instant::now();
    for index in nodes {
        clocks.set(*index, -off)?;
    }
    let there = Timestamp::from_second(Timestamp::now().as_second() + off)?.to_string();
    let until = format!("it waits until {}", &there[..4]);
    ensure!(waits.contains(&until), "its clock is not off: {waits}");
    said(cluster, nodes, &["a new incarnation has begun"]).await?;
    Ok(since.elapsed())
}

/// The new life has all that was acknowledged, was begun once in each group, and all three are of one mind.
async fn check(cluster: &Cluster, known: &Known, action: &str) -> anyhow::Result<()> {
    let token = cluster.write("new/life", &json!(true)).await?.token()?;
    ensure!(token.incarnation == 2, "{token}");
    let stale = cluster.api(0).get("/api/v1/config/app/last");
    let stale = stale.consistency("read-your-writes");
    let stale = stale.header("x-confman-version", &known.token);
    ensure!(stale.send().await?.status == 409);
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    for group in GROUPS {
        agree::state_hashes(cluster, group).await?;
    }
    ensure!(
        agree::audits(cluster, Some("app")).await? == known.audits,
        "the history is another"
    );
    for n in 0..50 {
        let read = cluster
            .read(0, &format!("app/k{n}"), "linearizable")
            .await?;
        ensure!(read == Some(json!(format!("newer-{n}"))), "{n}: {read:?}");
    }
    let events = agree::audits(cluster, None).await?;
    let begun = events.iter().filter(|e| e["action"] == action).count();
    ensure!(begun == GROUPS.len(), "{begun} times {action}: {events:?}");
    Ok(())
}

async fn recovered(name: &str, off: i64) -> anyhow::Result<()> {
    let (clocks, known) = lived_in(name).await?;
    let cluster = &clocks.cluster;
    cluster.kill_all()?;
    for index in [1, 2] {
        cluster.node(index).wipe()?;
    }
    let survivor = cluster.node(0);
    let directory = survivor.data_dir.to_str().context("no text")?;
    let lost = ["--lost", "node2", "--lost", "node3"];
    for args in [
        &["collect", "--out", "c.json", directory][..],
        &[&["plan", "c.json"][..], &lost].concat(),
        &["apply", "--yes", directory],
    ] {
        run(cluster, &[&["recover"], args].concat(), 0).await?;
    }
    clocks.set(0, off)?;
    survivor.start()?;
    let took = jump_while_it_waits(&clocks, &[0], off).await?;
    ensure!(took > WAITS - SEEN_WITHIN, "it waited only {took:?}");
    cluster.wait_ready(0).await?;
    check(cluster, &known, "cluster.recovered").await?;
    run(cluster, &["recover", "verify"], 0).await?;
    clocks.cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i13_a_recovery_by_a_clock_that_is_ahead_and_jumps_back_waits_as_long() -> anyhow::Result<()>
{
    recovered("clock-back", OFF).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i13_a_recovery_by_a_clock_that_is_behind_and_jumps_ahead_waits_as_long()
-> anyhow::Result<()> {
    recovered("clock-ahead", -OFF).await
}

/// Two of three begin, so that the third is one of whom nobody heard.
async fn restored(name: &str, off: i64) -> anyhow::Result<()> {
    let (clocks, known) = lived_in(name).await?;
    let cluster = &clocks.cluster;
    snapshot_all(cluster, &GROUPS).await?;
    lose_every_node(cluster)?;
    let (plan, _) = make_plan(cluster, &[]).await?;
    apply(cluster, &plan, 0).await?;
    for index in 0..3 {
        clocks.set(index, off)?;
    }
    for index in [0, 1] {
        cluster.node(index).start()?;
    }
    let took = jump_while_it_waits(&clocks, &[0, 1], off).await?;
    ensure!(took > WAITS - SEEN_WITHIN, "it waited only {took:?}");
    cluster.wait_all_ready().await?;
    check(cluster, &known, "cluster.restored").await?;
    wait_spent(cluster, 2).await?;
    clocks.cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i13_a_restore_by_clocks_that_are_ahead_and_jump_back_waits_as_long() -> anyhow::Result<()>
{
    restored("clocks-back", OFF).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i13_a_restore_by_clocks_that_are_behind_and_jump_ahead_waits_as_long() -> anyhow::Result<()>
{
    restored("clocks-ahead", -OFF).await
}

/// Has that node lead everything, by a clock that jumps for as long as the change takes; who comes is started until it is taken in.
async fn change(
    clocks: &Clocks,
    leader: usize,
    comes: &[usize],
    args: &[&str],
) -> anyhow::Result<()> {
    let cluster = &clocks.cluster;
    let name = &cluster.node(leader).name;
    wait_until("it leads everything", PATIENCE, || async {
        changed(cluster, &["transfer-leader", name]).await?;
        for group in GROUPS {
            let leads = cluster.wait_leader(group).await?;
            ensure!(leads == leader, "{leads} leads {group}");
        }
        Ok(())
    })
    .await?;
    for index in comes {
        cluster.node(*index).start()?;
    }
    let mut jumps = 0;
    let jumping = async {
        for off in JUMPS.into_iter().cycle() {
            clocks.set(leader, off)?;
            jumps += 1;
            tokio::time::sleep(JUMP_EVERY).await;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        jumped = jumping => jumped.context("set a clock")?,
        changed = revived(cluster, comes, changed(cluster, args)) => {
            changed?;
        }
    }
    ensure!(jumps > 2, "{args:?}: it jumped {jumps} times");
    clocks.set(leader, 0)
}

/// The machine of who has left goes.
fn clear(cluster: &Cluster, index: usize) -> anyhow::Result<()> {
    cluster.node(index).kill()?;
    cluster.node(index).wipe()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i1_i14_members_change_while_the_clock_of_the_leader_jumps() -> anyhow::Result<()> {
    let clocks = Clocks::start(Plan::new("clock-members").spares(2)).await?;
    let cluster = &clocks.cluster;
    let plan = LoadPlan {
        writers: 2,
        readers: 1,
        pause: Duration::from_millis(20),
        ..LoadPlan::default()
    };
    let load = Load::start(cluster, &plan);
    load.wait_progress(30, PATIENCE).await?;
    let [node4, node5] = [3, 4].map(|index| &cluster.node(index).peer_addr);
    change(&clocks, 0, &[3], &["add", "node4", node4]).await?;
    let replace = ["replace", "node1", "node5", node5, "--yes"];
    change(&clocks, 0, &[4], &replace).await?;
    clear(cluster, 0)?;
    change(&clocks, 1, &[], &["remove", "node2", "--yes"]).await?;
    clear(cluster, 1)?;
    load.wait_progress(30, PATIENCE).await?;
    let told = members(cluster).await?;
    assert_eq!(
        voters(&told)?,
        named(&["node3", "node4", "node5"]),
        "{told}"
    );
    let history = load.stop().await?;
    judge::judge(&agree::running(cluster), NAMESPACE, &history).await?;
    // Each change is written down once, with a time that is right.
    let ended = told["change"]["endedAt"].as_str().context("no endedAt")?;
    let ended: Timestamp = ended.parse()?;
    let away = Timestamp::now().as_second() - ended.as_second();
    ensure!((-60..300).contains(&away), "{away} s ago: {told}");
    clocks.cluster.finish()
}
