//! A cluster of real processes in a directory of its own, and everything that a scenario does to it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::binary;
use crate::certs::Certs;
use crate::delay::{Delay, Link};
use crate::http::Api;
use crate::node::Node;
pub use crate::plan::Plan;
use crate::ports::free_port;
use crate::store::Store;
use crate::wait::wait_until;

/// What a start, an election or a rejoin may take on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The group that holds configuration when there is one.
pub const CONFIG: &str = "config/0";
/// The group that holds the cluster's own affairs.
pub const META: &str = "__meta/0";

/// A cluster of test processes; dropping it ends them and removes its directory.
pub struct Cluster {
    pub(crate) name: String,
    pub(crate) nodes: Vec<Node>,
    pub(crate) key: String,
    pub(crate) api: Api,
    pub(crate) store: Mutex<Option<Store>>,
    pub(crate) certs: Option<Certs>,
    /// The way to each node's peer listener, where it is one of ours.
    pub(crate) links: Vec<Link>,
    pub(crate) dir: Option<TempDir>,
    /// Numbers the idempotency keys.
    pub(crate) writes: AtomicU64,
    pub(crate) finished: bool,
    /// How many nodes were there at the birth; the others are spares.
    pub(crate) born: usize,
}

/// Makes a key with the program itself; gives the key.
///
/// # Errors
/// The program refuses.
pub fn create_key(file: &Path, name: &str, role: &str) -> anyhow::Result<String> {
    let output = Command::new(binary::confman()?)
        .args(["key", "create", "--name", name, "--role", role, "--file"])
        .arg(file)
        .env_clear()
        .output()
        .context("run confman key create")?;
    if !output.status.success() {
        bail!(
            "confman key create: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let key = String::from_utf8(output.stdout).context("the key is not text")?;
    Ok(key.trim().to_owned())
}

/// Copies a directory with all that is in it.
///
/// # Errors
/// Something cannot be read or written.
pub fn copy_dir(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
    for item in std::fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let item = item?;
        let target = to.join(item.file_name());
        if item.file_type()?.is_dir() {
            copy_dir(&item.path(), &target)?;
        } else {
            std::fs::copy(item.path(), &target)
                .with_context(|| format!("copy {}", item.path().display()))?;
        }
    }
    Ok(())
}

impl Cluster {
    /// The nodes, in order of their names.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// One node, counted from 0.
    #[must_use]
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// A second process for a node's name, on ports of its own, with a copy of the node's data directory as it is now, or
    /// with none. It is not among the nodes of the cluster.
    ///
    /// # Errors
    /// Ports cannot be had, or the directory cannot be copied.
    pub fn second(&self, index: usize, with_data: bool) -> anyhow::Result<Node> {
        let node = &self.nodes[index];
        let (api, peer) = (free_port()?, free_port()?);
        let label = format!("{}-second-{api}", node.name);
        let data_dir = self.dir()?.join(&label);
        if with_data {
            copy_dir(&node.data_dir, &data_dir)?;
        }
        let (api_url, peer_addr) = (
            format!("http://127.0.0.1:{api}"),
            format!("127.0.0.1:{peer}"),
        );
        let mut env = node.env();
        for (name, value) in [
            ("CONFMAN_DATA_DIR", data_dir.display().to_string()),
            ("CONFMAN_API_LISTEN", format!("127.0.0.1:{api}")),
            ("CONFMAN_PEER_LISTEN", peer_addr.clone()),
            // Otherwise that of the node in CONFMAN_PEERS.
            ("CONFMAN_PEER_ADVERTISE", peer_addr.clone()),
        ] {
            env.insert(name.to_owned(), value);
        }
        let log = self.dir()?.join(format!("{label}.log"));
        Ok(Node::new(label, api_url, peer_addr, data_dir, log, env))
    }

    /// A process of its own on a directory that is none of this cluster's, on free ports, told nothing of this cluster: the
    /// settings given and no others. It is not among the nodes of the cluster.
    ///
    /// # Errors
    /// Ports cannot be had.
    pub fn stranger(
        &self,
        name: &str,
        data_dir: &Path,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Node> {
        let (api, peer) = (free_port()?, free_port()?);
        let peer_addr = format!("127.0.0.1:{peer}");
        let mut env: BTreeMap<String, String> = [
            ("CONFMAN_NODE_NAME", name.to_owned()),
            ("CONFMAN_DATA_DIR", data_dir.display().to_string()),
            ("CONFMAN_API_LISTEN", format!("127.0.0.1:{api}")),
            ("CONFMAN_PEER_LISTEN", peer_addr.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        for (name, value) in settings {
            env.insert((*name).to_owned(), (*value).to_owned());
        }
        let log = self.dir()?.join(format!("{name}-{api}.log"));
        let api_url = format!("http://127.0.0.1:{api}");
        let data_dir = data_dir.to_owned();
        Ok(Node::new(
            name.to_owned(),
            api_url,
            peer_addr,
            data_dir,
            log,
            env,
        ))
    }

    /// The API of a process that is none of its nodes.
    #[must_use]
    pub fn api_of(&self, node: &Node) -> Api {
        self.api.at(&node.api_url)
    }

    /// The admin key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The certificates of a cluster that speaks TLS.
    ///
    /// # Errors
    /// It speaks in the clear.
    pub fn certs(&self) -> anyhow::Result<&Certs> {
        self.certs.as_ref().context("a cluster in the clear")
    }

    /// What a client of a cluster that speaks TLS needs beside endpoints and key.
    #[must_use]
    pub fn client_tls(&self) -> BTreeMap<String, String> {
        let ca = self.certs.iter().map(|certs| {
            let file = certs.client_ca().display().to_string();
            ("CONFMAN_TLS_CLIENT_CA_FILE".to_owned(), file)
        });
        ca.collect()
    }

    /// How long everything takes from now on that peers send to one node, and its answers, where it is a cluster with
    /// [`Plan::links`].
    ///
    /// # Errors
    /// It has none.
    pub fn delay(&self, index: usize, delay: Delay) -> anyhow::Result<()> {
        let link = self.links.get(index).context("a cluster without links")?;
        link.set(delay);
        Ok(())
    }

    /// Lets nobody speak to the peer listener of one node who has no connection to it yet, where it is a cluster with [`Plan::links`].
    ///
    /// # Errors
    /// It has none.
    pub fn close_to_newcomers(&self, index: usize) -> anyhow::Result<()> {
        let link = self.links.get(index).context("a cluster without links")?;
        link.close();
        Ok(())
    }

    /// The directory of the whole test.
    ///
    /// # Errors
    /// Never while the cluster lives.
    pub fn dir(&self) -> anyhow::Result<&Path> {
        Ok(self.dir.as_ref().context("the directory is gone")?.path())
    }

    /// The API of one node.
    #[must_use]
    pub fn api(&self, index: usize) -> Api {
        self.api.at(&self.nodes[index].api_url)
    }

    /// The URLs of all nodes.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.api_url.clone()).collect()
    }

    /// The object store, held while the guard lives.
    pub async fn store(&self) -> tokio::sync::MutexGuard<'_, Option<Store>> {
        self.store.lock().await
    }

    /// Stops the S3 server: connections are refused.
    pub async fn stop_store(&self) {
        if let Some(store) = self.store.lock().await.as_mut() {
            store.stop().await;
        }
    }

    /// Starts the S3 server again.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn resume_store(&self) -> anyhow::Result<()> {
        match self.store.lock().await.as_mut() {
            Some(store) => store.resume().await,
            None => Ok(()),
        }
    }

    /// Runs the program as a client of this cluster; gives its output.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn confman(&self, args: &[&str]) -> anyhow::Result<std::process::Output> {
        let ran = self.confman_command(args)?.output();
        ran.context("run confman")
    }

    /// The same, for who starts it and does not wait for its end.
    ///
    /// # Errors
    /// The cluster has ended, or the program cannot be built.
    pub fn confman_command(&self, args: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(binary::confman()?);
        command
            .args(args)
            .env_clear()
            .env("CONFMAN_ENDPOINTS", self.endpoints().join(","))
            .env("CONFMAN_API_KEY", &self.key)
            .envs(self.client_tls())
            .current_dir(self.dir()?);
        Ok(command)
    }

    /// Starts every node that is down, and no spare that was never started.
    ///
    /// # Errors
    /// One cannot be started.
    pub fn start_all(&self) -> anyhow::Result<()> {
        self.nodes
            .iter()
            .enumerate()
            .filter(|(index, node)| *index < self.born || node.has_data())
            .map(|(_, node)| node)
            .filter(|node| node.pid().is_none())
            .try_for_each(Node::start)
    }

    /// kill -9 of every node that runs.
    ///
    /// # Errors
    /// One cannot be killed.
    pub fn kill_all(&self) -> anyhow::Result<()> {
        self.nodes
            .iter()
            .filter(|node| node.pid().is_some())
            .try_for_each(Node::kill)
    }

    /// Waits until every node that runs is ready.
    ///
    /// # Errors
    /// One is not in time.
    pub async fn wait_all_ready(&self) -> anyhow::Result<()> {
        for index in 0..self.nodes.len() {
            if self.nodes[index].pid().is_some() {
                self.wait_ready(index).await?;
            }
        }
        Ok(())
    }

    /// Waits until one node is ready.
    ///
    /// # Errors
    /// It is not in time.
    pub async fn wait_ready(&self, index: usize) -> anyhow::Result<()> {
        let api = self.api(index);
        wait_until(
            &format!("{} is ready", self.nodes[index].name),
            PATIENCE,
            || async {
                api.get("/health/ready")
                    .timeout(Duration::from_secs(2))
                    .send()
                    .await?
                    .expect(&[200])?;
                Ok(())
            },
        )
        .await
    }

    /// One node's status document.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn status(&self, index: usize) -> anyhow::Result<Value> {
        let answer = self
            .api(index)
            .get("/api/v1/status")
            .timeout(Duration::from_secs(5))
            .send()
            .await?;
        answer.expect(&[200])?.json()
    }

    /// What one node says about one group.
    ///
    /// # Errors
    /// It does not answer, or knows no such group.
    pub async fn group(&self, index: usize, group: &str) -> anyhow::Result<Value> {
        let status = self.status(index).await?;
        let groups = status["groups"]
            .as_array()
            .context("status has no groups")?;
        let found = groups.iter().find(|found| found["group"] == group);
        found
            .cloned()
            .with_context(|| format!("{} has no group {group}: {status}", self.nodes[index].name))
    }

    /// Waits until exactly one running node leads the group and all running ones agree; gives its place.
    ///
    /// # Errors
    /// They do not agree in time.
    pub async fn wait_leader(&self, group: &str) -> anyhow::Result<usize> {
        wait_until(&format!("one leader of {group}"), PATIENCE, || {
            self.leader(group)
        })
        .await
    }

    async fn leader(&self, group: &str) -> anyhow::Result<usize> {
        let mut leaders = Vec::new();
        let mut named = Vec::new();
        for index in 0..self.nodes.len() {
            if self.nodes[index].pid().is_none() {
                continue;
            }
            let status = self.group(index, group).await?;
            if status["role"] == "leader" {
                leaders.push(index);
            }
            named.push(
                status["leader"]["name"]
                    .as_str()
                    .unwrap_or("none")
                    .to_owned(),
            );
        }
        match leaders[..] {
            [leader] if named.iter().all(|name| *name == self.nodes[leader].name) => Ok(leader),
            _ => bail!("leaders {leaders:?}, named {named:?}"),
        }
    }

    /// A running node that does not lead the group.
    ///
    /// # Errors
    /// There is none.
    pub async fn follower(&self, group: &str) -> anyhow::Result<usize> {
        let leader = self.wait_leader(group).await?;
        let running = |index: &usize| *index != leader && self.nodes[*index].pid().is_some();
        (0..self.nodes.len())
            .find(running)
            .context("no follower runs")
    }

    /// Ends the test well: no node has panicked, and nobody needs to see the logs.
    ///
    /// # Errors
    /// A node has panicked, now or earlier.
    pub fn finish(mut self) -> anyhow::Result<()> {
        for node in &self.nodes {
            let text = node.log_text().unwrap_or_default();
            // As a node's log says it, and as Rust does before there is a log.
            let panic =
                |line: &&str| line.contains("a thread panicked") || line.contains("panicked at");
            if let Some(line) = text.lines().find(panic) {
                bail!("{} has panicked: {line}", node.name);
            }
        }
        self.finished = true;
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        eprintln!("==== the nodes of {} ====", self.name);
        for node in &self.nodes {
            // Together, so that none logs the end of the others.
            let _ = node.kill();
        }
        for node in &self.nodes {
            node.show_log();
        }
        if std::env::var_os("CONFMAN_TEST_KEEP").is_some()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("==== kept: {} ====", dir.keep().display());
        }
    }
}
