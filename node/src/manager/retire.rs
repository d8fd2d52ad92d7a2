//! The leader carries out what retention decides: mark first, delete after the grace, forget last.
//!
//! What is pinned in the store stays. Pins are asked for only when something would go: a listing before anything is marked,
//! and each snapshot's own pin, by name, right before it is deleted. A store that cannot be asked keeps everything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use confman_snapshot::model::GroupId;
use confman_snapshot::paths::NoteKind;
use confman_snapshot::retention::{Decision, Holds, Policy, SnapshotFact, judge};
use confman_snapshot::{Repository, SnapshotId};
use confman_store::command::{Op, SnapshotIds};

use super::{Failure, Manager, kind_of};
use crate::forward::{self, ForwardError};
use crate::group::Group;
use crate::traces::spans;

/// A pin that was seen keeps its snapshot for this long without being looked for again.
const PINS_KNOWN: Duration = Duration::from_secs(15);

impl Manager {
    pub(super) async fn retire(&self, group: &Arc<Group>) -> Result<(), Failure> {
        // Undone, it would have retired what the life before it counts on. That it begins makes a snapshot of its own due.
        let stats = group.state().stats();
        if stats.may_be_undone && stats.membership.nodes.len() == 1 {
            return Ok(());
        }
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
        let known = self.known_pins(group.id());
        let goes = |holds: &Holds| {
            let verdicts = judge(&facts, holds, &policy, group.now_us());
            verdicts
                .into_iter()
                .filter(|v| v.decision != Decision::Keep)
        };
        if goes(&known).next().is_none() {
            return Ok(());
        }
        let repository = self.claimed().await?;
        let pins = self.pins(&repository, group.id()).await?;
        let verdicts: Vec<_> = goes(&pins).collect();
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
            let span = spans::retention("mark", group.id(), mark.len());
            let op = Op::SnapshotsMarked(SnapshotIds { ids });
            let marking = forward::propose(&self.node, group, op);
            spans::within(span, ForwardError::kind, marking).await?;
        }
        // Who joins, or is sent a snapshot, may be reading what it was offered, however long that takes.
        if self.somebody_joins() || group.transfers_snapshot() {
            return Ok(());
        }
        let due = chosen(Decision::Delete);
        if due.is_empty() {
            return Ok(());
        }
        let span = spans::retention("delete", group.id(), due.len());
        spans::within(span, kind_of, self.delete(group, &repository, due)).await
    }

    /// Deletes what is due and not pinned, and has the group forget it.
    async fn delete(
        &self,
        group: &Arc<Group>,
        repository: &Repository,
        due: Vec<SnapshotId>,
    ) -> Result<(), Failure> {
        let mut deleted = Vec::new();
        for id in due {
            // By name: a pin may be younger than the listing.
            if repository.has_note(NoteKind::Pin, group.id(), &id).await? {
                continue;
            }
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

    /// The store, when the prefix is ours.
    pub(super) async fn claimed(&self) -> Result<Repository, Failure> {
        let store = self.node.store();
        let lineage = &self.node.identity().lineage;
        Ok(store.claimed(self.node.cluster(), lineage).await?)
    }

    /// The pins of a group as the store shows them now.
    pub(super) async fn pins(
        &self,
        repository: &Repository,
        group: &GroupId,
    ) -> Result<Holds, Failure> {
        let pinned = repository.list_notes(NoteKind::Pin, group).await?;
        let holds: Holds = pinned
            .into_iter()
            .map(|id| (id, "pinned in the store".to_owned()))
            .collect();
        let seen = (Instant::now(), holds.clone());
        self.pinned.lock().insert(group.clone(), seen);
        Ok(holds)
    }

    /// The pins of a group that were seen lately: enough to leave something alone, never to let it go.
    fn known_pins(&self, group: &GroupId) -> Holds {
        match self.pinned.lock().get(group) {
            Some((seen, holds)) if seen.elapsed() < PINS_KNOWN => holds.clone(),
            _ => Holds::new(),
        }
    }
}
