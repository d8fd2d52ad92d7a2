//! Every node is gone: plan, order, and empty nodes that restore themselves.

use confman_tests::agree;
use confman_tests::cluster::{CONFIG, META, PATIENCE, Plan};
use confman_tests::lives::{OldLife, judge_new_life};
use confman_tests::members::{changed, member, members, node};
use confman_tests::restore::{
    apply, filled, filled_by_clients, ids, lose_every_node, make_plan, planned, restore, restores,
    run, snapshot_all, tool, wait_spent,
};
use serde_json::json;

/// Where a node with data answers, there is nothing to restore; a lone survivor is a matter for a recovery.
#[tokio::test(flavor = "multi_thread")]
async fn i13_a_plan_is_refused_while_a_node_with_data_answers() -> anyhow::Result<()> {
    let cluster = filled(Plan::new("alive"), &[META, CONFIG]).await?;
    let ran = run(&cluster, &["restore", "plan"], 3).await?;
    assert!(ran.stderr.contains("CLUSTER_ALIVE"), "{ran}");
    for index in [0, 1] {
        cluster.node(index).kill()?;
    }
    let ran = run(&cluster, &["restore", "plan", "--json"], 3).await?;
    assert_eq!(ran.json()?["error"]["code"], "CLUSTER_ALIVE", "{ran}");
    assert!(ran.stderr.contains("drtool recover collect"), "{ran}");
    // Planned when all were gone, applied when one is back.
    cluster.node(2).kill()?;
    let (plan, _) = make_plan(&cluster, &[]).await?;
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    let ran = apply(&cluster, &plan, 3).await?;
    assert_eq!(ran.json()?["error"]["code"], "CLUSTER_ALIVE", "{ran}");
    cluster.write("app/after", &json!("still accepted")).await?;
    cluster.finish()
}

/// A member of which the newest snapshot knows nothing is known to the operator alone.
#[tokio::test(flavor = "multi_thread")]
async fn i13_a_node_that_joined_after_the_newest_snapshot_is_asked_where_the_operator_names_it()
-> anyhow::Result<()> {
    let cluster = filled(Plan::new("alive-later").spares(1), &[META, CONFIG]).await?;
    let node4 = cluster.node(3);
    // Expected before it comes: a node of a name that nobody knows is refused, and ends.
    let add = ["add", "node4", node4.peer_addr.as_str(), "--no-wait"];
    member(&cluster, &add).run().await?.expect(0)?;
    node4.start()?;
    cluster.wait_ready(3).await?;
    for index in 0..3 {
        cluster.node(index).kill()?;
    }
    let plan = ["restore", "plan", "--json"];
    let asked = |urls: &str| {
        let urls = urls.to_owned();
        let cluster = &cluster;
        async move {
            let ran = tool(cluster, &plan).await.env("CONFMAN_ENDPOINTS", &urls);
            ran.run().await
        }
    };
    let ran = asked(&node4.api_url).await?.expect(3)?;
    assert_eq!(ran.json()?["error"]["code"], "CLUSTER_ALIVE", "{ran}");
    assert!(ran.stderr.contains("node4 (node id 4)"), "{ran}");
    // Nothing else tells of it.
    asked(&cluster.node(0).api_url).await?.expect(0)?;
    cluster.finish()
}

/// The plan says what is lost, the order appears once, and what changed in between is found.
#[tokio::test(flavor = "multi_thread")]
async fn i15_i16_i17_a_plan_says_what_is_lost_and_becomes_one_order() -> anyhow::Result<()> {
    let cluster = filled(Plan::new("order"), &[META, CONFIG]).await?;
    cluster.fill("app", "lost", 20, "value").await?;
    let index = cluster.group(0, CONFIG).await?["snapshot"]["index"].clone();
    lose_every_node(&cluster)?;

    let (file, plan) = make_plan(&cluster, &[]).await?;
    assert_eq!(plan["cluster"]["incarnation"], 2, "{plan}");
    let account = plan["groups"]
        .as_array()
        .unwrap()
        .iter()
        .find(|group| group["group"] == CONFIG)
        .unwrap();
    assert_eq!(account["index"], index, "{plan}");
    assert_eq!(account["checked"], "data", "{plan}");
    let loss = plan["loss"].to_string();
    assert!(loss.contains(&format!("after index {index}")), "{loss}");
    assert!(loss.contains("not archived"), "{loss}");
    let ids: Vec<u64> = plan["order"]["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, [1001, 1002, 1003], "ids that nobody ever had");
    assert!(plan["order"]["term"].as_u64().unwrap() > 1000, "{plan}");

    // Nobody agreed, so nothing was done.
    let file_name = file.to_str().unwrap();
    let ran = run(&cluster, &["restore", "apply", file_name], 2).await?;
    assert!(ran.stderr.contains("CONSENT_NEEDED"), "{ran}");
    // A plan that somebody has edited is none.
    let edited = cluster.dir()?.join("edited.json");
    let text = std::fs::read_to_string(&file)?.replace("\"node1\"", "\"node7\"");
    std::fs::write(&edited, text)?;
    let ran = apply(&cluster, &edited, 2).await?;
    assert_eq!(ran.json()?["error"]["code"], "PLAN_INVALID", "{ran}");
    let (other, _) = make_plan(&cluster, &[]).await?;

    let ran = apply(&cluster, &file, 0).await?;
    assert_eq!(ran.json()?["already"], false, "{ran}");
    let ran = apply(&cluster, &file, 0).await?;
    assert_eq!(ran.json()?["already"], true, "{ran}");
    // Two operators: the second plan was made from a store that is no more.
    let ran = apply(&cluster, &other, 3).await?;
    assert_eq!(ran.json()?["error"]["code"], "PLAN_STALE", "{ran}");
    // The wrong bucket, or the wrong cluster in it.
    let wrong = "99999999-9999-4999-8999-999999999999";
    let ran = run(
        &cluster,
        &["restore", "plan", "--cluster", wrong, "--json"],
        4,
    )
    .await?;
    assert_eq!(ran.json()?["error"]["code"], "NO_CLUSTER", "{ran}");
    cluster.finish()
}

/// Three nodes of which every directory is gone come back from the store by themselves, as another life of the same cluster.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i11_i14_every_node_is_gone_and_the_cluster_comes_back_from_the_store() -> anyhow::Result<()>
{
    let cluster = Plan::new("everything").start().await?;
    cluster.fill("app", "k", 400, "value").await?;
    cluster.write("app/last", &json!("kept")).await?;
    let old = OldLife::lived(&cluster).await?;
    let before = agree::audits(&cluster, Some("app")).await?;
    let (live_index, live_hash) = agree::state_hashes(&cluster, CONFIG).await?;
    snapshot_all(&cluster, &[META, CONFIG]).await?;
    cluster
        .write("app/lost", &json!("after the snapshot"))
        .await?;
    lose_every_node(&cluster)?;

    let begin = std::time::Instant::now();
    let plan = restore(&cluster, &[]).await?;
    eprintln!("plan to ready: {:.1} s", begin.elapsed().as_secs_f64());
    // The state that the plan names is the one that the live cluster had there.
    let account = planned(&plan, CONFIG)?;
    assert_eq!(account["index"], live_index, "{plan}");
    assert_eq!(account["stateHash"], json!(live_hash), "{plan}");
    let id = account["snapshotId"].as_str().unwrap();
    for index in 0..3 {
        cluster
            .node(index)
            .wait_log(&["restored config/0", id, "from the store"], PATIENCE)
            .await?;
    }
    let kept = judge_new_life(&cluster, &[0, 1, 2], &old, &plan).await?;
    assert_eq!((kept.gone, kept.unknown), (0, 0), "all was in the snapshot");
    for index in 0..3 {
        for (key, value) in [
            ("app/last", json!("kept")),
            ("app/k399", json!("value-399")),
        ] {
            assert_eq!(cluster.read(index, key, "linearizable").await?, Some(value));
        }
        assert_eq!(cluster.read(index, "app/lost", "linearizable").await?, None);
    }
    // The history goes on where the snapshot ended.
    let after = agree::audits(&cluster, Some("app")).await?;
    assert_eq!(after, before);

    assert_eq!(ids(&cluster).await?, [1001, 1002, 1003]);
    assert_eq!(cluster.status(0).await?["incarnation"], 2);
    let token = cluster
        .write("app/new", &json!("accepted"))
        .await?
        .token()?;
    assert_eq!(token.incarnation, 2);
    assert!(token.term > 1000, "{token}");
    wait_spent(&cluster, 2).await?;
    cluster.finish()
}

/// A learner was a voter before, and would be one again if only the last membership of the snapshots were asked.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i11_a_learner_is_restored_as_a_learner() -> anyhow::Result<()> {
    let cluster = filled(Plan::new("learner"), &[CONFIG]).await?;
    let demote = ["demote", "node2", "--yes", "--allow-less-tolerance"];
    changed(&cluster, &demote).await?;
    let old = OldLife::with_snapshots(&cluster, &[META, CONFIG]).await?;
    lose_every_node(&cluster)?;
    let plan = restore(&cluster, &[]).await?;
    let learns: Vec<bool> = plan["order"]["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| member["learner"] == true)
        .collect();
    assert_eq!(learns, [false, true, false], "{plan}");
    let members = members(&cluster).await?;
    for group in members["groups"].as_array().unwrap() {
        assert_eq!(group["voters"], json!([1001, 1003]), "{members}");
        assert_eq!(group["learners"], json!([1002]), "{members}");
    }
    assert_eq!(node(&members, "node2").unwrap()["wish"], "learner");
    // It follows, and may vote when it is told to.
    cluster.write("app/new", &json!("accepted")).await?;
    judge_new_life(&cluster, &[0, 1, 2], &old, &plan).await?;
    changed(&cluster, &["promote", "node2"]).await?;
    wait_spent(&cluster, 2).await?;
    cluster.finish()
}

/// The order is spent when the life has begun: an empty node then joins as always, and a second loss needs a second order.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i14_an_order_never_fires_twice() -> anyhow::Result<()> {
    let (cluster, old) = filled_by_clients(Plan::new("once")).await?;
    lose_every_node(&cluster)?;
    let plan = restore(&cluster, &[]).await?;
    wait_spent(&cluster, 2).await?;
    judge_new_life(&cluster, &[0, 1, 2], &old, &plan).await?;

    // One disk: a new id, from the living cluster.
    cluster.node(2).kill()?;
    cluster.node(2).wipe()?;
    cluster.node(2).start()?;
    cluster.wait_ready(2).await?;
    assert_eq!(ids(&cluster).await?, [1001, 1002, 1004]);
    cluster.write("app/second", &json!("life")).await?;
    let second = OldLife::with_snapshots(&cluster, &[META, CONFIG]).await?;

    // All disks: nobody forms anything, and the log says what decides.
    lose_every_node(&cluster)?;
    let before = restores(&cluster)?;
    cluster.start_all()?;
    for node in cluster.nodes() {
        node.wait_log(
            &["no listed member has data", "drtool restore plan"],
            PATIENCE,
        )
        .await?;
    }
    for index in 0..3 {
        let ready = cluster.api(index).get("/health/ready").send().await?;
        assert_eq!(ready.status, 503);
        assert!(
            ready.text().contains("drtool restore plan"),
            "{}",
            ready.text()
        );
    }
    assert_eq!(before, restores(&cluster)?, "a spent order was carried out");

    // Ordered again while they wait: the third life, from the snapshots of the second.
    let (file, plan) = make_plan(&cluster, &[]).await?;
    assert_eq!(plan["cluster"]["incarnation"], 3, "{plan}");
    assert_eq!(planned(&plan, CONFIG)?["incarnation"], 2, "{plan}");
    apply(&cluster, &file, 0).await?;
    cluster.wait_all_ready().await?;
    assert_eq!(ids(&cluster).await?, [2001, 2002, 2003]);
    for (key, value) in [
        ("app/second", json!("life")),
        ("app/k299", json!("value-299")),
    ] {
        assert_eq!(cluster.read(1, key, "linearizable").await?, Some(value));
    }
    judge_new_life(&cluster, &[0, 1, 2], &second, &plan).await?;
    cluster.finish()
}
