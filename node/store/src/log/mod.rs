//! The Raft log of one group: votes and entries in checksummed chunk files, one fsync for all that is queued.
//!
//! The files are those of the `raft-log` crate; `codec` says what stands in its records, in our own encoding.
//!
//! Promises: a vote is durable when its call returns, an entry when its callback is called, in the order of the
//! calls; reads are bounded in bytes; a torn last record, never acknowledged, is cut off at open with a warning, any
//! other damage is refused with the file's name; nothing is purged that the state does not hold durably.

pub(crate) mod codec;
mod disk;
mod sized;
mod store;
mod stream;

use confman_snapshot::model::Position;

pub use store::LogStore;

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
