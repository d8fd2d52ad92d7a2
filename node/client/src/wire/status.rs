//! What `GET /api/v1/status` answers: one node's view of itself and its groups.

use serde::{Deserialize, Serialize};

use super::Time;

/// One node's view. Scripts rely on these names (DESIGN.md section 12).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The cluster, born with it.
    pub cluster_uuid: String,
    /// The cluster's life.
    pub incarnation: u64,
    /// Whose view this is.
    pub node: NodeRef,
    /// As `/health/ready` says.
    pub ready: bool,
    /// The version of its program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its clock when it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// The disk of its data directory; `null` when the system does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskStatus>,
    /// Who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<Caller>,
    /// Every replica on this node.
    pub groups: Vec<GroupStatus>,
}

/// The disk that holds a node's data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskStatus {
    /// Bytes that the node may still write.
    pub free_bytes: u64,
    /// Bytes of the whole disk.
    pub total_bytes: u64,
    /// Bytes that the node's logs and states have on it.
    pub data_bytes: u64,
}

/// Whoever asked, as the node knows them by their key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Caller {
    /// The name of the key; `anonymous` where the node has no keys.
    pub name: String,
    /// What it may do: `viewer`, `editor`, `publisher` or `admin`.
    pub role: String,
}

/// An item of what `GET /api/v1/status/peers` answers: whether this node reaches another one now, asked on the connection
/// that Raft uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerReach {
    /// The other node's id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where it was asked.
    pub peer_addr: String,
    /// It answered as the node that it is registered as.
    pub reached: bool,
    /// How long that took.
    pub seconds: f64,
    /// Why it was not reached.
    pub error: Option<String>,
}

/// A node, by its id and the operator's name for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRef {
    /// The cluster's number for it, never used twice.
    pub id: u64,
    /// The operator's name for it.
    pub name: String,
}

/// What a replica is in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplicaRole {
    /// It takes the writes.
    Leader,
    /// It votes and follows.
    Follower,
    /// It asks to lead.
    Candidate,
    /// It follows and does not vote.
    Learner,
}

/// What a member is in the membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberRole {
    /// Its acknowledgement counts.
    Voter,
    /// It follows and does not vote.
    Learner,
}

/// One replica.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupStatus {
    /// The group, for example `config/0`.
    pub group: String,
    /// What this replica is.
    pub role: ReplicaRole,
    /// The term it is in.
    pub term: u64,
    /// The leader it knows, if any.
    pub leader: Option<LeaderRef>,
    /// Last entry in its log; 0 for none.
    pub last_index: u64,
    /// Last entry it knows to be committed; 0 for none.
    pub committed_index: u64,
    /// Last entry in its state; 0 for none.
    pub applied_index: u64,
    /// Last entry dropped from its log; 0 for none.
    pub purged_index: u64,
    /// Entries in its log.
    pub log_entries: u64,
    /// Bytes of its log on disk.
    pub log_bytes: u64,
    /// Its state's hash and where it holds.
    pub state_hash: StateHashStatus,
    /// The newest recorded snapshot of the group.
    pub snapshot: Option<SnapshotStatus>,
    /// The last failure to make one, until one succeeds.
    pub snapshot_error: Option<SnapshotError>,
    /// How this replica came back, when it did.
    pub restore: Option<RestoreStatus>,
    /// What the next step of the membership waits for, where this replica leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub membership_wait: Option<String>,
    /// The membership, with what this replica knows of each.
    pub members: Vec<MemberStatus>,
}

/// The leader of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaderRef {
    /// Its node id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where it serves clients.
    pub api_url: String,
}

/// The lattice hash over all records of the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StateHashStatus {
    /// The applied index at which it holds.
    pub index: u64,
    /// Hex.
    pub hash: String,
}

/// What `GET /api/v1/status/hash` answers: the hash at a position that others have been at too, so that replicas can be
/// compared while writes go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StateHashAt {
    /// The group.
    pub group: String,
    /// The applied index asked for.
    pub index: u64,
    /// Hex; `null` when the replica has not been there yet, or does not remember.
    pub hash: Option<String>,
}

/// A recorded snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotStatus {
    /// Its id.
    pub id: String,
    /// The log index it holds.
    pub index: u64,
    /// When it was made, by the time of its group.
    pub time: Time,
    /// How long ago, by the same time, which may be ahead of the clocks; none from a node of a version that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
    /// Read back from the store and decoded to the end.
    pub verified: bool,
}

/// Why the last snapshot failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotError {
    /// When it failed.
    pub time: Time,
    /// What it was doing: `build`, `upload`, `verify`, `record`.
    pub phase: String,
    /// What went wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Where a replica's state came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RestoreSource {
    /// The object store.
    Store,
    /// The leader.
    Peer,
}

/// How a replica came back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreStatus {
    /// Where the state came from.
    pub source: RestoreSource,
    /// The snapshot, when there was one.
    pub snapshot_id: Option<String>,
    /// The log index it held.
    pub snapshot_index: Option<u64>,
    /// Log entries replayed after it; `null` while that still goes on.
    pub tail_entries: Option<u64>,
    /// From the decision to a replica that has caught up; until then, to the installed state.
    pub seconds: f64,
    /// Snapshots that were tried first and not used: damaged, missing or another's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<SkippedSnapshot>,
}

/// A snapshot that a restore did not use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SkippedSnapshot {
    /// Its id.
    pub snapshot_id: String,
    /// Why it was not used.
    pub reason: String,
}

/// A member of the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Its node id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// What it is.
    pub role: MemberRole,
    /// Where it serves clients.
    pub api_url: String,
    /// Where it serves other nodes.
    pub peer_addr: String,
    /// Last entry the leader knows it to have; `null` where this replica does not lead.
    pub matched_index: Option<u64>,
}
