//! `drtool restore local` killed with `kill -9` at every step and run again: the same end (I17); and a disk that is too small.
//!
//! The program is the real one, built with places where it kills itself; the store is a real one, made with the product's own
//! snapshots. That a node runs on what comes out of it is shown by the whole-system scenarios.

// Helpers of a test may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use confman_snapshot::build::{BuildOptions, build_and_upload};
use confman_snapshot::lthash::StateHash;
use confman_snapshot::model::{ClusterId, GroupId, Membership, NodeInfo, Position};
use confman_snapshot::repository::ClusterObject;
use confman_snapshot::view::{SnapshotInfo, StateView};
use confman_snapshot::{Codec, Repository, WriteOptions};
use confman_store::datadir::{Facts, IdentityState};
use confman_store::keys;
use confman_store::offline::OfflineNode;
use confman_store::records::{ClusterRecord, FactsRecord, NodeRecord, NodeState};
use confman_store::{DataDir, DataPaths};
use prost::Message;

const UUID: &str = "0d0a3a8e-6d4c-4f0e-9a57-3c1b2d9e8f70";
/// Nobody listens there.
const MEMBER: &str = "node1=http://127.0.0.1:1,127.0.0.1:2";

/// A store with a snapshot of every group of a cluster of which no node is left.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}/store", dir.path().display());
        let repository = Repository::open(&url, dir.path(), []).await.unwrap();
        let life = ClusterId::new(UUID, 1);
        let claim = ClusterObject::new(life, 1, "node1", "nonce");
        repository.claim_cluster(&claim).await.unwrap();
        for group in [GroupId::meta(), GroupId::config(0)] {
            publish(&repository, dir.path(), &group).await;
        }
        Self { dir }
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    fn local(&self, more: &[&str], points: Option<&str>) -> Output {
        let args = ["restore", "local", "--to", "target", "--operator", "tester"];
        self.tool(&[&args[..], more].concat(), points)
    }

    fn tool(&self, args: &[&str], points: Option<&str>) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drtool"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .env(
                "CONFMAN_OBJECT_STORE_URL",
                format!("file://{}/store", self.dir.path().display()),
            );
        if let Some(points) = points {
            command.env("FAILPOINTS", points);
        }
        command.output().unwrap()
    }

    /// The lives in the store.
    fn lives(&self) -> usize {
        let dir = self.dir.path().join("store/cluster");
        std::fs::read_dir(dir).unwrap().count()
    }
}

async fn publish(repository: &Repository, dir: &Path, group: &GroupId) {
    let facts = FactsRecord {
        first_time_us: 1,
        last_time_us: 7,
        commands: 7,
        ..FactsRecord::default()
    };
    let mut records = vec![(keys::facts(), facts.encode_to_vec())];
    if group.is_meta() {
        let cluster = ClusterRecord {
            uuid: UUID.to_owned(),
            incarnation: 1,
            shards: 1,
            created_us: 1,
            next_node_id: 2,
        };
        let node = NodeRecord {
            id: 1,
            name: "node1".to_owned(),
            api_url: "http://127.0.0.1:1".to_owned(),
            peer_addr: "127.0.0.1:2".to_owned(),
            state: NodeState::Active.into(),
            ..NodeRecord::default()
        };
        records.push((keys::cluster(), cluster.encode_to_vec()));
        records.push((keys::node(1), node.encode_to_vec()));
    }
    let mut state_hash = StateHash::new();
    for (key, value) in &records {
        state_hash.add(key, value);
    }
    let position = Position::new(2, 1, 40);
    let info = SnapshotInfo {
        cluster: ClusterId::new(UUID, 1),
        group: group.clone(),
        position,
        membership: Membership {
            position: Some(Position::new(1, 1, 1)),
            voters: vec![[1].into()],
            nodes: [(1, NodeInfo::default())].into(),
        },
        state_hash,
        created_us: 8,
        first_time_us: 1,
        last_time_us: 7,
    };
    let view = StateView {
        info,
        records: Box::new(records.into_iter().map(Ok)),
    };
    let options = BuildOptions {
        write: WriteOptions {
            codec: Codec::Zstd,
            chunk_bytes: 16 * 1024,
        },
        tmp_dir: dir.join("tmp"),
        builder_node: 1,
        nonce: 7,
    };
    let built = build_and_upload(view, repository, &options, |_| {}).await;
    built.unwrap();
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

/// All places of the command where it can be killed.
fn points() -> BTreeSet<String> {
    let room = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/restore");
    let mut points = BTreeSet::new();
    for item in std::fs::read_dir(room).unwrap() {
        let path = item.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let source = std::fs::read_to_string(path).unwrap();
        for (at, _) in source.match_indices("step(\"") {
            let name = source[at + 6..].split('"').next().unwrap();
            points.insert(name.to_owned());
        }
    }
    assert!(points.len() >= 10, "{points:?}");
    points
}

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
    for (point, lives) in [("restore::before-order", 1), ("restore::after-order", 2)] {
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
