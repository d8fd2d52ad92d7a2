//! What openraft is told about us, and its types under short names.
//!
//! Nothing here is ever written to disk or sent: openraft's types change between versions, so [`crate::wire`] has
//! our own structs for that, and [`crate::convert`] is the one place that goes from one to the other.

use std::fmt;

use confman_snapshot::model::NodeInfo;

use crate::command::{Command, Outcome};

openraft::declare_raft_types!(
    /// The types of every Raft group of Confman.
    pub TypeConfig:
        D = Command,
        R = Outcome,
        NodeId = u64,
        Node = Member,
);

/// A member of a group as openraft carries it: what is needed to reach the node and to name it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// The operator's name for the node.
    pub name: String,
    /// The URL that clients use.
    pub api_url: String,
    /// The `host:port` that other nodes use.
    pub peer_addr: String,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.peer_addr)
    }
}

impl From<&NodeInfo> for Member {
    fn from(info: &NodeInfo) -> Self {
        Self {
            name: info.name.clone(),
            api_url: info.api_url.clone(),
            peer_addr: info.peer_addr.clone(),
        }
    }
}

impl From<&Member> for NodeInfo {
    fn from(member: &Member) -> Self {
        Self {
            name: member.name.clone(),
            api_url: member.api_url.clone(),
            peer_addr: member.peer_addr.clone(),
        }
    }
}

/// A leader: term and node id.
pub type LeaderId = openraft::type_config::alias::LeaderIdOf<TypeConfig>;
/// The id of a log entry.
pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// A vote.
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// A log entry.
pub type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
/// What a log entry holds.
pub type EntryPayload = openraft::type_config::alias::PayloadOf<TypeConfig>;
/// Voters, learners and their addresses.
pub type RaftMembership = openraft::Membership<u64, Member>;
/// A membership with the id of the entry that holds it.
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
/// What openraft wants to know about a snapshot.
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
/// A snapshot with the handle to its content.
pub type Snapshot =
    openraft::type_config::alias::SnapshotOf<TypeConfig, crate::snapshot::SnapshotHandle>;
