//! Who shall be a member, as `__meta/0` holds it: expected names, what is wished of each node, and the one change
//! that is under way; and the commands that say so.
//!
//! Promises: a wish is replicated before anybody acts on it, so that whoever leads after a crash goes on; one change
//! at a time; a change is begun only against the registry that its plan was made from ([`Registry::fingerprint`]).
//!
//! Does not: touch Raft's membership. The node's executor compares these wishes with it and takes the steps.

use confman_snapshot::fnv1a64;
use prost::Message;

use crate::records::NodeRecord;

/// Group `__meta/0`: a name under which an empty node may join though no member has it.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ExpectedRecord {
    /// The operator's name for the node.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The `host:port` where it will listen for other nodes.
    #[prost(string, tag = "2")]
    pub peer_addr: String,
    /// The URL that clients will use; empty when it is not known yet.
    #[prost(string, tag = "3")]
    pub api_url: String,
    /// Since when it is expected.
    #[prost(int64, tag = "4")]
    pub since_us: i64,
    /// It stays a learner until it is promoted.
    #[prost(bool, tag = "5")]
    pub learner_only: bool,
    /// The id of another name that it takes the place of.
    #[prost(uint64, optional, tag = "6")]
    pub replaces: Option<u64>,
}

/// What a node shall be in every group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum NodeWish {
    /// It votes, once it has caught up.
    Voter = 0,
    /// It follows and does not vote.
    Learner = 1,
    /// It is taken out and its id is retired.
    Gone = 2,
}

/// What a change of the membership is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ChangeKind {
    /// A new name joins.
    Add = 0,
    /// A learner shall vote.
    Promote = 1,
    /// A voter shall be a learner.
    Demote = 2,
    /// A node shall leave, its id retired.
    Remove = 3,
    /// One node takes the place of another.
    Replace = 4,
    /// A node shall lead.
    Transfer = 5,
}

impl ChangeKind {
    /// The intent's name, as the API and the tools call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Promote => "promote",
            Self::Demote => "demote",
            Self::Remove => "remove",
            Self::Replace => "replace",
            Self::Transfer => "transfer-leader",
        }
    }

    /// The action of the audit event of its begin.
    pub(crate) fn action(self) -> &'static str {
        match self {
            Self::Add => "member.add",
            Self::Promote => "member.promote",
            Self::Demote => "member.demote",
            Self::Remove => "member.remove",
            Self::Replace => "member.replace",
            Self::Transfer => "member.transfer",
        }
    }
}

/// Group `__meta/0`: the change that is under way, or the last one that was. There is one such record.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ChangeRecord {
    /// Random, drawn by whoever asked.
    #[prost(string, tag = "1")]
    pub id: String,
    /// What it is about.
    #[prost(enumeration = "ChangeKind", tag = "2")]
    pub kind: i32,
    /// The node that it is about; for a replacement the new one.
    #[prost(string, tag = "3")]
    pub name: String,
    /// That node's id; 0 while it has none.
    #[prost(uint64, tag = "4")]
    pub node_id: u64,
    /// For a replacement: the node that goes.
    #[prost(string, tag = "5")]
    pub old_name: String,
    /// Its id.
    #[prost(uint64, tag = "6")]
    pub old_id: u64,
    /// For a transfer: the group; empty is all.
    #[prost(string, tag = "7")]
    pub group: String,
    /// When it was begun; set by apply.
    #[prost(int64, tag = "8")]
    pub begun_us: i64,
    /// Where in the log; set by apply.
    #[prost(uint64, tag = "9")]
    pub begun_index: u64,
    /// Who asked; set by apply.
    #[prost(string, tag = "10")]
    pub actor: String,
    /// When it ended; 0 while it is under way. Set by apply.
    #[prost(int64, tag = "11")]
    pub ended_us: i64,
    /// Where in the log; set by apply.
    #[prost(uint64, tag = "12")]
    pub ended_index: u64,
    /// Why it was given up; empty when it was done.
    #[prost(string, tag = "13")]
    pub error: String,
}

impl ChangeRecord {
    /// Whether it is under way.
    pub fn is_running(&self) -> bool {
        self.ended_us == 0
    }

    /// The same intent, whoever asked for it and when.
    pub fn same_intent(&self, other: &Self) -> bool {
        (self.kind, &self.name, &self.old_name, &self.group)
            == (other.kind, &other.name, &other.old_name, &other.group)
    }

    /// The intent in words.
    pub fn words(&self) -> String {
        match self.kind() {
            ChangeKind::Replace => format!("replace {} by {}", self.old_name, self.name),
            ChangeKind::Transfer if self.group.is_empty() => {
                format!("transfer-leader of every group to {}", self.name)
            }
            ChangeKind::Transfer => format!("transfer-leader of {} to {}", self.group, self.name),
            kind => format!("{} {}", kind.as_str(), self.name),
        }
    }
}

/// Everything that `__meta/0` says about members, read at one position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    /// All nodes that ever were, by id.
    pub nodes: Vec<NodeRecord>,
    /// Names that may join, in order.
    pub expected: Vec<ExpectedRecord>,
    /// The change that is under way, or the last one.
    pub change: Option<ChangeRecord>,
}

impl Registry {
    /// A number that is another one whenever anything of this is another; never 0.
    pub fn fingerprint(&self) -> u64 {
        let mut bytes = Vec::new();
        let mut add = |kind: u8, record: Vec<u8>| {
            bytes.push(kind);
            bytes.extend_from_slice(&(record.len() as u64).to_be_bytes());
            bytes.extend_from_slice(&record);
        };
        self.nodes.iter().for_each(|n| add(1, n.encode_to_vec()));
        self.expected.iter().for_each(|e| add(2, e.encode_to_vec()));
        self.change.iter().for_each(|c| add(3, c.encode_to_vec()));
        fnv1a64(&bytes).max(1)
    }

    /// The change that is under way.
    pub fn running(&self) -> Option<&ChangeRecord> {
        self.change.as_ref().filter(|change| change.is_running())
    }
}

/// See [`crate::command::Op::ExpectNode`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExpectNode {
    /// The name and where it will be; its time is set by apply.
    #[prost(message, optional, tag = "1")]
    pub record: Option<ExpectedRecord>,
    /// The change that this begins; none when the name is merely expected.
    #[prost(message, optional, tag = "2")]
    pub change: Option<ChangeRecord>,
    /// [`Registry::fingerprint`] that must be the one still; 0 does not ask.
    #[prost(uint64, tag = "3")]
    pub registry: u64,
}

/// See [`crate::command::Op::ForgetNode`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct ForgetNode {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// [`Registry::fingerprint`] that must be the one still; 0 does not ask.
    #[prost(uint64, tag = "2")]
    pub registry: u64,
}

/// See [`crate::command::Op::BeginChange`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct BeginChange {
    /// The change: id, kind and whom it is about.
    #[prost(message, optional, tag = "1")]
    pub change: Option<ChangeRecord>,
    /// [`Registry::fingerprint`] that must be the one still; 0 does not ask.
    #[prost(uint64, tag = "2")]
    pub registry: u64,
}

/// See [`crate::command::Op::EndChange`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct EndChange {
    /// The change's id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Why it is given up; none when it is done.
    #[prost(string, optional, tag = "2")]
    pub error: Option<String>,
}
