//! Build, upload, verify: from a view of the state to a record that can be committed.

use std::path::PathBuf;

use crate::error::SnapshotError;
use crate::format::WriteOptions;
use crate::record::SnapshotRecord;
use crate::repository::Repository;
use crate::view::StateView;

/// A phase of making a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Writing the temporary file.
    Build,
    /// Uploading it.
    Upload,
    /// Reading it back.
    Verify,
}

impl Phase {
    /// One lower case word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Upload => "upload",
            Self::Verify => "verify",
        }
    }
}

/// A snapshot could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{} snapshot of {group}: {source}", .phase.name())]
pub struct BuildError {
    /// How far it came.
    pub phase: Phase,
    /// The group.
    pub group: crate::GroupId,
    /// What went wrong.
    #[source]
    pub source: SnapshotError,
}

/// How a snapshot is made.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// How it is written.
    pub write: WriteOptions,
    /// Where the temporary file goes; deleted in the end, whatever the end.
    pub tmp_dir: PathBuf,
    /// The id of this node.
    pub builder_node: u64,
    /// Random, for the snapshot's name.
    pub nonce: u32,
}

/// Makes a snapshot: temporary file, upload, verification, record. `progress` hears of each phase as it begins.
pub async fn build_and_upload(
    view: StateView,
    repository: &Repository,
    options: &BuildOptions,
    progress: impl Fn(Phase) + Send + Sync,
) -> Result<SnapshotRecord, BuildError> {
    let _ = (view, repository, options, progress);
    todo!()
}
