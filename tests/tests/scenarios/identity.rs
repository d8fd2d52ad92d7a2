//! Directories and peers that do not belong: each is refused with what was found.

use std::time::Duration;

use confman_tests::cluster::{CONFIG, PATIENCE, Plan};
use serde_json::json;

const EXIT_BOUND: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn i20_a_data_directory_of_another_node_is_refused() -> anyhow::Result<()> {
    let cluster = Plan::new("foreign-dir").start().await?;
    cluster.write("app/k", &json!("v")).await?;
    cluster.node(0).kill()?;
    cluster.node(1).kill()?;
    let other = cluster.node(0).data_dir.display().to_string();
    cluster.node(1).set_env("CONFMAN_DATA_DIR", &other);
    cluster.node(1).start()?;
    let status = cluster.node(1).wait_exit(EXIT_BOUND).await?;
    assert!(!status.success());
    let log = cluster.node(1).log_text()?;
    assert!(
        log.contains("node1") && log.contains("node2"),
        "the error names neither or only one: {log}"
    );
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_cannot_share_a_data_directory() -> anyhow::Result<()> {
    let cluster = Plan::new("shared-dir").start().await?;
    cluster.node(1).kill()?;
    let other = cluster.node(0).data_dir.display().to_string();
    cluster.node(1).set_env("CONFMAN_DATA_DIR", &other);
    cluster.node(1).set_env("CONFMAN_NODE_NAME", "node1");
    cluster.node(1).start()?;
    let status = cluster.node(1).wait_exit(EXIT_BOUND).await?;
    assert!(!status.success());
    let pid = cluster.node(0).pid().unwrap().to_string();
    let log = cluster.node(1).log_text()?;
    assert!(
        log.contains(&pid),
        "the holder, process {pid}, is not named: {log}"
    );
    cluster.wait_ready(0).await?;
    cluster.finish()
}

/// A data directory that is damaged is refused with the finding, and left as it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_data_directory_is_refused_and_left_as_it_is() -> anyhow::Result<()> {
    let cluster = Plan::new("damaged-dir").start().await?;
    cluster.write("app/k", &json!("v")).await?;
    cluster.node(2).kill()?;
    let identity = cluster.node(2).data_dir.join("identity");
    confman_tests::store::flip_bit(&identity)?;
    let before = std::fs::read(&identity)?;
    cluster.node(2).start()?;
    let status = cluster.node(2).wait_exit(EXIT_BOUND).await?;
    assert!(!status.success());
    let log = cluster.node(2).log_text()?;
    assert!(log.contains("identity"), "the finding is not named: {log}");
    assert_eq!(
        before,
        std::fs::read(&identity)?,
        "the evidence was changed"
    );
    cluster.finish()
}

/// A peer with another token gets nothing, and the cluster does not mind.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_another_token_is_refused() -> anyhow::Result<()> {
    let cluster = Plan::new("token").start().await?;
    let victim = cluster.follower(CONFIG).await?;
    cluster.node(victim).kill()?;
    let good = cluster.node(victim).env()["CONFMAN_CLUSTER_TOKEN"].clone();
    cluster.node(victim).set_env(
        "CONFMAN_CLUSTER_TOKEN",
        "another-token-0123456789-0123456789",
    );
    let mark = cluster
        .write("app/k", &json!("while it was away"))
        .await?
        .token()?;
    cluster.node(victim).start()?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let ready = cluster.api(victim).get("/health/ready").send().await;
    assert!(
        !ready.is_ok_and(|answer| answer.status == 200),
        "ready with a wrong token"
    );
    if let Ok(group) = cluster.group(victim, CONFIG).await {
        assert!(
            group["appliedIndex"].as_u64() < Some(mark.index),
            "it was fed in spite of its token: {group}"
        );
    }
    cluster.write("app/k2", &json!("v")).await?;
    cluster.node(victim).kill()?;
    cluster.node(victim).set_env("CONFMAN_CLUSTER_TOKEN", &good);
    cluster.node(victim).start()?;
    cluster.wait_ready(victim).await?;
    cluster.finish()
}

/// Two clusters on one prefix of a store: the second is told, and serves without touching what is there (O23).
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn a_second_cluster_does_not_write_under_the_first_ones_prefix() -> anyhow::Result<()> {
    let first = Plan::new("prefix-one").nodes(1).start().await?;
    first.write("app/k", &json!("v")).await?;
    first.snapshot(CONFIG).await?;
    let env = first.store().await.as_ref().unwrap().env();
    let objects = || async { first.store().await.as_ref().unwrap().snapshots(CONFIG) };
    let before = objects().await?;

    let mut plan = Plan::new("prefix-two").nodes(1).without_store();
    for (name, value) in &env {
        plan = plan.env(name, value);
    }
    let second = plan.lay_out().await?;
    second.start_all()?;
    // It may wait, refuse to start, or serve without snapshots; it may not form a cluster that writes there.
    tokio::time::sleep(Duration::from_secs(5)).await;
    if second
        .api(0)
        .get("/health/ready")
        .send()
        .await
        .is_ok_and(|answer| answer.status == 200)
    {
        assert!(
            second.snapshot(CONFIG).await.is_err(),
            "a second cluster snapshots under the first one's prefix"
        );
    }
    assert_eq!(before, objects().await?);
    let log = second.node(0).log_text()?;
    assert!(
        log.contains("hint"),
        "nothing tells the operator what to do: {log}"
    );
    confman_tests::wait::wait_until("the first goes on", PATIENCE, || first.snapshot(CONFIG))
        .await?;
    let _ = second.kill_all();
    second.finish()?;
    first.finish()
}
