//! Which snapshots are tried, in which order, and which are not.

// Helpers of a test may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use confman_bootstrap::plan::plan;
use confman_snapshot::model::{ClusterId, GroupId, Position};
use confman_snapshot::repository::{Listed, Listing};
use confman_snapshot::{SnapshotId, SnapshotRecord, paths};
use proptest::prelude::*;

const RED: &str = "11111111-1111-4111-8111-111111111111";
const BLUE: &str = "22222222-2222-4222-8222-222222222222";

fn red(incarnation: u64) -> ClusterId {
    ClusterId::new(RED, incarnation)
}

fn record(index: u64, incarnation: u64, nonce: u32) -> SnapshotRecord {
    let position = Position::new(2, 1, index);
    let id = SnapshotId::new(position, incarnation, nonce);
    let group = GroupId::config(0);
    SnapshotRecord {
        object: paths::snapshot(&group, &id),
        id,
        group,
        cluster_uuid: RED.to_owned(),
        incarnation,
        position,
        manifest_blake3: vec![1; 32],
        state_hash: vec![2; 32],
        // The clock of the builder: must not matter.
        created_us: -(index as i64),
        ..SnapshotRecord::default()
    }
}

fn listed(record: &SnapshotRecord) -> Listed {
    Listed {
        id: record.id,
        object: record.object.clone(),
        bytes: 1,
    }
}

#[test]
fn the_newest_position_is_tried_first_whatever_the_clock_says() {
    let records = [
        record(5, 1, 1),
        record(900, 1, 2),
        record(70, 1, 3),
        record(1000, 2, 4),
    ];
    let plan = plan(&red(2), &GroupId::config(0), &records, None);
    let order: Vec<u64> = plan.tries.iter().map(|r| r.position.index).collect();
    assert_eq!(order, [1000, 900, 70, 5]);
    assert!(plan.skipped.is_empty() && plan.notes.is_empty());
}

#[test]
fn what_is_not_this_groups_history_is_named_and_not_tried() {
    let good = record(10, 1, 1);
    let mut of_blue = record(20, 1, 2);
    of_blue.cluster_uuid = BLUE.to_owned();
    let later_life = record(30, 3, 3);
    let mut of_meta = record(40, 1, 4);
    of_meta.group = GroupId::meta();
    let mut elsewhere = record(50, 1, 5);
    elsewhere.object = "../../etc/passwd".to_owned();
    let records = [
        good.clone(),
        of_blue,
        later_life,
        of_meta,
        elsewhere,
        good.clone(),
    ];
    let plan = plan(&red(2), &GroupId::config(0), &records, None);
    assert_eq!(plan.tries, [good]);
    let why: Vec<String> = plan
        .skipped
        .iter()
        .map(|s| format!("{}: {}", s.index, s.why))
        .collect();
    assert_eq!(why.len(), 4, "{why:?}");
    assert!(
        why[0].starts_with("50: ") && why[0].contains("../../etc/passwd"),
        "{why:?}"
    );
    assert_eq!(why[1], "40: it is of group __meta/0, not config/0");
    assert_eq!(why[2], "30: it is of incarnation 3, the cluster is in 2");
    assert_eq!(why[3], format!("20: it is of cluster {BLUE}, not {RED}"));
}

#[test]
fn o10_a_listing_that_lacks_the_newest_does_not_hide_it() {
    let (old, new) = (record(10, 1, 1), record(20, 1, 2));
    let listing = Listing {
        snapshots: vec![listed(&old)],
        foreign: 3,
    };
    let plan = plan(
        &red(1),
        &GroupId::config(0),
        &[old, new.clone()],
        Some(&listing),
    );
    assert_eq!(plan.tries[0], new);
    assert_eq!(
        plan.notes,
        [format!("the store does not list snapshot {}", new.id)]
    );
}

#[test]
fn a_listed_snapshot_that_the_cluster_never_recorded_is_not_used() {
    let known = record(10, 1, 1);
    let listing = Listing {
        snapshots: vec![listed(&record(99, 1, 9)), listed(&known)],
        foreign: 0,
    };
    let plan = plan(
        &red(1),
        &GroupId::config(0),
        std::slice::from_ref(&known),
        Some(&listing),
    );
    assert_eq!(plan.tries, [known]);
    assert_eq!(
        plan.notes,
        ["the store lists 1 newer snapshots that the cluster has not recorded; they are not used"]
    );
}

proptest! {
    /// Whatever a peer hands over: what is tried is ours, bounded, in order, and once each.
    #[test]
    fn i19_any_candidates_give_a_bounded_ordered_plan(
        drawn in prop::collection::vec((0u64..50, 0u64..4, 0u32..3, any::<bool>(), any::<bool>()), 0..80),
        shown in prop::collection::vec((0u64..50, 0u64..4, 0u32..3), 0..20),
    ) {
        let records: Vec<SnapshotRecord> = drawn.iter().map(|(index, incarnation, nonce, ours, whole)| {
            let mut record = record(*index, *incarnation, *nonce);
            if !ours { record.cluster_uuid = BLUE.to_owned(); }
            if !whole { record.manifest_blake3.pop(); }
            record
        }).collect();
        let snapshots = shown.iter().map(|(i, c, n)| listed(&record(*i, *c, *n))).collect();
        let listing = Listing { snapshots, foreign: 0 };
        let plan = plan(&red(2), &GroupId::config(0), &records, Some(&listing));
        prop_assert!(plan.tries.len() <= 16);
        for pair in plan.tries.windows(2) {
            prop_assert!(pair[0].position.index >= pair[1].position.index);
            prop_assert_ne!(pair[0].id, pair[1].id);
        }
        for tried in &plan.tries {
            prop_assert!(tried.check().is_ok() && tried.cluster_uuid == RED && tried.incarnation <= 2);
        }
    }
}
