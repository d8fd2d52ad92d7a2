//! The Raft log of one group.

use confman_snapshot::model::Position;

/// What is in the log of one group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Entries that can be read.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The last entry that is purged.
    pub purged: Option<Position>,
    /// The last entry, purged or not.
    pub last: Option<Position>,
}

/// The Raft log of one group, as openraft drives it.
#[derive(Debug, Clone)]
pub struct LogStore;
