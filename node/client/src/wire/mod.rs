//! The HTTP interface as types: what a node answers and what a client sends.
//!
//! Promises: JSON fields are camelCase; times are RFC 3339 UTC with six digits ([`Time`]); a JSON
//! number keeps the digits that its writer used (values travel as [`serde_json::value::RawValue`]);
//! a field that scripts rely on is present even when it is `null`.
//!
//! Does not: route, authenticate or decide. Names and shapes that scripts outside this repository
//! rely on are those of DESIGN.md section 12.

mod audit;
mod batch;
mod entry;
pub mod header;
mod list;
mod members;
mod problem;
mod readiness;
mod snapshot;
mod status;
mod time;
mod token;

pub use audit::AuditEvent;
pub use batch::{
    BATCH_BYTES_MAX, BATCH_ITEMS_MAX, BatchItem, BatchItemResult, BatchOp, BatchRequest,
    BatchResult,
};
pub use entry::{
    Entry, EntryHead, NamespaceInfo, ParseValueTypeError, PutEnvelope, ValueType, etag, parse_etag,
};
pub use list::List;
pub use members::{
    Change, ChangeAnswer, ChangeIntent, ChangeRequest, ExpectedMember, GroupMembers, MemberNode,
    MemberState, MemberWish, Members,
};
pub use problem::{Problem, ProblemKind};
pub use readiness::{GroupReadiness, Readiness};
pub use snapshot::{SnapshotItem, SnapshotOrder};
pub use status::{
    Caller, DiskStatus, GroupStatus, LeaderRef, MemberRole, MemberStatus, NodeRef, PeerReach,
    ReplicaRole, RestoreSource, RestoreStatus, SkippedSnapshot, SnapshotError, SnapshotStatus,
    StateHashAt, StateHashStatus, Status,
};
pub use time::{ParseTimeError, Time};
pub use token::{ParseTokenError, VersionToken};
