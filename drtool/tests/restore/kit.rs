//! A store of which the cluster is gone, and the tool to restore from it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use confman_snapshot::StateHash;
use confman_snapshot::build::{BuildOptions, build_and_upload};
use confman_snapshot::model::{ClusterId, GroupId, Membership, NodeInfo, Position};
use confman_snapshot::repository::ClusterObject;
use confman_snapshot::view::{SnapshotInfo, StateView};
use confman_snapshot::{Codec, Repository, WriteOptions};
use confman_store::keys;
use confman_store::records::{ClusterRecord, FactsRecord, NodeRecord, NodeState};
use prost::Message;

pub(crate) const UUID: &str = "0d0a3a8e-6d4c-4f0e-9a57-3c1b2d9e8f70";
/// Nobody listens there.
pub(crate) const MEMBER: &str = "node1=http://127.0.0.1:1,127.0.0.1:2";

/// A store with a snapshot of every group of a cluster of which no node is left.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let world = Self { dir };
        let life = ClusterId::new(UUID, 1);
        let claim = ClusterObject::new(life, 1, "node1", "nonce");
        let repository = world.repository().await;
        repository.claim_cluster(&claim).await.unwrap();
        for group in [GroupId::meta(), GroupId::config(0)] {
            world.publish(&group, 40).await;
        }
        world
    }

    async fn repository(&self) -> Repository {
        let url = self.store_url();
        Repository::open(&url, self.dir.path(), []).await.unwrap()
    }

    pub(crate) fn store_url(&self) -> String {
        format!("file://{}/store", self.dir.path().display())
    }

    /// One more snapshot of the group, at this index.
    pub(crate) async fn publish(&self, group: &GroupId, index: u64) {
        publish(&self.repository().await, self.dir.path(), group, index).await;
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    pub(crate) fn local(&self, more: &[&str], points: Option<&str>) -> Output {
        let args = ["restore", "local", "--to", "target", "--operator", "tester"];
        self.tool(&[&args[..], more].concat(), points)
    }

    pub(crate) fn tool(&self, args: &[&str], points: Option<&str>) -> Output {
        self.command(args, points).output().unwrap()
    }

    pub(crate) fn command(&self, args: &[&str], points: Option<&str>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drtool"));
        command.args(args).current_dir(self.dir.path()).env_clear();
        command.env("CONFMAN_OBJECT_STORE_URL", self.store_url());
        if let Some(points) = points {
            command.env("FAILPOINTS", points);
        }
        command
    }

    /// The lives in the store.
    pub(crate) fn lives(&self) -> usize {
        let dir = self.dir.path().join("store/cluster");
        std::fs::read_dir(dir).unwrap().count()
    }
}

async fn publish(repository: &Repository, dir: &Path, group: &GroupId, index: u64) {
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
    let position = Position::new(2, 1, index);
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
        records: Box::new(
            records
                .into_iter()
                .map(|(key, value)| Ok((key.into(), value.into()))),
        ),
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

pub(crate) fn text(output: &Output) -> String {
    format!(
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

pub(crate) fn expect(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", text(output));
}

/// A place that `restore apply` alone comes by.
pub(crate) const APPLY_ONLY: &str = "restore::proven";

/// All places of `restore local` where it can be killed.
pub(crate) fn points() -> BTreeSet<String> {
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
            if name != APPLY_ONLY {
                points.insert(name.to_owned());
            }
        }
    }
    assert!(points.len() >= 10, "{points:?}");
    points
}
