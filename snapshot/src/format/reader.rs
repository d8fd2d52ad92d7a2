//! Opens a snapshot: footer, manifest and header, each proven before the next is believed.

use std::sync::Arc;

use bytes::Bytes;

use super::layout::{FOOTER_BYTES, Footer, HEADER_BYTES_MAX, decode_footer, decode_header};
use super::stream::read_chunk;
use super::{Manifest, RecordStream};
use crate::Digest;
use crate::error::SnapshotError;
use crate::id::SnapshotId;
use crate::model::GroupId;
use crate::record::SnapshotRecord;
use crate::source::ChunkSource;
use crate::view::Record;

/// How much of an object's end is read at first: footer and most manifests.
const TAIL_BYTES: u64 = 64 << 10;
/// A transfer may flip a bit where the object has none: each part is read once more before it is called damaged.
const TRIES: usize = 2;

/// A snapshot whose manifest has been read and proven; its chunks not yet.
#[derive(Clone)]
pub struct SnapshotReader {
    source: Arc<dyn ChunkSource>,
    object: Arc<str>,
    object_bytes: u64,
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
    /// Reads footer, manifest and header of an object and proves them.
    pub async fn open(source: Arc<dyn ChunkSource>, object: &str) -> Result<Self, SnapshotError> {
        let object_bytes = source.size(object).await?;
        if object_bytes < FOOTER_BYTES {
            return Err(SnapshotError::damaged(
                object,
                format!("{object_bytes} bytes are too few for a snapshot"),
            ));
        }
        let mut last = None;
        for _ in 0..TRIES {
            match open_once(&*source, object, object_bytes).await {
                Ok((manifest, footer)) => {
                    return Ok(Self {
                        source,
                        object: object.into(),
                        object_bytes,
                        manifest: Arc::new(manifest),
                        manifest_blake3: footer.manifest_blake3,
                    });
                }
                Err(e @ SnapshotError::Damaged { .. }) => last = Some(e),
                Err(e) => return Err(e),
            }
        }
        Err(last.unwrap_or_else(|| SnapshotError::Internal("no try was made".to_owned())))
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// BLAKE3 of the manifest's bytes.
    pub fn manifest_blake3(&self) -> Digest {
        self.manifest_blake3
    }

    /// The size of the object.
    pub fn object_bytes(&self) -> u64 {
        self.object_bytes
    }

    /// The object that was opened.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// Refuses a snapshot that is whole but calls itself otherwise.
    pub fn expect_name(&self, group: &GroupId, id: &SnapshotId) -> Result<(), SnapshotError> {
        let found = &*self.manifest;
        if found.group == *group && found.id == *id {
            return Ok(());
        }
        Err(SnapshotError::Mismatch {
            object: self.object.to_string(),
            what: "name",
            found: format!("{} {}", found.group, found.id),
            expected: format!("{group} {id}"),
        })
    }

    /// The records of one chunk, its sums proven before it was decoded. Proves this chunk and no more: the state hash of
    /// the whole is only proven by [`SnapshotReader::records`].
    pub async fn chunk(&self, index: usize) -> Result<Vec<Record>, SnapshotError> {
        read_chunk(
            self.source.clone(),
            self.object.clone(),
            self.manifest.clone(),
            index,
            TRIES,
        )
        .await
    }

    /// Refuses a snapshot that is whole but not the recorded one: an older version, another group's, another cluster's.
    pub fn expect(&self, record: &SnapshotRecord) -> Result<(), SnapshotError> {
        let m = &*self.manifest;
        let pairs: [(&'static str, String, String); 7] = [
            ("id", m.id.to_string(), record.id.to_string()),
            ("group", m.group.to_string(), record.group.to_string()),
            (
                "cluster",
                m.cluster.to_string(),
                record.cluster().to_string(),
            ),
            (
                "position",
                m.position.to_string(),
                record.position.to_string(),
            ),
            (
                "state hash",
                m.state_digest().to_string(),
                hex::encode(&record.state_hash),
            ),
            (
                "manifest hash",
                self.manifest_blake3.to_string(),
                hex::encode(&record.manifest_blake3),
            ),
            (
                "size",
                self.object_bytes.to_string(),
                record.object_bytes.to_string(),
            ),
        ];
        match pairs
            .into_iter()
            .find(|(_, found, expected)| found != expected)
        {
            None => Ok(()),
            Some((what, found, expected)) => Err(SnapshotError::Mismatch {
                object: self.object.to_string(),
                what,
                found,
                expected,
            }),
        }
    }

    /// All records; up to `prefetch` chunks (at least one) are read and decoded ahead, each about 4 MiB.
    pub fn records(&self, prefetch: usize) -> RecordStream {
        RecordStream::new(
            self.source.clone(),
            self.object.clone(),
            self.manifest.clone(),
            prefetch,
            TRIES,
        )
    }
}

async fn open_once(
    source: &dyn ChunkSource,
    object: &str,
    object_bytes: u64,
) -> Result<(Manifest, Footer), SnapshotError> {
    let damaged = |detail: String| SnapshotError::damaged(object, detail);
    let tail_start = object_bytes.saturating_sub(TAIL_BYTES);
    let tail = source.read(object, tail_start..object_bytes).await?;
    let footer_at = tail.len().checked_sub(FOOTER_BYTES as usize);
    let footer_bytes = footer_at.and_then(|at| tail.get(at..)).unwrap_or_default();
    let footer = decode_footer(object, object_bytes, footer_bytes)?;
    let manifest_end = footer.manifest_offset + footer.manifest_len;
    let bytes: Bytes = match footer.manifest_offset.checked_sub(tail_start) {
        Some(at) => tail.slice(at as usize..(at + footer.manifest_len) as usize),
        None => {
            source
                .read(object, footer.manifest_offset..manifest_end)
                .await?
        }
    };
    if crc32fast::hash(&bytes) != footer.manifest_crc32 {
        return Err(damaged("its manifest does not match its CRC32".to_owned()));
    }
    if blake3::hash(&bytes).as_bytes() != footer.manifest_blake3.as_bytes() {
        return Err(damaged("its manifest does not match its BLAKE3".to_owned()));
    }
    let manifest = Manifest::decode_checked(&bytes)
        .map_err(|e| damaged(format!("its manifest does not decode: {e}")))?;
    let head = source
        .read(object, 0..HEADER_BYTES_MAX.min(footer.manifest_offset))
        .await?;
    let (header, header_len) = decode_header(object, &head)?;
    if header.id != manifest.id
        || header.group != manifest.group
        || header.cluster != manifest.cluster
    {
        return Err(damaged(
            "its header and its manifest name different snapshots".to_owned(),
        ));
    }
    manifest
        .check(header_len, footer.manifest_offset)
        .map_err(|e| damaged(format!("its manifest is not valid: {e}")))?;
    Ok((manifest, footer))
}
