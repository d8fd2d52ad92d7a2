//! One data directory as facts: read by the offline reader, which cannot write.

use std::collections::VecDeque;
use std::path::Path;

use confman_cli::failure::Failure;
use confman_client::ErrorKind;
use confman_client::wire::Time;
use confman_snapshot::model::NodeInfo;
use confman_store::StoreError;
use confman_store::command::Op;
use confman_store::datadir::{self, IdentityState};
use confman_store::keys;
use confman_store::membership::{ExpectedRecord, NodeWish};
use confman_store::offline::{
    OfflineFinding, OfflineGroup, OfflineNode, OfflineSeverity, OfflineState, codes,
};
use confman_store::records::{ClusterRecord, NodeRecord, NodeState};
use confman_store::wire::{PayloadKind, WirePayload};

use super::collection::{
    Directory, ExpectedFacts, FindingFacts, GroupFacts, IdentityFacts, NodeFacts, SnapshotFacts,
    Stage, TailEntry, VoteFacts, WishFacts,
};
use crate::finding::Severity;

/// Most findings that are kept of a directory.
const FINDINGS_MAX: usize = 50;
/// Most entries of a tail that are listed.
const TAIL_MAX: usize = 200;
/// Most changes of the leader that are kept of a log: the newest.
const LEADERS_MAX: usize = 1_000;
/// Most recorded snapshots that are kept of a group: the newest.
const SNAPSHOTS_MAX: usize = 5;
/// Most registered nodes that are kept.
const NODES_MAX: usize = 10_000;
/// Longest text of an entry or a finding, in characters.
const TEXT_MAX: usize = 300;

/// Reads a directory. Reads the whole log of every group once, and its end twice.
///
/// # Errors
/// There is no such directory, or it cannot be listed. All else is a finding.
pub fn read(path: &Path, now_us: i64) -> Result<Directory, Failure> {
    let node = OfflineNode::open(path).map_err(|e| unreadable(path, &e))?;
    let findings: Vec<&OfflineFinding> = node
        .all_findings()
        // It is told on its own.
        .filter(|f| f.code != codes::DIR_IN_USE)
        .collect();
    let kept = findings.iter().take(FINDINGS_MAX);
    let surgery = datadir::read_surgery_at(&node.paths.surgery());
    let unborn = datadir::read_incarnation_at(&node.paths.incarnation());
    let mut kept: Vec<FindingFacts> = kept.map(|f| finding(f)).collect();
    for error in [surgery.as_ref().err(), unborn.as_ref().err()]
        .into_iter()
        .flatten()
    {
        kept.push(FindingFacts {
            severity: Severity::Error,
            code: codes::DIR_UNREADABLE.to_owned(),
            what: cut(error.to_string().lines().next().unwrap_or_default()),
        });
    }
    let registry = registry(&node);
    Ok(Directory {
        path: node.paths.root().display().to_string(),
        host: host(),
        read_at: Time::from_us(now_us),
        free_bytes: free_bytes(node.paths.root()),
        in_use: node.in_use.as_ref().map(|in_use| in_use.holder.clone()),
        identity: node.identity.as_ref().map(identity),
        surgery: surgery.ok().flatten().map(|s| s.plan_id),
        unborn: unborn.ok().flatten().map(|begin| begin.plan_id),
        groups: node.groups.iter().map(group).collect(),
        nodes: registry.nodes,
        expected: registry.expected,
        next_node_id: registry.next_node_id,
        findings: kept,
        findings_more: findings.len().saturating_sub(FINDINGS_MAX) as u64,
    })
}

fn unreadable(path: &Path, error: &StoreError) -> Failure {
    let kind = match error {
        StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            ErrorKind::NotFound
        }
        _ => ErrorKind::Damaged,
    };
    let (message, hint) = crate::store::errors::split(&error.to_string());
    let hint = hint.unwrap_or_else(|| {
        format!(
            "name the data directory of a node: CONFMAN_DATA_DIR; {} is none that can be read",
            path.display()
        )
    });
    crate::codes::refuse("RECOVER_DIRECTORY", kind, message).with_hint(hint)
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

fn finding(found: &OfflineFinding) -> FindingFacts {
    FindingFacts {
        severity: match found.severity {
            OfflineSeverity::Info => Severity::Info,
            OfflineSeverity::Warning => Severity::Warning,
            OfflineSeverity::Error => Severity::Error,
        },
        code: found.code.to_owned(),
        what: cut(&format!("{}: {}", found.path.display(), found.what)),
    }
}

fn identity(identity: &datadir::Identity) -> IdentityFacts {
    IdentityFacts {
        cluster_uuid: identity.cluster_uuid.clone(),
        incarnation: identity.incarnation,
        lineage: identity.lineage.clone(),
        incarnation_floor: identity.incarnation_floor,
        node_id: identity.node_id,
        name: identity.name.clone(),
        shards: identity.shards,
        stage: match identity.state() {
            IdentityState::Formed => Stage::Formed,
            IdentityState::Initialized => Stage::Initialized,
            IdentityState::Fenced => Stage::Fenced,
        },
        reason: cut(&identity.reason),
        members: identity
            .members
            .iter()
            .filter_map(|m| Some((m.id, m.info.clone()?)))
            .collect(),
    }
}

fn group(group: &OfflineGroup) -> GroupFacts {
    let leaders = group.log.as_ref().map_or(&[][..], |log| log.leaders());
    let mut snapshots: Vec<SnapshotFacts> = group
        .snapshots
        .iter()
        .rev()
        .take(SNAPSHOTS_MAX)
        .map(|fact| SnapshotFacts {
            id: fact.record.id.to_string(),
            position: fact.record.position,
            state_hash: hex::encode(&fact.record.state_hash),
        })
        .collect();
    snapshots.sort_by_key(|s| std::cmp::Reverse(s.position));
    let known = group.committed.max(group.applied);
    let tail = tail(group, known.map_or(0, |p| p.index.saturating_add(1)));
    let state_time = group.state.as_ref().map(|state| state.facts().last_time_us);
    GroupFacts {
        group: group.group.clone(),
        vote: group.vote.map(|v| VoteFacts {
            term: v.term,
            node: v.node,
            committed: v.committed,
        }),
        first: group.first,
        last: group.last,
        committed: group.committed,
        applied: group.applied,
        purged: group.purged,
        leaders: leaders
            .iter()
            .skip(leaders.len().saturating_sub(LEADERS_MAX))
            .copied()
            .collect(),
        entries: group.log.as_ref().map_or(0, |log| log.entries_count()),
        log_bytes: group.log.as_ref().map_or(0, |log| log.bytes()),
        state_bytes: group.state.as_ref().map_or(0, |state| state.bytes()),
        state_hash: group.state_hash.map(|hash| hash.to_string()),
        memberships: group.memberships.clone(),
        torn_bytes: group.torn_tail.as_ref().map_or(0, |tail| tail.bytes),
        snapshots,
        last_write_at: tail
            .time_us
            .max(state_time)
            .filter(|us| *us > 0)
            .map(Time::from_us),
        tail: tail.entries.into(),
        tail_more: tail.more,
    }
}

#[derive(Default)]
struct Tail {
    entries: VecDeque<TailEntry>,
    more: u64,
    time_us: Option<i64>,
}

/// The entries from `from` on, the newest of them in words.
fn tail(group: &OfflineGroup, from: u64) -> Tail {
    let mut tail = Tail::default();
    // What cannot be read is a finding already.
    for (position, payload) in group.entries(from..).filter_map(Result::ok) {
        let entry = tail_entry(position, &payload);
        tail.time_us = tail.time_us.max(entry.time.map(Time::as_us));
        if tail.entries.len() == TAIL_MAX {
            tail.entries.pop_front();
            tail.more += 1;
        }
        tail.entries.push_back(entry);
    }
    tail
}

/// One entry in words; its value is not told.
pub(super) fn tail_entry(
    position: confman_snapshot::model::Position,
    payload: &WirePayload,
) -> TailEntry {
    let (what, write, time) = match &payload.kind {
        Some(PayloadKind::Command(command)) => {
            let name = command.op.as_ref().map_or("unknown", Op::name);
            let subject = match &command.op {
                Some(Op::Put(put)) => format!(" {}/{}", put.namespace, put.key),
                Some(Op::Delete(delete)) => format!(" {}/{}", delete.namespace, delete.key),
                Some(Op::CreateNamespace(create)) => format!(" {}", create.path),
                Some(Op::DeleteNamespace(delete)) => format!(" {}", delete.path),
                Some(Op::AdmitNode(admit)) => format!(" {}", admit.name),
                _ => String::new(),
            };
            let what = format!("{name}{subject} by {}", command.actor);
            let write = command.op.as_ref().is_some_and(is_write);
            (what, write, Some(Time::from_us(command.time_us)))
        }
        Some(PayloadKind::Membership(members)) => {
            let sets: Vec<_> = members.voters.iter().map(|set| set.ids.clone()).collect();
            (format!("members {sets:?}"), false, None)
        }
        Some(PayloadKind::Blank(_)) | None => ("a leader begins".to_owned(), false, None),
    };
    TailEntry {
        position,
        what: cut(&what),
        write,
        time,
    }
}

/// Whether a client asked for it, and may have been told that it is done.
pub(super) fn is_write(op: &Op) -> bool {
    matches!(
        op,
        Op::Put(_)
            | Op::Delete(_)
            | Op::CreateNamespace(_)
            | Op::DeleteNamespace(_)
            | Op::StagePart(_)
    )
}

/// What the state of `__meta/0` knows of nodes.
#[derive(Default)]
struct Registry {
    nodes: Vec<NodeFacts>,
    expected: Vec<ExpectedFacts>,
    /// The first id that none of them and none admitted since has.
    next_node_id: u64,
}

fn registry(node: &OfflineNode) -> Registry {
    let Some(meta) = node.groups.iter().find(|g| g.group.is_meta()) else {
        return Registry::default();
    };
    let Some(state) = &meta.state else {
        return Registry::default();
    };
    let cluster = state.record::<ClusterRecord>(&keys::cluster());
    let next = cluster.ok().flatten().map_or(0, |c| c.next_node_id);
    // Each admission that the state has not applied gives one more.
    let from = meta.applied.map_or(0, |p| p.index.saturating_add(1));
    let admits = |payload: &WirePayload| matches!(&payload.kind, Some(PayloadKind::Command(c)) if matches!(c.op, Some(Op::AdmitNode(_))));
    let admitted = meta
        .entries(from..)
        .filter_map(Result::ok)
        .filter(|(_, payload)| admits(payload))
        .count() as u64;
    Registry {
        nodes: records(state, &keys::node(0))
            .map(|record: NodeRecord| NodeFacts {
                id: record.id,
                retired: record.state() == NodeState::Retired,
                wish: match record.wish() {
                    NodeWish::Voter => WishFacts::Voter,
                    NodeWish::Learner => WishFacts::Learner,
                    NodeWish::Gone => WishFacts::Gone,
                },
                info: NodeInfo {
                    name: record.name,
                    api_url: record.api_url,
                    peer_addr: record.peer_addr,
                },
            })
            .collect(),
        expected: records(state, &keys::expected(""))
            .map(|record: ExpectedRecord| ExpectedFacts {
                learner: record.learner_only,
                info: NodeInfo {
                    name: record.name,
                    api_url: record.api_url,
                    peer_addr: record.peer_addr,
                },
            })
            .collect(),
        next_node_id: next.saturating_add(admitted),
    }
}

/// The records of one kind, as far as they can be read.
fn records<T: prost::Message + Default>(
    state: &OfflineState,
    key: &[u8],
) -> impl Iterator<Item = T> {
    // The kind of a record is the first byte of its key.
    let kind = key.get(..1).unwrap_or_default();
    let records = state.records(kind, None).into_iter().flatten();
    records
        .filter_map(Result::ok)
        .filter_map(|(key, value)| state.decode::<T>(&key, value).ok())
        .take(NODES_MAX)
}

/// The name of this machine.
pub(super) fn host() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// What an unprivileged process may still write there.
pub(super) fn free_bytes(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}
