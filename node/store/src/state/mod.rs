//! The state database and everything that reads it.

mod audit;
mod db;
mod handle;
mod read;

pub use audit::{AuditEntry, AuditFilter, AuditPage, audit_id};
#[cfg(test)]
pub(crate) use db::SYSTEM;
pub(crate) use db::{
    Head, InstalledRecord, RECORDS, StateDb, database_error, open_error, read_head_in,
    read_installed_in,
};
pub(crate) use handle::{Shared, Visible};
pub use handle::{StateHandle, StateStats};
pub(crate) use read::Reader;
pub use read::{EntryItem, IdempotencyAnswer, NamespaceItem, SnapshotFact};
