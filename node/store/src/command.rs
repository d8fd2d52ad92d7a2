//! What a log entry asks for ([`Command`]) and what applying it answers ([`Outcome`]).
//!
//! Both are prost structs, written by hand: they live in the log, in the peer protocol and (outcomes) in the
//! idempotency records. Tags are never used twice; a field is added, never changed.
//!
//! Apply is a pure function of (state, command): whatever needs a clock, randomness or a name is in here, put in by
//! the leader that proposed it.

use std::fmt;

use bytes::Bytes;
use confman_snapshot::SnapshotRecord;
use confman_snapshot::model::MembershipMessage;

use crate::membership::{BeginChange, EndChange, ExpectNode, ExpectedRecord, ForgetNode};
use crate::records::{
    EntryHead, IncarnationKind, NamespaceRecord, NodeRecord, SnapshotTask, ValueType,
};

/// Largest value that stands inline in a command and in its record; a larger one is staged in parts.
pub const INLINE_MAX: usize = 256 * 1024;
/// Size of every part of a staged value but the last.
pub const PART_BYTES: usize = 512 * 1024;
/// Largest value that apply accepts, whatever the settings of a node allow.
pub const VALUE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// One command of the log.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Command {
    /// The leader's clock when it proposed, microseconds since the epoch, UTC. Applied times never go backwards:
    /// apply takes the later of this and one microsecond after the last.
    #[prost(int64, tag = "1")]
    pub time_us: i64,
    /// Who asked: the name of the API key, or of the part of the node.
    #[prost(string, tag = "2")]
    pub actor: String,
    /// The id of the request that brought it.
    #[prost(string, tag = "3")]
    pub request_id: String,
    /// The id that the caller follows the request by.
    #[prost(string, tag = "4")]
    pub correlation_id: String,
    /// A retry with the same actor and key is answered as the first was; empty is none.
    #[prost(string, tag = "5")]
    pub idempotency_key: String,
    /// What the idempotency key stands for: the same key with another fingerprint is refused.
    #[prost(bytes = "bytes", tag = "6")]
    pub fingerprint: Bytes,
    /// What to do. `None` only when it was written by a newer version: apply stops at it.
    #[prost(
        oneof = "Op",
        tags = "16, 17, 18, 19, 20, 21, 22, 23, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42"
    )]
    pub op: Option<Op>,
}

/// What a command does.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Op {
    /// Creates or changes an entry.
    #[prost(message, tag = "16")]
    Put(Put),
    /// Deletes an entry.
    #[prost(message, tag = "17")]
    Delete(Delete),
    /// Makes a namespace and its ancestors.
    #[prost(message, tag = "18")]
    CreateNamespace(CreateNamespace),
    /// Deletes a namespace with all below it, a bounded number of keys an entry.
    #[prost(message, tag = "19")]
    DeleteNamespace(DeleteNamespace),
    /// Brings one part of a value that a later [`Put`] commits.
    #[prost(message, tag = "20")]
    StagePart(StagePart),
    /// Records a snapshot of this group that was read back from the store to its end.
    #[prost(message, tag = "21")]
    SnapshotVerified(SnapshotVerified),
    /// Marks snapshots for deletion.
    #[prost(message, tag = "22")]
    SnapshotsMarked(SnapshotIds),
    /// Forgets snapshots that are deleted from the store.
    #[prost(message, tag = "23")]
    SnapshotsDeleted(SnapshotIds),
    /// Group `__meta/0` only: the cluster is born.
    #[prost(message, tag = "32")]
    Genesis(Genesis),
    /// Group `__meta/0` only: gives a node the next id.
    #[prost(message, tag = "33")]
    AdmitNode(AdmitNode),
    /// Group `__meta/0` only: the node is a voter; the one that it replaces and all others of its name are retired.
    #[prost(message, tag = "34")]
    ActivateNode(ActivateNode),
    /// Group `__meta/0` only: the node's addresses changed.
    #[prost(message, tag = "35")]
    UpdateNode(UpdateNode),
    /// Group `__meta/0` only: gives the snapshot of a group to a node.
    #[prost(message, tag = "36")]
    AssignSnapshot(SnapshotTask),
    /// Group `__meta/0` only: a snapshot task has ended.
    #[prost(message, tag = "37")]
    FinishSnapshotTask(FinishSnapshotTask),
    /// In every group: a new life of the cluster begins here.
    #[prost(message, tag = "38")]
    BeginIncarnation(BeginIncarnation),
    /// Group `__meta/0` only: an empty node may join under a name that no member has.
    #[prost(message, tag = "39")]
    ExpectNode(ExpectNode),
    /// Group `__meta/0` only: it may not any more.
    #[prost(message, tag = "40")]
    ForgetNode(ForgetNode),
    /// Group `__meta/0` only: begins a change of the membership.
    #[prost(message, tag = "41")]
    BeginChange(BeginChange),
    /// Group `__meta/0` only: the change is done, or given up.
    #[prost(message, tag = "42")]
    EndChange(EndChange),
}

impl Op {
    /// The operation's name for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Put(_) => "put",
            Self::Delete(_) => "delete",
            Self::CreateNamespace(_) => "namespace.create",
            Self::DeleteNamespace(_) => "namespace.delete",
            Self::StagePart(_) => "stage",
            Self::SnapshotVerified(_) => "snapshot.verified",
            Self::SnapshotsMarked(_) => "snapshot.marked",
            Self::SnapshotsDeleted(_) => "snapshot.deleted",
            Self::Genesis(_) => "cluster.created",
            Self::AdmitNode(_) => "node.admitted",
            Self::ActivateNode(_) => "node.activated",
            Self::UpdateNode(_) => "node.updated",
            Self::AssignSnapshot(_) => "snapshot.assigned",
            Self::FinishSnapshotTask(_) => "snapshot.finished",
            Self::BeginIncarnation(_) => "cluster.incarnation",
            Self::ExpectNode(_) => "node.expected",
            Self::ForgetNode(_) => "node.forgotten",
            Self::BeginChange(_) => "member.begun",
            Self::EndChange(_) => "member.ended",
        }
    }

    /// Whether a new life says it to itself: it promises nobody anything, and a life that has said nothing else can be undone.
    pub fn is_housekeeping(&self) -> bool {
        matches!(
            self,
            Self::BeginIncarnation(_)
                | Self::UpdateNode(_)
                | Self::AssignSnapshot(_)
                | Self::FinishSnapshotTask(_)
                | Self::SnapshotVerified(_)
        )
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.op.as_ref().map_or("unknown", Op::name);
        write!(
            f,
            "{name} by {:?}, request {:?}",
            self.actor, self.request_id
        )
    }
}

/// See [`Op::Put`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Put {
    /// Segments with `/` between.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// The key in the namespace.
    #[prost(string, tag = "2")]
    pub key: String,
    /// What the value is.
    #[prost(enumeration = "ValueType", tag = "3")]
    pub value_type: i32,
    /// The value.
    #[prost(oneof = "Content", tags = "4, 5")]
    pub content: Option<Content>,
    /// What must hold of the entry before; nothing when absent.
    #[prost(message, optional, tag = "6")]
    pub precondition: Option<Precondition>,
    /// Makes no new version when type and bytes are what they were.
    #[prost(bool, tag = "7")]
    pub skip_unchanged: bool,
}

/// Where the value of a [`Put`] is.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Content {
    /// Here, at most [`INLINE_MAX`] bytes.
    #[prost(bytes = "bytes", tag = "4")]
    Inline(Bytes),
    /// In parts that came before.
    #[prost(message, tag = "5")]
    Staged(Staged),
}

/// A value whose parts were staged.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Staged {
    /// The id of the upload, 16 random bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub upload_id: Bytes,
    /// Size of the whole value in bytes.
    #[prost(uint64, tag = "2")]
    pub size: u64,
    /// BLAKE3 of the whole value, taken by the leader while the parts came in.
    #[prost(bytes = "bytes", tag = "3")]
    pub hash: Bytes,
}

/// What must hold of an entry before a command changes it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Precondition {
    /// Which condition; one of a newer version stops apply.
    #[prost(oneof = "Condition", tags = "1, 2, 3")]
    pub condition: Option<Condition>,
}

impl Precondition {
    /// The entry has exactly this version.
    pub fn version_is(version: u64) -> Self {
        Self {
            condition: Some(Condition::VersionIs(version)),
        }
    }

    /// The entry exists.
    pub fn exists() -> Self {
        Self {
            condition: Some(Condition::Exists(true)),
        }
    }

    /// The entry does not exist.
    pub fn absent() -> Self {
        Self {
            condition: Some(Condition::Absent(true)),
        }
    }
}

/// The conditions of a [`Precondition`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Oneof)]
pub enum Condition {
    /// The entry has exactly this version.
    #[prost(uint64, tag = "1")]
    VersionIs(u64),
    /// The entry exists.
    #[prost(bool, tag = "2")]
    Exists(bool),
    /// The entry does not exist.
    #[prost(bool, tag = "3")]
    Absent(bool),
}

/// See [`Op::Delete`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Delete {
    /// The namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// The key in it.
    #[prost(string, tag = "2")]
    pub key: String,
    /// What must hold of the entry before; nothing when absent.
    #[prost(message, optional, tag = "3")]
    pub precondition: Option<Precondition>,
}

/// See [`Op::CreateNamespace`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateNamespace {
    /// The namespace.
    #[prost(string, tag = "1")]
    pub path: String,
}

/// See [`Op::DeleteNamespace`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteNamespace {
    /// The root of the tree to delete.
    #[prost(string, tag = "1")]
    pub path: String,
}

/// See [`Op::StagePart`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct StagePart {
    /// The id of the upload, 16 random bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub upload_id: Bytes,
    /// The part's number, from 0, without gaps.
    #[prost(uint32, tag = "2")]
    pub seq: u32,
    /// [`PART_BYTES`] bytes, fewer only in the last part.
    #[prost(bytes = "bytes", tag = "3")]
    pub bytes: Bytes,
}

/// See [`Op::SnapshotVerified`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct SnapshotVerified {
    /// The snapshot.
    #[prost(message, optional, tag = "1")]
    pub record: Option<SnapshotRecord>,
    /// The membership at the snapshot's position (`StateView::info.membership` of its build): a replica that
    /// presents the recorded snapshot to openraft as its own needs it.
    #[prost(message, optional, tag = "2")]
    pub membership: Option<MembershipMessage>,
}

/// Snapshots by id.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SnapshotIds {
    /// `SnapshotId`s as text.
    #[prost(string, repeated, tag = "1")]
    pub ids: Vec<String>,
}

/// See [`Op::Genesis`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Genesis {
    /// The cluster's UUID.
    #[prost(string, tag = "1")]
    pub cluster_uuid: String,
    /// The cluster's life: 1 at birth.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// How many `config/` groups there are.
    #[prost(uint32, tag = "3")]
    pub shards: u32,
    /// The first members; ids and addresses count, the rest is set by apply.
    #[prost(message, repeated, tag = "4")]
    pub nodes: Vec<NodeRecord>,
}

/// See [`Op::AdmitNode`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct AdmitNode {
    /// The operator's name for the node.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The URL that clients use.
    #[prost(string, tag = "2")]
    pub api_url: String,
    /// The `host:port` that other nodes use.
    #[prost(string, tag = "3")]
    pub peer_addr: String,
    /// The id under which a node of this name was a member before; retired when the new one is active.
    #[prost(uint64, optional, tag = "4")]
    pub replaces: Option<u64>,
    /// Random, drawn by the asking node: asking again with it gives the same id.
    #[prost(string, tag = "5")]
    pub nonce: String,
}

/// See [`Op::ActivateNode`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct ActivateNode {
    /// The node's id.
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

/// See [`Op::UpdateNode`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct UpdateNode {
    /// The node's id.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// The URL that clients use.
    #[prost(string, tag = "2")]
    pub api_url: String,
    /// The `host:port` that other nodes use.
    #[prost(string, tag = "3")]
    pub peer_addr: String,
}

/// See [`Op::FinishSnapshotTask`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct FinishSnapshotTask {
    /// The task's id.
    #[prost(string, tag = "1")]
    pub task_id: String,
    /// Why it failed; none when it did its work.
    #[prost(string, optional, tag = "2")]
    pub error: Option<String>,
}

/// See [`Op::BeginIncarnation`]. Written beforehand into the data directory of whoever leads first, and proposed by it
/// in every group; the same in all of them.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BeginIncarnation {
    /// The cluster's UUID.
    #[prost(string, tag = "1")]
    pub cluster_uuid: String,
    /// The number of the life that begins.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// How it came to it.
    #[prost(enumeration = "IncarnationKind", tag = "3")]
    pub kind: i32,
    /// The plan or order.
    #[prost(string, tag = "4")]
    pub plan_id: String,
    /// Which of several lives of that number.
    #[prost(string, tag = "5")]
    pub lineage: String,
    /// Who applied the plan.
    #[prost(string, tag = "6")]
    pub operator: String,
    /// What was lost: JSON, at most [`crate::records::AUDIT_VALUE_MAX`] bytes.
    #[prost(string, tag = "7")]
    pub summary: String,
    /// The members that the life begins with; every other registered node is retired.
    #[prost(message, repeated, tag = "8")]
    pub nodes: Vec<NodeRecord>,
    /// Names under which empty nodes may join.
    #[prost(message, repeated, tag = "9")]
    pub expected: Vec<ExpectedRecord>,
    /// The id in the older life of the directory in which it is written; 0 where that had none. Nobody else can answer for it.
    #[prost(uint64, tag = "10")]
    pub survivor_id: u64,
    /// What the life's versions are above ([`crate::records::versions_of_life_from`]). It stands here, and not in what applies it: a log
    /// is applied by programs of more than one version.
    #[prost(uint64, tag = "11")]
    pub versions_from: u64,
}

/// What applying a command answered: the same on every replica.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Outcome {
    /// Where the first command with this idempotency key stands, when this outcome repeats it.
    #[prost(message, optional, tag = "1")]
    pub replayed_from: Option<confman_snapshot::model::Position>,
    /// What happened. `None` for entries that carry no command.
    #[prost(oneof = "Answer", tags = "16, 17, 18, 19, 20, 21, 22, 23, 24")]
    pub answer: Option<Answer>,
}

impl Outcome {
    /// An outcome that is the first of its kind.
    pub fn new(answer: Answer) -> Self {
        Self {
            replayed_from: None,
            answer: Some(answer),
        }
    }

    /// A refusal.
    pub fn refused(code: RefusalCode, detail: impl Into<String>) -> Self {
        Self::new(Answer::Refused(Refused {
            code: code.into(),
            detail: detail.into(),
            current_version: None,
        }))
    }

    /// The refusal, if it is one.
    pub fn as_refused(&self) -> Option<&Refused> {
        match &self.answer {
            Some(Answer::Refused(refused)) => Some(refused),
            _ => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.answer {
            Some(Answer::Refused(refused)) => {
                write!(f, "refused {:?}: {}", refused.code(), refused.detail)
            }
            Some(answer) => write!(f, "{answer:?}"),
            None => f.write_str("done"),
        }
    }
}

/// What happened.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Answer {
    /// An entry was written, or was already as wanted.
    #[prost(message, tag = "16")]
    Written(Written),
    /// An entry was deleted.
    #[prost(message, tag = "17")]
    Deleted(Deleted),
    /// A namespace is there.
    #[prost(message, tag = "18")]
    NamespaceCreated(NamespaceCreated),
    /// A namespace is gone, or partly.
    #[prost(message, tag = "19")]
    NamespaceDeleted(NamespaceDeleted),
    /// A part was staged.
    #[prost(message, tag = "20")]
    Staged(PartStaged),
    /// A snapshot was recorded.
    #[prost(bool, tag = "21")]
    Recorded(bool),
    /// A node has an id.
    #[prost(message, tag = "22")]
    NodeAdmitted(NodeAdmitted),
    /// Done, nothing to tell.
    #[prost(bool, tag = "23")]
    Done(bool),
    /// Nothing was changed.
    #[prost(message, tag = "24")]
    Refused(Refused),
}

/// See [`Answer::Written`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Written {
    /// The entry less its value.
    #[prost(message, optional, tag = "1")]
    pub head: Option<EntryHead>,
    /// Whether the entry did not exist before.
    #[prost(bool, tag = "2")]
    pub created: bool,
    /// Whether it was as wanted already, so that no version was made.
    #[prost(bool, tag = "3")]
    pub unchanged: bool,
}

/// See [`Answer::Deleted`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Deleted {
    /// The version that was deleted; the next one written is one higher.
    #[prost(uint64, tag = "1")]
    pub version: u64,
}

/// See [`Answer::NamespaceCreated`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct NamespaceCreated {
    /// Whether it did not exist before.
    #[prost(bool, tag = "1")]
    pub created: bool,
    /// The namespace.
    #[prost(message, optional, tag = "2")]
    pub record: Option<NamespaceRecord>,
}

/// See [`Answer::NamespaceDeleted`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct NamespaceDeleted {
    /// How many keys this command deleted.
    #[prost(uint64, tag = "1")]
    pub keys: u64,
    /// Whether something is left: propose it again.
    #[prost(bool, tag = "2")]
    pub more: bool,
}

/// See [`Answer::Staged`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct PartStaged {
    /// Bytes of this upload so far.
    #[prost(uint64, tag = "1")]
    pub bytes: u64,
}

/// See [`Answer::NodeAdmitted`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct NodeAdmitted {
    /// The node's id.
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

/// Why nothing was changed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Refused {
    /// Which kind.
    #[prost(enumeration = "RefusalCode", tag = "1")]
    pub code: i32,
    /// For people.
    #[prost(string, tag = "2")]
    pub detail: String,
    /// The version of the entry as it is; none when it does not exist.
    #[prost(uint64, optional, tag = "3")]
    pub current_version: Option<u64>,
}

/// The kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum RefusalCode {
    /// Of a newer version than this program.
    Unknown = 0,
    /// There is nothing of that name.
    NotFound = 1,
    /// The precondition does not hold.
    PreconditionFailed = 2,
    /// The idempotency key stands for another request.
    IdempotencyKeyReused = 3,
    /// Parts of the staged value are not here (any more): stage them again.
    StageMissing = 4,
    /// A name or field is not allowed.
    Invalid = 5,
    /// The value is too large.
    TooLarge = 6,
    /// It contradicts what is there.
    Conflict = 7,
}
