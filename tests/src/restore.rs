//! What the scenarios of a restore do with the operator's tool.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use crate::cluster::{CONFIG, Cluster, META, PATIENCE, Plan};
use crate::drtool::{Drtool, Ran};
use crate::lives::OldLife;
use crate::wait::wait_until;

/// A cluster with 300 values `app/k{n}` and a snapshot of each of these groups.
///
/// # Errors
/// It does not start, or takes no snapshot.
pub async fn filled(plan: Plan, groups: &[&str]) -> anyhow::Result<Cluster> {
    let cluster = plan.start().await?;
    cluster.fill("app", "k", 300, "value").await?;
    snapshot_all(&cluster, groups).await?;
    Ok(cluster)
}

/// The same with a snapshot of every group of a small cluster, and clients that wrote before and after them.
///
/// # Errors
/// As there.
pub async fn filled_by_clients(plan: Plan) -> anyhow::Result<(Cluster, OldLife)> {
    let cluster = plan.start().await?;
    cluster.fill("app", "k", 300, "value").await?;
    let old = OldLife::with_snapshots(&cluster, &[META, CONFIG]).await?;
    Ok((cluster, old))
}

/// A snapshot of each of these groups.
///
/// # Errors
/// One cannot be taken.
pub async fn snapshot_all(cluster: &Cluster, groups: &[&str]) -> anyhow::Result<()> {
    for group in groups {
        cluster.snapshot(group).await?;
    }
    Ok(())
}

/// Every node is killed and its directory is gone.
///
/// # Errors
/// A directory cannot be removed.
pub fn lose_every_node(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.kill_all()?;
    cluster.nodes().iter().try_for_each(|node| node.wipe())
}

/// `drtool` with the store of the cluster.
pub async fn tool(cluster: &Cluster, args: &[&str]) -> Drtool {
    let store = cluster.store().await;
    let env = store.as_ref().map(|s| s.env()).unwrap_or_default();
    cluster.drtool(args).envs(env)
}

/// Runs `drtool` with the store of the cluster; it must end with this code.
///
/// # Errors
/// It ends otherwise.
pub async fn run(cluster: &Cluster, args: &[&str], code: i32) -> anyhow::Result<Ran> {
    tool(cluster, args).await.run().await?.expect(code)
}

/// Makes a plan; gives its file and its document.
///
/// # Errors
/// It is refused.
pub async fn make_plan(cluster: &Cluster, more: &[&str]) -> anyhow::Result<(PathBuf, Value)> {
    let ran = run(cluster, &[&["restore", "plan", "--json"], more].concat(), 0).await?;
    let plan = ran.json()?;
    let id = plan["planId"].as_str().context("a plan without planId")?;
    let file = format!("restore-plan-{id}.json");
    Ok((cluster.dir()?.join(file), plan))
}

/// Applies a plan; it must end with this code.
///
/// # Errors
/// It ends otherwise.
pub async fn apply(cluster: &Cluster, plan: &Path, code: i32) -> anyhow::Result<Ran> {
    let file = plan.to_str().context("a path that is no text")?;
    let args = ["restore", "apply", file, "--yes", "--json"];
    run(cluster, &args, code).await
}

/// Plans, orders, starts every node with the settings that it had, and waits until they serve; gives the plan.
///
/// # Errors
/// Any of it fails.
pub async fn restore(cluster: &Cluster, more: &[&str]) -> anyhow::Result<Value> {
    let (file, plan) = make_plan(cluster, more).await?;
    apply(cluster, &file, 0).await?;
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    Ok(plan)
}

/// What a plan says of one group.
///
/// # Errors
/// It says nothing of it.
pub fn planned<'a>(plan: &'a Value, group: &str) -> anyhow::Result<&'a Value> {
    let groups = plan["groups"].as_array().context("a plan without groups")?;
    let found = groups.iter().find(|found| found["group"] == group);
    found.with_context(|| format!("no {group} in {plan}"))
}

/// The object of a life under `cluster/` whose name has this ending.
///
/// # Errors
/// The store's folder cannot be listed.
pub fn life_object(
    cluster: &Cluster,
    incarnation: u64,
    ending: &str,
) -> anyhow::Result<Option<PathBuf>> {
    let dir = cluster.dir()?.join("s3/confman/test/cluster");
    for entry in std::fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        if name.starts_with(&format!("{incarnation:010}-")) && name.ends_with(ending) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Waits until the order that began this life is spent.
///
/// # Errors
/// It is not in time.
pub async fn wait_spent(cluster: &Cluster, incarnation: u64) -> anyhow::Result<()> {
    wait_until("the order is spent", PATIENCE, || async {
        life_object(cluster, incarnation, ".done.json")?.context("no object says so")
    })
    .await?;
    Ok(())
}

/// The ids of the nodes, in order of their names.
///
/// # Errors
/// One does not answer.
pub async fn ids(cluster: &Cluster) -> anyhow::Result<Vec<u64>> {
    let mut ids = Vec::new();
    for index in 0..cluster.nodes().len() {
        let status = cluster.status(index).await?;
        ids.push(status["node"]["id"].as_u64().context("no node.id")?);
    }
    Ok(ids)
}

/// How often each node has said in its log that it restored itself by an order.
///
/// # Errors
/// A log cannot be read.
pub fn restores(cluster: &Cluster) -> anyhow::Result<Vec<usize>> {
    let said = "restored from the store as the order says";
    cluster
        .nodes()
        .iter()
        .map(|node| Ok(node.log_text()?.matches(said).count()))
        .collect()
}
