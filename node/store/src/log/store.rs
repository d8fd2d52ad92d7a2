//! The log as openraft drives it.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use futures::Stream;
use openraft::entry::RaftEntry;
use openraft::storage::{
    IOFlushed, LeaderBoundedStreamError, LogState, RaftLogReader, RaftLogStorage,
};
use openraft::{LogIdOptionExt, OptionalSend};
use parking_lot::RwLock;
use raft_log::RaftLog;
use raft_log::api::raft_log_writer::RaftLogWriter;

use super::LogStats;
use super::codec::{DiskId, DiskPayload, DiskVote, Flushed, LogTypes};
use super::disk::{config, damaged, open_error, sync_wal, wal_bytes};
use super::sized::Log;
use super::stream::{Batches, bounds};
use crate::convert;
use crate::error::StoreError;
use crate::state::Shared;
use crate::types::{Entry, LeaderId, LogId, TypeConfig, Vote};
use crate::wire;

/// Most bytes of entries that one read takes into memory.
pub(super) const READ_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The Raft log of one group, as openraft drives it.
#[derive(Clone)]
pub struct LogStore {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    log: RwLock<Log>,
    /// The state that must hold durably what is purged; none for a log that stands alone.
    state: Option<Arc<Shared>>,
    gauges: Gauges,
}

struct Gauges {
    entries: metrics::Gauge,
    bytes: metrics::Gauge,
    append_seconds: metrics::Histogram,
}

impl Debug for LogStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogStore")
            .field("path", &self.inner.path)
            .finish_non_exhaustive()
    }
}

impl LogStore {
    /// Opens, or makes, the log in a directory. Without `state` it purges whatever it is told to.
    pub(crate) fn open(
        dir: &Path,
        cache_bytes: usize,
        state: Option<Arc<Shared>>,
        group: String,
    ) -> Result<Self, StoreError> {
        std::fs::create_dir_all(dir).map_err(StoreError::io("create", dir))?;
        sync_wal(dir)?;
        let before = wal_bytes(dir)?;
        let config = Arc::new(config(dir, cache_bytes));
        let raft =
            RaftLog::<LogTypes>::open(config.clone()).map_err(|e| open_error(dir, &config, e))?;
        let after = wal_bytes(dir)?;
        if after < before {
            // The only thing that open cuts off; what was never written whole was never acknowledged.
            tracing::warn!(dir = %dir.display(), bytes = before - after, "cut a torn last record off the log");
        }
        let mut log = Log {
            raft,
            first: 0,
            sizes: VecDeque::new(),
            bytes: 0,
        };
        let sizes: io::Result<Vec<(u64, usize)>> = log
            .raft
            .read(log.first(), log.end())
            .map(|item| {
                let (id, payload) = item?;
                let size = payload.0.len();
                wire::decode_payload(payload.0).map_err(|e| {
                    io::Error::new(io::ErrorKind::InvalidData, format!("entry {}: {e}", id.0))
                })?;
                Ok((id.0.index, size))
            })
            .collect();
        for (index, size) in sizes.map_err(|e| damaged(dir, e.to_string()))? {
            log.push(index, size);
        }
        if log.first() + log.sizes.len() as u64 != log.end() {
            let found = log.sizes.len();
            return Err(damaged(
                dir,
                format!(
                    "{found} entries between the index {} and {}",
                    log.first(),
                    log.end()
                ),
            ));
        }
        let gauges = Gauges {
            entries: metrics::gauge!("confman_log_entries", "group" => group.clone()),
            bytes: metrics::gauge!("confman_log_bytes", "group" => group.clone()),
            append_seconds: metrics::histogram!("confman_log_append_seconds", "group" => group),
        };
        let inner = Inner {
            path: dir.to_owned(),
            log: RwLock::new(log),
            state,
            gauges,
        };
        inner.show(&inner.log.read());
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// What is in the log.
    pub fn stats(&self) -> LogStats {
        self.inner.log.read().stats()
    }

    /// How many times the log was synced since it was opened, and how many writes asked for it.
    pub fn syncs(&self) -> (u64, u64) {
        let metrics = self.inner.log.read().raft.stat().flush_metrics;
        (metrics.sync_batch_count, metrics.write_request_count)
    }

    pub(crate) fn has_vote(&self) -> bool {
        self.inner.log.read().raft.log_state().vote().is_some()
    }

    /// Makes an empty log begin after `position`, with this vote. Blocks until durable.
    pub(crate) fn begin_after(
        &self,
        position: &confman_snapshot::model::Position,
        vote: wire::WireVote,
    ) -> Result<(), StoreError> {
        let (tx, rx) = sync_channel(1);
        let write = || -> io::Result<()> {
            let mut log = self.inner.log.write();
            log.raft.save_vote(DiskVote(vote))?;
            log.raft.purge(DiskId(*position))?;
            log.raft.commit(DiskId(*position))?;
            log.raft.flush(true, Some(Flushed::Thread(tx)))?;
            self.inner.show(&log);
            Ok(())
        };
        write()
            .and_then(|()| {
                rx.recv()
                    .unwrap_or_else(|_| Err(io::Error::other("the log's writer has stopped")))
            })
            .map_err(StoreError::io("write the log", &self.inner.path))
    }

    /// Writes a vote and, after the last entry, one more; blocks until both are durable. With `after` the log begins
    /// there anew. For a copy of a log that no Raft runs on.
    pub(crate) fn extend_offline(
        &self,
        vote: wire::WireVote,
        after: Option<confman_snapshot::model::Position>,
        position: &confman_snapshot::model::Position,
        payload: bytes::Bytes,
    ) -> Result<(), StoreError> {
        let (tx, rx) = sync_channel(1);
        let write = || -> io::Result<()> {
            let mut log = self.inner.log.write();
            log.raft.save_vote(DiskVote(vote))?;
            if let Some(after) = after {
                log.raft.purge(DiskId(after))?;
                log.keep_from_first();
            }
            let size = payload.len();
            log.raft
                .append([(DiskId(*position), DiskPayload(payload))])?;
            log.push(position.index, size);
            log.raft.flush(true, Some(Flushed::Thread(tx)))
        };
        write()
            .and_then(|()| {
                rx.recv()
                    .unwrap_or_else(|_| Err(io::Error::other("the log's writer has stopped")))
            })
            .map_err(StoreError::io("write the log", &self.inner.path))
    }

    /// The vote as it stands in the log.
    pub fn wire_vote(&self) -> Option<wire::WireVote> {
        self.inner.log.read().raft.log_state().vote().map(|v| v.0)
    }

    /// The payload of one entry that is not purged.
    pub(crate) fn payload_at(&self, index: u64) -> io::Result<Option<wire::WirePayload>> {
        let log = self.inner.log.read();
        if index < log.first() || index >= log.end() {
            return Ok(None);
        }
        let entry = log.read(index, index + 1)?.pop();
        Ok(entry.map(|entry| entry.payload.into()))
    }

    /// Gives the log a vote, as if it had taken part in an election.
    #[cfg(test)]
    pub(crate) fn begin_if_empty(&self) {
        if !self.has_vote() {
            let vote = wire::WireVote {
                term: 1,
                node: 1,
                committed: false,
            };
            let (tx, rx) = sync_channel(1);
            let mut log = self.inner.log.write();
            log.raft.save_vote(DiskVote(vote)).expect("save a vote");
            log.raft
                .flush(true, Some(Flushed::Thread(tx)))
                .expect("flush");
            drop(log);
            rx.recv().expect("an answer").expect("synced");
        }
    }

    pub(super) fn vote(&self) -> Option<Vote> {
        self.inner
            .log
            .read()
            .raft
            .log_state()
            .vote()
            .map(|v| v.0.into())
    }

    /// Entries from `start` on, before `end`, at most `limit` bytes of them.
    pub(super) async fn read(&self, start: u64, end: u64, limit: u64) -> io::Result<Vec<Entry>> {
        {
            let log = self.inner.log.read();
            let (start, end) = (start.max(log.first()), end.min(log.end()));
            if start >= end {
                return Ok(Vec::new());
            }
            let until = log.bounded_end(start, end, limit);
            if log.is_hot(start) {
                return log.read(start, until);
            }
        }
        // Old entries come from the disk, which takes as long as it takes.
        let inner = self.inner.clone();
        let read = move || {
            let log = inner.log.read();
            let (start, end) = (start.max(log.first()), end.min(log.end()));
            if start >= end {
                return Ok(Vec::new());
            }
            log.read(start, log.bounded_end(start, end, limit))
        };
        tokio::task::spawn_blocking(read)
            .await
            .map_err(io::Error::other)?
    }

    /// Writes with the log locked, and waits until it is durable.
    async fn write_durably(
        &self,
        write: impl FnOnce(&mut Log) -> io::Result<()>,
    ) -> io::Result<()> {
        let (tx, rx) = tokio::sync::oneshot::channel();
        {
            let mut log = self.inner.log.write();
            write(&mut log)?;
            log.raft.flush(true, Some(Flushed::Waiter(tx)))?;
            self.inner.show(&log);
        }
        let written = rx
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the log's writer has stopped")));
        if let (Err(error), Some(state)) = (&written, &self.inner.state) {
            state.fail_log(error);
        }
        written
    }
}

impl Inner {
    fn show(&self, log: &Log) {
        self.gauges.entries.set(log.sizes.len() as f64);
        self.gauges.bytes.set(log.bytes as f64);
        if let Some(state) = &self.state {
            state.set_log_stats(log.stats());
        }
    }

    fn named(&self, operation: &'static str) -> impl Fn(io::Error) -> io::Error {
        let path = self.path.clone();
        move |e| io::Error::new(e.kind(), format!("{operation} {path:?}: {e}"))
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn leader_bounded_stream<RB>(
        &mut self,
        leader: LeaderId,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, LeaderBoundedStreamError<TypeConfig>>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        Box::pin(Batches::new(self, Some(leader), &range).into_stream())
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        use futures::StreamExt;
        let stream = Batches::new(self, None, &range).into_stream();
        Box::pin(stream.map(|item| {
            item.map_err(|e| match e {
                LeaderBoundedStreamError::IoError(e) => e,
                changed => io::Error::other(changed),
            })
        }))
    }

    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (start, end) = bounds(&range);
        self.read(start, end, u64::MAX)
            .await
            .map_err(self.inner.named("read the log"))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, READ_BYTES_MAX)
            .await
            .map_err(self.inner.named("read the log"))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.vote())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let log = self.inner.log.read();
        let id = |id: Option<&DiskId>| id.map(|id| convert::log_id(&id.0));
        Ok(LogState {
            last_purged_log_id: id(log.raft.log_state().purged()),
            last_log_id: id(log.raft.log_state().last()),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = DiskVote(vote.into());
        self.write_durably(|log| log.raft.save_vote(vote).map(drop))
            .await
            .map_err(self.inner.named("save the vote in"))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let Some(committed) = committed.map(|id| DiskId(convert::position(&id))) else {
            return Ok(());
        };
        let mut log = self.inner.log.write();
        let state = log.raft.log_state();
        // What is committed beyond this log (a snapshot is on its way) is found again after a restart.
        if state.committed() >= Some(&committed) || state.last() < Some(&committed) {
            return Ok(());
        }
        let save = |log: &mut Log| -> io::Result<()> {
            log.raft.commit(committed)?;
            // Not synced: losing it costs a few entries applied later, nothing else.
            log.raft.flush(false, None)
        };
        save(&mut log).map_err(self.inner.named("save the commit in"))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        // What was committed last is written down with what comes next, and may not have been.
        fail::fail_point!("store::no-committed", |_| Ok(None));
        let log = self.inner.log.read();
        Ok(log
            .raft
            .log_state()
            .committed()
            .map(|id| convert::log_id(&id.0)))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let began = Instant::now();
        // Encoded before the lock is taken: readers do not wait for it.
        let entries: Vec<(DiskId, DiskPayload)> = entries
            .into_iter()
            .map(|entry| {
                let id = DiskId(convert::position(&entry.log_id()));
                (id, DiskPayload(wire::encode_payload(entry.payload)))
            })
            .collect();
        let flushed = Flushed::Append {
            flushed: callback,
            began,
            histogram: self.inner.gauges.append_seconds.clone(),
            state: self.inner.state.clone(),
        };
        let mut log = self.inner.log.write();
        let append = |log: &mut Log| -> io::Result<()> {
            for (id, payload) in entries {
                let size = payload.0.len();
                log.raft.append([(id, payload)])?;
                log.push(id.0.index, size);
            }
            log.raft.flush(true, Some(flushed))
        };
        let result = append(&mut log).map_err(self.inner.named("append to the log"));
        self.inner.show(&log);
        result
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let end = last_log_id.next_index();
        self.write_durably(|log| {
            if end >= log.end() {
                return Ok(());
            }
            log.raft.truncate(end)?;
            log.keep_to(end);
            Ok(())
        })
        .await
        .map_err(self.inner.named("truncate the log"))
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        if let Some(state) = self.inner.state.clone() {
            let upto = log_id.index;
            let group = state.group().clone();
            let flush = move || state.flush_past(upto);
            let durable = tokio::task::spawn_blocking(flush)
                .await
                .map_err(io::Error::other)??;
            if durable.is_none_or(|durable| durable.index < upto) {
                let durable = durable.map(|p| p.index);
                return Err(StoreError::PurgeBeyondState {
                    group,
                    upto,
                    durable,
                }
                .into());
            }
        }
        let id = DiskId(convert::position(&log_id));
        self.write_durably(|log| {
            log.raft.purge(id)?;
            log.keep_from_first();
            Ok(())
        })
        .await
        .map_err(self.inner.named("purge the log"))
    }
}
