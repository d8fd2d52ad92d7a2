//! The state machine of one group, as openraft drives it.
//!
//! Entries are applied in batches: one write transaction holds what they change, the applied position, the
//! membership and the state hash; their proposers are answered when it is committed. The transaction is not durable by
//! itself: a thread makes the state durable about every second, and purging the log does before it begins. After a
//! crash openraft applies again what was lost.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::{FutureExt, Stream, StreamExt};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftStateMachine};
use parking_lot::{Condvar, Mutex};
use prost::Message;
use redb::Durability;

use crate::apply::{Hashes, Tx, apply_command};
use crate::command::{Command, Op, Outcome, SnapshotVerified};
use crate::convert;
use crate::diverged;
use crate::error::StoreError;
use crate::install;
use crate::snapshot::{SnapshotBuilder, SnapshotHandle, current};
use crate::state::{Reader, Shared, Visible};
use crate::types::{
    Entry, EntryPayload, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig,
};

/// Entries in one transaction, at most.
const BATCH_ENTRIES_MAX: usize = 256;
/// Bytes of commands in one transaction, more or less at most.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The state machine of one group, as openraft drives it.
pub struct StateMachine {
    shared: Arc<Shared>,
    metrics: Metrics,
    /// Last: dropping it makes the state durable.
    _flusher: Flusher,
}

#[derive(Clone)]
struct Metrics {
    seconds: metrics::Histogram,
    entries: metrics::Counter,
}

impl std::fmt::Debug for StateMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateMachine")
            .field("group", self.shared.group())
            .finish_non_exhaustive()
    }
}

impl StateMachine {
    pub(crate) fn new(shared: Arc<Shared>, flush_interval: Duration) -> Result<Self, StoreError> {
        let group = shared.group().to_string();
        let metrics = Metrics {
            seconds: metrics::histogram!("confman_apply_seconds", "group" => group.clone()),
            entries: metrics::counter!("confman_applied_entries_total", "group" => group),
        };
        let flusher = Flusher::start(shared.clone(), flush_interval)?;
        Ok(Self {
            shared,
            metrics,
            _flusher: flusher,
        })
    }

    /// Applies entries in one transaction and gives back the answers that their proposers would get.
    #[cfg(test)]
    pub(crate) fn apply_now(&self, entries: Vec<Entry>) -> Result<Vec<Outcome>, StoreError> {
        apply_batch(&self.shared, entries)
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What may be told to the machine after openraft has taken it.
    pub fn control(&self) -> StateMachineControl {
        StateMachineControl {
            shared: self.shared.clone(),
        }
    }
}

/// What may be told to a state machine that openraft has taken.
#[derive(Clone)]
pub struct StateMachineControl {
    shared: Arc<Shared>,
}

impl StateMachineControl {
    /// With `true`, snapshots are built as local files from now on, even where one is recorded in the store: for a
    /// follower that cannot reach the store. Have openraft build one after it. With `false`, the local file goes.
    pub fn prefer_local(&self, yes: bool) {
        self.shared.prefer_local.store(yes, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for StateMachineControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateMachineControl")
            .field("group", self.shared.group())
            .finish()
    }
}

/// Applies entries in one transaction; the answers are for after it. A state that turns out to differ is written down
/// before anybody hears of it: a restart must not forget it.
fn apply_batch(shared: &Shared, entries: Vec<Entry>) -> Result<Vec<Outcome>, StoreError> {
    let applied = apply_entries(shared, entries);
    if let Err(StoreError::StateMismatch(mismatch)) = &applied {
        metrics::counter!("confman_state_hash_mismatches_total", "group" => mismatch.group.to_string())
            .increment(1);
        diverged::write(&shared.paths, mismatch)?;
    }
    applied
}

fn apply_entries(shared: &Shared, entries: Vec<Entry>) -> Result<Vec<Outcome>, StoreError> {
    shared.check_alive()?;
    let group = shared.group();
    // For tests of a state that is behind its log.
    fail::fail_point!("store::apply-meta", group.is_meta(), |_| Ok(Vec::new()));
    let database = shared.database();
    let before = shared.current();
    let mut head = before.head.clone();
    let mut digest = before.digest;
    let mut hashes = shared.hashes.lock();
    let mut tx = database.begin(Durability::None)?;
    let mut outcomes = Vec::with_capacity(entries.len());
    let snapshots_changed;
    {
        let mut state = Tx::new(&tx, database.path(), head.hash.clone(), head.facts.clone())?;
        for entry in entries {
            let position = convert::position(&entry.log_id);
            if let Some(last) = head.position
                && position.index != last.index + 1
                && !shared.gaps_allowed()
            {
                let detail = format!("the entry applied before it is {last}");
                return Err(StoreError::Undecodable {
                    group: group.clone(),
                    position,
                    detail,
                });
            }
            let outcome = match &entry.payload {
                EntryPayload::Blank => Outcome::default(),
                EntryPayload::Membership(membership) => {
                    head.membership =
                        convert::membership_message(Some(position), membership).into();
                    Outcome::default()
                }
                EntryPayload::Normal(command) => {
                    note_uncompared(command, &hashes);
                    let outcome = apply_command(&mut state, group, position, command, &hashes)?;
                    digest = state.hash().digest();
                    outcome
                }
            };
            hashes.remember(position.index, digest);
            head.position = Some(position);
            outcomes.push(outcome);
        }
        snapshots_changed = state.snapshots_changed;
        (head.hash, head.facts) = state.finish()?;
    }
    database.write_head(&mut tx, &head, group)?;
    fail::fail_point!("store::before-commit");
    database.commit(tx)?;
    fail::fail_point!("store::after-commit");
    let last_snapshot = if snapshots_changed {
        Reader::new(&database)?
            .newest_snapshot()?
            .and_then(|fact| fact.record)
    } else {
        before.last_snapshot.clone()
    };
    shared.publish(Visible {
        head,
        digest,
        last_snapshot,
    });
    Ok(outcomes)
}

/// Says that a recorded state hash could not be compared with this replica's own, because that is not remembered: it was
/// restarted since, or more entries went by than it keeps in mind.
fn note_uncompared(command: &Command, hashes: &Hashes) {
    let Some(Op::SnapshotVerified(SnapshotVerified {
        record: Some(record),
        ..
    })) = &command.op
    else {
        return;
    };
    if hashes.remembered(record.position.index).is_none() {
        metrics::counter!("confman_state_hash_not_compared_total", "group" => record.group.to_string())
            .increment(1);
        tracing::info!(
            group = %record.group, snapshot = %record.id, index = record.position.index,
            "the recorded state hash is not compared: this replica does not remember its own there"
        );
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotHandle;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let now = self.shared.current();
        let membership =
            convert::stored_membership(&now.head.membership).map_err(io::Error::other)?;
        Ok((now.head.position.as_ref().map(convert::log_id), membership))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut ended = false;
        while !ended {
            let mut batch = Vec::new();
            let mut responders = Vec::new();
            let mut bytes = 0;
            let mut next = entries.next().await;
            loop {
                let Some(item) = next else {
                    ended = true;
                    break;
                };
                let (entry, responder) = item?;
                if let EntryPayload::Normal(command) = &entry.payload {
                    bytes += command.encoded_len();
                }
                batch.push(entry);
                responders.push(responder);
                if batch.len() >= BATCH_ENTRIES_MAX || bytes >= BATCH_BYTES_MAX {
                    break;
                }
                // Only what is there already: nobody waits for a batch to fill.
                match entries.next().now_or_never() {
                    Some(item) => next = item,
                    None => break,
                }
            }
            if batch.is_empty() {
                break;
            }
            let began = Instant::now();
            let count = batch.len() as u64;
            let shared = self.shared.clone();
            // Off the runtime's threads: a durable commit in the background can hold the database for a while.
            let outcomes = tokio::task::spawn_blocking(move || apply_batch(&shared, batch))
                .await
                .map_err(|e| {
                    io::Error::other(format!("apply of {} panicked: {e}", self.shared.group()))
                })?
                // Raft may hear first of what only follows from this.
                .inspect_err(|error| self.shared.fail(error))?;
            self.metrics.seconds.record(began.elapsed());
            self.metrics.entries.increment(count);
            for (responder, outcome) in responders.into_iter().zip(outcomes) {
                if let Some(responder) = responder {
                    responder.send(outcome);
                }
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder::new(self.shared.clone())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotHandle,
    ) -> Result<(), io::Error> {
        let (stream, record) = match snapshot {
            SnapshotHandle::Incoming(incoming) => {
                let stream = incoming
                    .take()
                    .ok_or_else(|| io::Error::other("the snapshot was taken before"))?;
                (stream, incoming.record().cloned())
            }
            SnapshotHandle::Local(local) => {
                let stream = install::open_local(&local).await?;
                (stream, None)
            }
            SnapshotHandle::Recorded(record) => {
                let text = format!(
                    "snapshot {} was not fetched before it was to be installed",
                    record.id
                );
                return Err(io::Error::other(text));
            }
        };
        let position = meta.last_log_id.as_ref().map(convert::position);
        let position = position.ok_or_else(|| io::Error::other("a snapshot without a position"))?;
        let membership = convert::membership(&meta.last_membership);
        let installed =
            install::replace_state(&self.shared, stream, position, membership, record).await?;
        let mut hashes = self.shared.hashes.lock();
        hashes.clear();
        hashes.remember(position.index, installed.state_hash);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(current(&self.shared).await?)
    }
}

/// The thread that makes the state durable.
struct Flusher {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Flusher {
    fn start(shared: Arc<Shared>, interval: Duration) -> Result<Self, StoreError> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let theirs = stop.clone();
        let path = shared.paths.state();
        let run = move || {
            let (stopped, changed) = &*theirs;
            loop {
                let mut stopped = stopped.lock();
                if !*stopped {
                    changed.wait_for(&mut stopped, interval);
                }
                let last = *stopped;
                drop(stopped);
                if shared.flush().is_err() || last {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("state-flush".to_owned())
            .spawn(run)
            .map_err(StoreError::io("start the flush thread of", path))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic in there was reported by the panic hook.
            drop(thread.join());
        }
    }
}
