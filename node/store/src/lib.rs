//! The data of one node: Raft log, state machine, data directory.
//!
//! What is in here:
//! - [`types`]: what openraft is told; [`command`]: what the log says and what applying it answers;
//!   [`records`] and [`keys`]: what the state consists of; [`names`]: which namespaces and keys are allowed.
//! - [`GroupStore::open`] gives the three parts of a replica: the [`LogStore`] and the [`StateMachine`] that
//!   openraft drives, and the [`StateHandle`] that everybody reads from.
//! - [`install`]: a whole state from a snapshot, proven before the old one is touched.
//! - [`offline`]: a directory looked at without touching it.
//! - [`datadir`] and [`paths`]: the directory, its lock, who the node is; [`diverged`]: a finding that a restart does
//!   not forget.
//! - [`wire`] and [`convert`]: our own structs for what openraft has types for.
//!
//! What it promises:
//! - apply is a pure function of (state, entry); data, applied position, membership and state hash change in one
//!   transaction, and nobody is answered before it;
//! - the state hash that is kept up equals the hash of a scan, whatever the batching (I2);
//! - each change has one audit record, named by its log position (I3);
//! - the log is not purged beyond what is durable here (I4);
//! - damage is refused with the file's name and a remedy, never repaired silently.
//!
//! What it does not do: networks, HTTP, decide when to snapshot or purge, talk to an object store.
//!
//! `DESIGN.md` beside this package says why, and lists the crash points.

mod apply;
pub mod command;
pub mod convert;
pub mod datadir;
pub mod diverged;
mod error;
mod files;
mod group;
pub mod install;
pub mod keys;
mod log;
mod machine;
pub mod membership;
pub mod names;
pub mod offline;
pub mod paths;
pub mod promises;
pub mod records;
mod snapshot;
mod state;
pub mod surgery;
pub mod types;
pub mod wire;

pub use apply::IDEMPOTENCY_KEPT;
pub use apply::Remembered;
pub use datadir::{DataDir, Identity};
pub use error::{Diverged, StateMismatch, StoreError};
pub use group::{GroupStore, OpenOptions};
pub use install::{InstallReport, install_ordered, install_state};
pub use log::{LogStats, LogStore};
pub use machine::{StateMachine, StateMachineControl};
pub use paths::{DataPaths, GroupPaths};
pub use snapshot::{Incoming, LocalSnapshot, SnapshotBuilder, SnapshotHandle};
pub use state::{
    AuditEntry, AuditFilter, AuditPage, EntryItem, IdempotencyAnswer, NamespaceItem, SnapshotFact,
    StateHandle, StateStats, audit_id,
};
pub use types::{Member, TypeConfig};

#[cfg(test)]
mod tests;
