//! Snapshots by themselves and on demand, the purge behind them, and their retirement.

use std::time::Duration;

use confman_tests::agree;
use confman_tests::cluster::{CONFIG, Cluster, META, PATIENCE, Plan};
use confman_tests::wait::wait_until;
use serde_json::{Value, json};

fn number(group: &Value, field: &str) -> u64 {
    group[field]
        .as_u64()
        .unwrap_or_else(|| panic!("no {field} in {group}"))
}

/// Waits until every node knows a recorded snapshot at or past `index` and has purged its log up to `purged` at least.
async fn wait_purged(cluster: &Cluster, index: u64, purged: u64) -> anyhow::Result<()> {
    let what = format!("a snapshot at {index} and the log purged up to {purged}");
    wait_until(&what, PATIENCE, || async {
        for place in 0..cluster.nodes().len() {
            let group = cluster.group(place, CONFIG).await?;
            let recorded = group["snapshot"]["index"].as_u64().unwrap_or(0);
            let gone = number(&group, "purgedIndex");
            // Never beyond what is verified and recorded (I4), at any moment that we look.
            let name = &cluster.node(place).name;
            assert!(
                gone <= recorded,
                "{name} purged {gone}, recorded {recorded}"
            );
            anyhow::ensure!(
                recorded >= index,
                "recorded {recorded}, error {}",
                group["snapshotError"]
            );
            anyhow::ensure!(gone >= purged, "purged {gone}, recorded {recorded}");
        }
        Ok(())
    })
    .await
}

/// With the settings as they ship: 10,000 entries make a snapshot, the log is purged on all, and it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn i4_more_than_20000_entries_are_snapshotted_purged_and_go_on() -> anyhow::Result<()> {
    let cluster = Plan::new("cycle").start().await?;
    let margin = 1_000;
    cluster.fill("app", "a", 10_500, "first").await?;
    wait_purged(&cluster, 10_000, 10_000 - margin).await?;
    let first = cluster.group(0, CONFIG).await?["snapshot"].clone();
    assert_eq!(first["verified"], true);
    cluster.fill("app", "b", 10_500, "second").await?;
    // The log is kept back to the snapshot before the newest: should that be damaged, the older one is enough.
    let kept_from = first["index"].as_u64().unwrap();
    wait_purged(&cluster, 20_000, kept_from - margin).await?;
    let second = cluster.group(0, CONFIG).await?["snapshot"].clone();
    assert!(second["index"].as_u64() > first["index"].as_u64());
    cluster.fill("app", "c", 300, "third").await?;
    cluster.snapshot(CONFIG).await?;
    let kept_from = second["index"].as_u64().unwrap();
    wait_purged(&cluster, 21_000, kept_from - margin).await?;
    for index in 0..3 {
        let entries = number(&cluster.group(index, CONFIG).await?, "logEntries");
        let name = &cluster.node(index).name;
        assert!(
            entries < 3_000,
            "{entries} of 21,000 entries are left in the log of {name}"
        );
    }
    for (key, value) in [
        ("a0", "first-0"),
        ("a10499", "first-10499"),
        ("b10499", "second-10499"),
        ("c7", "third-7"),
    ] {
        assert_eq!(
            cluster
                .read(1, &format!("app/{key}"), "linearizable")
                .await?,
            Some(json!(value))
        );
    }
    agree::state_hashes(&cluster, CONFIG).await?;
    // What is left of log and state is enough for a cold start.
    let before = agree::state_hashes(&cluster, CONFIG).await?.1;
    cluster.kill_all()?;
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    assert_eq!(before, agree::state_hashes(&cluster, CONFIG).await?.1);
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_on_demand_is_verified_recorded_and_in_the_store() -> anyhow::Result<()> {
    for codec in ["zstd", "gzip", "none"] {
        let cluster = Plan::new("demand")
            .env("CONFMAN_SNAPSHOT_COMPRESSION", codec)
            .start()
            .await?;
        cluster.fill("app", "k", 500, "value").await?;
        let taken = cluster.snapshot(CONFIG).await?;
        assert_eq!(taken["group"], CONFIG);
        let id = taken["id"].as_str().unwrap();
        let object = cluster
            .store()
            .await
            .as_ref()
            .unwrap()
            .snapshot(CONFIG, id)?;
        assert_eq!(
            std::fs::metadata(object)?.len(),
            number(&taken, "bytes"),
            "{codec}"
        );
        for index in 0..3 {
            wait_until("every replica knows it", PATIENCE, || async {
                let group = cluster.group(index, CONFIG).await?;
                anyhow::ensure!(group["snapshot"]["id"] == id, "{}", group["snapshot"]);
                Ok(())
            })
            .await?;
        }
        // The cluster's own group has snapshots as well.
        cluster.snapshot(META).await?;
        cluster.finish()?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn snapshots_are_retired_by_count_in_two_steps() -> anyhow::Result<()> {
    let cluster = Plan::new("retire")
        .env("CONFMAN_SNAPSHOT_RETENTION_COUNT", "2")
        .env("CONFMAN_SNAPSHOT_DELETE_GRACE_SECS", "1")
        .start()
        .await?;
    let mut ids = Vec::new();
    for n in 0..5 {
        cluster.fill("app", "k", 20, &format!("round {n}")).await?;
        let taken = cluster.snapshot(CONFIG).await?;
        ids.push(taken["id"].as_str().unwrap().to_owned());
        let kept = cluster.store().await.as_ref().unwrap().snapshots(CONFIG)?;
        assert!(kept.len() >= ids.len().min(2), "{kept:?}");
    }
    let newest = &ids[3..];
    wait_until("only the two newest are left", PATIENCE, || async {
        let kept = cluster.store().await.as_ref().unwrap().snapshots(CONFIG)?;
        let holds = |id: &String| {
            kept.iter()
                .any(|path| path.to_string_lossy().contains(id.as_str()))
        };
        assert!(
            newest.iter().all(holds),
            "one of the two newest is gone: {kept:?}"
        );
        anyhow::ensure!(kept.len() == 2, "{} are left", kept.len());
        Ok(())
    })
    .await?;
    // Time alone takes no more of them.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(
        cluster
            .store()
            .await
            .as_ref()
            .unwrap()
            .snapshots(CONFIG)?
            .len(),
        2
    );
    cluster.finish()
}

/// Writes go on while a snapshot runs, and no election comes of it (I5; its latency is measured by a benchmark).
#[tokio::test(flavor = "multi_thread")]
async fn i5_a_running_snapshot_causes_no_election() -> anyhow::Result<()> {
    let cluster = Plan::new("quiet").start().await?;
    cluster.fill("app", "k", 5_000, &"x".repeat(400)).await?;
    let leader = cluster.wait_leader(CONFIG).await?;
    let term = number(&cluster.group(leader, CONFIG).await?, "term");
    let load = confman_tests::load::Load::start(
        &cluster,
        &confman_tests::load::LoadPlan {
            writers: 3,
            readers: 0,
            ..Default::default()
        },
    );
    for _ in 0..4 {
        let before = load.acknowledged();
        cluster.snapshot(CONFIG).await?;
        load.wait_progress(10, PATIENCE).await?;
        assert!(load.acknowledged() > before);
    }
    load.stop().await?;
    assert_eq!(
        term,
        number(&cluster.group(leader, CONFIG).await?, "term"),
        "there was an election"
    );
    cluster.finish()
}
