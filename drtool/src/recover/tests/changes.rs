//! The loss while the membership was being changed: every membership that may have been in effect counts.

use confman_snapshot::model::{Membership, Position};

use super::kit::*;
use crate::recover::collection::Directory;

fn set(position: Position, voters: &[&[u64]]) -> Membership {
    Membership {
        position: Some(position),
        voters: voters
            .iter()
            .map(|set| set.iter().copied().collect())
            .collect(),
        ..members(1..=5)
    }
}

/// A directory of five with the log up to 9, known to be committed up to 7, and these memberships beside the first.
fn changing(id: u64, more: &[Membership]) -> Directory {
    let mut directory = node(id, 5, at(2, 9), at(2, 7));
    for group in &mut directory.groups {
        group.memberships.extend(more.iter().cloned());
    }
    directory
}

fn is_unknown(directories: Vec<Directory>, lost: &[&str]) -> bool {
    let plan = planned(&collection(directories), &wishes(lost));
    let unknown = plan.groups.iter().map(|g| g.loss.unknown.is_some());
    let unknown: Vec<bool> = unknown.collect();
    assert!(unknown.iter().all(|u| *u == unknown[0]), "{plan}");
    // Ids may have been given, too, where entries may have been written.
    assert_eq!(plan.survivor.new_id > 6, unknown[0], "{plan}");
    unknown[0]
}

const LOST: &[&str] = &["node3", "node4", "node5"];

#[test]
fn i15_a_change_that_reached_nobody_does_not_hide_what_the_others_acknowledged() {
    // Leader 1 appended the first half of a change to three and died; the others went on as five.
    let joint = set(at(2, 9), &[&[1, 2, 3, 4, 5], &[1, 2, 3]]);
    let seen = vec![changing(1, &[joint]), node(2, 5, at(2, 8), at(2, 7))];
    assert!(is_unknown(seen, LOST));
}

#[test]
fn i15_a_change_may_have_been_ended_by_those_who_are_not_here() {
    // From {1, 2, 3} to {3, 4, 5}: both 1 and 2 have the first half, 3, 4 and 5 may have gone on with the second.
    let joint = set(at(2, 9), &[&[1, 2, 3], &[3, 4, 5]]);
    let mut seen = vec![changing(1, &[]), changing(2, &[])];
    for directory in &mut seen {
        for group in &mut directory.groups {
            group.memberships = vec![set(at(1, 0), &[&[1, 2, 3]]), joint.clone()];
        }
    }
    assert!(is_unknown(seen, LOST));
}

#[test]
fn what_was_known_to_be_over_and_what_a_later_leader_replaced_does_not_count() {
    // Committed: {1, 2, 3, 4} alone count, of which two are here.
    let four = set(at(2, 6), &[&[1, 2, 3, 4]]);
    let seen = vec![
        changing(1, std::slice::from_ref(&four)),
        changing(2, std::slice::from_ref(&four)),
    ];
    assert!(!is_unknown(seen, LOST));
    // The change stands in the log of 1 alone, and the later leader whose entries 2 has did without it.
    let joint = set(at(2, 8), &[&[1, 2, 3, 4], &[3, 4, 5]]);
    let old = changing(1, &[four.clone(), joint]);
    let mut late = node(2, 5, at(3, 8), at(2, 7));
    for group in &mut late.groups {
        group.leaders = vec![at(1, 0), at(2, 5), at(3, 8)];
        group.memberships.push(four.clone());
    }
    assert!(!is_unknown(vec![old, late], LOST));
}
