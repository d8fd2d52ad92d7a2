//! The log with the sizes of its entries in memory, so that every read is bounded in bytes before it begins.

use std::collections::VecDeque;
use std::io;

use raft_log::RaftLog;

use super::LogStats;
use super::codec::LogTypes;
use crate::types::Entry;
use crate::{convert, wire};

/// A read that begins this near to the end is served from memory: the newest chunk is always in the cache.
const HOT_BYTES: u64 = 4 * 1024 * 1024;

/// The log of `raft-log`, and how large each of its entries is.
pub(super) struct Log {
    pub(super) raft: RaftLog<LogTypes>,
    /// Index of the first of `sizes`.
    pub(super) first: u64,
    /// Sizes of the entries that can be read, in order.
    pub(super) sizes: VecDeque<u32>,
    pub(super) bytes: u64,
}

impl Log {
    /// Index of the first entry that can be read; where there is none, of the first that could be.
    pub(super) fn first(&self) -> u64 {
        let after_purged = self
            .raft
            .log_state()
            .purged()
            .map_or(0, |id| id.0.index + 1);
        if self.sizes.is_empty() {
            after_purged
        } else {
            self.first.max(after_purged)
        }
    }

    /// One more than the index of the last entry, readable or purged.
    pub(super) fn end(&self) -> u64 {
        self.raft.log_state().last().map_or(0, |id| id.0.index + 1)
    }

    pub(super) fn stats(&self) -> LogStats {
        let state = self.raft.log_state();
        LogStats {
            entries: self.sizes.len() as u64,
            bytes: self.bytes,
            purged: state.purged().map(|id| id.0),
            last: state.last().map(|id| id.0),
        }
    }

    pub(super) fn push(&mut self, index: u64, size: usize) {
        if self.sizes.is_empty() {
            self.first = index;
        }
        self.sizes.push_back(size as u32);
        self.bytes += size as u64;
    }

    /// Forgets what the log has purged.
    pub(super) fn keep_from_first(&mut self) {
        let first = self.first();
        while self.first < first {
            let Some(size) = self.sizes.pop_front() else {
                break;
            };
            self.bytes -= u64::from(size);
            self.first += 1;
        }
    }

    /// Forgets what the log has cut off at its end.
    pub(super) fn keep_to(&mut self, end: u64) {
        while self.first + self.sizes.len() as u64 > end {
            let Some(size) = self.sizes.pop_back() else {
                break;
            };
            self.bytes -= u64::from(size);
        }
    }

    /// Where a read from `start` must end so that it takes at most `limit` bytes, but one entry in any case.
    pub(super) fn bounded_end(&self, start: u64, end: u64, limit: u64) -> u64 {
        let skip = start.saturating_sub(self.first()) as usize;
        let mut taken = 0;
        let mut at = start;
        for size in self.sizes.iter().skip(skip) {
            taken += u64::from(*size);
            if at >= end || (taken > limit && at > start) {
                break;
            }
            at += 1;
        }
        at.max(start + 1).min(end)
    }

    /// Whether everything from `start` on is in memory.
    pub(super) fn is_hot(&self, start: u64) -> bool {
        let entries = self.end().saturating_sub(start) as usize;
        let mut bytes = 0;
        for size in self.sizes.iter().rev().take(entries) {
            bytes += u64::from(*size);
            if bytes > HOT_BYTES {
                return false;
            }
        }
        true
    }

    pub(super) fn read(&self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        for item in self.raft.read(start, end) {
            let (id, payload) = item?;
            if let Some(last) = entries.last()
                && last.log_id.index + 1 != id.0.index
            {
                return Err(io::Error::other(format!(
                    "the log has a hole after index {}",
                    last.log_id.index
                )));
            }
            let payload = wire::decode_payload(payload.0).map_err(|e| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("log entry {}: {e}", id.0),
                )
            })?;
            entries.push(Entry {
                log_id: convert::log_id(&id.0),
                payload,
            });
        }
        Ok(entries)
    }
}
