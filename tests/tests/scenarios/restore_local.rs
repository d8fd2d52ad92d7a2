//! One data directory made offline from the store: a copy to look at, or the cluster's next life on one node.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use confman_tests::agree;
use confman_tests::cluster::{CONFIG, Cluster, META, PATIENCE, Plan, copy_dir};
use confman_tests::drtool::Ran;
use confman_tests::lives::judge_new_life;
use confman_tests::node::Node;
use confman_tests::old_majority::{keeps_writing, only_incarnation_writes, wait_fenced};
use confman_tests::random::Random;
use confman_tests::restore::{
    filled, filled_by_clients, lose_every_node, restore, run, tool, wait_spent,
};
use confman_tests::store::flip_bit;
use confman_tests::wait::wait_until;
use serde_json::{Value, json};

/// `drtool restore local --to DIR` and more; it must end with this code.
async fn local(cluster: &Cluster, to: &Path, more: &[&str], code: i32) -> anyhow::Result<Ran> {
    let to = to.to_str().context("a path that is no text")?;
    let args = [&["restore", "local", "--json", "--to", to], more].concat();
    run(cluster, &args, code).await
}

/// What it says of one group.
fn group<'a>(told: &'a Value, name: &str) -> anyhow::Result<&'a Value> {
    let groups = told["groups"].as_array().context("no groups")?;
    let found = groups.iter().find(|found| found["group"] == name);
    found.with_context(|| format!("no {name} in {told}"))
}

async fn wait_ready(cluster: &Cluster, node: &Node) -> anyhow::Result<()> {
    let api = cluster.api_of(node);
    wait_until(&format!("{} is ready", node.name), PATIENCE, || async {
        api.get("/health/ready").send().await?.expect(&[200])?;
        Ok(())
    })
    .await
}

async fn read(cluster: &Cluster, node: &Node, path: &str) -> anyhow::Result<Option<Value>> {
    let path = format!("/api/v1/config/{path}");
    let answer = cluster.api_of(node).get(&path).send().await?;
    if answer.status == 404 {
        return Ok(None);
    }
    Ok(Some(answer.expect(&[200])?.json()?["value"].clone()))
}

/// The copy holds what the cluster had at the snapshot, under a name of its own, and neither touches the other.
#[tokio::test(flavor = "multi_thread")]
async fn i11_i13_an_inspection_copy_is_another_cluster_with_the_same_content() -> anyhow::Result<()>
{
    let cluster = Plan::new("copy").start().await?;
    cluster.fill("app", "k", 300, "value").await?;
    let snapshot = cluster.snapshot(CONFIG).await?;
    cluster.snapshot(META).await?;
    cluster.write("app/after", &json!("the snapshot")).await?;
    let own = cluster.status(0).await?["clusterUuid"].clone();
    let dir = cluster.dir()?.join("copy");
    let before = cluster
        .store()
        .await
        .as_ref()
        .context("no store")?
        .objects()?;

    // Beside the living cluster, which is not asked and does not notice.
    let told = local(&cluster, &dir, &[], 0).await?.json()?;
    assert_eq!(told["copyOf"]["uuid"], own, "{told}");
    assert_ne!(told["cluster"]["uuid"], own, "{told}");
    let config = group(&told, CONFIG)?;
    assert_eq!(config["index"], snapshot["index"], "{told}");
    let path = format!(
        "/api/v1/status/hash?group=config%2F0&index={}",
        snapshot["index"]
    );
    let live = cluster.api(0).get_json(&path).await?;
    assert_eq!(
        config["stateHash"], live["hash"],
        "the live cluster had {live}"
    );
    let verified = run(&cluster, &["verify", dir.to_str().unwrap(), "--json"], 0).await?;
    assert_eq!(verified.json()?["errors"], 0, "{verified}");
    let after = cluster
        .store()
        .await
        .as_ref()
        .context("no store")?
        .objects()?;
    assert_eq!(before, after, "the store is only read");

    let settings = [("CONFMAN_SNAPSHOT_ENABLED", "false")];
    let copy = cluster.stranger("copy", &dir, &settings)?;
    copy.start()?;
    wait_ready(&cluster, &copy).await?;
    assert_eq!(
        read(&cluster, &copy, "app/k299").await?,
        Some(json!("value-299"))
    );
    assert_eq!(read(&cluster, &copy, "app/after").await?, None);
    let status = cluster.api_of(&copy).get_json("/api/v1/status").await?;
    assert_eq!(status["clusterUuid"], told["cluster"]["uuid"], "{status}");
    assert_eq!(
        status["groups"][1]["members"].as_array().unwrap().len(),
        1,
        "{status}"
    );
    assert_eq!(
        status["groups"][1]["snapshot"],
        Value::Null,
        "its own store protects nothing"
    );
    let events = cluster
        .api_of(&copy)
        .get_json("/api/v1/audit?limit=1000")
        .await?;
    assert!(events.to_string().contains("cluster.copied"), "{events}");
    copy.kill()?;
    let verified = run(&cluster, &["verify", dir.to_str().unwrap(), "--json"], 0).await?;
    assert_eq!(verified.json()?["errors"], 0, "{verified}");
    // It starts again as any node.
    copy.start()?;
    wait_ready(&cluster, &copy).await?;
    assert_eq!(
        read(&cluster, &copy, "app/k0").await?,
        Some(json!("value-0"))
    );
    copy.kill()?;

    // It never asked a real node anything, though its registry began with their addresses: without their token they would have
    // refused it, and counted that.
    for index in 0..3 {
        let metrics = cluster.api(index).get("/metrics").send().await?.text();
        let refused = metrics
            .lines()
            // Whoever starts may be met before it knows its own memory, and is introduced to again.
            .find(|l| {
                l.starts_with("confman_peer_refused_total") && !l.contains("\"not-introduced\"")
            });
        assert_eq!(refused, None, "the copy spoke to node {index}");
    }
    agree::state_hashes(&cluster, CONFIG).await?;
    assert_eq!(
        cluster.read(1, "app/after", "linearizable").await?,
        Some(json!("the snapshot"))
    );
    cluster.finish()
}

/// Put in the place of a node, with that node's name and all its settings, a copy is still another cluster: it refuses the real
/// peers, they go on without it, and nothing of it reaches the store.
#[tokio::test(flavor = "multi_thread")]
async fn i13_a_copy_in_the_place_of_a_node_and_its_peers_refuse_each_other() -> anyhow::Result<()> {
    let cluster = filled(Plan::new("copy-as-node"), &[META, CONFIG]).await?;
    let victim = cluster.follower(CONFIG).await?;
    let node = cluster.node(victim);
    let own = cluster.status(victim).await?["clusterUuid"].clone();
    node.kill()?;
    node.wipe()?;
    local(&cluster, &node.data_dir, &["--name", &node.name], 0).await?;
    let before = cluster
        .store()
        .await
        .as_ref()
        .context("no store")?
        .objects()?;
    node.start()?;
    cluster.wait_ready(victim).await?;
    let status = cluster.status(victim).await?;
    assert_ne!(status["clusterUuid"], own, "{status}");
    // The leader sends to the address where its follower was.
    wait_until(
        "the copy refuses what the real leader sends",
        PATIENCE,
        || async {
            let metrics = cluster.api(victim).get("/metrics").send().await?.text();
            let refused = "confman_peer_refused_total{code=\"other-cluster\"}";
            anyhow::ensure!(metrics.contains(refused), "no {refused}");
            Ok(())
        },
    )
    .await?;
    let leader = cluster.api((victim + 1) % 3);
    let put = leader.put("/api/v1/config/app/real", &json!({"value": 1}));
    put.header("x-confman-forward", "true")
        .send()
        .await?
        .expect(&[200, 201])?;
    assert_eq!(
        read(&cluster, node, "app/real").await?,
        None,
        "it reached the copy"
    );
    let put = cluster
        .api(victim)
        .put("/api/v1/config/app/copied", &json!({"value": 1}));
    put.send().await?.expect(&[200, 201])?;
    for index in (0..3).filter(|index| *index != victim) {
        assert_eq!(
            cluster.read(index, "app/copied", "linearizable").await?,
            None
        );
        assert_eq!(cluster.status(index).await?["clusterUuid"], own);
    }
    // Snapshots are on, the prefix is another cluster's: nothing is written there.
    let asked = cluster
        .api(victim)
        .post("/api/v1/admin/snapshots", &json!({}));
    let answer = asked.timeout(PATIENCE).send().await?;
    assert!(answer.status >= 500, "{answer:?}");
    let after = cluster
        .store()
        .await
        .as_ref()
        .context("no store")?
        .objects()?;
    assert_eq!(before, after);
    cluster.finish()
}

/// Whatever lies in the directory stays as it is.
#[tokio::test(flavor = "multi_thread")]
async fn i16_a_directory_that_holds_anything_is_refused_and_left() -> anyhow::Result<()> {
    let cluster = filled(Plan::new("filled-dir").nodes(1), &[META, CONFIG]).await?;
    let node = cluster.node(0);
    let ran = local(&cluster, &node.data_dir, &[], 3).await?;
    assert_eq!(ran.json()?["error"]["code"], "DIRECTORY_IN_USE", "{ran}");
    node.kill()?;
    let ran = local(&cluster, &node.data_dir, &[], 3).await?;
    assert_eq!(ran.json()?["error"]["code"], "DIRECTORY_NOT_EMPTY", "{ran}");
    assert!(ran.stderr.contains("the data of node1"), "{ran}");
    let dir = cluster.dir()?.join("mine");
    std::fs::create_dir(&dir)?;
    std::fs::write(dir.join("notes.txt"), "mine")?;
    let ran = local(&cluster, &dir, &[], 3).await?;
    assert_eq!(ran.json()?["error"]["code"], "DIRECTORY_NOT_EMPTY", "{ran}");
    let names: Vec<_> = std::fs::read_dir(&dir)?.collect();
    assert_eq!(
        (names.len(), std::fs::read_to_string(dir.join("notes.txt"))?),
        (1, "mine".to_owned())
    );
    node.start()?;
    cluster.wait_ready(0).await?;
    assert_eq!(
        cluster.read(0, "app/k7", "linearizable").await?,
        Some(json!("value-7"))
    );
    cluster.finish()
}

/// A damaged newest snapshot is passed over and what that costs is said; one that was named is refused, and nothing is left.
#[tokio::test(flavor = "multi_thread")]
async fn i9_i15_a_damaged_snapshot_is_passed_over_or_refused() -> anyhow::Result<()> {
    let cluster = filled(Plan::new("copy-damaged").nodes(1), &[META, CONFIG]).await?;
    cluster.fill("app", "second", 100, "value").await?;
    let newest = cluster.snapshot(CONFIG).await?;
    let id = newest["id"].as_str().context("no id")?;
    {
        let store = cluster.store().await;
        flip_bit(&store.as_ref().context("no store")?.snapshot(CONFIG, id)?)?;
    }
    let dir = cluster.dir()?.join("copy");
    let ran = local(&cluster, &dir, &["--snapshot", id], 5).await?;
    assert_eq!(ran.json()?["error"]["code"], "SNAPSHOT_DAMAGED", "{ran}");
    assert!(!dir.join("identity").exists() && !dir.join("surgery").exists());
    assert_eq!(
        std::fs::read_dir(dir.join("groups"))?.count(),
        0,
        "something was left"
    );
    let told = local(&cluster, &dir, &[], 0).await?.json()?;
    let config = group(&told, CONFIG)?;
    assert_eq!(config["skipped"][0]["snapshotId"], newest["id"], "{told}");
    let lost = newest["index"].as_u64().unwrap() - config["index"].as_u64().unwrap();
    let words = format!("{lost} entries are known to have been there");
    assert!(told["notInIt"].to_string().contains(&words), "{told}");
    let copy = cluster.stranger("copy", &dir, &[("CONFMAN_SNAPSHOT_ENABLED", "false")])?;
    copy.start()?;
    wait_ready(&cluster, &copy).await?;
    assert_eq!(
        read(&cluster, &copy, "app/k299").await?,
        Some(json!("value-299"))
    );
    assert_eq!(read(&cluster, &copy, "app/second0").await?, None);
    copy.kill()?;
    // Without a store there is no copy, and nothing is begun.
    cluster.stop_store().await;
    let ran = local(&cluster, &cluster.dir()?.join("none"), &[], 6).await?;
    assert_eq!(ran.json()?["error"]["code"], "STORE_UNREACHABLE", "{ran}");
    assert!(!cluster.dir()?.join("none").exists());
    cluster.finish()
}

/// kill -9 at any moment, and again: no node starts on what is half done, and the last run comes to the end.
#[tokio::test(flavor = "multi_thread")]
async fn i17_a_copy_killed_again_and_again_comes_to_the_same_end() -> anyhow::Result<()> {
    let cluster = Plan::new("copy-killed").nodes(1).start().await?;
    cluster.fill("app", "k", 3_000, &"value".repeat(40)).await?;
    for group in [CONFIG, META] {
        cluster.snapshot(group).await?;
    }
    let dir = cluster.dir()?.join("copy");
    let seed = Random::seed();
    eprintln!("seed {seed}");
    let mut random = Random::new(seed);
    let mut closed = 0;
    for round in 0..16 {
        let to = dir.to_str().context("no text")?;
        let mut child = tool(&cluster, &["restore", "local", "--to", to])
            .await
            .spawn()?;
        // The kills come at other moments each time: that is what is tried.
        let millis = 10 + random.below(60) * (1 + round / 4);
        tokio::time::sleep(Duration::from_millis(u64::try_from(millis)?)).await;
        child.kill().await?;
        let whole = dir.join("identity").exists() && !dir.join("surgery").exists();
        if whole {
            // It had ended before: begin anew.
            std::fs::remove_dir_all(&dir)?;
        } else if dir.join("surgery").exists() {
            closed += 1;
            let node = cluster.stranger("copy", &dir, &[("CONFMAN_SNAPSHOT_ENABLED", "false")])?;
            if closed == 1 {
                node.start()?;
                let ended = node.wait_exit(PATIENCE).await?;
                assert!(!ended.success());
                assert!(
                    node.log_text()?.contains("drtool restore local"),
                    "{}",
                    node.log_text()?
                );
            }
        } else {
            assert!(
                !dir.join("groups/config-0/state.redb").exists(),
                "half done and open"
            );
        }
    }
    eprintln!("{closed} of 16 kills came half way");
    let told = local(&cluster, &dir, &[], 0).await?.json()?;
    let verified = run(&cluster, &["verify", dir.to_str().unwrap(), "--json"], 0)
        .await?
        .json()?;
    assert_eq!(verified["errors"], 0, "{verified}");
    let found = verified["groups"].as_array().unwrap();
    for (found, told) in found.iter().zip(told["groups"].as_array().unwrap()) {
        assert_eq!(found["recordsHash"], told["stateHash"]);
    }
    cluster.finish()
}

/// The one node that was named begins the next life; what comes back of the old one fences itself.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i13_one_directory_begins_the_next_life_and_old_nodes_are_fenced() -> anyhow::Result<()> {
    let (cluster, old) = filled_by_clients(Plan::new("begin-life")).await?;
    cluster
        .write("app/lost", &json!("after the snapshot"))
        .await?;
    let node = cluster.node(0);
    let member = format!("{}={},{}", node.name, node.api_url, node.peer_addr);
    let life = ["--begin-life", member.as_str()];
    let dir = cluster.dir()?.join("life");
    let agreed = [&life[..], &["--yes"]].concat();
    let ran = local(&cluster, &dir, &agreed, 3).await?;
    assert_eq!(ran.json()?["error"]["code"], "CLUSTER_ALIVE", "{ran}");
    cluster.kill_all()?;
    let ran = local(&cluster, &dir, &life, 2).await?;
    assert_eq!(ran.json()?["error"]["code"], "CONSENT_NEEDED", "{ran}");
    assert!(ran.stderr.contains("What is lost"), "{ran}");

    let told = local(&cluster, &dir, &agreed, 0).await?.json()?;
    assert_eq!(
        (&told["already"], &told["cluster"]["incarnation"]),
        (&json!(false), &json!(2)),
        "{told}"
    );
    assert_eq!(told["member"]["id"], 1001, "{told}");
    // Killed after the order and run again, or on another disk: the same order.
    let again = cluster.dir()?.join("again");
    let second = local(&cluster, &again, &agreed, 0).await?.json()?;
    assert_eq!(
        (&second["already"], &second["planId"]),
        (&json!(true), &told["planId"]),
        "{second}"
    );

    // Two old ones are a quorum of the old life, and back before the new one begins: the store tells them.
    let images = [1, 2].map(|index| cluster.node(index).data_dir.with_extension("image"));
    for (index, image) in [1, 2].into_iter().zip(&images) {
        copy_dir(&cluster.node(index).data_dir, image)?;
        cluster.node(index).start()?;
    }
    let written = only_incarnation_writes(&cluster, &[1, 2], 2, Duration::from_secs(2)).await?;
    assert_eq!(written, 0, "fenced nodes wrote");
    for (index, image) in [1, 2].into_iter().zip(&images) {
        wait_fenced(&cluster, index).await?;
        cluster.node(index).kill()?;
        cluster.node(index).wipe()?;
        std::fs::rename(image, &cluster.node(index).data_dir)?;
    }
    std::fs::rename(&node.data_dir, cluster.dir()?.join("old-node1"))?;
    std::fs::rename(&dir, &node.data_dir)?;
    node.start()?;
    cluster.wait_ready(0).await?;
    let status = cluster.status(0).await?;
    assert_eq!(
        (&status["incarnation"], &status["node"]["id"]),
        (&json!(2), &json!(1001)),
        "{status}"
    );
    assert_eq!(
        cluster.read(0, "app/k299", "linearizable").await?,
        Some(json!("value-299"))
    );
    assert_eq!(cluster.read(0, "app/lost", "linearizable").await?, None);
    cluster.write("app/new", &json!("life")).await?;
    wait_spent(&cluster, 2).await?;
    // And as they were, when it has begun.
    for index in [1, 2] {
        cluster.node(index).start()?;
    }
    keeps_writing(&cluster, &[0, 1, 2], 2, Duration::from_secs(3)).await?;
    for index in [1, 2] {
        wait_fenced(&cluster, index).await?;
    }
    // The second directory has the same id, which was taken up: it does not begin a second life.
    let twin = cluster.second(0, false)?;
    std::fs::rename(&again, &twin.data_dir)?;
    twin.start()?;
    twin.wait_log(&["was taken up before"], PATIENCE).await?;
    twin.kill()?;
    cluster.write("app/new", &json!("goes on")).await?;
    judge_new_life(&cluster, &[0], &old, &told).await?;
    cluster.finish()
}

/// After a restore nobody is told of a snapshot that a node of the older life was to build.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn a_restored_cluster_has_no_failures_of_the_older_life() -> anyhow::Result<()> {
    let (cluster, old) = filled_by_clients(Plan::new("no-old-failure")).await?;
    // The failure is recorded, and the record is in the next snapshot of `__meta/0`.
    cluster.stop_store().await;
    let asked = cluster
        .api(0)
        .post("/api/v1/admin/snapshots?group=config%2F0", &json!({}));
    let _ = asked.timeout(PATIENCE).send().await?;
    wait_until("the failure shows", PATIENCE, || async {
        let group = cluster.group(0, CONFIG).await?;
        anyhow::ensure!(!group["snapshotError"].is_null(), "{group}");
        Ok(())
    })
    .await?;
    cluster.resume_store().await?;
    cluster.snapshot(META).await?;
    lose_every_node(&cluster)?;
    let plan = restore(&cluster, &[]).await?;
    for index in 0..3 {
        let group = cluster.group(index, CONFIG).await?;
        assert_eq!(group["snapshotError"], Value::Null, "{group}");
    }
    judge_new_life(&cluster, &[0, 1, 2], &old, &plan).await?;
    cluster.finish()
}
