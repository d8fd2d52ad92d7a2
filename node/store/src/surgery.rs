//! A survivor's log is made one that can lead alone: the vote is raised and one membership entry appended.
//!
//! For a *copy* of a group's log, never for the one that a node ran on: a mistake must cost nothing.
//!
//! What it does, and nothing else:
//! - the vote becomes (term of the plan, this node), not granted: the node stands for election by itself;
//! - one entry is appended after the last: the new membership, under the *new* leader's id. Under the old one there could be
//!   two different entries of one id, here and on a node that is thought dead;
//! - what is committed, the state and the snapshots stay as they are: openraft takes the last appended membership, and
//!   commits the whole tail with it when the node leads.
//!
//! Run again on a log that has it already it changes nothing.

use std::path::Path;

use confman_snapshot::model::{MembershipMessage, NodeInfo, Position, VoterSet};

use crate::error::StoreError;
use crate::log::LogStore;
use crate::wire::{PayloadKind, WirePayload, WireVote};

/// Memory for the newest entries while the log is open.
const CACHE_BYTES: usize = 1 << 20;

/// What a log is to become.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// The term of the vote and of the entry: above every one that the old life can have used.
    pub term: u64,
    /// The node that is to lead.
    pub node: u64,
    /// The last entry as the plan saw it: another one means that the log is not the plan's.
    pub last: Option<Position>,
    /// The last entry in the state. Where that was installed beyond the log, the log goes on after it, as openraft itself
    /// would have it at the next start.
    pub applied: Option<Position>,
    /// The members from now on, all of them voters.
    pub members: Vec<(u64, NodeInfo)>,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operated {
    /// Where the membership entry stands.
    pub membership: Position,
    /// Whether it was there already.
    pub already: bool,
}

/// Makes the log in `dir`, a copy, what `operation` says. Blocks until it is durable.
///
/// # Errors
/// [`StoreError::Foreign`] when the log does not end where the plan says, or has voted above the plan's term; otherwise
/// what opening or writing the log says.
pub fn operate(dir: &Path, operation: &Operation) -> Result<Operated, StoreError> {
    if !dir.is_dir() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(StoreError::io("open the log", dir)(missing));
    }
    let log = LogStore::open(dir, CACHE_BYTES, None, "surgery".to_owned())?;
    let vote = WireVote {
        term: operation.term,
        node: operation.node,
        committed: false,
    };
    let payload = WirePayload {
        kind: Some(PayloadKind::Membership(membership(operation))),
    };
    let beyond = operation
        .applied
        .filter(|applied| operation.last.is_none_or(|last| last.index < applied.index));
    let index = beyond
        .or(operation.last)
        .map_or(0, |last| last.index.saturating_add(1));
    let position = Position::new(operation.term, operation.node, index);
    let last = log.stats().last;
    let foreign = |what: &'static str, found: String, expected: String| StoreError::Foreign {
        path: dir.to_owned(),
        what,
        found,
        expected,
        hint: "collect and plan again: the plan was made from another state of this directory",
    };
    if last == Some(position) {
        let there = log
            .payload_at(index)
            .map_err(StoreError::io("read the log", dir))?;
        if there.as_ref() == Some(&payload) && log.wire_vote() == Some(vote) {
            return Ok(Operated {
                membership: position,
                already: true,
            });
        }
    }
    if last != operation.last {
        let said =
            |at: Option<Position>| at.map_or_else(|| "nothing".to_owned(), |p| p.to_string());
        return Err(foreign("the last entry", said(last), said(operation.last)));
    }
    if let Some(voted) = log.wire_vote()
        && voted.term >= operation.term
        && voted != vote
    {
        return Err(foreign(
            "the term of the vote",
            voted.term.to_string(),
            format!("less than {}", operation.term),
        ));
    }
    log.extend_offline(
        vote,
        beyond,
        &position,
        prost::Message::encode_to_vec(&payload).into(),
    )?;
    Ok(Operated {
        membership: position,
        already: false,
    })
}

fn membership(operation: &Operation) -> MembershipMessage {
    MembershipMessage {
        position: None,
        voters: vec![VoterSet {
            ids: operation.members.iter().map(|(id, _)| *id).collect(),
        }],
        nodes: operation.members.iter().cloned().collect(),
    }
}
