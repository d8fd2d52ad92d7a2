//! What the state of a group consists of: ONE sorted map from bytes to bytes, and the structs in it.
//!
//! The first byte of a key is the kind of the record; [`crate::keys`] builds and parses keys. A snapshot is all
//! records in order and the state hash covers all of them; what a replica keeps for itself (applied position,
//! membership, the hash) is in another table and is no record.

use bytes::Bytes;
use confman_snapshot::SnapshotRecord;
use confman_snapshot::model::{MembershipMessage, Position};

use crate::command::Outcome;
use crate::membership::NodeWish;

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ValueType {
    /// Any bytes.
    Binary = 0,
    /// UTF-8 text.
    String = 1,
    /// A JSON number.
    Number = 2,
    /// `true` or `false`.
    Boolean = 3,
    /// JSON text.
    Json = 4,
}

impl ValueType {
    /// The name that the API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::String => "string",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Json => "json",
        }
    }

    /// The type of that name.
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Binary,
            Self::String,
            Self::Number,
            Self::Boolean,
            Self::Json,
        ]
        .into_iter()
        .find(|t| t.as_str() == text)
    }
}

/// An entry less its value.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct EntryHead {
    /// 1, 2, ... and on after a deletion: never used twice for a key.
    #[prost(uint64, tag = "1")]
    pub version: u64,
    /// What the value is.
    #[prost(enumeration = "ValueType", tag = "2")]
    pub value_type: i32,
    /// Size of the value in bytes.
    #[prost(uint64, tag = "3")]
    pub size: u64,
    /// BLAKE3 of the value, 32 bytes.
    #[prost(bytes = "bytes", tag = "4")]
    pub hash: Bytes,
    /// When the entry was created (after the last deletion, if any).
    #[prost(int64, tag = "5")]
    pub created_us: i64,
    /// When it was last written.
    #[prost(int64, tag = "6")]
    pub updated_us: i64,
    /// Who created it.
    #[prost(string, tag = "7")]
    pub created_by: String,
    /// Who last wrote it.
    #[prost(string, tag = "8")]
    pub updated_by: String,
}

/// An entry as it is stored.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EntryRecord {
    /// All but the value.
    #[prost(message, optional, tag = "1")]
    pub head: Option<EntryHead>,
    /// The last audit record of this key.
    #[prost(message, optional, tag = "2")]
    pub changed: Option<AuditRef>,
    /// The value.
    #[prost(oneof = "StoredContent", tags = "3, 4")]
    pub content: Option<StoredContent>,
}

/// Where the value of an entry is.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum StoredContent {
    /// In the record.
    #[prost(bytes = "bytes", tag = "3")]
    Inline(Bytes),
    /// In records of its own.
    #[prost(message, tag = "4")]
    Blob(BlobRef),
}

/// A value in parts.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct BlobRef {
    /// The id of the upload that brought it, 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    /// How many parts.
    #[prost(uint32, tag = "2")]
    pub parts: u32,
    /// Size of the whole value in bytes.
    #[prost(uint64, tag = "3")]
    pub size: u64,
}

/// What stays of a deleted entry: its version is never used again.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TombstoneRecord {
    /// The version that was deleted; the next one written is one higher.
    #[prost(uint64, tag = "1")]
    pub version: u64,
    /// When it was deleted.
    #[prost(int64, tag = "2")]
    pub deleted_us: i64,
    /// The last audit record of this key.
    #[prost(message, optional, tag = "3")]
    pub changed: Option<AuditRef>,
}

/// A namespace.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct NamespaceRecord {
    /// When it was made.
    #[prost(int64, tag = "1")]
    pub created_us: i64,
    /// Who made it.
    #[prost(string, tag = "2")]
    pub created_by: String,
    /// How many keys it holds, those of namespaces below it not counted.
    #[prost(uint64, tag = "3")]
    pub keys: u64,
    /// How many namespaces are directly below it.
    #[prost(uint64, tag = "4")]
    pub children: u64,
}

/// The place of an audit record: the log index of the command and a number within it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Message)]
pub struct AuditRef {
    /// The log index of the command.
    #[prost(uint64, tag = "1")]
    pub index: u64,
    /// Which change of that command.
    #[prost(uint32, tag = "2")]
    pub sub: u32,
}

/// One change, for ever.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AuditRecord {
    /// The term of the log entry: with group, index and sub it makes the id.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// When it was applied.
    #[prost(int64, tag = "2")]
    pub time_us: i64,
    /// Who.
    #[prost(string, tag = "3")]
    pub actor: String,
    /// What: `put`, `delete`, `namespace.create`, ...
    #[prost(string, tag = "4")]
    pub action: String,
    /// Where; empty for what concerns no namespace.
    #[prost(string, tag = "5")]
    pub namespace: String,
    /// Which key; for nodes and snapshots their name or id.
    #[prost(string, tag = "6")]
    pub key: String,
    /// The version that the change made; 0 for what has none.
    #[prost(uint64, tag = "7")]
    pub version: u64,
    /// BLAKE3 of the value before; empty for none.
    #[prost(bytes = "bytes", tag = "8")]
    pub old_hash: Bytes,
    /// BLAKE3 of the value after; empty for none.
    #[prost(bytes = "bytes", tag = "9")]
    pub new_hash: Bytes,
    /// The value before, where it has at most [`AUDIT_VALUE_MAX`] bytes.
    #[prost(message, optional, tag = "10")]
    pub old_value: Option<AuditValue>,
    /// The value after, where it has at most [`AUDIT_VALUE_MAX`] bytes.
    #[prost(message, optional, tag = "11")]
    pub new_value: Option<AuditValue>,
    /// The id of the request.
    #[prost(string, tag = "12")]
    pub request_id: String,
    /// The id that the caller follows the request by.
    #[prost(string, tag = "13")]
    pub correlation_id: String,
    /// The audit record of the change before, of the same key.
    #[prost(message, optional, tag = "14")]
    pub previous: Option<AuditRef>,
}

/// Largest value that stands in an audit record, in bytes.
pub const AUDIT_VALUE_MAX: usize = 4096;

/// A value in an audit record.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct AuditValue {
    /// What it is.
    #[prost(enumeration = "ValueType", tag = "1")]
    pub value_type: i32,
    /// The value.
    #[prost(bytes = "bytes", tag = "2")]
    pub bytes: Bytes,
}

/// What is kept of a command with an idempotency key.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IdempotencyRecord {
    /// What the key stands for.
    #[prost(bytes = "bytes", tag = "1")]
    pub fingerprint: Bytes,
    /// What it answered.
    #[prost(message, optional, tag = "2")]
    pub outcome: Option<Outcome>,
    /// Where it stands in the log.
    #[prost(message, optional, tag = "3")]
    pub position: Option<Position>,
    /// When it was applied.
    #[prost(int64, tag = "4")]
    pub time_us: i64,
}

/// A value that is being staged.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct UploadRecord {
    /// Parts so far.
    #[prost(uint32, tag = "1")]
    pub parts: u32,
    /// Bytes so far.
    #[prost(uint64, tag = "2")]
    pub bytes: u64,
    /// When the last part came.
    #[prost(int64, tag = "3")]
    pub last_us: i64,
    /// When it is looked at as abandoned.
    #[prost(int64, tag = "4")]
    pub due_us: i64,
}

/// Something in the garbage queue.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct GarbageRecord {
    /// The parts to remove, from the first on.
    #[prost(uint32, tag = "1")]
    pub parts: u32,
    /// Parts removed already.
    #[prost(uint32, tag = "2")]
    pub removed: u32,
    /// Whether it is an upload that may still be in progress.
    #[prost(bool, tag = "3")]
    pub staged: bool,
}

/// What the state knows about a snapshot in the store.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SnapshotFactRecord {
    /// The snapshot.
    #[prost(message, optional, tag = "1")]
    pub record: Option<SnapshotRecord>,
    /// The membership at its position.
    #[prost(message, optional, tag = "2")]
    pub membership: Option<MembershipMessage>,
    /// When it was recorded.
    #[prost(int64, tag = "3")]
    pub recorded_us: i64,
    /// When it was marked for deletion.
    #[prost(int64, optional, tag = "4")]
    pub marked_us: Option<i64>,
}

/// Small facts that change with almost every command: one record.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct FactsRecord {
    /// When the first command was applied; 0 before.
    #[prost(int64, tag = "1")]
    pub first_time_us: i64,
    /// When the last command was applied: the group's clock.
    #[prost(int64, tag = "2")]
    pub last_time_us: i64,
    /// How many idempotency records there are.
    #[prost(uint64, tag = "3")]
    pub idempotency_keys: u64,
    /// Bytes of commands since the last snapshot was recorded.
    #[prost(uint64, tag = "4")]
    pub bytes_since_snapshot: u64,
    /// Commands ever applied.
    #[prost(uint64, tag = "5")]
    pub commands: u64,
    /// Versions that are written from now on are above it: 0 in the first life. See [`versions_of_life_from`].
    #[prost(uint64, tag = "6")]
    pub versions_from: u64,
    /// Whether the life that began here can still be undone, as far as this group's commands go: it has said nothing but to itself.
    #[prost(bool, tag = "7")]
    pub may_be_undone: bool,
}

/// What the versions of a life are above. A life that was recovered or restored does not know what the end of the one before it
/// wrote, and clients may hold its versions and entity tags: the same number would say that they hold what is there now.
/// etcd's restore jumps as far, `--bump-revision`; no entry is written a thousand million times in a life, and JSON's numbers hold
/// nine million lives of it.
pub fn versions_of_life_from(incarnation: u64) -> u64 {
    incarnation.saturating_sub(1).saturating_mul(1_000_000_000)
}

/// Group `__meta/0`: the cluster.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ClusterRecord {
    /// The cluster's UUID.
    #[prost(string, tag = "1")]
    pub uuid: String,
    /// Which of its lives.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// How many `config/` groups there are.
    #[prost(uint32, tag = "3")]
    pub shards: u32,
    /// When it was born.
    #[prost(int64, tag = "4")]
    pub created_us: i64,
    /// The id that the next node gets: none is given twice.
    #[prost(uint64, tag = "5")]
    pub next_node_id: u64,
}

/// How a life of the cluster began that Raft alone could not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum IncarnationKind {
    /// Of a newer version than this program.
    Unknown = 0,
    /// From the directory of a survivor, after a quorum was lost.
    QuorumLoss = 1,
    /// From a snapshot, after every node was lost.
    Restore = 2,
    /// From a snapshot, as another cluster that only looks like the one it was taken from: an inspection copy.
    Copy = 3,
}

impl IncarnationKind {
    /// The action of its audit event.
    pub fn action(self) -> &'static str {
        match self {
            Self::Restore => "cluster.restored",
            Self::Copy => "cluster.copied",
            Self::QuorumLoss | Self::Unknown => "cluster.recovered",
        }
    }
}

/// In every group: the life of the cluster that this state is in; absent in the first.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct IncarnationRecord {
    /// The life's number.
    #[prost(uint64, tag = "1")]
    pub incarnation: u64,
    /// How it began.
    #[prost(enumeration = "IncarnationKind", tag = "2")]
    pub kind: i32,
    /// The plan or order that it began by.
    #[prost(string, tag = "3")]
    pub plan_id: String,
    /// Which of several lives of that number: the plan's or order's id.
    #[prost(string, tag = "4")]
    pub lineage: String,
    /// When this group began it, in the group's time.
    #[prost(int64, tag = "5")]
    pub time_us: i64,
    /// Where in the log it stands: everything before is of older lives.
    #[prost(message, optional, tag = "6")]
    pub position: Option<Position>,
    /// Who applied the plan.
    #[prost(string, tag = "7")]
    pub operator: String,
    /// What was lost, as the plan said it: JSON.
    #[prost(string, tag = "8")]
    pub summary: String,
}

/// What a node is to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum NodeState {
    /// It has an id and is catching up.
    Joining = 0,
    /// It is a member.
    Active = 1,
    /// Its id is never used again.
    Retired = 2,
}

/// Group `__meta/0`: a node, for ever.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct NodeRecord {
    /// The cluster's id for it.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// The operator's name for it.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The URL that clients use.
    #[prost(string, tag = "3")]
    pub api_url: String,
    /// The `host:port` that other nodes use.
    #[prost(string, tag = "4")]
    pub peer_addr: String,
    /// What it is to the cluster.
    #[prost(enumeration = "NodeState", tag = "5")]
    pub state: i32,
    /// The id that it takes the place of.
    #[prost(uint64, optional, tag = "6")]
    pub replaces: Option<u64>,
    /// What it asked for its id with.
    #[prost(string, tag = "7")]
    pub nonce: String,
    /// When it got its id.
    #[prost(int64, tag = "8")]
    pub admitted_us: i64,
    /// What it shall be in every group.
    #[prost(enumeration = "NodeWish", tag = "9")]
    pub wish: i32,
    /// Where in the log of `__meta/0` it was taken out by an operator; 0 when it was not.
    #[prost(uint64, tag = "10")]
    pub retired_index: u64,
}

/// Group `__meta/0`: the snapshot of one group, given to one node. At most one a group.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct SnapshotTask {
    /// The task's id.
    #[prost(string, tag = "1")]
    pub task_id: String,
    /// The group, as text.
    #[prost(string, tag = "2")]
    pub group: String,
    /// The node that builds.
    #[prost(uint64, tag = "3")]
    pub node: u64,
    /// When it was asked for.
    #[prost(int64, tag = "4")]
    pub requested_us: i64,
    /// When it is given up.
    #[prost(int64, tag = "5")]
    pub deadline_us: i64,
    /// Why.
    #[prost(string, tag = "6")]
    pub reason: String,
}

/// Group `__meta/0`: how the last snapshot task of a group failed; gone after one that did not.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct SnapshotFailure {
    /// The task.
    #[prost(message, optional, tag = "1")]
    pub task: Option<SnapshotTask>,
    /// What was wrong.
    #[prost(string, tag = "2")]
    pub error: String,
    /// When.
    #[prost(int64, tag = "3")]
    pub time_us: i64,
}
