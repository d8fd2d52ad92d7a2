//! What `GET /api/v1/admin/members` answers and `POST /api/v1/admin/members/changes` takes.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Time;

/// Who is and shall be a member, as the leader of `__meta/0` knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Members {
    /// The cluster.
    pub cluster_uuid: String,
    /// Its life.
    pub incarnation: u64,
    /// Another text whenever anything of nodes, expected names or the change is another. A change is begun only
    /// against the one that its plan was made from.
    pub registry: String,
    /// Every node that ever was, by id; a retired id is never used again.
    pub nodes: Vec<MemberNode>,
    /// Names under which an empty node may join though no member has them.
    pub expected: Vec<ExpectedMember>,
    /// The change that is under way, or the last one.
    pub change: Option<Change>,
    /// The membership of each group, as it is.
    pub groups: Vec<GroupMembers>,
}

/// What a node is to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// It has its id and is not yet what it shall be.
    Joining,
    /// A member.
    Active,
    /// Its id is not used any more.
    Retired,
}

/// What a node shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberWish {
    /// It votes.
    Voter,
    /// It follows.
    Learner,
    /// It leaves.
    Gone,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberNode {
    /// The cluster's id for it.
    pub id: u64,
    /// The operator's name for it.
    pub name: String,
    /// Where it serves clients.
    pub api_url: String,
    /// Where it serves other nodes.
    pub peer_addr: String,
    /// What it is.
    pub state: MemberState,
    /// What it shall be.
    pub wish: MemberWish,
    /// The id that it takes the place of.
    pub replaces: Option<u64>,
    /// Where in the log of `__meta/0` an operator removed it; `null` when none did.
    pub removed_index: Option<u64>,
    /// When it got its id.
    pub admitted_at: Time,
    /// It has answered the leader of `__meta/0` within the longest election timeout.
    pub up: bool,
}

/// A name that may join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExpectedMember {
    /// The name.
    pub name: String,
    /// Where it will listen for other nodes.
    pub peer_addr: String,
    /// Since when it is expected.
    pub since: Time,
    /// It will not vote until it is promoted.
    pub learner_only: bool,
    /// The id that it takes the place of.
    pub replaces: Option<u64>,
}

/// A change of the membership.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Drawn by whoever asked.
    pub id: String,
    /// The intent's kind: `add`, `promote`, `demote`, `remove`, `replace`, `transfer-leader`.
    pub kind: String,
    /// The intent in words.
    pub words: String,
    /// The node that it is about; for a replacement the new one.
    pub name: String,
    /// That node's id, once it has one.
    pub node_id: Option<u64>,
    /// For a replacement: the node that goes.
    pub old_name: Option<String>,
    /// For a transfer: the group; all of them without it.
    pub group: Option<String>,
    /// Who asked.
    pub actor: String,
    /// When it was begun.
    pub begun_at: Time,
    /// When it ended; `null` while it is under way.
    pub ended_at: Option<Time>,
    /// Why it was given up; `null` when it was not.
    pub error: Option<String>,
}

/// The membership of one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupMembers {
    /// The group.
    pub group: String,
    /// The id of its leader, as far as is known.
    pub leader: Option<u64>,
    /// Ids that vote.
    pub voters: Vec<u64>,
    /// Ids that follow and do not vote.
    pub learners: Vec<u64>,
    /// It is between two memberships: a majority of each is needed.
    pub joint: bool,
}

/// What an operator wants, one thing at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum ChangeIntent {
    /// A new node joins under a name that no member has.
    Add {
        /// Its name.
        name: String,
        /// Where it will listen for other nodes.
        peer_addr: String,
        /// It does not vote until it is promoted.
        #[serde(default)]
        learner_only: bool,
    },
    /// A learner votes.
    Promote {
        /// Its name.
        name: String,
    },
    /// A voter becomes a learner.
    Demote {
        /// Its name.
        name: String,
    },
    /// A node leaves and its id is retired; a name that is only expected is forgotten.
    Remove {
        /// Its name.
        name: String,
    },
    /// One node takes the place of another.
    Replace {
        /// The node that goes.
        old_name: String,
        /// A learner, or a new name.
        name: String,
        /// For a new name: where it will listen for other nodes.
        #[serde(default)]
        peer_addr: Option<String>,
    },
    /// A node leads.
    TransferLeader {
        /// Its name.
        name: String,
        /// One group; all of them without it.
        #[serde(default)]
        group: Option<String>,
    },
}

impl ChangeIntent {
    /// The node that it is about; for a replacement the new one.
    pub fn name(&self) -> &str {
        match self {
            Self::Add { name, .. }
            | Self::Promote { name }
            | Self::Demote { name }
            | Self::Remove { name }
            | Self::Replace { name, .. }
            | Self::TransferLeader { name, .. } => name,
        }
    }

    /// The kind, as [`Change::kind`] has it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Add { .. } => "add",
            Self::Promote { .. } => "promote",
            Self::Demote { .. } => "demote",
            Self::Remove { .. } => "remove",
            Self::Replace { .. } => "replace",
            Self::TransferLeader { .. } => "transfer-leader",
        }
    }

    /// Whether `change` is of this very intent, whoever asked for it.
    pub fn is_of(&self, change: &Change) -> bool {
        let old = match self {
            Self::Replace { old_name, .. } => Some(old_name),
            _ => None,
        };
        let group = match self {
            Self::TransferLeader { group, .. } => group.as_ref(),
            _ => None,
        };
        (self.kind(), self.name(), old, group)
            == (
                change.kind.as_str(),
                change.name.as_str(),
                change.old_name.as_ref(),
                change.group.as_ref(),
            )
    }
}

impl fmt::Display for ChangeIntent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add {
                name,
                peer_addr,
                learner_only,
            } => {
                let role = if *learner_only { " as a learner" } else { "" };
                write!(f, "add {name} at {peer_addr}{role}")
            }
            Self::Replace { old_name, name, .. } => write!(f, "replace {old_name} by {name}"),
            Self::TransferLeader { name, group: None } => {
                write!(f, "make {name} lead every group")
            }
            Self::TransferLeader {
                name,
                group: Some(group),
            } => write!(f, "make {name} lead {group}"),
            Self::Promote { name } | Self::Demote { name } | Self::Remove { name } => {
                write!(f, "{} {name}", self.kind())
            }
        }
    }
}

/// Asks for a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangeRequest {
    /// Drawn by whoever asks; the same one sent twice is one change.
    pub id: String,
    /// [`Members::registry`] that the plan was made from.
    pub registry: String,
    /// Fewer nodes may go afterwards than now, and that is wanted.
    #[serde(default)]
    pub allow_less_tolerance: bool,
    /// What is wanted.
    pub intent: ChangeIntent,
}

/// What `POST /api/v1/admin/members/changes` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangeAnswer {
    /// The change that was begun, or that was under way with the same intent; `null` when there was nothing to do.
    pub change: Option<Change>,
    /// Why there was nothing to do.
    pub nothing_to_do: Option<String>,
}
