//! What `GET /health/ready` answers, with 200 or 503.

use serde::{Deserialize, Serialize};

use super::NodeRef;

/// Whether this node's replicas have a leader and have applied what they must.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Readiness {
    /// Every group is ready.
    pub ready: bool,
    /// Who says so; `null` before the node has taken part in its cluster, and once it is fenced or its state differs from the
    /// recorded one.
    pub node: Option<NodeRef>,
    /// Of which cluster `node` is, so that whoever looks for survivors need not take one for its own that has got the address of one;
    /// none from a node of a version that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_uuid: Option<String>,
    /// What keeps the node as a whole from being ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Each group, with what it waits for.
    pub groups: Vec<GroupReadiness>,
}

/// One replica's readiness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupReadiness {
    /// The group, for example `config/0`.
    pub group: String,
    /// It has a leader and has applied what it must.
    pub ready: bool,
    /// What it waits for.
    pub reason: Option<String>,
}
