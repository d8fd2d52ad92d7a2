//! What can go wrong, sorted by what somebody must do about it.
//!
//! [`Kind`] is the outside: few kinds, ordered by remedy. [`StoreError`] and [`SnapshotError`] are the inside: they
//! name the object, the store (never its secrets) and a hint.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use crate::Digest;
use crate::id::SnapshotId;
use crate::model::{GroupId, ModelError};

/// Any error, as a source.
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Try again soon: the store is busy or a transfer broke off.
    Retry,
    /// The store cannot be reached: wait, and go on without it.
    Wait,
    /// The store refuses who we are or what we may do.
    Credentials,
    /// A setting is wrong: URL, bucket, region, endpoint; or the local disk is.
    Configuration,
    /// The object is not there.
    NotFound,
    /// The object is there and is not what was written.
    Damaged,
    /// Somebody else's object is where ours should go.
    Conflict,
    /// The state of this replica is not the one that it should be: a disk or a program went wrong.
    Diverged,
    /// We made a mistake.
    Bug,
}

impl Kind {
    /// Whether trying the same again may help by itself.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Retry | Self::Wait)
    }

    /// One lower case word, for metrics, logs and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Wait => "wait",
            Self::Credentials => "credentials",
            Self::Configuration => "configuration",
            Self::NotFound => "not-found",
            Self::Damaged => "damaged",
            Self::Conflict => "conflict",
            Self::Diverged => "diverged",
            Self::Bug => "bug",
        }
    }
}

/// The object store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {object:?} in {url}: {detail}{}", hint_suffix(.hint))]
pub struct StoreError {
    /// What to do about it.
    pub kind: Kind,
    /// What was asked, as a verb: `put`, `get`, `list`, `delete`, `open`.
    pub operation: &'static str,
    /// The object, relative to the store's prefix; empty for the store itself.
    pub object: String,
    /// The store, without secrets.
    pub url: String,
    /// What the store said, without secrets.
    pub detail: String,
    /// The next thing to do; empty when there is none.
    pub hint: String,
}

/// A snapshot could not be written, read or proven.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bytes are not what was written.
    #[error("snapshot object {object:?} is damaged: {detail}")]
    Damaged {
        /// The object, or the local file.
        object: String,
        /// What was found, and where.
        detail: String,
    },
    /// The bytes are whole and are not the snapshot that was asked for.
    #[error("snapshot object {object:?} is another one: {what} is {found}, expected {expected}")]
    Mismatch {
        /// The object, or the local file.
        object: String,
        /// The field that differs.
        what: &'static str,
        /// What stands in the object.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// The object was written by a newer program.
    #[error(
        "snapshot object {object:?} has format version {found}, this program reads up to {newest}\n\
         hint: use the version of confman that wrote it, or a newer one"
    )]
    NewerVersion {
        /// The object, or the local file.
        object: String,
        /// The version found.
        found: u32,
        /// The newest version this program reads.
        newest: u32,
    },
    /// A size goes beyond what this program will read or write.
    #[error("snapshot object {object:?}: {what} is {found} bytes, the limit is {limit}")]
    TooLarge {
        /// The object, or the local file.
        object: String,
        /// What is too large.
        what: &'static str,
        /// Its size in bytes.
        found: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The records that were to be written do not have the state hash that they should.
    #[error(
        "state hash mismatch in {group} at index {index}: the records hash to {found}, apply kept {expected}\n\
         hint: this replica's database differs from its own log; stop it and let it rejoin with an empty data directory"
    )]
    StateHash {
        /// The group.
        group: GroupId,
        /// The index of the state.
        index: u64,
        /// The hash of the records.
        found: Digest,
        /// The hash that was kept beside them.
        expected: Digest,
    },
    /// The records that were to be written could not be read or are not in order.
    #[error("read the records of snapshot {id}: {source}")]
    Records {
        /// The snapshot that was to be written.
        id: SnapshotId,
        /// What the source of the records said.
        source: BoxError,
    },
    /// What was to be written is not valid.
    #[error("snapshot {id}: {source}")]
    Invalid {
        /// The snapshot.
        id: SnapshotId,
        /// What is wrong with it.
        source: ModelError,
    },
    /// The local disk failed.
    #[error("{operation} {path:?}: {source}")]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A task of ours ended without an answer.
    #[error("{0}")]
    Internal(String),
}

impl SnapshotError {
    /// What to do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Store(error) => error.kind,
            Self::Damaged { .. }
            | Self::Mismatch { .. }
            | Self::NewerVersion { .. }
            | Self::TooLarge { .. } => Kind::Damaged,
            Self::StateHash { .. } => Kind::Diverged,
            Self::Records { .. } | Self::Io { .. } => Kind::Configuration,
            Self::Invalid { .. } | Self::Internal(_) => Kind::Bug,
        }
    }

    /// Whether an older snapshot should be tried: this one is damaged, missing or not what was asked for.
    pub fn is_bad_snapshot(&self) -> bool {
        matches!(self.kind(), Kind::Damaged | Kind::NotFound)
    }

    /// Whether the store could not be asked at all, so that another source of the state is needed.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Store(e) if matches!(e.kind, Kind::Retry | Kind::Wait | Kind::Credentials | Kind::Configuration))
    }

    pub(crate) fn damaged(object: &str, detail: impl Into<String>) -> Self {
        Self::Damaged {
            object: object.to_owned(),
            detail: detail.into(),
        }
    }
}

fn hint_suffix(hint: &str) -> String {
    if hint.is_empty() {
        String::new()
    } else {
        format!("\nhint: {hint}")
    }
}
