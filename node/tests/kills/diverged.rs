//! A replica whose state differs from the one that its group records: it stays up, serves nothing, and says so to whoever looks,
//! before and after a restart, until it comes back empty.

use std::time::Duration;

use anyhow::ensure;
use confman_tests::agree;
use confman_tests::cluster::{CONFIG, Cluster, PATIENCE, Plan};
use confman_tests::wait::wait_until;
use serde_json::json;

/// Waits until the node says that its state differs, at each place where somebody may look.
async fn says_so(cluster: &Cluster, node: usize) -> anyhow::Result<()> {
    wait_until("it says that its state differs", PATIENCE, || async {
        let api = cluster.api(node);
        let ready = api.get("/health/ready").send().await?;
        let text = ready.text();
        ensure!(ready.status == 503, "{}: {text}", ready.status);
        for words in [
            "this node serves nothing",
            "a state that differs",
            CONFIG,
            "hint: ",
        ] {
            ensure!(text.contains(words), "{words} is not in: {text}");
        }
        ensure!(api.get("/health").send().await?.status == 200, "it is dead");
        let read = api.get("/api/v1/config/app/k").send().await?;
        ensure!(
            read.status == 503 && read.text().contains("a state that differs"),
            "{}",
            read.text()
        );
        let page = cluster.metrics(node).await?;
        for (series, value) in [
            ("confman_diverged{group=\"config/0\"}", 1.0),
            ("confman_diverged{group=\"__meta/0\"}", 0.0),
            ("confman_serving", 0.0),
            ("confman_fenced", 0.0),
        ] {
            ensure!(page.get(series) == Some(value), "{series}: {page:?}");
        }
        for metric in [
            "confman_raft_has_leader",
            "confman_raft_is_leader",
            "confman_ready",
        ] {
            ensure!(page.sum(metric, &[]) == 0.0, "{metric}: {page:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i2_a_replica_whose_state_differs_stays_up_and_serves_nothing() -> anyhow::Result<()> {
    let cluster = Plan::new("diverged").start().await?;
    cluster.write("app/k", &json!("v")).await?;
    let victim = cluster.follower(CONFIG).await?;
    let node = cluster.node(victim);
    let mismatches = "confman_state_hash_mismatches_total{group=\"config/0\"}";
    // Alerts ask for an increase: there is something to increase.
    assert_eq!(cluster.metrics(victim).await?.get(mismatches), Some(0.0));
    node.stop(PATIENCE).await?;
    node.set_env("FAILPOINTS", "store::state-differs=return");
    node.start()?;
    cluster.wait_ready(victim).await?;

    cluster.snapshot(CONFIG).await?;
    says_so(&cluster, victim).await?;
    assert_eq!(cluster.metrics(victim).await?.get(mismatches), Some(1.0));
    // The others go on, for as long as it stays.
    let before = node.pid();
    for n in 0..20 {
        cluster.write("app/k", &json!(n)).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(node.pid(), before, "it was not to end");

    // A restart forgets nothing, and the process ends well when it is asked to.
    node.unset_env("FAILPOINTS");
    let (ended, _) = node.stop(PATIENCE).await?;
    assert!(ended.success(), "{ended}");
    node.start()?;
    says_so(&cluster, victim).await?;

    // As the runbook says.
    node.stop(PATIENCE).await?;
    node.wipe()?;
    node.start()?;
    cluster.wait_ready(victim).await?;
    let page = cluster.metrics(victim).await?;
    assert_eq!(page.get("confman_diverged{group=\"config/0\"}"), Some(0.0));
    agree::state_hashes(&cluster, CONFIG).await?;
    cluster.finish()
}
