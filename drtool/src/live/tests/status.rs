//! Transcripts of `drtool status` on healthy and broken clusters, and what must hold on any.

use confman_client::wire::StateHashAt;
use proptest::prelude::*;

use super::super::judge;
use super::super::report::{Report, Verdict};
use super::super::show;
use super::kit::{NOW_US, Town, town};

fn report(town: &Town) -> Report {
    judge::report(town.asked(), None, NOW_US)
}

fn transcript(town: &Town) -> String {
    let report = report(town);
    format!(
        "{}exit code {}\n",
        show::text(&report, false),
        report.verdict.exit_code()
    )
}

fn codes(town: &Town) -> Vec<&'static str> {
    report(town).findings.iter().map(|f| f.code).collect()
}

#[test]
fn healthy() {
    insta::assert_snapshot!(transcript(&town(3, 1)));
}

#[test]
fn healthy_json() {
    let report = report(&town(1, 0));
    insta::assert_snapshot!(serde_json::to_string_pretty(&report).unwrap());
}

#[test]
fn one_node_down() {
    let mut town = town(3, 1);
    town.silence(3);
    insta::assert_snapshot!(transcript(&town));
}

#[test]
fn no_quorum() {
    let mut town = town(3, 1);
    town.silence(1);
    town.silence(2);
    town.orphan(3);
    insta::assert_snapshot!(transcript(&town));
}

#[test]
fn broken_in_many_ways() {
    let mut town = town(5, 1);
    // Diverged, behind, of a life that is over, fenced; and a store that fails.
    for node in 1..=3 {
        town.lives_in(node, 2);
    }
    town.status(2).groups[1].state_hash.hash = "cd".repeat(32);
    town.status(3).groups[1].applied_index = 100;
    town.status(3).groups[1].state_hash.index = 100;
    town.close(
        5,
        "this node is fenced: the store has incarnation 2\nhint: run `drtool set-aside` on its data directory",
    );
    for node in 1..=3 {
        town.status(node).groups[1].snapshot = None;
        town.status(node).groups[1].snapshot_error = Some(confman_client::wire::SnapshotError {
            time: confman_client::wire::Time::from_us(NOW_US),
            phase: "upload".to_owned(),
            message: "no such bucket\u{1b}[31m".to_owned(),
            hint: Some("create it".to_owned()),
        });
    }
    insta::assert_snapshot!(transcript(&town));
}

/// One of three was recovered alone, and the two others come back with what they had: the majority is the past.
#[test]
fn i13_an_old_majority_has_come_back() {
    let mut town = town(3, 1);
    town.alone(3);
    town.lives_in(3, 2);
    insta::assert_snapshot!(transcript(&town));
    let told = report(&town);
    assert_eq!(
        (told.incarnation, told.verdict),
        (Some(2), Verdict::Degraded)
    );
    for finding in &told.findings {
        assert!(!finding.view.contains("node3"), "{finding}");
        let hint = finding.hint.as_deref().unwrap_or_default();
        assert!(!hint.contains("member remove"), "{finding}");
    }
}

/// Only the survivor is named to the tool, and it is well; the two names that it waits for are what is not.
#[test]
fn a_cluster_that_waits_for_members_is_not_healthy() {
    let mut town = town(3, 1);
    town.alone(3);
    town.nodes.drain(..2);
    assert_eq!(
        report(&town).verdict,
        Verdict::Healthy,
        "a cluster of one is no fault"
    );
    town.expect(1);
    town.expect(2);
    insta::assert_snapshot!(transcript(&town));
    assert_eq!(report(&town).verdict, Verdict::Degraded);
}

#[test]
fn of_two_clusters_the_one_with_more_nodes_is_meant() {
    let mut town = town(3, 0);
    let stranger = town.status(2);
    stranger.cluster_uuid = "7d1f43f5-9d7a-4b9e-8f0e-5b1f5e1a0b11".to_owned();
    stranger.incarnation = 9;
    let told = report(&town);
    assert_eq!(
        told.incarnation,
        Some(1),
        "another cluster's number says nothing"
    );
    assert_eq!(told.findings[0].code, "LIVES_DIFFER");
    assert_eq!(told.findings[0].view, "node node2");
}

#[test]
fn nobody_answers() {
    let mut town = town(2, 1);
    town.silence(1);
    town.silence(2);
    insta::assert_snapshot!(transcript(&town));
    assert_eq!(report(&town).verdict, Verdict::NoQuorum);
}

/// Clocks differ: what a follower says last must not make a snapshot old that the leader calls young.
#[test]
fn the_age_of_a_snapshot_is_the_leaders_word_and_else_the_least() {
    let aged = |ages: [Option<u64>; 3]| {
        let mut town = town(3, 0);
        for (node, age) in (1..).zip(ages) {
            let snapshot = town.status(node).groups[0].snapshot.as_mut();
            snapshot.unwrap().age_seconds = age;
        }
        town
    };
    let age = |town: &Town| {
        let report = report(town);
        report.groups[0].protected.as_ref().unwrap().age_seconds
    };
    // node1 leads.
    assert_eq!(age(&aged([Some(500), Some(700), Some(90_000)])), 500);
    assert_eq!(age(&aged([Some(700), Some(500), Some(90_000)])), 700);
    assert_eq!(age(&aged([None, Some(700), Some(90_000)])), 700);
    assert_eq!(age(&aged([None, Some(90_000), Some(700)])), 700);
    assert_eq!(age(&aged([None, None, None])), 600);
    // Another snapshot's age says nothing of this one.
    let mut other = aged([Some(5), Some(700), Some(800)]);
    let older = other.status(1).groups[0].snapshot.as_mut().unwrap();
    (older.index, older.id) = (700, "another".to_owned());
    assert_eq!(age(&other), 700);
}

#[test]
fn every_code_has_a_page() {
    for code in confman_client::members::REFUSALS {
        assert!(crate::codes::find(code).is_some(), "{code}");
    }
    let mut all = town(3, 1);
    all.orphan(3);
    all.status(2).groups[0].leader.as_mut().unwrap().id = 2;
    all.status(1).groups[0].snapshot.as_mut().unwrap().time =
        confman_client::wire::Time::from_us(0);
    for code in codes(&all) {
        assert!(crate::codes::find(code).is_some(), "{code}");
    }
}

#[test]
fn i2_replicas_are_compared_at_the_position_that_they_have_in_common() {
    let mut town = town(3, 0);
    // They were asked at different moments; each was asked again for its hash at 890.
    for (node, index) in [(1, 900), (2, 895), (3, 890)] {
        let group = &mut town.status(node).groups[0];
        group.state_hash.index = index;
        group.state_hash.hash = format!("{index:064x}");
    }
    let ask = |town: &mut Town, node: usize, hash: &str| {
        town.nodes[node - 1].hashes = vec![StateHashAt {
            group: "__meta/0".to_owned(),
            index: 890,
            hash: Some(hash.to_owned()),
        }];
    };
    let at_890 = format!("{:064x}", 890);
    ask(&mut town, 1, &at_890);
    ask(&mut town, 2, &at_890);
    assert!(codes(&town).is_empty(), "{:?}", codes(&town));
    let agreement = report(&town).groups[0].agreement.clone();
    assert_eq!(
        (
            agreement.index,
            agreement.hashes.len(),
            agreement.unknown.len()
        ),
        (890, 1, 0)
    );

    ask(&mut town, 2, "another");
    assert_eq!(codes(&town), ["STATE_DIFFERS"]);
    assert_eq!(report(&town).verdict, Verdict::Degraded);
}

#[test]
fn a_learner_is_not_counted() {
    let mut town = town(4, 1);
    town.learner(4);
    town.silence(3);
    let told = report(&town);
    assert_eq!(
        (told.groups[0].voters, told.groups[0].up, told.tolerance),
        (3, 2, Some(0))
    );
    town.silence(2);
    assert_eq!(
        report(&town).verdict,
        Verdict::NoQuorum,
        "a learner that is up is no voter"
    );
}

#[test]
fn a_node_that_answers_and_does_not_follow_is_not_counted() {
    let mut town = town(3, 1);
    town.orphan(3);
    let told = report(&town);
    assert_eq!((told.verdict, told.tolerance), (Verdict::Degraded, Some(0)));
    assert!(codes(&town).contains(&"NO_LEADER_SEEN"));
}

#[test]
fn two_leaders_in_one_term_are_an_error() {
    let mut town = town(3, 1);
    let leader = town.status(2).groups[1].leader.as_mut().unwrap();
    (leader.id, leader.name) = (2, "node2".to_owned());
    assert!(codes(&town).contains(&"LEADERS_DIFFER"));
}

proptest! {
    /// The exit code says "writes go on" exactly when a majority of every group is up, however many are down.
    #[test]
    fn no_quorum_is_said_exactly_when_there_is_none(nodes in 1_u64..8, down in proptest::collection::btree_set(2_usize..8, 0..7)) {
        let mut town = town(nodes, 2);
        let down: Vec<usize> = down.into_iter().filter(|n| *n as u64 <= nodes).collect();
        for node in &down {
            town.silence(*node);
        }
        let up = nodes as usize - down.len();
        let told = report(&town);
        prop_assert_eq!(told.verdict == Verdict::NoQuorum, up * 2 <= nodes as usize);
        prop_assert_eq!(told.verdict == Verdict::Healthy, down.is_empty());
        prop_assert_eq!(told.tolerance.is_none(), told.verdict == Verdict::NoQuorum);
    }
}
