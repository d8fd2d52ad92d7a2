//! A whole state from a snapshot, proven before the old one is touched.
//!
//! The new database is built beside the old one, in memory bounded by a few chunks. Only when the stream has proven
//! its counts and its state hash, and the database is synced, is it renamed into place. Crash points: before the
//! rename the old state is there (and a file that the next start removes), after it the new one; there is no third.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use confman_snapshot::model::{GroupId, Membership, Position};
use confman_snapshot::view::Record;
use confman_snapshot::{Digest, StateHash};
use confman_snapshot::{LocalFiles, RecordStream, SnapshotReader, SnapshotRecord};
use prost::Message;
use redb::{Durability, ReadableTableMetadata, WriteTransaction};

use crate::error::StoreError;
use crate::files::sync_dir;
use crate::keys;
use crate::log::LogStore;
use crate::paths::{self, GroupPaths};
use crate::records::FactsRecord;
use crate::snapshot::LocalSnapshot;
use crate::state::{Head, InstalledRecord, RECORDS, Shared, StateDb, database_error};
use crate::wire::WireVote;

/// Bytes of records after which a transaction is committed.
const COMMIT_BYTES: usize = 32 * 1024 * 1024;
/// Memory for pages while a state is built offline.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// What was installed.
#[derive(Debug, Clone, PartialEq)]
pub struct InstallReport {
    /// The position of the state.
    pub position: Position,
    /// How many records.
    pub records: u64,
    /// Their bytes, keys and values.
    pub bytes: u64,
    /// The proven state hash.
    pub state_hash: Digest,
    /// How long it took.
    pub seconds: f64,
}

/// Installs a state into the empty directory of a group, offline: builds the database, proves it, puts it in place,
/// and makes the log begin after `position`. `membership` is the one that the group has from then on; for a node that
/// joins, the manifest's. `record` is the snapshot's record when it came from the store: the replica shows it to
/// openraft as its own. What an earlier call left behind unfinished is removed.
///
/// # Errors
/// [`StoreError`] when the stream fails or does not prove, the disk fails, or the group already has a state and a log.
/// Nothing usable is left behind then.
pub async fn install_state(
    paths: &GroupPaths,
    stream: RecordStream,
    position: Position,
    membership: Membership,
    record: Option<&SnapshotRecord>,
) -> Result<InstallReport, StoreError> {
    // As the leader that wrote the last entry left it.
    let vote = WireVote {
        term: position.term,
        node: position.node,
        committed: true,
    };
    install(paths, stream, (position, vote), membership, record).await
}

/// As [`install_state`], for a node that is to begin a new life of the cluster with others: `members` are the members
/// from the snapshot's position on, all of them voters, and the node's vote is (`term`, itself), not granted, so that it
/// stands for election by itself. `term` is above every one that an older life can have used; see [`crate::surgery`].
///
/// # Errors
/// As [`install_state`].
pub async fn install_ordered(
    paths: &GroupPaths,
    stream: RecordStream,
    record: &SnapshotRecord,
    members: Membership,
    (term, node): (u64, u64),
) -> Result<InstallReport, StoreError> {
    let vote = WireVote {
        term,
        node,
        committed: false,
    };
    let begin = (record.position, vote);
    install(paths, stream, begin, members, Some(record)).await
}

async fn install(
    paths: &GroupPaths,
    stream: RecordStream,
    (position, vote): (Position, WireVote),
    membership: Membership,
    record: Option<&SnapshotRecord>,
) -> Result<InstallReport, StoreError> {
    if paths.state().exists() && paths.log().exists() {
        return Err(StoreError::Foreign {
            path: paths.dir().to_owned(),
            what: "the directory of the group",
            found: "a state and a log".to_owned(),
            expected: "nothing".to_owned(),
            hint: "set the data directory aside before a state is installed in it",
        });
    }
    std::fs::create_dir_all(paths.dir()).map_err(StoreError::io("create", paths.dir()))?;
    // Half of an installation: the log comes last.
    remove_unfinished(paths)?;
    remove_if_there(&paths.state())?;
    let installed = InstalledRecord {
        record: record.cloned(),
        membership: Some((&membership).into()),
    };
    let (database, _, report) =
        build(paths, stream, position, membership, installed, CACHE_BYTES).await?;
    let paths = paths.clone();
    let finish = move || -> Result<(), StoreError> {
        put_in_place(&paths)?;
        drop(database);
        let unfinished = paths.log_new();
        let log = LogStore::open(&unfinished, CACHE_BYTES, None, paths.group().to_string())?;
        log.begin_after(&position, vote)?;
        drop(log);
        sync_dir(&unfinished)?;
        std::fs::rename(&unfinished, paths.log()).map_err(StoreError::io("rename", &unfinished))?;
        sync_dir(paths.dir())?;
        sync_dir(paths.dir().parent().unwrap_or(paths.dir()))
    };
    run_blocking(finish).await?;
    Ok(report)
}

/// Puts a state in the place of the one that is being read and applied to. The caller applies nothing meanwhile.
pub(crate) async fn replace_state(
    shared: &Arc<Shared>,
    stream: RecordStream,
    position: Position,
    membership: Membership,
    record: Option<SnapshotRecord>,
) -> Result<InstallReport, StoreError> {
    let installed = InstalledRecord {
        record,
        membership: Some((&membership).into()),
    };
    let (database, head, report) = build(
        &shared.paths,
        stream,
        position,
        membership,
        installed,
        shared.cache_bytes,
    )
    .await?;
    let shared = shared.clone();
    run_blocking(move || {
        put_in_place(&shared.paths)?;
        shared.swap(database, head)
    })
    .await?;
    Ok(report)
}

/// The records of a local snapshot file.
pub(crate) async fn open_local(local: &LocalSnapshot) -> Result<RecordStream, StoreError> {
    let object = "local";
    let reader =
        SnapshotReader::open(Arc::new(LocalFiles::one(object, local.path())), object).await?;
    Ok(reader.records(1))
}

/// Removes what a crash left of an installation.
pub(crate) fn remove_unfinished(paths: &GroupPaths) -> Result<(), StoreError> {
    for path in [paths.state_new(), paths.state()] {
        remove_if_there(&paths::fresh(&path))?;
    }
    remove_if_there(&paths.state_new())?;
    match std::fs::remove_dir_all(paths.log_new()) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", paths.log_new())(e))
        }
        _ => Ok(()),
    }
}

fn remove_if_there(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", path)(e))
        }
        _ => Ok(()),
    }
}

fn put_in_place(paths: &GroupPaths) -> Result<(), StoreError> {
    fail::fail_point!("store::before-swap");
    std::fs::rename(paths.state_new(), paths.state())
        .map_err(StoreError::io("replace", paths.state()))?;
    fail::fail_point!("store::after-swap");
    sync_dir(paths.dir())
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| StoreError::Internal(e.to_string()))?
}

/// What the writer is told.
enum Step {
    Chunk(Vec<Record>),
    Proven { hash: StateHash, records: u64 },
}

/// Builds the new database beside the old one and proves it; on any error it is removed again.
async fn build(
    paths: &GroupPaths,
    mut stream: RecordStream,
    position: Position,
    membership: Membership,
    installed: InstalledRecord,
    cache_bytes: usize,
) -> Result<(Arc<StateDb>, Head, InstallReport), StoreError> {
    let began = Instant::now();
    check(paths, &stream, &position)?;
    let path = paths.state_new();
    remove_if_there(&path)?;
    let (steps, mut received) = tokio::sync::mpsc::channel(1);
    let group = paths.group().clone();
    let writing_path = path.clone();
    let writer = tokio::task::spawn_blocking(move || {
        let mut building = Building::begin(&writing_path, group, cache_bytes)?;
        while let Some(step) = received.blocking_recv() {
            match step {
                Step::Chunk(records) => building.add(&records)?,
                Step::Proven { hash, records } => {
                    return building
                        .finish(position, membership, &installed, hash, records)
                        .map(Some);
                }
            }
        }
        Ok::<_, StoreError>(None)
    });
    let fed = feed(&mut stream, steps).await;
    let written = writer
        .await
        .map_err(|e| StoreError::Internal(e.to_string()))?;
    // A failed writer closes its channel, and only it knows why.
    let result = match (fed, written) {
        (_, Err(error)) | (Err(error), _) => Err(error),
        (Ok(()), Ok(Some(built))) => Ok(built),
        (Ok(()), Ok(None)) => Err(StoreError::Internal(
            "the snapshot was not proven".to_owned(),
        )),
    };
    match result {
        Ok((database, head, records, bytes)) => {
            let seconds = began.elapsed().as_secs_f64();
            let report = InstallReport {
                position,
                records,
                bytes,
                state_hash: head.hash.digest(),
                seconds,
            };
            Ok((database, head, report))
        }
        Err(error) => {
            remove_if_there(&path)?;
            Err(error)
        }
    }
}

fn check(paths: &GroupPaths, stream: &RecordStream, position: &Position) -> Result<(), StoreError> {
    let manifest = stream.manifest();
    let foreign = |what, found: String, expected: String| StoreError::Foreign {
        path: paths.state(),
        what,
        found,
        expected,
        hint: "this is the snapshot of something else: choose another one",
    };
    if manifest.group != *paths.group() {
        return Err(foreign(
            "the group of the snapshot",
            manifest.group.to_string(),
            paths.group().to_string(),
        ));
    }
    if manifest.position != *position {
        return Err(foreign(
            "the position of the snapshot",
            manifest.position.to_string(),
            position.to_string(),
        ));
    }
    Ok(())
}

async fn feed(
    stream: &mut RecordStream,
    steps: tokio::sync::mpsc::Sender<Step>,
) -> Result<(), StoreError> {
    let closed = |_| StoreError::Internal("the writer of the new state has stopped".to_owned());
    while let Some(records) = stream.next_chunk().await? {
        steps.send(Step::Chunk(records)).await.map_err(closed)?;
    }
    let manifest = stream.manifest();
    let hash = manifest
        .state_hash()
        .map_err(|e| StoreError::Internal(e.to_string()))?;
    steps
        .send(Step::Proven {
            hash,
            records: manifest.records,
        })
        .await
        .map_err(closed)
}

/// A database that is being filled.
struct Building {
    /// The transaction that is being filled, with how many bytes of records are in it. Before its database, which it must not outlive.
    writing: Option<(WriteTransaction, usize)>,
    database: Arc<StateDb>,
    group: GroupId,
    records: u64,
    bytes: u64,
    facts: FactsRecord,
}

impl Building {
    fn begin(path: &Path, group: GroupId, cache_bytes: usize) -> Result<Self, StoreError> {
        let (database, _) = StateDb::open(path, &group, cache_bytes)?;
        Ok(Self {
            writing: None,
            database,
            group,
            records: 0,
            bytes: 0,
            facts: FactsRecord::default(),
        })
    }

    fn add(&mut self, records: &[Record]) -> Result<(), StoreError> {
        let path = self.database.path().to_owned();
        let (tx, mut tx_bytes) = match self.writing.take() {
            Some(writing) => writing,
            None => (self.database.begin(Durability::None)?, 0),
        };
        let facts = keys::facts();
        {
            let mut table = tx
                .open_table(RECORDS)
                .map_err(database_error("write", &path))?;
            for (key, value) in records {
                if *key == facts {
                    self.facts = FactsRecord::decode(value.as_ref()).map_err(|e| {
                        StoreError::Internal(format!("the snapshot's record of facts: {e}"))
                    })?;
                }
                table
                    .insert(key.as_ref(), value.as_ref())
                    .map_err(database_error("write", &path))?;
                tx_bytes += key.len() + value.len();
                self.records += 1;
                self.bytes += (key.len() + value.len()) as u64;
            }
        }
        self.writing = Some((tx, tx_bytes));
        if tx_bytes < COMMIT_BYTES {
            return Ok(());
        }
        self.commit()
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        match self.writing.take() {
            Some((tx, _)) => self.database.commit(tx),
            None => Ok(()),
        }
    }

    fn finish(
        mut self,
        position: Position,
        membership: Membership,
        installed: &InstalledRecord,
        hash: StateHash,
        records: u64,
    ) -> Result<(Arc<StateDb>, Head, u64, u64), StoreError> {
        self.commit()?;
        let path = self.database.path().to_owned();
        let head = Head {
            position: Some(position),
            membership,
            hash,
            facts: self.facts,
        };
        let mut tx = self.database.begin(Durability::Immediate)?;
        {
            let table = tx
                .open_table(RECORDS)
                .map_err(database_error("read", &path))?;
            let found = table.len().map_err(database_error("read", &path))?;
            if found != records {
                return Err(StoreError::Internal(format!(
                    "{found} records were written of {records} in the snapshot"
                )));
            }
        }
        self.database.write_head(&mut tx, &head, &self.group)?;
        self.database.write_installed(&mut tx, installed)?;
        self.database.commit(tx)?;
        Ok((self.database, head, self.records, self.bytes))
    }
}
