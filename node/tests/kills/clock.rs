//! Clocks that are wrong, of one node and of all: what is written down has the right time, time goes forward, and whatever waits for a
//! time to pass does not wait for ever.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use confman_tests::agree;
use confman_tests::cluster::{CONFIG, Cluster, META, PATIENCE, Plan};
use confman_tests::members::changed;
use confman_tests::wait::wait_until;
use jiff::Timestamp;
use serde_json::json;

pub(crate) const YEAR: i64 = 365 * 86_400;
/// Less than any task may take, so that none ends by it.
const AHEAD_SECS: i64 = 1_200;
const OFFSET: &str = "confman_clock_offset_seconds";
const AHEAD: &str = "confman_group_time_ahead_seconds{group=\"config/0\"}";
const TAKEN: &str = "confman_snapshot_last_timestamp_seconds{group=\"__meta/0\"}";
/// How far a time may be from this test's own clock: what nodes tolerate, and what a busy machine takes.
const NEAR: i64 = 40;

/// A cluster whose clocks can be set wrong while it runs.
pub(crate) struct Clocks {
    pub(crate) cluster: Cluster,
}

impl Clocks {
    pub(crate) async fn start(plan: Plan) -> anyhow::Result<Self> {
        let clocks = Self {
            cluster: plan.lay_out().await?,
        };
        for (index, node) in clocks.cluster.nodes().iter().enumerate() {
            node.set_env("CLOCK_OFF_FILE", &file(&node.data_dir).to_string_lossy());
            clocks.set(index, 0)?;
        }
        clocks.cluster.start_all()?;
        clocks.cluster.wait_all_ready().await?;
        Ok(clocks)
    }

    /// From now on the clock of that node is wrong by so many seconds.
    pub(crate) fn set(&self, index: usize, seconds: i64) -> anyhow::Result<()> {
        let file = file(&self.cluster.node(index).data_dir);
        // A node that looks meanwhile sees one or the other.
        let new = file.with_extension("new");
        std::fs::write(&new, seconds.to_string())?;
        std::fs::rename(new, file)?;
        Ok(())
    }

    /// Waits until each node says that its clock is ahead of the middle by so many seconds.
    async fn wait_offsets(&self, offsets: &[i64]) -> anyhow::Result<()> {
        wait_until(
            "the nodes have heard each other's clocks",
            PATIENCE,
            || async {
                for (index, want) in offsets.iter().enumerate() {
                    let page = self.cluster.metrics(index).await?;
                    let offset = page.get(OFFSET).context("no offset")?;
                    ensure!(
                        (offset - *want as f64).abs() < 5.0,
                        "node {index}: {offset}, not {want}"
                    );
                }
                Ok(())
            },
        )
        .await
    }

    /// Waits until all are ready, and has that node lead.
    async fn leads(&self, index: usize) -> anyhow::Result<()> {
        self.cluster.wait_all_ready().await?;
        let name = &self.cluster.node(index).name;
        changed(&self.cluster, &["transfer-leader", name]).await?;
        wait_until("it leads", PATIENCE, || async {
            let leader = self.cluster.wait_leader(CONFIG).await?;
            ensure!(leader == index, "{leader} leads");
            Ok(())
        })
        .await
    }

    /// Writes; gives how far the time that it got is ahead of the right one, in seconds.
    async fn written_ahead(&self, value: i64) -> anyhow::Result<i64> {
        self.cluster.write("app/k", &json!(value)).await?;
        let leader = self.cluster.wait_leader(CONFIG).await?;
        let api = self.cluster.api(leader);
        let entry: serde_json::Value = api.get("/api/v1/config/app/k").send().await?.json()?;
        ensure!(entry["value"] == value, "{entry}");
        let time = entry["updatedAt"].as_str().context("no updatedAt")?;
        let time: Timestamp = time.parse()?;
        Ok(time.as_second() - Timestamp::now().as_second())
    }
}

fn file(data_dir: &std::path::Path) -> PathBuf {
    data_dir.with_extension("clock-off")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn t01_clocks_that_jump_move_no_history_and_stop_no_snapshot() -> anyhow::Result<()> {
    let plan = Plan::new("clocks")
        .env("CONFMAN_SNAPSHOT_LOG_THRESHOLD", "100")
        .env("CONFMAN_SNAPSHOT_LOG_MARGIN", "10");
    let clocks = Clocks::start(plan).await?;
    let cluster = &clocks.cluster;
    assert!(clocks.written_ahead(1).await?.abs() <= NEAR);

    // One clock is wrong, in either direction, and it is the leader's: at once, and as the leader begins with it.
    for (value, seconds) in [(2, 10 * YEAR), (4, -10 * YEAR)] {
        let leader = cluster.wait_leader(CONFIG).await?;
        clocks.set(leader, seconds)?;
        let ahead = clocks.written_ahead(value).await?;
        assert!(
            ahead.abs() <= NEAR,
            "written {ahead} s ahead by a clock that jumped {seconds}"
        );
        let mut offsets = [0; 3];
        offsets[leader] = seconds;
        clocks.wait_offsets(&offsets).await?;
        cluster.node(leader).kill()?;
        cluster.node(leader).start()?;
        clocks.leads(leader).await?;
        let ahead = clocks.written_ahead(value + 1).await?;
        ensure!(
            cluster.wait_leader(CONFIG).await? == leader,
            "another one wrote it"
        );
        assert!(
            ahead.abs() <= NEAR,
            "written {ahead} s ahead after a restart"
        );
        clocks.set(leader, 0)?;
        clocks.wait_offsets(&[0; 3]).await?;
    }

    // All of them are ahead, which nobody can know, and are put right: history goes on after what it has.
    for index in 0..3 {
        clocks.set(index, AHEAD_SECS)?;
    }
    clocks.wait_offsets(&[0; 3]).await?;
    wait_until("they go by the wrong time together", PATIENCE, || async {
        let ahead = clocks.written_ahead(6).await?;
        ensure!(
            (ahead - AHEAD_SECS).abs() <= NEAR,
            "written {ahead} s ahead"
        );
        Ok(())
    })
    .await?;
    // What snapshots wait for is measured in the time of the cluster's own group.
    cluster.snapshot(META).await?;
    for index in 0..3 {
        clocks.set(index, 0)?;
    }
    let leader = cluster.wait_leader(CONFIG).await?;
    wait_until("the log is known to be ahead", PATIENCE, || async {
        let ahead = cluster.metrics(leader).await?.get(AHEAD);
        ensure!(
            // Half of it: time passes meanwhile, and the log's only half as fast.
            ahead.is_some_and(|s| s > (AHEAD_SECS / 2) as f64),
            "{ahead:?}"
        );
        Ok(())
    })
    .await?;
    let ahead = clocks.written_ahead(7).await?;
    assert!(
        (AHEAD_SECS / 2..=AHEAD_SECS + NEAR).contains(&ahead),
        "written {ahead} s ahead"
    );
    // How old a snapshot is shows all the same, though it is dated in the future.
    let snapshot = cluster.group(leader, META).await?["snapshot"].clone();
    let time: Timestamp = snapshot["time"].as_str().context("no time")?.parse()?;
    let now = Timestamp::now().as_second();
    assert!(time.as_second() > now + AHEAD_SECS / 2, "{snapshot}");
    assert!(snapshot["ageSeconds"].is_u64(), "{snapshot}");
    let taken = cluster.metrics(leader).await?.get(TAKEN);
    let taken = taken.context("no time of the last snapshot")?;
    assert!(taken <= (now + NEAR) as f64, "{taken} at {now}");

    // A snapshot that fails is tried again, though its failure is written down in the future.
    let recorded = |group: &serde_json::Value| group["snapshot"]["index"].as_u64().unwrap_or(0);
    cluster.stop_store().await;
    let before = recorded(&cluster.group(leader, CONFIG).await?);
    cluster.fill("more", "k", 200, "value").await?;
    wait_until("a snapshot fails", PATIENCE, || async {
        let group = cluster.group(leader, CONFIG).await?;
        let time = group["snapshotError"]["time"]
            .as_str()
            .context("no error")?;
        let time: Timestamp = time.parse()?;
        let ahead = time.as_second() - Timestamp::now().as_second();
        ensure!(ahead > AHEAD_SECS / 2, "{}", group["snapshotError"]);
        Ok(())
    })
    .await?;
    cluster.resume_store().await?;
    wait_until("a snapshot is made", PATIENCE * 2, || async {
        let group = cluster.group(leader, CONFIG).await?;
        ensure!(
            recorded(&group) >= before + 200,
            "{} {}",
            group["snapshot"],
            group["snapshotError"]
        );
        Ok(())
    })
    .await?;
    // Time went on, and not as fast as the clocks.
    let after = clocks.written_ahead(8).await?;
    assert!(after < ahead, "{after} s ahead, {ahead} s before");
    agree::state_hashes(cluster, CONFIG).await?;
    clocks.cluster.finish()
}
