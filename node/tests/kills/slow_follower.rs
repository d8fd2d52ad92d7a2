//! The page `slow-follower`, carried out beside a node whose disk is slow.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::ensure;
use confman_tests::agree;
use confman_tests::cluster::{CONFIG, META, PATIENCE, Plan};
use confman_tests::members::changed;
use confman_tests::runbook::Runbook;
use confman_tests::wait::wait_until;
use serde_json::json;

/// What each commit of its states takes.
const COMMIT_MS: u64 = 3_000;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn slow_follower() -> anyhow::Result<()> {
    let cluster = Plan::new("runbook-slow-follower").start().await?;
    cluster.write("app/k", &json!("v")).await?;
    for group in [META, CONFIG] {
        cluster.snapshot(group).await?;
    }
    // Nothing else is wrong.
    let healthy = cluster.drtool(["status", "--wait-healthy"]);
    healthy.run().await?.expect(0)?;
    let slow = cluster.follower(CONFIG).await?;
    let node = cluster.node(slow);
    node.stop(PATIENCE).await?;
    let commits = format!("store::before-commit=sleep({COMMIT_MS})");
    node.set_env("FAILPOINTS", &commits);
    node.start()?;
    cluster.wait_ready(slow).await?;
    // It leads something, in whatever place it stands among the names: another is to.
    wait_until("the slow one leads", PATIENCE, || async {
        let transfer = ["transfer-leader", &node.name, "--group", META];
        changed(&cluster, &transfer).await?;
        let leader = cluster.wait_leader(META).await?;
        ensure!(leader == slow, "another one leads");
        Ok(())
    })
    .await?;

    // Clients write more than it can apply, until the page says that it is mended.
    let is_mended = AtomicBool::new(false);
    let write = async {
        for round in 0.. {
            if is_mended.load(Ordering::Relaxed) {
                break;
            }
            cluster.fill("load", "k", 500, &format!("v{round}")).await?;
        }
        anyhow::Ok(())
    };
    let page = async {
        wait_until("it is behind", PATIENCE, || async {
            let ran = cluster.drtool(["status"]).run().await?;
            let behind = format!("REPLICA_BEHIND] node {}", node.name);
            ensure!(ran.stdout.contains(&behind), "{ran}");
            Ok(())
        })
        .await?;
        let page = Runbook::new("slow-follower", &cluster).about(slow);
        page.carry_out(async |what: &str| {
            ensure!(what == "the machine is mended", "{what}");
            ensure!(cluster.wait_leader(META).await? != slow, "it still leads");
            is_mended.store(true, Ordering::Relaxed);
            node.kill()?;
            node.unset_env("FAILPOINTS");
            node.start()
        })
        .await
    };
    tokio::try_join!(write, page)?;
    for group in [META, CONFIG] {
        agree::state_hashes(&cluster, group).await?;
    }
    cluster.finish()
}
