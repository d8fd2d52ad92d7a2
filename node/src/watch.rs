//! What a running node watches in itself: a group that failed, a newer life of its cluster that it met, and
//! restores that have caught up. What the store says of newer lives is [`crate::fence`]'s.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use confman_bootstrap::report::{self, Stage};
use confman_snapshot::model::GroupId;
use openraft::async_runtime::WatchReceiver;
use tokio_util::sync::CancellationToken;

use crate::clock::wall_us;
use crate::node::Node;
use crate::peer::acquaintance::Rejected;

const LOOK: Duration = Duration::from_millis(200);

/// Resolves with the error when a group of this node cannot go on: the node stops and says so.
pub(crate) async fn failure(node: &Arc<Node>) -> anyhow::Error {
    let each = node.groups().map(|group| {
        Box::pin(async move {
            let mut metrics = group.raft().metrics();
            loop {
                let state = metrics.borrow_watched().running_state.clone();
                if let Err(fatal) = state {
                    return anyhow::anyhow!("group {}: {}", group.id(), group.why_failed(&fatal));
                }
                if metrics.changed().await.is_err() {
                    return anyhow::anyhow!("group {}: Raft has ended", group.id());
                }
            }
        })
    });
    futures::future::select_all(each).await.0
}

/// Resolves when a node of a newer life of this cluster was met (I13).
pub(crate) async fn newer(mut told: tokio::sync::watch::Receiver<Option<String>>) -> String {
    match told.wait_for(Option::is_some).await {
        Ok(reason) => reason.clone().unwrap_or_default(),
        Err(_) => std::future::pending().await,
    }
}

/// Resolves when a member of this cluster says that this node's id was retired (I14).
pub(crate) async fn retired(
    mut told: tokio::sync::watch::Receiver<Option<String>>,
) -> anyhow::Error {
    match told.wait_for(Option::is_some).await {
        // The words are another node's, with the remedy.
        Ok(reason) => anyhow::anyhow!(
            "{}",
            reason.as_deref().unwrap_or("this node id was retired")
        ),
        Err(_) => std::future::pending().await,
    }
}

/// Resolves when a peer does not take this process for the node that it says it is (I14).
pub(crate) async fn rejected(
    mut told: tokio::sync::watch::Receiver<Option<Rejected>>,
) -> anyhow::Error {
    match told.wait_for(Option::is_some).await {
        Ok(rejected) => anyhow::anyhow!(
            "{}",
            rejected.as_ref().map(Rejected::told).unwrap_or_default()
        ),
        Err(_) => std::future::pending().await,
    }
}

/// Says who leads each group whenever that changes, and when nobody does.
pub(crate) async fn leaders(node: Arc<Node>, stop: CancellationToken) {
    let mut known: BTreeMap<GroupId, Option<u64>> = BTreeMap::new();
    loop {
        for group in node.groups() {
            let leader = group.leader_peer().map(|l| l.info);
            let id = leader.as_ref().map(|l| l.id);
            if known.get(group.id()) == Some(&id) {
                continue;
            }
            let term = group.metrics().current_term;
            metrics::counter!("confman_raft_leader_changes_total", "group" => group.id().to_string()).increment(1);
            match leader {
                Some(leader) if leader.id == node.id() => {
                    tracing::info!(group = %group.id(), term, "this node leads")
                }
                Some(leader) => {
                    tracing::info!(group = %group.id(), term, leader = %leader.name, leader_id = leader.id, "leader known")
                }
                None if known.contains_key(group.id()) => {
                    tracing::warn!(group = %group.id(), term, "no leader: nothing was heard from one, or no quorum answers");
                }
                None => {}
            }
            known.insert(group.id().clone(), id);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Completes the account of every restore when its replica has caught up.
pub(crate) async fn restores(node: Arc<Node>, stop: CancellationToken) {
    loop {
        for group in node.groups() {
            let Some(mut report) = node.restore_report(group.id()) else {
                continue;
            };
            if report.stage() == Stage::CaughtUp {
                continue;
            }
            let raft = group.metrics();
            let votes = raft
                .committed_membership_config
                .membership()
                .voter_ids()
                .any(|id| id == node.id());
            let committed = raft.local_committed.as_ref().map_or(0, |id| id.index);
            let applied = *group.state().applied_watch().borrow();
            if !(votes || node.shall_learn()) || applied < committed {
                continue;
            }
            report.caught_up(report.snapshot_index, applied, wall_us());
            if let Err(error) = report::write(&node.paths().group(group.id()), &report) {
                tracing::warn!(group = %group.id(), "keep the account of the restore: {error}");
            }
            tracing::info!(
                group = %group.id(), source = report.source().name(), snapshot = report.snapshot.as_deref(),
                tail_entries = report.tail_entries, seconds = report.seconds(), "this replica is back"
            );
            node.note_restore(group.id(), report);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}
