//! Stores that take conditional writes and ignore them, that honour them one at a time only, and that refuse them: the product is right on
//! all of them.

use confman_tests::agree;
use confman_tests::cluster::{CONFIG, Cluster, META, PATIENCE, Plan};
use confman_tests::restore::{lose_every_node, restore, snapshot_all, wait_spent};
use confman_tests::store::ConditionalWrites;
use confman_tests::wait::wait_until;
use serde_json::json;

const WEAK: [(ConditionalWrites, &str, &str); 4] = [
    (ConditionalWrites::Ignored, "ignored", "weak-ignored"),
    (ConditionalWrites::Racing, "racing", "weak-racing"),
    (ConditionalWrites::Refused, "refused", "weak-refused"),
    (ConditionalWrites::NotImplemented, "refused", "weak-501"),
];

/// Three nodes are born, and each found out what the store does.
async fn born(how: ConditionalWrites, found: &str, name: &str) -> anyhow::Result<Cluster> {
    let cluster = Plan::new(name).conditional_writes(how).start().await?;
    let words = format!("conditional_writes=\"{found}\"");
    for node in cluster.nodes() {
        node.wait_log(&["object store probed", &words], PATIENCE)
            .await?;
    }
    cluster.fill("app", "k", 300, "value").await?;
    snapshot_all(&cluster, &[META, CONFIG]).await?;
    Ok(cluster)
}

async fn rejoins_from_the_store(cluster: &Cluster, node: usize) -> anyhow::Result<()> {
    cluster.node(node).kill()?;
    cluster.node(node).wipe()?;
    cluster.node(node).start()?;
    cluster.wait_ready(node).await?;
    let group = cluster.group(node, CONFIG).await?;
    anyhow::ensure!(group["restore"]["source"] == "store", "{group}");
    Ok(())
}

/// The whole life of a cluster: birth, snapshots, a lost disk, and every disk lost.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn o12_a_cluster_lives_on_a_store_without_conditional_writes() -> anyhow::Result<()> {
    for (how, found, name) in WEAK {
        let cluster = born(how, found, name).await?;
        rejoins_from_the_store(&cluster, 2).await?;
        cluster.write("app/last", &json!("kept")).await?;
        let (_, before) = agree::state_hashes(&cluster, CONFIG).await?;
        snapshot_all(&cluster, &[META, CONFIG]).await?;
        lose_every_node(&cluster)?;
        let plan = restore(&cluster, &[]).await?;
        let account = confman_tests::restore::planned(&plan, CONFIG)?;
        assert_eq!(account["stateHash"], json!(before), "{plan}");
        agree::state_hashes(&cluster, CONFIG).await?;
        for node in 0..3 {
            let last = cluster.read(node, "app/last", "linearizable").await?;
            assert_eq!(last, Some(json!("kept")));
        }
        wait_spent(&cluster, 2).await?;
        wait_until("the new life snapshots", PATIENCE, || async {
            cluster.snapshot(CONFIG).await.map(|_| ())
        })
        .await?;
        cluster.finish()?;
    }
    Ok(())
}
