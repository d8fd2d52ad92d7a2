//! Which snapshots stay, and why: a pure verdict.

use crate::id::SnapshotId;
use crate::record::SnapshotRecord;

/// What a group knows about one recorded snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotFact {
    /// The verified snapshot.
    pub record: SnapshotRecord,
    /// When it was marked for deletion, microseconds since 1970 UTC, by the group's time; none if it is not.
    pub marked_us: Option<i64>,
}

/// What must stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How many verified generations stay; at least 1 whatever this says.
    pub keep: usize,
    /// How long a marked snapshot stays, in microseconds, for those who are reading it.
    pub grace_us: i64,
}

/// What to do with one snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Leave it.
    Keep,
    /// Mark it for deletion.
    Mark,
    /// Delete it now.
    Delete,
}

/// The decision over one snapshot and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The snapshot.
    pub id: SnapshotId,
    /// What to do.
    pub decision: Decision,
    /// Why.
    pub reason: String,
}

/// Judges every recorded snapshot of one group, newest position first.
pub fn judge(facts: &[SnapshotFact], policy: &Policy, now_us: i64) -> Vec<Verdict> {
    let _ = (facts, policy, now_us);
    todo!()
}
