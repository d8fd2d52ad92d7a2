//! The end of a node: who asks for it, handing leadership over, closing what is open. All bounds
//! together, that of the last traces too, stay under the 10 s that supervisors give.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

use crate::group::Group;
use crate::node::Node;

/// How long leadership may take to go over.
const HAND_OVER_WITHIN: Duration = Duration::from_millis(2500);
/// How long Raft may take to stop, and the database to flush.
const CLOSE_WITHIN: Duration = Duration::from_millis(2500);

/// Resolves with the reason when the process is asked to stop.
pub(crate) fn asked(exit_with_parent: bool) -> anyhow::Result<impl Future<Output = &'static str>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let parent = async {
            if !exit_with_parent {
                return std::future::pending().await;
            }
            let mut byte = [0u8; 64];
            let mut stdin = tokio::io::stdin();
            while stdin.read(&mut byte).await.is_ok_and(|n| n > 0) {}
        };
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            () = parent => "the parent is gone",
        }
    })
}

/// Gives every leadership to the member that has most of the log, and waits until it is gone.
pub(crate) async fn hand_over(node: &Arc<Node>) {
    let led: Vec<Arc<Group>> = node.groups().filter(|g| g.is_leader()).cloned().collect();
    let handed = futures::future::join_all(led.iter().map(|group| hand_over_one(group))).await;
    if handed.contains(&false) {
        tracing::warn!(
            "leadership was not handed over within {HAND_OVER_WITHIN:?}: the others elect one"
        );
    }
}

/// False when there is a voter that could lead, and none came to.
async fn hand_over_one(group: &Group) -> bool {
    let mut asked: BTreeMap<u64, usize> = BTreeMap::new();
    let gone = group
        .hand_over(HAND_OVER_WITHIN, |raft| {
            let voters: Vec<u64> = raft.membership_config.membership().voter_ids().collect();
            let target = raft
                .replication
                .iter()
                .flatten()
                .filter(|(id, _)| **id != group.node_id() && voters.contains(id))
                // Of equals who was asked least: one that is dead may hold all that there is.
                .max_by_key(|(id, matched)| {
                    (
                        matched.as_ref().map(|l| l.index),
                        Reverse(asked.get(id).copied()),
                    )
                })
                .map(|(id, _)| *id)?;
            let times = asked.entry(target).or_default();
            *times += 1;
            if *times == 1 {
                tracing::info!(group = %group.id(), to = target, "handing leadership over");
            }
            Some(target)
        })
        .await;
    // Nobody to ask, or Raft has ended: nothing that others could be told.
    asked.is_empty() || gone.unwrap_or(true)
}

/// Stops Raft and makes the state durable.
pub(crate) async fn close(node: &Arc<Node>) {
    let all = futures::future::join_all(node.groups().map(|group| async move {
        let _ = group.raft().shutdown().await;
        let state = group.state().clone();
        match tokio::task::spawn_blocking(move || state.flush_durable()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(group = %group.id(), "flush the state: {error}; the log has it")
            }
            Err(error) => {
                tracing::warn!(group = %group.id(), "flush the state: {error}; the log has it")
            }
        }
    }));
    if tokio::time::timeout(CLOSE_WITHIN, all).await.is_err() {
        tracing::warn!("not everything was flushed within {CLOSE_WITHIN:?}; the log has it");
    }
}
