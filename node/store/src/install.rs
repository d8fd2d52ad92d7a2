//! A whole state from a snapshot, proven before the old one is touched.

use confman_snapshot::RecordStream;
use confman_snapshot::lthash::Digest;
use confman_snapshot::model::{Membership, Position};

use crate::error::StoreError;
use crate::paths::GroupPaths;

/// What was installed.
#[derive(Debug, Clone, PartialEq)]
pub struct InstallReport {
    /// The position of the state.
    pub position: Position,
    /// How many records.
    pub records: u64,
    /// Their bytes, keys and values.
    pub bytes: u64,
    /// The proven state hash.
    pub state_hash: Digest,
    /// How long it took.
    pub seconds: f64,
}

/// Installs a state into the empty directory of a group, offline: builds the database, proves it, puts it in place,
/// and makes the log begin after `position`. `membership` is the one that the group has from then on; for a node that
/// joins, the manifest's.
///
/// # Errors
/// [`StoreError`] when the stream fails or does not prove, the disk fails, or the directory already holds a state.
/// Nothing usable is left behind then.
pub async fn install_state(
    paths: &GroupPaths,
    stream: RecordStream,
    position: Position,
    membership: Membership,
) -> Result<InstallReport, StoreError> {
    let _ = (paths, stream, position, membership);
    todo!()
}
