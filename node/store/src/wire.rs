//! Our own structs for what openraft has types for: in the log on disk and in the peer protocol.
//!
//! openraft's types change between versions and are never serialized. What is decoded here came from a disk or a
//! network: every field is checked, nothing panics, nothing is defaulted into being.

use bytes::Bytes;
use confman_snapshot::model::{MembershipMessage, Position};
use prost::Message;

use crate::command::Command;
use crate::convert;
use crate::types::{Entry, EntryPayload, Vote};

/// Largest entry that is decoded, in bytes: a part of a value with what is around it is about half of it.
pub const ENTRY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not a protobuf message of that kind.
    #[error("decode {what}: {source}")]
    Decode {
        /// What was decoded.
        what: &'static str,
        /// What prost said.
        source: prost::DecodeError,
    },
    /// A field that must be there is not.
    #[error("decode {what}: {field} is missing (written by a newer version, or damaged)")]
    Missing {
        /// What was decoded.
        what: &'static str,
        /// The field.
        field: &'static str,
    },
    /// More bytes than any such message has.
    #[error("decode {what}: {found} bytes, the limit is {limit}")]
    TooLarge {
        /// What was decoded.
        what: &'static str,
        /// Its size in bytes.
        found: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Voters that are not among the members.
    #[error("decode membership: {detail}")]
    Membership {
        /// What openraft said.
        detail: String,
    },
}

/// A vote.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct WireVote {
    /// The term.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// The node that is voted for.
    #[prost(uint64, tag = "2")]
    pub node: u64,
    /// Whether a quorum granted it.
    #[prost(bool, tag = "3")]
    pub committed: bool,
}

impl From<&Vote> for WireVote {
    fn from(vote: &Vote) -> Self {
        Self {
            term: vote.leader_id.term,
            node: vote.leader_id.node_id,
            committed: vote.committed,
        }
    }
}

impl From<WireVote> for Vote {
    fn from(wire: WireVote) -> Self {
        if wire.committed {
            Self::new_committed(wire.term, wire.node)
        } else {
            Self::new(wire.term, wire.node)
        }
    }
}

/// What a log entry holds.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WirePayload {
    /// One of the three kinds.
    #[prost(oneof = "PayloadKind", tags = "1, 2, 3")]
    pub kind: Option<PayloadKind>,
}

/// See [`WirePayload`].
// Almost every one is a command: a box around it would only cost an allocation.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum PayloadKind {
    /// The entry by which a leader begins.
    #[prost(bool, tag = "1")]
    Blank(bool),
    /// A command.
    #[prost(message, tag = "2")]
    Command(Command),
    /// A change of members; its position is not set.
    #[prost(message, tag = "3")]
    Membership(MembershipMessage),
}

/// A log entry.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WireEntry {
    /// Where it stands.
    #[prost(message, optional, tag = "1")]
    pub position: Option<Position>,
    /// What it holds.
    #[prost(message, optional, tag = "2")]
    pub payload: Option<WirePayload>,
}

impl From<EntryPayload> for WirePayload {
    fn from(payload: EntryPayload) -> Self {
        let kind = match payload {
            EntryPayload::Blank => PayloadKind::Blank(true),
            EntryPayload::Normal(command) => PayloadKind::Command(command),
            EntryPayload::Membership(membership) => {
                PayloadKind::Membership(convert::membership_message(None, &membership))
            }
        };
        Self { kind: Some(kind) }
    }
}

impl WirePayload {
    /// The payload as openraft has it.
    ///
    /// # Errors
    /// [`WireError`] when this version does not understand it in full.
    pub fn into_raft(self) -> Result<EntryPayload, WireError> {
        match self.kind {
            Some(PayloadKind::Blank(_)) => Ok(EntryPayload::Blank),
            Some(PayloadKind::Command(command)) => {
                if command.op.is_none() {
                    return Err(WireError::Missing {
                        what: "command",
                        field: "op",
                    });
                }
                Ok(EntryPayload::Normal(command))
            }
            Some(PayloadKind::Membership(message)) => {
                Ok(EntryPayload::Membership(convert::raft_membership(message)?))
            }
            None => Err(WireError::Missing {
                what: "entry",
                field: "payload",
            }),
        }
    }
}

impl From<Entry> for WireEntry {
    fn from(entry: Entry) -> Self {
        Self {
            position: Some(convert::position(&entry.log_id)),
            payload: Some(entry.payload.into()),
        }
    }
}

impl WireEntry {
    /// The entry as openraft has it.
    ///
    /// # Errors
    /// [`WireError`] when this version does not understand it in full.
    pub fn into_raft(self) -> Result<Entry, WireError> {
        let position = self.position.ok_or(WireError::Missing {
            what: "entry",
            field: "position",
        })?;
        let payload = self.payload.ok_or(WireError::Missing {
            what: "entry",
            field: "payload",
        })?;
        Ok(Entry {
            log_id: convert::log_id(&position),
            payload: payload.into_raft()?,
        })
    }
}

/// The bytes of an entry as a peer gets it.
pub fn encode_entry(entry: Entry) -> Bytes {
    WireEntry::from(entry).encode_to_vec().into()
}

/// An entry from bytes that a peer sent.
///
/// # Errors
/// [`WireError`] when the bytes are not an entry that this version understands in full.
pub fn decode_entry(bytes: Bytes) -> Result<Entry, WireError> {
    limit("entry", bytes.len())?;
    WireEntry::decode(bytes)
        .map_err(|source| WireError::Decode {
            what: "entry",
            source,
        })?
        .into_raft()
}

/// The bytes of an entry's payload as the log keeps it, beside the entry's id.
pub fn encode_payload(payload: EntryPayload) -> Bytes {
    WirePayload::from(payload).encode_to_vec().into()
}

/// An entry's payload from bytes of the log.
///
/// # Errors
/// [`WireError`] when the bytes are not a payload that this version understands in full.
pub fn decode_payload(bytes: Bytes) -> Result<EntryPayload, WireError> {
    limit("payload", bytes.len())?;
    WirePayload::decode(bytes)
        .map_err(|source| WireError::Decode {
            what: "payload",
            source,
        })?
        .into_raft()
}

fn limit(what: &'static str, found: usize) -> Result<(), WireError> {
    if found > ENTRY_BYTES_MAX {
        return Err(WireError::TooLarge {
            what,
            found,
            limit: ENTRY_BYTES_MAX,
        });
    }
    Ok(())
}
