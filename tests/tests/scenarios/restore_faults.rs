//! A restore of every node while more goes wrong: kills, lost disks, a damaged snapshot, a store that is down, old nodes that
//! come back, two clusters on one prefix.

use std::time::Duration;

use anyhow::Context as _;
use confman_tests::agree;
use confman_tests::cluster::{CONFIG, Cluster, META, PATIENCE, Plan};
use confman_tests::lives::{OldLife, judge_new_life};
use confman_tests::random::Random;
use confman_tests::restore::{
    apply, filled_by_clients, ids, life_object, lose_every_node, make_plan, planned, restore,
    restores, run, tool, wait_spent,
};
use confman_tests::store::flip_bit;
use confman_tests::wait::wait_until;
use serde_json::{Value, json};

/// Five nodes and three shards: every group comes back, each from its own snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn i11_five_nodes_and_several_groups_come_back() -> anyhow::Result<()> {
    let cluster = Plan::new("five-restored")
        .nodes(5)
        .env("CONFMAN_SHARDS", "3")
        .start()
        .await?;
    for tree in ["a", "b", "c", "d", "e", "f"] {
        cluster.fill(tree, "k", 60, tree).await?;
    }
    // What the live cluster had where its snapshots were taken: the cluster writes for itself too, so nothing else is a
    // position to go by.
    let groups = ["config/0", "config/1", "config/2", META];
    let mut had = Vec::new();
    for group in groups {
        let index = cluster.snapshot(group).await?["index"].clone();
        had.push((
            group,
            index.clone(),
            live_hash(&cluster, group, &index).await?,
        ));
    }
    let old = OldLife::lived(&cluster).await?;
    lose_every_node(&cluster)?;
    let plan = restore(&cluster, &[]).await?;
    for (group, index, hash) in had {
        let account = planned(&plan, group)?;
        assert_eq!(account["index"], index, "{account}");
        assert_eq!(account["stateHash"], hash, "{account}");
    }
    let kept = judge_new_life(&cluster, &[0, 1, 2, 3, 4], &old, &plan).await?;
    assert_eq!(kept.sure, 0, "all was written after the snapshots");
    for tree in ["a", "b", "c", "d", "e", "f"] {
        let value = cluster
            .read(4, &format!("{tree}/k59"), "linearizable")
            .await?;
        assert_eq!(value, Some(json!(format!("{tree}-59"))));
    }
    wait_spent(&cluster, 2).await?;
    assert_eq!(ids(&cluster).await?, [1001, 1002, 1003, 1004, 1005]);
    // It is a cluster of five: two may go.
    for index in [0, 1] {
        cluster.node(index).kill()?;
    }
    cluster.write("a/after", &json!("accepted")).await?;
    cluster.finish()
}

/// The hash that a node of the living cluster had at a position.
async fn live_hash(cluster: &Cluster, group: &str, index: &Value) -> anyhow::Result<Value> {
    let group = group.replace('/', "%2F");
    let path = format!("/api/v1/status/hash?group={group}&index={index}");
    wait_until("a node that remembers", PATIENCE, || async {
        let answer = cluster.api(0).get_json(&path).await?;
        anyhow::ensure!(!answer["hash"].is_null(), "{answer}");
        Ok(answer["hash"].clone())
    })
    .await
}

/// The newest snapshot is damaged: the plan takes the older one and says what that costs.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i9_i15_a_damaged_newest_snapshot_is_named_and_the_plan_says_what_that_costs()
-> anyhow::Result<()> {
    let (cluster, old) = filled_by_clients(Plan::new("damaged-newest")).await?;
    cluster.fill("app", "second", 200, "value").await?;
    let newest = cluster.snapshot(CONFIG).await?;
    lose_every_node(&cluster)?;
    damage(&cluster, CONFIG, newest["id"].as_str().unwrap()).await?;

    let (file, plan) = make_plan(&cluster, &[]).await?;
    let account = planned(&plan, CONFIG)?;
    assert_eq!(account["skipped"][0]["snapshotId"], newest["id"], "{plan}");
    let lost = newest["index"].as_u64().unwrap() - account["index"].as_u64().unwrap();
    let words = format!("{lost} entries are known to have been there");
    assert!(plan["loss"].to_string().contains(&words), "{plan}");
    apply(&cluster, &file, 0).await?;
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    let kept = cluster.read(2, "app/k299", "linearizable").await?;
    assert_eq!(kept, Some(json!("value-299")));
    assert_eq!(cluster.read(2, "app/second0", "linearizable").await?, None);
    judge_new_life(&cluster, &[0, 1, 2], &old, &plan).await?;
    cluster.finish()
}

/// Nobody looked at the data, and the nodes find the damage: they apply nothing of it, say so, and follow a better order.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i9_i17_nodes_that_find_the_ordered_snapshot_damaged_wait_for_another_order()
-> anyhow::Result<()> {
    let (cluster, old) = filled_by_clients(Plan::new("damaged-ordered")).await?;
    cluster.fill("app", "second", 200, "value").await?;
    let newest = cluster.snapshot(CONFIG).await?;
    lose_every_node(&cluster)?;
    damage(&cluster, CONFIG, newest["id"].as_str().unwrap()).await?;
    let (file, plan) = make_plan(&cluster, &["--skip-data"]).await?;
    assert_eq!(planned(&plan, CONFIG)?["snapshotId"], newest["id"]);
    let notes = plan["notes"].to_string();
    assert!(notes.contains("was not read"), "{notes}");
    // Applying with all data read finds it before anything is written.
    let name = file.to_str().unwrap();
    let args = ["restore", "apply", name, "--yes", "--verify-data", "--json"];
    let ran = run(&cluster, &args, 5).await?;
    assert_eq!(ran.json()?["error"]["code"], "SNAPSHOT_DAMAGED", "{ran}");
    assert!(life_object(&cluster, 2, ".json")?.is_none());

    apply(&cluster, &file, 0).await?;
    cluster.start_all()?;
    for index in 0..3 {
        let what = format!("node {index} says that the ordered snapshot is no good");
        wait_until(&what, PATIENCE, || async {
            let ready = cluster.api(index).get("/health/ready").send().await?;
            let text = ready.text();
            anyhow::ensure!(
                ready.status == 503 && text.contains("cannot be used"),
                "{text}"
            );
            anyhow::ensure!(text.contains("drtool restore plan"), "{text}");
            Ok(())
        })
        .await?;
    }
    let (file, plan) = make_plan(&cluster, &[]).await?;
    assert_eq!(plan["cluster"]["incarnation"], 3, "{plan}");
    apply(&cluster, &file, 0).await?;
    cluster.wait_all_ready().await?;
    assert_eq!(ids(&cluster).await?, [2001, 2002, 2003]);
    let kept = cluster.read(0, "app/k299", "linearizable").await?;
    assert_eq!(kept, Some(json!("value-299")));
    assert_eq!(cluster.read(0, "app/second0", "linearizable").await?, None);
    judge_new_life(&cluster, &[0, 1, 2], &old, &plan).await?;
    cluster.finish()
}

async fn damage(cluster: &Cluster, group: &str, id: &str) -> anyhow::Result<()> {
    let store = cluster.store().await;
    let object = store.as_ref().context("no store")?.snapshot(group, id)?;
    flip_bit(&object)
}

/// A node that could have voted under its ordered id loses its disk: another id, however early that was.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i14_a_disk_lost_before_the_life_begins_does_not_come_back_under_the_ordered_id()
-> anyhow::Result<()> {
    let (cluster, old) = filled_by_clients(Plan::new("lost-twice")).await?;
    lose_every_node(&cluster)?;
    let (file, plan) = make_plan(&cluster, &[]).await?;
    apply(&cluster, &file, 0).await?;
    // Alone it has no quorum: it may vote, and the life does not begin.
    let said = ["restored from the store as the order says"];
    cluster.node(0).start()?;
    cluster.node(0).wait_log(&said, PATIENCE).await?;
    cluster.node(0).wait_log(&["serving"], PATIENCE).await?;
    cluster.node(0).kill()?;
    cluster.node(0).wipe()?;
    cluster.node(0).start()?;
    let taken = ["node id 1001", "was taken up before"];
    cluster.node(0).wait_log(&taken, PATIENCE).await?;
    assert!(life_object(&cluster, 2, ".done.json")?.is_none());

    for index in [1, 2] {
        cluster.node(index).start()?;
    }
    cluster.wait_all_ready().await?;
    assert_eq!(ids(&cluster).await?, [1004, 1002, 1003]);
    assert_eq!(restores(&cluster)?, [1, 1, 1]);
    wait_spent(&cluster, 2).await?;
    judge_new_life(&cluster, &[0, 1, 2], &old, &plan).await?;
    cluster.finish()
}

/// kill -9 at any moment of the restore, of one node or of all, and again: the same end.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i17_nodes_killed_again_and_again_while_they_restore_come_to_the_same_end()
-> anyhow::Result<()> {
    let cluster = Plan::new("killed-restore").start().await?;
    cluster.fill("app", "k", 4_000, &"value".repeat(40)).await?;
    let before = agree::audits(&cluster, Some("app")).await?;
    let old = OldLife::with_snapshots(&cluster, &[META, CONFIG]).await?;
    lose_every_node(&cluster)?;
    let (file, plan) = make_plan(&cluster, &[]).await?;
    apply(&cluster, &file, 0).await?;
    let seed = Random::seed();
    eprintln!("seed {seed}");
    let mut random = Random::new(seed);
    for round in 0..20 {
        cluster.start_all()?;
        // The kills come at other moments each time: that is what is tried.
        let millis = 20 + random.below(90) * (1 + round / 4);
        tokio::time::sleep(Duration::from_millis(u64::try_from(millis)?)).await;
        match random.below(3) {
            0 => cluster.kill_all()?,
            _ => cluster.node(random.below(3)).kill()?,
        }
    }
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    assert_eq!(ids(&cluster).await?, [1001, 1002, 1003]);
    wait_spent(&cluster, 2).await?;
    judge_new_life(&cluster, &[0, 1, 2], &old, &plan).await?;
    assert_eq!(agree::audits(&cluster, Some("app")).await?, before);
    cluster.finish()
}

/// The tool is killed at any moment of applying: run again, there is one order, and it is whole.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i17_a_tool_killed_while_it_orders_orders_once() -> anyhow::Result<()> {
    let (cluster, old) = filled_by_clients(Plan::new("killed-tool")).await?;
    lose_every_node(&cluster)?;
    let (file, plan) = make_plan(&cluster, &[]).await?;
    let name = file.to_str().unwrap();
    let mut killed = 0;
    for millis in (0..).step_by(9) {
        let tool = tool(&cluster, &["restore", "apply", name, "--yes"]).await;
        let mut child = tool.spawn()?;
        let ended = tokio::time::timeout(Duration::from_millis(millis), child.wait()).await;
        if let Ok(status) = ended {
            assert!(status?.success());
            break;
        }
        child.kill().await?;
        killed += 1;
    }
    eprintln!("killed {killed} times");
    let ran = apply(&cluster, &file, 0).await?;
    assert_eq!(ran.json()?["already"], true, "{ran}");
    let object = life_object(&cluster, 2, ".json")?.context("no order")?;
    let object: serde_json::Value = serde_json::from_slice(&std::fs::read(object)?)?;
    assert_eq!(
        object["order"], plan["order"],
        "the order is the plan's, whole"
    );
    assert!(life_object(&cluster, 3, ".json")?.is_none());
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    judge_new_life(&cluster, &[0, 1, 2], &old, &plan).await?;
    cluster.finish()
}

/// The store is down when the nodes start: they form nothing, say so, and go on when it is back.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i18_nodes_wait_for_a_store_that_is_down() -> anyhow::Result<()> {
    let (cluster, old) = filled_by_clients(Plan::new("store-down")).await?;
    lose_every_node(&cluster)?;
    let (file, plan) = make_plan(&cluster, &[]).await?;
    cluster.stop_store().await;
    let ran = apply(&cluster, &file, 6).await?;
    assert_eq!(ran.json()?["error"]["code"], "STORE_UNREACHABLE", "{ran}");
    cluster.resume_store().await?;
    apply(&cluster, &file, 0).await?;
    cluster.stop_store().await;
    cluster.start_all()?;
    for node in cluster.nodes() {
        node.wait_log(&["the store is unreachable"], PATIENCE)
            .await?;
    }
    assert_eq!(restores(&cluster)?, [0, 0, 0]);
    cluster.resume_store().await?;
    cluster.wait_all_ready().await?;
    assert_eq!(ids(&cluster).await?, [1001, 1002, 1003]);
    judge_new_life(&cluster, &[0, 1, 2], &old, &plan).await?;
    cluster.finish()
}

/// Another cluster's object lies under the prefix: the plan wants to be told which one is meant, and the nodes find theirs.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i13_on_a_shared_prefix_the_operator_says_which_cluster_is_meant() -> anyhow::Result<()> {
    let (cluster, old) = filled_by_clients(Plan::new("shared")).await?;
    let own = cluster.status(0).await?["clusterUuid"].clone();
    let own = own.as_str().context("no clusterUuid")?;
    lose_every_node(&cluster)?;
    let object = life_object(&cluster, 1, ".json")?.context("no cluster object")?;
    let other = "99999999-9999-4999-8999-999999999999";
    let text = std::fs::read_to_string(&object)?.replace(own, other);
    let beside = object.with_file_name(format!("0000000001-{other}.json"));
    std::fs::write(&beside, text)?;

    let ran = run(&cluster, &["restore", "plan", "--json"], 3).await?;
    assert_eq!(ran.json()?["error"]["code"], "PREFIX_SHARED", "{ran}");
    let args = ["restore", "plan", "--cluster", other, "--json"];
    let ran = run(&cluster, &args, 5).await?;
    assert_eq!(ran.json()?["error"]["code"], "NO_SNAPSHOT", "{ran}");
    let plan = restore(&cluster, &["--cluster", own]).await?;
    assert_eq!(plan["cluster"]["uuid"], own);
    assert_eq!(cluster.status(1).await?["clusterUuid"], own);
    wait_spent(&cluster, 2).await?;
    judge_new_life(&cluster, &[0, 1, 2], &old, &plan).await?;
    cluster.finish()
}

/// A point in time, a position or a snapshot by name: what is newer is passed over, and said.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i15_an_earlier_snapshot_can_be_asked_for() -> anyhow::Result<()> {
    let (cluster, old) = filled_by_clients(Plan::new("earlier")).await?;
    let first = planned_index(&cluster).await?;
    cluster.fill("app", "second", 50, "value").await?;
    let second = cluster.snapshot(CONFIG).await?;
    lose_every_node(&cluster)?;
    let (_, newest) = make_plan(&cluster, &[]).await?;
    assert_eq!(planned(&newest, CONFIG)?["index"], second["index"]);

    let upto = format!("config/0={}", second["index"].as_u64().unwrap() - 1);
    let (_, plan) = make_plan(&cluster, &["--index", &upto]).await?;
    assert_eq!(planned(&plan, CONFIG)?["index"], first);
    let loss = plan["loss"].to_string();
    assert!(loss.contains("1 newer snapshots are passed over"), "{loss}");
    let id = planned(&plan, CONFIG)?["snapshotId"].as_str().unwrap();
    let (_, named) = make_plan(&cluster, &["--snapshot", id]).await?;
    assert_eq!(planned(&named, CONFIG)?["index"], first);
    // The moment of the first snapshot's last entry; `__meta/0` has nothing later than that either.
    let at = planned(&plan, CONFIG)?["lastEntryAt"].as_str().unwrap();
    let args = ["restore", "plan", "--at", "2001-01-01T00:00:00Z", "--json"];
    run(&cluster, &args, 5).await?;
    assert!(at.ends_with('Z'), "{at}");

    // Restored to the first, the second is a past that never was.
    let plan = restore(&cluster, &["--index", &upto]).await?;
    assert_eq!(cluster.read(1, "app/second0", "linearizable").await?, None);
    wait_spent(&cluster, 2).await?;
    judge_new_life(&cluster, &[0, 1, 2], &old, &plan).await?;
    lose_every_node(&cluster)?;
    let (_, again) = make_plan(&cluster, &[]).await?;
    assert_eq!(planned(&again, CONFIG)?["index"], first, "{again}");
    let notes = again["notes"].to_string();
    assert!(
        notes.contains("of a past that no life goes on from"),
        "{notes}"
    );
    cluster.finish()
}

async fn planned_index(cluster: &Cluster) -> anyhow::Result<u64> {
    let index = &cluster.group(0, CONFIG).await?["snapshot"]["index"];
    index.as_u64().context("no snapshot")
}
