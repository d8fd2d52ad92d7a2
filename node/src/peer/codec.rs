//! Raft messages between nodes, in our own structs: openraft's types change between versions and
//! are never sent. Decoding checks every field; nothing panics on what a network brought (I19).

use bytes::Bytes;
use confman_snapshot::model::{MembershipMessage, Position};
use confman_store::convert;
use confman_store::types::{SnapshotMeta, TypeConfig, Vote};
use confman_store::wire::{WireEntry, WireError, WireVote};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use prost::Message;

/// openraft's answer to one append of a stream.
pub(crate) type AppendResult =
    Result<Option<confman_store::types::LogId>, StreamAppendError<TypeConfig>>;

/// A message that no peer of this version can have meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    /// Not a message of that kind.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A term that elections cannot have reached.
    #[error("term {0} is beyond any that can have been reached")]
    Term(u64),
    /// Entries with a hole between them.
    #[error("log entry {0} does not follow the one before it")]
    Gap(u64),
}

/// Largest term that is believed: what lies above could never be outvoted again.
const TERM_MAX: u64 = 1 << 48;

#[derive(Clone, PartialEq, prost::Message)]
struct VoteAsk {
    #[prost(message, optional, tag = "1")]
    vote: Option<WireVote>,
    #[prost(message, optional, tag = "2")]
    last: Option<Position>,
    #[prost(bool, tag = "3")]
    transfer: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct VoteSay {
    #[prost(message, optional, tag = "1")]
    vote: Option<WireVote>,
    #[prost(bool, tag = "2")]
    granted: bool,
    #[prost(message, optional, tag = "3")]
    last: Option<Position>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AppendAsk {
    #[prost(message, optional, tag = "1")]
    vote: Option<WireVote>,
    #[prost(message, optional, tag = "2")]
    previous: Option<Position>,
    #[prost(message, repeated, tag = "3")]
    entries: Vec<WireEntry>,
    #[prost(message, optional, tag = "4")]
    committed: Option<Position>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AppendSay {
    #[prost(oneof = "AppendSaid", tags = "1, 2, 3, 4")]
    said: Option<AppendSaid>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum AppendSaid {
    #[prost(message, tag = "1")]
    Matched(Matched),
    #[prost(message, tag = "2")]
    Conflict(Matched),
    #[prost(message, tag = "3")]
    HigherVote(WireVote),
    #[prost(bool, tag = "4")]
    All(bool),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Matched {
    #[prost(message, optional, tag = "1")]
    position: Option<Position>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TransferAsk {
    #[prost(message, optional, tag = "1")]
    from: Option<WireVote>,
    #[prost(uint64, tag = "2")]
    to: u64,
    #[prost(message, optional, tag = "3")]
    last: Option<Position>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TransferSay {
    /// Why not; empty: done.
    #[prost(string, tag = "1")]
    refused: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MetaSay {
    #[prost(message, optional, tag = "1")]
    position: Option<Position>,
    #[prost(message, optional, tag = "2")]
    membership: Option<MembershipMessage>,
}

fn parse<M: Message + Default>(what: &'static str, bytes: Bytes) -> Result<M, CodecError> {
    M::decode(bytes).map_err(|source| WireError::Decode { what, source }.into())
}

fn vote_of(what: &'static str, vote: Option<WireVote>) -> Result<Vote, CodecError> {
    let vote = vote.ok_or(WireError::Missing {
        what,
        field: "vote",
    })?;
    if vote.term > TERM_MAX {
        return Err(CodecError::Term(vote.term));
    }
    Ok(vote.into())
}

fn position_out(log_id: Option<&confman_store::types::LogId>) -> Option<Position> {
    log_id.map(convert::position)
}

fn position_in(position: Option<Position>) -> Option<confman_store::types::LogId> {
    position.as_ref().map(convert::log_id)
}

fn bytes_of(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

pub(crate) fn encode_vote_request(request: &VoteRequest<TypeConfig>) -> Bytes {
    bytes_of(&VoteAsk {
        vote: Some((&request.vote).into()),
        last: position_out(request.last_log_id.as_ref()),
        transfer: request.leadership_transfer,
    })
}

pub(crate) fn decode_vote_request(bytes: Bytes) -> Result<VoteRequest<TypeConfig>, CodecError> {
    let ask: VoteAsk = parse("vote request", bytes)?;
    let mut request = VoteRequest::new(vote_of("vote request", ask.vote)?, position_in(ask.last));
    request.leadership_transfer = ask.transfer;
    Ok(request)
}

pub(crate) fn encode_vote_response(response: &VoteResponse<TypeConfig>) -> Bytes {
    bytes_of(&VoteSay {
        vote: Some((&response.vote).into()),
        granted: response.vote_granted,
        last: position_out(response.last_log_id.as_ref()),
    })
}

pub(crate) fn decode_vote_response(bytes: Bytes) -> Result<VoteResponse<TypeConfig>, CodecError> {
    let say: VoteSay = parse("vote response", bytes)?;
    Ok(VoteResponse::new(
        vote_of("vote response", say.vote)?,
        position_in(say.last),
        say.granted,
    ))
}

pub(crate) fn encode_append(request: AppendEntriesRequest<TypeConfig>) -> Bytes {
    bytes_of(&AppendAsk {
        vote: Some((&request.vote).into()),
        previous: position_out(request.prev_log_id.as_ref()),
        entries: request.entries.into_iter().map(WireEntry::from).collect(),
        committed: position_out(request.leader_commit.as_ref()),
    })
}

pub(crate) fn decode_append(bytes: Bytes) -> Result<AppendEntriesRequest<TypeConfig>, CodecError> {
    let ask: AppendAsk = parse("append request", bytes)?;
    let entries = ask
        .entries
        .into_iter()
        .map(WireEntry::into_raft)
        .collect::<Result<Vec<_>, _>>()?;
    let mut next = ask.previous.as_ref().map(|p| p.index.saturating_add(1));
    for entry in &entries {
        if next.is_some_and(|n| n != entry.log_id.index) {
            return Err(CodecError::Gap(entry.log_id.index));
        }
        next = Some(entry.log_id.index.saturating_add(1));
    }
    Ok(AppendEntriesRequest {
        vote: vote_of("append request", ask.vote)?,
        prev_log_id: position_in(ask.previous),
        entries,
        leader_commit: position_in(ask.committed),
    })
}

pub(crate) fn encode_append_result(result: &AppendResult) -> Bytes {
    let said = match result {
        Ok(matched) => AppendSaid::Matched(Matched {
            position: position_out(matched.as_ref()),
        }),
        Err(StreamAppendError::Conflict(at)) => AppendSaid::Conflict(Matched {
            position: Some(convert::position(at)),
        }),
        Err(StreamAppendError::HigherVote(vote)) => AppendSaid::HigherVote(vote.into()),
    };
    bytes_of(&AppendSay { said: Some(said) })
}

pub(crate) fn decode_append_result(bytes: Bytes) -> Result<AppendResult, CodecError> {
    let what = "append result";
    let say: AppendSay = parse(what, bytes)?;
    match say.said {
        Some(AppendSaid::Matched(matched)) => Ok(Ok(position_in(matched.position))),
        Some(AppendSaid::Conflict(at)) => {
            let at = position_in(at.position).ok_or(WireError::Missing {
                what,
                field: "position",
            })?;
            Ok(Err(StreamAppendError::Conflict(at)))
        }
        Some(AppendSaid::HigherVote(vote)) => Ok(Err(StreamAppendError::HigherVote(vote_of(
            what,
            Some(vote),
        )?))),
        Some(AppendSaid::All(_)) | None => Err(WireError::Missing {
            what,
            field: "said",
        }
        .into()),
    }
}

pub(crate) fn encode_append_response(response: &AppendEntriesResponse<TypeConfig>) -> Bytes {
    let said = match response {
        AppendEntriesResponse::Success => AppendSaid::All(true),
        AppendEntriesResponse::PartialSuccess(matched) => AppendSaid::Matched(Matched {
            position: position_out(matched.as_ref()),
        }),
        AppendEntriesResponse::Conflict => AppendSaid::Conflict(Matched { position: None }),
        AppendEntriesResponse::HigherVote(vote) => AppendSaid::HigherVote(vote.into()),
    };
    bytes_of(&AppendSay { said: Some(said) })
}

pub(crate) fn decode_append_response(
    bytes: Bytes,
) -> Result<AppendEntriesResponse<TypeConfig>, CodecError> {
    let what = "append response";
    let say: AppendSay = parse(what, bytes)?;
    Ok(match say.said {
        Some(AppendSaid::All(_)) => AppendEntriesResponse::Success,
        Some(AppendSaid::Matched(matched)) => {
            AppendEntriesResponse::PartialSuccess(position_in(matched.position))
        }
        Some(AppendSaid::Conflict(_)) => AppendEntriesResponse::Conflict,
        Some(AppendSaid::HigherVote(vote)) => {
            AppendEntriesResponse::HigherVote(vote_of(what, Some(vote))?)
        }
        None => {
            return Err(WireError::Missing {
                what,
                field: "said",
            }
            .into());
        }
    })
}

pub(crate) fn encode_transfer(request: &TransferLeaderRequest<TypeConfig>) -> Bytes {
    bytes_of(&TransferAsk {
        from: Some(request.from_leader().into()),
        to: *request.to_node_id(),
        last: position_out(request.last_log_id()),
    })
}

pub(crate) fn decode_transfer(
    bytes: Bytes,
) -> Result<TransferLeaderRequest<TypeConfig>, CodecError> {
    let ask: TransferAsk = parse("leader transfer", bytes)?;
    Ok(TransferLeaderRequest::new(
        vote_of("leader transfer", ask.from)?,
        ask.to,
        position_in(ask.last),
    ))
}

pub(crate) fn encode_transfer_result(refused: Option<String>) -> Bytes {
    bytes_of(&TransferSay {
        refused: refused.unwrap_or_default(),
    })
}

/// `Some` holds why the transfer was refused.
pub(crate) fn decode_transfer_result(bytes: Bytes) -> Result<Option<String>, CodecError> {
    let say: TransferSay = parse("leader transfer result", bytes)?;
    Ok((!say.refused.is_empty()).then_some(say.refused))
}

pub(crate) fn encode_vote(vote: &Vote) -> Vec<u8> {
    WireVote::from(vote).encode_to_vec()
}

pub(crate) fn decode_vote(bytes: Bytes) -> Result<Vote, CodecError> {
    let vote: WireVote = parse("vote", bytes)?;
    vote_of("vote", Some(vote))
}

pub(crate) fn encode_meta(meta: &SnapshotMeta) -> Vec<u8> {
    let membership = convert::membership(&meta.last_membership);
    MetaSay {
        position: position_out(meta.last_log_id.as_ref()),
        membership: Some((&membership).into()),
    }
    .encode_to_vec()
}

pub(crate) fn decode_meta(bytes: Bytes) -> Result<SnapshotMeta, CodecError> {
    let what = "snapshot meta";
    let say: MetaSay = parse(what, bytes)?;
    let position = say.position.ok_or(WireError::Missing {
        what,
        field: "position",
    })?;
    let membership = say.membership.ok_or(WireError::Missing {
        what,
        field: "membership",
    })?;
    Ok(SnapshotMeta {
        last_log_id: Some(convert::log_id(&position)),
        last_membership: convert::stored_membership(&membership.into())?,
    })
}
