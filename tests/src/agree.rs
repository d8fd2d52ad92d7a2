//! Whether the replicas of a cluster agree: same state hash at the same position, same audit history.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::audit;
use crate::cluster::{Cluster, PATIENCE};
use crate::http::Api;
use crate::wait::wait_until;

/// A node that is asked: its name and its API.
pub type Witness = (String, Api);

/// The nodes of a cluster that run now.
#[must_use]
pub fn running(cluster: &Cluster) -> Vec<Witness> {
    let nodes = cluster.nodes().iter().enumerate();
    nodes
        .filter(|(_, node)| node.pid().is_some())
        .map(|(index, node)| (node.name.clone(), cluster.api(index)))
        .collect()
}

/// Waits until every running node has applied all of the group's log, and checks that all state hashes are equal.
/// Gives the position and hash.
///
/// # Errors
/// The replicas do not come to the same position, or two differ there.
pub async fn state_hashes(cluster: &Cluster, group: &str) -> anyhow::Result<(u64, String)> {
    state_hashes_of(&running(cluster), group).await
}

/// [`state_hashes`] of these nodes.
///
/// # Errors
/// As there.
pub async fn state_hashes_of(nodes: &[Witness], group: &str) -> anyhow::Result<(u64, String)> {
    let states = wait_until(
        &format!("all replicas of {group} are at the same position"),
        PATIENCE,
        || async {
            let mut states = Vec::new();
            for (name, api) in nodes {
                let status = group_of(api, group).await?;
                let place = status["stateHash"]["index"]
                    .as_u64()
                    .context("no stateHash.index")?;
                let last = status["lastIndex"].as_u64().context("no lastIndex")?;
                let hash = status["stateHash"]["hash"]
                    .as_str()
                    .context("no stateHash.hash")?
                    .to_owned();
                ensure!(place == last, "{name} has applied {place} of {last}");
                states.push((name.clone(), place, hash));
            }
            let first = states.first().context("no node runs")?.1;
            ensure!(
                states.iter().all(|(_, place, _)| *place == first),
                "{states:?}"
            );
            Ok(states)
        },
    )
    .await?;
    let (_, place, hash) = states[0].clone();
    if let Some(other) = states.iter().find(|state| state.2 != hash) {
        bail!(
            "state hashes of {group} differ at {place}: {:?} and {other:?}",
            states[0]
        );
    }
    Ok((place, hash))
}

/// Checks that every running node tells the same audit history; gives it, oldest first. Clients may not be writing;
/// what the cluster writes for itself may take a moment to reach every node.
///
/// # Errors
/// Two nodes differ, and stay so; names the first event that does.
pub async fn audits(cluster: &Cluster, namespace: Option<&str>) -> anyhow::Result<Vec<Value>> {
    audits_of(&running(cluster), namespace).await
}

/// [`audits`] of these nodes.
///
/// # Errors
/// As there.
pub async fn audits_of(nodes: &[Witness], namespace: Option<&str>) -> anyhow::Result<Vec<Value>> {
    wait_until("all nodes tell the same audit history", PATIENCE, || {
        compare_audits(nodes, namespace)
    })
    .await
}

async fn compare_audits(nodes: &[Witness], namespace: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let mut reference: Option<(&str, Vec<Value>)> = None;
    for (node, api) in nodes {
        let told = audit::events(api, namespace).await?;
        let Some((name, known)) = &reference else {
            reference = Some((node, told));
            continue;
        };
        if let Some(place) =
            (0..known.len().max(told.len())).find(|place| known.get(*place) != told.get(*place))
        {
            bail!(
                "audit differs at event {place}: {name} tells {:?}, {node} tells {:?}",
                known.get(place).map(Value::to_string),
                told.get(place).map(Value::to_string)
            );
        }
    }
    Ok(reference.context("no node runs")?.1)
}

/// What a node says about one group.
///
/// # Errors
/// It does not answer, or knows no such group.
pub async fn group_of(api: &Api, group: &str) -> anyhow::Result<Value> {
    let ask = api.get("/api/v1/status").timeout(Duration::from_secs(5));
    let status = ask.send().await?.expect(&[200])?.json()?;
    let groups = status["groups"]
        .as_array()
        .context("status has no groups")?;
    let found = groups.iter().find(|found| found["group"] == group);
    found
        .cloned()
        .with_context(|| format!("{} has no group {group}: {status}", api.base()))
}
