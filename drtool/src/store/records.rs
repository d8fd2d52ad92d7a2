//! Single records out of a snapshot, by range reads: the manifest says which chunk holds a key.
//!
//! Promises: what is handed out stood in a chunk whose sums were proven; memory is a few chunks.
//!
//! Does not: prove the snapshot as a whole. Its state hash is only proven by reading all of it
//! ([`SnapshotReader::records`]).

use std::collections::VecDeque;
use std::sync::Arc;

use confman_snapshot::format::ChunkEntry;
use confman_snapshot::{Manifest, Record, SnapshotError, SnapshotReader};
use prost::Message;

/// Chunks that are kept decoded: neighbours share one, and a value in parts lies beside its entry's in none.
const CHUNKS_KEPT: usize = 3;

/// A snapshot from which single records are read.
#[derive(Debug)]
pub struct Records {
    reader: SnapshotReader,
    kept: VecDeque<(usize, Arc<Vec<Record>>)>,
}

impl Records {
    /// The records of an opened snapshot.
    #[must_use]
    pub fn new(reader: SnapshotReader) -> Self {
        Self {
            reader,
            kept: VecDeque::new(),
        }
    }

    /// The snapshot.
    #[must_use]
    pub fn reader(&self) -> &SnapshotReader {
        &self.reader
    }

    /// What the snapshot holds.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        self.reader.manifest()
    }

    /// The value of one record.
    ///
    /// # Errors
    /// Its chunk cannot be read or proven.
    pub async fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, SnapshotError> {
        let chunks = &self.manifest().chunks;
        let at = first_that_may_hold(chunks, key);
        if chunks.get(at).is_none_or(|c| c.first_key.as_slice() > key) {
            return Ok(None);
        }
        let records = self.chunk(at).await?;
        let found = records.binary_search_by(|(there, _)| there.as_ref().cmp(key));
        Ok(found
            .ok()
            .and_then(|at| records.get(at))
            .map(|(_, value)| value.to_vec()))
    }

    /// One record, decoded.
    ///
    /// # Errors
    /// As [`Records::get`]; or it is not such a record.
    pub async fn record<M: Message + Default>(
        &mut self,
        key: &[u8],
    ) -> Result<Option<M>, SnapshotError> {
        let Some(value) = self.get(key).await? else {
            return Ok(None);
        };
        decode(self.reader.object(), key, &value).map(Some)
    }

    /// All records whose keys begin with `prefix`, each decoded; for kinds of which there are few.
    ///
    /// # Errors
    /// A chunk cannot be read or proven, or a record is not such a one.
    pub async fn all<M: Message + Default>(
        &mut self,
        prefix: &[u8],
    ) -> Result<Vec<M>, SnapshotError> {
        let mut found = Vec::new();
        let mut at = first_that_may_hold(&self.manifest().chunks, prefix);
        while self
            .manifest()
            .chunks
            .get(at)
            .is_some_and(|chunk| begins_no_later(&chunk.first_key, prefix))
        {
            let records = self.chunk(at).await?;
            for (key, value) in records.iter().filter(|(key, _)| key.starts_with(prefix)) {
                found.push(decode(self.reader.object(), key, value)?);
            }
            at += 1;
        }
        Ok(found)
    }

    /// One chunk's records, read unless they are still here.
    ///
    /// # Errors
    /// It cannot be read or proven.
    pub async fn chunk(&mut self, at: usize) -> Result<Arc<Vec<Record>>, SnapshotError> {
        if let Some((_, records)) = self.kept.iter().find(|(kept, _)| *kept == at) {
            return Ok(records.clone());
        }
        let records = Arc::new(self.reader.chunk(at).await?);
        if self.kept.len() >= CHUNKS_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((at, records.clone()));
        Ok(records)
    }
}

/// The first chunk that does not end before `key`. Chunks ascend and do not overlap: the manifest was checked.
fn first_that_may_hold(chunks: &[ChunkEntry], key: &[u8]) -> usize {
    chunks.partition_point(|chunk| chunk.last_key.as_slice() < key)
}

/// Whether keys with this prefix may follow, or begin with, `key`.
fn begins_no_later(key: &[u8], prefix: &[u8]) -> bool {
    key.starts_with(prefix) || key < prefix
}

/// The bytes of a record as what it is.
///
/// # Errors
/// They are not one: whoever wrote the snapshot wrote it so, its sums are right.
pub fn decode<M: Message + Default>(
    object: &str,
    key: &[u8],
    value: &[u8],
) -> Result<M, SnapshotError> {
    M::decode(value).map_err(|error| SnapshotError::Damaged {
        object: object.to_owned(),
        detail: format!(
            "record {}: {error}",
            hex::encode(key.get(..64).unwrap_or(key))
        ),
    })
}
