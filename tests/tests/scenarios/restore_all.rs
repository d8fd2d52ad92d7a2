//! Every node is gone: plan, order, and empty nodes that restore themselves.

use std::path::PathBuf;

use anyhow::Context as _;
use confman_tests::cluster::{CONFIG, Cluster, META, Plan};
use confman_tests::drtool::{Drtool, Ran};
use serde_json::{Value, json};

/// A cluster with a value and a snapshot of every group.
async fn filled(plan: Plan, groups: &[&str]) -> anyhow::Result<Cluster> {
    let cluster = plan.start().await?;
    cluster.fill("app", "k", 300, "value").await?;
    snapshot_all(&cluster, groups).await?;
    Ok(cluster)
}

async fn snapshot_all(cluster: &Cluster, groups: &[&str]) -> anyhow::Result<()> {
    for group in groups {
        cluster.snapshot(group).await?;
    }
    Ok(())
}

/// `drtool` with the store of the cluster.
async fn tool(cluster: &Cluster, args: &[&str]) -> anyhow::Result<Drtool> {
    let store = cluster.store().await;
    let env = store.as_ref().map(|s| s.env()).unwrap_or_default();
    Ok(cluster.drtool(args).envs(env))
}

async fn run(cluster: &Cluster, args: &[&str], code: i32) -> anyhow::Result<Ran> {
    tool(cluster, args).await?.run().await?.expect(code)
}

/// Makes a plan; gives its file and its document.
async fn make_plan(cluster: &Cluster, more: &[&str]) -> anyhow::Result<(PathBuf, Value)> {
    let ran = run(cluster, &[&["restore", "plan", "--json"], more].concat(), 0).await?;
    let plan = ran.json()?;
    let id = plan["planId"].as_str().context("a plan without planId")?;
    let file = format!("restore-plan-{id}.json");
    Ok((cluster.dir()?.join(file), plan))
}

async fn apply(cluster: &Cluster, plan: &std::path::Path, code: i32) -> anyhow::Result<Ran> {
    let file = plan.to_str().context("a path that is no text")?;
    run(
        cluster,
        &["restore", "apply", file, "--yes", "--json"],
        code,
    )
    .await
}

fn lose_every_node(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.kill_all()?;
    cluster.nodes().iter().try_for_each(|node| node.wipe())
}

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
