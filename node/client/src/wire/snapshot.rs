//! What `POST /api/v1/admin/snapshots` answers, one item a group.

use serde::{Deserialize, Serialize};

/// A snapshot that is verified in the store and recorded in its group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotItem {
    /// The group, for example `config/0`.
    pub group: String,
    /// The snapshot's id.
    pub id: String,
    /// The log index that it holds.
    pub index: u64,
    /// Size of the object in bytes.
    pub bytes: u64,
    /// From the request to the record.
    pub seconds: f64,
}

/// A snapshot that somebody builds now: what `?wait=false` is answered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotOrder {
    /// The group, for example `config/0`.
    pub group: String,
    /// One was under way already, and nothing was ordered: it may not hold what was written since it began.
    pub under_way: bool,
}
