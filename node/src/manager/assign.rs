//! When a snapshot is due, and who makes it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use confman_client::wire::{SnapshotItem, SnapshotOrder};
use confman_snapshot::model::GroupId;
use confman_snapshot::trigger::{
    Candidate, Reason, TriggerFacts, TriggerPolicy, choose_builder, decide, least_failed,
    short_of_disk,
};
use confman_store::StateStats;
use confman_store::command::{FinishSnapshotTask, Op};
use confman_store::records::SnapshotTask;
use openraft::Instant as _;

use super::setbacks::last_failure;
use super::{Failure, Manager};
use crate::account;
use crate::api::backend::{GroupBackend, ReadMode, SnapshotRequestError};
use crate::forward;
use crate::group::Group;
use crate::node::Node;

/// How long a task may take before it is given away anew.
const TASK_WITHIN: Duration = Duration::from_secs(3600);
/// How long an operator's request waits for its snapshot: what `--wait` of the commands says, and no longer than a task lives.
const REQUEST_WITHIN: Duration = TASK_WITHIN;
/// How long finding a builder may take.
const ORDER_WITHIN: Duration = Duration::from_secs(20);
/// A member that has not answered for this long does not get, or keep, a task.
const SILENT: Duration = Duration::from_secs(10);
/// A replica whose disk is short of room asks again after this time at the earliest.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// How long it waits for that.
const ASK_WITHIN: Duration = Duration::from_secs(2);
/// A snapshot that failed so lately, in microseconds, is the leader's to try again.
const ASK_AFTER_FAILURE_US: i64 = 300 * 1_000_000;

impl Manager {
    /// At the leader of `group`: assigns a snapshot when one is due, and takes a task back whose
    /// builder is gone.
    pub(super) async fn assign_if_due(&self, group: &Arc<Group>) -> Result<(), Failure> {
        let meta = self.node.meta();
        let open = open_task(&self.node, group.id())?;
        if let Some(task) = open {
            if let Some(why) = given_up(&task, answers(group, task.node), meta.now_us()) {
                finish(&self.node, &task.task_id, Some(why)).await?;
            }
            return Ok(());
        }
        let Some(failed) = self.may_try(group)? else {
            return Ok(());
        };
        let Some(born_us) = meta.state().cluster()?.map(|c| c.created_us) else {
            return Ok(());
        };
        let stats = group.state().stats();
        let mut facts = TriggerFacts {
            entries_since: stats.entries_since_snapshot,
            bytes_since: stats.bytes_since_snapshot,
            last_snapshot_us: stats.last_snapshot.as_ref().map(|r| r.created_us),
            last_bytes: object_bytes(&stats),
            born_us,
            others_snapshot_us: None,
            changed: group.state().changed_since_snapshot()?,
            now_us: group.now_us(),
            disk: account::room(&self.node),
            requested: false,
        };
        if stats.last_snapshot.is_none() {
            let life_us = group.state().incarnation()?.map(|life| life.time_us);
            facts.born_us = born_us.max(life_us.unwrap_or(born_us));
            let others = self.node.groups().filter(|other| other.id() != group.id());
            across(&mut facts, others.map(Seen::of));
        }
        let Some(reason) = decide(&facts, &policy(&self.node)) else {
            return Ok(());
        };
        let builder = choose(group, &failed);
        tracing::info!(group = %group.id(), %reason, builder, "snapshot is due");
        assign(&self.node, group.id(), builder, reason.to_string()).await?;
        Ok(())
    }

    /// Where another node leads `group`: has a snapshot made when the disk of this one is short of room. What is recorded lets the log go
    /// on every member, and the leader, which may have room, knows nothing of this disk.
    pub(super) async fn ask_for_room(&self, group: &Arc<Group>) -> Result<(), Failure> {
        if self.short_of_room(group).is_none() {
            return Ok(());
        }
        let asked = self.asked_for_room.lock().get(group.id()).copied();
        if asked.is_some_and(|at| at.elapsed() < ASK_AGAIN) {
            return Ok(());
        }
        self.asked_for_room
            .lock()
            .insert(group.id().clone(), Instant::now());
        // The turn, which purges the log too, is not held up by a leader that does not answer.
        let asking = tokio::time::timeout(ASK_WITHIN, self.assign_for_room(group));
        asking.await.map_err(|_| "no leader answers")?
    }

    async fn assign_for_room(&self, group: &Arc<Group>) -> Result<(), Failure> {
        // One that catches up may know nothing yet of the newest snapshot.
        group
            .barrier(&ReadMode::Linearizable)
            .await
            .map_err(|_| "no leader answers")?;
        let Some(reason) = self.short_of_room(group) else {
            return Ok(());
        };
        let failed = last_failure(&self.node, group)?;
        let now_us = self.node.meta().now_us();
        if let Some((_, failure)) = &failed
            && now_us.saturating_sub(failure.time_us) < ASK_AFTER_FAILURE_US
        {
            // The leader tries again when that is of use.
            return Ok(());
        }
        // What is built goes to a file first: elsewhere, if it can be.
        let last = [self.node.id()];
        let failed: Vec<u64> = failed
            .iter()
            .map(|(task, _)| task.node)
            .chain(last)
            .collect();
        let builder = choose_here(group, &failed);
        tracing::info!(group = %group.id(), %reason, builder, "snapshot is due");
        assign_unless_under_way(&self.node, group, builder, reason.to_string()).await?;
        Ok(())
    }

    fn short_of_room(&self, group: &Group) -> Option<Reason> {
        let stats = group.state().stats();
        let facts = TriggerFacts {
            bytes_since: stats.bytes_since_snapshot,
            last_bytes: object_bytes(&stats),
            disk: account::room(&self.node),
            ..TriggerFacts::default()
        };
        short_of_disk(&facts, &policy(&self.node))
    }
}

/// Of the last snapshot.
fn object_bytes(stats: &StateStats) -> u64 {
    stats.last_snapshot.as_ref().map_or(0, |r| r.object_bytes)
}

fn policy(node: &Node) -> TriggerPolicy {
    let snapshot = &node.settings().snapshot;
    TriggerPolicy {
        entries: snapshot.log_threshold,
        bytes: snapshot.bytes_threshold,
        time: snapshot.time_threshold,
        disk_free_percent: snapshot.disk_free_percent,
    }
}

/// What another group adds to the facts, as far as this node knows.
struct Seen {
    now_us: i64,
    snapshot_us: Option<i64>,
}

impl Seen {
    fn of(group: &Arc<Group>) -> Self {
        let snapshot = group.state().stats().last_snapshot;
        Self {
            now_us: group.now_us(),
            snapshot_us: snapshot.map(|record| record.created_us),
        }
    }
}

/// A first snapshot waits from what other groups dated: a birth by the time of `__meta/0`, their snapshots by their own. Where the
/// logs of some are ahead, only the time of the furthest is later than all of that; by its own a group would wait until it is there.
fn across(facts: &mut TriggerFacts, others: impl Iterator<Item = Seen>) {
    for other in others {
        facts.now_us = facts.now_us.max(other.now_us);
        facts.others_snapshot_us = facts.others_snapshot_us.max(other.snapshot_us);
    }
}

/// Why a task is taken back from its builder; none while it may go on.
fn given_up(task: &SnapshotTask, answers: bool, now_us: i64) -> Option<String> {
    let node = task.node;
    if !answers {
        return Some(format!("build: node id {node} does not answer any more"));
    }
    let within_minutes = TASK_WITHIN.as_secs() / 60;
    (task.deadline_us < now_us).then(|| {
        format!(
            "build: node id {node} answers and has not finished within {within_minutes} minutes\n\
             hint: its log says what it is at; `drtool store probe` measures how fast the store is"
        )
    })
}

/// The replica that builds: a follower that keeps up, else the leader; those in `failed` last.
fn choose(group: &Group, failed: &[u64]) -> u64 {
    let raft = group.metrics();
    let voters: std::collections::BTreeSet<u64> =
        raft.membership_config.membership().voter_ids().collect();
    let members: Vec<Candidate> = raft
        .membership_config
        .membership()
        .nodes()
        .map(|(id, _)| Candidate {
            node: *id,
            voter: voters.contains(id),
            matched: raft
                .replication
                .as_ref()
                .and_then(|r| r.get(id)?.as_ref().map(|l| l.index)),
            reachable: answers(group, *id),
        })
        .collect();
    let last_index = raft.last_log_index.unwrap_or(0);
    choose_builder(group.node_id(), last_index, &members, failed)
}

/// Who builds what was asked of this node: as above where it leads. Elsewhere it does not know who keeps up: itself, or the
/// leader.
fn choose_here(group: &Group, failed: &[u64]) -> u64 {
    if group.is_leader() {
        return choose(group, failed);
    }
    let leader = group.leader_peer().map(|leader| leader.info.id);
    least_failed([group.node_id()].into_iter().chain(leader), failed).unwrap_or(group.node_id())
}

/// Whether the leader, this node, heard from a member lately.
fn answers(group: &Group, member: u64) -> bool {
    if member == group.node_id() {
        return true;
    }
    let raft = group.metrics();
    raft.heartbeat
        .as_ref()
        .and_then(|acks| acks.get(&member)?.as_ref().map(|at| at.elapsed()))
        .is_some_and(|silent| silent < SILENT)
}

pub(super) fn open_task(node: &Node, group: &GroupId) -> Result<Option<SnapshotTask>, Failure> {
    let name = group.to_string();
    Ok(node
        .meta()
        .state()
        .snapshot_tasks()?
        .into_iter()
        .find(|t| t.group == name))
}

pub(super) async fn finish(
    node: &Node,
    task_id: &str,
    error: Option<String>,
) -> Result<(), forward::ForwardError> {
    let op = Op::FinishSnapshotTask(FinishSnapshotTask {
        task_id: task_id.to_owned(),
        error,
    });
    forward::propose(node, node.meta(), op).await.map(|_| ())
}

async fn assign(
    node: &Node,
    group: &GroupId,
    builder: u64,
    reason: String,
) -> Result<String, forward::ForwardError> {
    let now = node.meta().now_us();
    let task = SnapshotTask {
        task_id: uuid::Uuid::new_v4().to_string(),
        group: group.to_string(),
        node: builder,
        requested_us: now,
        deadline_us: now.saturating_add(i64::try_from(TASK_WITHIN.as_micros()).unwrap_or(i64::MAX)),
        reason,
    };
    let task_id = task.task_id.clone();
    forward::propose(node, node.meta(), Op::AssignSnapshot(task)).await?;
    Ok(task_id)
}

/// Has snapshots made now, of one group or of all, and waits until they are recorded.
pub(crate) async fn request(
    node: &Node,
    group: Option<GroupId>,
) -> Result<Vec<SnapshotItem>, SnapshotRequestError> {
    let groups = wanted(node, group.as_ref())?;
    let each = groups.iter().map(|group| request_one(node, group));
    futures::future::try_join_all(each).await
}

async fn request_one(
    node: &Node,
    group: &Arc<Group>,
) -> Result<SnapshotItem, SnapshotRequestError> {
    let began = Instant::now();
    // What was acknowledged before the request is in what it answers with.
    group
        .barrier(&ReadMode::Linearizable)
        .await
        .map_err(|_| SnapshotRequestError::NoLeader)?;
    let asked_at = *group.state().applied_watch().borrow();
    let newest = || group.state().stats().last_snapshot;
    let before = newest().map(|record| record.id);
    tokio::time::timeout(REQUEST_WITHIN, assigned_and_done(node, group))
        .await
        .map_err(|_| SnapshotRequestError::Timeout)??;
    // What was recorded is committed; this replica may be a little behind.
    group
        .barrier(&ReadMode::Linearizable)
        .await
        .map_err(|_| SnapshotRequestError::NoLeader)?;
    // Of a task that failed unseen, because another one of the group failed after it, this is what is left to see.
    let made = newest().filter(|record| Some(&record.id) != before.as_ref());
    let Some(record) = made.filter(|record| record.position.index >= asked_at) else {
        let failure = last_failure(node, group).map_err(|e| failed(group, e.to_string()))?;
        let why = failure.map_or_else(
            || "it ended and no snapshot is recorded".to_owned(),
            |(_, failure)| failure.error,
        );
        return Err(failed(group, why));
    };
    Ok(SnapshotItem {
        group: group.id().to_string(),
        id: record.id.to_string(),
        index: record.position.index,
        bytes: record.object_bytes,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// Has one replica after the other make it until one succeeds; the error is that of the last.
async fn assigned_and_done(node: &Node, group: &Arc<Group>) -> Result<(), SnapshotRequestError> {
    let earlier = last_failure(node, group).map_err(|e| failed(group, e.to_string()))?;
    let mut builders: Vec<u64> = earlier.iter().map(|(task, _)| task.node).collect();
    let mut tried = Vec::new();
    loop {
        let builder = choose_here(group, &builders);
        let task_id = assigned(node, group, builder).await?;
        let Some(why) = ended(node, group, &task_id).await? else {
            return Ok(());
        };
        tried.push(builder);
        builders.retain(|other| *other != builder);
        builders.push(builder);
        let next = choose_here(group, &builders);
        if tried.contains(&next) {
            return Err(failed(group, why));
        }
        tracing::warn!(group = %group.id(), builder, next, "a requested snapshot failed, another node tries: {why}");
    }
}

fn failed(group: &Group, reason: String) -> SnapshotRequestError {
    SnapshotRequestError::Failed {
        group: group.id().clone(),
        reason,
    }
}

/// Gives the work to `builder` as soon as no other snapshot of the group is under way; gives the task's id.
async fn assigned(
    node: &Node,
    group: &Arc<Group>,
    builder: u64,
) -> Result<String, SnapshotRequestError> {
    let meta = node.meta();
    let mut applied = meta.state().applied_watch();
    loop {
        // One that is under way may not see what was written before this request: wait for it.
        if let Some(task_id) = assign_unless_under_way(node, group, builder, requested()).await? {
            return Ok(task_id);
        }
        let _ = tokio::time::timeout(Duration::from_millis(500), applied.changed()).await;
    }
}

/// The reason of what an operator asked for.
fn requested() -> String {
    Reason::Requested.to_string()
}

/// Gives the task of a new snapshot to a builder; none where one of the group is under way.
async fn assign_unless_under_way(
    node: &Node,
    group: &Arc<Group>,
    builder: u64,
    reason: String,
) -> Result<Option<String>, SnapshotRequestError> {
    node.meta()
        .barrier(&ReadMode::Linearizable)
        .await
        .map_err(|_| SnapshotRequestError::NoLeader)?;
    let open = open_task(node, group.id()).map_err(|e| failed(group, e.to_string()))?;
    if open.is_some() {
        return Ok(None);
    }
    match assign(node, group.id(), builder, reason).await {
        Ok(task_id) => Ok(Some(task_id)),
        Err(forward::ForwardError::Refused(detail)) => {
            tracing::debug!(group = %group.id(), "another snapshot was assigned first: {detail}");
            Ok(None)
        }
        Err(forward::ForwardError::NoLeader(_)) => Err(SnapshotRequestError::NoLeader),
        Err(error @ forward::ForwardError::Failed(_)) => Err(failed(group, error.to_string())),
    }
}

/// Has snapshots made now, of one group or of all, and answers as soon as each has its builder: who wants to know how it went
/// looks at the status.
pub(crate) async fn order(
    node: &Node,
    group: Option<GroupId>,
) -> Result<Vec<SnapshotOrder>, SnapshotRequestError> {
    let each = wanted(node, group.as_ref())?;
    let each = each.iter().map(|group| async {
        let earlier = last_failure(node, group).map_err(|e| failed(group, e.to_string()))?;
        let failed_before: Vec<u64> = earlier.iter().map(|(task, _)| task.node).collect();
        let builder = choose_here(group, &failed_before);
        let assigned = assign_unless_under_way(node, group, builder, requested()).await?;
        Ok(SnapshotOrder {
            group: group.id().to_string(),
            under_way: assigned.is_none(),
        })
    });
    tokio::time::timeout(ORDER_WITHIN, futures::future::try_join_all(each))
        .await
        .map_err(|_| SnapshotRequestError::Timeout)?
}

/// The groups that are meant.
fn wanted(node: &Node, group: Option<&GroupId>) -> Result<Vec<Arc<Group>>, SnapshotRequestError> {
    if !node.settings().snapshot.enabled {
        return Err(SnapshotRequestError::Disabled);
    }
    Ok(match group {
        Some(id) => node.group(id).into_iter().collect(),
        None => node.groups().cloned().collect(),
    })
}

/// Waits for the end of a task; says why it failed, if it did.
async fn ended(
    node: &Node,
    group: &Arc<Group>,
    task_id: &str,
) -> Result<Option<String>, SnapshotRequestError> {
    let meta = node.meta();
    let mut applied = meta.state().applied_watch();
    meta.barrier(&ReadMode::Linearizable)
        .await
        .map_err(|_| SnapshotRequestError::NoLeader)?;
    loop {
        let open = open_task(node, group.id()).map_err(|e| failed(group, e.to_string()))?;
        if open.is_none_or(|open| open.task_id != task_id) {
            break;
        }
        let _ = tokio::time::timeout(Duration::from_millis(500), applied.changed()).await;
    }
    let failure = last_failure(node, group).map_err(|e| failed(group, e.to_string()))?;
    Ok(failure.and_then(|(task, failure)| (task.task_id == task_id).then_some(failure.error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t01_a_first_snapshot_waits_for_no_other_groups_clock() {
        const SECOND: i64 = 1_000_000;
        const HOUR: i64 = 3600 * SECOND;
        let policy = TriggerPolicy {
            entries: 1000,
            bytes: 0,
            time: Duration::from_secs(3600),
            disk_free_percent: 0,
        };
        let due = |meta_us: i64, born_us: i64, snapshot_us: Option<i64>| {
            let mut facts = TriggerFacts {
                born_us,
                now_us: 5 * HOUR,
                ..TriggerFacts::default()
            };
            let meta = Seen {
                now_us: meta_us,
                snapshot_us,
            };
            across(&mut facts, [meta].into_iter());
            decide(&facts, &policy).is_some()
        };
        // Another's time is an hour ahead, and so is what it dated.
        for ahead in [0, HOUR] {
            let now_us = 5 * HOUR + ahead;
            assert!(due(now_us, now_us - 301 * SECOND, None));
            assert!(!due(now_us, now_us - 299 * SECOND, None));
            let born_us = now_us - 200 * SECOND;
            assert!(due(now_us, born_us, Some(now_us - 31 * SECOND)));
            assert!(!due(now_us, born_us, Some(now_us - 29 * SECOND)));
        }
        // Or behind.
        assert!(due(HOUR, 5 * HOUR - 301 * SECOND, None));
    }

    #[test]
    fn a_silent_builder_and_a_slow_one_are_told_apart() {
        let task = SnapshotTask {
            node: 3,
            deadline_us: 100,
            ..SnapshotTask::default()
        };
        assert_eq!(given_up(&task, true, 100), None);
        let silent = given_up(&task, false, 0).unwrap();
        assert_eq!(silent, "build: node id 3 does not answer any more");
        let slow = given_up(&task, true, 101).unwrap();
        assert!(
            slow.starts_with(
                "build: node id 3 answers and has not finished within 60 minutes\nhint: "
            ),
            "{slow}"
        );
    }
}
