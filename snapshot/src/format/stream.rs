//! The records of a snapshot, chunk by chunk, each proven before it is handed out.

use std::sync::Arc;

use super::Manifest;
use crate::error::SnapshotError;
use crate::view::Record;

/// The records of a snapshot in order of their keys.
pub struct RecordStream {
    manifest: Arc<Manifest>,
}

impl std::fmt::Debug for RecordStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordStream")
            .field("id", &self.manifest.id)
            .finish_non_exhaustive()
    }
}

impl RecordStream {
    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The next chunk's records; `None` only after all counts and the state hash have been proven.
    pub async fn next_chunk(&mut self) -> Result<Option<Vec<Record>>, SnapshotError> {
        todo!()
    }
}
