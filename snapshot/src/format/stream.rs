//! The records of a snapshot, chunk by chunk, each proven before it is handed out.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;

use super::chunk::{DecodedChunk, decode_chunk};
use super::{ChunkEntry, Manifest};
use crate::StateHash;
use crate::error::SnapshotError;
use crate::source::ChunkSource;
use crate::view::Record;

/// The records of a snapshot in order of their keys. Nothing that was handed out counts until `None` was.
pub struct RecordStream {
    manifest: Arc<Manifest>,
    object: Arc<str>,
    chunks: BoxStream<'static, Result<DecodedChunk, SnapshotError>>,
    records: u64,
    hash: StateHash,
    failed: bool,
}

impl std::fmt::Debug for RecordStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordStream")
            .field("object", &self.object)
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}

impl RecordStream {
    pub(super) fn new(
        source: Arc<dyn ChunkSource>,
        object: Arc<str>,
        manifest: Arc<Manifest>,
        prefetch: usize,
        tries: usize,
    ) -> Self {
        let fetch = {
            let (manifest, object) = (manifest.clone(), object.clone());
            move |i: usize| fetch_chunk(source.clone(), object.clone(), manifest.clone(), i, tries)
        };
        let chunks = futures::stream::iter(0..manifest.chunks.len())
            .map(fetch)
            .buffered(prefetch.max(1))
            .boxed();
        Self {
            manifest,
            object,
            chunks,
            records: 0,
            hash: StateHash::new(),
            failed: false,
        }
    }

    /// The manifest, proven when the snapshot was opened.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The next chunk's records, its checksums proven before it was decoded. `None` only after all counts and the
    /// state hash have been proven equal to the manifest; until then nothing that was handed out may be used for good.
    pub async fn next_chunk(&mut self) -> Result<Option<Vec<Record>>, SnapshotError> {
        if self.failed {
            return Err(SnapshotError::damaged(
                &self.object,
                "reading it has failed before",
            ));
        }
        let answer = match self.chunks.next().await {
            Some(Ok(chunk)) => {
                self.records += chunk.records.len() as u64;
                self.hash.merge(&chunk.hash);
                Ok(Some(chunk.records))
            }
            Some(Err(error)) => Err(error),
            None => self.prove().map(|()| None),
        };
        self.failed = answer.is_err();
        answer
    }

    fn prove(&self) -> Result<(), SnapshotError> {
        if self.records != self.manifest.records {
            let detail = format!(
                "{} records read, its manifest says {}",
                self.records, self.manifest.records
            );
            return Err(SnapshotError::damaged(&self.object, detail));
        }
        let expected = self
            .manifest
            .state_hash()
            .map_err(|e| SnapshotError::damaged(&self.object, e.to_string()))?;
        if self.hash != expected {
            let detail = format!(
                "its records hash to {}, its manifest says {}",
                self.hash.digest(),
                expected.digest()
            );
            return Err(SnapshotError::damaged(&self.object, detail));
        }
        Ok(())
    }
}

/// The records of one chunk, proven by its own sums.
pub(super) async fn read_chunk(
    source: Arc<dyn ChunkSource>,
    own: Arc<str>,
    manifest: Arc<Manifest>,
    index: usize,
    tries: usize,
) -> Result<Vec<Record>, SnapshotError> {
    let chunk = fetch_chunk(source, own, manifest, index, tries).await?;
    Ok(chunk.records)
}

async fn fetch_chunk(
    source: Arc<dyn ChunkSource>,
    own: Arc<str>,
    manifest: Arc<Manifest>,
    index: usize,
    tries: usize,
) -> Result<DecodedChunk, SnapshotError> {
    let Some(entry) = manifest.chunks.get(index).cloned() else {
        return Err(SnapshotError::Internal(format!(
            "there is no chunk {index}"
        )));
    };
    let holder = if entry.object.is_empty() {
        own.to_string()
    } else {
        entry.object.clone()
    };
    let mut last = String::new();
    for _ in 0..tries {
        // `check` has made sure that the sum does not overflow.
        let stored = source
            .read(&holder, entry.offset..entry.offset + entry.stored_len)
            .await?;
        let again = entry.clone();
        match off_runtime(move || decode_chunk(&again, &stored)).await? {
            Ok(chunk) => return Ok(chunk),
            Err(detail) => last = detail,
        }
    }
    Err(SnapshotError::damaged(
        &holder,
        describe(index, &entry, &last),
    ))
}

fn describe(index: usize, entry: &ChunkEntry, detail: &str) -> String {
    format!(
        "chunk {index}, bytes {} to {}: {detail}",
        entry.offset,
        entry.offset + entry.stored_len
    )
}

/// Runs what would hold up the runtime's threads for milliseconds on a thread of its own.
async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SnapshotError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| SnapshotError::Internal(format!("decode a chunk: {e}")))
}
