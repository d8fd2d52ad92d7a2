//! Writes one snapshot to a local file, in bounded memory.

use std::path::Path;

use super::{Codec, Manifest};
use crate::error::SnapshotError;
use crate::lthash::Digest;
use crate::record::SnapshotRecord;
use crate::view::{Record, SnapshotInfo};
use crate::{BoxError, SnapshotId};

/// How a snapshot is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteOptions {
    /// How chunks are compressed.
    pub codec: Codec,
    /// How many bytes of records make a chunk, before compression.
    pub chunk_bytes: usize,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            codec: Codec::Zstd,
            chunk_bytes: 4 << 20,
        }
    }
}

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// The manifest at the end of the file.
    pub manifest: Manifest,
    /// BLAKE3 of its bytes.
    pub manifest_blake3: Digest,
    /// The size of the file.
    pub file_bytes: u64,
}

impl Written {
    /// The record of this snapshot once it is verified in the store.
    pub fn record(&self, codec: Codec, builder_node: u64, took_us: u64) -> SnapshotRecord {
        let _ = (codec, builder_node, took_us);
        todo!()
    }
}

/// Writes the records to a new file. Blocking.
pub fn write_snapshot<E: Into<BoxError>>(
    path: &Path,
    id: &SnapshotId,
    info: &SnapshotInfo,
    records: impl Iterator<Item = Result<Record, E>>,
    options: &WriteOptions,
) -> Result<Written, SnapshotError> {
    let _ = (path, id, info, records, options);
    todo!()
}
