//! A node that loses its disk comes back under a new id, from the store, and replays only the tail.

use std::time::Duration;

use confman_tests::agree;
use confman_tests::cluster::{CONFIG, Cluster, META, PATIENCE, Plan};
use confman_tests::store::{flip_bit, truncate};
use confman_tests::wait::wait_until;
use serde_json::{Value, json};

/// A cluster whose log is purged close behind each snapshot, so that only the store can bring a node back.
fn plan(name: &str) -> Plan {
    Plan::new(name).env("CONFMAN_SNAPSHOT_LOG_MARGIN", "10")
}

async fn id_of(cluster: &Cluster, index: usize) -> anyhow::Result<u64> {
    cluster.status(index).await?["node"]["id"]
        .as_u64()
        .ok_or_else(|| anyhow::anyhow!("no node.id"))
}

/// Kills the node, removes its disk, starts it, and waits until it is a voter under a new id that all agree on.
async fn lose_disk(cluster: &Cluster, index: usize) -> anyhow::Result<u64> {
    let old = id_of(cluster, index).await?;
    cluster.node(index).kill()?;
    cluster.node(index).wipe()?;
    come_back(cluster, index, old).await
}

async fn come_back(cluster: &Cluster, index: usize, old: u64) -> anyhow::Result<u64> {
    cluster.node(index).start()?;
    cluster.wait_ready(index).await?;
    let new = id_of(cluster, index).await?;
    assert_ne!(old, new, "the node came back under its old id");
    let groups = [META, CONFIG];
    for group in groups {
        wait_until(
            &format!("{group}: the new id is a voter and the old one is gone"),
            PATIENCE,
            || async {
                for place in 0..cluster.nodes().len() {
                    let members = cluster.group(place, group).await?["members"].clone();
                    let role = |id: u64| {
                        let found = members
                            .as_array()?
                            .iter()
                            .find(|member| member["id"] == id)?;
                        found["role"].as_str().map(str::to_owned)
                    };
                    anyhow::ensure!(role(new).as_deref() == Some("voter"), "{members}");
                    anyhow::ensure!(
                        role(old).is_none(),
                        "the old id {old} is still there: {members}"
                    );
                }
                Ok(())
            },
        )
        .await?;
    }
    Ok(new)
}

async fn wait_purged(cluster: &Cluster, index: u64) -> anyhow::Result<()> {
    wait_until(
        &format!("the log is purged up to {index}"),
        PATIENCE,
        || async {
            for place in 0..cluster.nodes().len() {
                let purged = cluster.group(place, CONFIG).await?["purgedIndex"]
                    .as_u64()
                    .unwrap_or(0);
                anyhow::ensure!(purged + 10 >= index, "{purged}");
            }
            Ok(())
        },
    )
    .await
}

async fn restore_of(cluster: &Cluster, index: usize) -> anyhow::Result<Value> {
    Ok(cluster.group(index, CONFIG).await?["restore"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn i12_i14_a_lost_disk_comes_back_from_the_store_under_a_new_id_with_only_the_tail()
-> anyhow::Result<()> {
    let cluster = plan("disk").start().await?;
    cluster.fill("app", "k", 3_000, "value").await?;
    let taken = cluster.snapshot(CONFIG).await?;
    wait_purged(&cluster, taken["index"].as_u64().unwrap()).await?;
    let victim = cluster.follower(CONFIG).await?;
    cluster.fill("app", "tail", 40, "value").await?;
    let begin = std::time::Instant::now();
    let new = lose_disk(&cluster, victim).await?;
    eprintln!(
        "back as voter {new} after {:.1} s",
        begin.elapsed().as_secs_f64()
    );
    assert_eq!(new, 4, "ids are given in order and never twice");
    let restore = restore_of(&cluster, victim).await?;
    assert_eq!(restore["source"], "store", "{restore}");
    assert_eq!(restore["snapshotId"], taken["id"], "{restore}");
    assert_eq!(restore["snapshotIndex"], taken["index"], "{restore}");
    let tail = restore["tailEntries"].as_u64().unwrap();
    assert!((40..400).contains(&tail), "{tail} entries of tail");
    cluster
        .node(victim)
        .wait_log(&["restore", taken["id"].as_str().unwrap()], PATIENCE)
        .await?;
    agree::state_hashes(&cluster, CONFIG).await?;
    agree::state_hashes(&cluster, META).await?;
    agree::audits(&cluster, None).await?;
    // It counts: with another node gone, the two that are left go on.
    let other = (0..3).find(|index| *index != victim).unwrap();
    cluster.node(other).kill()?;
    cluster.write("app/after", &json!("v")).await?;
    assert_eq!(
        cluster.read(victim, "app/after", "linearizable").await?,
        Some(json!("v"))
    );
    cluster.finish()
}

/// Every node loses its disk, one after the other, the leader included; nothing is lost and no id comes twice.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i1_i14_every_disk_may_be_lost_in_turn() -> anyhow::Result<()> {
    let cluster = plan("disks").start().await?;
    cluster.fill("app", "k", 600, "value").await?;
    cluster.snapshot(CONFIG).await?;
    let mut ids = std::collections::BTreeSet::from([1, 2, 3]);
    for round in 0..3 {
        let victim = if round == 0 {
            cluster.wait_leader(CONFIG).await?
        } else {
            (round + 1) % 3
        };
        cluster
            .write(&format!("app/round{round}"), &json!(round))
            .await?;
        let new = lose_disk(&cluster, victim).await?;
        assert!(ids.insert(new), "id {new} was used before");
    }
    for round in 0..3 {
        assert_eq!(
            cluster
                .read(0, &format!("app/round{round}"), "linearizable")
                .await?,
            Some(json!(round))
        );
    }
    // Each of them: no disk is left that any of this was written to.
    for key in 0..600 {
        assert_eq!(
            cluster
                .read(1, &format!("app/k{key}"), "linearizable")
                .await?,
            Some(json!(format!("value-{key}")))
        );
    }
    agree::state_hashes(&cluster, CONFIG).await?;
    agree::audits(&cluster, None).await?;
    cluster.finish()
}

/// A newest snapshot that is damaged, cut off or gone is named and skipped; the next older one serves.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i9_a_damaged_cut_or_missing_newest_snapshot_is_named_and_the_older_one_serves()
-> anyhow::Result<()> {
    for how in ["flipped", "cut", "missing"] {
        let cluster = plan(&format!("damaged-{how}")).start().await?;
        cluster.fill("app", "a", 800, "first").await?;
        let older = cluster.snapshot(CONFIG).await?;
        cluster.fill("app", "b", 800, "second").await?;
        let newest = cluster.snapshot(CONFIG).await?;
        let newest_id = newest["id"].as_str().unwrap();
        let victim = cluster.follower(CONFIG).await?;
        let old = id_of(&cluster, victim).await?;
        cluster.node(victim).kill()?;
        cluster.node(victim).wipe()?;
        let object = cluster
            .store()
            .await
            .as_ref()
            .unwrap()
            .snapshot(CONFIG, newest_id)?;
        match how {
            "flipped" => flip_bit(&object)?,
            "cut" => truncate(&object)?,
            _ => std::fs::remove_file(&object)?,
        }
        come_back(&cluster, victim, old).await?;
        let restore = restore_of(&cluster, victim).await?;
        assert_eq!(restore["snapshotId"], older["id"], "{how}: {restore}");
        assert_eq!(restore["source"], "store", "{how}: {restore}");
        // Named, with the reason.
        let skip = format!("skip snapshot {newest_id}: ");
        cluster.node(victim).wait_log(&[&skip], PATIENCE).await?;
        agree::state_hashes(&cluster, CONFIG).await?;
        agree::audits(&cluster, None).await?;
        assert_eq!(
            cluster.read(victim, "app/b799", "linearizable").await?,
            Some(json!("second-799"))
        );
        if how != "missing" {
            let kept = cluster
                .store()
                .await
                .as_ref()
                .unwrap()
                .snapshot(CONFIG, newest_id)?;
            assert!(kept.exists(), "the damaged object is evidence and stays");
        }
        cluster.finish()?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i18_with_the_store_unreachable_a_lost_disk_comes_back_from_the_leader_and_says_so()
-> anyhow::Result<()> {
    let cluster = plan("no-store").start().await?;
    cluster.fill("app", "k", 1_500, "value").await?;
    let taken = cluster.snapshot(CONFIG).await?;
    wait_purged(&cluster, taken["index"].as_u64().unwrap()).await?;
    cluster.stop_store().await;
    let victim = cluster.follower(CONFIG).await?;
    lose_disk(&cluster, victim).await?;
    let restore = restore_of(&cluster, victim).await?;
    assert_eq!(restore["source"], "peer", "{restore}");
    cluster
        .node(victim)
        .wait_log(&[CONFIG, "from the leader, because"], PATIENCE)
        .await?;
    agree::state_hashes(&cluster, CONFIG).await?;
    agree::audits(&cluster, None).await?;
    cluster.resume_store().await?;
    cluster.finish()
}

/// Two of three disks lost at once is a lost quorum: nothing forms a new cluster over the survivor's data (D11).
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn two_of_three_lost_disks_wait_for_an_operator_instead_of_forming_a_new_cluster()
-> anyhow::Result<()> {
    let cluster = plan("quorum-loss").start().await?;
    cluster.fill("app", "k", 50, "value").await?;
    let uuid = cluster.status(2).await?["clusterUuid"].clone();
    for index in [0, 1] {
        cluster.node(index).kill()?;
    }
    for index in [0, 1] {
        cluster.node(index).wipe()?;
        cluster.node(index).start()?;
    }
    // Long enough for several rounds of asking and electing.
    tokio::time::sleep(Duration::from_secs(6)).await;
    for index in 0..3 {
        let ready = cluster.api(index).get("/health/ready").send().await;
        assert!(
            ready.is_err() || ready.is_ok_and(|answer| answer.status == 503),
            "node {index} is ready"
        );
    }
    assert_eq!(cluster.status(2).await?["clusterUuid"], uuid);
    assert_eq!(
        cluster.read(2, "app/k49", "eventual").await?,
        Some(json!("value-49"))
    );
    cluster.finish()
}

/// The disk that was thought lost is put back after its node has come back under another id.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i14_a_retired_id_does_not_come_back_with_its_old_disk() -> anyhow::Result<()> {
    let cluster = plan("retired").start().await?;
    cluster.fill("app", "k", 200, "value").await?;
    cluster.snapshot(CONFIG).await?;
    let victim = cluster.follower(CONFIG).await?;
    let old = id_of(&cluster, victim).await?;
    cluster.node(victim).kill()?;
    let kept = cluster.dir()?.join("kept");
    std::fs::rename(&cluster.node(victim).data_dir, &kept)?;
    let new = come_back(&cluster, victim, old).await?;
    cluster.node(victim).kill()?;
    cluster.node(victim).wipe()?;
    std::fs::rename(&kept, &cluster.node(victim).data_dir)?;
    cluster.node(victim).start()?;
    let others: Vec<usize> = (0..3).filter(|index| *index != victim).collect();
    let begin = std::time::Instant::now();
    while begin.elapsed() < Duration::from_secs(5) {
        cluster.write("app/k0", &json!("still written")).await?;
        let members = cluster.group(others[0], CONFIG).await?["members"].clone();
        assert!(
            members
                .as_array()
                .unwrap()
                .iter()
                .all(|member| member["id"] != old),
            "{members}"
        );
        // Whatever the node does, it must not serve its old state as the cluster's.
        if let Ok(answer) = cluster
            .api(victim)
            .get("/api/v1/config/app/k0")
            .send()
            .await
            && answer.status == 200
        {
            assert_eq!(answer.json()?["value"], "still written");
        }
        let ready = cluster.api(victim).get("/health/ready").send().await;
        if ready.is_ok_and(|answer| answer.status == 200) {
            assert_ne!(
                id_of(&cluster, victim).await?,
                old,
                "ready under a retired id"
            );
        }
    }
    assert_ne!(new, old);
    cluster.finish()
}
