//! The records in one file of the log, one after the other.
//!
//! The format is that of `raft-log` 0.4 and `chunked-wal` 0.2, decoded by their own decoder; opening, cutting and locking
//! are theirs too and are not used.

use std::io::{self, BufReader, Read};
use std::path::PathBuf;

use codeq::Decode;
use raft_log::RaftLogRecord;

use super::file::{ReadFile, Section};
use crate::log::codec::LogTypes;

const BUFFER_BYTES: usize = 256 * 1024;

/// One record of the log files.
pub(super) type Record = RaftLogRecord<LogTypes>;

/// The name of a log file says where it begins in the whole log.
pub(super) fn parse_chunk_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("r-")?.strip_suffix(".wal")?;
    if digits.len() != 26 {
        return None;
    }
    let digits: String = digits.chars().filter(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// One file of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) path: PathBuf,
    /// Where it begins in the whole log.
    pub(super) start: u64,
}

/// What comes next in a file.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing: the file ends after a whole record.
    End,
    /// A record, where it begins and where it ends.
    Record {
        at: u64,
        end: u64,
        record: Box<Record>,
    },
    /// Bytes that are no record.
    Bad { at: u64, error: io::Error },
}

/// The records of a file from a place on.
pub(super) struct Records<'a> {
    file: &'a ReadFile,
    reader: Counting<BufReader<Section<'a>>>,
}

struct Counting<R> {
    inner: R,
    at: u64,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(out)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl<'a> Records<'a> {
    pub(super) fn new(file: &'a ReadFile, at: u64) -> Self {
        Self {
            file,
            reader: Counting {
                inner: BufReader::with_capacity(BUFFER_BYTES, Section::new(file, at)),
                at,
            },
        }
    }

    /// The next record. After [`Step::Bad`] the next call reads on behind what the decoder took: where only the
    /// checksum was wrong that is the next record.
    pub(super) fn next(&mut self) -> Step {
        let at = self.reader.at;
        if at >= self.file.len() {
            return Step::End;
        }
        match Record::decode(&mut self.reader) {
            Ok(record) => Step::Record {
                at,
                end: self.reader.at,
                record: Box::new(record),
            },
            Err(error) => Step::Bad { at, error },
        }
    }

    /// Whether a crash in the middle of a write explains bad bytes at `at`, as the log's own `open` sees it.
    pub(super) fn is_torn(&self, at: u64, error: &io::Error) -> bool {
        error.kind() == io::ErrorKind::UnexpectedEof
            || self.file.is_zero_from(at).unwrap_or_default()
    }
}
