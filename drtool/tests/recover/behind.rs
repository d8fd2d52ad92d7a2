//! The store has real snapshots that are newer than the one directory that is left.

use confman_drtool::recover::collection::Collection;
use confman_drtool::recover::directory;
use confman_drtool::recover::plan::Plan;
use confman_snapshot::model::{GroupId, Position};

use super::kit::*;

const LOST: &[&str] = &["node2", "node3", "node4", "node5"];

/// One of five nodes is left; in every group its log ends with entry 2 of term 3.
fn world() -> World {
    World::of(&five(), &[("node1", 1, [3, 3, 3])], LOST)
}

/// What is in the store of a group, as a new collection has it.
fn collected(world: &World, group: &GroupId) -> Vec<Position> {
    let dir = world.dir.path();
    expect(
        &tool(dir, &["recover", "collect", "--force", "node1"], None),
        0,
    );
    let seen = Collection::read(&dir.join("collection.json")).unwrap();
    let snapshots = seen.store.unwrap().snapshots.into_iter();
    let of_group = snapshots.filter(|s| s.group == *group);
    of_group.map(|s| s.position).collect()
}

/// Plans from it, into a file of its own.
fn planned(world: &World, more: &[&str]) -> std::process::Output {
    let lost: Vec<&str> = LOST.iter().flat_map(|name| ["--lost", name]).collect();
    let args = ["recover", "plan", "--out", "second.json"];
    tool(world.dir.path(), &[&args[..], &lost, more].concat(), None)
}

#[test]
fn m15_what_only_the_store_has_is_given_up_by_the_groups_name_alone() {
    let world = world();
    let before = world.untouched("node1");
    for group in groups() {
        world.publish(&group, 1, Position::new(3, 1, 2));
    }
    world.publish(&groups()[1], 1, Position::new(3, 1, 9));
    assert_eq!(collected(&world, &groups()[1]), [Position::new(3, 1, 9)]);
    let refused = planned(&world, &[]);
    expect(&refused, 3);
    let said = text(&refused);
    for words in [
        "[RECOVER_BEHIND]",
        "node1, ends at entry 2 (term 3, node 1): it lacks 7 entries",
        "`drtool restore plan`, which gives up nothing of these directories that can have been committed",
        "--accept-data-loss config/0",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!world.dir.path().join("second.json").exists(), "{said}");
    assert!(world.untouched("node1") == before);
    // Another group's name is not this one's.
    expect(&planned(&world, &["--accept-data-loss", "config/1"]), 3);
    let agreed = planned(&world, &["--accept-data-loss", "config/0"]);
    expect(&agreed, 0);
    let said = text(&agreed);
    assert!(
        said.contains("LOST: 7 entries that were committed (in snapshot "),
        "{said}"
    );
    let plan = Plan::read(&world.dir.path().join("second.json")).unwrap();
    let loss = &plan.groups[1].loss;
    assert_eq!((loss.lost_proven, loss.lost_at_most), (7, false));
    // It is carried out as any other.
    let args = [
        "recover",
        "apply",
        "--yes",
        "--plan",
        "second.json",
        "node1",
    ];
    expect(&tool(world.dir.path(), &args, None), 0);
    let found = directory::read(&world.path("node1"), 0).unwrap();
    assert_eq!(found.identity.unwrap().lineage, plan.plan_id);
}

/// There is no telling from its name alone that a snapshot cannot be read, or that its life never was.
#[test]
fn m15_neither_a_damaged_snapshot_nor_those_of_an_undone_life_hide_what_proves_that_writes_are_missing()
 {
    let world = world();
    let group = &groups()[1];
    for group in groups() {
        world.publish(&group, 1, Position::new(3, 1, 2));
    }
    world.publish(group, 1, Position::new(3, 1, 9));
    let damaged = world.publish(group, 1, Position::new(3, 1, 20));
    let mut bytes = std::fs::read(&damaged).unwrap();
    let footer = bytes.len() - 8;
    bytes[footer] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    assert_eq!(collected(&world, group), [Position::new(3, 1, 9)]);
    // A recovery that was taken back, and took snapshots while it lived: its terms are the highest.
    expect(&world.apply("node1", None), 0);
    let (term, node) = (world.plan.term, world.plan.survivor.new_id);
    for index in 3..10 {
        world.publish(group, 2, Position::new(term, node, index));
    }
    expect(&world.undo("node1", None), 0);
    assert_eq!(collected(&world, group), [Position::new(3, 1, 9)]);
    let refused = planned(&world, &[]);
    expect(&refused, 3);
    assert!(
        text(&refused).contains("entry 9 (term 3, node 1) is committed"),
        "{}",
        text(&refused)
    );
}
