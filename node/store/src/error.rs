//! What can go wrong with a node's data, with the file and a remedy.

use std::io;
use std::path::PathBuf;

use confman_snapshot::Digest;
use confman_snapshot::SnapshotError;
use confman_snapshot::model::{GroupId, Position};

use crate::apply::Remembered;

/// The data of a node could not be read, written or trusted.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused.
    #[error("{operation} {path:?}: {source}")]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has the data directory.
    #[error(
        "data directory {path:?} is in use by {holder}\nhint: stop that process, or give this node another CONFMAN_DATA_DIR"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who, as far as the lock file says.
        holder: String,
    },
    /// The bytes in a file are not what was written.
    #[error("{path:?} is damaged: {detail}\nhint: {hint}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
        /// What to do.
        hint: &'static str,
    },
    /// A file of a newer version.
    #[error(
        "{path:?} has format version {found}, this program reads up to {newest}\nhint: use the version of confman that wrote it, or a newer one"
    )]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The newest version this program reads.
        newest: u32,
    },
    /// The file is whole, but belongs to something else.
    #[error("{path:?} is not ours: {what} is {found}, expected {expected}\nhint: {hint}")]
    Foreign {
        /// The file or directory.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
        /// What to do.
        hint: &'static str,
    },
    /// The state database failed.
    #[error("{operation} state {path:?}: {detail}")]
    Database {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What redb said.
        detail: String,
    },
    /// An entry of the log cannot be applied by this version.
    #[error(
        "apply entry {position} of {group}: {detail}\nhint: use the version of confman that the other nodes run"
    )]
    Undecodable {
        /// The group.
        group: GroupId,
        /// The entry.
        position: Position,
        /// What is wrong.
        detail: String,
    },
    /// This replica's state is not the one that was recorded.
    #[error(transparent)]
    StateMismatch(Box<StateMismatch>),
    /// This replica's state was found to differ before, and it was not set aside since.
    #[error(transparent)]
    Diverged(Box<Diverged>),
    /// The log may not be purged that far.
    #[error("purge {group} up to {upto}: its state is durable only up to {durable:?}")]
    PurgeBeyondState {
        /// The group.
        group: GroupId,
        /// The index to purge up to.
        upto: u64,
        /// The last index that is durable in the state.
        durable: Option<u64>,
    },
    /// The snapshot to install failed.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A task of ours ended without an answer.
    #[error("{0}")]
    Internal(String),
}

/// This replica's state is not the one that the group recorded: a disk or a program went wrong.
#[derive(Debug, thiserror::Error)]
#[error(
    "state hash mismatch in {group} at index {index}: this replica has {found}, snapshot {snapshot} recorded {recorded}\n\
     hint: stop this node, run `drtool set-aside` on its data directory and let it rejoin empty"
)]
pub struct StateMismatch {
    /// The group.
    pub group: GroupId,
    /// The index of the two states.
    pub index: u64,
    /// The hash here, as far as it is remembered.
    pub found: Remembered,
    /// The recorded hash.
    pub recorded: Digest,
    /// The snapshot that recorded it.
    pub snapshot: String,
}

/// The finding that an earlier run wrote down: this replica's state was not the recorded one.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path:?} holds a state that differs: on {time} the state hash of {group} at index {index} was {found} here, snapshot {snapshot} recorded {recorded}\n\
     hint: stop this node, run `drtool set-aside` on its data directory and start it with an empty one: it rejoins under a new id; when most nodes say this of the same snapshot, its builder is the one that differs, not they"
)]
pub struct Diverged {
    /// The directory of the group.
    pub path: PathBuf,
    /// The group.
    pub group: String,
    /// The index of the two states.
    pub index: u64,
    /// The hash here.
    pub found: String,
    /// The recorded hash.
    pub recorded: String,
    /// The snapshot that recorded it.
    pub snapshot: String,
    /// When it was found.
    pub time: String,
}

impl StoreError {
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Io {
                operation,
                path,
                source,
            } => io::Error::new(source.kind(), format!("{operation} {path:?}: {source}")),
            StoreError::Damaged { .. }
            | StoreError::NewerVersion { .. }
            | StoreError::Foreign { .. } => io::Error::new(io::ErrorKind::InvalidData, error),
            other => io::Error::other(other),
        }
    }
}
