//! Every runbook, carried out to the letter after the thing has happened that it is for. Those of a slow node and of a wrong clock are in
//! `node/tests/kills`, which can make a node slow and a clock wrong.

use confman_tests::agree;
use confman_tests::cluster::{CONFIG, Cluster, META, PATIENCE, Plan};
use confman_tests::runbook::Runbook;
use confman_tests::skip::skipped;
use confman_tests::small_disk::SmallDisk;
use confman_tests::store::flip_bit;
use confman_tests::wait::wait_until;
use serde_json::json;

use crate::disk_full::fill_until_it_stops;

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
#[ignore = "long: .ci/verify runs it"]
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
#[ignore = "long: .ci/verify runs it"]
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
#[ignore = "long: .ci/verify runs it"]
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
    let before = {
        let store = cluster.store().await;
        let mut there = store.as_ref().unwrap().snapshots("config/0")?;
        let newest = there.pop().unwrap();
        newest.file_stem().unwrap().to_string_lossy().into_owned()
    };
    // The mistake, and a snapshot that has it: what is the latest now is of no use.
    cluster.write("app/web/greeting", &json!("wrong")).await?;
    snapshots(&cluster).await?;
    let latest = cluster.drtool(["get", "app/web/greeting", "--snapshot", "latest", "--json"]);
    let store = cluster.store().await.as_ref().unwrap().env();
    let latest = latest.envs(store).run().await?.expect(0)?.json()?;
    assert_eq!(latest["value"], "wrong", "{latest}");
    Runbook::new("point-in-time", &cluster)
        .name("namespace", "app/web")
        .name("key", "greeting")
        .name("group", CONFIG)
        .name("snapshot", &before)
        .carry_out(nothing)
        .await?;
    is_well(cluster).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
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
#[ignore = "long: .ci/verify runs it"]
async fn drill() -> anyhow::Result<()> {
    let cluster = cluster("runbook-drill").await?;
    Runbook::new("drill", &cluster).carry_out(nothing).await?;
    is_well(cluster).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
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
#[ignore = "long: .ci/verify runs it"]
async fn disk_full() -> anyhow::Result<()> {
    let cluster = Plan::new("runbook-disk-full").lay_out().await?;
    let victim = 0;
    let disk = match SmallDisk::mount(&cluster.node(victim).data_dir, 48) {
        Ok(disk) => Some(disk),
        Err(why) => {
            skipped("disk_full, but for the page", format!("{why:#}"));
            None
        }
    };
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    cluster.write("app/web/greeting", &json!("hello")).await?;
    snapshots(&cluster).await?;
    match &disk {
        Some(_) => fill_until_it_stops(&cluster, victim).await?,
        None => cluster.node(victim).kill()?,
    }
    Runbook::new("disk-full", &cluster)
        .place_when_reached("{node}", || {
            // The operator has given it room by then.
            if let Some(disk) = &disk {
                disk.resize(400)?;
            }
            Ok(vec![victim])
        })
        .carry_out(nothing)
        .await?;
    agree::state_hashes(&cluster, CONFIG).await?;
    let read = cluster.read(victim, "app/web/greeting", "linearizable");
    assert_eq!(read.await?, Some(json!("hello")));
    cluster.kill_all()?;
    drop(disk);
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
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
#[ignore = "long: .ci/verify runs it"]
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
        .place("{node}", &[2])
        .place("{other}", &[0])
        .carry_out(nothing)
        .await?;
    cluster.write("app/web/greeting", &json!("hello")).await?;
    is_well(cluster).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
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
#[ignore = "long: .ci/verify runs it"]
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

/// Kills nodes for good and waits until the others have seen that there is no quorum.
async fn lose_quorum(cluster: &Cluster, lost: &[usize], disks_too: bool) -> anyhow::Result<()> {
    for index in lost {
        cluster.node(*index).kill()?;
        if disks_too {
            cluster.node(*index).wipe()?;
        }
    }
    for left in (0..cluster.nodes().len()).filter(|index| !lost.contains(index)) {
        wait_until("who is left has no leader", PATIENCE, || async {
            let group = cluster.group(left, CONFIG).await?;
            anyhow::ensure!(group["leader"].is_null(), "{group}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// The node that the plan begins with, and the other ones that are left.
fn survivor_of_plan(cluster: &Cluster, left: &[usize]) -> anyhow::Result<(usize, Vec<usize>)> {
    let plan = std::fs::read(cluster.dir()?.join("plan.json"))?;
    let plan: serde_json::Value = serde_json::from_slice(&plan)?;
    let named = |index: &&usize| plan["survivor"]["info"]["name"] == cluster.node(**index).name;
    let survivor = left.iter().find(named);
    let survivor = *survivor.ok_or_else(|| anyhow::anyhow!("nobody of {left:?}: {plan}"))?;
    let others = left.iter().copied().filter(|index| *index != survivor);
    Ok((survivor, others.collect()))
}

/// Carries the page out with these nodes left, each on a machine of its own.
async fn recover(cluster: &Cluster, left: &[usize]) -> anyhow::Result<()> {
    let nodes = 0..cluster.nodes().len();
    let lost: Vec<usize> = nodes.filter(|index| !left.contains(index)).collect();
    Runbook::new("lost-quorum", cluster)
        .place("survivors", left)
        .place_when_reached("the survivor of the plan", || {
            Ok(vec![survivor_of_plan(cluster, left)?.0])
        })
        .place_when_reached("the other survivors", || {
            Ok(survivor_of_plan(cluster, left)?.1)
        })
        .place("the lost", &lost)
        .carry_out(nothing)
        .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn lost_quorum() -> anyhow::Result<()> {
    let cluster = cluster("runbook-lost-quorum").await?;
    let survivor = cluster.wait_leader(CONFIG).await?;
    let lost: Vec<usize> = (0..3).filter(|index| *index != survivor).collect();
    lose_quorum(&cluster, &lost, true).await?;
    recover(&cluster, &[survivor]).await?;
    cluster.wait_all_ready().await?;
    assert_eq!(cluster.status(survivor).await?["incarnation"], 2);
    is_well(cluster).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn lost_quorum_with_two_of_five_left() -> anyhow::Result<()> {
    let cluster = Plan::new("runbook-two-of-five").nodes(5).start().await?;
    cluster.write("app/web/greeting", &json!("hello")).await?;
    snapshots(&cluster).await?;
    lose_quorum(&cluster, &[1, 2, 4], true).await?;
    recover(&cluster, &[0, 3]).await?;
    cluster.wait_all_ready().await?;
    for index in 0..5 {
        assert_eq!(cluster.status(index).await?["incarnation"], 2);
        let group = cluster.group(index, CONFIG).await?;
        let voters = group["members"].as_array().map(Vec::len);
        assert_eq!(
            voters,
            Some(5),
            "healthy is not said before all are back: {group}"
        );
    }
    is_well(cluster).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn two_incarnations() -> anyhow::Result<()> {
    let cluster = cluster("runbook-two-incarnations").await?;
    let survivor = cluster.wait_leader(CONFIG).await?;
    let old: Vec<usize> = (0..3).filter(|index| *index != survivor).collect();
    lose_quorum(&cluster, &old, false).await?;
    // The cluster goes on without them; then they come back with what they had.
    let data = cluster.node(survivor).data_dir.display().to_string();
    cluster.node(survivor).stop(PATIENCE).await?;
    let mut commands = vec![
        vec!["recover", "collect", &data],
        vec!["recover", "plan"],
        vec!["recover", "apply", &data, "--yes"],
    ];
    for index in &old {
        commands[1].extend(["--lost", &cluster.node(*index).name]);
    }
    for command in commands {
        let store = cluster.store().await.as_ref().unwrap().env();
        cluster.drtool(command).envs(store).run().await?.expect(0)?;
    }
    cluster.node(survivor).start()?;
    cluster.wait_ready(survivor).await?;
    for index in &old {
        cluster.node(*index).start()?;
        wait_until("it is fenced", PATIENCE, || async {
            let api = cluster.api(*index);
            let answer = api.get("/health/ready").send().await?.text();
            anyhow::ensure!(answer.contains("fenced"), "{answer}");
            Ok(())
        })
        .await?;
    }
    Runbook::new("two-incarnations", &cluster)
        .place("the nodes of the older life", &old)
        .carry_out(nothing)
        .await?;
    is_well(cluster).await
}

/// As far as it goes without Docker: each step does here what Compose would do there, in the order of the page.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn containers() -> anyhow::Result<()> {
    let cluster = cluster("runbook-containers").await?;
    let victim = cluster.follower(CONFIG).await?;
    Runbook::new("containers", &cluster)
        .about(victim)
        .place("{node}", &[victim])
        .carry_out(nothing)
        .await?;
    let status = cluster.status(victim).await?;
    assert_eq!(status["node"]["id"], 4, "it came back empty: {status}");
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
