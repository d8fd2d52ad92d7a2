//! A restore rehearsed: on a living cluster, on a dead one, with damaged snapshots, called off and killed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use confman_tests::agree;
use confman_tests::cluster::{CONFIG, Cluster, META, PATIENCE, Plan};
use confman_tests::drtool::{Drtool, Ran};
use confman_tests::load::{Load, LoadPlan};
use confman_tests::random::Random;
use confman_tests::restore::{filled, run, tool};
use confman_tests::skip::skipped;
use confman_tests::small_disk::SmallDisk;
use confman_tests::store::flip_bit;
use confman_tests::wait::wait_until;
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

fn scratch(cluster: &Cluster) -> anyhow::Result<PathBuf> {
    Ok(cluster.dir()?.join("scratch"))
}

async fn command(cluster: &Cluster, more: &[&str]) -> anyhow::Result<Drtool> {
    let dir = scratch(cluster)?;
    let dir = dir.to_str().context("a path that is no text")?;
    let args = [&["drill", "--json", "--scratch", dir], more].concat();
    Ok(tool(cluster, &args).await)
}

/// Drills; it must end with this code.
async fn drill(cluster: &Cluster, more: &[&str], code: i32) -> anyhow::Result<Ran> {
    command(cluster, more).await?.run().await?.expect(code)
}

fn group<'a>(drill: &'a Value, name: &str) -> anyhow::Result<&'a Value> {
    let groups = drill["groups"].as_array().context("no groups")?;
    let found = groups.iter().find(|found| found["group"] == name);
    found.with_context(|| format!("no {name} in {drill}"))
}

fn codes(drill: &Value) -> Vec<&str> {
    let findings = drill["findings"].as_array();
    let codes = findings.into_iter().flatten();
    codes
        .filter_map(|finding| finding["code"].as_str())
        .collect()
}

/// The report that the drill kept, as it lies in the store.
async fn report(cluster: &Cluster, drill: &Value) -> anyhow::Result<Value> {
    let object = drill["object"].as_str().context("no report")?;
    let path = cluster.dir()?.join("s3/confman/test").join(object);
    let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

/// What is left in the scratch directory.
fn left(cluster: &Cluster) -> anyhow::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(scratch(cluster)?) {
        Ok(entries) => entries,
        Err(_) => return Ok(Vec::new()),
    };
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// Processes whose settings name this directory.
fn processes(dir: &Path) -> Vec<u32> {
    let name = dir.display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if String::from_utf8_lossy(&environ).contains(&name) {
            found.push(pid);
        }
    }
    found
}

async fn no_process_is_left(cluster: &Cluster) -> anyhow::Result<()> {
    let dir = scratch(cluster)?;
    wait_until("no node of a drill runs any more", PATIENCE, || async {
        let left = processes(&dir);
        anyhow::ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await
}

/// While clients write: the state that comes out of the store is the one that the living nodes had there, the booted copy gives
/// the values of the snapshot, and nothing of the cluster or its store is touched but for the report.
#[tokio::test(flavor = "multi_thread")]
async fn i11_a_drill_beside_a_living_cluster_finds_what_the_cluster_had() -> anyhow::Result<()> {
    let cluster = filled(Plan::new("drill"), &[META]).await?;
    let load = Load::start(
        &cluster,
        &LoadPlan {
            writers: 2,
            readers: 1,
            pause: Duration::from_millis(20),
            ..LoadPlan::default()
        },
    );
    load.wait_progress(50, PATIENCE).await?;
    let snapshot = cluster.snapshot(CONFIG).await?;
    load.wait_progress(50, PATIENCE).await?;
    let before = cluster
        .store()
        .await
        .as_ref()
        .context("no store")?
        .objects()?;

    let told = drill(&cluster, &["--sample", "40"], 0).await?.json()?;
    load.wait_progress(20, PATIENCE).await?;
    load.stop().await?;
    assert_eq!(told["verdict"], "passed", "{told}");
    let config = group(&told, CONFIG)?;
    assert_eq!(config["snapshotId"], snapshot["id"], "{told}");
    assert_eq!(config["restoredHash"], config["stateHash"], "{told}");
    assert_eq!(config["live"]["verdict"], "equal", "{told}");
    assert_eq!(
        config["live"]["equal"].as_array().unwrap().len(),
        3,
        "{told}"
    );
    assert!(config["entriesBehind"].as_u64().unwrap() >= 50, "{told}");
    assert_eq!(told["rpo"]["measuredAgainst"], "cluster", "{told}");
    assert!(told["read"]["values"].as_u64().unwrap() >= 40, "{told}");
    assert!(told["entries"].as_u64().unwrap() >= 300, "{told}");
    for phase in [
        "selectMs",
        "restoreMs",
        "verifyMs",
        "bootMs",
        "firstReadMs",
        "totalMs",
    ] {
        assert!(told["phases"][phase].is_u64(), "{phase}: {told}");
    }
    assert!(told["rtoMs"].as_u64().unwrap() <= told["phases"]["totalMs"].as_u64().unwrap());

    // One object more, and it says what was printed.
    let mut after = cluster
        .store()
        .await
        .as_ref()
        .context("no store")?
        .objects()?;
    let object = told["object"].as_str().context("no report")?;
    assert!(
        after.remove(object).is_some(),
        "{object} is not among {after:?}"
    );
    assert_eq!(before, after);
    let kept = report(&cluster, &told).await?;
    assert_eq!(
        (&kept["verdict"], &kept["groups"]),
        (&told["verdict"], &told["groups"])
    );
    assert!(
        kept["checksum"]
            .as_str()
            .context("no checksum")?
            .starts_with("blake3:")
    );
    assert!(left(&cluster)?.is_empty(), "{:?}", left(&cluster)?);
    no_process_is_left(&cluster).await?;

    // The cluster is as it was: its members, its states, no word of a stranger.
    agree::state_hashes(&cluster, CONFIG).await?;
    let events = agree::audits(&cluster, None).await?;
    let told = serde_json::to_string(&events)?;
    assert!(
        !told.contains("cluster.copied") && !told.contains("\"drill\""),
        "{told}"
    );
    for index in 0..3 {
        assert_eq!(
            cluster.group(index, META).await?["members"]
                .as_array()
                .unwrap()
                .len(),
            3
        );
        let metrics = cluster.api(index).get("/metrics").send().await?.text();
        let refused = metrics
            .lines()
            // Whoever starts may be met before it knows its own memory, and is introduced to again.
            .find(|l| {
                l.starts_with("confman_peer_refused_total") && !l.contains("\"not-introduced\"")
            });
        assert_eq!(refused, None, "the drill's node spoke to node {index}");
    }
    let status = run(&cluster, &["status", "--json"], 0).await?.json()?;
    assert_eq!(status["drills"]["last"]["verdict"], "passed", "{status}");
    assert_eq!(status["drills"]["last"]["object"], object, "{status}");
    // Whoever leads from now on looks at once when it was.
    let leader = cluster.wait_leader(META).await?;
    cluster.node(leader).stop(PATIENCE).await?;
    wait_until("the next leader measures it", PATIENCE, || async {
        let leader = cluster.wait_leader(META).await?;
        let last = "confman_drill_last_good_timestamp_seconds";
        let seconds = cluster.metrics(leader).await?.get(last);
        anyhow::ensure!(seconds.is_some_and(|at| at > 1.7e9), "{seconds:?}");
        Ok(())
    })
    .await?;
    cluster.finish()
}

/// The bucket is enough: no node lives, and the drill says what it could not compare.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn a_drill_needs_no_node() -> anyhow::Result<()> {
    let plan = Plan::new("drill-dead").env("CONFMAN_SHARDS", "2");
    let cluster = filled(plan, &[META, CONFIG, "config/1"]).await?;
    let status = run(&cluster, &["status", "--json"], 0).await?.json()?;
    assert_eq!(status["drills"]["last"], Value::Null, "{status}");
    assert_eq!(codes(&status), ["DRILL_NEVER"], "{status}");
    wait_until(
        "the leader measures that nobody has drilled",
        PATIENCE,
        || async {
            let leader = cluster.wait_leader(META).await?;
            let metrics = cluster.api(leader).get("/metrics").send().await?.text();
            let never = "confman_drill_last_good_timestamp_seconds 0";
            anyhow::ensure!(metrics.lines().any(|l| l == never), "no {never}");
            Ok(())
        },
    )
    .await?;
    cluster.kill_all()?;
    let told = drill(&cluster, &[], 0).await?.json()?;
    assert_eq!(told["verdict"], "passed", "{told}");
    assert_eq!(told["groups"].as_array().unwrap().len(), 3, "{told}");
    assert_eq!(
        group(&told, CONFIG)?["live"]["verdict"],
        "unknown",
        "{told}"
    );
    assert!(told["livingSilent"].is_string(), "{told}");
    assert_eq!(told["rpo"]["measuredAgainst"], "clock", "{told}");
    assert_eq!(told["rpo"]["entries"], Value::Null, "{told}");
    // A copy is left when that is wished, and a later drill does not take it for its own.
    let told = drill(&cluster, &["--keep"], 0).await?.json()?;
    let kept = PathBuf::from(told["kept"].as_str().context("nothing was kept")?);
    let data = kept.join("data");
    let verified = run(&cluster, &["verify", data.to_str().unwrap(), "--json"], 0).await?;
    assert_eq!(verified.json()?["errors"], 0);
    drill(&cluster, &[], 0).await?;
    assert_eq!(left(&cluster)?, [kept]);
    // Without the store there is nothing to drill, and nothing is said of the snapshots.
    cluster.stop_store().await;
    let ran = drill(&cluster, &[], 6).await?;
    assert_eq!(ran.json()?["error"]["code"], "STORE_UNREACHABLE", "{ran}");
    let nowhere = drill(&cluster, &["--confman", "/nonexistent"], 2).await?;
    assert_eq!(
        nowhere.json()?["error"]["code"],
        "PROGRAM_NOT_FOUND",
        "{nowhere}"
    );
    no_process_is_left(&cluster).await?;
    cluster.finish()
}

/// A byte has flipped: the drill finds it before the bad day does, and everybody hears of it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i9_a_drill_finds_a_damaged_snapshot() -> anyhow::Result<()> {
    let cluster = filled(Plan::new("drill-damaged").nodes(1), &[META, CONFIG]).await?;
    cluster.fill("app", "second", 100, "value").await?;
    let newest = cluster.snapshot(CONFIG).await?;
    let id = newest["id"].as_str().context("no id")?;
    {
        let store = cluster.store().await;
        flip_bit(&store.as_ref().context("no store")?.snapshot(CONFIG, id)?)?;
    }
    let told = drill(&cluster, &[], 5).await?.json()?;
    assert_eq!(told["verdict"], "degraded", "{told}");
    assert_eq!(codes(&told), ["DRILL_SNAPSHOT_PASSED_OVER"], "{told}");
    let config = group(&told, CONFIG)?;
    assert_eq!(config["skipped"][0]["snapshotId"], newest["id"], "{told}");
    assert_eq!(
        config["live"]["verdict"], "equal",
        "the older one is what the cluster had: {told}"
    );
    assert_eq!(report(&cluster, &told).await?["verdict"], "degraded");
    let status = run(&cluster, &["status", "--json"], 1).await?.json()?;
    assert!(codes(&status).contains(&"DRILL_FAILED"), "{status}");

    // Nothing else will do for one that was named.
    let told = drill(&cluster, &["--snapshot", id], 5).await?.json()?;
    assert_eq!(
        (&told["verdict"], &told["read"]),
        (&json!("failed"), &Value::Null),
        "{told}"
    );
    assert_eq!(codes(&told), ["SNAPSHOT_DAMAGED"], "{told}");
    assert_eq!(report(&cluster, &told).await?["findings"], told["findings"]);
    assert!(left(&cluster)?.is_empty());
    // A good one since, and the last word is another.
    cluster.snapshot(CONFIG).await?;
    drill(&cluster, &[], 0).await?;
    let status = run(&cluster, &["status", "--json"], 0).await?.json()?;
    assert_eq!(status["drills"]["last"]["verdict"], "passed", "{status}");
    cluster.finish()
}

/// Called off or killed at any moment: no node is left, no directory stays, and the next drill comes to its end.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i17_a_drill_that_was_called_off_or_killed_leaves_nothing() -> anyhow::Result<()> {
    let cluster = Plan::new("drill-killed").nodes(1).start().await?;
    cluster.fill("app", "k", 1_500, &"value".repeat(40)).await?;
    for group in [CONFIG, META] {
        cluster.snapshot(group).await?;
    }
    let seed = Random::seed();
    eprintln!("seed {seed}");
    let mut random = Random::new(seed);
    for round in 0..10 {
        let mut child = command(&cluster, &[]).await?.spawn()?;
        // The kills come at other moments each time: that is what is tried.
        let millis = 30 + random.below(250) * (1 + round / 2);
        let ended =
            tokio::time::timeout(Duration::from_millis(u64::try_from(millis)?), child.wait());
        if ended.await.is_ok() {
            continue;
        }
        if round % 2 == 0 {
            child.kill().await?;
            continue;
        }
        let id = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        let signal = if round % 4 == 1 {
            Signal::INT
        } else {
            Signal::TERM
        };
        rustix::process::kill_process(id.context("no process id")?, signal)?;
        let output = child.wait_with_output().await?;
        let code = output.status.code();
        // Before it listens for signals it ends as every program does; after its last step it has been in time.
        if code == Some(7) {
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(stderr.contains("DRILL_CALLED_OFF"), "{stderr}");
        } else {
            assert!(matches!(code, None | Some(0)), "{output:?}");
        }
    }
    no_process_is_left(&cluster).await?;
    drill(&cluster, &[], 0).await?;
    assert!(left(&cluster)?.is_empty(), "{:?}", left(&cluster)?);
    no_process_is_left(&cluster).await?;
    cluster.finish()
}

/// A scratch directory on a disk that is too small at once, or becomes full on the way: it says so, and leaves nothing there.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn d05_a_drill_on_a_full_disk_says_so_and_leaves_nothing() -> anyhow::Result<()> {
    let cluster = filled(Plan::new("drill-full-disk"), &[META, CONFIG]).await?;
    let dir = scratch(&cluster)?;
    let mut passed = false;
    for mebibytes in [1, 4, 8, 12, 16, 24, 48, 256] {
        let disk = match SmallDisk::mount(&dir, mebibytes) {
            Ok(disk) => disk,
            Err(why) => {
                let name = "d05_a_drill_on_a_full_disk_says_so_and_leaves_nothing";
                skipped(name, format!("{why:#}"));
                return cluster.finish();
            }
        };
        let ran = command(&cluster, &["--within", "20"]).await?.run().await?;
        eprintln!("{mebibytes} MiB: {ran}");
        passed = ran.code == 0;
        if !passed {
            let said = format!("{}{}", ran.stdout, ran.stderr);
            let is_clear = said.contains("DISK_TOO_SMALL") || said.contains("No space left");
            assert!(is_clear && said.contains("hint"), "{mebibytes} MiB: {ran}");
        }
        let left = std::fs::read_dir(&dir)?.count();
        assert_eq!(left, 0, "{mebibytes} MiB: the drill left something: {ran}");
        drop(disk);
    }
    assert!(passed, "a disk that is large enough is none");
    cluster.finish()
}
