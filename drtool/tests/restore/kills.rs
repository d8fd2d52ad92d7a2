//! Every step killed with `kill -9` and run again: the same end (I17); and a disk that is too small.

use std::path::Path;

use confman_snapshot::model::Position;
use confman_store::datadir::{Facts, IdentityState};
use confman_store::offline::OfflineNode;
use confman_store::{DataDir, DataPaths};

use super::kit::*;

/// What lies there is closed to every node, or empty, or whole; says whether it is whole.
fn is_whole(root: &Path) -> bool {
    if !root.exists() {
        return false;
    }
    let data = DataDir::open(root).unwrap();
    match data.inspect().unwrap() {
        Facts::Damaged(finding) => {
            assert!(data.paths().surgery().exists(), "{finding}");
            assert!(finding.contains("drtool restore local"), "{finding}");
            false
        }
        Facts::Empty => false,
        Facts::Good(_) => true,
    }
}

/// Everything that a node would find.
fn check(root: &Path, state: IdentityState, uuid_is_own: bool) {
    assert!(is_whole(root));
    let node = OfflineNode::open(root).unwrap();
    let identity = node.identity.as_ref().unwrap();
    assert_eq!((identity.node_id, identity.incarnation), (1001, 2));
    assert_eq!(identity.state(), state);
    assert_eq!(identity.cluster_uuid != UUID, uuid_is_own);
    assert_eq!(node.groups.len(), 2);
    for group in &node.groups {
        assert_eq!(group.applied, Some(Position::new(2, 1, 40)));
        let vote = group.vote.unwrap();
        assert_eq!((vote.term, vote.node, vote.committed), (1002, 1001, false));
        let voters: Vec<u64> = group.membership.voters[0].iter().copied().collect();
        assert_eq!(voters, [1001]);
        let records = group.check_records(node.owner(), |_| {}).unwrap();
        assert_eq!(records.hash, group.state_hash);
        assert!(records.findings.is_empty(), "{:?}", records.findings);
    }
    let begin = node.incarnation.as_ref().unwrap();
    assert_eq!((begin.operator.as_str(), begin.incarnation), ("tester", 2));
}

#[tokio::test]
async fn i17_a_copy_killed_at_every_step_and_made_again_is_whole() {
    let mut killed = 0;
    for point in points() {
        let world = World::new().await;
        let first = world.local(&[], Some(&format!("{point}=return")));
        if first.status.code().is_some() {
            // A place that only the other kind comes by.
            expect(&first, 0);
            continue;
        }
        killed += 1;
        if is_whole(&world.target()) {
            // Only the last word is missing, and a whole directory is not made again.
            assert_eq!(point, "local::ended");
            expect(&world.local(&[], None), 3);
        } else {
            expect(&world.local(&[], None), 0);
        }
        check(&world.target(), IdentityState::Initialized, true);
        assert_eq!(world.lives(), 1, "a copy is no life of the cluster");
    }
    assert!(killed >= 6, "only {killed} kills");
}

#[tokio::test]
async fn i17_a_life_killed_at_every_step_and_begun_again_has_one_order() {
    let life = ["--begin-life", MEMBER, "--yes"];
    let mut killed = 0;
    for point in points() {
        let world = World::new().await;
        let first = world.local(&life, Some(&format!("{point}=return")));
        assert_eq!(first.status.code(), None, "{point}: {}", text(&first));
        killed += 1;
        if is_whole(&world.target()) {
            assert_eq!(point, "local::ended");
        } else {
            expect(&world.local(&life, None), 0);
        }
        check(&world.target(), IdentityState::Formed, false);
        assert_eq!(
            world.lives(),
            2,
            "{point}: one order, however often it was killed"
        );
        let data = DataDir::open(&world.target()).unwrap();
        assert!(data.read_claim().unwrap().is_some(), "the word for its id");
    }
    assert!(killed >= 10, "only {killed} kills");
}

/// The order that empty nodes carry out, given by `restore apply`.
#[tokio::test]
async fn i17_an_order_killed_before_and_after_it_is_written_is_one_order() {
    let apply = ["restore", "apply", "plan.json", "--yes", "--json"];
    let points = [
        (APPLY_ONLY, 1),
        ("restore::before-order", 1),
        ("restore::after-order", 2),
    ];
    for (point, lives) in points {
        let world = World::new().await;
        let plan = ["restore", "plan", "--out", "plan.json"];
        expect(&world.tool(&plan, None), 0);
        let first = world.tool(&apply, Some(&format!("{point}=return")));
        assert_eq!(first.status.code(), None, "{}", text(&first));
        assert_eq!(world.lives(), lives, "{point}");
        for already in [lives == 2, true] {
            let again = world.tool(&apply, None);
            expect(&again, 0);
            let told: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
            assert_eq!(told["state"], "ordered", "{told}");
            assert_eq!(told["already"], already, "{told}");
            assert_eq!(world.lives(), 2, "{point}");
        }
    }
}

#[tokio::test]
async fn d05_a_disk_that_is_too_small_is_found_before_anything_is_begun() {
    let full = Some("local::full-disk=return");
    let world = World::new().await;
    for more in [&[][..], &["--begin-life", MEMBER, "--yes"]] {
        let refused = world.local(more, full);
        expect(&refused, 3);
        assert!(
            text(&refused).contains("[DISK_TOO_SMALL]"),
            "{}",
            text(&refused)
        );
        let paths = DataPaths::new(world.target());
        assert!(!paths.surgery().exists() && !paths.identity().exists());
        assert_eq!(std::fs::read_dir(paths.groups()).unwrap().count(), 0);
        assert_eq!(
            world.lives(),
            1,
            "no life was begun that cannot be restored"
        );
    }
    expect(&world.local(&[], None), 0);
    check(&world.target(), IdentityState::Initialized, true);
}
