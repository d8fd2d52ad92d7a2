//! Which snapshots to try, in which order: a pure function of what the living cluster has recorded.
//!
//! Only what the cluster has committed as verified is tried. What the store lists beside it is told to the
//! operator and never used: a listing may be stale, and an unrecorded snapshot may be of a state that the
//! cluster never had. Order is by position, never by clock.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use confman_snapshot::model::{ClusterId, GroupId};
use confman_snapshot::repository::Listing;
use confman_snapshot::{SnapshotId, SnapshotRecord};

use crate::report::Skipped;

/// How many snapshots are tried before the leader is asked instead.
const ATTEMPTS_MAX: usize = 16;

/// What will be tried.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Snapshots to try, newest first.
    pub tries: Vec<SnapshotRecord>,
    /// Records that are not tried, each with the reason.
    pub skipped: Vec<Skipped>,
    /// What the operator should know, each a sentence.
    pub notes: Vec<String>,
}

/// Orders the candidates of one group. `listing` is what the store shows, if it could be asked.
pub fn plan(
    cluster: &ClusterId,
    group: &GroupId,
    candidates: &[SnapshotRecord],
    listing: Option<&Listing>,
) -> Plan {
    let mut plan = Plan::default();
    let mut seen: BTreeSet<SnapshotId> = BTreeSet::new();
    let mut ordered: Vec<&SnapshotRecord> = candidates.iter().collect();
    ordered.sort_by_key(|r| Reverse((r.position.index, r.incarnation, r.id)));
    for record in ordered {
        if !seen.insert(record.id) {
            continue;
        }
        match unfit(cluster, group, record) {
            Some(why) => plan
                .skipped
                .push(Skipped::new(record.id, record.position.index, why)),
            None if plan.tries.len() < ATTEMPTS_MAX => plan.tries.push(record.clone()),
            None => {}
        }
    }
    if let Some(listing) = listing {
        plan.notes = compare(&plan, &seen, listing);
    }
    plan
}

/// Why a record may not be used at all.
fn unfit(cluster: &ClusterId, group: &GroupId, record: &SnapshotRecord) -> Option<String> {
    if record.group != *group {
        return Some(format!("it is of group {}, not {group}", record.group));
    }
    if record.cluster_uuid != cluster.uuid {
        return Some(format!(
            "it is of cluster {}, not {}",
            record.cluster_uuid, cluster.uuid
        ));
    }
    if record.incarnation > cluster.incarnation {
        return Some(format!(
            "it is of incarnation {}, the cluster is in {}",
            record.incarnation, cluster.incarnation
        ));
    }
    record.check().err().map(|error| error.to_string())
}

/// What the store lists and the cluster does not know, and the other way round.
fn compare(plan: &Plan, recorded: &BTreeSet<SnapshotId>, listing: &Listing) -> Vec<String> {
    let mut notes = Vec::new();
    let listed: BTreeSet<SnapshotId> = listing.snapshots.iter().map(|s| s.id).collect();
    for record in &plan.tries {
        if !listed.contains(&record.id) {
            notes.push(format!("the store does not list snapshot {}", record.id));
        }
    }
    let newest = plan.tries.first().map_or(0, |r| r.position.index);
    let unknown = listed
        .iter()
        .filter(|id| id.index > newest && !recorded.contains(id))
        .count();
    if unknown > 0 {
        notes.push(format!(
            "the store lists {unknown} newer snapshots that the cluster has not recorded; they are not used"
        ));
    }
    notes
}
