//! The state database of one group, read without touching its file.
//!
//! redb checks no page that it reads and can panic on one that is damaged: every call of it here is caught, and a panic
//! is damage like any other.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use confman_snapshot::model::{GroupId, Membership, Position};
use confman_snapshot::{Digest, StateHash};
use prost::Message;
use redb::{Database, ReadableDatabase};

use super::file::ReadFile;
use super::overlay::Overlay;
use crate::error::StoreError;
use crate::keys;
use crate::records::{FactsRecord, SnapshotFactRecord};
use crate::state::{
    Head, RECORDS, SnapshotFact, database_error, open_error, read_head_in, read_installed_in,
};

/// Memory for pages.
const CACHE_BYTES: usize = 16 * 1024 * 1024;
/// Largest record that is read: a part of a value is 512 KiB.
const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;
const HINT: &str = "run `drtool set-aside` on the data directory and start the node: it rejoins from the other nodes";

/// The state of one group as its file has it.
#[derive(Debug)]
pub struct OfflineState {
    path: PathBuf,
    database: Database,
    head: Head,
    /// The position of the snapshot that the state came from, when it came from one of the store.
    installed: Option<Position>,
    bytes: u64,
}

/// The records of a state as of one moment, for many looks at single ones. See [`OfflineState::view`].
pub struct StateView<'a> {
    path: &'a Path,
    table: redb::ReadOnlyTable<&'static [u8], &'static [u8]>,
}

/// The records of a state in the order of their keys. See [`OfflineState::records`].
pub struct StateRecords {
    path: PathBuf,
    prefix: Vec<u8>,
    range: Option<redb::Range<'static, &'static [u8], &'static [u8]>>,
}

fn damaged(path: &Path, detail: String) -> StoreError {
    StoreError::Damaged {
        path: path.to_owned(),
        detail,
        hint: HINT,
    }
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread would be caught here and told as a finding: for a panic hook that keeps quiet then.
pub fn panic_is_caught() -> bool {
    GUARDED.get()
}

/// Calls redb; its panic is damage.
fn guarded<T>(path: &Path, call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let outer = GUARDED.replace(true);
    let called = catch_unwind(AssertUnwindSafe(call));
    GUARDED.set(outer);
    called.unwrap_or_else(|panic| {
        let what = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no reason given");
        let what: String = what.chars().take(200).collect();
        Err(damaged(
            path,
            format!("the database contradicts itself: {what}"),
        ))
    })
}

impl OfflineState {
    /// Opens a state; none where there is no file.
    pub(super) fn open(path: &Path, group: &GroupId) -> Result<Option<Self>, StoreError> {
        let Some(file) = ReadFile::open(path)? else {
            return Ok(None);
        };
        let bytes = file.len();
        if bytes == 0 {
            // redb would make a new database of it.
            return Err(damaged(path, "the file is empty".to_owned()));
        }
        guarded(path, || {
            let database = Database::builder()
                .set_cache_size(CACHE_BYTES)
                .create_with_backend(Overlay::new(file))
                .map_err(|e| open_error(path, &e))?;
            let tx = database
                .begin_read()
                .map_err(database_error("begin a read in", path))?;
            let head = read_head_in(&tx, path, group)?;
            let installed = read_installed_in(&tx, path)?
                .and_then(|installed| installed.record)
                .map(|record| record.position);
            drop(tx);
            Ok(Some(Self {
                path: path.to_owned(),
                database,
                head,
                installed,
                bytes,
            }))
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The last entry that was applied durably.
    pub fn applied(&self) -> Option<Position> {
        self.head.position
    }

    /// The membership that was applied last.
    pub fn membership(&self) -> &Membership {
        &self.head.membership
    }

    /// The state hash that apply kept up.
    pub fn hash(&self) -> Digest {
        self.head.hash.digest()
    }

    /// Clock and counters.
    pub fn facts(&self) -> &FactsRecord {
        &self.head.facts
    }

    /// Where the snapshot stood that the state was installed from, when it came from the store.
    pub fn installed(&self) -> Option<Position> {
        self.installed
    }

    /// The records whose keys begin with `prefix`, in order, from `from` on.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn records(&self, prefix: &[u8], from: Option<&[u8]>) -> Result<StateRecords, StoreError> {
        let path = &self.path;
        guarded(path, || {
            let tx = self
                .database
                .begin_read()
                .map_err(database_error("begin a read in", path))?;
            let table = tx
                .open_table(RECORDS)
                .map_err(database_error("read", path))?;
            let range = table
                .range::<&[u8]>(from.unwrap_or(prefix)..)
                .map_err(database_error("read", path))?;
            Ok(StateRecords {
                path: path.clone(),
                prefix: prefix.to_vec(),
                range: Some(range),
            })
        })
    }

    /// The records for many looks at single ones.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn view(&self) -> Result<StateView<'_>, StoreError> {
        let path = &self.path;
        guarded(path, || {
            let tx = self
                .database
                .begin_read()
                .map_err(database_error("begin a read in", path))?;
            let table = tx
                .open_table(RECORDS)
                .map_err(database_error("read", path))?;
            Ok(StateView { path, table })
        })
    }

    /// The value of one record.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.records(key, None)?.next() {
            Some(Ok((found, value))) if found == key => Ok(Some(value)),
            Some(Err(error)) => Err(error),
            _ => Ok(None),
        }
    }

    /// One record, decoded.
    ///
    /// # Errors
    /// When the database cannot be read, or the record is not one.
    pub fn record<M: Message + Default>(&self, key: &[u8]) -> Result<Option<M>, StoreError> {
        self.get(key)?
            .map(|bytes| self.decode(key, bytes))
            .transpose()
    }

    /// The bytes of a record as what it is.
    ///
    /// # Errors
    /// When they are not one.
    pub fn decode<M: Message + Default>(&self, key: &[u8], bytes: Bytes) -> Result<M, StoreError> {
        M::decode(bytes).map_err(|e| {
            let name = hex::encode(&key[..key.len().min(64)]);
            damaged(&self.path, format!("record {name}: {e}"))
        })
    }

    /// The hash of all records by a scan of them, and how many they are.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn rehash(&self) -> Result<(Digest, u64), StoreError> {
        let (mut hash, mut count) = (StateHash::new(), 0);
        for item in self.records(&[], None)? {
            let (key, value) = item?;
            hash.add(&key, &value);
            count += 1;
        }
        Ok((hash.digest(), count))
    }

    /// The snapshots that the group has recorded, oldest first.
    ///
    /// # Errors
    /// When the database cannot be read, or a record is not one.
    pub fn snapshots(&self) -> Result<Vec<SnapshotFact>, StoreError> {
        let mut facts = Vec::new();
        for item in self.records(&[keys::SNAPSHOT], None)? {
            let (key, value) = item?;
            let fact: SnapshotFactRecord = self.decode(&key, value)?;
            let record = fact.record.ok_or_else(|| {
                damaged(&self.path, "a record of a snapshot names none".to_owned())
            })?;
            facts.push(SnapshotFact {
                record,
                recorded_us: fact.recorded_us,
                marked_us: fact.marked_us,
            });
        }
        facts.sort_by_key(|fact| (fact.record.position, fact.record.id));
        Ok(facts)
    }
}

impl StateView<'_> {
    /// The value of one record.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        guarded(self.path, || {
            let found = self
                .table
                .get(key)
                .map_err(database_error("read", self.path))?;
            let Some(found) = found else {
                return Ok(None);
            };
            let value = found.value();
            if value.len() > RECORD_BYTES_MAX {
                let detail = format!("a record of {} bytes", value.len());
                return Err(damaged(self.path, detail));
            }
            Ok(Some(Bytes::copy_from_slice(value)))
        })
    }
}

impl Iterator for StateRecords {
    type Item = Result<(Bytes, Bytes), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        // Gone after an error: nothing behind it can be trusted to end.
        let mut range = self.range.take()?;
        let path = self.path.clone();
        let read = guarded(&path, || {
            let Some(item) = range.next() else {
                return Ok(None);
            };
            let (key, value) = item.map_err(database_error("read", &path))?;
            let (key, value) = (key.value(), value.value());
            if key.len() + value.len() > RECORD_BYTES_MAX {
                return Err(damaged(
                    &path,
                    format!("a record of {} bytes", key.len() + value.len()),
                ));
            }
            if !key.starts_with(&self.prefix) {
                return Ok(None);
            }
            let read = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            Ok(Some((read, range)))
        });
        match read {
            Ok(Some((record, range))) => {
                self.range = Some(range);
                Some(Ok(record))
            }
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        }
    }
}
