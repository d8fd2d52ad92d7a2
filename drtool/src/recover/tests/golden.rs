//! Plans as they are printed.

use confman_snapshot::model::{ClusterId, GroupId};

use super::kit::*;
use crate::recover::collection::{GroupFacts, StoreSnapshot};
use crate::recover::plan::Plan;

fn transcript(name: &str, plan: &Plan) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, plan.to_string()));
}

#[test]
fn i15_one_of_three_is_left_and_its_tail_is_not_proven() {
    let mut left = node(2, 3, at(2, 120), at(2, 117));
    for group in &mut left.groups {
        group.tail = (118..=120).map(|index| put(at(2, index), "host")).collect();
    }
    let plan = planned(&collection(vec![left]), &wishes(&["node1", "node3"]));
    assert_eq!(plan.new_incarnation, 2);
    assert_eq!(plan.term, 1_002);
    assert!(plan.survivor.new_id > 3);
    assert_eq!(plan.groups[1].loss.kept_unproven, 3);
    transcript("one-of-three", &plan);
}

#[test]
fn m12_the_survivor_is_the_one_whose_log_ends_last_and_not_the_one_that_has_applied_most() {
    // node4 has applied more; node5 has an entry of a later term.
    let behind = node(4, 5, at(2, 90), at(2, 90));
    let ahead = node(5, 5, at(3, 91), at(2, 40));
    let mut ahead = ahead;
    for group in &mut ahead.groups {
        group.leaders = vec![at(1, 0), at(2, 10), at(3, 91)];
    }
    let mut behind = behind;
    for group in &mut behind.groups {
        group.leaders = vec![at(1, 0), at(2, 10)];
    }
    let plan = planned(
        &collection(vec![behind, ahead]),
        &wishes(&["node1", "node2", "node3"]),
    );
    assert_eq!(plan.survivor.info.name, "node5");
    assert_eq!(plan.others.len(), 1);
    transcript("two-of-five", &plan);
}

#[test]
fn a_tail_that_a_later_leader_replaced_is_dropped_and_said_to_have_never_been_committed() {
    let mut long = node(1, 5, at(2, 99), at(1, 50));
    let mut late = node(2, 5, at(3, 60), at(1, 50));
    for group in &mut long.groups {
        group.leaders = vec![at(1, 0), at(2, 56)];
        group.tail = vec![put(at(2, 98), "a"), put(at(2, 99), "b")];
    }
    for group in &mut late.groups {
        group.leaders = vec![at(1, 0), at(3, 58)];
    }
    let plan = planned(
        &collection(vec![long, late]),
        &wishes(&["node3", "node4", "node5"]),
    );
    assert_eq!(plan.survivor.info.name, "node2");
    let dropped = &plan.groups[1].loss.dropped;
    assert_eq!((dropped[0].from, dropped[0].to), (56, 99));
    assert!(dropped[0].never_committed);
    transcript("replaced-tail", &plan);
}

fn shard(partition: u32, last: u64) -> GroupFacts {
    let leaders = [at(2, 5)];
    GroupFacts {
        committed: Some(at(2, last)),
        ..group(&GroupId::config(partition), 5, &leaders, at(2, last))
    }
}

fn meta(last: u64) -> GroupFacts {
    GroupFacts {
        committed: Some(at(2, last)),
        ..group(&GroupId::meta(), 5, &[at(2, 5)], at(2, last))
    }
}

#[test]
fn a_group_in_which_another_is_ahead_is_taken_from_that_one_and_nothing_is_lost() {
    let one = directory(1, vec![meta(30), shard(0, 70), shard(1, 10)]);
    let two = directory(2, vec![meta(30), shard(0, 50), shard(1, 10)]);
    let three = directory(2, vec![meta(30), shard(0, 50), shard(1, 44)]);
    let lost = wishes(&["node3", "node4", "node5"]);
    let plan = planned(&collection(vec![one.clone(), two]), &lost);
    assert_eq!(plan.survivor.info.name, "node1");
    assert!(plan.groups.iter().all(|g| g.from.name == "node1"));
    let merged = planned(&collection(vec![one.clone(), three.clone()]), &lost);
    assert_eq!(merged.groups[1].from.name, "node1");
    assert_eq!(merged.groups[2].from.name, "node2");
    assert_eq!(merged.others[0].gives, [GroupId::config(1)]);
    assert!(merged.groups.iter().all(|g| g.loss.lost_proven == 0));
    transcript("merged", &merged);
    // Unless the operator gives the difference up by the group's name.
    let mut accepting = lost;
    accepting.data_loss.insert(GroupId::config(1));
    accepting.survivor = Some("node1".to_owned());
    let plan = planned(&collection(vec![one, three]), &accepting);
    assert_eq!(plan.groups[2].from.name, "node1");
    assert_eq!(plan.groups[2].loss.lost_proven, 34);
    assert!(plan.others[0].gives.is_empty());
    transcript("accepted-loss", &plan);
}

#[test]
fn of_an_even_cluster_half_proves_that_nothing_is_lost() {
    let one = node(1, 4, at(2, 80), at(2, 80));
    let two = node(2, 4, at(2, 81), at(2, 80));
    let plan = planned(&collection(vec![one, two]), &wishes(&["node3", "node4"]));
    assert!(plan.groups.iter().all(|g| g.loss.unknown.is_none()));
    transcript("half-of-four", &plan);
}

#[test]
fn m15_a_loss_of_which_only_the_bound_is_known() {
    let mut left = node(2, 3, at(2, 85), at(2, 83));
    for group in &mut left.groups {
        group.tail = (84..=85).map(|index| put(at(2, index), "host")).collect();
    }
    let mut seen = collection(vec![left]);
    let store = seen.store.as_mut().unwrap();
    store.snapshots.push(StoreSnapshot {
        group: GroupId::config(0),
        id: "newest".to_owned(),
        cluster: ClusterId::new(UUID, 1),
        position: at(3, 90),
    });
    let mut accepting = wishes(&["node1", "node3"]);
    accepting.data_loss.insert(GroupId::config(0));
    let plan = planned(&seen, &accepting);
    transcript("behind-the-store", &plan);
}
