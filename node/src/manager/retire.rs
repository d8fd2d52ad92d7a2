//! The leader carries out what retention decides: mark first, delete after the grace, forget last.

use std::sync::Arc;

use confman_snapshot::SnapshotId;
use confman_snapshot::retention::{Decision, Policy, SnapshotFact, judge};
use confman_store::command::{Op, SnapshotIds};

use super::{Failure, Manager};
use crate::forward;
use crate::group::{Group, now_us};

impl Manager {
    pub(super) async fn retire(&self, group: &Arc<Group>) -> Result<(), Failure> {
        let facts: Vec<SnapshotFact> = group
            .state()
            .snapshots()?
            .into_iter()
            .map(|f| SnapshotFact {
                record: f.record,
                marked_us: f.marked_us,
            })
            .collect();
        let snapshot = &self.node.settings().snapshot;
        let policy = Policy {
            keep: snapshot.retention_count,
            grace_us: i64::try_from(snapshot.delete_grace.as_micros()).unwrap_or(i64::MAX),
        };
        let verdicts = judge(&facts, &policy, now_us());
        let chosen = |decision: Decision| -> Vec<SnapshotId> {
            verdicts
                .iter()
                .filter(|v| v.decision == decision)
                .map(|v| v.id)
                .collect()
        };
        let mark = chosen(Decision::Mark);
        if !mark.is_empty() {
            let ids = mark.iter().map(SnapshotId::to_string).collect();
            forward::propose(&self.node, group, Op::SnapshotsMarked(SnapshotIds { ids })).await?;
        }
        // Who joins, or is sent a snapshot, may be reading what it was offered, however long that takes.
        if self.somebody_joins() || group.transfers_snapshot() {
            return Ok(());
        }
        let mut deleted = Vec::new();
        for id in chosen(Decision::Delete) {
            let repository = self
                .node
                .store()
                .claimed(self.node.cluster(), &self.node.identity().lineage)
                .await?;
            repository.delete_snapshot(group.id(), &id).await?;
            tracing::info!(group = %group.id(), snapshot = %id, "old snapshot deleted from the store");
            deleted.push(id.to_string());
        }
        if !deleted.is_empty() {
            forward::propose(
                &self.node,
                group,
                Op::SnapshotsDeleted(SnapshotIds { ids: deleted }),
            )
            .await?;
        }
        Ok(())
    }
}
