//! The database of one group: its tables, what is not a record, and the swap of one database for another.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use confman_snapshot::SnapshotRecord;
use confman_snapshot::StateHash;
use confman_snapshot::model::{GroupId, Membership, MembershipMessage, Position};
use prost::Message;
use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, TableDefinition, WriteTransaction,
};

use crate::error::StoreError;
use crate::files::{crc32_of, sync_dir};
use crate::keys;
use crate::paths;
use crate::records::FactsRecord;

/// All records of the state.
pub(crate) const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
/// What a replica keeps beside them.
pub(crate) const SYSTEM: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("system");

/// The newest format of the database that this program reads and the one that it writes.
pub(crate) const FORMAT: u32 = 1;

const FORMAT_KEY: &str = "format";
const GROUP_KEY: &str = "group";
const APPLIED_KEY: &str = "applied";
const LATTICE_KEY: &str = "lattice";
const INSTALLED_KEY: &str = "installed";

const REJOIN: &str = "run `drtool set-aside` on the data directory and start the node: it rejoins from the other nodes";

/// Position and membership as they are stored.
#[derive(Clone, PartialEq, prost::Message)]
struct AppliedRecord {
    #[prost(message, optional, tag = "1")]
    position: Option<Position>,
    #[prost(message, optional, tag = "2")]
    membership: Option<MembershipMessage>,
}

/// The snapshot that a state came from.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct InstalledRecord {
    /// As it is recorded in the store; none when a peer sent it.
    #[prost(message, optional, tag = "1")]
    pub(crate) record: Option<SnapshotRecord>,
    #[prost(message, optional, tag = "2")]
    pub(crate) membership: Option<MembershipMessage>,
}

/// What a database holds beside its records, and the one record that everybody asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Head {
    pub(crate) position: Option<Position>,
    pub(crate) membership: Membership,
    pub(crate) hash: StateHash,
    pub(crate) facts: FactsRecord,
}

impl Head {
    pub(crate) fn index(&self) -> u64 {
        self.position.map_or(0, |p| p.index)
    }
}

/// A redb error with what was tried and where.
pub(crate) fn database_error<E: std::fmt::Display>(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> StoreError {
    let path = path.to_owned();
    move |error| StoreError::Database {
        operation,
        path,
        detail: error.to_string(),
    }
}

/// Whether an error says no more than that this database has failed before, which redb answers to all that comes after a failure.
pub(crate) fn only_follows(error: &str) -> bool {
    error.contains(&redb::StorageError::PreviousIo.to_string())
}

fn builder(cache_bytes: usize) -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes);
    builder
}

/// One open database file.
#[derive(Debug)]
pub(crate) struct StateDb {
    path: PathBuf,
    database: Database,
}

impl StateDb {
    /// Opens the database, or makes an empty one.
    pub(crate) fn open(
        path: &Path,
        group: &GroupId,
        cache_bytes: usize,
    ) -> Result<(Arc<Self>, Head), StoreError> {
        if !path.exists() {
            let this = Self::make(path, group, cache_bytes)?;
            return Ok((Arc::new(this), Head::default()));
        }
        let database = builder(cache_bytes)
            .open(path)
            .map_err(|e| open_error(path, &e))?;
        let this = Arc::new(Self {
            path: path.to_owned(),
            database,
        });
        let head = this.read_head(group)?;
        Ok((this, head))
    }

    /// Makes an empty database under another name and renames it: a crash leaves none, or a whole one. (A kill during
    /// redb's own first commits leaves a file that is no database.)
    fn make(path: &Path, group: &GroupId, cache_bytes: usize) -> Result<Self, StoreError> {
        let unfinished = paths::fresh(path);
        match std::fs::remove_file(&unfinished) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io("remove", &unfinished)(e));
            }
            _ => {}
        }
        let database = builder(cache_bytes)
            .create(&unfinished)
            .map_err(|e| open_error(&unfinished, &e))?;
        let this = Self {
            path: path.to_owned(),
            database,
        };
        // Durable when it is committed, and before it has its name.
        let mut tx = this.begin(Durability::Immediate)?;
        this.write_head(&mut tx, &Head::default(), group)?;
        this.commit(tx)?;
        std::fs::rename(&unfinished, path).map_err(StoreError::io("rename", &unfinished))?;
        sync_dir(path.parent().unwrap_or(Path::new(".")))?;
        Ok(this)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn begin(&self, durability: Durability) -> Result<WriteTransaction, StoreError> {
        let mut tx = self
            .database
            .begin_write()
            .map_err(database_error("begin a write in", &self.path))?;
        tx.set_durability(durability)
            .map_err(database_error("begin a write in", &self.path))?;
        if matches!(durability, Durability::Immediate) {
            // Reopening after a crash must not take time that grows with the state.
            tx.set_quick_repair(true);
        }
        Ok(tx)
    }

    pub(crate) fn commit(&self, tx: WriteTransaction) -> Result<(), StoreError> {
        tx.commit().map_err(database_error("commit to", &self.path))
    }

    /// Makes every commit so far durable.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        fail::fail_point!("store::sync", |said| Err(database_error(
            "commit to",
            &self.path
        )(
            said.unwrap_or_default()
        )));
        let tx = self.begin(Durability::Immediate)?;
        self.commit(tx)
    }

    pub(crate) fn read(&self) -> Result<redb::ReadTransaction, StoreError> {
        self.database
            .begin_read()
            .map_err(database_error("begin a read in", &self.path))
    }

    /// Writes all that is not a record.
    pub(crate) fn write_head(
        &self,
        tx: &mut WriteTransaction,
        head: &Head,
        group: &GroupId,
    ) -> Result<(), StoreError> {
        let path = &self.path;
        // Both tables exist from the first commit on, so that readers never meet a missing one.
        drop(
            tx.open_table(RECORDS)
                .map_err(database_error("write", path))?,
        );
        let mut system = tx
            .open_table(SYSTEM)
            .map_err(database_error("write", path))?;
        let lattice = head.hash.to_bytes();
        let group = group.to_string();
        let values: [(&str, &[u8]); 4] = [
            (FORMAT_KEY, &FORMAT.to_be_bytes()),
            (GROUP_KEY, group.as_bytes()),
            (APPLIED_KEY, &seal_applied(head, &lattice)),
            (LATTICE_KEY, &lattice),
        ];
        for (key, value) in values {
            system
                .insert(key, value)
                .map_err(database_error("write", path))?;
        }
        Ok(())
    }

    /// Notes which snapshot the state came from.
    pub(crate) fn write_installed(
        &self,
        tx: &mut WriteTransaction,
        installed: &InstalledRecord,
    ) -> Result<(), StoreError> {
        let mut system = tx
            .open_table(SYSTEM)
            .map_err(database_error("write", &self.path))?;
        let bytes = installed.encode_to_vec();
        system
            .insert(INSTALLED_KEY, bytes.as_slice())
            .map_err(database_error("write", &self.path))?;
        Ok(())
    }

    /// Which snapshot the state came from; none when it grew here.
    pub(crate) fn read_installed(&self) -> Result<Option<InstalledRecord>, StoreError> {
        read_installed_in(&self.read()?, &self.path)
    }

    /// Reads all that is not a record, and refuses what this program did not write.
    fn read_head(&self, group: &GroupId) -> Result<Head, StoreError> {
        read_head_in(&self.read()?, &self.path, group)
    }
}

/// Reads all that is not a record out of one read transaction.
pub(crate) fn read_head_in(
    tx: &ReadTransaction,
    path: &Path,
    group: &GroupId,
) -> Result<Head, StoreError> {
    let damaged = |detail: String| StoreError::Damaged {
        path: path.to_owned(),
        detail,
        hint: REJOIN,
    };
    let system = tx
        .open_table(SYSTEM)
        .map_err(|e| damaged(format!("no table of facts: {e}")))?;
    let get = |key: &'static str| -> Result<Vec<u8>, StoreError> {
        let value = system.get(key).map_err(database_error("read", path))?;
        value
            .map(|v| v.value().to_vec())
            .ok_or_else(|| damaged(format!("fact {key:?} is missing")))
    };
    let format: [u8; 4] = get(FORMAT_KEY)?
        .try_into()
        .map_err(|_| damaged("the format version is not a number".to_owned()))?;
    let found = u32::from_be_bytes(format);
    if found != FORMAT {
        return Err(StoreError::NewerVersion {
            path: path.to_owned(),
            found,
            newest: FORMAT,
        });
    }
    let whose = get(GROUP_KEY)?;
    if whose != group.to_string().as_bytes() {
        return Err(StoreError::Foreign {
            path: path.to_owned(),
            what: "group",
            found: String::from_utf8_lossy(&whose).into_owned(),
            expected: group.to_string(),
            hint: "put the directory of each group back under its own name",
        });
    }
    let lattice = get(LATTICE_KEY)?;
    let applied = unseal_applied(&get(APPLIED_KEY)?, &lattice).map_err(damaged)?;
    let hash = StateHash::from_bytes(&lattice).map_err(|e| damaged(e.to_string()))?;
    let records = tx
        .open_table(RECORDS)
        .map_err(|e| damaged(format!("no table of records: {e}")))?;
    let facts = records
        .get(keys::facts().as_slice())
        .map_err(database_error("read", path))?;
    let facts = match facts {
        Some(bytes) => FactsRecord::decode(bytes.value())
            .map_err(|e| damaged(format!("record of facts: {e}")))?,
        None => FactsRecord::default(),
    };
    Ok(Head {
        position: applied.position,
        membership: applied.membership.unwrap_or_default().into(),
        hash,
        facts,
    })
}

/// Which snapshot a state came from, out of one read transaction.
pub(crate) fn read_installed_in(
    tx: &ReadTransaction,
    path: &Path,
) -> Result<Option<InstalledRecord>, StoreError> {
    let system = tx
        .open_table(SYSTEM)
        .map_err(database_error("read", path))?;
    let bytes = system
        .get(INSTALLED_KEY)
        .map_err(database_error("read", path))?;
    bytes
        .map(|bytes| InstalledRecord::decode(bytes.value()))
        .transpose()
        .map_err(|e| StoreError::Damaged {
            path: path.to_owned(),
            detail: e.to_string(),
            hint: REJOIN,
        })
}

/// Position and membership with a CRC32 of them and of the hash: redb checks no page that it reads, and the hash does
/// not cover these.
fn seal_applied(head: &Head, lattice: &[u8]) -> Vec<u8> {
    let record = AppliedRecord {
        position: head.position,
        membership: Some((&head.membership).into()),
    };
    let mut bytes = record.encode_to_vec();
    bytes.extend_from_slice(&crc32_of(&[&bytes, lattice]).to_be_bytes());
    bytes
}

fn unseal_applied(bytes: &[u8], lattice: &[u8]) -> Result<AppliedRecord, String> {
    let Some((body, sum)) = bytes.split_last_chunk::<4>() else {
        return Err("the applied position is too short".to_owned());
    };
    if crc32_of(&[body, lattice]) != u32::from_be_bytes(*sum) {
        return Err("the checksum of applied position and state hash is wrong".to_owned());
    }
    AppliedRecord::decode(body).map_err(|e| format!("the applied position cannot be read: {e}"))
}

/// What redb says of a file that it cannot open.
pub(crate) fn open_error(path: &Path, error: &redb::DatabaseError) -> StoreError {
    use redb::{DatabaseError, StorageError};
    let io_kind = match error {
        DatabaseError::Storage(StorageError::Io(e)) => Some(e.kind()),
        _ => None,
    };
    match (error, io_kind) {
        (DatabaseError::DatabaseAlreadyOpen, _) => StoreError::InUse {
            path: path.to_owned(),
            holder: "this or another process".to_owned(),
        },
        // redb reports bytes that are no database as invalid data.
        (_, Some(std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof))
        | (DatabaseError::Storage(StorageError::Corrupted(_)) | DatabaseError::RepairAborted, _) => {
            StoreError::Damaged {
                path: path.to_owned(),
                detail: error.to_string(),
                hint: REJOIN,
            }
        }
        _ => StoreError::Database {
            operation: "open",
            path: path.to_owned(),
            detail: error.to_string(),
        },
    }
}
