//! One change, as the audit history tells it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Time;

/// One change. Written by apply on every node, so that each node's history is the same.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    /// Made of the change's log position; unique and stable.
    pub id: String,
    /// Time of the change, as its log entry says.
    pub time: Time,
    /// Name of the API key, or of the part of the cluster, that made the change.
    pub actor: String,
    /// `put`, `delete`, `namespace.create`, `namespace.delete`, `snapshot.verified`, ...
    pub action: String,
    /// The group whose log holds the change.
    pub group: String,
    /// The namespace, for changes that have one.
    pub namespace: Option<String>,
    /// The key, for changes of a key.
    pub key: Option<String>,
    /// The version that the change made or removed.
    pub version: Option<u64>,
    /// BLAKE3 of the bytes before, hex.
    pub old_value_hash: Option<String>,
    /// BLAKE3 of the bytes after, hex.
    pub new_value_hash: Option<String>,
    /// The value before as JSON, where small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_value: Option<Box<RawValue>>,
    /// The value after as JSON, where small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_value: Option<Box<RawValue>>,
    /// The node's name for the request.
    pub request_id: Option<String>,
    /// The client's name for the piece of work.
    pub correlation_id: Option<String>,
}
