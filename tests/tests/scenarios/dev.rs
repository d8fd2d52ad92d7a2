//! `confman dev`: a cluster of real processes, what is done to its nodes, and how it ends.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use confman_tests::binary;
use confman_tests::cluster::PATIENCE;
use confman_tests::http::Api;
use confman_tests::ports::dev_port_base;
use confman_tests::wait::wait_until;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};

use crate::commands::{good, said};

/// A running `confman dev` and its directory's document.
struct Dev {
    child: Child,
    dir: PathBuf,
}

impl Dev {
    fn command(dir: &Path) -> anyhow::Result<Command> {
        let mut command = Command::new(binary::confman()?);
        command
            .arg("dev")
            .arg("--dir")
            .arg(dir)
            .env_clear()
            .env("PATH", "/usr/bin:/bin");
        Ok(command)
    }

    async fn start(dir: &Path, more: &[&str]) -> anyhow::Result<Self> {
        let mut child = Self::command(dir)?
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let mut stdout = child.stdout.take().context("no stdout")?;
        let dev = Self {
            child,
            dir: dir.to_owned(),
        };
        let said = tokio::task::spawn_blocking(move || -> anyhow::Result<String> {
            let mut text = Vec::new();
            let mut byte = [0];
            // Until its last word: it goes on after that.
            while !String::from_utf8_lossy(&text).contains("--fresh starts over") {
                ensure!(
                    stdout.read(&mut byte)? == 1,
                    "it ended: {}",
                    String::from_utf8_lossy(&text)
                );
                text.push(byte[0]);
            }
            // Kept open for as long as it writes.
            std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
            Ok(String::from_utf8_lossy(&text).into_owned())
        });
        // Longer than it waits itself: it then says which node is not ready, and why.
        let said = tokio::time::timeout(PATIENCE * 3, said)
            .await
            .map_err(anyhow::Error::from)
            .and_then(|said| said?)
            .with_context(|| format!("confman dev is not ready{}", dev.log_ends()))?;
        ensure!(said.contains("CONFMAN_API_KEY"), "{said}");
        Ok(dev)
    }

    fn document(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&std::fs::read_to_string(
            self.dir.join("dev.json"),
        )?)?)
    }

    /// What its nodes said last.
    fn log_ends(&self) -> String {
        let logs = std::fs::read_dir(self.dir.join("logs"))
            .into_iter()
            .flatten();
        let ends = logs.filter_map(Result::ok).map(|log| {
            let text = std::fs::read_to_string(log.path()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let end = lines[lines.len().saturating_sub(40)..].join("\n");
            format!("\n{}:\n{end}", log.path().display())
        });
        ends.collect()
    }

    fn act(&self, args: &[&str]) -> anyhow::Result<Output> {
        Ok(Self::command(&self.dir)?.args(args).output()?)
    }

    fn pids(&self) -> anyhow::Result<Vec<Pid>> {
        let document = self.document()?;
        let nodes = document["nodes"].as_array().context("no nodes")?;
        nodes.iter().map(|node| pid(&node["pid"])).collect()
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("no pid")?;
        Ok(kill_process(pid, signal)?)
    }

    async fn wait_end(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        for _ in 0..2_000 {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        anyhow::bail!("confman dev does not end")
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pid(value: &Value) -> anyhow::Result<Pid> {
    let number = value.as_i64().with_context(|| format!("pid {value}"))?;
    Pid::from_raw(i32::try_from(number)?).context("pid 0")
}

async fn all_gone(pids: &[Pid]) -> anyhow::Result<()> {
    wait_until("every node is gone", Duration::from_secs(10), || async {
        let left: Vec<&Pid> = pids
            .iter()
            .filter(|pid| test_kill_process(**pid).is_ok())
            .collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn dev_starts_damages_stops_and_finds_its_data_again() -> anyhow::Result<()> {
    let temp = tempfile::tempdir()?;
    let dir = temp.path().join("dev");
    let mut dev = Dev::start(&dir, &["--port-base", &dev_port_base()?]).await?;
    let document = dev.document()?;
    let endpoints = document["endpoints"].clone();
    let key = document["apiKey"].as_str().context("no key")?.to_owned();
    let api = Api::new(endpoints[0].as_str().context("no endpoint")?, &key)?;
    let put = api
        .put("/api/v1/config/app/k", &json!("kept"))
        .header("x-confman-forward", "true");
    put.send().await?.expect(&[201])?;

    good(dev.act(&["pause", "node2"])?)?;
    assert!(good(dev.act(&["status"])?)?.contains("paused"));
    good(dev.act(&["resume", "2"])?)?;
    let before = dev.pids()?;
    good(dev.act(&["kill", "node3"])?)?;
    assert!(test_kill_process(before[2]).is_err());
    let twice = dev.act(&["kill", "node3"])?;
    assert!(
        !twice.status.success() && said(&twice).contains("down"),
        "{}",
        said(&twice)
    );
    let unknown = dev.act(&["kill", "node9"])?;
    assert!(
        said(&unknown).contains("node1, node2, node3"),
        "{}",
        said(&unknown)
    );
    good(dev.act(&["wipe", "node3"])?)?;
    let data = document["nodes"][2]["dataDir"]
        .as_str()
        .context("no dataDir")?;
    assert_eq!(std::fs::read_dir(data)?.count(), 0);
    good(dev.act(&["start", "node3"])?)?;
    assert_ne!(
        dev.pids()?[2],
        before[2],
        "dev.json keeps the old process id"
    );
    wait_until("the wiped node has the data again", PATIENCE, || async {
        let node = api.at(endpoints[2].as_str().context("no endpoint")?);
        let read = node
            .get("/api/v1/config/app/k")
            .send()
            .await?
            .expect(&[200])?
            .json()?;
        ensure!(read["value"] == "kept", "{read}");
        Ok(())
    })
    .await?;
    let second = Dev::command(&dir)?.output()?;
    assert!(said(&second).contains("runs in"), "{}", said(&second));

    let pids = dev.pids()?;
    dev.signal(Signal::TERM)?;
    assert!(dev.wait_end().await?.success());
    all_gone(&pids).await?;

    // Again, with nothing said: same ports, same key, same data.
    let mut dev = Dev::start(&dir, &[]).await?;
    let again = dev.document()?;
    assert_eq!(
        (&again["endpoints"], &again["apiKey"]),
        (&endpoints, &json!(key))
    );
    let read = api
        .get("/api/v1/config/app/k")
        .send()
        .await?
        .expect(&[200])?
        .json()?;
    assert_eq!(read["value"], "kept");
    let pids = dev.pids()?;
    good(dev.act(&["stop"])?)?;
    dev.wait_end().await?;
    all_gone(&pids).await?;

    // And from the beginning.
    let dev = Dev::start(&dir, &["--fresh", "--port-base", "0", "--nodes", "1"]).await?;
    let fresh = dev.document()?;
    let api = Api::new(
        fresh["endpoints"][0].as_str().context("no endpoint")?,
        fresh["apiKey"].as_str().context("no key")?,
    )?;
    api.get("/api/v1/config/app/k")
        .send()
        .await?
        .expect(&[404])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn dev_takes_five_nodes_four_shards_and_a_store_and_ends_at_ctrl_c() -> anyhow::Result<()> {
    let temp = tempfile::tempdir()?;
    let dir = temp.path().join("dev");
    let objects = temp.path().join("objects");
    let url = format!("file://{}", objects.display());
    let size = ["--nodes", "5", "--shards", "4", "--object-store", &url];
    let mut dev = Dev::start(
        &dir,
        &[&["--port-base", &dev_port_base()?][..], &size].concat(),
    )
    .await?;
    let document = dev.document()?;
    assert_eq!(dev.pids()?.len(), 5);
    assert_eq!(document["objectStore"]["url"], json!(url));
    let api = Api::new(
        document["endpoints"][4].as_str().context("no endpoint")?,
        document["apiKey"].as_str().context("no key")?,
    )?;
    let status = api.get("/api/v1/status").send().await?.expect(&[200])?;
    let status = status.json()?;
    let groups = status["groups"].as_array().context("no groups")?;
    let named: Vec<_> = groups.iter().map(|g| g["group"].clone()).collect();
    let shards = (0..4).map(|shard| json!(format!("config/{shard}")));
    assert_eq!(
        named,
        [json!("__meta/0")]
            .into_iter()
            .chain(shards)
            .collect::<Vec<_>>()
    );
    assert!(
        groups
            .iter()
            .all(|g| g["members"].as_array().is_some_and(|m| m.len() == 5))
    );
    let made = api.post("/api/v1/admin/snapshots?group=config/3", &json!({}));
    let made = made.send().await?.expect(&[200])?.json()?;
    let id = made["items"][0]["id"].as_str().context("no snapshot")?;
    let snapshot = objects.join(format!("snapshots/config/3/{id}.snap"));
    assert!(
        snapshot.exists(),
        "{} is not in the store",
        snapshot.display()
    );

    let pids = dev.pids()?;
    dev.signal(Signal::INT)?;
    assert!(dev.wait_end().await?.success());
    all_gone(&pids).await?;

    // Somebody's file beside them: nothing of the cluster goes.
    std::fs::write(dir.join("notes.txt"), "mine")?;
    let fresh = Dev::command(&dir)?.arg("--fresh").output()?;
    assert!(!fresh.status.success());
    assert!(said(&fresh).contains("notes.txt"), "{}", said(&fresh));
    assert!(dir.join("cluster.json").exists() && dir.join("nodes/node5").exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn the_nodes_of_dev_end_with_it_even_when_it_is_killed() -> anyhow::Result<()> {
    let temp = tempfile::tempdir()?;
    let mut dev = Dev::start(
        &temp.path().join("dev"),
        &["--port-base", &dev_port_base()?],
    )
    .await?;
    let pids = dev.pids()?;
    dev.signal(Signal::KILL)?;
    dev.wait_end().await?;
    all_gone(&pids).await
}

/// Without it the birth would be waited for, for as long as nodes may take that replay a long log.
#[tokio::test(flavor = "multi_thread")]
async fn dev_says_at_once_that_a_node_ended_before_the_cluster_was_born() -> anyhow::Result<()> {
    let temp = tempfile::tempdir()?;
    let dir = temp.path().join("dev");
    // Nobody is there, and the birth waits for the store.
    let child = Dev::command(&dir)?
        .args([
            "--object-store",
            "s3://none",
            "--port-base",
            &dev_port_base()?,
        ])
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut dev = Dev { child, dir };
    let pids = wait_until("every node was started", PATIENCE, || async {
        let pids = dev.pids()?;
        ensure!(pids.len() == 3, "{pids:?}");
        Ok(pids)
    })
    .await?;
    kill_process(pids[2], Signal::KILL)?;
    let status = dev.wait_end().await?;
    let mut said = String::new();
    dev.child
        .stderr
        .take()
        .context("no stderr")?
        .read_to_string(&mut said)?;
    ensure!(!status.success(), "{said}");
    ensure!(
        said.contains("node3 ended, and the others have no cluster without it: node1: "),
        "{said}"
    );
    ensure!(said.contains("node3 ended by itself: signal 9"), "{said}");
    all_gone(&pids).await
}

/// What `dev.json` says is all that a script needs to start that node itself.
#[tokio::test(flavor = "multi_thread")]
async fn the_environment_in_dev_json_is_enough_to_be_that_node() -> anyhow::Result<()> {
    let temp = tempfile::tempdir()?;
    let dev = Dev::start(
        &temp.path().join("dev"),
        &["--port-base", &dev_port_base()?],
    )
    .await?;
    let document = dev.document()?;
    let node = &document["nodes"][1];
    kill_process(pid(&node["pid"])?, Signal::KILL)?;
    wait_until("dev has seen it end", PATIENCE, || async {
        let now = dev.document()?;
        ensure!(now["nodes"][1]["running"] == false, "{}", now["nodes"][1]);
        Ok(())
    })
    .await?;
    let env: BTreeMap<String, String> = serde_json::from_value(node["env"].clone())?;
    let mut child = Command::new(binary::confman()?)
        .arg("serve")
        .env_clear()
        .envs(env)
        .spawn()?;
    let url = node["apiUrl"].as_str().context("no apiUrl")?;
    let api = Api::new(url, document["apiKey"].as_str().context("no key")?)?;
    let ready = wait_until("it is ready", PATIENCE, || async {
        api.get("/health/ready").send().await?.expect(&[200])?;
        Ok(())
    })
    .await;
    child.kill()?;
    child.wait()?;
    ready
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn dev_speaks_tls_when_it_is_asked_to_and_clients_in_its_directory_need_nothing_more()
-> anyhow::Result<()> {
    let temp = tempfile::tempdir()?;
    let dir = temp.path().join("confman-dev");
    let dev = Dev::start(&dir, &["--port-base", &dev_port_base()?, "--tls"]).await?;
    let document = dev.document()?;
    let ca = document["tls"]["caFile"].as_str().context("no authority")?;
    let endpoint = document["endpoints"][0].as_str().context("no endpoint")?;
    assert!(endpoint.starts_with("https://"), "{document}");
    let key = document["apiKey"].as_str().context("no key")?;
    let api = Api::trusting(endpoint, key, Some(&std::fs::read(ca)?))?;
    api.put("/api/v1/config/app/k", &json!("kept"))
        .header("x-confman-forward", "true")
        .send()
        .await?
        .expect(&[201])?;
    // The commands find endpoints, key and authority by themselves there; a node's environment has all that it needs.
    let here = |program: std::path::PathBuf, args: &[&str]| {
        let mut command = Command::new(program);
        command
            .args(args)
            .env_clear()
            .current_dir(temp.path())
            .output()
    };
    let got = good(here(binary::confman()?, &["get", "app/k"])?)?;
    assert_eq!(got.trim(), "kept");
    good(here(binary::drtool()?, &["status"])?)?;
    let env: std::collections::BTreeMap<String, String> =
        serde_json::from_value(document["nodes"][1]["env"].clone())?;
    let health = Command::new(binary::confman()?)
        .args(["health", "--ready"])
        .env_clear()
        .envs(env)
        .output()?;
    good(health)?;
    good(dev.act(&["stop"])?)?;
    Ok(())
}

/// What is done to nodes, and what is made for them, is one document for a script; a cluster is named by its directory alone.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn what_changes_a_dev_cluster_and_what_makes_keys_is_a_document_too() -> anyhow::Result<()> {
    let temp = tempfile::tempdir()?;
    let mut dev = Dev::start(
        &temp.path().join("dev"),
        &["--port-base", &dev_port_base()?],
    )
    .await?;
    let act = |args: &[&str]| -> anyhow::Result<Value> {
        let said = good(dev.act(&[args, &["--json"]].concat())?)?;
        serde_json::from_str(&said).with_context(|| said)
    };
    for action in ["pause", "resume", "kill", "start", "stop", "wipe"] {
        let told = act(&[action, "node2"])?;
        let message = told["message"].as_str().unwrap_or_default();
        ensure!(message.contains("node2"), "{action}: {told}");
        ensure!(told["items"][1]["name"] == "node2", "{action}: {told}");
    }
    // From anywhere: the directory names nodes and store.
    let program = binary::drtool()?;
    let list = Command::new(program)
        .args(["snapshot", "list", "--json", "--dev"])
        .arg(&dev.dir)
        .env_clear()
        .current_dir(temp.path())
        .output()?;
    let list: Value = serde_json::from_str(&good(list)?)?;
    let store = dev.document()?["objectStore"]["url"].clone();
    assert_eq!(list["store"], store, "{list}");
    let told = act(&["stop"])?;
    assert_eq!(told["message"], "stopped", "{told}");
    dev.wait_end().await?;

    let made = |args: &[&str]| -> anyhow::Result<Value> {
        let mut command = Command::new(binary::confman()?);
        let said = command
            .args(args)
            .env_clear()
            .current_dir(temp.path())
            .output()?;
        Ok(serde_json::from_str(&good(said)?)?)
    };
    std::fs::create_dir(temp.path().join("keys"))?;
    let keys = made(&["key", "init", "keys", "--json"])?;
    assert_eq!(keys["keyMade"], true, "{keys}");
    assert!(
        keys["key"]
            .as_str()
            .is_some_and(|key| key.starts_with("confman_")),
        "{keys}"
    );
    let again = made(&["key", "init", "keys", "--json"])?;
    assert_eq!(
        (&again["keyMade"], &again["key"]),
        (&json!(false), &Value::Null),
        "{again}"
    );
    let certs = made(&["cert", "init", "tls", "node1=localhost", "--json"])?;
    assert_eq!(certs["made"], true, "{certs}");
    let file = certs["items"][0]["certFile"]
        .as_str()
        .context("no certificate")?;
    assert!(temp.path().join(file).is_file(), "{certs}");
    let again = made(&["cert", "init", "tls", "node1=localhost", "--json"])?;
    assert_eq!(again["made"], false, "{again}");
    Ok(())
}
