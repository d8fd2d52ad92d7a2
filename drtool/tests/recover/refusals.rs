//! What is not carried out: another directory, another state of it, no word of the operator, no room.

use confman_drtool::recover::plan::Plan;
use confman_snapshot::model::GroupId;
use confman_store::surgery::{Operation, operate};
use confman_store::{DataDir, DataPaths};

use super::kit::*;

#[test]
fn a_plan_for_another_directory_or_another_state_of_it_is_refused() {
    let world = World::new();
    let refused = |node: &str, code: &str| {
        let output = world.apply(node, None);
        expect(&output, 3);
        assert!(text(&output).contains(code), "{}", text(&output));
    };
    // Of a member that was given up.
    let all: Vec<(GroupId, u64)> = groups().into_iter().map(|g| (g, 2)).collect();
    make_node(&world.path("node3"), &five(), 3, &all);
    refused("node3", "RECOVER_NOT_NAMED");
    // Another cluster.
    make_node(&world.path("node4"), &five(), 1, &all);
    let data = DataDir::open(&world.path("node4")).unwrap();
    let mut identity = data.read_identity().unwrap().unwrap();
    identity.cluster_uuid = UUID.replace('0', "1");
    data.write_identity(&identity).unwrap();
    drop(data);
    refused("node4", "RECOVER_FOREIGN");
    // In use.
    let held = DataDir::open(&world.path("node1")).unwrap();
    refused("node1", "RECOVER_RUNNING");
    drop(held);
    // Changed since: one entry more in one group.
    let log = DataPaths::new(world.path("node1"))
        .group(&GroupId::config(0))
        .log();
    let last = world.plan.groups[1].last;
    let more = Operation {
        term: 50,
        node: 2,
        last,
        applied: None,
        members: vec![(2, info(2))],
    };
    operate(&log, &more).unwrap();
    refused("node1", "RECOVER_STALE");
    assert!(!world.aside("node1").exists(), "something was done");
    // The other directory gives a group, and has changed too.
    let world = World::new();
    let log = DataPaths::new(world.path("node2"))
        .group(&GroupId::config(1))
        .log();
    let more = Operation {
        last: world.plan.groups[2].last,
        ..more
    };
    operate(&log, &more).unwrap();
    let output = world.apply("node1", None);
    expect(&output, 3);
    assert!(text(&output).contains("RECOVER_STALE"), "{}", text(&output));
    // It was set aside half way: to be ended there, and then this one can go on.
    let world = World::new();
    let before = world.untouched("node1");
    assert!(was_killed(
        &world.apply("node2", Some("recover::aside-identity=return"))
    ));
    let output = world.apply("node1", None);
    expect(&output, 3);
    assert!(
        text(&output).contains("RECOVER_UNDER_WAY"),
        "{}",
        text(&output)
    );
    assert!(
        text(&output).contains("drtool recover apply"),
        "{}",
        text(&output)
    );
    expect(&world.apply("node2", None), 0);
    expect(&world.apply("node1", None), 0);
    check_survivor(&world, &before);
    // Without a word of the operator nothing is done.
    let world = World::new();
    let output = tool(world.dir.path(), &["recover", "apply", "node1"], None);
    expect(&output, 2);
    assert!(
        text(&output).contains("CONSENT_NEEDED"),
        "{}",
        text(&output)
    );
    assert!(!DataPaths::new(world.path("node1")).surgery().exists());
}

/// i13: what was begun by this directory and taken back leaves a number that nobody takes again.
#[test]
fn i13_two_plans_for_one_directory_never_make_two_lives_of_one_number_there() {
    let world = World::new();
    let args = [
        "recover",
        "plan",
        "--out",
        "other.json",
        "--lost",
        "node3",
        "--lost",
        "node4",
        "--lost",
        "node5",
    ];
    expect(&tool(world.dir.path(), &args, None), 0);
    expect(&world.apply("node1", None), 0);
    let other = ["recover", "apply", "--yes", "--plan", "other.json", "node1"];
    let refused = tool(world.dir.path(), &other, None);
    expect(&refused, 3);
    assert!(
        text(&refused).contains("RECOVER_FOREIGN"),
        "{}",
        text(&refused)
    );
    expect(&world.undo("node1", None), 0);
    // Collected and planned anew, the next life has the next number.
    let lost = ["node3", "node4", "node5"]
        .map(|name| ["--lost", name])
        .concat();
    expect(
        &tool(
            world.dir.path(),
            &["recover", "collect", "--force", "node1", "node2"],
            None,
        ),
        0,
    );
    let args = [&["recover", "plan", "--force"][..], &lost].concat();
    expect(&tool(world.dir.path(), &args, None), 0);
    let plan = Plan::read(&world.dir.path().join("plan.json")).unwrap();
    assert_eq!(plan.new_incarnation, 3);
}

#[test]
fn d05_a_disk_without_room_is_found_before_the_number_is_claimed() {
    let world = World::new();
    let before = world.untouched("node1");
    let refused = world.apply("node1", Some("room::free=return(4194304)"));
    expect(&refused, 3);
    assert!(
        text(&refused).contains("[RECOVER_SPACE]"),
        "{}",
        text(&refused)
    );
    assert!(
        text(&refused).contains("make room for") && !text(&refused).contains("undo"),
        "{}",
        text(&refused)
    );
    assert!(!world.is_claimed() && world.reports().is_empty());
    assert!(!DataPaths::new(world.path("node1")).surgery().exists());
    assert_eq!(world.untouched("node1"), before);
    // What is only moved needs none.
    expect(&world.apply("node2", Some("room::free=return(0)")), 0);
    // Begun, and then the disk is filled by somebody else: room is made, and it goes on.
    assert!(was_killed(
        &world.apply("node1", Some("recover::copied=return"))
    ));
    let refused = world.apply("node1", Some("room::free=return(0)"));
    expect(&refused, 3);
    // The number is claimed by then, and that can be taken back too.
    assert!(world.is_claimed());
    let said = text(&refused);
    assert!(said.contains("drtool recover undo --plan FILE"), "{said}");
    expect(&world.apply("node1", None), 0);
    check_survivor(&world, &before);
}

/// The plan was made without a store, and the one that is named now is another cluster's.
#[test]
fn i13_the_store_of_another_cluster_is_not_claimed() {
    let world = World::new();
    let before = world.untouched("node1");
    let foreign = world.other_store();
    let apply = ["recover", "apply", "--yes", "--store", &foreign, "node1"];
    let refused = tool(world.dir.path(), &apply, None);
    expect(&refused, 3);
    assert!(
        text(&refused).contains("[RECOVER_FOREIGN]"),
        "{}",
        text(&refused)
    );
    assert!(text(&refused).contains("--no-store"), "{}", text(&refused));
    assert!(!DataPaths::new(world.path("node1")).surgery().exists());
    assert_eq!(world.untouched("node1"), before);
    let objects = std::fs::read_dir(world.dir.path().join("other/cluster")).unwrap();
    assert_eq!(objects.count(), 1, "something was claimed there");
    expect(&world.apply("node1", None), 0);
    check_survivor(&world, &before);
}

/// It is there and takes nothing: what stands where its objects would be is a file.
fn harm_store(world: &World, folder: &str) -> impl FnOnce() {
    let place = world.dir.path().join("store").join(folder);
    let away = world.dir.path().join("away");
    let was_there = place.exists();
    if was_there {
        std::fs::rename(&place, &away).unwrap();
    }
    std::fs::write(&place, "").unwrap();
    move || {
        std::fs::remove_file(&place).unwrap();
        if was_there {
            std::fs::rename(&away, &place).unwrap();
        }
    }
}

/// Two operators are kept apart by the claim alone: whoever counts on it must know that it is not there.
#[test]
fn i13_a_claim_that_the_named_store_did_not_take_is_no_success() {
    let world = World::new();
    let before = world.untouched("node1");
    let mend = harm_store(&world, "cluster");
    let applied = world.apply("node1", None);
    expect(&applied, 7);
    let said = text(&applied);
    assert!(said.contains("error[RECOVER_NOT_CLAIMED]"), "{said}");
    assert!(said.contains("run the same apply again"), "{said}");
    // What was done is told all the same, to scripts too.
    assert!(said.contains("next: start node1"), "{said}");
    let json = [
        "recover",
        "apply",
        "--yes",
        "--operator",
        "tester",
        "--json",
        "node1",
    ];
    let again = tool(world.dir.path(), &json, None);
    expect(&again, 7);
    let done: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(done["store"]["claimed"], false, "{done}");
    assert_eq!(done["store"]["code"], "RECOVER_NOT_CLAIMED", "{done}");
    // Whoever goes without a store on purpose says so.
    let without = ["recover", "apply", "--yes", "--no-store", "node1"];
    expect(&tool(world.dir.path(), &without, None), 0);
    mend();
    assert!(!world.is_claimed());
    expect(&world.apply("node1", None), 0);
    check_survivor(&world, &before);
}

#[test]
fn a_report_that_the_store_did_not_keep_is_told_without_being_asked_for() {
    let world = World::new();
    let mend = harm_store(&world, "reports");
    let applied = world.apply("node1", None);
    expect(&applied, 0);
    let said = text(&applied);
    assert!(said.contains("no report of this is kept"), "{said}");
    assert!(world.is_claimed());
    mend();
    let again = world.apply("node1", None);
    expect(&again, 0);
    assert!(!text(&again).contains("no report"), "{}", text(&again));
    assert_eq!(world.reports().len(), 1);
}
