//! The steps of a recovery as an operator takes them.

use confman_tests::cluster::Cluster;
pub(super) use confman_tests::cluster::copy_dir;
use confman_tests::drtool::Ran;
use confman_tests::http::Token;
pub(super) use confman_tests::lives::{OldLife, judge_new_life};
pub(super) use confman_tests::old_majority::*;
use serde_json::{Value, json};

/// Loses the disks of these nodes, and stops the others.
pub(super) fn lose(cluster: &Cluster, lost: &[usize]) -> anyhow::Result<()> {
    cluster.kill_all()?;
    lost.iter()
        .try_for_each(|index| cluster.node(*index).wipe())
}

/// Collects the directories of these nodes into a file of that name.
pub(super) async fn collect(cluster: &Cluster, nodes: &[usize], out: &str) -> anyhow::Result<Ran> {
    let store = match cluster.store().await.as_ref() {
        Some(store) => store.env(),
        None => Default::default(),
    };
    let dirs = nodes.iter().map(|index| &cluster.node(*index).data_dir);
    cluster
        .drtool(["recover", "collect", "--force", "--json", "--out", out])
        .envs(store)
        .args(dirs)
        .run()
        .await
}

/// Plans from a collection, giving up these nodes.
pub(super) async fn plan(
    cluster: &Cluster,
    from: &str,
    lost: &[&str],
    out: &str,
) -> anyhow::Result<Ran> {
    plan_losing(cluster, from, lost, &[], out).await
}

/// The same, and agrees to what these groups lose.
pub(super) async fn plan_losing(
    cluster: &Cluster,
    from: &str,
    lost: &[&str],
    groups: &[&str],
    out: &str,
) -> anyhow::Result<Ran> {
    let given_up = lost.iter().flat_map(|name| ["--lost", name]);
    let agreed = groups
        .iter()
        .flat_map(|group| ["--accept-data-loss", group]);
    cluster
        .drtool(["recover", "plan", from, "--force", "--json", "--out", out])
        .args(given_up)
        .args(agreed)
        .run()
        .await
}

/// Applies or undoes a plan at the directory of one node.
pub(super) async fn carry_out(
    cluster: &Cluster,
    step: &str,
    plan: &str,
    node: usize,
) -> anyhow::Result<Ran> {
    let store = match cluster.store().await.as_ref() {
        Some(store) => store.env(),
        None => Default::default(),
    };
    cluster
        .drtool(["recover", step, "--yes", "--json", "--plan", plan])
        .arg(&cluster.node(node).data_dir)
        .envs(store)
        .run()
        .await
}

/// Collects these directories, gives all other members up, and plans.
pub(super) async fn planned(
    cluster: &Cluster,
    nodes: &[usize],
    out: &str,
) -> anyhow::Result<Value> {
    let collection = format!("collection-of-{out}");
    collect(cluster, nodes, &collection).await?.expect(0)?;
    let lost: Vec<&str> = (0..cluster.nodes().len())
        .filter(|index| !nodes.contains(index))
        .map(|index| cluster.node(index).name.as_str())
        .collect();
    plan(cluster, &collection, &lost, out)
        .await?
        .expect(0)?
        .json()
}

/// Waits until the node's own account is of this incarnation and it takes a write; gives the write's token.
pub(super) async fn first_write(
    cluster: &Cluster,
    incarnation: u64,
    key: &str,
) -> anyhow::Result<Token> {
    let token = cluster.write(key, &json!("first")).await?.token()?;
    assert_eq!(token.incarnation, incarnation, "{token}");
    Ok(token)
}

/// The code of the refusal that a command ended with.
pub(super) fn refusal(ran: &Ran) -> anyhow::Result<String> {
    let code = ran.json()?["error"]["code"].clone();
    Ok(code.as_str().unwrap_or_default().to_owned())
}
