//! A cluster of which two nodes are left, and the tool to recover it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use confman_drtool::recover::collection::{Collection, Directory, Stage};
use confman_drtool::recover::directory;
use confman_drtool::recover::plan::Plan;
use confman_snapshot::build::{BuildOptions, build_and_upload};
use confman_snapshot::model::{ClusterId, GroupId, NodeInfo, Position};
use confman_snapshot::repository::ClusterObject;
use confman_snapshot::testing::view;
use confman_snapshot::{Codec, Repository, WriteOptions};
use confman_store::datadir::{Facts, IdentityState, MemberAtBirth};
use confman_store::surgery::{Operation, operate};
use confman_store::{DataDir, DataPaths, GroupStore, Identity, OpenOptions};

pub(crate) const UUID: &str = "0d0a3a8e-6d4c-4f0e-9a57-3c1b2d9e8f70";

pub(crate) fn info(id: u64) -> NodeInfo {
    NodeInfo {
        name: format!("node{id}"),
        // Nobody listens there.
        api_url: format!("http://127.0.0.1:{id}"),
        peer_addr: format!("127.0.0.1:{}", 100 + id),
    }
}

pub(crate) fn groups() -> [GroupId; 3] {
    [GroupId::meta(), GroupId::config(0), GroupId::config(1)]
}

pub(crate) fn five() -> Vec<(u64, NodeInfo)> {
    (1..=5).map(|id| (id, info(id))).collect()
}

/// A node's directory with a short log in every group, as a stopped node leaves it. `entries` of each group.
pub(crate) fn make_node(
    root: &Path,
    members: &[(u64, NodeInfo)],
    id: u64,
    entries: &[(GroupId, u64)],
) {
    let data = DataDir::open(root).unwrap();
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
                members: members.to_vec(),
            };
            operate(&paths.log(), &operation).unwrap();
            last = Some(Position::new(number + 1, 1, number));
        }
    }
    let own = members.iter().find(|(member, _)| *member == id).unwrap();
    let identity = Identity {
        cluster_uuid: UUID.to_owned(),
        incarnation: 1,
        node_id: id,
        name: own.1.name.clone(),
        shards: 2,
        members: members
            .iter()
            .cloned()
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

/// A program that another test starts at that moment has all open files of this process until it runs, locks among them.
fn wait_free(root: &Path) {
    let begun = Instant::now();
    while let Some(holder) = directory::read(root, 0).unwrap().in_use {
        assert!(begun.elapsed() < Duration::from_secs(30), "{holder}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Two of five nodes are left; a group is ahead at the other one.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) plan: Plan,
    runtime: tokio::runtime::Runtime,
}

impl World {
    pub(crate) fn new() -> Self {
        let left = [("node1", 1, [3, 5, 2]), ("node2", 2, [3, 2, 4])];
        let world = Self::of(&five(), &left, &["node3", "node4", "node5"]);
        let plan = &world.plan;
        assert_eq!(plan.survivor.info.name, "node1", "{plan}");
        assert_eq!(plan.others[0].gives, groups()[2..], "{plan}");
        // Each entry of these logs is a membership, and nobody knows of one that it was committed.
        let seen = Collection::read(&world.dir.path().join("collection.json")).unwrap();
        let found = seen.directories[0].group(&groups()[1]).unwrap();
        let told = found.memberships.iter().map(|m| m.position.unwrap().index);
        assert_eq!(told.collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        world
    }

    /// What is left of a cluster: directories by their folder, id and entries in each group; and who is given up.
    pub(crate) fn of(
        members: &[(u64, NodeInfo)],
        left: &[(&str, u64, [u64; 3])],
        lost: &[&str],
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (folder, id, entries) in left {
            let entries: Vec<(GroupId, u64)> = groups().into_iter().zip(*entries).collect();
            make_node(&dir.path().join(folder), members, *id, &entries);
            wait_free(&dir.path().join(folder));
        }
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(async {
            let claim = ClusterObject::new(ClusterId::new(UUID, 1), 1, "node1", "nonce");
            store(dir.path()).await.claim_cluster(&claim).await.unwrap();
        });
        let folders: Vec<&str> = left.iter().map(|(folder, ..)| *folder).collect();
        let collect = [&["recover", "collect"][..], &folders].concat();
        expect(&tool(dir.path(), &collect, None), 0);
        let lost: Vec<&str> = lost.iter().flat_map(|name| ["--lost", name]).collect();
        let args = [&["recover", "plan"][..], &lost].concat();
        expect(&tool(dir.path(), &args, None), 0);
        let plan = Plan::read(&dir.path().join("plan.json")).unwrap();
        Self { dir, plan, runtime }
    }

    pub(crate) fn path(&self, node: &str) -> PathBuf {
        self.dir.path().join(node)
    }

    pub(crate) fn apply(&self, node: &str, kill: Option<&str>) -> Output {
        let args = ["recover", "apply", "--yes", "--operator", "tester", node];
        tool(self.dir.path(), &args, kill)
    }

    pub(crate) fn undo(&self, node: &str, kill: Option<&str>) -> Output {
        let args = ["recover", "undo", "--yes", "--plan", "plan.json", node];
        tool(self.dir.path(), &args, kill)
    }

    /// Whether the new life is claimed in the store.
    pub(crate) fn is_claimed(&self) -> bool {
        let asked = async {
            let lives = store(self.dir.path()).await.list_clusters().await.unwrap();
            lives
                .iter()
                .any(|life| life.cluster == self.plan.new_life())
        };
        self.runtime.block_on(asked)
    }

    /// Puts a snapshot into the store, as a node of that life makes it; gives its file.
    pub(crate) fn publish(&self, group: &GroupId, incarnation: u64, position: Position) -> PathBuf {
        let mut view = view(group, position.index, 20, 200);
        view.info.cluster = ClusterId::new(UUID, incarnation);
        view.info.position = position;
        let options = BuildOptions {
            write: WriteOptions {
                codec: Codec::Zstd,
                chunk_bytes: 16 * 1024,
            },
            tmp_dir: self.dir.path().join("tmp"),
            builder_node: 1,
            nonce: 7,
        };
        let built = self.runtime.block_on(async {
            let repository = store(self.dir.path()).await;
            build_and_upload(view, &repository, &options, |_| {}).await
        });
        self.dir.path().join("store").join(built.unwrap().object)
    }

    /// The URL of a store that is another cluster's.
    pub(crate) fn other_store(&self) -> String {
        let url = format!("file://{}/other", self.dir.path().display());
        let claim = ClusterObject::new(ClusterId::new(UUID.replace('0', "1"), 1), 1, "a", "nonce");
        self.runtime.block_on(async {
            let repository = Repository::open(&url, self.dir.path(), []).await.unwrap();
            repository.claim_cluster(&claim).await.unwrap();
        });
        url
    }

    /// The reports of this recovery in the store, by their names.
    pub(crate) fn reports(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut folders = vec![self.dir.path().join("store/reports")];
        while let Some(folder) = folders.pop() {
            for item in fs::read_dir(folder).into_iter().flatten() {
                let path = item.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        names.sort();
        names
    }

    /// A directory as it was before anything.
    pub(crate) fn untouched(&self, node: &str) -> BTreeMap<String, Vec<u8>> {
        files(&self.path(node))
    }

    /// Where the old contents of a directory lie.
    pub(crate) fn aside(&self, node: &str) -> PathBuf {
        self.path(node).join("aside").join(&self.plan.plan_id)
    }
}

/// The store of the cluster, which the tool finds in its environment.
async fn store(dir: &Path) -> Repository {
    let url = store_url(dir);
    Repository::open(&url, dir, []).await.unwrap()
}

fn store_url(dir: &Path) -> String {
    format!("file://{}/store", dir.display())
}

pub(crate) fn command(dir: &Path, args: &[&str], points: Option<&str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drtool"));
    command.args(args).current_dir(dir).env_clear();
    command.env("CONFMAN_OBJECT_STORE_URL", store_url(dir));
    if let Some(points) = points {
        command.env("FAILPOINTS", points);
    }
    command
}

pub(crate) fn tool(dir: &Path, args: &[&str], kill: Option<&str>) -> Output {
    command(dir, args, kill).output().unwrap()
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

/// A program that was killed has no exit code.
pub(crate) fn was_killed(output: &Output) -> bool {
    if output.status.code().is_none() {
        return true;
    }
    expect(output, 0);
    false
}

/// The files of a node below `root`, by name, but for locks and what was set aside.
pub(crate) fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
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
pub(crate) fn points() -> Vec<String> {
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

pub(crate) fn apply_points() -> Vec<String> {
    let undo = |name: &String| name.starts_with("recover::undo-");
    points().into_iter().filter(|name| !undo(name)).collect()
}

pub(crate) fn undo_points() -> Vec<String> {
    let undo = |name: &String| name.starts_with("recover::undo-");
    points().into_iter().filter(undo).collect()
}

/// The survivor after the plan: everything that a node would find.
pub(crate) fn check_survivor(world: &World, before: &BTreeMap<String, Vec<u8>>) {
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
        let voters: Vec<u64> = group.membership().unwrap().voters[0]
            .iter()
            .copied()
            .collect();
        assert_eq!(voters, [plan.survivor.new_id]);
    }
    // The log that was taken from the other node is longer than its own was.
    assert_eq!(plan.groups[2].last.unwrap().index, 3);
    let data = DataDir::open(&root).unwrap();
    assert!(matches!(data.inspect().unwrap(), Facts::Good(_)));
    let begin = data.read_incarnation().unwrap().unwrap();
    assert_eq!(begin.operator, "tester");
    assert_eq!(begin.expected.len(), 4);
    assert_eq!(begin.survivor_id, plan.survivor.old_id);
    drop(data);
    assert!(!root.join("repaired").exists());
    // The store knows of it, with the plan.
    assert!(world.is_claimed());
    assert_eq!(world.reports().len(), 1, "{:?}", world.reports());
    // Not a byte of what was there is another.
    assert_eq!(&files(&world.aside("node1")), before);
    assert!(world.aside("node1").join("plan.json").exists());
}

/// No node starts here while a plan is half carried out.
pub(crate) fn check_closed(root: &Path) {
    if DataPaths::new(root).surgery().exists() {
        let data = DataDir::open(root).unwrap();
        let Facts::Damaged(finding) = data.inspect().unwrap() else {
            panic!("a node would start on a directory that is half repaired");
        };
        assert!(finding.contains("drtool recover"), "{finding}");
    }
}

/// A directory that got its old contents back: what is another is only that it remembers the incarnation.
pub(crate) fn check_undone(world: &World, node: &str, before: &BTreeMap<String, Vec<u8>>) {
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
    assert!(!world.is_claimed(), "whoever sees the claim fences itself");
}
