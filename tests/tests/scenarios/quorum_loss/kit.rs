//! The steps of a recovery as an operator takes them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use confman_tests::cluster::{Cluster, PATIENCE};
use confman_tests::drtool::Ran;
use confman_tests::history::{Op, Outcome};
use confman_tests::http::Token;
use confman_tests::wait::wait_until;
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
    let given_up = lost.iter().flat_map(|name| ["--lost", name]);
    cluster
        .drtool(["recover", "plan", from, "--force", "--json", "--out", out])
        .args(given_up)
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

/// What the plan says that nobody can know is forgiven, and nothing else: those writes may be there or not.
pub(super) fn forgive(history: &[Op], planned: &Value, group: &Value) -> anyhow::Result<Vec<Op>> {
    let groups = planned["groups"].as_array().context("no groups")?;
    let of_group = groups.iter().find(|g| g["group"] == *group);
    let loss = &of_group.context("no such group")?["loss"];
    anyhow::ensure!(loss["lostProven"] == 0, "{loss}");
    let from = loss["unknown"]["from"].as_u64().unwrap_or(u64::MAX);
    let mut forgiven = history.to_vec();
    for op in &mut forgiven {
        if matches!(op.outcome, Outcome::Done { token, .. } if token.index >= from) {
            op.outcome = Outcome::Unknown;
        }
    }
    Ok(forgiven)
}

/// Copies what lies below a directory, links not followed.
pub(super) fn copy_dir(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for item in std::fs::read_dir(from)? {
        let item = item?;
        let target = to.join(item.file_name());
        if item.file_type()?.is_dir() {
            copy_dir(&item.path(), &target)?;
        } else {
            std::fs::copy(item.path(), target)?;
        }
    }
    Ok(())
}

/// Takes the directory of a node away, as a machine that is unreachable does; [`bring_back`] puts it back.
pub(super) fn take_away(cluster: &Cluster, node: usize) -> anyhow::Result<PathBuf> {
    let node = cluster.node(node);
    let away = node.data_dir.with_extension("away");
    std::fs::rename(&node.data_dir, &away)
        .with_context(|| format!("move {}", node.data_dir.display()))?;
    Ok(away)
}

/// The machine is back, with all that it had.
pub(super) fn bring_back(cluster: &Cluster, node: usize) -> anyhow::Result<()> {
    let node = cluster.node(node);
    let away = node.data_dir.with_extension("away");
    if node.data_dir.exists() {
        std::fs::remove_dir_all(&node.data_dir)?;
    }
    std::fs::rename(&away, &node.data_dir).with_context(|| format!("move {}", away.display()))
}

/// What a node says that it waits for, with the words of `/health/ready`.
pub(super) async fn readiness(cluster: &Cluster, node: usize) -> anyhow::Result<(u16, String)> {
    let answer = cluster
        .api(node)
        .get("/health/ready")
        .timeout(Duration::from_secs(2))
        .send()
        .await?;
    Ok((answer.status, answer.text()))
}

/// Tries to write at one node, once; gives the token if it was acknowledged.
pub(super) async fn try_write(cluster: &Cluster, node: usize, key: &str) -> Option<Token> {
    let answer = cluster
        .api(node)
        .put(&format!("/api/v1/config/app/{key}"), &json!("v"))
        .timeout(Duration::from_secs(2))
        .send()
        .await
        .ok()?;
    (answer.status < 300).then(|| answer.token().ok()).flatten()
}

/// Writes at these nodes for a while; fails when any of them acknowledges in another incarnation.
pub(super) async fn only_incarnation_writes(
    cluster: &Cluster,
    nodes: &[usize],
    incarnation: u64,
    lasts: Duration,
) -> anyhow::Result<u32> {
    let begin = Instant::now();
    let mut acknowledged = 0;
    while begin.elapsed() < lasts {
        for node in nodes {
            if let Some(token) = try_write(cluster, *node, "probe").await {
                anyhow::ensure!(
                    token.incarnation == incarnation,
                    "{} acknowledged {token} while incarnation {incarnation} lives",
                    cluster.node(*node).name
                );
                acknowledged += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(acknowledged)
}

/// Waits until a node is fenced, says how to come back, and has all that it had.
pub(super) async fn wait_fenced(cluster: &Cluster, node: usize) -> anyhow::Result<()> {
    let what = format!("{} is fenced", cluster.node(node).name);
    wait_until(&what, PATIENCE, || async {
        let (status, text) = readiness(cluster, node).await?;
        anyhow::ensure!(status == 503, "{status}: {text}");
        anyhow::ensure!(text.contains("fenced"), "{text}");
        anyhow::ensure!(
            text.contains("aside"),
            "it does not say how to rejoin: {text}"
        );
        Ok(())
    })
    .await?;
    anyhow::ensure!(cluster.node(node).has_data(), "its data is gone");
    Ok(())
}
