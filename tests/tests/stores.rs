//! The programs against S3 servers that others wrote, with keys that may do no more than their work.
//!
//! `.ci/stores` starts the servers with the policies of `compose/policies` and names them in `STORE_TEST_POLICIES_*`: a document with the
//! endpoint and the keys of each role.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use confman_tests::cluster::{CONFIG, Cluster, META, PATIENCE, Plan};
use confman_tests::drtool::{Drtool, Ran};
use confman_tests::wait::wait_until;
use serde_json::{Value, json};

/// The exit code for what a store does not allow.
const DENIED: i32 = 3;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs moto with the policies at STORE_TEST_POLICIES_MOTO: run .ci/stores"]
async fn node_reader_drill_and_collector_do_their_work_on_moto() -> anyhow::Result<()> {
    roles_do_their_work("STORE_TEST_POLICIES_MOTO").await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SeaweedFS with the policies at STORE_TEST_POLICIES_SEAWEEDFS: run .ci/stores"]
async fn node_reader_drill_and_collector_do_their_work_on_seaweedfs() -> anyhow::Result<()> {
    roles_do_their_work("STORE_TEST_POLICIES_SEAWEEDFS").await
}

/// Where the store is, and who may do what.
struct Server(Value);

impl Server {
    fn of(variable: &str) -> anyhow::Result<Self> {
        let file = std::env::var(variable).with_context(|| format!("{variable} is not set"))?;
        let content = std::fs::read(&file).with_context(|| format!("read {file}"))?;
        Ok(Self(serde_json::from_slice(&content)?))
    }

    /// The environment of a program that has the keys of `role`.
    fn env(&self, role: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let endpoint = text(&self.0["endpoint"]).context("no endpoint")?;
        let keys = &self.0["roles"][role];
        let (id, secret) = text(&keys[0])
            .zip(text(&keys[1]))
            .with_context(|| format!("no keys of {role}"))?;
        let env = [
            (
                "CONFMAN_OBJECT_STORE_URL",
                "s3://confman/cluster".to_owned(),
            ),
            ("AWS_ENDPOINT_URL", endpoint),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", id),
            ("AWS_SECRET_ACCESS_KEY", secret),
        ];
        Ok(env
            .map(|(name, value)| (name.to_owned(), value))
            .into_iter()
            .collect())
    }

    async fn drtool(&self, role: &str, args: &[&str]) -> anyhow::Result<Ran> {
        Drtool::new(args).envs(self.env(role)?).run().await
    }
}

async fn roles_do_their_work(variable: &str) -> anyhow::Result<()> {
    let server = Server::of(variable)?;
    let mut plan = Plan::new("roles")
        .without_store()
        .env("CONFMAN_SNAPSHOT_RETENTION_COUNT", "2")
        .env("CONFMAN_SNAPSHOT_DELETE_GRACE_SECS", "1");
    for (name, value) in server.env("node")? {
        plan = plan.env(&name, &value);
    }
    let cluster = plan.start().await?;
    a_node_does_its_work(&cluster).await?;
    cluster.kill_all()?;
    a_reader_reads_and_writes_nothing(&server, cluster.dir()?).await?;
    a_drill_reads_and_keeps_its_report(&server, cluster.dir()?).await?;
    a_collector_collects_and_nothing_else(&server).await?;
    cluster.finish()
}

/// It claims, snapshots, retires what is old, and comes back from the store without its disk.
async fn a_node_does_its_work(cluster: &Cluster) -> anyhow::Result<()> {
    for round in 0..4 {
        let prefix = format!("r{round}-");
        cluster.fill("app", &prefix, 100, "value").await?;
        cluster.snapshot(CONFIG).await?;
    }
    cluster.snapshot(META).await?;
    let said = |what: &'static str| {
        move || async move {
            let logs: Vec<String> = (cluster.nodes().iter())
                .filter_map(|node| node.log_text().ok())
                .collect();
            ensure!(logs.iter().any(|log| log.contains(what)), "nobody said it");
            Ok(())
        }
    };
    for what in ["object store probed", "old snapshot deleted from the store"] {
        wait_until(what, PATIENCE, said(what)).await?;
    }
    cluster.node(2).kill()?;
    cluster.node(2).wipe()?;
    cluster.node(2).start()?;
    cluster.wait_ready(2).await?;
    let group = cluster.group(2, CONFIG).await?;
    ensure!(group["restore"]["source"] == "store", "{group}");
    let value = cluster.read(2, "app/r3-7", "linearizable").await?;
    assert_eq!(value, Some(json!("value-7")));
    Ok(())
}

async fn a_reader_reads_and_writes_nothing(server: &Server, dir: &Path) -> anyhow::Result<()> {
    let list = ["snapshot", "list", "--group", CONFIG, "--json"];
    let listed = server.drtool("reader", &list).await?.expect(0)?.json()?;
    let ids: Vec<&str> = (listed["items"].as_array().into_iter().flatten())
        .filter_map(|item| item["id"].as_str())
        .collect();
    ensure!(ids.len() >= 2, "{listed}");
    let copy = dir.join("copy").display().to_string();
    let plan = dir.join("restore-plan.json").display().to_string();
    for args in [
        &["snapshot", "list"][..],
        &["snapshot", "verify", "--read-data"],
        &["get", "app/r0-1"],
        &["export", "--snapshot", "latest", "--format", "json"],
        &["retention", "show"],
        &["snapshot", "show", "latest"],
        &["snapshot", "diff", "--group", CONFIG, ids[0], ids[1]],
        &["snapshot", "fetch", "latest", "--to", &copy],
        &["restore", "plan", "--out", &plan],
    ] {
        server.drtool("reader", args).await?.expect(0)?;
    }
    let pin = ["snapshot", "pin", "latest", "--by", "reader"];
    for args in [&pin[..], &["store", "probe", "--big", "0"]] {
        server.drtool("reader", args).await?.expect(DENIED)?;
    }
    // Nor may it delete: nothing is left to be marked when a collector marked it, so it is asked first.
    let apply = ["retention", "show", "--keep", "1", "--apply", "--yes"];
    let denied = server.drtool("reader", &apply).await?;
    ensure!(denied.code != 0, "{denied}");
    Ok(())
}

async fn a_drill_reads_and_keeps_its_report(server: &Server, dir: &Path) -> anyhow::Result<()> {
    let scratch = dir.join("scratch").display().to_string();
    let args = ["drill", "--json", "--scratch", &scratch];
    // What a reader rehearsed is not kept, and it is told.
    let denied = server.drtool("reader", &args).await?.expect(DENIED)?;
    ensure!(denied.stderr.contains("DRILL_NOT_KEPT"), "{denied}");
    let drill = server.drtool("drill", &args).await?.expect(0)?.json()?;
    let object = drill["object"].as_str().unwrap_or_default();
    ensure!(object.starts_with("reports/drill/"), "{drill}");
    let pin = ["snapshot", "pin", "latest", "--by", "drill"];
    server.drtool("drill", &pin).await?.expect(DENIED)?;
    Ok(())
}

async fn a_collector_collects_and_nothing_else(server: &Server) -> anyhow::Result<()> {
    let there = async || -> anyhow::Result<usize> {
        let args = ["snapshot", "list", "--group", CONFIG, "--json"];
        let listed = server.drtool("reader", &args).await?.expect(0)?.json()?;
        let items = listed["items"].as_array().context("no items")?;
        Ok(items.len())
    };
    let before = there().await?;
    ensure!(before >= 2, "{before} snapshots are there");
    let args = [
        "retention",
        "show",
        "--keep",
        "1",
        "--grace",
        "1",
        "--apply",
        "--yes",
    ];
    wait_until("only one is left", Duration::from_secs(120), || async {
        server.drtool("collector", &args).await?.expect(0)?;
        let left = there().await?;
        ensure!(left == 1, "{left} are left");
        Ok(())
    })
    .await?;
    // What is left is good, and its pin is somebody else's.
    let verify = ["snapshot", "verify", "--read-data"];
    server.drtool("collector", &verify).await?.expect(0)?;
    let pin = ["snapshot", "pin", "latest", "--by", "collector"];
    server.drtool("collector", &pin).await?.expect(DENIED)?;
    Ok(())
}
