//! Every step of applying and undoing a plan, killed with `kill -9` and run again: the same end (I17).
//!
//! The program is the real one, built with places where it kills itself; the directories are real ones, made with the
//! node's own storage. That a node leads over what comes out of it is shown by the whole-system scenarios.

// Helpers of a test may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use confman_drtool::recover::collection::{Directory, Stage};
use confman_drtool::recover::directory;
use confman_drtool::recover::plan::Plan;
use confman_snapshot::model::{ClusterId, GroupId, NodeInfo, Position};
use confman_store::datadir::{Facts, IdentityState, MemberAtBirth};
use confman_store::surgery::{Operation, operate};
use confman_store::{DataDir, DataPaths, GroupStore, Identity, OpenOptions};

const UUID: &str = "0d0a3a8e-6d4c-4f0e-9a57-3c1b2d9e8f70";

fn info(id: u64) -> NodeInfo {
    NodeInfo {
        name: format!("node{id}"),
        // Nobody listens there.
        api_url: format!("http://127.0.0.1:{id}"),
        peer_addr: format!("127.0.0.1:{}", 100 + id),
    }
}

fn groups() -> [GroupId; 3] {
    [GroupId::meta(), GroupId::config(0), GroupId::config(1)]
}

/// A node's directory with a short log in every group, as a stopped node leaves it. `entries` of each group.
fn make_node(root: &Path, id: u64, entries: &[(GroupId, u64)]) {
    let data = DataDir::open(root).unwrap();
    let members: Vec<(u64, NodeInfo)> = (1..=5).map(|id| (id, info(id))).collect();
    for (group, entries) in entries {
        let paths = data.paths().group(group);
        drop(GroupStore::open(paths.clone(), OpenOptions::new(ClusterId::new(UUID, 1))).unwrap());
        let mut last = None;
        for number in 0..*entries {
            let operation = Operation {
                term: number + 1,
                node: 1,
                last,
                applied: None,
                members: members.clone(),
            };
            operate(&paths.log(), &operation).unwrap();
            last = Some(Position::new(number + 1, 1, number));
        }
    }
    let identity = Identity {
        cluster_uuid: UUID.to_owned(),
        incarnation: 1,
        node_id: id,
        name: format!("node{id}"),
        shards: 2,
        members: members
            .into_iter()
            .map(|(id, info)| MemberAtBirth {
                id,
                info: Some(info),
            })
            .collect(),
        state: IdentityState::Initialized.into(),
        ..Identity::default()
    };
    data.write_identity(&identity).unwrap();
}

/// Two of five nodes are left; a group is ahead at the other one.
struct World {
    dir: tempfile::TempDir,
    plan: Plan,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [meta, first, second] = groups();
        let of = |id: u64, entries: [u64; 3]| {
            let groups = [&meta, &first, &second].map(Clone::clone);
            let entries: Vec<(GroupId, u64)> = groups.into_iter().zip(entries).collect();
            make_node(&dir.path().join(format!("node{id}")), id, &entries);
        };
        of(1, [3, 5, 2]);
        of(2, [3, 2, 4]);
        let collected = tool(dir.path(), &["recover", "collect", "node1", "node2"], None);
        expect(&collected, 0);
        let lost = ["node3", "node4", "node5"].map(|name| ["--lost", name]);
        let args = [&["recover", "plan"][..], &lost.concat()].concat();
        expect(&tool(dir.path(), &args, None), 0);
        let plan = Plan::read(&dir.path().join("plan.json")).unwrap();
        assert_eq!(plan.survivor.info.name, "node1", "{plan}");
        assert_eq!(plan.others[0].gives, [second], "{plan}");
        Self { dir, plan }
    }

    fn path(&self, node: &str) -> PathBuf {
        self.dir.path().join(node)
    }

    fn apply(&self, node: &str, kill: Option<&str>) -> Output {
        let args = ["recover", "apply", "--yes", "--operator", "tester", node];
        tool(self.dir.path(), &args, kill)
    }

    fn undo(&self, node: &str, kill: Option<&str>) -> Output {
        let args = ["recover", "undo", "--yes", "--plan", "plan.json", node];
        tool(self.dir.path(), &args, kill)
    }

    /// A directory as it was before anything.
    fn untouched(&self, node: &str) -> BTreeMap<String, Vec<u8>> {
        files(&self.path(node))
    }

    /// Where the old contents of a directory lie.
    fn aside(&self, node: &str) -> PathBuf {
        self.path(node).join("aside").join(&self.plan.plan_id)
    }
}

fn tool(dir: &Path, args: &[&str], kill: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drtool"));
    command.args(args).current_dir(dir).env_clear();
    if let Some(kill) = kill {
        command.env("FAILPOINTS", kill);
    }
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    format!(
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn expect(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", text(output));
}

/// A program that was killed has no exit code.
fn was_killed(output: &Output) -> bool {
    if output.status.code().is_none() {
        return true;
    }
    expect(output, 0);
    false
}

/// The files of a node below `root`, by name, but for locks and what was set aside.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, dir: &Path, out: &mut BTreeMap<String, Vec<u8>>) {
        for item in fs::read_dir(dir).unwrap() {
            let path = item.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if ["LOCK", "aside", "tmp", "plan.json"].contains(&name) {
                continue;
            }
            if path.is_dir() {
                walk(root, &path, out);
            } else {
                let relative = path.strip_prefix(root).unwrap().display().to_string();
                out.insert(relative, fs::read(&path).unwrap());
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(root, root, &mut out);
    out
}

/// All places of the program where it can be killed, in the order of the source.
fn points() -> Vec<String> {
    let room = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/recover");
    let mut points = BTreeSet::new();
    for item in fs::read_dir(room).unwrap() {
        let path = item.unwrap().path();
        let Ok(source) = fs::read_to_string(&path) else {
            continue;
        };
        for (at, _) in source.match_indices("\"recover::") {
            let name = source[at + 1..].split('"').next().unwrap();
            points.insert(name.to_owned());
        }
    }
    assert!(points.len() >= 25, "{points:?}");
    points.into_iter().collect()
}

fn apply_points() -> Vec<String> {
    let undo = |name: &String| name.starts_with("recover::undo-");
    points().into_iter().filter(|name| !undo(name)).collect()
}

fn undo_points() -> Vec<String> {
    let undo = |name: &String| name.starts_with("recover::undo-");
    points().into_iter().filter(undo).collect()
}

/// The survivor after the plan: everything that a node would find.
fn check_survivor(world: &World, before: &BTreeMap<String, Vec<u8>>) {
    let root = world.path("node1");
    let plan = &world.plan;
    let found: Directory = directory::read(&root, 0).unwrap();
    let identity = found.identity.as_ref().unwrap();
    assert_eq!(identity.incarnation, 2);
    assert_eq!(identity.lineage, plan.plan_id);
    assert_eq!(identity.node_id, plan.survivor.new_id);
    assert_eq!(identity.stage, Stage::Initialized);
    assert_eq!(identity.incarnation_floor, 2);
    assert_eq!(found.surgery, None);
    assert_eq!(found.unborn.as_deref(), Some(plan.plan_id.as_str()));
    for planned in &plan.groups {
        let group = found.group(&planned.group).unwrap();
        let index = planned.last.unwrap().index + 1;
        let expected = Position::new(plan.term, plan.survivor.new_id, index);
        assert_eq!(group.last, Some(expected), "{}", planned.group);
        let vote = group.vote.unwrap();
        assert_eq!((vote.term, vote.node), (plan.term, plan.survivor.new_id));
        let voters: Vec<u64> = group.membership.voters[0].iter().copied().collect();
        assert_eq!(voters, [plan.survivor.new_id]);
    }
    // The log that was taken from the other node is longer than its own was.
    assert_eq!(plan.groups[2].last.unwrap().index, 3);
    let data = DataDir::open(&root).unwrap();
    assert!(matches!(data.inspect().unwrap(), Facts::Good(_)));
    let begin = data.read_incarnation().unwrap().unwrap();
    assert_eq!(begin.operator, "tester");
    assert_eq!(begin.expected.len(), 4);
    drop(data);
    assert!(!root.join("repaired").exists());
    // Not a byte of what was there is another.
    assert_eq!(&files(&world.aside("node1")), before);
    assert!(world.aside("node1").join("plan.json").exists());
}

/// No node starts here while a plan is half carried out.
fn check_closed(root: &Path) {
    if DataPaths::new(root).surgery().exists() {
        let data = DataDir::open(root).unwrap();
        let Facts::Damaged(finding) = data.inspect().unwrap() else {
            panic!("a node would start on a directory that is half repaired");
        };
        assert!(finding.contains("drtool recover"), "{finding}");
    }
}

/// A directory that got its old contents back: what is another is only that it remembers the incarnation.
fn check_undone(world: &World, node: &str, before: &BTreeMap<String, Vec<u8>>) {
    let root = world.path(node);
    let mut now = files(&root);
    let mut before = before.clone();
    now.remove("identity");
    before.remove("identity");
    assert_eq!(
        now.keys().collect::<Vec<_>>(),
        before.keys().collect::<Vec<_>>()
    );
    assert!(now == before, "the contents of {node} are others");
    let found = directory::read(&root, 0).unwrap();
    let identity = found.identity.unwrap();
    assert_eq!(identity.incarnation, 1);
    assert_eq!(
        identity.incarnation_floor, 2,
        "the number is not used again"
    );
    assert_eq!(identity.stage, Stage::Initialized);
    assert_eq!((found.surgery, found.unborn), (None, None));
}

#[test]
fn i17_apply_killed_at_every_step_and_run_again_reaches_the_same_end() {
    let mut reached = 0;
    for point in apply_points() {
        // The second group is copied like the first, and a kill may come there too.
        for kill in [format!("{point}=return"), format!("{point}=1*off->return")] {
            let world = World::new();
            let before = world.untouched("node1");
            if !was_killed(&world.apply("node1", Some(&kill))) {
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
    }
    assert!(reached >= 18, "only {reached} kills");
}

#[test]
fn i17_apply_killed_at_one_step_after_the_other_reaches_the_same_end() {
    // As they come in the program; each run gets one step further than the one before.
    let order = [
        "marked",
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
        // And it comes back whole.
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
        // What was made is kept too.
        let kept = world
            .path("node1")
            .join("aside")
            .join(format!("{}-undone", world.plan.plan_id));
        assert!(kept.join("identity").exists() && kept.join("groups").exists());
    }
    assert!(reached >= 8, "only {reached} kills");
}

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
    make_node(&world.path("node3"), 3, &all);
    refused("node3", "RECOVER_NOT_NAMED");
    // Another cluster.
    make_node(&world.path("node4"), 1, &all);
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
