//! Stories of plans, and what holds of every plan.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::wire::{Change, ExpectedMember, GroupMembers, MemberWish, Time};

/// Nodes with ids 1.. called node1.., all voters in `groups` groups, node1 leading.
fn town(nodes: u64, groups: u32) -> Members {
    let node = |id: u64| MemberNode {
        id,
        name: format!("node{id}"),
        api_url: format!("http://n{id}:6100"),
        peer_addr: format!("n{id}:6101"),
        state: MemberState::Active,
        wish: MemberWish::Voter,
        replaces: None,
        removed_index: None,
        admitted_at: Time::from_us(0),
        up: true,
    };
    let group = |name: String| GroupMembers {
        group: name,
        leader: Some(1),
        voters: (1..=nodes).collect(),
        learners: Vec::new(),
        joint: false,
    };
    Members {
        cluster_uuid: "9364aa70-e271-4c58-ae67-4d9335cf3d17".to_owned(),
        incarnation: 1,
        registry: "abc".to_owned(),
        nodes: (1..=nodes).map(node).collect(),
        expected: Vec::new(),
        change: None,
        groups: std::iter::once("__meta/0".to_owned())
            .chain((0..groups).map(|n| format!("config/{n}")))
            .map(group)
            .collect(),
    }
}

fn down(mut members: Members, ids: &[u64]) -> Members {
    for node in members.nodes.iter_mut().filter(|n| ids.contains(&n.id)) {
        node.up = false;
    }
    members
}

fn learner(mut members: Members, id: u64) -> Members {
    for node in members.nodes.iter_mut().filter(|n| n.id == id) {
        node.wish = MemberWish::Learner;
    }
    for group in &mut members.groups {
        group.voters.retain(|voter| *voter != id);
        group.learners.push(id);
    }
    members
}

fn retired(mut members: Members, id: u64) -> Members {
    for node in members.nodes.iter_mut().filter(|n| n.id == id) {
        node.state = MemberState::Retired;
        node.removed_index = Some(77);
    }
    for group in &mut members.groups {
        group.voters.retain(|voter| *voter != id);
    }
    members
}

fn running(mut members: Members, kind: &str, name: &str) -> Members {
    members.change = Some(Change {
        id: "c1".to_owned(),
        kind: kind.to_owned(),
        words: format!("{kind} {name}"),
        name: name.to_owned(),
        node_id: None,
        old_name: None,
        group: None,
        actor: "ann".to_owned(),
        begun_at: Time::from_us(0),
        ended_at: None,
        error: None,
    });
    members
}

fn expecting(mut members: Members, name: &str) -> Members {
    members.expected.push(ExpectedMember {
        name: name.to_owned(),
        peer_addr: format!("{name}:6101"),
        since: Time::from_us(0),
        learner_only: false,
        replaces: None,
    });
    members
}

fn add(name: &str) -> ChangeIntent {
    ChangeIntent::Add {
        name: name.to_owned(),
        peer_addr: format!("{name}:6101"),
        learner_only: false,
    }
}

fn remove(name: &str) -> ChangeIntent {
    ChangeIntent::Remove {
        name: name.to_owned(),
    }
}

fn promote(name: &str) -> ChangeIntent {
    ChangeIntent::Promote {
        name: name.to_owned(),
    }
}

fn demote(name: &str) -> ChangeIntent {
    ChangeIntent::Demote {
        name: name.to_owned(),
    }
}

fn replace(old_name: &str, name: &str, peer_addr: Option<&str>) -> ChangeIntent {
    ChangeIntent::Replace {
        old_name: old_name.to_owned(),
        name: name.to_owned(),
        peer_addr: peer_addr.map(str::to_owned),
    }
}

fn lead(name: &str, group: Option<&str>) -> ChangeIntent {
    ChangeIntent::TransferLeader {
        name: name.to_owned(),
        group: group.map(str::to_owned),
    }
}

fn story(cases: Vec<(&str, Members, ChangeIntent)>) -> String {
    let mut story = String::new();
    for (what, members, intent) in cases {
        let told = match plan(&intent, &members, false) {
            Ok(plan) => plan.to_string(),
            Err(refused) => {
                assert!(REFUSALS.contains(&refused.code), "{}", refused.code);
                format!(
                    "refused [{}]: {}\nhint: {}\n",
                    refused.code, refused.what, refused.hint
                )
            }
        };
        let _ = writeln!(story, "== {what}\n{told}");
    }
    story
}

#[test]
fn plans() {
    let lost_disk = {
        let mut members = town(3, 1);
        let mut again = members.nodes[2].clone();
        (again.id, again.state, again.replaces) = (4, MemberState::Joining, Some(3));
        members.nodes.push(again);
        members
    };
    insta::assert_snapshot!(story(vec![
        ("a fourth node", town(3, 1), add("node4")),
        (
            "as a learner",
            town(3, 0),
            ChangeIntent::Add {
                name: "node4".to_owned(),
                peer_addr: "n4:6101".to_owned(),
                learner_only: true
            }
        ),
        (
            "the learner votes",
            learner(town(4, 0), 4),
            promote("node4")
        ),
        (
            "five become four and lose nothing that counts",
            down(town(5, 0), &[5]),
            remove("node5")
        ),
        ("the leader goes", town(4, 1), remove("node1")),
        ("a voter stops voting", town(4, 0), demote("node2")),
        (
            "a dead node is replaced by a new machine",
            down(town(3, 1), &[2]),
            replace("node2", "node9", Some("n9:6101"))
        ),
        (
            "the leader is replaced by a learner",
            learner(town(4, 0), 4),
            replace("node1", "node4", None)
        ),
        ("another leads", town(3, 1), lead("node2", None)),
        (
            "another leads one group",
            town(3, 1),
            lead("node2", Some("config/0"))
        ),
        (
            "a name that is only expected",
            expecting(town(3, 0), "node4"),
            remove("node4")
        ),
        (
            "whoever lost its disk goes with both of its ids",
            down(lost_disk, &[3, 4]),
            remove("node3")
        ),
        (
            "the same again",
            running(town(3, 0), "add", "node4"),
            add("node4")
        ),
        (
            "called off",
            expecting(running(town(3, 0), "add", "node4"), "node4"),
            remove("node4")
        ),
    ]));
}

#[test]
fn refusals() {
    insta::assert_snapshot!(story(vec![
        ("tolerance drops", town(3, 1), remove("node3")),
        ("tolerance drops by demoting", town(5, 0), demote("node3")),
        ("no quorum now", down(town(3, 0), &[2, 3]), remove("node3")),
        (
            "the result has no quorum",
            down(town(3, 0), &[3]),
            remove("node2")
        ),
        ("the last voter", town(1, 0), remove("node1")),
        (
            "another change",
            running(town(4, 0), "add", "node5"),
            remove("node4")
        ),
        ("unknown", town(3, 0), remove("node7")),
        (
            "exists",
            town(3, 0),
            ChangeIntent::Add {
                name: "node2".to_owned(),
                peer_addr: "n7:1".to_owned(),
                learner_only: false
            }
        ),
        (
            "address taken",
            town(3, 0),
            ChangeIntent::Add {
                name: "node4".to_owned(),
                peer_addr: "n2:6101".to_owned(),
                learner_only: false
            }
        ),
        (
            "no address",
            town(3, 0),
            ChangeIntent::Add {
                name: "node4".to_owned(),
                peer_addr: "http://n4:6101".to_owned(),
                learner_only: false
            }
        ),
        ("no name", town(3, 0), add("no de")),
        (
            "expected elsewhere",
            expecting(running(town(3, 0), "add", "node4"), "node4"),
            ChangeIntent::Add {
                name: "node4".to_owned(),
                peer_addr: "n5:1".to_owned(),
                learner_only: false
            }
        ),
        (
            "promote who is down",
            down(learner(town(4, 0), 4), &[4]),
            promote("node4")
        ),
        (
            "replace by itself",
            town(3, 0),
            replace("node2", "node2", None)
        ),
        (
            "replace by nobody known",
            town(3, 0),
            replace("node2", "node9", None)
        ),
        (
            "replace by a voter",
            town(3, 0),
            replace("node2", "node3", None)
        ),
        (
            "a learner leads",
            learner(town(4, 0), 4),
            lead("node4", None)
        ),
        (
            "who is down leads",
            down(town(3, 0), &[2]),
            lead("node2", None)
        ),
        ("no such group", town(3, 0), lead("node2", Some("config/9"))),
    ]));
}

/// Every intent can be repeated when it is done.
#[test]
fn what_is_already_so_is_nothing_to_do() {
    for (members, intent) in [
        (town(4, 1), add("node4")),
        (town(3, 1), promote("node2")),
        (learner(town(4, 1), 4), demote("node4")),
        (retired(town(4, 1), 4), remove("node4")),
        (retired(town(4, 1), 1), replace("node1", "node4", None)),
        (town(3, 1), lead("node1", None)),
    ] {
        let members = {
            let mut members = members;
            for node in &mut members.nodes {
                node.peer_addr = format!("{}:6101", node.name);
            }
            members
        };
        let plan = plan(&intent, &members, false).unwrap();
        assert!(plan.nothing_to_do.is_some(), "{plan}");
        assert!(
            plan.groups
                .iter()
                .all(|g| g.voters_before == g.voters_after)
        );
    }
}

#[test]
fn less_tolerance_must_be_asked_for_by_name_and_a_quorum_cannot_be_waived() {
    assert_eq!(
        plan(&remove("node3"), &town(3, 0), false).unwrap_err().code,
        "LESS_TOLERANCE"
    );
    assert_eq!(
        plan(&remove("node3"), &town(3, 0), true).unwrap().groups[0].tolerance,
        [1, 0]
    );
    let refused = plan(&remove("node2"), &down(town(3, 0), &[3]), true).unwrap_err();
    assert_eq!(refused.code, "RESULT_HAS_NO_QUORUM");
}

fn any_intent() -> impl Strategy<Value = ChangeIntent> {
    let name = (1_u64..8).prop_map(|id| format!("node{id}"));
    prop_oneof![
        name.clone().prop_map(|n| add(&n)),
        name.clone().prop_map(|n| promote(&n)),
        name.clone().prop_map(|n| demote(&n)),
        name.clone().prop_map(|n| remove(&n)),
        (name.clone(), name.clone()).prop_map(|(o, n)| replace(&o, &n, Some("nx:1"))),
        name.prop_map(|n| lead(&n, None)),
    ]
}

proptest! {
    /// Whatever is down and whoever learns: a plan that is not refused leaves every group able to commit, with at least
    /// the tolerance that it had; it never touches anything while a group has no quorum.
    #[test]
    fn no_plan_weakens_a_cluster(
        nodes in 1_u64..7,
        learners in proptest::collection::btree_set(1_u64..7, 0..3),
        dead in proptest::collection::btree_set(1_u64..7, 0..4),
        intent in any_intent(),
        allow in any::<bool>(),
    ) {
        let mut members = town(nodes, 2);
        for id in learners.into_iter().filter(|id| *id > 1 && *id <= nodes) {
            members = learner(members, id);
        }
        let dead: Vec<u64> = dead.into_iter().collect();
        let members = down(members, &dead);
        let is_up = |id: u64| !dead.contains(&id);
        let now = Strength::of(members.groups[0].voters.iter().copied(), is_up);
        if let Ok(plan) = plan(&intent, &members, allow) {
            prop_assert!(plan.nothing_to_do.is_some() || now.has_quorum());
            for group in &plan.groups {
                let [before, after] = group.tolerance;
                prop_assert!(allow || after >= before, "{plan}");
                prop_assert!(!group.voters_after.is_empty());
            }
            if plan.nothing_to_do.is_none() {
                prop_assert!(!plan.steps.is_empty());
            }
        }
    }
}
