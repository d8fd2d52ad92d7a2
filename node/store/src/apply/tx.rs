//! The state while a batch is applied.

use std::path::Path;

use bytes::Bytes;
use confman_snapshot::StateHash;
use prost::Message;
use redb::{ReadableTable, Table, WriteTransaction};

use crate::error::StoreError;
use crate::keys;
use crate::records::FactsRecord;
use crate::state::{RECORDS, database_error};

/// One write transaction over the records. Every change goes through here, so that the hash follows it.
pub(crate) struct Tx<'t> {
    table: Table<'t, &'static [u8], &'static [u8]>,
    path: &'t Path,
    hash: StateHash,
    /// The record of facts as it stands now; written to the table at the end of the batch.
    pub(crate) facts: FactsRecord,
    /// The record of facts as it is in the hash, encoded; none before the first command.
    facts_in_hash: Option<Vec<u8>>,
    /// Whether what is known about snapshots changed.
    pub(crate) snapshots_changed: bool,
}

impl<'t> Tx<'t> {
    pub(crate) fn new(
        tx: &'t WriteTransaction,
        path: &'t Path,
        hash: StateHash,
        facts: FactsRecord,
    ) -> Result<Self, StoreError> {
        let table = tx
            .open_table(RECORDS)
            .map_err(database_error("write", path))?;
        let stored = table
            .get(keys::facts().as_slice())
            .map_err(database_error("read", path))?;
        let facts_in_hash = stored.map(|bytes| bytes.value().to_vec());
        Ok(Self {
            table,
            path,
            hash,
            facts,
            facts_in_hash,
            snapshots_changed: false,
        })
    }

    /// The hash of all records as they are now.
    pub(crate) fn hash(&self) -> &StateHash {
        &self.hash
    }

    /// Brings the record of facts into the hash: after each command, so that the hash is one of the position and not
    /// of how entries were batched.
    pub(super) fn settle_facts(&mut self) {
        let key = keys::facts();
        let encoded = self.facts.encode_to_vec();
        if let Some(old) = &self.facts_in_hash {
            self.hash.remove(&key, old);
        }
        self.hash.add(&key, &encoded);
        self.facts_in_hash = Some(encoded);
    }

    /// Writes the record of facts and gives back what the batch made of hash and facts.
    pub(crate) fn finish(mut self) -> Result<(StateHash, FactsRecord), StoreError> {
        if let Some(encoded) = &self.facts_in_hash {
            let key = keys::facts();
            self.table
                .insert(key.as_slice(), encoded.as_slice())
                .map_err(database_error("write", self.path))?;
        }
        Ok((self.hash, self.facts))
    }

    pub(crate) fn bytes(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self
            .table
            .get(key)
            .map_err(database_error("read", self.path))?;
        Ok(value.map(|v| Bytes::copy_from_slice(v.value())))
    }

    pub(crate) fn has(&self, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self
            .table
            .get(key)
            .map_err(database_error("read", self.path))?
            .is_some())
    }

    pub(crate) fn get<M: Message + Default>(&self, key: &[u8]) -> Result<Option<M>, StoreError> {
        self.bytes(key)?
            .map(|bytes| self.decode(key, bytes))
            .transpose()
    }

    fn decode<M: Message + Default>(&self, key: &[u8], bytes: Bytes) -> Result<M, StoreError> {
        M::decode(bytes).map_err(|e| StoreError::Damaged {
            path: self.path.to_owned(),
            detail: format!("record {}: {e}", hex::encode(&key[..key.len().min(64)])),
            hint: "run `drtool set-aside` on the data directory and start the node: it rejoins from the other nodes",
        })
    }

    pub(crate) fn put<M: Message>(&mut self, key: &[u8], record: &M) -> Result<(), StoreError> {
        self.put_bytes(key, &record.encode_to_vec())
    }

    pub(crate) fn put_bytes(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let old = self
            .table
            .insert(key, value)
            .map_err(database_error("write", self.path))?;
        if let Some(old) = old {
            self.hash.remove(key, old.value());
        }
        self.hash.add(key, value);
        Ok(())
    }

    /// Removes a record; says whether it was there.
    pub(crate) fn delete(&mut self, key: &[u8]) -> Result<bool, StoreError> {
        let old = self
            .table
            .remove(key)
            .map_err(database_error("write", self.path))?;
        if let Some(old) = &old {
            self.hash.remove(key, old.value());
        }
        Ok(old.is_some())
    }

    /// The first records that begin with `prefix`, at most `limit` of them.
    pub(crate) fn first(
        &self,
        prefix: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Bytes)>, StoreError> {
        let range = self
            .table
            .range::<&[u8]>(prefix..)
            .map_err(database_error("read", self.path))?;
        let mut found = Vec::new();
        for item in range.take(limit) {
            let (key, value) = item.map_err(database_error("read", self.path))?;
            if !key.value().starts_with(prefix) {
                break;
            }
            found.push((key.value().to_vec(), Bytes::copy_from_slice(value.value())));
        }
        Ok(found)
    }

    /// The keys of the last records that begin with `prefix`, from the last back, at most `limit` of them.
    pub(crate) fn last_keys(
        &self,
        prefix: &[u8],
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let end = keys::after_prefix(prefix).unwrap_or_default();
        let range = self
            .table
            .range::<&[u8]>(prefix..end.as_slice())
            .map_err(database_error("read", self.path))?;
        let mut found = Vec::new();
        for item in range.rev().take(limit) {
            let (key, _) = item.map_err(database_error("read", self.path))?;
            found.push(key.value().to_vec());
        }
        Ok(found)
    }

    /// All records that begin with `prefix`: for kinds of which there are few.
    pub(crate) fn all<M: Message + Default>(&self, prefix: &[u8]) -> Result<Vec<M>, StoreError> {
        let found = self.first(prefix, usize::MAX)?;
        found
            .into_iter()
            .map(|(key, bytes)| self.decode(&key, bytes))
            .collect()
    }
}
