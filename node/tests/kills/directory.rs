//! kill -9 of `drtool recover apply` and `drtool recover undo` at every place of them, on the directory of a node that really lived: run
//! again they come to the end of one that nobody killed, and a node that starts there has all that it had.
//!
//! The tool's own tests (`drtool/tests/recover`) kill it on small directories that they made up, also where several nodes are left.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use confman_tests::agree;
use confman_tests::cluster::{CONFIG, Cluster, META, Plan, copy_dir};
use confman_tests::drtool::Ran;
use confman_tests::http::{Answer, Token};
use confman_tests::members::changed;
use confman_tests::restore::tool;
use confman_tests::wait::wait_until;
use serde_json::{Value, json};

const GROUPS: [&str; 3] = [META, CONFIG, "config/1"];
/// Some of these are in the one shard, some in the other.
const TREES: [&str; 4] = ["app", "web", "data", "more"];
const KEYS: usize = 30;
/// Begins the keys of what only the survivor's log has, in each tree.
const TAIL: &str = "tail";
/// Of a log.
const EVERYTHING: &str = "0..1000000";
/// On a busy machine another one may come to lead at any time.
const TRIES: usize = 10;

/// The places of `drtool` at which it can be killed while it recovers, as its source names them.
fn points() -> anyhow::Result<BTreeSet<String>> {
    let room = Path::new(env!("CARGO_MANIFEST_DIR")).join("../drtool/src/recover");
    let mut points = BTreeSet::new();
    for item in std::fs::read_dir(room)? {
        let path = item?.path();
        if path.extension().is_none_or(|ending| ending != "rs") {
            continue;
        }
        let source = std::fs::read_to_string(path)?;
        for (at, _) in source.match_indices("\"recover::") {
            points.extend(source[at + 1..].split('"').next().map(str::to_owned));
        }
    }
    ensure!(points.len() >= 30, "{points:?}");
    Ok(points)
}

fn is_of_undo(point: &str) -> bool {
    point.starts_with("recover::undo-")
}

/// A cluster that was lived in, all of it stopped, and what its clients know.
struct Story {
    cluster: Cluster,
    /// Where directories and store lie, as they were at the end and as later steps left them.
    kept: PathBuf,
    /// Each key that was ever acknowledged, and its value now.
    values: BTreeMap<String, Option<Value>>,
    audits: BTreeMap<&'static str, Vec<Value>>,
    /// The keys of what nobody acknowledged, in the order of the survivor's log.
    tails: BTreeMap<&'static str, Vec<String>>,
    token: Token,
}

impl Story {
    /// Two shards, values with a history, and at the end of every log what nobody but the first node has and nobody acknowledged.
    async fn of(name: &str) -> anyhow::Result<Self> {
        let cluster = Plan::new(name).env("CONFMAN_SHARDS", "2").start().await?;
        let mut values = BTreeMap::new();
        for tree in TREES {
            for text in ["older", "newer"] {
                cluster.fill(tree, "k", KEYS, text).await?;
            }
            for n in 0..KEYS {
                values.insert(format!("{tree}/k{n}"), Some(json!(format!("newer-{n}"))));
            }
            for (path, value) in [("deep/er", json!({ "on": true })), ("deep/est", json!(7))] {
                let path = format!("{tree}/{path}");
                cluster.write(&path, &value).await?;
                values.insert(path, Some(value));
            }
        }
        for group in GROUPS {
            cluster.snapshot(group).await?;
        }
        let mut audits = BTreeMap::new();
        let token = loop {
            changed(&cluster, &["transfer-leader", "node1"]).await?;
            let path = "/api/v1/config/app/k0";
            let deleted = cluster.api(0).delete(path).send().await?;
            if deleted.status == 200 || deleted.status == 204 {
                values.insert("app/k0".to_owned(), None);
                break deleted.token()?;
            }
            // Another one has come to lead meanwhile.
            ensure!(matches!(deleted.status, 307 | 503), "{deleted:?}");
        };
        for tree in TREES {
            audits.insert(tree, agree::audits(&cluster, Some(tree)).await?);
        }
        let mut story = Self {
            kept: cluster.dir()?.join("kept"),
            cluster,
            values,
            audits,
            tails: BTreeMap::new(),
            token,
        };
        story.only_here().await?;
        story.cluster.kill_all()?;
        story.read_tails().await?;
        story.keep("lived", &[0, 1, 2]).await?;
        Ok(story)
    }

    /// Writes that reach the first node's logs and nobody else's.
    async fn only_here(&self) -> anyhow::Result<()> {
        let cluster = &self.cluster;
        let last = async |group: &str| {
            let status = cluster.group(0, group).await?;
            status["lastIndex"].as_u64().context("no lastIndex")
        };
        for attempt in 0..TRIES {
            changed(cluster, &["transfer-leader", "node1"]).await?;
            let (one, other) = (last(CONFIG).await?, last("config/1").await?);
            for index in [1, 2] {
                cluster.node(index).pause()?;
            }
            // None is answered, or it is refused.
            let puts = TREES.map(|tree| {
                let path = format!("/api/v1/config/{tree}/{TAIL}{attempt}");
                let put = cluster.api(0).put(&path, &json!("here"));
                put.timeout(Duration::from_millis(500)).send()
            });
            futures::future::join_all(puts).await;
            if last(CONFIG).await? > one && last("config/1").await? > other {
                return Ok(());
            }
            for index in [1, 2] {
                cluster.node(index).resume()?;
            }
        }
        anyhow::bail!("nothing comes to the logs of the first node: another one leads")
    }

    /// Finds them in the survivor's logs.
    async fn read_tails(&mut self) -> anyhow::Result<()> {
        let inspect = ["inspect", "--json", "--log", EVERYTHING];
        let told = self.cluster.drtool(inspect).arg(self.survivor());
        let told = told.run().await?.expect(0)?.json()?;
        for group in told["groups"].as_array().context("no groups")? {
            let mut here = 0;
            for entry in group["log"].as_array().context("no log")? {
                let about = entry["about"].as_str().unwrap_or_default();
                let written = about.split(',').next().and_then(|key| key.split_once('/'));
                let Some((tree, key)) = written.filter(|(_, key)| key.starts_with(TAIL)) else {
                    continue;
                };
                let tree = TREES.into_iter().find(|t| *t == tree).context("a tree")?;
                self.tails.entry(tree).or_default().push(key.to_owned());
                here += 1;
            }
            ensure!(here > 0 || group["group"] == META, "{group}");
        }
        Ok(())
    }

    fn survivor(&self) -> &Path {
        &self.cluster.node(0).data_dir
    }

    /// Keeps the store and the directories of these nodes as they are.
    async fn keep(&self, name: &str, nodes: &[usize]) -> anyhow::Result<()> {
        let to = self.kept.join(name);
        for index in nodes {
            let node = self.cluster.node(*index);
            copy_dir(&node.data_dir, &to.join(&node.name))?;
        }
        copy_dir(&self.cluster.dir()?.join("s3"), &to.join("s3"))
    }

    /// Store and directories become what they were; who was not kept has none.
    async fn put_back(&self, name: &str, nodes: &[usize]) -> anyhow::Result<()> {
        let from = self.kept.join(name);
        self.cluster.kill_all()?;
        self.cluster.stop_store().await;
        let s3 = self.cluster.dir()?.join("s3");
        std::fs::remove_dir_all(&s3)?;
        copy_dir(&from.join("s3"), &s3)?;
        self.cluster.resume_store().await?;
        for (index, node) in self.cluster.nodes().iter().enumerate() {
            if node.data_dir.exists() {
                node.wipe()?;
            }
            if nodes.contains(&index) {
                copy_dir(&from.join(&node.name), &node.data_dir)?;
            }
        }
        Ok(())
    }

    /// One step of the recovery at the directory of the first node, killed at a place where one is named.
    async fn step(&self, args: &[&str], kill: Option<&str>) -> anyhow::Result<Ran> {
        let tool = tool(&self.cluster, &[&["recover"], args, &["--json"]].concat()).await;
        let tool = match kill {
            Some(kill) => tool.env("FAILPOINTS", kill),
            None => tool,
        };
        let ran = tool.arg(self.survivor()).run().await?;
        match kill {
            None => ran.expect(0),
            Some(kill) => {
                ensure!(
                    ran.code == -1,
                    "it did not die at {kill}: either it does not come by, or it was built without its kill points (`cargo build --workspace --tests --bins` builds it with them): {ran}"
                );
                Ok(ran)
            }
        }
    }

    /// Two disks are gone, and what to do is written down; gives the plan's id.
    async fn planned(&self) -> anyhow::Result<String> {
        self.put_back("lived", &[0]).await?;
        self.step(&["collect", "--out", "c.json"], None).await?;
        let lost = ["--lost", "node2", "--lost", "node3"];
        let plan = [&["recover", "plan", "c.json", "--json"][..], &lost].concat();
        let plan = tool(&self.cluster, &plan).await.run().await?.expect(0)?;
        let plan = plan.json()?;
        let id = plan["planId"].as_str().context("no planId")?;
        Ok(id.to_owned())
    }

    async fn apply(&self, kill: Option<&str>) -> anyhow::Result<Ran> {
        let apply = ["apply", "--yes", "--operator", "tester"];
        self.step(&apply, kill).await
    }

    async fn undo(&self, kill: Option<&str>) -> anyhow::Result<Ran> {
        let undo = ["undo", "--yes", "--plan", "plan.json"];
        self.step(&undo, kill).await
    }

    /// What the directory of the first node is.
    async fn found(&self, plan: &str) -> anyhow::Result<Found> {
        let dir = self.survivor();
        let dir = dir.to_str().context("a path that is no text")?;
        let mut told = Vec::new();
        for args in [
            &["inspect", dir, "--state", "--log", EVERYTHING][..],
            &["verify", dir],
        ] {
            let ran = self.cluster.drtool(args).arg("--json").run().await?;
            let mut told_now = ran.json()?;
            // When it was made: the one thing in which two runs differ.
            if let Some(identity) = told_now["identity"].as_object_mut() {
                identity.remove("created");
            }
            told.push((ran.code, told_now));
        }
        let mut files = files(self.survivor())?;
        // Looked into above: it has the time in it, and a checksum of that.
        ensure!(files.remove("identity").is_some(), "no identity");
        let aside = self.survivor().join("aside");
        let of = |name: &str| match aside.join(name) {
            dir if dir.exists() => self::files(&dir),
            _ => Ok(BTreeMap::new()),
        };
        let mut undone = of(&format!("{plan}-undone"))?;
        undone.remove("identity");
        Ok(Found {
            told,
            files,
            aside: of(plan)?,
            undone,
        })
    }

    /// The values that were acknowledged, their history, and after it the end of the survivor's log: all of it, or what came of it.
    async fn check_contents(&self, all: bool) -> anyhow::Result<()> {
        for (path, value) in &self.values {
            let read = self.cluster.read(0, path, "linearizable").await?;
            ensure!(read == *value, "{path}: {read:?}, not {value:?}");
        }
        for (tree, before) in &self.audits {
            let after = agree::audits(&self.cluster, Some(tree)).await?;
            let kept = after.get(..before.len());
            ensure!(kept == Some(before), "{tree}: {after:?}, before {before:?}");
            let more = after[before.len()..].iter().map(|e| e["key"].as_str());
            let more: Vec<_> = more.map(Option::unwrap_or_default).collect();
            let tail = self.tails.get(tree).map(Vec::as_slice).unwrap_or_default();
            let right = if all {
                more == *tail
            } else {
                tail.starts_with(&more.iter().map(|k| (*k).to_owned()).collect::<Vec<_>>())
            };
            ensure!(right, "{tree}: {more:?} came after, {tail:?} was written");
        }
        Ok(())
    }

    async fn read_with_token(&self) -> anyhow::Result<Answer> {
        let read = self.cluster.api(0).get("/api/v1/config/app/k1");
        let read = read.consistency("read-your-writes");
        let token = self.token.to_string();
        read.header("x-confman-version", &token).send().await
    }

    /// The node begins the new life there and has everything; the machines that lost their disks come back to it.
    async fn lives_on(&self) -> anyhow::Result<()> {
        let cluster = &self.cluster;
        cluster.node(0).start()?;
        cluster.wait_ready(0).await?;
        for group in GROUPS {
            ensure!(cluster.wait_leader(group).await? == 0, "it does not lead");
        }
        let mut begun = wait_until(
            "every group tells of it",
            Duration::from_secs(20),
            || async {
                let mut events = agree::audits(cluster, None).await?;
                events.retain(|e| e["action"] == "cluster.recovered");
                let groups: Vec<_> = events.iter().map(|e| e["group"].to_string()).collect();
                ensure!(groups.len() >= GROUPS.len(), "{groups:?}");
                Ok(groups)
            },
        )
        .await?;
        begun.sort_unstable();
        ensure!(begun == GROUPS.map(|g| json!(g).to_string()), "{begun:?}");
        self.check_contents(true).await?;
        let stale = self.read_with_token().await?;
        ensure!(stale.status == 409, "{}: {}", stale.status, stale.text());
        let token = cluster.write("app/after", &json!("first")).await?.token()?;
        ensure!(token.incarnation == 2, "{token}");
        cluster.start_all()?;
        cluster.wait_all_ready().await?;
        for group in GROUPS {
            agree::state_hashes(cluster, group).await?;
        }
        Ok(())
    }

    /// The others were only away: the old cluster goes on with all three.
    async fn goes_on(&self) -> anyhow::Result<()> {
        let cluster = &self.cluster;
        for index in [1, 2] {
            let node = cluster.node(index);
            copy_dir(&self.kept.join("lived").join(&node.name), &node.data_dir)?;
        }
        cluster.start_all()?;
        cluster.wait_all_ready().await?;
        self.check_contents(false).await?;
        let read = self.read_with_token().await?;
        ensure!(read.status == 200, "{}: {}", read.status, read.text());
        let token = cluster.write("app/after", &json!("on")).await?.token()?;
        ensure!(token.incarnation == 1, "{token}");
        for group in GROUPS {
            agree::state_hashes(cluster, group).await?;
        }
        Ok(())
    }
}

/// A directory, in all that two runs of the tool may not differ in.
#[derive(PartialEq)]
struct Found {
    /// How `inspect` and `verify` ended and what they said.
    told: Vec<(i32, Value)>,
    files: BTreeMap<String, Vec<u8>>,
    aside: BTreeMap<String, Vec<u8>>,
    undone: BTreeMap<String, Vec<u8>>,
}

impl Found {
    fn same_as(&self, other: &Self) -> anyhow::Result<()> {
        ensure!(self.told == other.told, "{:?}\n{:?}", self.told, other.told);
        same_files("in place", &self.files, &other.files)?;
        same_files("aside", &self.aside, &other.aside)?;
        same_files("undone", &self.undone, &other.undone)
    }
}

/// Fails where the files are not the same; names them.
fn same_files(
    what: &str,
    one: &BTreeMap<String, Vec<u8>>,
    other: &BTreeMap<String, Vec<u8>>,
) -> anyhow::Result<()> {
    let mut names: BTreeSet<_> = one.keys().chain(other.keys()).collect();
    names.retain(|name| one.get(*name) != other.get(*name));
    ensure!(names.is_empty(), "{what}: {names:?} differ");
    Ok(())
}

/// The files of a node below `root`, but for locks and what is beside its contents.
fn files(root: &Path) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root) {
        let entry = entry?;
        let name = entry.path().strip_prefix(root)?;
        let beside = ["aside", "tmp", "plan.json"]
            .iter()
            .any(|n| name.starts_with(n));
        if entry.file_type().is_file() && !beside && entry.file_name() != "LOCK" {
            let name = name.display().to_string();
            files.insert(name, std::fs::read(entry.path())?);
        }
    }
    Ok(files)
}

/// The node starts after a kill at these: one of each kind. What lies there is the same after all of them.
const STARTED: [&str; 6] = [
    "recover::marked",
    "recover::store-claimed",
    "recover::operated=1*off->return",
    "recover::aside-incarnation",
    "recover::place-groups",
    "recover::ended",
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i1_i13_i17_kill_9_at_every_place_of_apply_leaves_a_real_directory_as_if_there_was_none()
-> anyhow::Result<()> {
    let story = Story::of("apply-kills").await?;
    let plan = story.planned().await?;
    story.keep("planned", &[0]).await?;
    let mut before = files(story.survivor())?;
    // What lies beside these is not of one life alone.
    before.retain(|name, _| name == "identity" || name.starts_with("groups/"));
    story.apply(None).await?;
    let right = story.found(&plan).await?;
    same_files("aside", &right.aside, &before)?;
    ensure!(
        right.told.iter().all(|(code, _)| *code == 0),
        "{:?}",
        right.told
    );

    let mut kills = Vec::new();
    for point in points()?.into_iter().filter(|point| !is_of_undo(point)) {
        // Groups are copied and given the new members one after the other.
        let passes = match point.as_str() {
            "recover::copied" | "recover::operated" => GROUPS.len(),
            _ => 1,
        };
        kills.push(format!("{point}=return"));
        kills.extend((1..passes).map(|n| format!("{point}={n}*off->return")));
    }
    let mut started = 0;
    for kill in &kills {
        story.put_back("planned", &[0]).await?;
        story.apply(Some(kill)).await?;
        story.apply(None).await?;
        let found = story.found(&plan).await;
        let found = found.with_context(|| kill.clone())?;
        found.same_as(&right).with_context(|| kill.clone())?;
        if STARTED
            .iter()
            .any(|point| kill.trim_end_matches("=return") == *point || kill == point)
        {
            story.lives_on().await.with_context(|| kill.clone())?;
            started += 1;
        }
    }
    eprintln!("{} kills, {started} starts", kills.len());
    ensure!(started == STARTED.len(), "{started} starts");
    story.cluster.finish()
}

/// The same for the way back.
const WENT_ON: [&str; 5] = [
    "recover::undo-marked",
    "recover::undo-aside-groups",
    "recover::undo-place-groups",
    "recover::undo-identity-written",
    "recover::undo-store-withdrawn",
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i1_i15_i17_kill_9_at_every_place_of_undo_gives_the_old_cluster_back() -> anyhow::Result<()>
{
    let story = Story::of("undo-kills").await?;
    let plan = story.planned().await?;
    let mut before = files(story.survivor())?;
    before.remove("identity");
    story.apply(None).await?;
    story.keep("applied", &[0]).await?;
    story.undo(None).await?;
    let right = story.found(&plan).await?;
    same_files("in place", &right.files, &before)?;

    let points: Vec<_> = points()?
        .into_iter()
        .filter(|point| is_of_undo(point))
        .collect();
    let mut went_on = 0;
    for point in &points {
        story.put_back("applied", &[0]).await?;
        story.undo(Some(&format!("{point}=return"))).await?;
        story.undo(None).await?;
        let found = story.found(&plan).await;
        let found = found.with_context(|| point.clone())?;
        found.same_as(&right).with_context(|| point.clone())?;
        if WENT_ON.contains(&point.as_str()) {
            story.goes_on().await.with_context(|| point.clone())?;
            went_on += 1;
        }
    }
    eprintln!("{} kills, {went_on} starts", points.len());
    ensure!(went_on == WENT_ON.len(), "{went_on} starts");
    story.cluster.finish()
}
