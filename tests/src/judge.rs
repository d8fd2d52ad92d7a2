//! Everything that a history and a cluster at rest can be judged by.

use std::collections::{BTreeMap, BTreeSet};

use crate::agree::{self, Witness};
use crate::cluster::{CONFIG, META, PATIENCE};
use crate::history::Op;
use crate::http::Api;
use crate::wait::wait_until;
use crate::{audit, order, register};

/// Judges the history of the clients of one namespace: nothing acknowledged is lost or doubled, no linearizable read was stale, and the
/// nodes that run agree on state and audit history.
///
/// # Errors
/// The first thing that cannot have happened in a correct system, or a node that does not answer.
pub async fn judge(nodes: &[Witness], namespace: &str, history: &[Op]) -> anyhow::Result<()> {
    agree::state_hashes_of(nodes, CONFIG).await?;
    agree::state_hashes_of(nodes, META).await?;
    let events = agree::audits_of(nodes, Some(namespace)).await?;
    let (_, api) = nodes
        .first()
        .ok_or_else(|| anyhow::anyhow!("no node runs"))?;
    let finally = final_values(api, history).await?;
    order::check(history, &finally).map_err(anyhow::Error::msg)?;
    register::check(history).map_err(anyhow::Error::msg)?;
    audit::check(history, &events).map_err(anyhow::Error::msg)
}

/// The values that the keys of a history have now, read linearizably; absent keys left out.
///
/// # Errors
/// The node does not answer in time.
pub async fn final_values(api: &Api, history: &[Op]) -> anyhow::Result<BTreeMap<String, String>> {
    let keys: BTreeSet<&String> = history.iter().map(|op| &op.key).collect();
    let mut values = BTreeMap::new();
    for key in keys {
        let path = format!("/api/v1/config/{key}");
        // That a busy node cannot prove for a moment who leads is no verdict on what it has.
        let answer = wait_until(&format!("{key} is read"), PATIENCE, || async {
            let read = api.get(&path).consistency("linearizable").send().await?;
            read.expect(&[200, 404])
        })
        .await?;
        if answer.status == 200 {
            let value = answer.json()?["value"].clone();
            values.insert(key.clone(), value.as_str().unwrap_or_default().to_owned());
        }
    }
    Ok(values)
}
