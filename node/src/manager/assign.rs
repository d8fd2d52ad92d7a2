//! When a snapshot is due, and who makes it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use confman_client::wire::SnapshotItem;
use confman_snapshot::model::GroupId;
use confman_snapshot::trigger::{Candidate, TriggerFacts, TriggerPolicy, choose_builder, decide};
use confman_store::AuditFilter;
use confman_store::command::{FinishSnapshotTask, Op};
use confman_store::records::SnapshotTask;
use openraft::Instant as _;

use super::{Failure, Manager};
use crate::api::backend::{GroupBackend, ReadMode, SnapshotRequestError};
use crate::forward;
use crate::group::{Group, now_us};
use crate::node::Node;

/// How long a task may take before it is given away anew.
const TASK_WITHIN: Duration = Duration::from_secs(3600);
/// How long an operator's request waits for its snapshot.
const REQUEST_WITHIN: Duration = Duration::from_secs(900);
/// A member that has not answered for this long does not get, or keep, a task.
const SILENT: Duration = Duration::from_secs(10);
const BACKOFF_FIRST: Duration = Duration::from_secs(5);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

impl Manager {
    /// At the leader of `group`: assigns a snapshot when one is due, and takes a task back whose
    /// builder is gone.
    pub(super) async fn assign_if_due(&self, group: &Arc<Group>) -> Result<(), Failure> {
        let meta = self.node.meta();
        let open = open_task(&self.node, group.id())?;
        if let Some(task) = open {
            let gone = !answers(group, task.node) || task.deadline_us < now_us();
            if gone {
                let error = format!("build: node id {} does not answer any more", task.node);
                finish(&self.node, &task.task_id, Some(error)).await?;
            }
            return Ok(());
        }
        if self.backs_off(group) {
            return Ok(());
        }
        let Some(born_us) = meta.state().cluster()?.map(|c| c.created_us) else {
            return Ok(());
        };
        let stats = group.state().stats();
        let snapshot = &self.node.settings().snapshot;
        let facts = TriggerFacts {
            entries_since: stats.entries_since_snapshot,
            bytes_since: stats.bytes_since_snapshot,
            last_snapshot_us: Some(
                stats
                    .last_snapshot
                    .as_ref()
                    .map_or(born_us, |r| r.created_us),
            ),
            changed: changed(group)?,
            now_us: now_us(),
            requested: false,
        };
        let policy = TriggerPolicy {
            entries: snapshot.log_threshold,
            bytes: snapshot.bytes_threshold,
            time: snapshot.time_threshold,
        };
        let Some(reason) = decide(&facts, &policy) else {
            return Ok(());
        };
        let builder = choose(group);
        tracing::info!(group = %group.id(), %reason, builder, "snapshot is due");
        assign(&self.node, group.id(), builder, reason.to_string()).await?;
        Ok(())
    }

    /// Waits longer after each failure in a row, so that a store that is down is not hammered.
    fn backs_off(&self, group: &Group) -> bool {
        let mut failed = self.failed.lock();
        let last = self
            .node
            .meta()
            .state()
            .snapshot_failures()
            .unwrap_or_default()
            .into_iter()
            .find(|f| {
                f.task
                    .as_ref()
                    .is_some_and(|t| t.group == group.id().to_string())
            });
        let Some(last) = last else {
            failed.remove(group.id());
            return false;
        };
        let age_us = now_us().saturating_sub(last.time_us).max(0);
        let age = Duration::from_micros(age_us.unsigned_abs());
        let entry = failed
            .entry(group.id().clone())
            .or_insert((Instant::now(), 0));
        let wait = BACKOFF_FIRST
            .saturating_mul(1 << entry.1.min(6))
            .min(BACKOFF_MAX);
        if age < wait {
            return true;
        }
        *entry = (Instant::now(), entry.1.saturating_add(1));
        false
    }
}

/// Whether anything but snapshots' own bookkeeping happened since the last snapshot.
fn changed(group: &Group) -> Result<bool, Failure> {
    let stats = group.state().stats();
    let since = stats.last_snapshot.as_ref().map_or(0, |r| r.position.index);
    let page = group
        .state()
        .list_audit(&AuditFilter::default(), None, 20)?;
    Ok(page
        .items
        .iter()
        .any(|event| event.at.index > since && !event.record.action.starts_with("snapshot.")))
}

/// The replica that builds: a follower that keeps up, else the leader.
fn choose(group: &Group) -> u64 {
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
    choose_builder(group.node_id(), raft.last_log_index.unwrap_or(0), &members)
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
    let now = now_us();
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
    if !node.settings().snapshot.enabled {
        return Err(SnapshotRequestError::Disabled);
    }
    let groups: Vec<Arc<Group>> = match &group {
        Some(id) => node.group(id).into_iter().collect(),
        None => node.groups().cloned().collect(),
    };
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
    tokio::time::timeout(REQUEST_WITHIN, assigned_and_done(node, group))
        .await
        .map_err(|_| SnapshotRequestError::Timeout)??;
    // What was recorded is committed; this replica may be a little behind.
    group
        .barrier(&ReadMode::Linearizable)
        .await
        .map_err(|_| SnapshotRequestError::NoLeader)?;
    let record =
        group
            .state()
            .stats()
            .last_snapshot
            .ok_or_else(|| SnapshotRequestError::Failed {
                group: group.id().clone(),
                reason: "no snapshot is recorded".to_owned(),
            })?;
    if record.position.index < asked_at {
        return Err(SnapshotRequestError::Failed {
            group: group.id().clone(),
            reason: format!(
                "the newest recorded snapshot is at {}, the request came at {asked_at}",
                record.position.index
            ),
        });
    }
    Ok(SnapshotItem {
        group: group.id().to_string(),
        id: record.id.to_string(),
        index: record.position.index,
        bytes: record.object_bytes,
        seconds: began.elapsed().as_secs_f64(),
    })
}

async fn assigned_and_done(node: &Node, group: &Arc<Group>) -> Result<(), SnapshotRequestError> {
    let failed = |reason: String| SnapshotRequestError::Failed {
        group: group.id().clone(),
        reason,
    };
    let meta = node.meta();
    let mut applied = meta.state().applied_watch();
    let task_id = loop {
        meta.barrier(&ReadMode::Linearizable)
            .await
            .map_err(|_| SnapshotRequestError::NoLeader)?;
        // One that is under way may not see what was written before this request: wait for it.
        if open_task(node, group.id())
            .map_err(|e| failed(e.to_string()))?
            .is_none()
        {
            let builder = if group.is_leader() {
                choose(group)
            } else {
                node.id()
            };
            match assign(node, group.id(), builder, "requested".to_owned()).await {
                Ok(task_id) => break task_id,
                Err(forward::ForwardError::Refused(detail)) => {
                    tracing::debug!(group = %group.id(), "another snapshot was assigned first: {detail}");
                }
                Err(forward::ForwardError::NoLeader(_)) => {
                    return Err(SnapshotRequestError::NoLeader);
                }
                Err(error @ forward::ForwardError::Failed(_)) => {
                    return Err(failed(error.to_string()));
                }
            }
        }
        let _ = tokio::time::timeout(Duration::from_millis(500), applied.changed()).await;
    };
    meta.barrier(&ReadMode::Linearizable)
        .await
        .map_err(|_| SnapshotRequestError::NoLeader)?;
    loop {
        let tasks = meta
            .state()
            .snapshot_tasks()
            .map_err(|e| failed(e.to_string()))?;
        if !tasks.iter().any(|t| t.task_id == task_id) {
            break;
        }
        let _ = tokio::time::timeout(Duration::from_millis(500), applied.changed()).await;
    }
    let failures = meta
        .state()
        .snapshot_failures()
        .map_err(|e| failed(e.to_string()))?;
    match failures
        .into_iter()
        .find(|f| f.task.as_ref().is_some_and(|t| t.task_id == task_id))
    {
        Some(failure) => Err(failed(failure.error)),
        None => Ok(()),
    }
}
