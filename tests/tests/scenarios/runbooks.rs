//! Every runbook, carried out to the letter after the thing has happened that it is for.

use confman_tests::agree;
use confman_tests::cluster::{CONFIG, Cluster, META, PATIENCE, Plan};
use confman_tests::runbook::Runbook;
use confman_tests::store::flip_bit;
use confman_tests::wait::wait_until;
use serde_json::json;

/// For pages on which nothing has to happen in between.
async fn nothing(what: &str) -> anyhow::Result<()> {
    anyhow::bail!("the page waits for {what:?}")
}

/// Three nodes with something written and a snapshot of every group.
async fn cluster(name: &str) -> anyhow::Result<Cluster> {
    let cluster = Plan::new(name).start().await?;
    cluster.write("app/web/greeting", &json!("hello")).await?;
    snapshots(&cluster).await?;
    Ok(cluster)
}

async fn snapshots(cluster: &Cluster) -> anyhow::Result<()> {
    for group in [META, CONFIG] {
        cluster.snapshot(group).await?;
    }
    Ok(())
}

async fn is_well(cluster: Cluster) -> anyhow::Result<()> {
    for index in 0..cluster.nodes().len() {
        assert_eq!(
            cluster
                .read(index, "app/web/greeting", "linearizable")
                .await?,
            Some(json!("hello"))
        );
    }
    agree::state_hashes(&cluster, CONFIG).await?;
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_one_node() -> anyhow::Result<()> {
    let cluster = cluster("runbook-lost-one-node").await?;
    let victim = cluster.follower(CONFIG).await?;
    cluster.node(victim).kill()?;
    Runbook::new("lost-one-node", &cluster)
        .place("{node}", &[victim])
        .carry_out(nothing)
        .await?;
    is_well(cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_a_disk() -> anyhow::Result<()> {
    let cluster = cluster("runbook-lost-a-disk").await?;
    let victim = cluster.follower(CONFIG).await?;
    cluster.node(victim).kill()?;
    Runbook::new("lost-a-disk", &cluster)
        .place("{node}", &[victim])
        .carry_out(nothing)
        .await?;
    let status = cluster.status(victim).await?;
    assert_eq!(status["node"]["id"], 4, "{status}");
    let group = cluster.group(victim, CONFIG).await?;
    assert_eq!(group["restore"]["source"], "store", "{group}");
    is_well(cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_everything() -> anyhow::Result<()> {
    let cluster = cluster("runbook-lost-everything").await?;
    cluster.kill_all()?;
    for node in cluster.nodes() {
        node.wipe()?;
    }
    Runbook::new("lost-everything", &cluster)
        .place("everyone", &[0, 1, 2])
        .carry_out(nothing)
        .await?;
    assert_eq!(cluster.status(0).await?["incarnation"], 2);
    is_well(cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn point_in_time() -> anyhow::Result<()> {
    let cluster = cluster("runbook-point-in-time").await?;
    cluster.write("app/web/greeting", &json!("wrong")).await?;
    Runbook::new("point-in-time", &cluster)
        .name("namespace", "app/web")
        .name("key", "greeting")
        .carry_out(nothing)
        .await?;
    is_well(cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_snapshot() -> anyhow::Result<()> {
    let cluster = cluster("runbook-damaged-snapshot").await?;
    let newest = {
        let store = cluster.store().await;
        store
            .as_ref()
            .unwrap()
            .snapshots("config/0")?
            .pop()
            .unwrap()
    };
    flip_bit(&newest)?;
    cluster.write("app/web/other", &json!(1)).await?;
    Runbook::new("damaged-snapshot", &cluster)
        .carry_out(nothing)
        .await?;
    is_well(cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn drill() -> anyhow::Result<()> {
    let cluster = cluster("runbook-drill").await?;
    Runbook::new("drill", &cluster).carry_out(nothing).await?;
    is_well(cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn store_unreachable() -> anyhow::Result<()> {
    let cluster = cluster("runbook-store-unreachable").await?;
    cluster.stop_store().await;
    // Ordinary writes go on, and a snapshot that is asked for fails and says so.
    cluster.write("app/web/other", &json!(1)).await?;
    let answer = cluster
        .api(0)
        .post("/api/v1/admin/snapshots", &json!({}))
        .send()
        .await?;
    assert!(answer.status >= 500, "{answer:?}");
    Runbook::new("store-unreachable", &cluster)
        .carry_out(async |what: &str| {
            assert_eq!(what, "the store is back");
            cluster.resume_store().await
        })
        .await?;
    is_well(cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_full() -> anyhow::Result<()> {
    let cluster = cluster("runbook-disk-full").await?;
    let victim = cluster.follower(CONFIG).await?;
    // The page begins where the node is down; `disk_full` fills disks, and sees nodes stop.
    cluster.node(victim).kill()?;
    Runbook::new("disk-full", &cluster)
        .place("{node}", &[victim])
        .carry_out(nothing)
        .await?;
    is_well(cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_follower() -> anyhow::Result<()> {
    let cluster = cluster("runbook-slow-follower").await?;
    let other = cluster.follower(CONFIG).await?;
    let name = cluster.node(other).name.clone();
    Runbook::new("slow-follower", &cluster)
        .name("other", &name)
        .carry_out(nothing)
        .await?;
    assert_eq!(cluster.wait_leader(CONFIG).await?, other);
    is_well(cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn partition() -> anyhow::Result<()> {
    let cluster = cluster("runbook-partition").await?;
    let victim = cluster.follower(CONFIG).await?;
    // To the others a stopped process is one that is cut off.
    cluster.node(victim).pause()?;
    Runbook::new("partition", &cluster)
        .carry_out(async |what: &str| {
            assert_eq!(what, "the network is mended");
            cluster.node(victim).resume()
        })
        .await?;
    is_well(cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_does_not_form() -> anyhow::Result<()> {
    let cluster = Plan::new("runbook-does-not-form").lay_out().await?;
    cluster.node(0).start()?;
    cluster.node(1).start()?;
    for index in [0, 1] {
        cluster
            .node(index)
            .wait_log(&["decision"], PATIENCE)
            .await?;
    }
    Runbook::new("cluster-does-not-form", &cluster)
        .place("{node}", &[0])
        .place("{other}", &[2])
        .carry_out(nothing)
        .await?;
    cluster.write("app/web/greeting", &json!("hello")).await?;
    is_well(cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_upgrade() -> anyhow::Result<()> {
    let cluster = cluster("runbook-rolling-upgrade").await?;
    let leader = cluster.wait_leader(CONFIG).await?;
    let mut order: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
    order.push(leader);
    Runbook::new("rolling-upgrade", &cluster)
        .place("each", &order)
        .carry_out(nothing)
        .await?;
    is_well(cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_keys() -> anyhow::Result<()> {
    let cluster = cluster("runbook-rotate-keys").await?;
    let keys = cluster.node(0).env()["CONFMAN_API_KEYS_FILE"].clone();
    confman_tests::cluster::create_key(keys.as_ref(), "app", "editor")?;
    Runbook::new("rotate-keys", &cluster)
        .name("name", "app")
        .name("keys", &keys)
        .place("{node}", &[0])
        .place("everyone", &[0, 1, 2])
        .carry_out(nothing)
        .await?;
    is_well(cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_quorum() -> anyhow::Result<()> {
    let cluster = cluster("runbook-lost-quorum").await?;
    let survivor = cluster.wait_leader(CONFIG).await?;
    let lost: Vec<usize> = (0..3).filter(|index| *index != survivor).collect();
    let mut given_up = String::new();
    for index in &lost {
        let node = cluster.node(*index);
        node.kill()?;
        node.wipe()?;
        given_up.push_str(&format!(" --lost {}", node.name));
    }
    let data = cluster
        .node(survivor)
        .data_dir
        .to_string_lossy()
        .into_owned();
    // Without a quorum the node that is left says so.
    wait_until("the survivor has no leader", PATIENCE, || async {
        let group = cluster.group(survivor, CONFIG).await?;
        anyhow::ensure!(group["leader"].is_null(), "{group}");
        Ok(())
    })
    .await?;
    Runbook::new("lost-quorum", &cluster)
        .name("directories", &data)
        .name("lost", &given_up)
        .place("survivors", &[survivor])
        .carry_out(nothing)
        .await?;
    // The page ends with: the lost members join under new ids when they are started with empty directories.
    for index in &lost {
        cluster.node(*index).start()?;
    }
    cluster.wait_all_ready().await?;
    assert_eq!(cluster.status(survivor).await?["incarnation"], 2);
    is_well(cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn change_members() -> anyhow::Result<()> {
    let cluster = Plan::new("runbook-change-members")
        .spares(1)
        .start()
        .await?;
    cluster.write("app/web/greeting", &json!("hello")).await?;
    snapshots(&cluster).await?;
    let new = cluster.node(3);
    let peer = new.env()["CONFMAN_PEER_LISTEN"].clone();
    Runbook::new("change-members", &cluster)
        .name("new", &new.name)
        .name("new-peer", &peer)
        .place("{new}", &[3])
        .asks(&[0, 1, 2])
        .carry_out(nothing)
        .await?;
    // Three are left, and the fourth, whose id is retired, has stopped or says so.
    for index in 0..3 {
        wait_until("three members are left", PATIENCE, || async {
            let group = cluster.group(index, CONFIG).await?;
            let left = group["members"].as_array().map(Vec::len);
            anyhow::ensure!(left == Some(3), "{group}");
            Ok(())
        })
        .await?;
    }
    cluster.finish()
}
