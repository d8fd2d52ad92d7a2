//! What is wrong with a directory: how bad, under which name, in which file.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::StoreError;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OfflineSeverity {
    /// Worth knowing.
    Info,
    /// A node starts with it, and it may explain something.
    Warning,
    /// A node refuses to start with it, or should.
    Error,
}

/// The stable names of findings; `drtool explain` tells of each.
pub mod codes {
    /// A process holds the directory.
    pub const DIR_IN_USE: &str = "DIR_IN_USE";
    /// A file or directory cannot be read.
    pub const DIR_UNREADABLE: &str = "DIR_UNREADABLE";
    /// A link or something else that is no file of the directory itself.
    pub const DIR_FOREIGN: &str = "DIR_FOREIGN";
    /// A file that no program of this version made.
    pub const DIR_UNKNOWN_FILE: &str = "DIR_UNKNOWN_FILE";
    /// What a crash left behind.
    pub const DIR_LEFTOVER: &str = "DIR_LEFTOVER";
    /// There is no identity.
    pub const IDENTITY_MISSING: &str = "IDENTITY_MISSING";
    /// The identity is not what was written.
    pub const IDENTITY_DAMAGED: &str = "IDENTITY_DAMAGED";
    /// A group that the node must have is not there.
    pub const GROUP_MISSING: &str = "GROUP_MISSING";
    /// The state differed from the recorded one.
    pub const GROUP_DIVERGED: &str = "GROUP_DIVERGED";
    /// The node met a newer incarnation of its cluster.
    pub const NODE_FENCED: &str = "NODE_FENCED";
    /// Bytes of the log are not what was written.
    pub const LOG_DAMAGED: &str = "LOG_DAMAGED";
    /// Entries are missing.
    pub const LOG_HOLE: &str = "LOG_HOLE";
    /// Records of the log contradict each other.
    pub const LOG_ORDER: &str = "LOG_ORDER";
    /// The last write of the log was cut short.
    pub const LOG_TORN_TAIL: &str = "LOG_TORN_TAIL";
    /// An entry that this version does not understand.
    pub const LOG_UNDECODABLE: &str = "LOG_UNDECODABLE";
    /// The log has no vote.
    pub const VOTE_MISSING: &str = "VOTE_MISSING";
    /// The vote is older than the last entry.
    pub const VOTE_BEHIND_LOG: &str = "VOTE_BEHIND_LOG";
    /// There is a log and no state.
    pub const STATE_MISSING: &str = "STATE_MISSING";
    /// The state is not what was written.
    pub const STATE_DAMAGED: &str = "STATE_DAMAGED";
    /// The log begins after the state ends.
    pub const STATE_BEHIND_LOG: &str = "STATE_BEHIND_LOG";
    /// The state has applied what the log does not have.
    pub const STATE_AHEAD_OF_LOG: &str = "STATE_AHEAD_OF_LOG";

    /// The hash of all records is not the one that was kept up.
    pub const STATE_HASH_MISMATCH: &str = "STATE_HASH_MISMATCH";
    /// The state was not made from the log that lies beside it.
    pub const STATE_NOT_OF_LOG: &str = "STATE_NOT_OF_LOG";
    /// A record is not what was written.
    pub const RECORD_DAMAGED: &str = "RECORD_DAMAGED";
    /// A record of a kind that this version does not know.
    pub const RECORD_UNKNOWN: &str = "RECORD_UNKNOWN";
    /// Records contradict each other.
    pub const RECORDS_DISAGREE: &str = "RECORDS_DISAGREE";
    /// The audit history is not whole.
    pub const AUDIT_BROKEN: &str = "AUDIT_BROKEN";
    /// A recorded snapshot is not one that this program could have recorded.
    pub const SNAPSHOT_RECORD_DAMAGED: &str = "SNAPSHOT_RECORD_DAMAGED";
    /// The state is of another cluster, life or node than the identity says.
    pub const IDENTITY_DISAGREES: &str = "IDENTITY_DISAGREES";
    /// The node is not among the members of the group.
    pub const NOT_A_MEMBER: &str = "NOT_A_MEMBER";
    /// A recovery was begun in the directory and has not ended.
    pub const SURGERY_UNFINISHED: &str = "SURGERY_UNFINISHED";
    /// The file that tells of a recovery is not what was written.
    pub const SURGERY_DAMAGED: &str = "SURGERY_DAMAGED";
    /// A new life of the cluster was prepared and has not begun everywhere.
    pub const INCARNATION_UNBORN: &str = "INCARNATION_UNBORN";
    /// The file that tells of a new life is not what was written.
    pub const INCARNATION_DAMAGED: &str = "INCARNATION_DAMAGED";

    /// All of them.
    pub const ALL: &[&str] = &[
        DIR_IN_USE,
        DIR_UNREADABLE,
        DIR_FOREIGN,
        DIR_UNKNOWN_FILE,
        DIR_LEFTOVER,
        IDENTITY_MISSING,
        IDENTITY_DAMAGED,
        GROUP_MISSING,
        GROUP_DIVERGED,
        NODE_FENCED,
        LOG_DAMAGED,
        LOG_HOLE,
        LOG_ORDER,
        LOG_TORN_TAIL,
        LOG_UNDECODABLE,
        VOTE_MISSING,
        VOTE_BEHIND_LOG,
        STATE_MISSING,
        STATE_DAMAGED,
        STATE_BEHIND_LOG,
        STATE_AHEAD_OF_LOG,
        STATE_HASH_MISMATCH,
        STATE_NOT_OF_LOG,
        RECORD_DAMAGED,
        RECORD_UNKNOWN,
        RECORDS_DISAGREE,
        AUDIT_BROKEN,
        SNAPSHOT_RECORD_DAMAGED,
        IDENTITY_DISAGREES,
        NOT_A_MEMBER,
        SURGERY_UNFINISHED,
        SURGERY_DAMAGED,
        INCARNATION_UNBORN,
        INCARNATION_DAMAGED,
    ];
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfflineFinding {
    /// How bad.
    pub severity: OfflineSeverity,
    /// One of [`codes`].
    pub code: &'static str,
    /// The file or directory that says so.
    pub path: PathBuf,
    /// Where in the file, in bytes.
    pub offset: Option<u64>,
    /// What was found.
    pub what: String,
}

impl fmt::Display for OfflineFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.path.display())?;
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl OfflineFinding {
    pub(super) fn warning(code: &'static str, path: &Path, what: impl Into<String>) -> Self {
        Self::new(OfflineSeverity::Warning, code, path, what)
    }

    pub(super) fn error(code: &'static str, path: &Path, what: impl Into<String>) -> Self {
        Self::new(OfflineSeverity::Error, code, path, what)
    }

    pub(super) fn new(
        severity: OfflineSeverity,
        code: &'static str,
        path: &Path,
        what: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            code,
            path: path.to_owned(),
            offset: None,
            what: what.into(),
        }
    }

    pub(super) fn at(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }

    /// An error of reading as a finding; `damaged` is the name for bytes that are wrong.
    pub(super) fn of(error: &StoreError, damaged: &'static str, path: &Path) -> Self {
        let text = error.to_string();
        // The hint is the reader's to give: he knows what the whole directory looks like.
        let text = text.split("\nhint: ").next().unwrap_or_default().to_owned();
        match error {
            StoreError::Damaged { path, detail, .. } => Self::error(damaged, path, detail.clone()),
            StoreError::NewerVersion {
                path,
                found,
                newest,
            } => Self::error(
                damaged,
                path,
                format!("it has format version {found}, this program reads up to {newest}"),
            ),
            StoreError::Foreign {
                path,
                what,
                found,
                expected,
                ..
            } => Self::error(
                codes::DIR_FOREIGN,
                path,
                format!("{what} is {found}, expected {expected}"),
            ),
            StoreError::Io {
                operation,
                path,
                source,
            } => Self::error(
                codes::DIR_UNREADABLE,
                path,
                format!("{operation}: {source}"),
            ),
            StoreError::Database {
                operation,
                path,
                detail,
            } => Self::error(damaged, path, format!("{operation}: {detail}")),
            _ => Self::error(damaged, path, text),
        }
    }
}

/// Most findings that are kept of one kind of place: a file of garbage must not fill the memory.
const KEPT_MAX: usize = 200;

/// Findings, bounded.
#[derive(Debug, Default)]
pub(super) struct Findings {
    kept: Vec<OfflineFinding>,
    more: usize,
}

impl Findings {
    pub(super) fn push(&mut self, finding: OfflineFinding) {
        if self.kept.len() < KEPT_MAX {
            self.kept.push(finding);
        } else {
            self.more += 1;
        }
    }

    pub(super) fn into_vec(mut self) -> Vec<OfflineFinding> {
        if self.more > 0
            && let Some(last) = self.kept.last_mut()
        {
            last.what = format!("{} (and {} more findings)", last.what, self.more);
        }
        self.kept
    }
}
