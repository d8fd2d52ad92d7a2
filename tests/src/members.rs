//! Changes of the membership with the operator's tool, and what it says of the members.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::cluster::{Cluster, PATIENCE};
use crate::drtool::Drtool;
use crate::wait::wait_until;

/// `drtool member ...`, told of the nodes that run.
#[must_use]
pub fn member(cluster: &Cluster, args: &[&str]) -> Drtool {
    let running: Vec<String> = cluster
        .nodes()
        .iter()
        .filter(|node| node.pid().is_some())
        .map(|node| node.api_url.clone())
        .collect();
    cluster
        .drtool([&["member"], args].concat())
        .env("CONFMAN_ENDPOINTS", &running.join(","))
}

/// What `drtool member list --json` says.
///
/// # Errors
/// The cluster does not tell.
pub async fn members(cluster: &Cluster) -> anyhow::Result<Value> {
    member(cluster, &["list", "--json"])
        .run()
        .await?
        .expect(0)?
        .json()
}

/// The newest node of a name.
#[must_use]
pub fn node<'v>(members: &'v Value, name: &str) -> Option<&'v Value> {
    let nodes = members["nodes"].as_array()?;
    nodes
        .iter()
        .filter(|n| n["name"] == name)
        .max_by_key(|n| n["id"].as_u64())
}

/// Who votes, by name; the same in every group.
///
/// # Errors
/// Groups differ, or a change is half way in one.
pub fn voters(members: &Value) -> anyhow::Result<BTreeSet<String>> {
    let mut all: Vec<BTreeSet<String>> = Vec::new();
    for group in members["groups"].as_array().into_iter().flatten() {
        anyhow::ensure!(group["joint"] == false, "{group}");
        let names = group["voters"].as_array().into_iter().flatten().map(|id| {
            let found = members["nodes"]
                .as_array()?
                .iter()
                .find(|n| n["id"] == *id)?;
            Some(found["name"].as_str()?.to_owned())
        });
        all.push(names.collect::<Option<_>>().unwrap_or_default());
    }
    anyhow::ensure!(all.windows(2).all(|w| w[0] == w[1]), "{all:?}");
    all.pop().ok_or_else(|| anyhow::anyhow!("no groups"))
}

/// A set of names.
#[must_use]
pub fn named(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

/// Waits until the cluster expects a node of that name.
///
/// # Errors
/// It does not in time.
pub async fn wait_expected(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    wait_until(&format!("{name} is expected"), PATIENCE, || async {
        let members = members(cluster).await?;
        let expected = members["expected"].as_array().into_iter().flatten();
        anyhow::ensure!(expected.into_iter().any(|e| e["name"] == name), "{members}");
        Ok(())
    })
    .await
}
