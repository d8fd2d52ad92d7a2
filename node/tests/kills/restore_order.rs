//! kill -9 of every node at every place at which it carries out a restore order.

use anyhow::{Context as _, ensure};
use confman_tests::agree;
use confman_tests::cluster::{CONFIG, META, PATIENCE, Plan};
use confman_tests::restore::{apply, filled, ids, lose_every_node, make_plan, planned, wait_spent};
use confman_tests::wait::wait_until;
use serde_json::json;

use super::kit::{DIR, Points, revived};

/// Where every node comes by.
const EACH: [&str; 9] = [
    "order::claimed",
    "order::incarnation",
    "order::identity",
    "restore::started",
    "store::before-swap",
    "store::after-swap",
    "restore::installed",
    "order::restored",
    "order::taken-up",
];
/// Where whoever leads comes by.
const LEADER: [&str; 4] = [
    "order::before-record",
    "order::before-report",
    "order::before-spent",
    "order::after-spent",
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i11_i17_kill_9_at_every_place_of_a_restore_order_comes_to_the_same_end()
-> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let plan = Plan::new("order-kills").env("CONFMAN_SHARDS", "2");
    let groups = [META, CONFIG, "config/1"];
    let cluster = filled(plan, &groups).await?;
    let before = agree::audits(&cluster, Some("app")).await?;
    lose_every_node(&cluster)?;
    let (file, plan) = make_plan(&cluster, &[]).await?;
    apply(&cluster, &file, 0).await?;

    let mut points = Vec::new();
    for node in cluster.nodes() {
        let own = Points::new(dir.path().join(&node.name))?;
        own.arm(&EACH)?;
        own.arm(&LEADER)?;
        node.set_env(DIR, &own.dir().display().to_string());
        points.push(own);
    }
    cluster.start_all()?;
    let work = async {
        cluster.wait_all_ready().await?;
        wait_spent(&cluster, 2).await?;
        // The object is there before whoever wrote it dies of it.
        let spent_by = || points.iter().any(|own| !own.waits_at("order::after-spent"));
        wait_until(
            "somebody dies after the end of the order",
            PATIENCE,
            || async { spent_by().then_some(()).context("nobody has") },
        )
        .await?;
        // Who comes to lead later comes by the leaders' places too, and shall not die there any more.
        let left: Vec<_> = points.iter().map(Points::left).collect::<Result<_, _>>()?;
        // Whoever died after the last of it is back too.
        cluster.wait_all_ready().await?;
        anyhow::Ok(left)
    };
    let (left, deaths) = revived(&cluster, &[0, 1, 2], work).await?;
    eprintln!("{deaths} deaths");
    let mut led = LEADER.to_vec();
    for (node, left) in cluster.nodes().iter().zip(&left) {
        for point in EACH {
            ensure!(
                !left.contains(point),
                "{} did not come by {point}",
                node.name
            );
        }
        led.retain(|point| left.contains(*point));
    }
    ensure!(led.is_empty(), "no node came by {led:?}");

    // The same end as without a death: each named id once, each group in the state that the plan names, history whole.
    assert_eq!(ids(&cluster).await?, [1001, 1002, 1003]);
    for group in groups {
        let account = planned(&plan, group)?;
        for index in 0..3 {
            let status = cluster.group(index, group).await?;
            assert_eq!(
                status["restore"]["snapshotId"], account["snapshotId"],
                "{status}"
            );
            let voters = status["members"].as_array().unwrap();
            assert_eq!(voters.len(), 3, "{status}");
        }
        agree::state_hashes(&cluster, group).await?;
    }
    let after = agree::audits(&cluster, Some("app")).await?;
    assert_eq!(after, before);
    assert_eq!(
        cluster.read(0, "app/k7", "linearizable").await?,
        Some(json!("value-7"))
    );
    // A node that comes back once more does not carry the order out again.
    cluster.write("app/new", &json!("life")).await?;
    cluster.node(1).kill()?;
    cluster.node(1).start()?;
    cluster.wait_ready(1).await?;
    assert_eq!(
        cluster.read(1, "app/new", "linearizable").await?,
        Some(json!("life"))
    );
    cluster.finish()
}
