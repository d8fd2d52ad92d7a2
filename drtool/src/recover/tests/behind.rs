//! The store knows of committed entries that no directory has: there is no plan unless that is said to be given up, what is refused
//! and what is counted is true, and both ways that are left are told with their price.

use confman_snapshot::model::{ClusterId, GroupId, Position};

use super::kit::*;
use crate::recover::collection::{Collection, Directory, StoreSnapshot};
use crate::recover::decide::decide;
use crate::recover::refusal::Refusal;

const LOST: &[&str] = &["node1", "node3"];

fn snapshot(group: GroupId, incarnation: u64, position: Position) -> StoreSnapshot {
    StoreSnapshot {
        group,
        id: format!("at-{}", position.index),
        cluster: ClusterId::new(UUID, incarnation),
        position,
    }
}

/// One directory, and snapshots of both groups.
fn seen(left: Directory, meta: Position, config: Position) -> Collection {
    let mut seen = collection(vec![left]);
    let store = seen.store.as_mut().unwrap();
    store.snapshots = vec![
        snapshot(GroupId::meta(), 1, meta),
        snapshot(GroupId::config(0), 1, config),
    ];
    seen
}

fn behind(seen: &Collection) -> Vec<Refusal> {
    assert_eq!(refused(seen, &wishes(LOST)), ["RECOVER_BEHIND"]);
    decide(seen, &wishes(LOST)).unwrap_err()
}

/// The account of `config/0`, and the printed plan, where its loss was accepted.
fn accepted(seen: &Collection) -> (crate::recover::plan::Loss, String) {
    let mut accepting = wishes(LOST);
    accepting.data_loss.insert(GroupId::config(0));
    let plan = planned(seen, &accepting);
    (plan.groups[1].loss.clone(), plan.to_string())
}

#[test]
fn m15_a_snapshot_that_is_newer_than_every_directory_is_not_lost_without_a_word() {
    let seen = seen(node(2, 3, at(2, 9), at(2, 9)), at(2, 9), at(2, 40));
    let refusals = behind(&seen);
    assert_eq!(refusals.len(), 1, "{refusals:#?}");
    assert_eq!(
        refusals[0].what,
        "config/0: entry 40 (term 2, node 2) is committed (in snapshot at-40 of the store), and the best directory, node2, ends at entry 9 (term 2, node 2): it lacks 31 entries"
    );
    assert_eq!(
        refusals[0].hint,
        "the store has no log that could follow on a directory. Either restore all groups from their snapshots, `drtool restore plan`, which gives up nothing of these directories that can have been committed; or go on from the directories without them: --accept-data-loss config/0"
    );
    // One leader wrote both: the log ends on the way to the snapshot.
    let (loss, _) = accepted(&seen);
    assert_eq!((loss.lost_proven, loss.lost_at_most), (31, false));
    assert_eq!(loss.kept_unproven, 0);
    assert_eq!(loss.unknown.as_ref().unwrap().from, 41);
}

#[test]
fn m15_a_tail_that_others_may_have_replaced_is_not_said_to_be_proven() {
    // Ends before the snapshot, at it, and after it; of none is more than 80 known to be what was committed.
    for (end, lost, kept) in [(85, 10, 5), (90, 10, 10), (100, 10, 20)] {
        let left = node(2, 3, at(2, end), at(2, 80));
        let seen = seen(left, at(2, 80), at(3, 90));
        let refusals = behind(&seen);
        let words = format!(
            "up to 10 entries are missing there, and its own last {kept} entries may be others"
        );
        assert!(refusals[0].what.contains(&words), "{}", refusals[0]);
        let (loss, text) = accepted(&seen);
        assert_eq!((loss.lost_proven, loss.lost_at_most), (lost, true), "{end}");
        assert_eq!(loss.kept_unproven, kept, "{end}");
        assert!(text.contains("LOST: up to 10 entries"), "{text}");
        assert!(text.contains("in their place"), "{text}");
    }
    // Two may lead in one term, one after the other.
    let left = node(2, 3, at(2, 85), at(2, 80));
    let (loss, _) = accepted(&seen(left, at(2, 80), Position::new(2, 3, 90)));
    assert_eq!((loss.lost_proven, loss.lost_at_most), (10, true));
    // All that it has was committed: then nothing of it can have been replaced.
    let (loss, text) = accepted(&seen(
        node(2, 3, at(2, 80), at(2, 80)),
        at(2, 80),
        at(3, 90),
    ));
    assert_eq!((loss.lost_proven, loss.lost_at_most), (10, false));
    assert!(text.contains("LOST: 10 entries"), "{text}");
}

/// What another directory knows to be committed says nothing of a log that ends before it.
#[test]
fn m15_only_what_the_survivor_itself_has_counts_as_kept() {
    let one = node(1, 5, at(2, 20), at(2, 20));
    let two = node(2, 5, at(2, 40), at(2, 40));
    let mut seen = seen(one, at(2, 20), at(3, 60));
    seen.directories.push(two);
    let mut accepting = wishes(&["node3", "node4", "node5"]);
    accepting.survivor = Some("node1".to_owned());
    accepting
        .data_loss
        .extend([GroupId::meta(), GroupId::config(0)]);
    let loss = &planned(&seen, &accepting).groups[1].loss;
    assert_eq!((loss.lost_proven, loss.lost_at_most), (40, false));
    assert_eq!((loss.kept_unproven, loss.dropped.len()), (0, 1));
}

/// What the refusal counts is what is given up: another directory that has more of the group than the survivor is still taken.
#[test]
fn m15_what_is_accepted_is_what_the_refusal_said() {
    let mut one = node(1, 5, at(2, 90), at(2, 90));
    one.groups[1] = node(1, 5, at(2, 20), at(2, 20)).groups[1].clone();
    let two = node(2, 5, at(2, 40), at(2, 40));
    let mut seen = seen(one, at(2, 10), at(2, 60));
    seen.directories.push(two);
    let lost = ["node3", "node4", "node5"];
    let refusals = decide(&seen, &wishes(&lost)).unwrap_err();
    let said = &refusals[0].what;
    assert!(said.contains("the best directory, node2"), "{said}");
    assert!(said.ends_with("it lacks 20 entries"), "{said}");
    let mut accepting = wishes(&lost);
    accepting.data_loss.insert(GroupId::config(0));
    let plan = planned(&seen, &accepting);
    assert_eq!(plan.survivor.info.name, "node1");
    assert_eq!(plan.groups[1].from.name, "node2");
    assert_eq!(plan.groups[1].loss.lost_proven, 20);
    accepting.survivor = Some("node1".to_owned());
    let named = planned(&seen, &accepting);
    assert_eq!(named.groups[1].from.name, "node1");
    assert_eq!(named.groups[1].loss.lost_proven, 40);
}

#[test]
fn m15_a_snapshot_on_the_way_of_the_log_proves_what_leads_to_it() {
    let left = node(2, 3, at(2, 100), at(2, 80));
    let seen = seen(left, at(2, 80), at(2, 90));
    let plan = planned(&seen, &wishes(LOST));
    let loss = &plan.groups[1].loss;
    assert_eq!((loss.lost_proven, loss.kept_unproven), (0, 10));
    let proof = loss.proven.as_ref().unwrap();
    assert_eq!(proof.by, "in snapshot at-90 of the store");
}

#[test]
fn m15_what_a_restore_would_give_up_in_other_groups_is_told() {
    let left = node(2, 3, at(2, 40), at(2, 40));
    let mut seen = seen(left, at(2, 37), at(2, 90));
    let hint = behind(&seen)[0].hint.clone();
    assert!(
        hint.contains("gives up 3 entries of __meta/0 after entry 37 that node2 has; or"),
        "{hint}"
    );
    // There is no restoring without a snapshot of every group.
    let store = seen.store.as_mut().unwrap();
    store.snapshots.remove(0);
    let hint = behind(&seen)[0].hint.clone();
    assert!(hint.contains("no snapshot of __meta/0 was found"), "{hint}");
}

#[test]
fn m15_who_tells_of_more_and_is_not_collected_is_to_be_collected() {
    let mut seen = seen(node(2, 3, at(2, 5), at(2, 5)), at(2, 5), at(2, 5));
    seen.live = vec![live(3, None)];
    let refusals = decide(&seen, &wishes(LOST)).unwrap_err();
    let behind = refusals.iter().find(|r| r.code == "RECOVER_BEHIND");
    let behind = behind.unwrap();
    assert!(behind.what.contains("told by node3"), "{behind}");
    assert!(behind.hint.contains("collect its directory"), "{behind}");
}

/// The store keeps what a life wrote whose recovery was undone. Nobody ever wrote in it, and its terms are the highest.
#[test]
fn a_snapshot_of_a_life_that_was_undone_proves_nothing() {
    let mut seen = seen(node(2, 3, at(2, 9), at(2, 9)), at(2, 9), at(2, 9));
    let store = seen.store.as_mut().unwrap();
    store.highest_incarnation = 2;
    let undone = Position::new(1_002, 4, 12);
    store
        .snapshots
        .push(snapshot(GroupId::config(0), 2, undone));
    let plan = planned(&seen, &wishes(LOST));
    assert_eq!(plan.groups[1].loss.lost_proven, 0);
    assert_eq!(plan.new_incarnation, 3);
}
