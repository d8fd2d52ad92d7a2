//! Whether the replicas of a cluster agree: same state hash at the same position, same audit history.

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::audit;
use crate::cluster::{Cluster, PATIENCE};
use crate::wait::wait_until;

/// Waits until every running node has applied all of the group's log, and checks that all state hashes are equal.
/// Gives the position and hash.
///
/// # Errors
/// The replicas do not come to the same position, or two differ there.
pub async fn state_hashes(cluster: &Cluster, group: &str) -> anyhow::Result<(u64, String)> {
    let states = wait_until(
        &format!("all replicas of {group} are at the same position"),
        PATIENCE,
        || async {
            let mut states = Vec::new();
            for (index, node) in cluster.nodes().iter().enumerate() {
                if node.pid().is_none() {
                    continue;
                }
                let status = cluster.group(index, group).await?;
                let place = status["stateHash"]["index"]
                    .as_u64()
                    .context("no stateHash.index")?;
                let last = status["lastIndex"].as_u64().context("no lastIndex")?;
                let hash = status["stateHash"]["hash"]
                    .as_str()
                    .context("no stateHash.hash")?
                    .to_owned();
                ensure!(place == last, "{} has applied {place} of {last}", node.name);
                states.push((node.name.clone(), place, hash));
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
    wait_until("all nodes tell the same audit history", PATIENCE, || {
        compare_audits(cluster, namespace)
    })
    .await
}

async fn compare_audits(cluster: &Cluster, namespace: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let mut reference: Option<(String, Vec<Value>)> = None;
    for (index, node) in cluster.nodes().iter().enumerate() {
        if node.pid().is_none() {
            continue;
        }
        let told = audit::events(&cluster.api(index), namespace).await?;
        let Some((name, known)) = &reference else {
            reference = Some((node.name.clone(), told));
            continue;
        };
        if let Some(place) =
            (0..known.len().max(told.len())).find(|place| known.get(*place) != told.get(*place))
        {
            bail!(
                "audit differs at event {place}: {name} tells {:?}, {} tells {:?}",
                known.get(place).map(Value::to_string),
                node.name,
                told.get(place).map(Value::to_string)
            );
        }
    }
    Ok(reference.context("no node runs")?.1)
}
