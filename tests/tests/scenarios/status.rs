//! `drtool status` on real clusters: healthy, one node down, no quorum, a wrong key; and watched.

use std::time::Duration;

use confman_tests::cluster::{CONFIG, Cluster, PATIENCE, Plan};
use confman_tests::drtool::Ran;
use confman_tests::load::{Load, LoadPlan};
use confman_tests::wait::wait_until;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// What it says once it ends with this exit code.
async fn wait_status(cluster: &Cluster, code: i32) -> anyhow::Result<(Ran, Value)> {
    wait_until(&format!("status ends with {code}"), PATIENCE, || async {
        let ran = cluster
            .drtool(["status", "--json"])
            .run()
            .await?
            .expect(code)?;
        let document = ran.json()?;
        Ok((ran, document))
    })
    .await
}

fn codes(document: &Value) -> Vec<&str> {
    let findings = document["findings"].as_array().into_iter().flatten();
    findings.filter_map(|f| f["code"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn status_tells_healthy_degraded_and_no_quorum_apart() -> anyhow::Result<()> {
    let cluster = Plan::new("status").start().await?;
    cluster.fill("app", "k", 600, "value").await?;
    let taken = cluster.snapshot(CONFIG).await?;
    let (_, told) = wait_status(&cluster, 0).await?;
    assert_eq!(told["verdict"], "healthy", "{told}");
    assert_eq!(told["tolerance"], 1);
    assert_eq!(told["nodes"].as_array().map(Vec::len), Some(3));
    let group = &told["groups"][1];
    assert_eq!(group["protected"]["snapshotId"], taken["id"], "{group}");
    assert_eq!(
        group["agreement"]["hashes"].as_array().map(Vec::len),
        Some(1),
        "{group}"
    );

    // The endpoints of one node are enough: the others are found.
    let ran = cluster
        .drtool(["status"])
        .env("CONFMAN_ENDPOINTS", &cluster.node(0).api_url)
        .run()
        .await?
        .expect(0)?;
    assert!(ran.stdout.contains("healthy: 1 more node may go"), "{ran}");
    assert!(ran.stdout.contains("node3 (3)"), "{ran}");

    cluster.node(2).kill()?;
    let (_, told) = wait_status(&cluster, 1).await?;
    assert_eq!(
        (&told["verdict"], &told["tolerance"]),
        (&json!("degraded"), &json!(0))
    );
    assert!(codes(&told).contains(&"NODE_SILENT"), "{told}");
    assert!(codes(&told).contains(&"NO_TOLERANCE"), "{told}");

    cluster.node(1).kill()?;
    let (ran, told) = wait_status(&cluster, 6).await?;
    assert_eq!(
        (&told["verdict"], &told["tolerance"]),
        (&json!("noQuorum"), &Value::Null)
    );
    assert!(codes(&told).contains(&"NO_QUORUM"), "{ran}");
    cluster.start_all()?;
    wait_status(&cluster, 0).await?;

    let refused = cluster
        .drtool(["status"])
        .env("CONFMAN_API_KEY", "confman_not_a_key")
        .run()
        .await?
        .expect(3)?;
    assert!(refused.stderr.contains("hint:"), "{refused}");
    cluster.finish()
}

/// While writes go on no two replicas answer at the same position; they are compared all the same.
#[tokio::test(flavor = "multi_thread")]
async fn i2_status_compares_replicas_while_writes_go_on_and_can_be_watched() -> anyhow::Result<()> {
    let cluster = Plan::new("status-load").start().await?;
    let load = Load::start(&cluster, &LoadPlan::default());
    load.wait_progress(100, PATIENCE).await?;
    let mut watching = cluster.drtool(["status", "--json", "--watch=1"]).spawn()?;
    let mut lines = BufReader::new(watching.stdout.take().expect("it is captured")).lines();
    for _ in 0..3 {
        let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await??;
        let told: Value = serde_json::from_str(&line.expect("it goes on"))?;
        let agreement = &told["groups"][1]["agreement"];
        assert_eq!(
            agreement["hashes"].as_array().map(Vec::len),
            Some(1),
            "{agreement}"
        );
        let nodes = agreement["hashes"][0]["nodes"].as_array().map(Vec::len);
        assert_eq!(nodes, Some(3), "compared at one position: {agreement}");
    }
    watching.kill().await?;
    load.stop().await?;
    cluster.finish()
}
