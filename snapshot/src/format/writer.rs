//! Writes one snapshot to a local file, in memory of about two chunks.
//!
//! The records are hashed as they are written. If the sum is not the hash that apply kept up, the file is removed and
//! nothing is ever uploaded: a replica that has drifted from its own log must not become everybody's restore.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::Path;

use bytes::Bytes;
use prost::Message;

use super::chunk::ChunkBuilder;
use super::layout::{FOOTER_BYTES, Footer, Header, encode_footer, encode_header};
use super::limits::{CHUNK_BYTES_MAX, KEY_BYTES_MAX, MANIFEST_BYTES_MAX, RECORD_BYTES_MAX};
use super::{ChunkEntry, Codec, Manifest};
use crate::error::{BoxError, SnapshotError};
use crate::id::SnapshotId;
use crate::model::ModelError;
use crate::paths;
use crate::record::SnapshotRecord;
use crate::view::{Record, SnapshotInfo};
use crate::{Digest, StateHash};

/// How a snapshot is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteOptions {
    /// How chunks are compressed.
    pub codec: Codec,
    /// How many bytes of records make a chunk, before compression; cut to what the format allows.
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
    /// The record of this snapshot, to be committed once it is verified in the store.
    pub fn record(&self, codec: Codec, builder_node: u64, took_us: u64) -> SnapshotRecord {
        let manifest = &self.manifest;
        SnapshotRecord {
            id: manifest.id,
            group: manifest.group.clone(),
            cluster_uuid: manifest.cluster.uuid.clone(),
            incarnation: manifest.cluster.incarnation,
            position: manifest.position,
            object: paths::snapshot(&manifest.group, &manifest.id),
            object_bytes: self.file_bytes,
            manifest_blake3: self.manifest_blake3.to_vec(),
            state_hash: manifest.state_digest().to_vec(),
            records: manifest.records,
            raw_bytes: manifest.raw_bytes,
            created_us: manifest.created_us,
            codec: codec as i32,
            builder_node,
            took_us,
        }
    }
}

/// Writes the records, which come in ascending order of their keys, to a new file at `path`. Blocking. Nothing is left at `path`
/// after an error.
///
/// The file is not synced: it is on its way to a store or a peer, is made again after a crash, and what arrives is checked
/// against [`Written`]. A sync would hold up those of the log, which clients wait for (I5).
pub fn write_snapshot<E: Into<BoxError>>(
    path: &Path,
    id: &SnapshotId,
    info: &SnapshotInfo,
    records: impl Iterator<Item = Result<Record, E>>,
    options: &WriteOptions,
) -> Result<Written, SnapshotError> {
    let io = |operation| {
        move |source| SnapshotError::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    };
    check_info(id, info)?;
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(io("create"))?;
    let written = Writer::start(file, id, info, options)
        .map_err(io("write"))
        .and_then(|writer| writer.write_all(path, info, records));
    if written.is_err() {
        // The error that counts is the one above.
        let _ = std::fs::remove_file(path);
    }
    written
}

fn check_info(id: &SnapshotId, info: &SnapshotInfo) -> Result<(), SnapshotError> {
    let invalid = |source| SnapshotError::Invalid { id: *id, source };
    info.group.check().map_err(invalid)?;
    info.cluster.check().map_err(invalid)?;
    if *id != SnapshotId::new(info.position, info.cluster.incarnation, id.nonce) {
        let expected = "the id of the position that is written";
        return Err(invalid(ModelError::new(
            "snapshot id",
            id.to_string(),
            expected,
        )));
    }
    if info
        .membership
        .position
        .is_some_and(|p| p.index > info.position.index)
    {
        let found = format!("index {:?}", info.membership.position.map(|p| p.index));
        return Err(invalid(ModelError::new(
            "membership",
            found,
            "one that is not newer than the state",
        )));
    }
    Ok(())
}

struct Writer<'a> {
    file: BufWriter<File>,
    offset: u64,
    id: &'a SnapshotId,
    codec: Codec,
    chunk_bytes: usize,
    chunk: ChunkBuilder,
    chunks: Vec<ChunkEntry>,
    hash: StateHash,
}

impl<'a> Writer<'a> {
    fn start(
        file: File,
        id: &'a SnapshotId,
        info: &SnapshotInfo,
        options: &WriteOptions,
    ) -> std::io::Result<Self> {
        let header = encode_header(&Header {
            id: *id,
            group: info.group.clone(),
            cluster: info.cluster.clone(),
        });
        let mut file = BufWriter::with_capacity(256 << 10, file);
        file.write_all(&header)?;
        Ok(Self {
            file,
            offset: header.len() as u64,
            id,
            codec: options.codec,
            chunk_bytes: options.chunk_bytes.clamp(1, CHUNK_BYTES_MAX),
            chunk: ChunkBuilder::default(),
            chunks: Vec::new(),
            hash: StateHash::new(),
        })
    }

    fn write_all<E: Into<BoxError>>(
        mut self,
        path: &Path,
        info: &SnapshotInfo,
        records: impl Iterator<Item = Result<Record, E>>,
    ) -> Result<Written, SnapshotError> {
        let io = |source| SnapshotError::Io {
            operation: "write",
            path: path.to_owned(),
            source,
        };
        let mut previous: Option<Bytes> = None;
        for record in records {
            let (key, value) = record.map_err(|e| SnapshotError::Records {
                id: *self.id,
                source: e.into(),
            })?;
            self.check_record(path, previous.as_deref(), &key, &value)?;
            self.hash.add(&key, &value);
            self.chunk.push(&key, &value);
            previous = Some(key);
            if self.chunk.raw_bytes() >= self.chunk_bytes {
                self.close_chunk().map_err(io)?;
            }
        }
        if !self.chunk.is_empty() {
            self.close_chunk().map_err(io)?;
        }
        if self.hash != info.state_hash {
            return Err(SnapshotError::StateHash {
                group: info.group.clone(),
                index: info.position.index,
                found: self.hash.digest(),
                expected: info.state_hash.digest(),
            });
        }
        self.finish(path, info)
    }

    fn check_record(
        &self,
        path: &Path,
        previous: Option<&[u8]>,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), SnapshotError> {
        let too_large = |what, found: usize, limit: usize| SnapshotError::TooLarge {
            object: path.display().to_string(),
            what,
            found: found as u64,
            limit: limit as u64,
        };
        if key.len() > KEY_BYTES_MAX {
            return Err(too_large("a key", key.len(), KEY_BYTES_MAX));
        }
        if key.len() + value.len() > RECORD_BYTES_MAX {
            return Err(too_large(
                "a record",
                key.len() + value.len(),
                RECORD_BYTES_MAX,
            ));
        }
        if previous.is_some_and(|previous| previous >= key) {
            let source = format!(
                "key {:?} comes after a key that is not below it",
                key.escape_ascii().to_string()
            );
            return Err(SnapshotError::Records {
                id: *self.id,
                source: source.into(),
            });
        }
        Ok(())
    }

    fn close_chunk(&mut self) -> std::io::Result<()> {
        let (stored, entry) = self.chunk.finish(self.codec, self.offset)?;
        self.file.write_all(&stored)?;
        self.offset += entry.stored_len;
        self.chunks.push(entry);
        Ok(())
    }

    fn finish(mut self, path: &Path, info: &SnapshotInfo) -> Result<Written, SnapshotError> {
        let io = |source| SnapshotError::Io {
            operation: "write",
            path: path.to_owned(),
            source,
        };
        let manifest = Manifest {
            id: *self.id,
            group: info.group.clone(),
            cluster: info.cluster.clone(),
            position: info.position,
            members: (&info.membership).into(),
            lattice: self.hash.to_bytes().to_vec(),
            created_us: info.created_us,
            first_time_us: info.first_time_us,
            last_time_us: info.last_time_us,
            records: self.chunks.iter().map(|c| c.records).sum(),
            raw_bytes: self.chunks.iter().map(|c| c.raw_len).sum(),
            stored_bytes: self.chunks.iter().map(|c| c.stored_len).sum(),
            chunks: self.chunks,
        };
        let bytes = manifest.encode_to_vec();
        if bytes.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(SnapshotError::TooLarge {
                object: path.display().to_string(),
                what: "the manifest",
                found: bytes.len() as u64,
                limit: MANIFEST_BYTES_MAX,
            });
        }
        let manifest_blake3 = Digest(*blake3::hash(&bytes).as_bytes());
        let footer = encode_footer(&Footer {
            manifest_offset: self.offset,
            manifest_len: bytes.len() as u64,
            manifest_crc32: crc32fast::hash(&bytes),
            manifest_blake3,
        });
        self.file.write_all(&bytes).map_err(io)?;
        self.file.write_all(&footer).map_err(io)?;
        self.file.flush().map_err(io)?;
        Ok(Written {
            file_bytes: self.offset + bytes.len() as u64 + FOOTER_BYTES,
            manifest,
            manifest_blake3,
        })
    }
}
