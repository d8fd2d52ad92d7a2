//! A node that lost its disk came back under its old name and another id, and both its directories are at hand: which is
//! which is told by the id.

use confman_drtool::recover::directory;
use confman_snapshot::model::NodeInfo;
use confman_store::DataPaths;

use super::kit::*;

/// node3 was id 3, whose directory was set aside by hand, and is id 4 now.
fn world(before: [u64; 3], after: [u64; 3]) -> World {
    let again = NodeInfo {
        name: "node3".to_owned(),
        ..info(4)
    };
    let members = [(1, info(1)), (2, info(2)), (3, info(3)), (4, again)];
    let left = [("node3.lost", 3, before), ("node3", 4, after)];
    let world = World::of(&members, &left, &["node1", "node2"]);
    assert_eq!(world.plan.survivor.old_id, 4, "{}", world.plan);
    world
}

fn check_begun(world: &World) {
    let found = directory::read(&world.path("node3"), 0).unwrap();
    let identity = found.identity.as_ref().unwrap();
    assert_eq!(identity.node_id, world.plan.survivor.new_id);
    assert_eq!(found.surgery, None);
    for planned in &world.plan.groups {
        let last = found.group(&planned.group).unwrap().last.unwrap();
        assert_eq!(last.index, planned.last.unwrap().index + 1);
    }
}

#[test]
fn the_new_life_goes_on_from_the_directory_that_the_plan_means() {
    let world = world([3, 3, 3], [3, 4, 5]);
    let applied = world.apply("node3", None);
    expect(&applied, 0);
    check_begun(&world);
    expect(&world.apply("node3.lost", None), 0);
}

#[test]
fn a_group_is_taken_from_the_older_directory_where_that_is_ahead() {
    let world = world([3, 3, 6], [4, 4, 5]);
    assert_eq!(world.plan.groups[2].from.id, 3, "{}", world.plan);
    // Found by its name wherever it lies, though the survivor has the same.
    let moved = world.path("elsewhere");
    std::fs::rename(world.path("node3.lost"), &moved).unwrap();
    let args = ["recover", "apply", "--yes", "--operator", "tester", "node3"];
    let from = ["--from", "node3=node3", "--from", "node3=elsewhere"];
    let args = [&args[..], &from].concat();
    expect(&tool(world.dir.path(), &args, None), 0);
    check_begun(&world);
}

/// What was begun there is to set it aside, and it is not let go before the new life is taken back.
#[test]
fn i13_a_directory_set_aside_half_way_is_not_taken_for_the_survivor_of_its_name() {
    let world = world([3, 3, 3], [3, 4, 5]);
    let begun = world.apply("node3.lost", Some("recover::marked=return"));
    assert!(was_killed(&begun), "{}", text(&begun));
    expect(&world.apply("node3", None), 0);
    let refused = world.undo("node3.lost", None);
    expect(&refused, 3);
    let said = text(&refused);
    assert!(said.contains("[RECOVER_NEWER_LIFE]"), "{said}");
    assert!(DataPaths::new(world.path("node3.lost")).surgery().exists());
    // Ended, it is out of the way, and claims nothing.
    expect(&world.apply("node3.lost", None), 0);
    assert!(
        directory::read(&world.path("node3.lost"), 0)
            .unwrap()
            .identity
            .is_none()
    );
    check_begun(&world);
}
