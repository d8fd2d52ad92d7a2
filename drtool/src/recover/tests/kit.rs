//! Collections made by hand.

use std::collections::{BTreeMap, BTreeSet};

use confman_client::wire::{
    GroupReadiness, GroupStatus, LeaderRef, NodeRef, Readiness, ReplicaRole, StateHashStatus,
    Status, Time,
};
use confman_snapshot::model::{ClusterId, GroupId, Membership, NodeInfo, Position};

use crate::finding::Severity;
use crate::recover::collection::*;
use crate::recover::decide::{Wishes, decide};
use crate::recover::plan::Plan;

pub(crate) const UUID: &str = "0d0a3a8e-6d4c-4f0e-9a57-3c1b2d9e8f70";
pub(crate) const NOW_US: i64 = 1_790_000_000_000_000;

pub(crate) fn at(term: u64, index: u64) -> Position {
    // The leader of term 2 is node 2, and so on: which one it is does not matter.
    Position::new(term, (term - 1) % 3 + 1, index)
}

pub(crate) fn info(id: u64) -> NodeInfo {
    NodeInfo {
        name: format!("node{id}"),
        api_url: format!("http://host{id}:6100"),
        peer_addr: format!("host{id}:6101"),
    }
}

pub(crate) fn members(ids: impl IntoIterator<Item = u64>) -> Membership {
    let ids: BTreeSet<u64> = ids.into_iter().collect();
    Membership {
        position: Some(at(1, 0)),
        nodes: ids.iter().map(|id| (*id, info(*id))).collect(),
        voters: vec![ids],
    }
}

/// A log from the birth on: one leader of term 1, then others from the given positions on.
pub(crate) fn group(
    name: &GroupId,
    voters: u64,
    leaders: &[Position],
    last: Position,
) -> GroupFacts {
    let mut begins = vec![at(1, 0)];
    begins.extend(leaders);
    GroupFacts {
        group: name.clone(),
        vote: Some(VoteFacts {
            term: last.term,
            node: last.node,
            committed: true,
        }),
        first: Some(at(1, 0)),
        last: Some(last),
        committed: None,
        applied: None,
        purged: None,
        leaders: begins,
        entries: last.index + 1,
        log_bytes: 1_000 * last.index,
        state_bytes: 1 << 20,
        state_hash: None,
        memberships: vec![members(1..=voters)],
        torn_bytes: 0,
        snapshots: Vec::new(),
        last_write_at: Some(Time::from_us(NOW_US - 3_600_000_000)),
        tail: Vec::new(),
        tail_more: 0,
    }
}

pub(crate) fn put(position: Position, key: &str) -> TailEntry {
    TailEntry {
        position,
        what: format!("put app/{key} by alice"),
        write: true,
        time: Some(Time::from_us(NOW_US - 3_600_000_000)),
    }
}

pub(crate) fn directory(id: u64, groups: Vec<GroupFacts>) -> Directory {
    let nodes: BTreeMap<u64, NodeInfo> = groups
        .first()
        .and_then(|g| Some(g.membership()?.nodes.clone()))
        .unwrap_or_default();
    Directory {
        path: format!("/var/lib/confman/node{id}"),
        host: format!("host{id}"),
        read_at: Time::from_us(NOW_US - 60_000_000),
        free_bytes: Some(1 << 40),
        in_use: None,
        identity: Some(IdentityFacts {
            cluster_uuid: UUID.to_owned(),
            incarnation: 1,
            lineage: String::new(),
            incarnation_floor: 0,
            node_id: id,
            name: format!("node{id}"),
            shards: groups.len().saturating_sub(1) as u32,
            stage: Stage::Initialized,
            reason: String::new(),
            members: nodes.clone(),
        }),
        surgery: None,
        unborn: None,
        next_node_id: nodes.keys().max().map_or(1, |id| id + 1),
        nodes: nodes
            .into_iter()
            .map(|(id, info)| NodeFacts {
                id,
                info,
                retired: false,
                wish: WishFacts::Voter,
            })
            .collect(),
        expected: Vec::new(),
        groups,
        findings: Vec::new(),
        findings_more: 0,
    }
}

/// A node whose groups are both at `last`, committed and applied up to `known`.
pub(crate) fn node(id: u64, voters: u64, last: Position, known: Position) -> Directory {
    let of = |name: GroupId| {
        let begins = at(last.term, last.index.min(5));
        let leaders = if last.term > 1 {
            vec![begins]
        } else {
            Vec::new()
        };
        GroupFacts {
            committed: Some(known),
            applied: Some(known),
            state_hash: Some(format!("hash of {known}")),
            ..group(&name, voters, &leaders, last)
        }
    };
    directory(id, vec![of(GroupId::meta()), of(GroupId::config(0))])
}

pub(crate) fn error(code: &str) -> FindingFacts {
    FindingFacts {
        severity: Severity::Error,
        code: code.to_owned(),
        what: "the file: what is wrong with it".to_owned(),
    }
}

pub(crate) fn collection(directories: Vec<Directory>) -> Collection {
    Collection {
        kind: KIND.to_owned(),
        version: VERSION,
        collected_at: Time::from_us(NOW_US - 60_000_000),
        directories,
        live: Vec::new(),
        store: Some(StoreAccount {
            url: "s3://bucket/prefix".to_owned(),
            error: None,
            highest_incarnation: 1,
            clusters: vec![claim(1, "")],
            snapshots: Vec::new(),
        }),
    }
}

pub(crate) fn claim(incarnation: u64, lineage: &str) -> ClaimFacts {
    ClaimFacts {
        cluster: ClusterId::new(UUID, incarnation),
        lineage: lineage.to_owned(),
        created_by: "node1".to_owned(),
        created_at: Time::from_us(NOW_US - 7_200_000_000),
    }
}

/// A node that answers, with the leader that it knows.
pub(crate) fn live(id: u64, leader: Option<u64>) -> Live {
    let node = NodeRef {
        id,
        name: format!("node{id}"),
    };
    let group = |name: &str| GroupStatus {
        membership_wait: None,
        group: name.to_owned(),
        role: ReplicaRole::Follower,
        term: 2,
        leader: leader.map(|id| LeaderRef {
            id,
            name: format!("node{id}"),
            api_url: info(id).api_url,
        }),
        last_index: 9,
        committed_index: 9,
        applied_index: 9,
        purged_index: 0,
        log_entries: 9,
        log_bytes: 9_000,
        state_hash: StateHashStatus {
            index: 9,
            hash: "00".to_owned(),
        },
        snapshot: None,
        snapshot_error: None,
        restore: None,
        members: Vec::new(),
    };
    Live {
        url: info(id).api_url,
        asked_at: Time::from_us(NOW_US),
        status: Some(Status {
            cluster_uuid: UUID.to_owned(),
            incarnation: 1,
            node: node.clone(),
            ready: leader.is_some(),
            version: None,
            time: None,
            disk: None,
            caller: None,
            groups: vec![group("__meta/0"), group("config/0")],
        }),
        readiness: Some(Readiness {
            ready: leader.is_some(),
            node: Some(node),
            cluster_uuid: None,
            reason: None,
            groups: Vec::<GroupReadiness>::new(),
        }),
        why: None,
        not_ours: false,
    }
}

pub(crate) fn wishes(lost: &[&str]) -> Wishes {
    Wishes {
        lost: lost.iter().map(|name| (*name).to_owned()).collect(),
        plan_id: "recovery-0123456789abcdef".to_owned(),
        now_us: NOW_US,
        ..Wishes::default()
    }
}

pub(crate) fn planned(collection: &Collection, wishes: &Wishes) -> Plan {
    match decide(collection, wishes) {
        Ok(plan) => plan,
        Err(refusals) => panic!("refused: {refusals:#?}"),
    }
}

/// The codes of the refusals, each once.
pub(crate) fn refused(collection: &Collection, wishes: &Wishes) -> Vec<&'static str> {
    let refusals = match decide(collection, wishes) {
        Ok(plan) => panic!("a plan:\n{plan}"),
        Err(refusals) => refusals,
    };
    let mut codes: Vec<&str> = Vec::new();
    for refusal in refusals {
        assert!(
            crate::codes::find(refusal.code).is_some(),
            "{} has no page",
            refusal.code
        );
        if !codes.contains(&refusal.code) {
            codes.push(refusal.code);
        }
    }
    codes
}
