//! What happens between the look at the nodes and the order: the cluster comes back, or somebody else writes to the store.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Child, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use confman_snapshot::model::GroupId;

use super::kit::*;

const WAITS: &str = r#"{"ready": false, "node": null, "reason": "it has no data", "groups": []}"#;
const LIVES: &str =
    r#"{"ready": true, "node": {"id": 2, "name": "node2"}, "reason": null, "groups": []}"#;
/// How long a look is good for here, in milliseconds.
const GOOD_FOR_MS: u64 = 300;

/// A node that says these things of itself, one after the other and the last from then on.
struct Node {
    url: String,
    asked: Receiver<()>,
}

impl Node {
    fn that_says(answers: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (tell, asked) = channel();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                    head.push(byte[0]);
                }
                let body = answers[number.min(answers.len() - 1)];
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes());
                let _ = tell.send(());
            }
        });
        Self { url, asked }
    }

    /// Until it was asked, and what it said then is no longer good.
    fn wait_stale(&self) {
        self.asked.recv_timeout(Duration::from_secs(60)).unwrap();
        let said = Instant::now();
        while said.elapsed() < Duration::from_millis(GOOD_FOR_MS) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Holds the tool at a point until [`Held::go_on`].
struct Held {
    child: Child,
    file: std::path::PathBuf,
}

impl Held {
    fn start(world: &World, args: &[&str], point: &str) -> Self {
        let file = world.dir.path().join("go-on");
        let points = format!(
            "{point}=return({});look::good-for-ms=return({GOOD_FOR_MS})",
            file.display()
        );
        let child = world
            .command(args, Some(&points))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, file }
    }

    /// Lets it run to its end.
    fn go_on(self) -> Output {
        std::fs::write(self.file, "").unwrap();
        self.child.wait_with_output().unwrap()
    }
}

fn expect_refused(output: &Output, code: &str) {
    expect(output, 3);
    assert!(text(output).contains(code), "{}", text(output));
}

async fn planned() -> World {
    let world = World::new().await;
    let plan = ["restore", "plan", "--out", "plan.json"];
    expect(&world.tool(&plan, None), 0);
    world
}

fn apply(node: &Node) -> [&str; 6] {
    let url = node.url.as_str();
    ["restore", "apply", "plan.json", "--yes", "--endpoints", url]
}

/// With `--verify-data` that takes as long as the snapshots are large, and `--yes` makes the prompt take no time at all.
#[tokio::test]
async fn i13_a_cluster_that_comes_back_while_the_snapshots_are_read_is_not_restored_beside() {
    let world = planned().await;
    let node = Node::that_says(&[WAITS, LIVES]);
    let held = Held::start(&world, &apply(&node), "restore::proven");
    node.wait_stale();
    expect_refused(&held.go_on(), "[CLUSTER_ALIVE]");
    assert_eq!(world.lives(), 1);
}

#[tokio::test]
async fn a_store_that_was_written_to_while_the_snapshots_are_read_makes_the_plan_stale() {
    let world = planned().await;
    let node = Node::that_says(&[WAITS]);
    let held = Held::start(&world, &apply(&node), "restore::proven");
    node.wait_stale();
    world.publish(&GroupId::config(0), 50).await;
    expect_refused(&held.go_on(), "[PLAN_STALE]");
    assert_eq!(world.lives(), 1);
}

#[tokio::test]
async fn i13_no_life_is_begun_beside_a_cluster_that_came_back_while_the_plan_was_read() {
    let world = World::new().await;
    let node = Node::that_says(&[WAITS, LIVES]);
    let life = ["restore", "local", "--to", "target", "--yes"];
    let life = [
        &life[..],
        &["--begin-life", MEMBER, "--endpoints", &node.url],
    ]
    .concat();
    let held = Held::start(&world, &life, "local::agreed");
    node.wait_stale();
    expect_refused(&held.go_on(), "[CLUSTER_ALIVE]");
    assert_eq!(world.lives(), 1);
    // Nobody lives after all: the same directory will do.
    let args = ["--begin-life", MEMBER, "--yes"];
    expect(&world.local(&args, None), 0);
}

/// The address of a machine that is gone was given to a node of another cluster.
#[tokio::test]
async fn a_node_of_another_cluster_at_a_members_address_stands_against_nothing() {
    const FOREIGN: &str = r#"{"ready": true, "node": {"id": 2, "name": "node7"}, "clusterUuid": "another", "groups": []}"#;
    let world = World::new().await;
    let node = Node::that_says(&[FOREIGN]);
    let plan = ["restore", "plan", "--out", "plan.json", "--endpoints"];
    let planned = world.tool(&[&plan[..], &[&node.url]].concat(), None);
    expect(&planned, 0);
    let said = text(&planned);
    assert!(said.contains("Another cluster answers at"), "{said}");
    assert!(said.contains("node7 of cluster another"), "{said}");
    expect(&world.tool(&apply(&node), None), 0);
    assert_eq!(world.lives(), 2);
}

/// `--dev DIR` names the nodes too, and not the store alone.
#[tokio::test]
async fn a_dev_cluster_that_lives_is_not_restored_beside() {
    let world = planned().await;
    let node = Node::that_says(&[LIVES]);
    let dev = serde_json::json!({
        "apiKey": "key",
        "endpoints": [node.url],
        "objectStore": { "url": world.store_url(), "env": {} },
    });
    let dir = world.dir.path().join("dev");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("dev.json"), dev.to_string()).unwrap();
    let lines: [&[&str]; 3] = [
        &["plan", "--out", "other.json"],
        &["apply", "plan.json", "--yes"],
        &["local", "--to", "target", "--yes", "--begin-life", MEMBER],
    ];
    for line in lines {
        let args = [&["restore"], line, &["--dev", "dev"]].concat();
        expect_refused(&world.tool(&args, None), "[CLUSTER_ALIVE]");
    }
    assert_eq!(world.lives(), 1);
}
