//! Disks that are really full: nodes stop and say so, the others go on, and with room again nothing is missing.

use std::time::Duration;

use confman_tests::cluster::{Cluster, PATIENCE, Plan};
use confman_tests::load::{Load, LoadPlan};
use confman_tests::skip::skipped;
use confman_tests::small_disk::SmallDisk;
use serde_json::json;

use crate::crash::judge;

const FILL_BYTES: usize = 200_000;
/// How long a disk may take until it is full: others write to the real one beneath it.
const FULL_WITHIN: Duration = Duration::from_secs(180);
/// No single write of the filling takes longer: without a quorum it is given up.
const FILL_WAIT: Duration = Duration::from_secs(5);

/// Writes large values, whatever becomes of them, until the node ends by itself.
pub(crate) async fn fill_until_it_stops(cluster: &Cluster, index: usize) -> anyhow::Result<()> {
    let value = json!("f".repeat(FILL_BYTES));
    let fill = async {
        for number in 0_u64.. {
            let path = format!("fill/from{index}-{number}");
            // Refused and unanswered writes are what this is about.
            let _ = tokio::time::timeout(FILL_WAIT, cluster.write(&path, &value)).await;
        }
    };
    let ended = tokio::select! {
        () = fill => unreachable!("it writes for ever"),
        ended = cluster.node(index).wait_exit(FULL_WITHIN) => ended?,
    };
    assert!(!ended.success(), "{ended}");
    let name = &cluster.node(index).name;
    let said = cluster
        .node(index)
        .wait_log(&["stopped by itself", "No space left"], PATIENCE)
        .await?;
    assert!(
        cluster
            .node(index)
            .log_text()?
            .contains("drtool runbook disk-full"),
        "{name} does not say what to do: {said}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i1_full_disks_stop_their_nodes_and_lose_nothing() -> anyhow::Result<()> {
    let cluster = Plan::new("disk-full").lay_out().await?;
    let mut disks = Vec::new();
    for (node, mebibytes) in cluster.nodes().iter().zip([48, 96, 96]) {
        match SmallDisk::mount(&node.data_dir, mebibytes) {
            Ok(disk) => disks.push(disk),
            Err(why) => {
                skipped(
                    "i1_full_disks_stop_their_nodes_and_lose_nothing",
                    format!("{why:#}"),
                );
                return cluster.finish();
            }
        }
    }
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    let load = Load::start(
        &cluster,
        &LoadPlan {
            writers: 2,
            readers: 1,
            ..LoadPlan::default()
        },
    );
    load.wait_progress(20, PATIENCE).await?;

    // One is full: it stops, and the two others go on.
    fill_until_it_stops(&cluster, 0).await?;
    load.wait_progress(50, PATIENCE).await?;

    // Started while there is still no room it may stop again, and spoils nothing.
    cluster.node(0).start()?;
    let again = cluster.node(0).wait_exit(Duration::from_secs(10)).await;
    disks[0].resize(400)?;
    if again.is_ok() {
        cluster.node(0).start()?;
    }
    cluster.wait_ready(0).await?;
    load.wait_progress(50, PATIENCE).await?;

    // The two others are full: there is no quorum until they have room.
    let (one, other) = tokio::join!(
        fill_until_it_stops(&cluster, 1),
        cluster.node(2).wait_exit(FULL_WITHIN)
    );
    one?;
    other?;
    for disk in &disks[1..] {
        disk.resize(400)?;
    }
    cluster.node(1).start()?;
    cluster.node(2).start()?;
    cluster.wait_all_ready().await?;
    load.wait_progress(50, PATIENCE).await?;
    let history = load.stop().await?;
    judge(&cluster, &history).await?;
    cluster.kill_all()?;
    drop(disks);
    cluster.finish()
}
