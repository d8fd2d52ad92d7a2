//! What makes a snapshot due by itself, in every group, and who makes it when one node cannot.

use std::time::Duration;

use anyhow::Context as _;
use confman_tests::cluster::{CONFIG, Cluster, META, PATIENCE, Plan};
use confman_tests::restore::{lose_every_node, planned, restore};
use confman_tests::skip::skipped;
use confman_tests::small_disk::SmallDisk;
use confman_tests::wait::wait_until;
use serde_json::json;

const LOG_THRESHOLD: &str = "CONFMAN_SNAPSHOT_LOG_THRESHOLD";
const TIME_THRESHOLD: &str = "CONFMAN_SNAPSHOT_TIME_THRESHOLD_SECS";
/// Longer than several turns of the manager and its shortest thresholds: what has not happened by then does not happen.
const REST: Duration = Duration::from_secs(6);

fn recorded(group: &serde_json::Value) -> u64 {
    group["snapshot"]["index"].as_u64().unwrap_or(0)
}

/// Waits until the first node knows a recorded snapshot of the group at or past `index`; gives its id.
async fn wait_recorded(cluster: &Cluster, group: &str, index: u64) -> anyhow::Result<String> {
    let what = format!("a snapshot of {group} at {index} or later");
    wait_until(&what, PATIENCE, || async {
        let found = cluster.group(0, group).await?;
        anyhow::ensure!(
            recorded(&found) >= index,
            "{} {}",
            found["snapshot"],
            found["snapshotError"]
        );
        let id = found["snapshot"]["id"].as_str();
        Ok(id.context("a snapshot without id")?.to_owned())
    })
    .await
}

/// How many snapshots of the groups have been recorded, as far as the nodes' logs say.
fn made(cluster: &Cluster) -> anyhow::Result<usize> {
    let mut count = 0;
    for node in cluster.nodes() {
        count += node
            .log_text()?
            .matches("snapshot verified and recorded")
            .count();
    }
    Ok(count)
}

/// Waits until no snapshot comes any more.
async fn wait_rest(cluster: &Cluster) -> anyhow::Result<()> {
    wait_until("the snapshots come to rest", PATIENCE, || async {
        let before = made(cluster)?;
        tokio::time::sleep(REST).await;
        let now = made(cluster)?;
        anyhow::ensure!(now == before, "{} more within {REST:?}", now - before);
        Ok(())
    })
    .await
}

/// One tree lives in one shard. Those that nobody writes to, and the cluster's own group, get their first snapshot by themselves: with
/// any of them missing nothing could be restored.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i11_every_group_has_a_snapshot_though_one_shard_only_was_written_to() -> anyhow::Result<()>
{
    let cluster = Plan::new("shards-due")
        .env("CONFMAN_SHARDS", "3")
        .env(TIME_THRESHOLD, "2")
        .start()
        .await?;
    let groups = [META, CONFIG, "config/1", "config/2"];
    cluster.fill("tree", "k", 100, "value").await?;
    let mut written = Vec::new();
    for group in &groups[1..] {
        let index = cluster.group(0, group).await?["committedIndex"].as_u64();
        if index.context("no committedIndex")? >= 100 {
            written.push((*group, index.unwrap_or(0)));
        }
    }
    let [(tree, last)] = written[..] else {
        anyhow::bail!("the tree lives in {written:?}");
    };
    for group in groups {
        let index = if group == tree { last } else { 1 };
        wait_recorded(&cluster, group, index).await?;
    }
    lose_every_node(&cluster)?;

    let plan = restore(&cluster, &[]).await?;
    for group in groups {
        assert!(planned(&plan, group)?["snapshotId"].is_string(), "{plan}");
    }
    let read = cluster.read(1, "tree/k99", "linearizable").await?;
    assert_eq!(read, Some(json!("value-99")));
    cluster.finish()
}

/// Refused writes fill the log like any other entry, and change nothing: it is snapshotted and purged all the same.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn refused_writes_make_snapshots_and_the_log_is_purged() -> anyhow::Result<()> {
    let cluster = Plan::new("refused-due")
        .env(LOG_THRESHOLD, "200")
        .env("CONFMAN_SNAPSHOT_LOG_MARGIN", "10")
        .start()
        .await?;
    cluster.write("app/key", &json!("mine")).await?;
    let leader = cluster.wait_leader(CONFIG).await?;
    // Where exactly snapshots come depends on how busy the machine is: refusals go on until the log behind two of them is gone.
    wait_until("the log is purged behind refusals", PATIENCE, || async {
        for _ in 0..50 {
            let put = cluster
                .api(leader)
                .put("/api/v1/config/app/key", &json!({ "value": "theirs" }))
                .header("if-none-match", "*");
            put.send().await?.expect(&[412])?;
        }
        for index in 0..3 {
            let group = cluster.group(index, CONFIG).await?;
            let purged = group["purgedIndex"].as_u64().unwrap_or(0);
            anyhow::ensure!(purged >= 300, "purged {purged}, {}", group["snapshot"]);
        }
        Ok(())
    })
    .await?;
    let read = cluster.read(1, "app/key", "linearizable").await?;
    assert_eq!(read, Some(json!("mine")));
    cluster.finish()
}

/// With the least thresholds that can be set each change is snapshotted, and what snapshots write about themselves is not.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn snapshots_make_no_snapshots_due() -> anyhow::Result<()> {
    let cluster = Plan::new("rest")
        .env(LOG_THRESHOLD, "1")
        .env(TIME_THRESHOLD, "1")
        .env("CONFMAN_SNAPSHOT_RETENTION_COUNT", "1")
        .env("CONFMAN_SNAPSHOT_DELETE_GRACE_SECS", "0")
        .start()
        .await?;
    for value in ["one", "two"] {
        let version = cluster.write("app/key", &json!(value)).await?.token()?;
        wait_recorded(&cluster, CONFIG, version.index).await?;
        wait_rest(&cluster).await?;
    }
    wait_recorded(&cluster, META, 1).await?;
    cluster.finish()
}

/// By time: while something changes. A quiet group keeps what it has.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn time_makes_a_snapshot_due_when_something_changed() -> anyhow::Result<()> {
    let cluster = Plan::new("time-due")
        .env(TIME_THRESHOLD, "2")
        .start()
        .await?;
    let mut last = String::new();
    for value in ["one", "two"] {
        let version = cluster.write("app/key", &json!(value)).await?.token()?;
        let id = wait_recorded(&cluster, CONFIG, version.index).await?;
        assert_ne!(id, last);
        last = id;
    }
    wait_rest(&cluster).await?;
    let id = wait_recorded(&cluster, CONFIG, 1).await?;
    assert_eq!(id, last, "nothing was written since");
    cluster.finish()
}

/// By bytes, long before the entries would.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_make_a_snapshot_due() -> anyhow::Result<()> {
    let cluster = Plan::new("bytes-due")
        .env("CONFMAN_SNAPSHOT_BYTES_THRESHOLD", "1048576")
        .start()
        .await?;
    let value = json!("b".repeat(100_000));
    for n in 0..10 {
        cluster.write(&format!("app/k{n}"), &value).await?;
    }
    let group = cluster.group(0, CONFIG).await?;
    assert!(group["snapshot"].is_null(), "{}", group["snapshot"]);
    let version = cluster.write("app/last", &value).await?.token()?;
    wait_recorded(&cluster, CONFIG, version.index).await?;
    let said = cluster
        .nodes()
        .iter()
        .filter_map(|node| node.log_text().ok());
    let due: Vec<String> = said
        .flat_map(|log| log.lines().map(str::to_owned).collect::<Vec<_>>())
        .filter(|line| line.contains("snapshot is due") && line.contains(CONFIG))
        .collect();
    assert!(!due.is_empty(), "nobody says why it was due");
    assert!(
        due.iter().all(|line| line.contains("bytes since")),
        "{due:?}"
    );
    cluster.finish()
}

/// The followers have the wrong secret for the store. One of them is chosen first; what it cannot do, the next gets to try, and in the
/// end the leader.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn followers_that_cannot_reach_the_store_stop_no_snapshots() -> anyhow::Result<()> {
    let cluster = Plan::new("locked-out")
        .env(LOG_THRESHOLD, "300")
        .start()
        .await?;
    cluster.fill("app", "k", 50, "value").await?;
    let leader = cluster.wait_leader(CONFIG).await?;
    let followers: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
    for index in &followers {
        let node = cluster.node(*index);
        node.kill()?;
        node.set_env("AWS_SECRET_ACCESS_KEY", "not-the-secret");
        node.start()?;
        cluster.wait_ready(*index).await?;
    }
    // A warning with a hint has more than one line, and names its group in the last.
    let asked = || -> anyhow::Result<bool> {
        for index in &followers {
            if cluster
                .node(*index)
                .log_text()?
                .contains("snapshot failed: ")
            {
                return Ok(true);
            }
        }
        Ok(false)
    };

    // A follower that has just come back may not be known to keep up: then the leader is asked first.
    wait_until("a follower is asked", PATIENCE, || async {
        let taken = cluster.snapshot(CONFIG).await?;
        assert!(taken["index"].as_u64() >= Some(50), "{taken}");
        anyhow::ensure!(asked()?, "the leader made it");
        Ok(())
    })
    .await?;

    cluster.fill("app", "more", 400, "value").await?;
    wait_recorded(&cluster, CONFIG, 350).await?;
    cluster.finish()
}

/// The disk of one follower is short of room, and those of the others are not: it asks, and the log goes on every member.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn a_follower_whose_disk_is_short_of_room_has_the_log_let_go() -> anyhow::Result<()> {
    const DISK_FREE_PERCENT: &str = "CONFMAN_SNAPSHOT_DISK_FREE_PERCENT";
    const DISK_MEBIBYTES: u64 = 400;
    const VALUE_BYTES: usize = 1 << 20;
    let cluster = Plan::new("disk-due")
        .env(DISK_FREE_PERCENT, "0")
        .env("CONFMAN_SNAPSHOT_LOG_MARGIN", "0")
        .lay_out()
        .await?;
    let mut disks = Vec::new();
    for node in cluster.nodes() {
        match SmallDisk::mount(&node.data_dir, DISK_MEBIBYTES) {
            Ok(disk) => disks.push(disk),
            Err(why) => {
                skipped(
                    "a_follower_whose_disk_is_short_of_room_has_the_log_let_go",
                    format!("{why:#}"),
                );
                return cluster.finish();
            }
        }
    }
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    let value = json!("d".repeat(VALUE_BYTES));
    for n in 0..40 {
        cluster.write(&format!("app/k{}", n % 2), &value).await?;
    }
    let group = cluster.group(0, CONFIG).await?;
    assert!(group["snapshot"].is_null(), "{}", group["snapshot"]);

    let leader = cluster.wait_leader(CONFIG).await?;
    let short = cluster.node((leader + 1) % 3);
    short.kill()?;
    short.set_env(DISK_FREE_PERCENT, "90");
    short.start()?;
    let id = wait_recorded(&cluster, CONFIG, 40).await?;
    short
        .wait_log(
            &["snapshot is due", CONFIG, "of the disk are free"],
            PATIENCE,
        )
        .await?;
    for index in 0..3 {
        wait_until("the log is purged", PATIENCE, || async {
            let group = cluster.group(index, CONFIG).await?;
            anyhow::ensure!(group["purgedIndex"].as_u64() >= Some(30), "{group}");
            Ok(())
        })
        .await?;
    }
    // With so little log left another one would free nothing, and the disk is as short of room as before.
    wait_rest(&cluster).await?;
    assert_eq!(wait_recorded(&cluster, CONFIG, 40).await?, id);
    cluster.kill_all()?;
    drop(disks);
    cluster.finish()
}
