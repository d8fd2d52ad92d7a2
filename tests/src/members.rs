//! Changes of the membership with the operator's tool, and what it says of the members.

use std::collections::BTreeSet;

use anyhow::ensure;
use serde_json::Value;

use crate::cluster::{Cluster, PATIENCE};
use crate::drtool::{Drtool, Ran};
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

/// Refusals that pass by themselves: a node is missed for a moment, or the members changed under the plan.
pub const PASSING: [&str; 4] = [
    "MEMBER_DOWN",
    "NO_QUORUM",
    "RESULT_HAS_NO_QUORUM",
    "MEMBERSHIP_CHANGED",
];

/// `drtool member ...` that must end well; run again while it is refused for what passes by itself, which on a busy machine is at
/// any time.
///
/// # Errors
/// It ends otherwise, or is refused for too long.
pub async fn changed(cluster: &Cluster, args: &[&str]) -> anyhow::Result<Ran> {
    wait_until(
        &format!("member {args:?} is not refused"),
        PATIENCE,
        || async {
            let ran = member(cluster, args).run().await?;
            let passes = ran.code == 3 && PASSING.iter().any(|code| ran.stderr.contains(code));
            ensure!(!passes, "{ran}");
            Ok(ran)
        },
    )
    .await?
    .expect(0)
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
