//! What happens while the tool runs, or between two runs of it: a quorum comes back, a node runs on what is being worked on.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use confman_client::wire::{
    GroupStatus, LeaderRef, NodeRef, Readiness, ReplicaRole, StateHashStatus, Status,
};
use confman_drtool::recover::directory;
use confman_snapshot::model::GroupId;
use confman_store::DataPaths;
use confman_store::surgery::{Operation, operate};

use super::kit::*;

/// A node that answers whoever asks.
struct Node {
    url: String,
    /// Whether it follows a leader, and with it a quorum.
    is_led: Arc<AtomicBool>,
}

impl Node {
    /// One of an incarnation, which may follow a leader. Who has no key learns of it only that it is ready, if it is.
    fn start(incarnation: u64, is_led: bool, wants_key: bool) -> Self {
        Self::start_of(None, incarnation, is_led, wants_key)
    }

    /// One that says to everybody of which cluster it is, if any is named.
    fn start_of(
        cluster_uuid: Option<&'static str>,
        incarnation: u64,
        is_led: bool,
        wants_key: bool,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let is_led = Arc::new(AtomicBool::new(is_led));
        let led = is_led.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                    head.push(byte[0]);
                }
                let head = String::from_utf8_lossy(&head).to_lowercase();
                let led = led.load(Ordering::SeqCst);
                let (code, body) = if head.starts_with("get /health/ready ") {
                    (
                        "200 OK",
                        serde_json::to_string(&readiness(led, cluster_uuid)).unwrap(),
                    )
                } else if wants_key
                    && (!head.contains("authorization:") || head.contains("bearer wrong"))
                {
                    ("401 Unauthorized", "{}".to_owned())
                } else {
                    let mut status = status(incarnation, led);
                    if let Some(cluster_uuid) = cluster_uuid {
                        cluster_uuid.clone_into(&mut status.cluster_uuid);
                    }
                    ("200 OK", serde_json::to_string(&status).unwrap())
                };
                let answer = format!(
                    "HTTP/1.1 {code}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self { url, is_led }
    }
}

fn node4() -> NodeRef {
    NodeRef {
        id: 4,
        name: "node4".to_owned(),
    }
}

fn readiness(is_led: bool, cluster_uuid: Option<&str>) -> Readiness {
    Readiness {
        ready: is_led,
        node: Some(node4()),
        cluster_uuid: cluster_uuid.map(str::to_owned),
        reason: None,
        groups: Vec::new(),
    }
}

fn status(incarnation: u64, is_led: bool) -> Status {
    let leader = LeaderRef {
        id: 5,
        name: "node5".to_owned(),
        api_url: info(5).api_url,
    };
    Status {
        cluster_uuid: UUID.to_owned(),
        incarnation,
        node: node4(),
        ready: is_led,
        version: None,
        time: None,
        disk: None,
        caller: None,
        groups: vec![GroupStatus {
            group: "__meta/0".to_owned(),
            role: ReplicaRole::Follower,
            term: 9,
            leader: is_led.then_some(leader),
            last_index: 9,
            committed_index: 9,
            applied_index: 9,
            purged_index: 0,
            log_entries: 9,
            log_bytes: 9_000,
            state_hash: StateHashStatus {
                index: 9,
                hash: "00".to_owned(),
            },
            snapshot: None,
            snapshot_error: None,
            restore: None,
            members: Vec::new(),
            membership_wait: None,
        }],
    }
}

/// A node of the old life that follows a leader. Gives its URL.
fn living_node() -> String {
    Node::start(1, true, false).url
}

fn apply_beside(world: &World, url: &str, more: &[&str]) -> std::process::Output {
    let args = [
        &["recover", "apply", "--yes", "--operator", "tester", "node1"][..],
        &["--endpoints", url],
        more,
    ];
    tool(world.dir.path(), &args.concat(), None)
}

/// Killed when all that it had done was to close the directory; then the majority was repaired, and serves.
#[test]
fn a_plan_that_was_begun_is_not_gone_on_with_when_a_quorum_lives_again() {
    for point in [
        "recover::marked",
        "recover::copied",
        "recover::place-identity",
    ] {
        let world = World::new();
        let before = world.untouched("node1");
        assert!(was_killed(
            &world.apply("node1", Some(&format!("{point}=return")))
        ));
        let claimed = world.is_claimed();
        let refused = apply_beside(&world, &living_node(), &[]);
        expect(&refused, 3);
        let said = text(&refused);
        assert!(said.contains("RECOVER_QUORUM_ALIVE"), "{said}");
        assert!(said.contains("drtool recover undo --plan FILE"), "{said}");
        assert_eq!(
            world.is_claimed(),
            claimed,
            "{point}: it would fence the quorum"
        );
        expect(&world.undo("node1", None), 0);
        check_undone(&world, "node1", &before);
    }
}

/// All is in place, the store was away and does not know of it yet, and the node was not started.
#[test]
fn a_plan_that_was_carried_out_is_not_claimed_late_when_a_quorum_lives_again() {
    let world = World::new();
    let args = ["recover", "apply", "--yes", "--no-store", "node1"];
    expect(&tool(world.dir.path(), &args, None), 0);
    let refused = apply_beside(&world, &living_node(), &[]);
    expect(&refused, 3);
    let said = text(&refused);
    assert!(said.contains("RECOVER_QUORUM_ALIVE"), "{said}");
    assert!(!world.is_claimed());
    // Nobody lives: it is told late.
    expect(&world.apply("node1", None), 0);
    assert!(world.is_claimed());
}

/// `--dev DIR` names the nodes too, and not the store alone.
#[test]
fn a_dev_cluster_that_lives_is_not_recovered_from() {
    let world = World::new();
    let store = format!("file://{}/store", world.dir.path().display());
    let dev = serde_json::json!({
        "apiKey": "key",
        "endpoints": [living_node()],
        "objectStore": { "url": store, "env": {} },
    });
    let dir = world.dir.path().join("dev");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("dev.json"), dev.to_string()).unwrap();
    let apply = ["recover", "apply", "--yes", "--dev", "dev", "node1"];
    let refused = tool(world.dir.path(), &apply, None);
    expect(&refused, 3);
    let said = text(&refused);
    assert!(said.contains("[RECOVER_QUORUM_ALIVE]"), "{said}");
    // It is enough to collect from, too.
    let collect = ["recover", "collect", "--force", "--dev", "dev", "--json"];
    let collected = tool(world.dir.path(), &collect, None);
    expect(&collected, 0);
    assert!(
        text(&collected).contains("\"node4\""),
        "{}",
        text(&collected)
    );
}

/// Holds the tool at a point until [`Held::go_on`].
struct Held {
    child: Child,
    file: std::path::PathBuf,
}

impl Held {
    fn start(world: &World, args: &[&str], point: &str) -> Self {
        let file = world.dir.path().join("go-on");
        // It is there from the one before, which would not be held then.
        if file.exists() {
            std::fs::remove_file(&file).unwrap();
        }
        // Held for however short: what it had looked at before is no longer good.
        let points = format!(
            "{point}=return({});look::good-for-ms=return(0)",
            file.display()
        );
        let child = command(world.dir.path(), args, Some(&points))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, file }
    }

    /// Until it has shown this on stderr, and so looked for the first time. Gives what it says from then on.
    fn wait_shown(&mut self, what: &str) -> JoinHandle<String> {
        let mut lines = BufReader::new(self.child.stderr.take().unwrap()).lines();
        let mut shown = lines.by_ref().map(Result::unwrap);
        assert!(shown.any(|line| line.contains(what)), "it ended");
        std::thread::spawn(move || lines.map(Result::unwrap).collect::<Vec<_>>().join("\n"))
    }

    /// Lets it run to its end.
    fn go_on(self) -> std::process::Output {
        std::fs::write(self.file, "").unwrap();
        self.child.wait_with_output().unwrap()
    }
}

fn wait_for(path: &Path) {
    let begin = Instant::now();
    while !path.exists() {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "no {}",
            path.display()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The operator thinks about it, and meanwhile the node is started, takes somebody in and is stopped again.
#[test]
fn i15_what_was_promised_while_an_undo_waited_for_its_answer_is_not_taken_back() {
    let world = World::new();
    expect(&world.apply("node1", None), 0);
    let after = world.untouched("node1");
    let undo = ["recover", "undo", "--yes", "--plan", "plan.json", "node1"];
    let mut held = Held::start(&world, &undo, "recover::undo-agreed");
    let rest = held.wait_shown("Undo of plan");
    let plan = &world.plan;
    let group = &plan.groups[1];
    let members = [plan.survivor.new_id, 77].map(|id| (id, info(id)));
    let more = Operation {
        term: plan.term,
        node: plan.survivor.new_id,
        last: group.last.map(|last| confman_snapshot::model::Position {
            term: plan.term,
            node: plan.survivor.new_id,
            index: last.index + 1,
        }),
        applied: None,
        members: members.to_vec(),
    };
    let log = DataPaths::new(world.path("node1"))
        .group(&group.group)
        .log();
    operate(&log, &more).unwrap();
    let changed = world.untouched("node1");
    assert_ne!(changed, after);
    let output = held.go_on();
    let said = rest.join().unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("[RECOVER_SPENT]"), "{said}");
    assert!(!DataPaths::new(world.path("node1")).surgery().exists());
    assert_eq!(world.untouched("node1"), changed);
    assert!(world.is_claimed());
}

/// The operator thinks about it, and meanwhile the survivor is given its new life by somebody else.
#[test]
fn i13_a_directory_is_not_let_go_beside_a_life_that_was_begun_while_the_undo_waited() {
    let world = World::new();
    expect(&world.apply("node2", None), 0);
    let undo = ["recover", "undo", "--yes", "--plan", "plan.json", "node2"];
    let mut held = Held::start(&world, &undo, "recover::undo-agreed");
    let rest = held.wait_shown("Undo of plan");
    expect(&world.apply("node1", None), 0);
    let output = held.go_on();
    let said = rest.join().unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("[RECOVER_NEWER_LIFE]"), "{said}");
    assert!(world.aside("node2").join("identity").exists());
}

/// Reading gigabytes of log again, under the lock, takes longer than a look is good for.
fn check_refused_when_a_quorum_comes_back_under_the_lock(world: &World, node: &str) {
    let living = Node::start(1, false, false);
    let args = ["recover", "apply", "--yes", "--operator", "tester", node];
    let args = [&args[..], &["--endpoints", &living.url]].concat();
    let held = Held::start(world, &args, "apply::locked");
    let begin = Instant::now();
    while directory::read(&world.path(node), 0)
        .unwrap()
        .in_use
        .is_none()
    {
        assert!(begin.elapsed() < Duration::from_secs(60), "no lock");
        std::thread::sleep(Duration::from_millis(10));
    }
    // All that is left to come is what is held: nobody is asked any more for what was asked before.
    living.is_led.store(true, Ordering::SeqCst);
    let refused = held.go_on();
    expect(&refused, 3);
    let said = text(&refused);
    assert!(said.contains("[RECOVER_QUORUM_ALIVE]"), "{said}");
    assert!(!world.is_claimed());
}

#[test]
fn i13_a_quorum_that_comes_back_while_the_directory_is_read_under_its_lock_is_not_recovered_from() {
    let world = World::new();
    for node in ["node1", "node2"] {
        let before = world.untouched(node);
        check_refused_when_a_quorum_comes_back_under_the_lock(&world, node);
        assert_eq!(world.untouched(node), before);
        assert!(!DataPaths::new(world.path(node)).surgery().exists());
    }
    expect(&world.apply("node1", None), 0);
}

#[test]
fn i13_nor_is_it_fenced_by_a_claim_that_comes_late() {
    let world = World::new();
    let args = ["recover", "apply", "--yes", "--no-store", "node1"];
    expect(&tool(world.dir.path(), &args, None), 0);
    check_refused_when_a_quorum_comes_back_under_the_lock(&world, "node1");
}

/// The claim was made in no store, so that a node of the new life is all that can tell of it, and it tells nobody without a key.
#[test]
fn i13_a_directory_is_not_let_go_beside_a_ready_node_that_does_not_say_of_which_life() {
    let world = World::new();
    expect(&world.apply("node2", None), 0);
    let undo = |url: &str, key: Option<&str>| {
        let args = ["recover", "undo", "--yes", "--plan", "plan.json", "node2"];
        let args = [&args[..], &["--endpoints", url]].concat();
        let mut command = command(world.dir.path(), &args, None);
        command.envs(key.map(|key| ("CONFMAN_API_KEY", key)));
        command.output().unwrap()
    };
    let newer = Node::start(2, true, true).url;
    for (key, hint) in [
        (None, "give the API key"),
        (Some("wrong"), "did not take the API key that was given"),
        (Some("key"), "undo the plan"),
    ] {
        let refused = undo(&newer, key);
        expect(&refused, 3);
        let said = text(&refused);
        assert!(said.contains("[RECOVER_NEWER_LIFE]"), "{said}");
        assert!(said.contains(hint), "{said}");
        assert!(world.aside("node2").join("identity").exists());
    }
    // One of the old life is what is gone back to.
    let older = Node::start(1, true, true).url;
    expect(&undo(&older, Some("key")), 0);
}

/// An address of a machine that is gone was given to a node of another cluster, which takes none of our keys.
#[test]
fn a_node_of_another_cluster_at_a_members_address_stands_against_nothing() {
    let world = World::new();
    let args = ["recover", "apply", "--yes", "--operator", "tester", "node1"];
    let apply = |url: &str| {
        let mut command = command(
            world.dir.path(),
            &[&args[..], &["--endpoints", url]].concat(),
            None,
        );
        command.env("CONFMAN_API_KEY", "key").output().unwrap()
    };
    let foreign = || Node::start_of(Some("another"), 9, true, true).url;
    // Ours, and one that does not say so, are refused.
    for uuid in [None, Some(UUID)] {
        let refused = apply_beside(&world, &Node::start_of(uuid, 1, true, true).url, &[]);
        expect(&refused, 3);
        assert!(text(&refused).contains("[RECOVER_QUORUM_ALIVE]"));
    }
    let applied = apply_beside(&world, &foreign(), &[]);
    expect(&applied, 0);
    let said = text(&applied);
    assert!(
        said.contains("another cluster answers at") && said.contains("node4"),
        "{said}"
    );
    // Nor against another directory, nor when it is asked with a key.
    expect(&apply(&foreign()), 0);
    expect(&world.apply("node2", None), 0);
    expect(&world.undo("node1", None), 0);
    let url = foreign();
    let undo = ["recover", "undo", "--yes", "--plan", "plan.json", "node2"];
    let undone = tool(
        world.dir.path(),
        &[&undo[..], &["--endpoints", &url]].concat(),
        None,
    );
    expect(&undone, 0);
}

/// The directory that gives a group is nobody's to lock from here: its node runs on it while it is copied.
#[test]
fn a_source_that_changes_while_it_is_copied_begins_no_life() {
    let world = World::new();
    let before = world.untouched("node1");
    let apply = ["recover", "apply", "--yes", "--operator", "tester", "node1"];
    let held = Held::start(&world, &apply, "recover::marked");
    wait_for(&DataPaths::new(world.path("node1")).surgery());
    let group = GroupId::config(1);
    let more = Operation {
        term: 50,
        node: 2,
        last: world.plan.groups[2].last,
        applied: None,
        members: vec![(2, info(2))],
    };
    operate(
        &DataPaths::new(world.path("node2")).group(&group).log(),
        &more,
    )
    .unwrap();
    let refused = held.go_on();
    expect(&refused, 3);
    let said = text(&refused);
    assert!(said.contains("[RECOVER_SOURCE]"), "{said}");
    assert!(said.contains("drtool recover undo --plan FILE"), "{said}");
    check_closed(&world.path("node1"));
    // Nor when it is run again.
    expect(&world.apply("node1", None), 3);
    expect(&world.undo("node1", None), 0);
    check_undone(&world, "node1", &before);
}
