//! What `drtool status` says of a cluster: the document of `--json`, and what the text is made of.

use confman_client::wire::{NodeRef, Status, Time};
use serde::Serialize;

use super::account::Account;
use crate::drill::last::Drills;
use crate::finding::Finding;

/// In one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Verdict {
    /// Every group takes writes and nothing is wrong.
    Healthy,
    /// Every group takes writes, and something is wrong.
    Degraded,
    /// A group takes no writes.
    NoQuorum,
}

impl Verdict {
    /// The exit code of a command that ends with this.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Healthy => 0,
            Self::Degraded => 1,
            Self::NoQuorum => confman_client::ErrorKind::Unreachable.exit_code(),
        }
    }
}

/// The cluster, put together from what its nodes say.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// In one word.
    pub(crate) verdict: Verdict,
    /// The cluster that most nodes are of.
    pub(crate) cluster_uuid: Option<String>,
    /// Its newest life that a node is in.
    pub(crate) incarnation: Option<u64>,
    /// How many more nodes may go and every group still takes writes; none when one does not now.
    pub(crate) tolerance: Option<usize>,
    /// Each group.
    pub(crate) groups: Vec<GroupReport>,
    /// Names that may join and have not; none when nobody told, for example because the key may not ask.
    pub(crate) expected: Option<Vec<String>>,
    /// When a restore was rehearsed last, by the store; none where no store is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) drills: Option<Drills>,
    /// What is wrong or worth knowing, the worst first.
    pub(crate) findings: Vec<Finding>,
    /// What each node said.
    pub(crate) nodes: Vec<Account>,
}

impl Report {
    /// Whether a node is of the life that this report is about.
    pub(crate) fn is_of(&self, status: &Status) -> bool {
        self.cluster_uuid.as_ref() == Some(&status.cluster_uuid)
            && self.incarnation == Some(status.incarnation)
    }
}

/// One group.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GroupReport {
    /// The group.
    pub(crate) group: String,
    /// Who leads it, as most up-to-date views have it.
    pub(crate) leader: Option<NodeRef>,
    /// In which term.
    pub(crate) term: u64,
    /// Members that vote.
    pub(crate) voters: usize,
    /// Those of them that answered and follow.
    pub(crate) up: usize,
    /// How many must be up.
    pub(crate) quorum: usize,
    /// How many more may go; none without a quorum.
    pub(crate) tolerance: Option<usize>,
    /// The highest committed position that any node knows of.
    pub(crate) committed_index: u64,
    /// What is safe if every node burns now; none when nothing is.
    pub(crate) protected: Option<Protected>,
    /// Whether the replicas have the same state.
    pub(crate) agreement: Agreement,
}

/// The newest position from which nothing is lost, by the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Protected {
    /// The position.
    pub(crate) index: u64,
    /// Committed entries after it.
    pub(crate) entries_behind: u64,
    /// The verified snapshot that holds it.
    pub(crate) snapshot_id: String,
    /// When that was made.
    pub(crate) time: Time,
    /// How long ago.
    pub(crate) age_seconds: u64,
}

/// State hashes at one position.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Agreement {
    /// The position at which most replicas could be compared.
    pub(crate) index: u64,
    /// Each hash there with the nodes that have it; more than one is divergence.
    pub(crate) hashes: Vec<HashHolders>,
    /// Nodes that could not be compared there.
    pub(crate) unknown: Vec<String>,
}

/// One hash and who has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HashHolders {
    /// Hex.
    pub(crate) hash: String,
    /// Names of nodes.
    pub(crate) nodes: Vec<String>,
}
