//! The part of a replica that everybody reads from.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use confman_snapshot::model::{ClusterId, GroupId, Membership, Position};
use confman_snapshot::view::{Record, SnapshotInfo, StateView};
use confman_snapshot::{BoxError, SnapshotRecord};
use confman_snapshot::{Digest, StateHash};
use parking_lot::{Mutex, RwLock};
use redb::{ReadableTable, ReadableTableMetadata};
use tokio::sync::watch;

use super::db::{Head, RECORDS, StateDb, database_error, only_follows};
use super::read::Reader;
use crate::apply::{Hashes, Remembered};
use crate::command::SnapshotVerified;
use crate::error::StoreError;
use crate::log::LogStats;
use crate::paths::GroupPaths;
use crate::snapshot::Offer;

/// Reads of what this replica has applied. Cheap to clone; no writes.
///
/// Every call is one short read transaction: a long one keeps old pages of the database alive. Calls block for as
/// long as the disk takes, mostly not at all: the pages are cached.
#[derive(Clone)]
pub struct StateHandle {
    shared: Arc<Shared>,
}

/// What is known of a replica without asking the database.
#[derive(Debug, Clone, PartialEq)]
pub struct StateStats {
    /// The last entry applied.
    pub applied: Option<Position>,
    /// Digest of the state hash at that entry.
    pub state_hash: Digest,
    /// The group's clock: when the last command was applied.
    pub last_time_us: i64,
    /// Entries applied after the position of the last recorded snapshot.
    pub entries_since_snapshot: u64,
    /// Bytes of commands applied since the last snapshot was recorded.
    pub bytes_since_snapshot: u64,
    /// See [`crate::records::FactsRecord`].
    pub may_be_undone: bool,
    /// The newest recorded snapshot, by position.
    pub last_snapshot: Option<SnapshotRecord>,
    /// The members as of the last entry applied.
    pub membership: Membership,
    /// Commands ever applied.
    pub commands: u64,
}

/// What the parts of one replica share.
pub(crate) struct Shared {
    pub(crate) paths: GroupPaths,
    pub(crate) cluster: ClusterId,
    pub(crate) cache_bytes: usize,
    database: RwLock<Arc<StateDb>>,
    head: RwLock<Arc<Visible>>,
    applied: watch::Sender<u64>,
    durable: Mutex<Option<Position>>,
    log: Mutex<LogStats>,
    pub(crate) prefer_local: AtomicBool,
    gaps_allowed: AtomicBool,
    local: Mutex<Option<Offer>>,
    failed: Mutex<Option<String>>,
    /// Held while a batch is applied.
    pub(crate) hashes: Mutex<Hashes>,
}

/// What was committed last.
pub(crate) struct Visible {
    pub(crate) head: Head,
    pub(crate) digest: Digest,
    pub(crate) last_snapshot: Option<SnapshotRecord>,
}

impl Shared {
    pub(crate) fn open(
        paths: GroupPaths,
        cluster: ClusterId,
        cache_bytes: usize,
    ) -> Result<Arc<Self>, StoreError> {
        let (database, head) = StateDb::open(&paths.state(), paths.group(), cache_bytes)?;
        let visible = Self::visible(&database, head)?;
        let (applied, _) = watch::channel(visible.head.index());
        Ok(Arc::new(Self {
            cluster,
            cache_bytes,
            durable: Mutex::new(visible.head.position),
            database: RwLock::new(database),
            head: RwLock::new(Arc::new(visible)),
            applied,
            log: Mutex::new(LogStats::default()),
            prefer_local: AtomicBool::new(false),
            gaps_allowed: AtomicBool::new(false),
            local: Mutex::new(None),
            failed: Mutex::new(None),
            hashes: Mutex::default(),
            paths,
        }))
    }

    fn visible(database: &StateDb, head: Head) -> Result<Visible, StoreError> {
        let last_snapshot = Reader::new(database)?
            .newest_snapshot()?
            .and_then(|fact| fact.record);
        Ok(Visible {
            digest: head.hash.digest(),
            head,
            last_snapshot,
        })
    }

    pub(crate) fn group(&self) -> &GroupId {
        self.paths.group()
    }

    pub(crate) fn database(&self) -> Arc<StateDb> {
        self.database.read().clone()
    }

    pub(crate) fn current(&self) -> Arc<Visible> {
        self.head.read().clone()
    }

    /// Shows what was just committed.
    pub(crate) fn publish(&self, visible: Visible) {
        let index = visible.head.index();
        *self.head.write() = Arc::new(visible);
        self.applied.send_replace(index);
    }

    /// Puts a whole other database in the place of this one; readers in flight end on the old one.
    pub(crate) fn swap(&self, database: Arc<StateDb>, head: Head) -> Result<(), StoreError> {
        let visible = Self::visible(&database, head)?;
        let position = visible.head.position;
        *self.database.write() = database;
        *self.durable.lock() = position;
        self.publish(visible);
        Ok(())
    }

    /// The last position that a crash cannot take back.
    pub(crate) fn durable(&self) -> Option<Position> {
        *self.durable.lock()
    }

    /// Makes what is applied durable. Blocks for the time of a few fsyncs. Where that fails nothing is applied any more, whoever asked: the
    /// database takes nothing after it, and says from then on only that something has failed before.
    pub(crate) fn flush(&self) -> Result<Option<Position>, StoreError> {
        // Read before the commit: what is visible now is committed, and the commit below makes it durable.
        let position = self.current().head.position;
        let database = self.database();
        if self.durable() >= position {
            return Ok(position);
        }
        database.sync().inspect_err(|error| self.fail(error))?;
        let mut durable = self.durable.lock();
        // A state may have been installed meanwhile; it is durable by itself, and never older.
        if *durable < position {
            *durable = position;
        }
        Ok(*durable)
    }

    /// Makes what is applied durable unless it is already as far as `index`.
    pub(crate) fn flush_past(&self, index: u64) -> Result<Option<Position>, StoreError> {
        match self.durable() {
            Some(durable) if durable.index >= index => Ok(Some(durable)),
            _ => self.flush(),
        }
    }

    /// Whether entries may be applied with gaps between: openraft's suite does so, Raft never.
    pub(crate) fn gaps_allowed(&self) -> bool {
        cfg!(test) && self.gaps_allowed.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn allow_gaps(&self) {
        self.gaps_allowed.store(true, Ordering::Relaxed);
    }

    /// The last index that the log has purged.
    pub(crate) fn purged_index(&self) -> Option<u64> {
        self.log.lock().purged.map(|p| p.index)
    }

    pub(crate) fn local_offer(&self) -> Option<Offer> {
        self.local.lock().clone()
    }

    pub(crate) fn set_local_offer(&self, offer: Option<Offer>) {
        *self.local.lock() = offer;
    }

    /// From now on nothing is applied. The first failure is kept: what follows from it says less. Who meets only what follows may be here
    /// before who met the failure itself.
    pub(crate) fn fail(&self, error: &impl std::fmt::Display) {
        let error = error.to_string();
        let mut failed = self.failed.lock();
        let says_more = |known| only_follows(known) && !only_follows(&error);
        if failed.as_deref().is_none_or(says_more) {
            tracing::error!(group = %self.group(), error, "this replica stops applying");
            *failed = Some(error);
        }
    }

    /// The log could not be written, or not made durable.
    pub(crate) fn fail_log(&self, error: &std::io::Error) {
        let log = self.paths.log();
        self.fail(&format!("write the log in {}: {error}", log.display()));
    }

    pub(crate) fn check_alive(&self) -> Result<(), StoreError> {
        match &*self.failed.lock() {
            Some(error) => Err(StoreError::Internal(error.clone())),
            None => Ok(()),
        }
    }

    pub(crate) fn set_log_stats(&self, stats: LogStats) {
        *self.log.lock() = stats;
    }
}

impl StateHandle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The group.
    pub fn group(&self) -> &GroupId {
        self.shared.group()
    }

    /// Why nothing is applied any more, in the words of what failed first; none while all is well.
    pub fn failure(&self) -> Option<String> {
        self.shared.failed.lock().clone()
    }

    pub(crate) fn reader(&self) -> Result<Reader, StoreError> {
        Reader::new(&self.shared.database())
    }

    /// What is known without asking the database.
    pub fn stats(&self) -> StateStats {
        let now = self.shared.current();
        let since = now.last_snapshot.as_ref().map_or(0, |s| s.position.index);
        StateStats {
            applied: now.head.position,
            state_hash: now.digest,
            last_time_us: now.head.facts.last_time_us,
            entries_since_snapshot: now.head.index().saturating_sub(since),
            bytes_since_snapshot: now.head.facts.bytes_since_snapshot,
            may_be_undone: now.head.facts.may_be_undone,
            last_snapshot: now.last_snapshot.clone(),
            membership: now.head.membership.clone(),
            commands: now.head.facts.commands,
        }
    }

    /// The group's clock: when the last command was applied, microseconds since the epoch, UTC.
    pub fn last_time_us(&self) -> i64 {
        self.shared.current().head.facts.last_time_us
    }

    /// When the first command was applied; none before that.
    pub fn first_time_us(&self) -> Option<i64> {
        let now = self.shared.current();
        let facts = &now.head.facts;
        (facts.commands > 0).then_some(facts.first_time_us)
    }

    /// The last entry applied.
    pub fn applied(&self) -> Option<Position> {
        self.shared.current().head.position
    }

    /// This replica's own state hash at one of its recent positions; none when it does not remember. Waits while a
    /// batch is applied.
    pub fn hash_at(&self, index: u64) -> Option<Digest> {
        self.shared.hashes.lock().at(index)
    }

    /// What this replica remembers of its own state hash at a position, farther back than [`StateHandle::hash_at`]; none when
    /// nothing. Waits while a batch is applied.
    pub fn remembered_at(&self, index: u64) -> Option<Remembered> {
        self.shared.hashes.lock().remembered(index)
    }

    /// Changes whenever entries have been applied; the value is the index of the last.
    pub fn applied_watch(&self) -> watch::Receiver<u64> {
        self.shared.applied.subscribe()
    }

    /// The last position that a crash of this node cannot take back.
    pub fn durable(&self) -> Option<Position> {
        self.shared.durable()
    }

    /// Makes what is applied durable and says up to where. Blocks for the time of a few fsyncs.
    ///
    /// # Errors
    /// When the database cannot be written: then nothing is applied any more.
    pub fn flush_durable(&self) -> Result<Option<Position>, StoreError> {
        self.shared.flush()
    }

    /// The snapshot that this state came from, when the group has recorded neither it nor a newer one: its own entry came
    /// after it, and a cluster that was restored from it has that entry no more. None for a state of another origin.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn unrecorded_origin(&self) -> Result<Option<SnapshotVerified>, StoreError> {
        let Some(installed) = self.shared.database().read_installed()? else {
            return Ok(None);
        };
        let Some(record) = installed.record else {
            return Ok(None);
        };
        let newest = self.stats().last_snapshot.map(|newest| newest.position);
        if newest >= Some(record.position) || record.cluster_uuid != self.shared.cluster.uuid {
            return Ok(None);
        }
        Ok(Some(SnapshotVerified {
            record: Some(record),
            membership: installed.membership,
        }))
    }

    /// The log beside this state.
    pub fn log_stats(&self) -> LogStats {
        self.shared.log.lock().clone()
    }

    /// Whether snapshots for other replicas are built as local files from now on; see [`crate::StateMachine`].
    pub fn prefers_local(&self) -> bool {
        self.shared.prefer_local.load(Ordering::Relaxed)
    }

    /// The state as it is now, for a snapshot: facts, and all records from one read transaction. The database file
    /// grows with every write as long as the view is held (26 MB became 514 MB in 96,000 updates, tried).
    ///
    /// # Errors
    /// When nothing was applied yet, or the database cannot be read.
    pub fn open_view(&self, created_us: i64) -> Result<StateView, StoreError> {
        match self.open_any_view(created_us)? {
            (view, Some(_)) => Ok(view),
            (_, None) => Err(StoreError::Internal("nothing was applied yet".to_owned())),
        }
    }

    /// As [`StateHandle::open_view`], also of a state that nothing was applied to; with the position that it really has.
    pub(crate) fn open_any_view(
        &self,
        created_us: i64,
    ) -> Result<(StateView, Option<Position>), StoreError> {
        let database = self.shared.database();
        let tx = database.read()?;
        // Position and hash come out of the same transaction as the records.
        let head = super::db::read_head_in(&tx, database.path(), self.group())?;
        let table = tx
            .open_table(RECORDS)
            .map_err(database_error("read", database.path()))?;
        let range = table
            .range::<&[u8]>(..)
            .map_err(database_error("read", database.path()))?;
        let records = range.map(|item| -> Result<Record, BoxError> {
            let (key, value) = item?;
            Ok((
                Bytes::copy_from_slice(key.value()),
                Bytes::copy_from_slice(value.value()),
            ))
        });
        let info = SnapshotInfo {
            cluster: self.shared.cluster.clone(),
            group: self.group().clone(),
            position: head.position.unwrap_or_default(),
            membership: head.membership,
            state_hash: head.hash,
            created_us,
            first_time_us: head.facts.first_time_us,
            last_time_us: head.facts.last_time_us,
        };
        let view = StateView {
            info,
            records: Box::new(records),
        };
        Ok((view, head.position))
    }

    /// Hashes all records and compares with the hash that apply kept: (position, kept, found). Reads the whole state.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn rehash(&self) -> Result<(Option<Position>, Digest, Digest), StoreError> {
        let database = self.shared.database();
        let tx = database.read()?;
        let head = super::db::read_head_in(&tx, database.path(), self.group())?;
        let table = tx
            .open_table(RECORDS)
            .map_err(database_error("read", database.path()))?;
        let mut hash = StateHash::new();
        for item in table
            .iter()
            .map_err(database_error("read", database.path()))?
        {
            let (key, value) = item.map_err(database_error("read", database.path()))?;
            hash.add(key.value(), value.value());
        }
        Ok((head.position, head.hash.digest(), hash.digest()))
    }

    /// How many records there are of all kinds.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn count_records(&self) -> Result<u64, StoreError> {
        let database = self.shared.database();
        let tx = database.read()?;
        let table = tx
            .open_table(RECORDS)
            .map_err(database_error("read", database.path()))?;
        table.len().map_err(database_error("read", database.path()))
    }
}

impl std::fmt::Debug for StateHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateHandle")
            .field("group", self.group())
            .finish_non_exhaustive()
    }
}
