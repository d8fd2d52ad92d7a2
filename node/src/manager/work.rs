//! The replica that was given a snapshot to make: build, upload, verify, record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use confman_config::Compression;
use confman_snapshot::build::{BuildError, BuildOptions, Phase, build_and_upload};
use confman_snapshot::model::GroupId;
use confman_snapshot::{Background, Codec, WriteOptions};
use confman_store::command::{Op, SnapshotVerified};
use confman_store::records::SnapshotTask;
use tracing::field::display;
use tracing::{Instrument as _, Span};

use super::Manager;
use super::assign::finish;
use crate::account;
use crate::api::backend::{GroupBackend, ReadMode};
use crate::forward::{self, ForwardError};
use crate::group::Group;
use crate::node::Node;
use crate::store_door::DoorError;
use crate::traces::spans;

/// How long the record of a finished snapshot is offered to a group without leader.
const RECORD_WITHIN: Duration = Duration::from_secs(60);
/// What stays free beside the file of a snapshot, in bytes: for the log and the state, which go on.
const ROOM_LEFT: u64 = 48 << 20;

impl Manager {
    /// Starts every task that is this node's and not taken up yet, as far as there are slots.
    pub(super) fn take_up_work(&self) {
        let tasks = match self.node.meta().state().snapshot_tasks() {
            Ok(tasks) => tasks,
            Err(error) => {
                if let Some(kept_back) = self.node.may_tell(&GroupId::meta(), "tasks") {
                    tracing::error!(kept_back, "read the snapshot tasks: {error}");
                }
                return;
            }
        };
        let mine: Vec<_> = tasks
            .into_iter()
            .filter(|task| task.node == self.node.id())
            .collect();
        // A task whose end was reported may be listed here for a moment more: this replica follows.
        self.taken_up
            .lock()
            .retain(|id| mine.iter().any(|task| task.task_id == *id));
        for task in mine {
            let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
                return;
            };
            if !self.taken_up.lock().insert(task.task_id.clone()) {
                continue;
            }
            let (node, taken_up) = (Arc::clone(&self.node), Arc::clone(&self.taken_up));
            let background = Arc::clone(&self.background);
            tokio::spawn(async move {
                // Given back however the task ends.
                let _slot = slot;
                let task_id = task.task_id.clone();
                if !run_task(&node, &background, task).await {
                    taken_up.lock().remove(&task_id);
                }
            });
        }
    }
}

/// Makes the snapshot and reports how it ended; false when nobody took the report, so that it is to be done again.
async fn run_task(node: &Arc<Node>, background: &Background, task: SnapshotTask) -> bool {
    let span = spans::snapshot(&task);
    carry_out(node, background, task).instrument(span).await
}

async fn carry_out(node: &Arc<Node>, background: &Background, task: SnapshotTask) -> bool {
    let began = Instant::now();
    let made = make(node, background, &task).await;
    let span = Span::current();
    match &made {
        Ok(index) => drop(span.record("confman.index", spans::number(*index))),
        // What stands before the colon is the phase.
        Err(error) => spans::failed(&span, error.split(':').next().unwrap_or_default()),
    }
    let result = if made.is_ok() { "ok" } else { "failed" };
    metrics::counter!("confman_snapshot_tasks_total", "group" => task.group.clone(), "result" => result).increment(1);
    let error = match made {
        Ok(index) => {
            tracing::info!(group = %task.group, index, seconds = began.elapsed().as_secs_f64(), reason = %task.reason, "snapshot verified and recorded");
            None
        }
        Err(error) => {
            tracing::warn!(group = %task.group, "snapshot failed: {error}");
            Some(error)
        }
    };
    // Without this the leader takes the task back at its deadline.
    let until = Instant::now() + RECORD_WITHIN;
    while let Err(e) = finish(node, &task.task_id, error.clone()).await {
        let refused = matches!(e, ForwardError::Refused(_));
        if refused || Instant::now() > until {
            tracing::warn!(group = %task.group, "report the end of a snapshot task: {e}");
            return refused;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    true
}

/// Makes the snapshot; the error is `phase: message`, with a hint in a line of its own.
async fn make(
    node: &Arc<Node>,
    background: &Background,
    task: &SnapshotTask,
) -> Result<u64, String> {
    let group = task
        .group
        .parse()
        .ok()
        .and_then(|id| node.group(&id))
        .ok_or_else(|| format!("build: no group {}", task.group))?;
    let not_begun = |e: DoorError| {
        metrics::counter!("confman_snapshot_not_begun_total", "class" => e.class()).increment(1);
        format!("upload: {e}")
    };
    // Before anything is built: a store that is away is not worth reading and compressing the whole state.
    node.store().look().await.map_err(not_begun)?;
    let repository = node
        .store()
        .claimed(node.cluster(), &node.identity().lineage)
        .await
        .map_err(not_begun)?;
    // The snapshot holds what was acknowledged before it was asked for; without a leader it holds
    // what this replica has, which is committed all the same.
    if let Err(error) = group.barrier(&ReadMode::Linearizable).await {
        tracing::debug!(group = %group.id(), "snapshot of what is here: {error}");
    }
    let state = group.state().clone();
    let now_us = group.now_us();
    let view = tokio::task::spawn_blocking(move || state.open_view(now_us))
        .await
        .map_err(|e| format!("build: {e}"))?
        .map_err(|e| format!("build: {e}"))?;
    room_for(node, &group)?;
    let membership = (&view.info.membership).into();
    let index = view.info.position.index;
    let options = BuildOptions {
        write: WriteOptions {
            codec: codec(node.settings().snapshot.compression),
            ..WriteOptions::default()
        },
        tmp_dir: node.paths().tmp(),
        builder_node: node.id(),
        nonce: rand::random(),
    };
    let name = task.group.clone();
    let progress =
        move |phase: Phase| tracing::debug!(group = %name, index, phase = phase.name(), "snapshot");
    // On threads that stand back behind apply and heartbeats (I5).
    let built = async move { build_and_upload(view, &repository, &options, progress).await }
        .instrument(Span::current());
    let record = background
        .run(built)
        .await
        .map_err(|e| format!("build: {e}"))?
        .map_err(told)?;
    Span::current()
        .record("confman.snapshot.id", display(&record.id))
        .record("confman.snapshot.bytes", spans::number(record.object_bytes));
    let op = Op::SnapshotVerified(SnapshotVerified {
        record: Some(record),
        membership: Some(membership),
    });
    let recording = record_in_group(node, &group, op);
    spans::within(spans::record(), ForwardError::kind, recording)
        .await
        .map_err(|e| format!("record: {e}"))?;
    Ok(index)
}

/// Whether the file that is made before the upload fits: a disk that is full ends the node.
fn room_for(node: &Node, group: &Group) -> Result<(), String> {
    let last = group.state().stats().last_snapshot;
    let need = last.map_or(0, |r| r.object_bytes).saturating_add(ROOM_LEFT);
    match account::room(node) {
        Some(disk) if disk.free < need => Err(format!(
            "build: {} bytes are free on the disk of the data directory, {need} are needed for the snapshot's file and what is written meanwhile\nhint: give the disk room (`drtool runbook disk-full`)",
            disk.free
        )),
        _ => Ok(()),
    }
}

/// Offers the record until a leader takes it; asking twice records it once.
async fn record_in_group(node: &Node, group: &Arc<Group>, op: Op) -> Result<(), ForwardError> {
    let until = Instant::now() + RECORD_WITHIN;
    loop {
        match forward::propose(node, group, op.clone()).await {
            Ok(_) => return Ok(()),
            Err(error @ ForwardError::Refused(_)) => return Err(error),
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(300)).await,
        }
    }
}

fn told(error: BuildError) -> String {
    format!("{}: {}", error.phase.name(), error.source)
}

fn codec(compression: Compression) -> Codec {
    match compression {
        Compression::Zstd => Codec::Zstd,
        Compression::Gzip => Codec::Gzip,
        Compression::None => Codec::None,
    }
}
