//! `drtool doctor` on real clusters, whole and broken: what is wrong is named, what is not is not, and it always ends.

use std::net::SocketAddr;

use anyhow::Context as _;
use confman_tests::cluster::{CONFIG, Cluster, META, PATIENCE, Plan};
use confman_tests::drtool::{Drtool, Ran};
use confman_tests::http::Api;
use confman_tests::wait::wait_until;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// `drtool doctor --json` with the endpoints, the key and the store of the cluster.
async fn doctor(cluster: &Cluster) -> anyhow::Result<Drtool> {
    let store = cluster.store().await;
    let env = store.as_ref().context("the cluster has a store")?.env();
    Ok(cluster.drtool(["doctor", "--json"]).envs(env))
}

/// The codes of what is not good, with whose view it is.
fn found(ran: &Ran) -> anyhow::Result<Vec<(String, String)>> {
    let report = ran.json()?;
    let checks = report["checks"].as_array().context("checks")?;
    let text = |check: &Value, name: &str| check[name].as_str().unwrap_or_default().to_owned();
    let mut found = Vec::new();
    for check in checks {
        if check["code"].is_null() {
            anyhow::ensure!(check["outcome"] == "ok", "{check}");
            continue;
        }
        anyhow::ensure!(check["hint"].is_string(), "{check}");
        found.push((text(check, "code"), text(check, "view")));
    }
    Ok(found)
}

fn has(ran: &Ran, code: &str, view: &str) -> anyhow::Result<()> {
    let all = found(ran)?;
    anyhow::ensure!(
        all.iter().any(|(c, v)| c == code && v.contains(view)),
        "no {code} of {view} in {all:?}: {ran}"
    );
    Ok(())
}

/// Until the doctor finds nothing wrong.
async fn healthy(cluster: &Cluster) -> anyhow::Result<Ran> {
    wait_until("the doctor finds nothing", PATIENCE, || async {
        let ran = doctor(cluster).await?.run().await?;
        let all = found(&ran)?;
        // What is true of the machine that tests run on is not the cluster's, and nobody has drilled it.
        let of_machine = |code: &str| code == "DISK_LOW" || code == "DISK_NO_SECOND_COPY";
        let all = all.iter().filter(|(code, _)| code != "DRILL_NEVER");
        let (machine, ours): (Vec<_>, Vec<_>) = all.partition(|(c, _)| of_machine(c));
        anyhow::ensure!(ours.is_empty(), "{ours:?}");
        ran.expect(i32::from(!machine.is_empty()))
    })
    .await
}

/// Nothing is wrong, every subject was looked at, and nothing was written.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn a_healthy_cluster_has_no_findings_and_is_not_written_to() -> anyhow::Result<()> {
    let cluster = Plan::new("doctor").start().await?;
    cluster.fill("app", "k", 20, "value").await?;
    cluster
        .drtool(["snapshot", "create", "--wait"])
        .run()
        .await?
        .expect(0)?;
    let ran = healthy(&cluster).await?;
    let report = ran.json()?;
    let subjects: std::collections::BTreeSet<&str> = report["checks"]
        .as_array()
        .context("checks")?
        .iter()
        .filter_map(|check| check["check"].as_str())
        .collect();
    for subject in [
        "settings",
        "key",
        "nodes",
        "quorum",
        "peers",
        "state",
        "versions",
        "clocks",
        "disks",
        "store",
        "prefix",
        "snapshots",
        "drills",
    ] {
        assert!(subjects.contains(subject), "{subject}: {ran}");
    }
    let said = ran.stdout.as_str();
    for words in [
        "the key \\\"tester\\\" has the role admin",
        "every two living nodes reach each other",
        "have the same state at",
        "owned by the living cluster, incarnation 1",
        "the snapshot that the group counts on is there",
    ] {
        assert!(said.contains(words), "{words}: {ran}");
    }
    // Three nodes, the store and this machine have a clock each.
    let clocks = said.matches("\"check\": \"clocks\"").count();
    assert_eq!(clocks, 5, "{ran}");

    let objects = || -> anyhow::Result<Vec<_>> {
        let mut all = Vec::new();
        let mut dirs = vec![cluster.dir()?.join("s3")];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(&dir)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    dirs.push(entry.path());
                } else {
                    all.push((entry.path(), entry.metadata()?.modified()?));
                }
            }
        }
        all.sort();
        Ok(all)
    };
    let before = (
        objects()?,
        cluster.group(0, META).await?["lastIndex"].clone(),
        cluster.group(0, CONFIG).await?["lastIndex"].clone(),
    );
    let again = doctor(&cluster).await?.run().await?;
    assert!(again.stderr.is_empty(), "{again}");
    let after = (
        objects()?,
        cluster.group(0, META).await?["lastIndex"].clone(),
        cluster.group(0, CONFIG).await?["lastIndex"].clone(),
    );
    assert_eq!(before, after);
    cluster.finish()
}

/// One after the other: each is found, and gone when it is mended.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn each_thing_that_breaks_is_named_and_hides_nothing_else() -> anyhow::Result<()> {
    let cluster = Plan::new("doctor-broken").start().await?;
    cluster.fill("app", "k", 20, "value").await?;
    cluster
        .drtool(["snapshot", "create", "--wait"])
        .run()
        .await?
        .expect(0)?;
    healthy(&cluster).await?;

    // A wrong key: the nodes answered, so it is not "nobody"; the store is looked at all the same.
    let ran = doctor(&cluster)
        .await?
        .env("CONFMAN_API_KEY", "confman_not-a-key-of-this-cluster")
        .run()
        .await?
        .expect(1)?;
    has(&ran, "API_KEY_REFUSED", "nodes at")?;
    assert!(
        !found(&ran)?.iter().any(|(code, _)| code == "NODE_SILENT"),
        "{ran}"
    );
    assert!(ran.stdout.contains("can be listed and read"), "{ran}");

    // Two mistakes in the environment: both are told, and everything else is looked at.
    let ran = doctor(&cluster)
        .await?
        .env("CONFMAN_SHRADS", "3")
        .env("CONFMAN_HEARTBEAT_MS", "soon")
        .run()
        .await?
        .expect(1)?;
    let all = found(&ran)?;
    let mistakes = all.iter().filter(|(code, _)| code == "SETTING_WRONG");
    assert_eq!(mistakes.count(), 2, "{ran}");
    has(&ran, "SETTING_WRONG", "environment")?;
    assert!(ran.stdout.contains("CONFMAN_SHARDS"), "{ran}");

    // The store refuses connections.
    cluster.stop_store().await;
    let ran = doctor(&cluster).await?.run().await?.expect(1)?;
    has(&ran, "STORE_UNREACHABLE", "store")?;
    assert!(ran.stdout.contains("every two living nodes reach"), "{ran}");
    cluster.resume_store().await?;
    let ran = doctor(&cluster)
        .await?
        .env("AWS_SECRET_ACCESS_KEY", "wrong")
        .run()
        .await?
        .expect(1)?;
    has(&ran, "STORE_CREDENTIALS", "store")?;

    // The snapshot that a group counts on is gone.
    let group = cluster.group(0, CONFIG).await?;
    let id = group["snapshot"]["id"].as_str().context("a snapshot")?;
    let object = {
        let store = cluster.store().await;
        store.as_ref().context("a store")?.snapshot(CONFIG, id)?
    };
    let aside = cluster.dir()?.join("aside.snap");
    std::fs::rename(&object, &aside)?;
    let ran = doctor(&cluster).await?.run().await?.expect(1)?;
    has(&ran, "SNAPSHOT_MISSING", "store")?;
    std::fs::rename(&aside, &object)?;

    // Another cluster's prefix, in the same bucket.
    let other = Plan::new("doctor-other").nodes(1).without_store();
    let env = {
        let store = cluster.store().await;
        store.as_ref().context("a store")?.env()
    };
    let other = env
        .iter()
        .fold(other, |plan, (name, value)| plan.env(name, value));
    let other = other
        .env("CONFMAN_OBJECT_STORE_URL", "s3://confman/other")
        .start()
        .await?;
    wait_until("the other prefix is claimed", PATIENCE, || async {
        let ran = doctor(&cluster)
            .await?
            .args(["--store", "s3://confman/other"])
            .run()
            .await?
            .expect(1)?;
        has(&ran, "PREFIX_FOREIGN", "s3://confman/other")?;
        has(&ran, "PREFIX_UNCLAIMED", "s3://confman/other")
    })
    .await?;
    other.finish()?;

    // A node with another token: it lives, and neither side reaches the other.
    cluster.node(2).kill()?;
    cluster
        .node(2)
        .set_env("CONFMAN_CLUSTER_TOKEN", "another-token-0123456789-abcdef");
    cluster.node(2).start()?;
    wait_until(
        "the link is found cut, from both sides",
        PATIENCE,
        || async {
            let ran = doctor(&cluster).await?.run().await?.expect(1)?;
            has(&ran, "PEER_UNREACHED", "node node1")?;
            has(&ran, "PEER_UNREACHED", "node node3")
        },
    )
    .await?;

    // The node dies.
    cluster.node(2).kill()?;
    let ran = doctor(&cluster).await?.run().await?.expect(1)?;
    has(&ran, "NODE_SILENT", "node3")?;
    has(&ran, "NO_TOLERANCE", "group")?;
    assert!(
        !found(&ran)?
            .iter()
            .any(|(code, _)| code == "PEER_UNREACHED"),
        "{ran}"
    );
    // And all of them: the store is the last that tells anything.
    cluster.node(0).kill()?;
    cluster.node(1).kill()?;
    let ran = doctor(&cluster).await?.run().await?.expect(6)?;
    has(&ran, "NODE_SILENT", &cluster.node(0).api_url)?;
    has(&ran, "CLUSTER_UNKNOWN", "store")?;
    assert!(
        ran.stdout
            .contains("config/0: the newest snapshot is there"),
        "{ran}"
    );
    cluster.finish()
}

/// Answers for a node, an hour ahead of it: everything goes through to the node but its clock.
async fn stand_in(listener: TcpListener, node: Api, ahead_seconds: i64) -> anyhow::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let node = node.clone();
        tokio::spawn(async move {
            // A client that goes away has its reasons.
            let _ = pass(&mut stream, &node, ahead_seconds).await;
        });
    }
}

async fn pass(stream: &mut TcpStream, node: &Api, ahead_seconds: i64) -> anyhow::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
        anyhow::ensure!(head.len() < 16 << 10, "a long head");
    }
    let head = String::from_utf8(head)?;
    let path = head.split(' ').nth(1).context("a path")?;
    let answer = node.get(path).send().await?;
    let mut body = answer.json()?;
    if let Some(time) = body["time"].as_str() {
        let (hour, rest) = (&time[11..13], &time[13..]);
        // Within the day, so that only the hour changes.
        let hour = (hour.parse::<i64>()? + ahead_seconds / 3600).rem_euclid(24);
        body["time"] = format!("{}{hour:02}{rest}", &time[..11]).into();
    }
    let body = body.to_string();
    let text = format!(
        "HTTP/1.1 {} OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        answer.status,
        body.len()
    );
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await.context("end the answer")
}

/// A machine's clock cannot be set in a test: what stands in for the node tells another hour and passes on all the rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_is_found_whosever_it_is() -> anyhow::Result<()> {
    let cluster = Plan::new("doctor-clock").without_store().start().await?;
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let stand_in = tokio::spawn(stand_in(listener, cluster.api(1), 3600));
    let endpoints = format!("{},{url}", cluster.node(0).api_url);
    let ran = cluster
        .drtool(["doctor", "--json"])
        .env("CONFMAN_ENDPOINTS", &endpoints)
        .run()
        .await?
        .expect(1)?;
    has(&ran, "CLOCK_OFF", "node node2")?;
    let off = found(&ran)?
        .into_iter()
        .filter(|(code, _)| code == "CLOCK_OFF");
    assert_eq!(off.count(), 1, "only the one that is off: {ran}");
    // No store was named: that is unknown, and no fault.
    has(&ran, "STORE_NOT_NAMED", "this machine")?;
    stand_in.abort();
    cluster.finish()
}
