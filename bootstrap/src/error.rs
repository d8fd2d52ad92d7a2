//! Why a restore cannot go on.

use std::io;
use std::path::PathBuf;

use confman_snapshot::model::GroupId;
use confman_store::StoreError;

use crate::report::ReportError;

/// A restore that cannot go on: this machine is the reason, so neither an older snapshot nor the leader helps.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The disk is too small.
    #[error(
        "restore {what}: {need} bytes are needed in {dir:?} and {free} are free\n\
         hint: make room on that disk, or put CONFMAN_DATA_DIR on a larger one, and start again"
    )]
    Space {
        /// The group, or how many of them.
        what: String,
        /// The directory whose disk is too small.
        dir: PathBuf,
        /// Bytes needed.
        need: u64,
        /// Bytes free.
        free: u64,
    },
    /// The group's directory has a state that no restore was putting there.
    #[error(
        "restore {group}: {path:?} holds a state already\n\
         hint: nothing has been changed; run `drtool set-aside` on the data directory and start again"
    )]
    NotEmpty {
        /// The group.
        group: GroupId,
        /// What was found.
        path: PathBuf,
    },
    /// The report in the group's directory is of another cluster or group.
    #[error(
        "restore {group}: {path:?} is of {found}, expected {expected}\n\
         hint: nothing has been changed; run `drtool set-aside` on the data directory and start again"
    )]
    Foreign {
        /// The group.
        group: GroupId,
        /// The report.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// The report could not be read or written.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The state could not be put in place.
    #[error("restore {group}: {source}")]
    Install {
        /// The group.
        group: GroupId,
        /// What failed.
        source: Box<StoreError>,
    },
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
    /// The snapshot that a restore order names is no good.
    #[error(
        "restore {group}: snapshot {snapshot}, which the restore order names, cannot be used: {why}\n\
         hint: `drtool restore plan` and `drtool restore apply` order the restore anew from the next older one"
    )]
    NotWhole {
        /// The group.
        group: GroupId,
        /// The snapshot.
        snapshot: String,
        /// What is wrong with it.
        why: String,
    },
    /// The store does not answer.
    #[error("restore {group}: the store does not give snapshot {snapshot}: {why}")]
    Unreachable {
        /// The group.
        group: GroupId,
        /// The snapshot.
        snapshot: String,
        /// Why not.
        why: String,
    },
    /// Stopped at a named point by a test.
    #[error("stopped at {0}")]
    Stopped(&'static str),
}

impl RestoreError {
    /// One lower case word, for traces.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Space { .. } => "space",
            Self::NotEmpty { .. } => "not-empty",
            Self::Foreign { .. } => "foreign",
            Self::Report(_) => "report",
            Self::Install { .. } => "install",
            Self::Io { .. } => "io",
            Self::NotWhole { .. } => "damaged",
            Self::Unreachable { .. } => "unreachable",
            Self::Stopped(_) => "stopped",
        }
    }
}
