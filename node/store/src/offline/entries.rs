//! The entries of a log as they stand in its files, a batch at a time.

use bytes::Bytes;
use confman_snapshot::model::{GroupId, Position};
use prost::Message;
use raft_log::{RaftLogAction, WALRecord};

use super::file::ReadFile;
use super::log::{OfflineLog, Run, damaged};
use super::wal::{Records, Step};
use crate::error::StoreError;
use crate::wire::{PayloadKind, WirePayload};

/// One entry as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfflineEntry {
    /// Its position.
    pub position: Position,
    /// The encoded payload.
    pub bytes: Bytes,
}

impl OfflineEntry {
    /// What it holds.
    ///
    /// # Errors
    /// [`StoreError::Undecodable`] when this version does not understand it in full.
    pub fn decode(&self, group: &GroupId) -> Result<WirePayload, StoreError> {
        let undecodable = |detail: String| StoreError::Undecodable {
            group: group.clone(),
            position: self.position,
            detail,
        };
        let payload =
            WirePayload::decode(self.bytes.clone()).map_err(|e| undecodable(e.to_string()))?;
        match &payload.kind {
            None => Err(undecodable(
                "it holds nothing that this version knows".to_owned(),
            )),
            Some(PayloadKind::Command(command)) if command.op.is_none() => Err(undecodable(
                "its operation is none that this version knows".to_owned(),
            )),
            Some(_) => Ok(payload),
        }
    }
}

/// See [`OfflineLog::entries`].
pub struct Entries<'a> {
    log: &'a OfflineLog,
    run: usize,
    open: Option<OpenRun>,
    from: u64,
    last: u64,
    /// The index that must come next.
    next: Option<u64>,
}

/// A file that is being read, and where. The reader borrows the file, so it is made again for each batch.
struct OpenRun {
    file: ReadFile,
    at: u64,
    index: u64,
    batch: std::vec::IntoIter<OfflineEntry>,
}

/// Most bytes of entries that are in memory at once, but one entry in any case.
const BATCH_BYTES: u64 = 1024 * 1024;

impl OpenRun {
    /// Reads on, at most a batch.
    fn fill(&mut self, run: &Run, from: u64, last: u64) -> Result<(), String> {
        let mut records = Records::new(&self.file, self.at);
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while self.index <= run.last.min(last) && bytes < BATCH_BYTES {
            match records.next() {
                Step::Record { end, record, .. } => {
                    self.at = end;
                    let WALRecord::Action(RaftLogAction::Append(id, payload)) = *record else {
                        continue;
                    };
                    if id.0.index != self.index {
                        return Err(format!("entry {} stands where {} was", id.0, self.index));
                    }
                    self.index += 1;
                    if id.0.index >= from {
                        bytes += payload.0.len() as u64;
                        batch.push(OfflineEntry {
                            position: id.0,
                            bytes: payload.0,
                        });
                    }
                }
                Step::End => return Err(format!("entry {} is gone", self.index)),
                Step::Bad { error, .. } => {
                    return Err(format!("entry {} cannot be read: {error}", self.index));
                }
            }
        }
        self.batch = batch.into_iter();
        Ok(())
    }
}

impl<'a> Entries<'a> {
    /// Those from `from` to `last`; without `last` none.
    pub(super) fn new(log: &'a OfflineLog, from: u64, last: Option<u64>) -> Self {
        Self {
            log,
            run: if last.is_none() { log.runs.len() } else { 0 },
            open: None,
            from,
            last: last.unwrap_or_default(),
            next: None,
        }
    }

    fn open_run(&self, run: &Run) -> Result<OpenRun, StoreError> {
        let path = &self.log.chunks[run.chunk].path;
        let file = ReadFile::open(path)?.ok_or_else(|| {
            damaged(
                path,
                "it is gone (the node is running, or somebody removed it)".to_owned(),
            )
        })?;
        Ok(OpenRun {
            file,
            at: run.offset,
            index: run.begins,
            batch: Vec::new().into_iter(),
        })
    }

    fn fail(&mut self, run: &Run, error: StoreError) -> Option<Result<OfflineEntry, StoreError>> {
        self.open = None;
        self.run += 1;
        self.next = Some(run.last.saturating_add(1));
        Some(Err(error))
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<OfflineEntry, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let run = self.log.runs.get(self.run)?.clone();
            let from = self.from.max(run.first);
            if run.last < from || from > self.last {
                self.run += 1;
                continue;
            }
            if let Some(expected) = self.next
                && expected < from
            {
                self.next = Some(from);
                let what = format!("the entries {expected} to {} cannot be read", from - 1);
                return Some(Err(damaged(&self.log.dir, what)));
            }
            let mut open = match self.open.take() {
                Some(open) => open,
                None => match self.open_run(&run) {
                    Ok(open) => open,
                    Err(error) => return self.fail(&run, error),
                },
            };
            if let Some(entry) = open.batch.next() {
                self.next = Some(entry.position.index.saturating_add(1));
                self.open = Some(open);
                return Some(Ok(entry));
            }
            if open.index > run.last.min(self.last) {
                self.run += 1;
                continue;
            }
            match open.fill(&run, from, self.last) {
                Ok(()) => self.open = Some(open),
                Err(what) => {
                    let error = damaged(open.file.path(), what);
                    return self.fail(&run, error);
                }
            }
        }
    }
}
