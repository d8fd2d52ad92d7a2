//! From openraft's types to ours and back: the one place.

use std::collections::BTreeMap;

use confman_snapshot::model::{Membership, MembershipMessage, NodeInfo, Position, VoterSet};

use crate::types::{LeaderId, LogId, Member, RaftMembership, StoredMembership};
use crate::wire::WireError;

/// The position of a log entry.
pub fn position(log_id: &LogId) -> Position {
    Position::new(
        log_id.leader_id.term,
        log_id.leader_id.node_id,
        log_id.index,
    )
}

/// The id of the log entry at a position.
pub fn log_id(position: &Position) -> LogId {
    let leader = LeaderId {
        term: position.term,
        node_id: position.node,
    };
    LogId {
        leader_id: leader,
        index: position.index,
    }
}

/// A membership with the position of the entry that holds it, as the model has it.
pub fn membership(stored: &StoredMembership) -> Membership {
    membership_message(stored.log_id().as_ref().map(position), stored.membership()).into()
}

/// A membership as openraft has it.
///
/// # Errors
/// [`WireError::Membership`] when a voter is not among the members.
pub fn stored_membership(model: &Membership) -> Result<StoredMembership, WireError> {
    let log_id = model.position.as_ref().map(log_id);
    Ok(StoredMembership::new(
        log_id,
        raft_membership(model.into())?,
    ))
}

/// A membership as it is written.
pub fn membership_message(
    position: Option<Position>,
    membership: &RaftMembership,
) -> MembershipMessage {
    MembershipMessage {
        position,
        voters: membership
            .get_joint_config()
            .iter()
            .map(|set| VoterSet {
                ids: set.iter().copied().collect(),
            })
            .collect(),
        nodes: membership
            .nodes()
            .map(|(id, member)| (*id, NodeInfo::from(member)))
            .collect(),
    }
}

/// A membership that was written; its position is not part of it.
///
/// # Errors
/// [`WireError::Membership`] when a voter is not among the members.
pub fn raft_membership(message: MembershipMessage) -> Result<RaftMembership, WireError> {
    let nodes: BTreeMap<u64, Member> = message
        .nodes
        .iter()
        .map(|(id, info)| (*id, Member::from(info)))
        .collect();
    let voters: Vec<_> = message
        .voters
        .into_iter()
        .map(|set| set.ids.into_iter().collect())
        .collect();
    // `new` refuses an empty list of voters, which is what a group has before its first membership.
    if voters.is_empty() && nodes.is_empty() {
        return Ok(RaftMembership::default());
    }
    RaftMembership::new(voters, nodes).map_err(|e| WireError::Membership {
        detail: e.to_string(),
    })
}
