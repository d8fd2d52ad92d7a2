//! What stands in the records of the log files.
//!
//! The `raft-log` crate frames records with a type and a CRC32 and cuts off a last record that ends too early. So
//! nothing here may make a record *look* short: ids and votes have a fixed size and a marker of their own, and the
//! length of a payload stands twice, once inverted. A flipped bit is then wrong data, never a missing tail.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use bytes::Bytes;
use codeq::{Decode, Encode};
use confman_snapshot::model::Position;
use openraft::storage::IOFlushed;

use crate::state::Shared;
use crate::types::TypeConfig;
use crate::wire::{ENTRY_BYTES_MAX, WireVote};

const ID_MARK: u8 = b'L';
const VOTE_MARK: u8 = b'V';
const PAYLOAD_MARK: u8 = b'P';
const NOTHING_MARK: u8 = b'N';
const PAYLOAD_VERSION: u8 = 1;

/// The types of the log files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LogTypes;

impl raft_log::Types for LogTypes {
    type LogId = DiskId;
    type LogPayload = DiskPayload;
    type Vote = DiskVote;
    type Callback = Flushed;
    type UserData = Nothing;

    fn log_index(log_id: &DiskId) -> u64 {
        log_id.0.index
    }

    fn payload_size(payload: &DiskPayload) -> u64 {
        payload.0.len() as u64
    }
}

/// The id of an entry; ordered as Raft orders logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DiskId(pub(crate) Position);

/// A vote; a higher one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DiskVote(pub(crate) WireVote);

impl PartialOrd for DiskVote {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        let order = |v: &WireVote| (v.term, v.node, v.committed);
        Some(order(&self.0).cmp(&order(&other.0)))
    }
}

/// The encoded payload of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DiskPayload(pub(crate) Bytes);

/// The log files could hold something of ours beside the log; they do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nothing;

/// Who hears that what was written is durable.
pub(crate) enum Flushed {
    /// openraft, of an append that began then.
    Append {
        /// Raft's own.
        flushed: IOFlushed<TypeConfig>,
        began: Instant,
        histogram: metrics::Histogram,
        /// Remembers why the log could not be written: what Raft does next fails too, and says less.
        state: Option<Arc<Shared>>,
    },
    /// A caller that waits.
    Waiter(tokio::sync::oneshot::Sender<io::Result<()>>),
    /// A thread that waits.
    Thread(SyncSender<io::Result<()>>),
}

impl raft_log::Callback for Flushed {
    fn send(self, result: io::Result<()>) {
        match self {
            Self::Append {
                flushed,
                began,
                histogram,
                state,
            } => {
                histogram.record(began.elapsed());
                if let (Err(error), Some(state)) = (&result, state) {
                    state.fail_log(error);
                }
                flushed.io_completed(result);
            }
            // A caller that no longer waits has nothing to hear.
            Self::Waiter(waiter) => drop(waiter.send(result)),
            Self::Thread(thread) => raft_log::Callback::send(thread, result),
        }
    }
}

fn invalid(detail: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, detail)
}

fn expect_mark(r: impl io::Read, mark: u8, what: &str) -> io::Result<()> {
    let found = u8::decode(r)?;
    if found == mark {
        Ok(())
    } else {
        Err(invalid(format!(
            "{what} begins with {found:#04x}, expected {mark:#04x}"
        )))
    }
}

impl Encode for DiskId {
    fn encode<W: io::Write>(&self, mut w: W) -> io::Result<usize> {
        let mut n = ID_MARK.encode(&mut w)?;
        n += self.0.term.encode(&mut w)?;
        n += self.0.node.encode(&mut w)?;
        n += self.0.index.encode(&mut w)?;
        Ok(n)
    }
}

impl Decode for DiskId {
    fn decode<R: io::Read>(mut r: R) -> io::Result<Self> {
        expect_mark(&mut r, ID_MARK, "log id")?;
        Ok(Self(Position::new(
            u64::decode(&mut r)?,
            u64::decode(&mut r)?,
            u64::decode(&mut r)?,
        )))
    }
}

impl Encode for DiskVote {
    fn encode<W: io::Write>(&self, mut w: W) -> io::Result<usize> {
        let mut n = VOTE_MARK.encode(&mut w)?;
        n += self.0.term.encode(&mut w)?;
        n += self.0.node.encode(&mut w)?;
        n += u8::from(self.0.committed).encode(&mut w)?;
        Ok(n)
    }
}

impl Decode for DiskVote {
    fn decode<R: io::Read>(mut r: R) -> io::Result<Self> {
        expect_mark(&mut r, VOTE_MARK, "vote")?;
        let (term, node) = (u64::decode(&mut r)?, u64::decode(&mut r)?);
        let committed = match u8::decode(&mut r)? {
            0 => false,
            1 => true,
            other => {
                return Err(invalid(format!(
                    "vote is neither granted nor not: {other:#04x}"
                )));
            }
        };
        Ok(Self(WireVote {
            term,
            node,
            committed,
        }))
    }
}

impl Encode for DiskPayload {
    fn encode<W: io::Write>(&self, mut w: W) -> io::Result<usize> {
        if self.0.len() > ENTRY_BYTES_MAX {
            return Err(invalid(format!(
                "entry of {} bytes, the limit is {ENTRY_BYTES_MAX}",
                self.0.len()
            )));
        }
        let length = self.0.len() as u32;
        let mut n = PAYLOAD_MARK.encode(&mut w)? + PAYLOAD_VERSION.encode(&mut w)?;
        n += length.encode(&mut w)? + (!length).encode(&mut w)?;
        w.write_all(&self.0)?;
        n += self.0.len();
        Ok(n)
    }
}

impl Decode for DiskPayload {
    fn decode<R: io::Read>(mut r: R) -> io::Result<Self> {
        expect_mark(&mut r, PAYLOAD_MARK, "payload")?;
        let version = u8::decode(&mut r)?;
        if version != PAYLOAD_VERSION {
            return Err(invalid(format!(
                "payload has version {version}, this program reads {PAYLOAD_VERSION}"
            )));
        }
        let (length, inverted) = (u32::decode(&mut r)?, u32::decode(&mut r)?);
        if length != !inverted || length as usize > ENTRY_BYTES_MAX {
            return Err(invalid(format!(
                "payload has the length {length:#010x} and {inverted:#010x}"
            )));
        }
        let mut bytes = vec![0; length as usize];
        r.read_exact(&mut bytes)?;
        Ok(Self(bytes.into()))
    }
}

impl Encode for Nothing {
    fn encode<W: io::Write>(&self, w: W) -> io::Result<usize> {
        NOTHING_MARK.encode(w)
    }
}

impl Decode for Nothing {
    fn decode<R: io::Read>(r: R) -> io::Result<Self> {
        expect_mark(r, NOTHING_MARK, "user data").map(|()| Self)
    }
}
