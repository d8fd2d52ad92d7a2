//! Every replica purges its own log behind what is recorded as verified (I4).
//!
//! Up to the position of the verified snapshot before the newest (of the newest, while it is the only
//! one), less a margin, and only when all of this holds: the replica's own
//! database is durable past it (the log store sees to that before it purges); no node is joining,
//! which would need what follows the snapshot it was offered; and, at the leader, every follower
//! that answers has it, so that a short lag does not cost it a whole snapshot.

use std::sync::Arc;
use std::time::{Duration, Instant};

use confman_store::records::NodeState;
use openraft::Instant as _;

use super::{Failure, Manager, kind_of};
use crate::group::Group;
use crate::traces::spans;

/// A follower that has not answered for this long does not hold the log back.
const FOLLOWER_SILENT: Duration = Duration::from_secs(60);
/// A joining node holds the log back for at most this long, in microseconds of the group's time.
const JOIN_HOLDS_US: i64 = 3600 * 1_000_000;

/// How long snapshots are streamed by the leader before the store is offered again.
const LOCAL_FOR: Duration = Duration::from_secs(600);

impl Manager {
    pub(super) async fn truncate(&self, group: &Arc<Group>) -> Result<(), Failure> {
        self.local_for_followers(group).await?;
        let stats = group.state().stats();
        let Some(record) = stats.last_snapshot else {
            return Ok(());
        };
        let recorded = record.position.index;
        let raft = group.metrics();
        if raft.snapshot.as_ref().is_none_or(|at| at.index < recorded) {
            // Presents the recorded snapshot to Raft as this replica's own, by reference.
            group.raft().trigger().snapshot().await?;
            return Ok(());
        }
        let behind = self.fallback(group, recorded)?;
        let setting = self.node.settings().snapshot.log_margin;
        let target = behind.saturating_sub(margin(setting, behind));
        let purged = group.state().log_stats().purged.map_or(0, |p| p.index);
        if target <= purged {
            return Ok(());
        }
        if self.somebody_joins() {
            hold(group, "join");
            return Ok(());
        }
        if group.transfers_snapshot() {
            hold(group, "transfer");
            return Ok(());
        }
        let target = match slowest_follower(group) {
            Some(matched) if matched < target => {
                hold(group, "follower");
                matched
            }
            _ => target,
        };
        if target > purged {
            tracing::debug!(group = %group.id(), target, recorded, "purge the log");
            // Durable first (I4), and here, so that Raft does not wait for the sync.
            let state = group.state().clone();
            let purged = async {
                tokio::task::spawn_blocking(move || state.flush_durable()).await??;
                group.raft().trigger().purge_log(target).await?;
                Ok::<(), Failure>(())
            };
            spans::within(spans::purge(group.id(), target), kind_of, purged).await?;
        }
        Ok(())
    }

    /// The position the log must go on from: that of the next older verified snapshot where there is
    /// one, so that a node which finds the newest one damaged can fall back to it and still gets the
    /// rest as log entries (I9, I12).
    fn fallback(&self, group: &Group, newest: u64) -> Result<u64, Failure> {
        let facts = group.state().snapshots()?;
        let older = facts
            .iter()
            .filter(|f| f.marked_us.is_none())
            .map(|f| f.record.position.index);
        Ok(older
            .filter(|index| *index < newest)
            .max()
            .unwrap_or(newest))
    }

    /// A follower could not fetch the recorded snapshot: Raft is given a local one to stream.
    async fn local_for_followers(&self, group: &Arc<Group>) -> Result<(), Failure> {
        if !group.is_leader() && group.state().prefers_local() {
            // The next leader finds out for itself.
            group.control().prefer_local(false);
        }
        let wanted = group.is_leader() && group.state().prefers_local();
        let due = {
            let mut local = self.local.lock();
            if !wanted {
                local.remove(group.id());
                return Ok(());
            }
            match local.get(group.id()) {
                None => {
                    local.insert(group.id().clone(), Instant::now());
                    true
                }
                Some(since) if since.elapsed() > LOCAL_FOR => {
                    // By reference again: whoever wanted it has gone, or the store is back.
                    group.control().prefer_local(false);
                    local.remove(group.id());
                    false
                }
                Some(_) => false,
            }
        };
        if due {
            tracing::info!(group = %group.id(), "a follower cannot reach the store: building a snapshot for it here");
            group.raft().trigger().snapshot().await?;
        }
        Ok(())
    }

    pub(super) fn somebody_joins(&self) -> bool {
        let now_us = self.node.meta().now_us();
        let registered = self.node.registered();
        registered.iter().any(|n| {
            n.state() == NodeState::Joining
                && now_us.saturating_sub(n.admitted_us) < JOIN_HOLDS_US
                && !registered.iter().any(|o| o.name == n.name && o.id > n.id)
        })
    }
}

/// Entries kept behind the snapshot: the setting, but never more than a tenth of the log so far, so
/// that a small group is truncated too.
fn margin(setting: u64, recorded: u64) -> u64 {
    setting.min(recorded / 10)
}

/// At the leader: the lowest index that a follower which answers is known to have.
fn slowest_follower(group: &Group) -> Option<u64> {
    let raft = group.metrics();
    let acks = raft.heartbeat.as_ref()?;
    raft.replication
        .iter()
        .flatten()
        .filter(|(id, _)| **id != group.node_id())
        .filter(|(id, _)| {
            acks.get(id)
                .and_then(|at| at.as_ref())
                .is_some_and(|at| at.elapsed() < FOLLOWER_SILENT)
        })
        .map(|(_, matched)| matched.as_ref().map_or(0, |l| l.index))
        .min()
}

fn hold(group: &Group, why: &'static str) {
    metrics::counter!("confman_log_purge_held_total", "group" => group.id().to_string(), "reason" => why).increment(1);
}

#[cfg(test)]
mod tests {
    use super::margin;

    #[test]
    fn the_margin_is_the_setting_but_never_a_large_part_of_a_small_log() {
        assert_eq!(margin(1000, 10_000), 1000);
        assert_eq!(margin(1000, 50), 5);
        assert_eq!(margin(0, 50), 0);
        assert_eq!(margin(1000, 0), 0);
    }
}
