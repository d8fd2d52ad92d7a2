//! Every step of applying and undoing a plan, killed with `kill -9` and run again: the same end (I17), here and in the store.

use std::collections::BTreeSet;

use confman_store::datadir::Facts;
use confman_store::{DataDir, DataPaths};

use super::kit::*;

#[test]
fn i17_apply_killed_at_every_step_and_run_again_reaches_the_same_end() {
    let reached = killed_and_run_again("return");
    assert!(reached >= 18, "only {reached} kills");
}

/// The second group is copied like the first, and a kill may come there too.
#[test]
fn i17_apply_killed_where_a_step_comes_again_reaches_the_same_end() {
    let reached = killed_and_run_again("1*off->return");
    assert!(reached >= 2, "only {reached} kills");
}

/// How many steps there were at which this came to a kill.
fn killed_and_run_again(kill: &str) -> usize {
    let mut reached = 0;
    for point in apply_points() {
        let world = World::new();
        let before = world.untouched("node1");
        if !was_killed(&world.apply("node1", Some(&format!("{point}={kill}")))) {
            check_survivor(&world, &before);
            continue;
        }
        reached += 1;
        check_closed(&world.path("node1"));
        expect(&world.apply("node1", None), 0);
        check_survivor(&world, &before);
        // Once more changes nothing.
        expect(&world.apply("node1", None), 0);
        check_survivor(&world, &before);
    }
    reached
}

#[test]
fn i17_apply_killed_at_one_step_after_the_other_reaches_the_same_end() {
    // As they come in the program; each run gets one step further than the one before.
    let order = [
        "marked",
        "store-claimed",
        "claimed",
        "begun",
        "copied",
        "operated",
        "incarnation-written",
        "identity-written",
        "ready",
        "aside-identity",
        "aside-incarnation",
        "aside-groups",
        "plan-kept",
        "place-groups",
        "place-incarnation",
        "place-identity",
        "cleared",
        "ended",
    ]
    .map(|name| format!("recover::{name}"));
    assert_eq!(
        order.iter().cloned().collect::<BTreeSet<_>>(),
        apply_points().into_iter().collect()
    );
    let world = World::new();
    let before = world.untouched("node1");
    for point in order {
        let output = world.apply("node1", Some(&format!("{point}=return")));
        assert!(was_killed(&output), "{point}: {}", text(&output));
        check_closed(&world.path("node1"));
    }
    expect(&world.apply("node1", None), 0);
    check_survivor(&world, &before);
}

#[test]
fn i17_setting_a_directory_aside_is_safe_to_kill_too() {
    for point in apply_points() {
        let world = World::new();
        let before = world.untouched("node2");
        was_killed(&world.apply("node2", Some(&format!("{point}=return"))));
        check_closed(&world.path("node2"));
        expect(&world.apply("node2", None), 0);
        expect(&world.apply("node2", None), 0);
        let data = DataDir::open(&world.path("node2")).unwrap();
        assert!(matches!(data.inspect().unwrap(), Facts::Empty), "{point}");
        drop(data);
        assert_eq!(files(&world.aside("node2")), before);
        // What the survivor takes from it is found there.
        let before = world.untouched("node1");
        expect(&world.apply("node1", None), 0);
        check_survivor(&world, &before);
        // And it comes back whole, after the survivor.
        expect(&world.undo("node1", None), 0);
        let old = files(&world.aside("node2"));
        expect(&world.undo("node2", None), 0);
        check_undone(&world, "node2", &old);
    }
}

#[test]
fn i17_a_plan_killed_at_any_step_can_be_taken_back() {
    for point in apply_points() {
        let world = World::new();
        let before = world.untouched("node1");
        was_killed(&world.apply("node1", Some(&format!("{point}=return"))));
        let undone = world.undo("node1", None);
        expect(&undone, 0);
        check_undone(&world, "node1", &before);
        // The plan is spent: what it would be applied to has another number behind it.
        let again = world.apply("node1", None);
        expect(&again, 3);
        assert!(text(&again).contains("RECOVER_STALE"), "{}", text(&again));
    }
}

#[test]
fn i17_undo_killed_at_every_step_and_run_again_reaches_the_same_end() {
    let mut reached = 0;
    for point in undo_points() {
        let world = World::new();
        let before = world.untouched("node1");
        expect(&world.apply("node1", None), 0);
        if was_killed(&world.undo("node1", Some(&format!("{point}=return")))) {
            reached += 1;
            check_closed(&world.path("node1"));
            // Half taken back is not gone on with in the other direction.
            if DataPaths::new(world.path("node1")).surgery().exists() {
                let refused = world.apply("node1", None);
                expect(&refused, 3);
                assert!(
                    text(&refused).contains("RECOVER_UNDER_WAY"),
                    "{}",
                    text(&refused)
                );
            }
        }
        expect(&world.undo("node1", None), 0);
        check_undone(&world, "node1", &before);
        expect(&world.undo("node1", None), 0);
        check_undone(&world, "node1", &before);
        // The store was told, once of each.
        assert_eq!(world.reports().len(), 2, "{:?}", world.reports());
        // What was made is kept too.
        let kept = world
            .path("node1")
            .join("aside")
            .join(format!("{}-undone", world.plan.plan_id));
        assert!(kept.join("identity").exists() && kept.join("groups").exists());
    }
    assert!(reached >= 8, "only {reached} kills");
}
