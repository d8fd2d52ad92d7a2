//! The Raft log of one group, read from its files in one pass and kept as a map of where its entries are.
//!
//! The pass applies the records as the log's own `open` does: an entry that was cut off later, or purged, is not there.
//! What is kept is one *run* for each stretch of entries that stand one after the other in a file; entries are read
//! again when they are asked for. So memory follows the number of files and truncations, not that of entries.

use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use confman_snapshot::model::{GroupId, Membership, Position};
use raft_log::{RaftLogAction, WALRecord};

use super::entries::Entries;
use super::file::{ReadFile, list};
use super::finding::{Findings, OfflineFinding, OfflineSeverity, codes};
use super::wal::{Chunk, Record, Records, Step, parse_chunk_name};
use crate::convert;
use crate::error::StoreError;
use crate::types::EntryPayload;
use crate::wire::{self, WireVote};

/// Most files of a log that are looked at.
const FILES_MAX: usize = 100_000;
/// Most membership entries that are remembered while the log is read.
const MEMBERSHIPS_MAX: usize = 1024;
/// Most changes of the leader that are remembered, the newest.
const LEADERS_MAX: usize = 4096;
const DAMAGED_HINT: &str = "verify the directory: `drtool verify DIR` names all that is wrong";

/// The end of a log that a crash cut short. It was never acknowledged; a node that starts cuts it off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub path: PathBuf,
    /// Where the torn record begins in it, in bytes.
    pub offset: u64,
    /// How many bytes a start of the node would cut off, in this file and those after it.
    pub bytes: u64,
}

/// Entries that stand one after the other in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) chunk: usize,
    /// Where the record of the entry `begins` stands.
    pub(super) offset: u64,
    pub(super) begins: u64,
    /// The first that is still in the log.
    pub(super) first: u64,
    pub(super) last: u64,
}

/// The Raft log of one group.
#[derive(Debug)]
pub struct OfflineLog {
    pub(super) dir: PathBuf,
    group: GroupId,
    pub(super) chunks: Vec<Chunk>,
    pub(super) runs: Vec<Run>,
    pub(super) vote: Option<WireVote>,
    pub(super) last: Option<Position>,
    pub(super) committed: Option<Position>,
    pub(super) purged: Option<Position>,
    /// Membership entries that are in the log, oldest first.
    memberships: Vec<Membership>,
    memberships_forgotten: bool,
    /// The first entry of each leader that has entries in the log, oldest first.
    leaders: Vec<Position>,
    pub(super) torn_tail: Option<TornTail>,
    /// Bytes of all its files.
    bytes: u64,
    /// No run goes on across a place that could not be read or that was cut.
    broken: bool,
}

impl OfflineLog {
    /// The group.
    pub fn group(&self) -> &GroupId {
        &self.group
    }

    /// Reads the files of a log; none where there is no such directory.
    pub(super) fn scan(
        dir: &Path,
        group: &GroupId,
        findings: &mut Findings,
    ) -> Result<Option<Self>, StoreError> {
        let Some((names, more)) = list(dir, FILES_MAX)? else {
            return Ok(None);
        };
        if more {
            findings.push(OfflineFinding::error(
                codes::DIR_FOREIGN,
                dir,
                format!("more than {FILES_MAX} files"),
            ));
        }
        let mut chunks: Vec<Chunk> = names
            .iter()
            .filter_map(|item| {
                let start = parse_chunk_name(item.file_name().to_str()?)?;
                Some(Chunk {
                    path: item.path(),
                    start,
                })
            })
            .collect();
        chunks.sort_by_key(|chunk| chunk.start);
        let mut log = Self {
            dir: dir.to_owned(),
            group: group.clone(),
            chunks,
            runs: Vec::new(),
            vote: None,
            last: None,
            committed: None,
            purged: None,
            memberships: Vec::new(),
            memberships_forgotten: false,
            leaders: Vec::new(),
            torn_tail: None,
            bytes: 0,
            broken: false,
        };
        log.read_all(findings);
        log.check_whole(findings);
        Ok(Some(log))
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How many entries can be read.
    pub fn entries_count(&self) -> u64 {
        self.runs.iter().map(|run| run.last - run.first + 1).sum()
    }

    /// Bytes of all its files.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the entries of each leader begin, oldest first, purged ones included as far as the files still hold them: two
    /// logs are the same up to the last index that both have from the same leader. The newest 4096 only.
    pub fn leaders(&self) -> &[Position] {
        &self.leaders
    }

    /// The membership entries in the log, committed or not, oldest first. Purged ones are among them as far as the files still
    /// hold them; of very many the newest.
    pub(super) fn memberships(&self) -> &[Membership] {
        &self.memberships
    }

    fn read_all(&mut self, findings: &mut Findings) {
        let tail = self.tail();
        let mut before: Option<u64> = None;
        for number in 0..self.chunks.len() {
            let chunk = self.chunks[number].clone();
            let file = match ReadFile::open(&chunk.path) {
                Ok(Some(file)) => file,
                Ok(None) => continue,
                Err(error) => {
                    findings.push(OfflineFinding::of(&error, codes::LOG_DAMAGED, &chunk.path));
                    self.broken = true;
                    before = None;
                    continue;
                }
            };
            self.bytes += file.len();
            if tail.is_some_and(|tail| number > tail) || tail.is_none() {
                // A file that a crash left before its first record was whole.
                self.tear(&file, 0);
                continue;
            }
            if let Some(end) = before
                && end != chunk.start
            {
                findings.push(OfflineFinding::error(
                    codes::LOG_HOLE,
                    &chunk.path,
                    format!(
                        "the file before it ends at byte {end} of the log, this one begins at {}",
                        chunk.start
                    ),
                ));
                self.broken = true;
            }
            before = self
                .read_chunk(number, &file, Some(number) == tail, findings)
                .map(|end| chunk.start + end);
            self.broken = true;
        }
    }

    /// The last file with a whole first record: those after it are what a crash left.
    fn tail(&self) -> Option<usize> {
        (0..self.chunks.len()).rev().find(|number| {
            let Ok(Some(file)) = ReadFile::open(&self.chunks[*number].path) else {
                return true;
            };
            let mut records = Records::new(&file, 0);
            match records.next() {
                Step::Record { .. } => true,
                Step::End => false,
                Step::Bad { at, error } => !records.is_torn(at, &error),
            }
        })
    }

    fn tear(&mut self, file: &ReadFile, offset: u64) {
        let bytes = file.len() - offset;
        match &mut self.torn_tail {
            Some(tail) => tail.bytes += bytes,
            None => {
                self.torn_tail = Some(TornTail {
                    path: file.path().to_owned(),
                    offset,
                    bytes,
                });
            }
        }
    }

    /// Applies the records of one file; tells where the last whole one ends, none when there was damage.
    fn read_chunk(
        &mut self,
        number: usize,
        file: &ReadFile,
        is_tail: bool,
        findings: &mut Findings,
    ) -> Option<u64> {
        let mut records = Records::new(file, 0);
        let mut sound = true;
        let mut end_of_last = 0;
        let mut bad_before = false;
        loop {
            match records.next() {
                Step::End => break,
                Step::Record { at, end, record } => {
                    if let Some(wrong) = self.apply(number, at, *record) {
                        let path = file.path();
                        findings.push(OfflineFinding::error(wrong.0, path, wrong.1).at(at));
                    }
                    end_of_last = end;
                    bad_before = false;
                }
                Step::Bad { at, error } => {
                    // What follows a record with a wrong checksum is sound when it is a record; if not, nothing in
                    // this file is.
                    if bad_before {
                        break;
                    }
                    if is_tail && records.is_torn(at, &error) {
                        self.tear(file, at);
                        break;
                    }
                    sound = false;
                    bad_before = true;
                    self.broken = true;
                    findings.push(
                        OfflineFinding::error(
                            codes::LOG_DAMAGED,
                            file.path(),
                            format!("a record cannot be read: {error}"),
                        )
                        .at(at),
                    );
                }
            }
        }
        sound.then_some(end_of_last)
    }

    /// Applies one record as the log's own `open` does; tells what is wrong with it.
    fn apply(&mut self, chunk: usize, at: u64, record: Record) -> Option<(&'static str, String)> {
        let order = |what: String| Some((codes::LOG_ORDER, what));
        match record {
            WALRecord::Action(RaftLogAction::SaveVote(vote)) => {
                let rank = |v: &WireVote| (v.term, v.node, v.committed);
                let before = self.vote.replace(vote.0);
                if let Some(before) = before
                    && rank(&vote.0) < rank(&before)
                {
                    return order(format!(
                        "the vote goes back from {before:?} to {:?}",
                        vote.0
                    ));
                }
                None
            }
            WALRecord::Action(RaftLogAction::Append(id, payload)) => {
                self.append(chunk, at, id.0, payload.0)
            }
            WALRecord::Action(RaftLogAction::Commit(id)) => {
                let (before, last) = (self.committed, self.last);
                self.committed = Some(id.0);
                if Some(id.0) < before || Some(id.0) > last {
                    return order(format!(
                        "entry {} is committed, after {} and with a log up to {}",
                        id.0,
                        tell(before),
                        tell(last)
                    ));
                }
                None
            }
            WALRecord::Action(RaftLogAction::TruncateAfter(keep)) => {
                let keep = keep.map(|id| id.0);
                self.truncate(keep.map_or(0, |id| id.index.saturating_add(1)));
                self.last = self.last.min(keep);
                if keep < self.committed {
                    return order(format!(
                        "the log is cut after {}, but {} is committed",
                        tell(keep),
                        tell(self.committed)
                    ));
                }
                None
            }
            WALRecord::Action(RaftLogAction::PurgeUpto(id)) => {
                self.purge(id.0.index.saturating_add(1));
                self.purged = self.purged.max(Some(id.0));
                self.last = self.last.max(Some(id.0));
                None
            }
            WALRecord::Checkpoint(state) => {
                self.vote = state.vote().map(|vote| vote.0);
                self.last = state.last().map(|id| id.0);
                self.committed = state.committed().map(|id| id.0);
                self.purged = state.purged().map(|id| id.0);
                None
            }
        }
    }

    fn append(
        &mut self,
        chunk: usize,
        at: u64,
        id: Position,
        payload: Bytes,
    ) -> Option<(&'static str, String)> {
        let before = self.last.replace(id);
        self.truncate(id.index);
        match self.runs.last_mut() {
            Some(run)
                if !self.broken
                    && run.chunk == chunk
                    && run.last.checked_add(1) == Some(id.index) =>
            {
                run.last = id.index;
            }
            _ => {
                self.broken = false;
                self.runs.push(Run {
                    chunk,
                    offset: at,
                    begins: id.index,
                    first: id.index,
                    last: id.index,
                });
            }
        }
        let goes_on = |known: &Position| (known.term, known.node) == (id.term, id.node);
        if !self.leaders.last().is_some_and(goes_on) {
            if self.leaders.len() == LEADERS_MAX {
                self.leaders.remove(0);
            }
            self.leaders.push(id);
        }
        let wrong = match wire::decode_payload(payload) {
            Ok(EntryPayload::Membership(membership)) => {
                let message = convert::membership_message(Some(id), &membership);
                if self.memberships.len() == MEMBERSHIPS_MAX {
                    self.memberships.remove(0);
                    self.memberships_forgotten = true;
                }
                self.memberships.push(message.into());
                None
            }
            Ok(_) => None,
            Err(error) => Some((codes::LOG_UNDECODABLE, format!("entry {id}: {error}"))),
        };
        let follows = before
            .is_none_or(|before| id > before && Some(id.index) == before.index.checked_add(1));
        if !follows {
            let what = format!("entry {id} does not follow {}", tell(before));
            return Some((codes::LOG_ORDER, what));
        }
        wrong
    }

    /// Forgets the entries from `end` on.
    fn truncate(&mut self, end: u64) {
        while let Some(run) = self.runs.last_mut() {
            if run.last < end {
                break;
            }
            // The next entry does not stand behind this run's last one any more.
            self.broken = true;
            if run.first < end {
                run.last = end - 1;
                break;
            }
            self.runs.pop();
        }
        let beyond = |m: &Membership| m.position.is_none_or(|p| p.index >= end);
        while self.memberships.last().is_some_and(beyond) {
            self.memberships.pop();
        }
        while self
            .leaders
            .last()
            .is_some_and(|begins| begins.index >= end)
        {
            self.leaders.pop();
        }
    }

    /// Forgets the entries before `first`.
    fn purge(&mut self, first: u64) {
        self.runs.retain_mut(|run| {
            run.first = run.first.max(first);
            run.first <= run.last
        });
    }

    /// What the log says of itself once all is read.
    fn check_whole(&mut self, findings: &mut Findings) {
        if let Some(purged) = self.purged {
            self.purge(purged.index.saturating_add(1));
        }
        if let Some(tail) = &self.torn_tail {
            let what = format!(
                "the last write was cut short: {} bytes that were never acknowledged; a start of the node cuts them off",
                tail.bytes
            );
            findings.push(
                OfflineFinding::new(
                    OfflineSeverity::Warning,
                    codes::LOG_TORN_TAIL,
                    &tail.path,
                    what,
                )
                .at(tail.offset),
            );
        }
        if self.memberships_forgotten && self.memberships.is_empty() {
            findings.push(OfflineFinding::error(
                codes::LOG_ORDER,
                &self.dir,
                "more membership entries were cut off than can be remembered",
            ));
        }
        let mut next = self.purged.map(|p| p.index.saturating_add(1));
        let mut hole = |from: u64, to: u64| {
            let what = if from == to {
                format!("entry {from} is missing")
            } else {
                format!("the entries {from} to {to} are missing")
            };
            findings.push(OfflineFinding::error(codes::LOG_HOLE, &self.dir, what));
        };
        for run in &self.runs {
            // openraft's first entry has the index 0, what a test writes begins at 1.
            let expected = next.unwrap_or(run.first.min(1));
            if run.first > expected {
                hole(expected, run.first - 1);
            }
            next = Some(run.last.saturating_add(1));
        }
        if let Some(last) = self.last {
            let next = next.unwrap_or(0);
            if next <= last.index {
                hole(next, last.index);
            }
        }
        // Raft writes no entry of a leader whose vote it has not seen.
        match (self.vote, self.last) {
            (Some(vote), Some(last)) if (vote.term, vote.node) < (last.term, last.node) => {
                findings.push(OfflineFinding::error(
                    codes::VOTE_BEHIND_LOG,
                    &self.dir,
                    format!(
                        "the vote is for term {} and node {}, the last entry is {last}",
                        vote.term, vote.node
                    ),
                ));
            }
            _ => {}
        }
    }

    /// The entries of a range as they stand in the files, in order. Where some cannot be read there is an error, and
    /// then the next ones.
    pub fn entries(&self, range: impl RangeBounds<u64>) -> Entries<'_> {
        let from = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let last = match range.end_bound() {
            Bound::Included(end) => Some(*end),
            Bound::Excluded(end) => end.checked_sub(1),
            Bound::Unbounded => Some(u64::MAX),
        };
        Entries::new(self, from, last)
    }
}

pub(super) fn damaged(path: &Path, detail: String) -> StoreError {
    StoreError::Damaged {
        path: path.to_owned(),
        detail,
        hint: DAMAGED_HINT,
    }
}

fn tell(position: Option<Position>) -> String {
    position.map_or_else(|| "nothing".to_owned(), |p| format!("entry {p}"))
}
