//! `drtool inspect`, `verify` and `diff` on the directories of real nodes that were killed, damaged and compared. Whatever
//! a command says, the directory's bytes and times are the same before and after it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use confman_tests::cluster::{CONFIG, Cluster, META, PATIENCE, Plan, copy_dir};
use confman_tests::drtool::{Drtool, Ran};
use confman_tests::wait::wait_until;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A value that is found in the files.
const NEEDLE: &str = "needle-0123456789-abcdefghij-klmnopqrst";

/// Every path with its bytes and its time of change.
fn tree(dir: &Path) -> anyhow::Result<BTreeMap<PathBuf, (Vec<u8>, SystemTime)>> {
    let mut all = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = fs::symlink_metadata(&path)?;
        let mut bytes = Vec::new();
        if metadata.is_dir() {
            for item in fs::read_dir(&path)? {
                open.push(item?.path());
            }
        } else {
            bytes = fs::read(&path)?;
        }
        all.insert(path, (bytes, metadata.modified()?));
    }
    Ok(all)
}

fn copied(from: &Path) -> anyhow::Result<TempDir> {
    let dir = tempfile::Builder::new().prefix("confman-copy-").tempdir()?;
    copy_dir(from, dir.path())?;
    Ok(dir)
}

/// Runs a command on directories and holds that it changed nothing in them.
async fn reads(command: &[&str], dirs: &[&Path]) -> anyhow::Result<Ran> {
    let before: Vec<_> = dirs.iter().map(|dir| tree(dir)).collect::<Result<_, _>>()?;
    let mut tool = Drtool::new(command);
    for dir in dirs {
        tool = tool.arg(dir);
    }
    let ran = tool.run().await?;
    for (dir, before) in dirs.iter().zip(before) {
        assert!(tree(dir)? == before, "{} changed: {ran}", dir.display());
    }
    Ok(ran)
}

async fn verify(dir: &Path, code: i32) -> anyhow::Result<Value> {
    reads(&["verify", "--json"], &[dir])
        .await?
        .expect(code)?
        .json()
}

fn codes(report: &Value) -> Vec<&str> {
    let findings = report["findings"].as_array().map(Vec::as_slice);
    findings
        .unwrap_or_default()
        .iter()
        .filter_map(|finding| finding["code"].as_str())
        .collect()
}

fn group<'a>(report: &'a Value, name: &str) -> &'a Value {
    let found = report["groups"]
        .as_array()
        .and_then(|groups| groups.iter().find(|group| group["group"] == name));
    found.unwrap_or(&Value::Null)
}

/// A file of the log of `config/0`, the last one.
fn last_log_file(dir: &Path) -> anyhow::Result<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir.join("groups/config-0/log"))?
        .map(|item| item.map(|item| item.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|e| e == "wal"));
    files.sort();
    files.pop().context("no file of the log")
}

/// Flips a bit of every copy of the needle in a file.
fn flip_needle(path: &Path) -> anyhow::Result<()> {
    let mut bytes = fs::read(path)?;
    let needle = NEEDLE.as_bytes();
    let places: Vec<usize> = (0..bytes.len().saturating_sub(needle.len()))
        .filter(|at| bytes[*at..].starts_with(needle))
        .collect();
    assert!(!places.is_empty(), "no needle in {}", path.display());
    for at in places {
        bytes[at] ^= 0x20;
    }
    Ok(fs::write(path, bytes)?)
}

/// Waits until the state of `config/0` that a kill would leave has applied an entry: a state is made durable about once a
/// second.
async fn wait_on_disk(cluster: &Cluster, index: usize, entry: u64) -> anyhow::Result<()> {
    wait_until("the state on disk has it", PATIENCE, || async {
        let tool = Drtool::new(["inspect", "--json"]).arg(&cluster.node(index).data_dir);
        let shown = tool.run().await?.expect(0)?.json()?;
        let applied = &group(&shown, CONFIG)["applied"];
        anyhow::ensure!(applied["index"].as_u64() >= Some(entry), "{applied}");
        Ok(())
    })
    .await
}

/// Three nodes with something of everything, killed one after the other.
async fn killed(name: &str) -> anyhow::Result<Cluster> {
    let cluster = Plan::new(name).start().await?;
    cluster.fill("app/db", "k", 40, "v").await?;
    cluster.write("app/needle", &json!(NEEDLE)).await?;
    cluster
        .write("app/needle2", &json!("x".repeat(700_000)))
        .await?;
    cluster.snapshot(CONFIG).await?;
    let last = cluster
        .write("app/db/k1", &json!("changed"))
        .await?
        .token()?;
    for index in 0..3 {
        wait_on_disk(&cluster, index, last.index).await?;
    }
    cluster.kill_all()?;
    Ok(cluster)
}

#[tokio::test(flavor = "multi_thread")]
async fn i16_a_killed_node_is_read_and_nothing_is_changed() -> anyhow::Result<()> {
    let cluster = killed("read-killed").await?;
    let dir = &cluster.node(0).data_dir;
    let report = verify(dir, 0).await?;
    assert_eq!(report["errors"], 0, "{report}");
    assert_eq!(report["identity"]["name"], "node1", "{report}");
    for name in [META, CONFIG] {
        let group = group(&report, name);
        assert_eq!(group["stateHash"], group["recordsHash"], "{report}");
        assert!(group["entriesCompared"].as_u64() > Some(0), "{report}");
    }

    let shown = reads(&["inspect", "--json", "--log", "1..", "--state"], &[dir]).await?;
    let shown = shown.expect(0)?.json()?;
    let config = group(&shown, CONFIG);
    let text = config["log"].to_string();
    assert!(
        text.contains("app/needle") && text.contains("snapshot.verified"),
        "{text}"
    );
    let records = config["state"].to_string();
    assert!(records.contains("entry app/db/k39"), "{records}");
    assert_eq!(
        config["snapshots"].as_array().map(Vec::len),
        Some(1),
        "{shown}"
    );
    assert_eq!(
        config["membership"]["nodes"]
            .as_object()
            .map(serde_json::Map::len),
        Some(3),
        "{shown}"
    );
    let last = config["last"]["index"].as_u64().context("no last entry")?;
    let range = format!("{last}..{last}");
    let one = reads(
        &["inspect", "--json", "--group", CONFIG, "--log", &range],
        &[dir],
    )
    .await?;
    let one = one.expect(0)?.json()?;
    assert_eq!(one["groups"].as_array().map(Vec::len), Some(1), "{one}");
    assert_eq!(
        one["groups"][0]["log"].as_array().map(Vec::len),
        Some(1),
        "{one}"
    );
    assert_eq!(one["groups"][0]["log"][0]["index"], last, "{one}");
    let people = reads(&["inspect", "--log", "..", "--state"], &[dir])
        .await?
        .expect(0)?;
    assert!(
        people.stdout.contains("put app/needle, 39 bytes by tester"),
        "{people}"
    );

    Drtool::new(["verify", "/nowhere/at/all"])
        .run()
        .await?
        .expect(4)?;
    reads(&["inspect", "--group", "config/7"], &[dir])
        .await?
        .expect(4)?;
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn d07_flipped_bytes_are_named_and_left() -> anyhow::Result<()> {
    let cluster = killed("flipped").await?;
    let sound = &cluster.node(0).data_dir;

    // In the log: the group is told of, the others are read on.
    let dir = copied(sound)?;
    let file = last_log_file(dir.path())?;
    flip_needle(&file)?;
    let report = verify(dir.path(), 5).await?;
    let findings = report["findings"].as_array().context("findings")?;
    let damage = findings
        .iter()
        .find(|finding| finding["code"] == "LOG_DAMAGED")
        .with_context(|| format!("{report}"))?;
    let view = damage["view"].as_str().unwrap_or_default();
    let name = file
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    assert!(view.contains(name) && view.contains("at byte"), "{damage}");
    assert!(damage["hint"].is_string(), "{damage}");
    assert!(
        group(&report, META)["records"].as_u64() > Some(0),
        "{report}"
    );
    let explained = Drtool::new(["explain", "LOG_DAMAGED"])
        .run()
        .await?
        .expect(0)?;
    assert!(explained.stdout.contains("What to do"), "{explained}");

    // In a value of the state: the record is named, and the hash says so too.
    let dir = copied(sound)?;
    flip_needle(&dir.path().join("groups/config-0/state.redb"))?;
    let report = verify(dir.path(), 5).await?;
    let found = codes(&report);
    assert!(found.contains(&"STATE_HASH_MISMATCH"), "{report}");
    assert!(found.contains(&"RECORD_DAMAGED"), "{report}");
    assert!(report.to_string().contains("entry app/needle"), "{report}");
    // The other node's directory shows what it should be.
    let ran = reads(&["diff", "--json"], &[sound, dir.path()])
        .await?
        .expect(1)?;
    let state = &group(&ran.json()?, CONFIG)["state"].clone();
    assert_eq!(state["verdict"], "differs", "{ran}");
    assert!(
        state["records"].to_string().contains("entry app/needle"),
        "{ran}"
    );

    // In the identity.
    let dir = copied(sound)?;
    confman_tests::store::flip_bit(&dir.path().join("identity"))?;
    let report = verify(dir.path(), 5).await?;
    assert!(codes(&report).contains(&"IDENTITY_DAMAGED"), "{report}");
    assert!(report["identity"].is_null(), "{report}");
    assert!(
        group(&report, CONFIG)["records"].as_u64() > Some(0),
        "{report}"
    );

    // A state that is none: the group cannot be opened, the next one is.
    let dir = copied(sound)?;
    fs::write(dir.path().join("groups/__meta-0/state.redb"), [7; 9000])?;
    let report = verify(dir.path(), 5).await?;
    assert!(codes(&report).contains(&"STATE_DAMAGED"), "{report}");
    assert!(group(&report, META)["records"].is_null(), "{report}");
    assert!(
        group(&report, CONFIG)["records"].as_u64() > Some(0),
        "{report}"
    );
    let shown = reads(&["inspect"], &[dir.path()]).await?.expect(0)?;
    assert!(shown.stdout.contains("none that can be read"), "{shown}");
    let ran = reads(&["diff"], &[sound, dir.path()]).await?.expect(0)?;
    assert!(ran.stdout.contains("not compared"), "{ran}");
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn d08_a_torn_tail_is_reported_and_left_for_the_node() -> anyhow::Result<()> {
    let cluster = killed("torn").await?;
    let dir = &cluster.node(1).data_dir;
    let file = last_log_file(dir)?;
    let mut bytes = fs::read(&file)?;
    let whole = bytes.len();
    // The head of a record, and no more: what a crash in the middle of a write leaves.
    bytes.extend_from_within(..10);
    fs::write(&file, &bytes)?;
    let report = verify(dir, 0).await?;
    assert!(codes(&report).contains(&"LOG_TORN_TAIL"), "{report}");
    assert_eq!(
        (&report["errors"], &report["warnings"]),
        (&json!(0), &json!(1))
    );
    let shown = reads(&["inspect", "--json"], &[dir])
        .await?
        .expect(0)?
        .json()?;
    let torn = &group(&shown, CONFIG)["tornTail"];
    assert_eq!(
        (&torn["offset"], &torn["bytes"]),
        (&json!(whole), &json!(10)),
        "{shown}"
    );
    // The node is the one that cuts it.
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    cluster.kill_all()?;
    let report = verify(dir, 0).await?;
    assert!(!codes(&report).contains(&"LOG_TORN_TAIL"), "{report}");
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn two_nodes_are_compared_by_log_and_by_state() -> anyhow::Result<()> {
    let cluster = killed("compared").await?;
    let [one, two, three] = [0, 1, 2].map(|index| cluster.node(index).data_dir.clone());
    // As they stood when they were killed: what one has and the other has is the same.
    let ran = reads(&["diff", "--json"], &[&one, &two]).await?.expect(0)?;
    let report = ran.json()?;
    assert_eq!(report["differs"], false, "{report}");
    assert_eq!(group(&report, CONFIG)["log"]["verdict"], "same", "{report}");
    // One is stopped for a while: positions differ, histories do not.
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    cluster.node(2).stop(Duration::from_secs(30)).await?;
    let later = cluster.write("app/later", &json!("v")).await?.token()?;
    wait_on_disk(&cluster, 0, later.index).await?;
    cluster.kill_all()?;
    let ran = reads(&["diff"], &[&one, &three]).await?.expect(0)?;
    assert!(
        ran.stdout
            .contains("audit events that both have are the same"),
        "{ran}"
    );

    // A leader that is alone appends what the others never see, and they go on without it.
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    let leader = cluster.wait_leader(CONFIG).await?;
    for index in (0..3).filter(|index| *index != leader) {
        cluster.node(index).kill()?;
    }
    let body = json!({ "value": "nobody else has this" }).to_string();
    let lonely = cluster
        .api(leader)
        .ask(reqwest::Method::PUT, "/api/v1/config/app/lonely")
        .header("content-type", "application/json")
        .timeout(Duration::from_secs(3))
        .body(body)
        .send()
        .await;
    assert!(
        !lonely.is_ok_and(|answer| answer.status < 300),
        "a write without a quorum"
    );
    cluster.node(leader).kill()?;
    for index in (0..3).filter(|index| *index != leader) {
        cluster.node(index).start()?;
    }
    cluster.write("app/others", &json!("v")).await?;
    cluster.kill_all()?;
    let (alone, other) = (leader, (leader + 1) % 3);
    let dirs = [&cluster.node(alone).data_dir, &cluster.node(other).data_dir];
    let ran = reads(&["diff", "--json"], &[dirs[0], dirs[1]])
        .await?
        .expect(1)?;
    let log = group(&ran.json()?, CONFIG)["log"].clone();
    assert_eq!(log["verdict"], "differs", "{ran}");
    assert_eq!(log["committed"], json!([false, true]), "{ran}");
    assert!(
        log["entries"][0].to_string().contains("app/lonely"),
        "{ran}"
    );
    let words = reads(&["diff"], &[dirs[0], dirs[1]]).await?.expect(1)?;
    assert!(
        words.stdout.contains("is cut off when the two meet"),
        "{words}"
    );

    // Another cluster's directory is refused.
    let stranger = Plan::new("stranger").nodes(1).start().await?;
    stranger.kill_all()?;
    let ran = reads(&["diff"], &[dirs[0], &stranger.node(0).data_dir])
        .await?
        .expect(3)?;
    assert!(ran.stderr.contains("DIFF_OTHER_CLUSTER"), "{ran}");
    stranger.finish()?;
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_node_is_read_with_a_warning_and_does_not_mind() -> anyhow::Result<()> {
    let cluster = Plan::new("in-use").nodes(1).start().await?;
    cluster.fill("app", "k", 200, "v").await?;
    for round in 0..5 {
        cluster.write("app/k0", &json!(round)).await?;
        let dir = &cluster.node(0).data_dir;
        let ran = Drtool::new(["verify", "--json"])
            .arg(dir)
            .run()
            .await?
            .expect(0)?;
        let report = ran.json()?;
        assert!(codes(&report).contains(&"DIR_IN_USE"), "{report}");
        let pid = cluster.node(0).pid().context("it runs")?.to_string();
        assert!(
            report["inUse"]
                .as_str()
                .is_some_and(|holder| holder.contains(&pid)),
            "{report}"
        );
    }
    cluster.write("app/k1", &json!("v")).await?;
    cluster.finish()
}
