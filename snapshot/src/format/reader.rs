//! Opens a snapshot and proves its manifest.

use std::sync::Arc;

use super::{Manifest, RecordStream};
use crate::error::SnapshotError;
use crate::lthash::Digest;
use crate::record::SnapshotRecord;
use crate::source::ChunkSource;

/// A snapshot whose manifest has been read and proven; its chunks not yet.
#[derive(Clone)]
pub struct SnapshotReader {
    source: Arc<dyn ChunkSource>,
    object: String,
    manifest: Arc<Manifest>,
    manifest_blake3: Digest,
}

impl std::fmt::Debug for SnapshotReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotReader")
            .field("object", &self.object)
            .finish_non_exhaustive()
    }
}

impl SnapshotReader {
    /// Reads footer, manifest and header of an object.
    pub async fn open(source: Arc<dyn ChunkSource>, object: &str) -> Result<Self, SnapshotError> {
        let _ = (source, object);
        todo!()
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// BLAKE3 of the manifest's bytes.
    pub fn manifest_blake3(&self) -> Digest {
        self.manifest_blake3
    }

    /// Refuses a snapshot that is not the recorded one.
    pub fn expect(&self, record: &SnapshotRecord) -> Result<(), SnapshotError> {
        let _ = record;
        todo!()
    }

    /// All records; up to `prefetch` chunks are read ahead.
    pub fn records(&self, prefetch: usize) -> RecordStream {
        let _ = (prefetch, &self.source);
        todo!()
    }
}
