//! This node's own account of itself: status, readiness and the gauges of `/metrics`.
//!
//! Only what this node sees is said, and it is said as this node's view; what is not known is null.

use std::collections::BTreeSet;

use confman_bootstrap::report::{RestoreReport, Source, Stage};
use confman_client::wire::{
    DiskStatus, GroupReadiness, GroupStatus, LeaderRef, MemberRole, MemberStatus, NodeRef,
    Readiness, ReplicaRole, RestoreSource, RestoreStatus, SkippedSnapshot, SnapshotError,
    SnapshotStatus, StateHashStatus, Status, Time,
};
use confman_snapshot::trigger::Disk;
use confman_store::records::SnapshotFailure;
use openraft::ServerState;

use crate::api::backend::GroupBackend;
use crate::group::Group;
use crate::node::Node;

/// How many entries behind the commit a replica may be and still count as ready.
const READY_LAG_MAX: u64 = 500;

/// What `GET /api/v1/status` answers.
pub(crate) fn status(node: &Node) -> Status {
    let failures = match node.meta().state().snapshot_failures() {
        Ok(failures) => failures,
        Err(error) => {
            tracing::warn!("read snapshot failures: {error}");
            Vec::new()
        }
    };
    Status {
        cluster_uuid: node.cluster().uuid.clone(),
        incarnation: node.cluster().incarnation,
        node: NodeRef {
            id: node.id(),
            name: node.name().to_owned(),
        },
        ready: readiness(node).ready,
        version: Some(confman_cli::VERSION.to_owned()),
        time: Some(Time::from_us(crate::clock::wall_us())),
        disk: disk(node),
        // Whoever answers the call knows.
        caller: None,
        groups: node
            .groups()
            .map(|group| group_status(node, group, &failures))
            .collect(),
    }
}

/// The disk of the data directory, and what the node has on it.
fn disk(node: &Node) -> Option<DiskStatus> {
    let Disk {
        free: free_bytes,
        total: total_bytes,
    } = room(node)?;
    let data_bytes = node.groups().map(|group| {
        let state = node.paths().group(group.id()).state();
        let state_bytes = std::fs::metadata(state).map_or(0, |file| file.len());
        group.state().log_stats().bytes.saturating_add(state_bytes)
    });
    Some(DiskStatus {
        free_bytes,
        total_bytes,
        data_bytes: data_bytes.sum(),
    })
}

/// The disk that holds the data directory; none where it does not say.
pub(crate) fn room(node: &Node) -> Option<Disk> {
    let disk = rustix::fs::statvfs(node.paths().root())
        .inspect_err(|error| tracing::debug!("size of the disk: {error}"))
        .ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Some(Disk {
        free: bytes(disk.f_bavail),
        // As df counts: what is reserved for root, or by a quota, is no room that was ever there for us.
        total: bytes(disk.f_blocks.saturating_sub(disk.f_bfree))
            .saturating_add(bytes(disk.f_bavail)),
    })
}

fn group_status(node: &Node, group: &Group, failures: &[SnapshotFailure]) -> GroupStatus {
    let raft = group.metrics();
    let stats = group.state().stats();
    let log = group.state().log_stats();
    let membership = raft.membership_config.membership();
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let role = match raft.state {
        ServerState::Leader => ReplicaRole::Leader,
        ServerState::Candidate => ReplicaRole::Candidate,
        ServerState::Follower if voters.contains(&node.id()) => ReplicaRole::Follower,
        ServerState::Follower | ServerState::Learner | ServerState::Shutdown => {
            ReplicaRole::Learner
        }
    };
    let leads = role == ReplicaRole::Leader;
    let matched = |id: u64| {
        if !leads {
            return None;
        }
        if id == node.id() {
            return raft.last_log_index;
        }
        raft.replication
            .as_ref()?
            .get(&id)?
            .as_ref()
            .map(|log_id| log_id.index)
    };
    let members = membership
        .nodes()
        .map(|(id, member)| MemberStatus {
            id: *id,
            name: member.name.clone(),
            role: if voters.contains(id) {
                MemberRole::Voter
            } else {
                MemberRole::Learner
            },
            api_url: member.api_url.clone(),
            peer_addr: member.peer_addr.clone(),
            matched_index: matched(*id),
        })
        .collect();
    let applied = stats.applied.as_ref().map_or(0, |p| p.index);
    let name = group.id().to_string();
    GroupStatus {
        role,
        term: raft.current_term,
        leader: GroupBackend::leader(group).map(|l| LeaderRef {
            id: l.id,
            name: l.name,
            api_url: l.api_url,
        }),
        last_index: raft.last_log_index.unwrap_or(0),
        committed_index: raft
            .local_committed
            .as_ref()
            .map_or(0, |id| id.index)
            .max(applied),
        applied_index: applied,
        purged_index: log.purged.as_ref().map_or(0, |p| p.index),
        log_entries: log.entries,
        log_bytes: log.bytes,
        state_hash: StateHashStatus {
            index: applied,
            hash: stats.state_hash.to_string(),
        },
        snapshot: stats.last_snapshot.as_ref().map(|record| SnapshotStatus {
            id: record.id.to_string(),
            index: record.position.index,
            time: Time::from_us(record.created_us),
            age_seconds: Some(age_seconds(group.now_us(), record.created_us)),
            verified: true,
        }),
        snapshot_error: failures
            .iter()
            .find(|f| f.task.as_ref().is_some_and(|t| t.group == name))
            .map(snapshot_error),
        restore: node
            .restore_report(group.id())
            .map(|report| restore_status(&report)),
        membership_wait: node.waits_for(group.id()),
        members,
        group: name,
    }
}

fn age_seconds(now_us: i64, us: i64) -> u64 {
    now_us.saturating_sub(us).max(0).unsigned_abs() / 1_000_000
}

/// Failures are recorded as `phase: message` with the remedy in a line of its own.
fn snapshot_error(failure: &SnapshotFailure) -> SnapshotError {
    let (text, hint) = match failure.error.split_once("\nhint: ") {
        Some((text, hint)) => (text, Some(hint.to_owned())),
        None => (failure.error.as_str(), None),
    };
    let (phase, message) = text.split_once(": ").unwrap_or(("record", text));
    SnapshotError {
        time: Time::from_us(failure.time_us),
        phase: phase.to_owned(),
        message: message.to_owned(),
        hint,
    }
}

fn restore_status(report: &RestoreReport) -> RestoreStatus {
    RestoreStatus {
        source: if report.source() == Source::Store {
            RestoreSource::Store
        } else {
            RestoreSource::Peer
        },
        snapshot_id: report.snapshot.clone(),
        snapshot_index: report.snapshot_index,
        tail_entries: report.tail_entries,
        seconds: report.seconds(),
        skipped: report
            .skipped
            .iter()
            .map(|s| SkippedSnapshot {
                snapshot_id: s.snapshot.clone(),
                reason: s.why.clone(),
            })
            .collect(),
    }
}

/// What `GET /health/ready` answers.
pub(crate) fn readiness(node: &Node) -> Readiness {
    let groups: Vec<GroupReadiness> = node
        .groups()
        .map(|group| {
            let reason = waits_for(node, group);
            GroupReadiness {
                group: group.id().to_string(),
                ready: reason.is_none(),
                reason,
            }
        })
        .collect();
    let reason = node.retired(node.id()).or_else(|| {
        (!node.has_begun()).then(|| {
            let why = node
                .held_back()
                .unwrap_or_else(|| "it is committed by the first leader of every group".to_owned());
            format!(
                "incarnation {} has not begun: {why}",
                node.cluster().incarnation
            )
        })
    });
    Readiness {
        ready: reason.is_none() && groups.iter().all(|g| g.ready),
        node: Some(NodeRef {
            id: node.id(),
            name: node.name().to_owned(),
        }),
        cluster_uuid: Some(node.cluster().uuid.clone()),
        reason,
        groups,
    }
}

/// What keeps a replica from being ready.
fn waits_for(node: &Node, group: &Group) -> Option<String> {
    let raft = group.metrics();
    if let Err(fatal) = &raft.running_state {
        return Some(group.why_failed(fatal));
    }
    if group.leader_peer().is_none() {
        return Some("no leader: nothing was heard from one, or no quorum answers".to_owned());
    }
    let applied = *group.state().applied_watch().borrow();
    let committed = raft.local_committed.as_ref().map_or(0, |id| id.index);
    // A busy replica is always a few entries behind; a starting one is far behind.
    if applied + READY_LAG_MAX < committed {
        return Some(format!("{} of {committed} entries applied", applied));
    }
    if node
        .restore_report(group.id())
        .is_some_and(|report| report.stage() != Stage::CaughtUp)
    {
        return Some("a restore that has not caught up".to_owned());
    }
    let membership = raft.membership_config.membership();
    let is_learner = node.shall_learn() && membership.get_node(&node.id()).is_some();
    if !is_learner && !membership.voter_ids().any(|id| id == node.id()) {
        return Some("a learner that is catching up".to_owned());
    }
    None
}

/// Sets the gauges that are read rather than counted.
pub(crate) fn publish(node: &Node) {
    metrics::gauge!("confman_incarnation").set(node.cluster().incarnation as f64);
    if let Some(disk) = room(node) {
        metrics::gauge!("confman_disk_free_bytes").set(disk.free as f64);
        metrics::gauge!("confman_disk_size_bytes").set(disk.total as f64);
    }
    for group in node.groups() {
        set(group, &gauges(node, group));
    }
}

/// Takes back what was said of the groups by a node that serves no more: left standing it would say for ever that there is a
/// leader, and hide from the alerts that there is none. Nobody leads here and nobody is heard; of the rest nothing is known.
pub(crate) fn withdraw(node: &Node) {
    for group in node.groups() {
        let mut gauges = gauges(node, group);
        for (metric, value) in &mut gauges {
            *value = match *metric {
                "confman_raft_has_leader" | "confman_raft_is_leader" | "confman_ready" => 0.0,
                _ => f64::NAN,
            };
        }
        set(group, &gauges);
    }
    for metric in [
        "confman_clock_offset_seconds",
        "confman_disk_free_bytes",
        "confman_disk_size_bytes",
    ] {
        metrics::gauge!(metric).set(f64::NAN);
    }
}

fn set(group: &Group, gauges: &[(&'static str, f64)]) {
    for (metric, value) in gauges {
        metrics::gauge!(*metric, "group" => group.id().to_string()).set(*value);
    }
}

/// The gauges of one replica.
fn gauges(node: &Node, group: &Group) -> Vec<(&'static str, f64)> {
    let raft = group.metrics();
    let stats = group.state().stats();
    let log = group.state().log_stats();
    let mut gauges = Vec::new();
    let mut gauge = |metric: &'static str, value: f64| gauges.push((metric, value));
    gauge("confman_raft_term", raft.current_term as f64);
    gauge(
        "confman_raft_is_leader",
        f64::from(u8::from(raft.state.is_leader())),
    );
    gauge(
        "confman_raft_has_leader",
        f64::from(u8::from(group.leader_peer().is_some())),
    );
    gauge(
        "confman_raft_voters",
        raft.membership_config.membership().voter_ids().count() as f64,
    );
    // Only the leader hears from all of them; a former leader must not go on saying what it heard.
    let tolerance = raft
        .state
        .is_leader()
        .then(|| group.failure_tolerance())
        .flatten();
    gauge(
        "confman_raft_failure_tolerance",
        tolerance.map_or(f64::NAN, |more| more as f64),
    );
    gauge(
        "confman_raft_last_index",
        raft.last_log_index.unwrap_or(0) as f64,
    );
    gauge(
        "confman_raft_committed_index",
        raft.local_committed.as_ref().map_or(0, |id| id.index) as f64,
    );
    gauge(
        "confman_raft_applied_index",
        stats.applied.as_ref().map_or(0, |p| p.index) as f64,
    );
    gauge(
        "confman_raft_purged_index",
        log.purged.as_ref().map_or(0, |p| p.index) as f64,
    );
    gauge("confman_log_entries", log.entries as f64);
    gauge("confman_log_bytes", log.bytes as f64);
    gauge(
        "confman_snapshot_entries_since",
        stats.entries_since_snapshot as f64,
    );
    let changed = group.state().changed_since_snapshot();
    let changed = changed
        .inspect_err(|error| tracing::debug!(group = %group.id(), "look for changes: {error}"));
    gauge(
        "confman_snapshot_changed",
        changed.map_or(f64::NAN, |changed| f64::from(u8::from(changed))),
    );
    let since = group.state().unprotected_since_us();
    let since = since
        .inspect_err(|error| tracing::debug!(group = %group.id(), "look for changes: {error}"));
    gauge(
        "confman_snapshot_unprotected_since_timestamp_seconds",
        since.map_or(f64::NAN, |since| {
            since.map_or(0.0, |us| group.by_clock_us(us) as f64 / 1e6)
        }),
    );
    if let Some(record) = &stats.last_snapshot {
        gauge("confman_snapshot_last_index", record.position.index as f64);
        gauge(
            "confman_snapshot_last_timestamp_seconds",
            group.by_clock_us(record.created_us) as f64 / 1e6,
        );
    }
    // Equal hashes at equal positions: the first 48 bits are exact in a float.
    let prefix = stats
        .state_hash
        .as_bytes()
        .iter()
        .take(6)
        .fold(0u64, |acc, b| (acc << 8) | u64::from(*b));
    gauge("confman_state_hash_prefix", prefix as f64);
    gauge(
        "confman_group_time_ahead_seconds",
        group.ahead_us() as f64 / 1e6,
    );
    gauge(
        "confman_ready",
        f64::from(u8::from(waits_for(node, group).is_none())),
    );
    gauges
}
