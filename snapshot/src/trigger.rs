//! When a snapshot is due and who builds it: pure decisions.

use std::time::Duration;

/// What is known of a group's log since its last snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TriggerFacts {
    /// Entries applied since the last recorded snapshot.
    pub entries_since: u64,
    /// Bytes of those entries.
    pub bytes_since: u64,
    /// When that snapshot was recorded, microseconds since 1970 UTC; none if there is none.
    pub last_snapshot_us: Option<i64>,
    /// Whether any record changed since; a snapshot's own entries do not count.
    pub changed: bool,
    /// Now, microseconds since 1970 UTC.
    pub now_us: i64,
    /// Whether an operator asked.
    pub requested: bool,
}

/// When a snapshot is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriggerPolicy {
    /// After this many entries.
    pub entries: u64,
    /// After this many bytes.
    pub bytes: u64,
    /// After this time, if anything changed.
    pub time: Duration,
}

/// Why a snapshot is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// An operator asked.
    Requested,
    /// Enough entries.
    Entries(u64),
    /// Enough bytes.
    Bytes(u64),
    /// Enough time, and something changed.
    Time(Duration),
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Requested => f.write_str("requested"),
            Self::Entries(n) => write!(f, "{n} entries since the last one"),
            Self::Bytes(n) => write!(f, "{n} bytes since the last one"),
            Self::Time(t) => write!(f, "changed, and {} s since the last one", t.as_secs()),
        }
    }
}

/// Whether a snapshot is due, and why.
pub fn decide(facts: &TriggerFacts, policy: &TriggerPolicy) -> Option<Reason> {
    let _ = (facts, policy);
    todo!()
}

/// One member of a group, as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The node's id.
    pub node: u64,
    /// Whether it votes; learners do not build.
    pub voter: bool,
    /// The last index that the leader knows it has; none if unknown.
    pub matched: Option<u64>,
    /// Whether it answered lately.
    pub reachable: bool,
}

/// Who builds: a voter that follows and keeps up, or the leader.
pub fn choose_builder(leader: u64, last_index: u64, members: &[Candidate]) -> u64 {
    let _ = (leader, last_index, members);
    todo!()
}
