//! Who may join the new life and as what: what was wished for, and not what a node was when the quorum was lost.

use super::kit::*;
use crate::recover::collection::{Directory, ExpectedFacts, NodeFacts, WishFacts};
use crate::recover::plan::Plan;

/// node1's directory in a cluster of four voters, with these words of the registry about node4.
fn knows(change: impl FnOnce(&mut Directory)) -> Directory {
    let mut directory = node(1, 4, at(2, 9), at(2, 9));
    change(&mut directory);
    directory
}

/// In no group does it vote.
fn only_learns(directory: &mut Directory, id: u64) {
    for group in &mut directory.groups {
        for membership in &mut group.memberships {
            for set in &mut membership.voters {
                set.remove(&id);
            }
        }
    }
}

fn plan(directory: Directory) -> Plan {
    planned(
        &collection(vec![directory]),
        &wishes(&["node2", "node3", "node4"]),
    )
}

fn joins(plan: &Plan) -> Vec<(&str, bool)> {
    let expected = plan.expected.iter();
    expected
        .map(|e| (e.info.name.as_str(), e.learner))
        .collect()
}

#[test]
fn a_voter_that_is_being_rebuilt_or_was_just_added_does_not_come_back_as_a_learner() {
    let plan = plan(knows(|directory| only_learns(directory, 4)));
    assert_eq!(
        joins(&plan),
        [("node2", false), ("node3", false), ("node4", false)]
    );
    assert!(
        plan.to_string().contains(
            "may join the new life when empty: node2 (voter), node3 (voter), node4 (voter)"
        ),
        "{plan}"
    );
}

#[test]
fn a_learner_comes_back_as_one_also_where_it_has_not_stopped_voting() {
    let plan = plan(knows(|directory| {
        directory.nodes[3].wish = WishFacts::Learner;
    }));
    assert_eq!(joins(&plan)[2], ("node4", true));
    assert!(plan.to_string().contains("node4 (learner)"), "{plan}");
}

#[test]
fn of_one_name_it_is_the_newest_id_that_counts() {
    let again = |id, retired, wish| NodeFacts {
        id,
        info: info(4),
        retired,
        wish,
    };
    // It has its id and no group yet.
    let plan = plan(knows(|directory| {
        directory.nodes[3].wish = WishFacts::Learner;
        directory.nodes.push(again(7, false, WishFacts::Voter));
        directory.nodes.push(again(8, true, WishFacts::Learner));
    }));
    assert_eq!(joins(&plan)[2], ("node4", false));
}

#[test]
fn names_that_have_not_joined_yet_may_still_do_so() {
    let directory = knows(|directory| {
        for (id, learner) in [(8, true), (9, false)] {
            directory.expected.push(ExpectedFacts {
                info: info(id),
                learner,
            });
        }
        directory.nodes.push(NodeFacts {
            id: 6,
            info: info(6),
            retired: false,
            wish: WishFacts::Learner,
        });
    });
    assert_eq!(
        joins(&plan(directory.clone()))[3..],
        [("node6", true), ("node8", true), ("node9", false)]
    );
    let mut wishes = wishes(&["node2", "node3", "node4"]);
    wishes.gone.insert("node8".to_owned());
    let plan = planned(&collection(vec![directory.clone()]), &wishes);
    assert!(!joins(&plan).contains(&("node8", true)), "{plan}");
    // It has no data that could be lost.
    wishes.lost.insert("node9".to_owned());
    assert_eq!(
        refused(&collection(vec![directory]), &wishes),
        ["RECOVER_UNKNOWN_NAME"]
    );
}

#[test]
fn who_was_being_taken_out_stays_out_and_that_is_said() {
    let plan = plan(knows(|directory| directory.nodes[3].wish = WishFacts::Gone));
    assert_eq!(joins(&plan), [("node2", false), ("node3", false)]);
    assert!(
        plan.notes
            .iter()
            .any(|n| n.starts_with("node4 was being taken out")),
        "{plan}"
    );
}
