//! What the living cluster says, where it answers: how far it is, and which state it had at a position.
//!
//! Only nodes of the very cluster that the store belongs to count. Nobody answering is nothing wrong: a drill needs the store
//! alone, and says what it could not compare.

use std::collections::BTreeMap;

use confman_client::{Client, Endpoint};
use futures::future::join_all;
use serde::Serialize;

use crate::live::account::{self, Account};

/// The nodes of the cluster that answered.
pub(super) struct Living {
    nodes: Vec<(String, Endpoint)>,
    /// The highest committed position of each group, as any of them knows it.
    committed: BTreeMap<String, u64>,
    /// Why there are none.
    pub(super) silent: Option<String>,
}

/// What the living cluster says of the state at a snapshot's position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LiveHash {
    /// `equal`, `differs`, or `unknown` where no node remembers so far back, or none answered.
    pub(crate) verdict: &'static str,
    /// Nodes that had the same state there.
    pub(crate) equal: Vec<String>,
    /// Nodes that had another one.
    pub(crate) differs: Vec<String>,
}

/// Asks everybody.
pub(super) async fn look(client: &Client, uuid: &str) -> Living {
    let silent = |why: String| Living {
        nodes: Vec::new(),
        committed: BTreeMap::new(),
        silent: Some(why),
    };
    let accounts = match account::ask_all(client).await {
        Ok(asked) => asked.nodes,
        Err(failure) => return silent(failure.to_string()),
    };
    of(&accounts, uuid).unwrap_or_else(silent)
}

/// The nodes of that cluster, in its newest life; why there are none otherwise.
fn of(accounts: &[Account], uuid: &str) -> Result<Living, String> {
    let ours = || {
        accounts
            .iter()
            .filter_map(|a| Some((a, a.status.as_ref()?)))
            .filter(|(_, status)| status.cluster_uuid == uuid)
    };
    let newest = ours().map(|(_, status)| status.incarnation).max();
    let mut living = Living {
        nodes: Vec::new(),
        committed: BTreeMap::new(),
        silent: None,
    };
    for (account, status) in ours().filter(|(_, s)| Some(s.incarnation) == newest) {
        let Ok(endpoint) = account.endpoint.parse() else {
            continue;
        };
        living.nodes.push((status.node.name.clone(), endpoint));
        for group in &status.groups {
            let known = living.committed.entry(group.group.clone()).or_default();
            *known = group.committed_index.max(*known);
        }
    }
    if living.nodes.is_empty() {
        let other = accounts.iter().filter_map(|a| a.status.as_ref()).next();
        return Err(match other {
            Some(status) => format!(
                "the nodes that answer are of cluster {}, the store is cluster {uuid}'s",
                status.cluster_uuid
            ),
            None => accounts
                .iter()
                .find_map(|a| a.error.clone())
                .unwrap_or_else(|| "no node answered".to_owned()),
        });
    }
    Ok(living)
}

impl Living {
    /// The highest committed position of a group that any node knows of.
    pub(super) fn committed(&self, group: &str) -> Option<u64> {
        self.committed.get(group).copied()
    }

    /// Asks every node for its state's hash at a position.
    pub(super) async fn compare(
        &self,
        client: &Client,
        group: &str,
        index: u64,
        hash: &str,
    ) -> LiveHash {
        let asked = self.nodes.iter().map(|(name, endpoint)| async move {
            let answer = client.state_hash(endpoint, group, index).await;
            (name, answer.ok().and_then(|a| a.value.hash))
        });
        let mut found = LiveHash {
            verdict: "unknown",
            equal: Vec::new(),
            differs: Vec::new(),
        };
        for (name, theirs) in join_all(asked).await {
            match theirs {
                Some(theirs) if theirs == hash => found.equal.push(name.clone()),
                Some(_) => found.differs.push(name.clone()),
                None => {}
            }
        }
        found.verdict = match (found.equal.is_empty(), found.differs.is_empty()) {
            (_, false) => "differs",
            (false, true) => "equal",
            (true, true) => "unknown",
        };
        found
    }
}
