//! An old majority that has all it needs (a quorum, clients, the store) and cannot be told by anybody: cut off, or frozen. Where the store can be
//! reached, what it acknowledges it acknowledges before the new life acknowledges anything (I13).

use std::time::Duration;

use anyhow::Context as _;
use confman_tests::cluster::{CONFIG, Cluster, PATIENCE, Plan};
use confman_tests::delay::Delay;
use confman_tests::store::ConditionalWrites;
use confman_tests::wait::wait_until;
use serde_json::json;

use super::kit::*;

const INTERVAL: &str = "CONFMAN_STORE_FENCE_INTERVAL_MS";

/// A step of the recovery by an operator who reaches the survivor's machine and no other.
async fn operator(cluster: &Cluster, survivor: usize, args: &[&str]) -> anyhow::Result<()> {
    let store = cluster.store().await.as_ref().map(|store| store.env());
    let node = cluster.node(survivor);
    let tool = cluster.drtool(["recover"]).args(args).arg("--json");
    let tool = tool.envs(store.unwrap_or_default());
    let ran = tool.env("CONFMAN_ENDPOINTS", &node.api_url).run().await?;
    ran.expect(0).map(|_| ())
}

/// Nobody can tell them: neither the survivor nor the operator reaches them, nor they them. They live, have clients and look into
/// the store, the last time just before the recovery claimed the new life there.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i13_a_living_majority_that_is_cut_off_acknowledges_nothing_after_the_new_life_does()
-> anyhow::Result<()> {
    cut_off("cut-off", "8000", None).await
}

/// The same, where the operator reaches no store and the survivor's answers it so slowly that one claim takes longer than a start waits for the
/// store: what it has put is seen by the old majority all the same, and waited for.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i13_a_store_that_is_slow_to_take_the_claim_lets_no_two_lives_write() -> anyhow::Result<()>
{
    cut_off("slow-claim", "4000", Some(Delay::millis(500, 0))).await
}

async fn cut_off(name: &str, interval: &str, slow: Option<Delay>) -> anyhow::Result<()> {
    let plan = Plan::new(name).links().env(INTERVAL, interval);
    let cluster = plan.lay_out().await?;
    let ways = ways_to_apis(&cluster, &[0, 1, 2]).await?;
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    let old = OldLife::lived(&cluster).await?;
    let leader = cluster.wait_leader(CONFIG).await?;
    let survivor = (leader + 1) % 3;
    let others: Vec<usize> = (0..3).filter(|node| *node != survivor).collect();
    cluster.node(survivor).kill()?;
    for (index, way) in ways.iter().enumerate() {
        cluster.close_to_newcomers(index)?;
        way.close();
    }
    let dir = cluster.node(survivor).data_dir.display().to_string();
    let collect = ["collect", "--force", "--out", "c.json", &dir];
    operator(&cluster, survivor, &collect).await?;
    let lost = others.iter().map(|node| cluster.node(*node).name.as_str());
    let lost = lost.flat_map(|name| ["--lost", name]);
    let mut plan = vec!["plan", "c.json", "--force", "--out", "plan.json"];
    plan.extend(lost);
    operator(&cluster, survivor, &plan).await?;
    let clients = Clients::of(&cluster, &others);
    let looked = wait_look(&cluster, leader).await?;
    let mut apply = vec!["apply", "--yes", "--plan", "plan.json", &dir];
    apply.extend(slow.map(|_| "--no-store"));
    operator(&cluster, survivor, &apply).await?;
    let _way = match slow {
        Some(delay) => Some(slow_store(&cluster, survivor, delay).await?),
        None => None,
    };
    cluster.node(survivor).start()?;
    let (status, text) = wait_until("the new life says that it waits", PATIENCE, || async {
        let (status, text) = readiness(&cluster, survivor).await?;
        anyhow::ensure!(text.contains("it waits until"), "{status}: {text}");
        Ok((status, text))
    })
    .await?;
    assert_eq!(status, 503, "{text}");
    let first = wait_first_write(&cluster, &[survivor], 2).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    judge_apart(&clients.stop().await?, looked, first)?;
    for node in &others {
        wait_fenced(&cluster, *node).await?;
    }
    let plan = std::fs::read(cluster.dir()?.join("plan.json"))?;
    let plan = serde_json::from_slice(&plan)?;
    judge_new_life(&cluster, &[survivor], &old, &plan).await?;
    cluster.finish()
}

/// Processes that were stopped with all that they believed, and requests that wait in their sockets: the first thing that they do when
/// they go on is to answer, and by their own account no time has passed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i13_a_majority_that_was_frozen_acknowledges_nothing_when_it_goes_on() -> anyhow::Result<()>
{
    let cluster = Plan::new("frozen-store")
        .env(INTERVAL, "2000")
        .start()
        .await?;
    let old = OldLife::lived(&cluster).await?;
    let leader = cluster.wait_leader(CONFIG).await?;
    let survivor = (leader + 1) % 3;
    let others: Vec<usize> = (0..3).filter(|node| *node != survivor).collect();
    for node in &others {
        cluster.node(*node).pause()?;
    }
    cluster.node(survivor).kill()?;
    let plan = planned(&cluster, &[survivor], "plan.json").await?;
    carry_out(&cluster, "apply", "plan.json", survivor)
        .await?
        .expect(0)?;
    cluster.node(survivor).start()?;
    wait_first_write(&cluster, &[survivor], 2).await?;
    // Only the store can tell them now.
    cluster.node(survivor).kill()?;
    let waiting: Vec<_> = (0..20)
        .flat_map(|_| others.clone())
        .map(|node| {
            let api = cluster.api(node);
            tokio::spawn(async move { ask_both(&api, Duration::from_secs(20)).await })
        })
        .collect();
    // Until they lie in the sockets.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let clients = Clients::of(&cluster, &others);
    for node in &others {
        cluster.node(*node).resume()?;
    }
    // Longer than an election takes.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let mut answered = clients.stop().await?;
    for asked in waiting {
        answered.extend(asked.await?);
    }
    assert!(
        answered.is_empty(),
        "{} answers of a life that is over, the first to a {:?}",
        answered.len(),
        answered.first().map(|a| a.what)
    );
    for node in &others {
        wait_fenced(&cluster, *node).await?;
    }
    cluster.node(survivor).start()?;
    cluster.wait_ready(survivor).await?;
    keeps_writing(&cluster, &[0, 1, 2], 2, Duration::from_secs(2)).await?;
    judge_new_life(&cluster, &[survivor], &old, &plan).await?;
    cluster.finish()
}

/// Two recoveries took one number at one time, on a store that takes conditional writes and does not look: each has read its own claim
/// there, and then the later write arrived. Who was overwritten looks again before it begins.
#[tokio::test(flavor = "multi_thread")]
async fn i13_of_two_recoveries_whose_claims_the_store_mixed_up_the_overwritten_never_begins()
-> anyhow::Result<()> {
    let plan = Plan::new("mixed-up").conditional_writes(ConditionalWrites::Ignored);
    let cluster = plan.env(INTERVAL, "3000").start().await?;
    cluster.fill("app", "k", 50, "value").await?;
    lose(&cluster, &[0, 1])?;
    planned(&cluster, &[2], "plan.json").await?;
    carry_out(&cluster, "apply", "plan.json", 2)
        .await?
        .expect(0)?;
    cluster.node(2).start()?;
    cluster
        .node(2)
        .wait_log(&["does not begin yet", "it waits until"], PATIENCE)
        .await?;
    let claim = confman_tests::restore::life_object(&cluster, 2, ".json")?.context("no claim")?;
    let mut object: serde_json::Value = serde_json::from_slice(&std::fs::read(&claim)?)?;
    object["recovery"]["planId"] = json!("the-other-plan");
    std::fs::write(&claim, serde_json::to_vec_pretty(&object)?)?;
    wait_fenced(&cluster, 2).await?;
    let log = cluster.node(2).log_text()?;
    assert!(!log.contains("a new incarnation has begun"), "{log}");
    assert_eq!(try_write(&cluster, 2, "after").await, None);
    cluster.finish()
}
