//! Which life of which cluster a report is about, and who answers out of another one.
//!
//! Promises: of one cluster the highest incarnation is the living one, however many nodes answer out of an older one. A
//! majority that returns after a recovery or a restore is the past: nothing of it may be counted on, and nothing that is
//! advised may be aimed at the new life.

use std::collections::BTreeMap;

use confman_client::wire::Status;

use super::account::Account;
use crate::finding::{Finding, Severity};

/// One life of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) cluster_uuid: String,
    pub(super) incarnation: u64,
}

impl Life {
    /// Whether a node is of this life.
    pub(super) fn is_of(&self, status: &Status) -> bool {
        self.cluster_uuid == status.cluster_uuid && self.incarnation == status.incarnation
    }
}

/// The newest life of the cluster that most nodes are of. Who is of another one becomes a finding.
pub(super) fn judged(nodes: &[Account], findings: &mut Vec<Finding>) -> Option<Life> {
    let answered = || nodes.iter().filter_map(|account| account.status.as_ref());
    // By cluster: how many nodes are of it, and its highest incarnation.
    let mut clusters: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for status in answered() {
        let (count, newest) = clusters.entry(&status.cluster_uuid).or_default();
        *count += 1;
        *newest = (*newest).max(status.incarnation);
    }
    let (uuid, (_, newest)) = clusters.into_iter().max_by_key(|(_, (count, _))| *count)?;
    let living = Life {
        cluster_uuid: uuid.to_owned(),
        incarnation: newest,
    };
    findings.extend(
        answered()
            .filter(|status| !living.is_of(status))
            .map(|status| other(status, &living)),
    );
    Some(living)
}

/// What is to be said of a node that is not of the living.
fn other(status: &Status, living: &Life) -> Finding {
    let view = format!("node {}", status.node.name);
    let error = |what| Finding::new(Severity::Error, "LIVES_DIFFER", view, what);
    if status.cluster_uuid != living.cluster_uuid {
        return error(format!(
            "is of cluster {}; most of the others are of {}",
            status.cluster_uuid, living.cluster_uuid
        ))
        .with_hint("CONFMAN_ENDPOINTS names nodes of two clusters: name those of one");
    }
    error(format!(
        "is of incarnation {}, whose time is over: incarnation {} of this cluster lives",
        status.incarnation, living.incarnation
    ))
    .with_hint(
        "it fences itself when it hears of the newer life, from a node or from the store; stop it, run `drtool set-aside` on its data directory and start it empty: it joins under a new id. `drtool runbook two-incarnations` has the steps",
    )
}
