//! Objects that no record names: a builder died between upload and record, or lost its race.
//!
//! Judged by [`judge_orphans`], with a grace longer than any build takes, by this leader's own clock: a
//! new leader counts anew. What is deleted was never recorded, so nothing can refer to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use confman_snapshot::SnapshotId;
use confman_snapshot::model::GroupId;
use confman_snapshot::paths::NoteKind;
use confman_snapshot::retention::{Decision, Orphan, SnapshotFact, judge_orphans};

use super::{Failure, Manager};
use crate::group::Group;

/// How often a group's prefix is listed.
const LIST_EVERY: Duration = Duration::from_secs(1800);
/// How long an orphan must have been seen.
const GRACE: Duration = Duration::from_secs(24 * 3600);

/// Since when each orphan has been seen, and when each group was listed last.
#[derive(Default)]
pub(super) struct Seen {
    listed: BTreeMap<GroupId, Instant>,
    since: BTreeMap<(GroupId, SnapshotId), Instant>,
}

impl Manager {
    pub(super) async fn collect_orphans(&self, group: &Arc<Group>) -> Result<(), Failure> {
        {
            let mut seen = self.orphans.lock();
            let now = Instant::now();
            // The first listing waits a whole interval too: a start has better things to do.
            let listed = seen.listed.entry(group.id().clone()).or_insert(now);
            if now.duration_since(*listed) < LIST_EVERY {
                return Ok(());
            }
            *listed = now;
        }
        let repository = self.claimed().await?;
        let listing = repository.list_snapshots(group.id()).await?;
        let facts: Vec<SnapshotFact> = group
            .state()
            .snapshots()?
            .into_iter()
            .map(|f| SnapshotFact {
                record: f.record,
                marked_us: f.marked_us,
            })
            .collect();
        let unknown: Vec<SnapshotId> = listing
            .snapshots
            .into_iter()
            .map(|listed| listed.id)
            .filter(|id| !facts.iter().any(|f| f.record.id == *id))
            .collect();
        let orphans = self.seen_for(group.id(), &unknown);
        let grace_us = i64::try_from(GRACE.as_micros()).unwrap_or(i64::MAX);
        let pins = self.pins(&repository, group.id()).await?;
        for verdict in judge_orphans(&orphans, &facts, &pins, grace_us) {
            if verdict.decision == Decision::Delete
                && !repository
                    .has_note(NoteKind::Pin, group.id(), &verdict.id)
                    .await?
            {
                repository.delete_snapshot(group.id(), &verdict.id).await?;
                tracing::info!(group = %group.id(), snapshot = %verdict.id, reason = %verdict.reason, "orphan deleted from the store");
            }
        }
        Ok(())
    }

    fn seen_for(&self, group: &GroupId, unknown: &[SnapshotId]) -> Vec<Orphan> {
        let mut seen = self.orphans.lock();
        seen.since
            .retain(|(of, id), _| of != group || unknown.contains(id));
        unknown
            .iter()
            .map(|id| {
                let since = seen
                    .since
                    .entry((group.clone(), *id))
                    .or_insert_with(Instant::now);
                let seen_for_us = i64::try_from(since.elapsed().as_micros()).unwrap_or(i64::MAX);
                Orphan {
                    id: *id,
                    seen_for_us,
                }
            })
            .collect()
    }
}
