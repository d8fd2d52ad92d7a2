//! Nodes and their store in containers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use testcontainers::ImageExt as _;
use testcontainers::core::{AccessMode, Mount};

use super::lab::{Images, Lab, Machine, Pod, image};
use super::store::{self, ACCESS_KEY, BUCKET, SECRET_KEY, STORE, STORE_PORT};
use crate::agree::{Witness, group_of};
use crate::cluster::{CONFIG, PATIENCE};
use crate::delay::{Delay, Link};
use crate::http::{Api, origin};
use crate::judge::judge;
use crate::load::{Load, LoadPlan};
use crate::metrics::Page;
use crate::wait::wait_until;

const API_PORT: u16 = 6100;
const PEER_PORT: u16 = 6101;
/// The volume of API keys and token.
const KEYS: &str = "keys";

/// One node: a pod, a volume, and a container in both, which may have been removed.
#[derive(Debug)]
pub struct ContainerNode {
    /// Its name.
    pub name: String,
    /// What happens to its packets.
    pub pod: Pod,
    upgraded: AtomicBool,
}

/// A cluster in containers; dropping it removes them.
#[derive(Debug)]
pub struct ContainerCluster {
    /// The nodes, in order of their names.
    pub nodes: Vec<ContainerNode>,
    /// The network of the store.
    pub store_pod: Pod,
    images: Images,
    api: Api,
    /// How the nodes know each other: name and address.
    peers: Vec<String>,
    /// The way to each node's peer listener, where it is one of ours.
    links: Vec<Link>,
    /// The last, so that it is dropped when the pods are.
    lab: Lab,
}

/// Tells what machines and networks do to a cluster of that many nodes. Why it went wrong is said before the logs of everybody, which
/// are long and hide it.
///
/// # Errors
/// The cluster does not start, the story fails, or a node has panicked.
pub async fn story(
    name: &str,
    count: usize,
    told: impl AsyncFnOnce(&ContainerCluster) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    play(ContainerCluster::start(name, count).await?, name, told).await
}

/// [`story`] of nodes whose ways to each other go through this process: [`ContainerCluster::far`].
///
/// # Errors
/// As there, or this machine is not the one that Docker runs on.
pub async fn linked_story(
    name: &str,
    count: usize,
    told: impl AsyncFnOnce(&ContainerCluster) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let cluster = ContainerCluster::start_linked(name, count).await?;
    play(cluster, name, told).await
}

async fn play(
    cluster: ContainerCluster,
    name: &str,
    told: impl AsyncFnOnce(&ContainerCluster) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let ended = match told(&cluster).await {
        Ok(()) => cluster.finish().await,
        failed => failed,
    };
    if let Err(error) = &ended {
        eprintln!("{name} failed: {error:#}");
    }
    ended
}

impl ContainerCluster {
    /// That many nodes and a store, all ready.
    ///
    /// # Errors
    /// Something does not start.
    async fn start(name: &str, count: usize) -> anyhow::Result<Self> {
        Self::begin(name, count, false).await
    }

    /// The same, with a [`Link`] in this process to each node's peer listener, so that [`Self::far`] can make the way long. All peers
    /// speak to each other by this machine's address in their network: nothing between two pods is there to be cut.
    ///
    /// # Errors
    /// Something does not start, or this machine is not the one that Docker runs on.
    async fn start_linked(name: &str, count: usize) -> anyhow::Result<Self> {
        Self::begin(name, count, true).await
    }

    async fn begin(name: &str, count: usize, linked: bool) -> anyhow::Result<Self> {
        let images = Images::from_env()?;
        let lab = Lab::new(name).await?;
        let store_pod = lab.pod(&images.tools, STORE, STORE_PORT).await?;
        store::start(&lab, &images, &store_pod, false).await?;
        let keys = Mount::volume_mount(lab.volume(KEYS).await?, "/keys");
        let makes_keys = image(&images.node).with_cmd(["key", "init", "/keys"]);
        let printed = lab.run("makes-keys", makes_keys.with_mount(keys)).await?;
        let key = printed
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-')
            .find(|word| word.starts_with("confman_"))
            .with_context(|| format!("no key in {printed}"))?;
        let mut nodes = Vec::new();
        for number in 1..=count {
            let name = format!("node{number}");
            let pod = lab.pod(&images.tools, &name, API_PORT).await?;
            nodes.push(ContainerNode {
                name,
                pod,
                upgraded: AtomicBool::new(false),
            });
        }
        let api = Api::new(&nodes.first().context("no nodes")?.pod.published, key)?;
        let mut links = Vec::new();
        let mut peers = Vec::new();
        for node in &nodes {
            let mut address = format!("{}:{PEER_PORT}", node.pod.host);
            if linked {
                let here = SocketAddr::new(lab.gateway().await?, 0);
                let there = SocketAddr::new(node.pod.address, PEER_PORT);
                let link = Link::lay(here, there).await?;
                address = link.address().to_string();
                links.push(link);
            }
            peers.push(format!("{}={address}", node.name));
        }
        let cluster = Self {
            nodes,
            store_pod,
            images,
            api,
            peers,
            links,
            lab,
        };
        for index in 0..count {
            cluster.start_node(index).await?;
        }
        cluster.wait_all_ready().await?;
        Ok(cluster)
    }

    /// Makes the container of a node and starts it, with the volume that it has, or a new one.
    async fn make_node(&self, node: &ContainerNode) -> anyhow::Result<()> {
        let data = self.lab.volume(&node.name).await?;
        let data = Mount::volume_mount(data, "/var/lib/confman");
        let keys = Mount::volume_mount(self.lab.name(KEYS), "/keys");
        let keys = keys.with_access_mode(AccessMode::ReadOnly);
        let image = image(if node.upgraded.load(Ordering::Relaxed) {
            &self.images.upgrade
        } else {
            &self.images.node
        });
        let mut request = node.pod.holds(image).with_mount(data).with_mount(keys);
        for (name, value) in [
            ("CONFMAN_NODE_NAME", node.name.clone()),
            ("CONFMAN_PEERS", self.peers.join(",")),
            ("CONFMAN_API_LISTEN", format!("0.0.0.0:{API_PORT}")),
            ("CONFMAN_API_ADVERTISE", node.pod.published.clone()),
            ("CONFMAN_PEER_LISTEN", format!("0.0.0.0:{PEER_PORT}")),
            ("CONFMAN_API_KEYS_FILE", "/keys/api-keys.json".to_owned()),
            (
                "CONFMAN_CLUSTER_TOKEN_FILE",
                "/keys/cluster-token".to_owned(),
            ),
            ("CONFMAN_LOG", "info,openraft=warn,raft_log=warn".to_owned()),
            // Snapshots and purges take part too.
            ("CONFMAN_SNAPSHOT_LOG_THRESHOLD", "400".to_owned()),
            ("CONFMAN_SNAPSHOT_LOG_MARGIN", "50".to_owned()),
            ("CONFMAN_OBJECT_STORE_URL", format!("s3://{BUCKET}/cluster")),
            (
                "AWS_ENDPOINT_URL",
                format!("http://{}:{STORE_PORT}", self.store_pod.host),
            ),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("RUST_BACKTRACE", "1".to_owned()),
        ] {
            request = request.with_env_var(name, value);
        }
        self.lab.start(&node.name, request).await.map(|_| ())
    }

    fn machine(&self, index: usize) -> anyhow::Result<Machine> {
        self.lab.machine(&self.nodes[index].name)
    }

    /// Starts a node that is down, in a new container where the last was removed.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn start_node(&self, index: usize) -> anyhow::Result<()> {
        match self.machine(index) {
            Ok(machine) => machine.start().await,
            Err(_) => self.make_node(&self.nodes[index]).await,
        }
    }

    /// kill -9.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&self, index: usize) -> anyhow::Result<()> {
        self.machine(index)?.kill().await
    }

    /// Freezes every process of a node.
    ///
    /// # Errors
    /// It does not run.
    pub async fn pause(&self, index: usize) -> anyhow::Result<()> {
        self.machine(index)?.pause().await
    }

    /// Lets a frozen node go on.
    ///
    /// # Errors
    /// It is not frozen.
    pub async fn unpause(&self, index: usize) -> anyhow::Result<()> {
        self.machine(index)?.unpause().await
    }

    /// Asks a node to stop, and checks that it left by itself.
    ///
    /// # Errors
    /// It had to be killed, or ended in another way.
    pub async fn stop(&self, index: usize) -> anyhow::Result<()> {
        self.machine(index)?.stop().await
    }

    /// Removes container and volume of a node that is down.
    ///
    /// # Errors
    /// Docker refuses.
    pub async fn wipe(&self, index: usize) -> anyhow::Result<()> {
        let name = &self.nodes[index].name;
        self.lab.remove(name).await?;
        self.lab.remove_volume(name).await
    }

    /// Gives a node that is down the other image, which is of another version; its volume stays.
    ///
    /// # Errors
    /// Docker refuses.
    pub async fn upgrade(&self, index: usize) -> anyhow::Result<()> {
        let node = &self.nodes[index];
        self.lab.remove(&node.name).await?;
        node.upgraded.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The version that a node says it is of.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn version(&self, index: usize) -> anyhow::Result<String> {
        let answer = self.api(index).get("/api/v1/status").send().await?;
        let status = answer.expect(&[200])?.json()?;
        let version = status["version"].as_str();
        Ok(version.context("a status without a version")?.to_owned())
    }

    /// The versions of the nodes' image and of the one that they are upgraded to, as the programs in them say.
    ///
    /// # Errors
    /// One does not run.
    pub async fn versions_of_images(&self) -> anyhow::Result<(String, String)> {
        let mut versions = Vec::new();
        for name in [&self.images.node, &self.images.upgrade] {
            let says = image(name).with_cmd(["--version"]);
            let printed = self.lab.run("says-version", says).await?;
            let version = printed.trim().strip_prefix("confman ");
            versions.push(version.with_context(|| printed.clone())?.to_owned());
        }
        let upgrade = versions.pop().context("no version")?;
        Ok((versions.pop().context("no version")?, upgrade))
    }

    /// How long everything takes from now on that goes between this one node and the others, whoever connected.
    ///
    /// # Errors
    /// It is no cluster of [`linked_story`].
    pub fn far(&self, index: usize, delay: Delay) -> anyhow::Result<()> {
        let from = self.nodes[index].pod.address;
        let link = self.links.get(index).context("a cluster without links")?;
        self.near();
        link.set(delay);
        for (other, link) in self.links.iter().enumerate() {
            if other != index {
                link.set_for(from, delay);
            }
        }
        Ok(())
    }

    /// Lets everything between the nodes take no longer than it does.
    pub fn near(&self) {
        for link in &self.links {
            link.set(Delay::default());
        }
    }

    /// The pods of all nodes but one.
    #[must_use]
    pub fn others(&self, index: usize) -> Vec<&Pod> {
        let nodes = self.nodes.iter().enumerate();
        nodes
            .filter(|(other, _)| *other != index)
            .map(|(_, node)| &node.pod)
            .collect()
    }

    /// kill -9 of the store.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill_store(&self) -> anyhow::Result<()> {
        self.lab.machine(STORE)?.kill().await
    }

    /// Starts the store that was killed, with what it had.
    ///
    /// # Errors
    /// It does not come back.
    pub async fn restart_store(&self) -> anyhow::Result<()> {
        let store = self.lab.machine(STORE)?;
        store.start().await?;
        store::wait(self.images.server, &store, &self.store_pod.host).await
    }

    /// Whether [`Self::fill_store`] can be asked for.
    #[must_use]
    pub fn can_fill_store(&self) -> bool {
        self.images.server.can_be_full()
    }

    /// Fills the disk of the store, or frees it: everything is there and can be read, and nothing more is taken.
    ///
    /// # Errors
    /// It does not come back, or cannot be filled.
    pub async fn fill_store(&self, full: bool) -> anyhow::Result<()> {
        self.lab.remove(STORE).await?;
        store::start(&self.lab, &self.images, &self.store_pod, full).await
    }

    /// Freezes the store: connections are taken and never answered.
    ///
    /// # Errors
    /// It does not run.
    pub async fn pause_store(&self) -> anyhow::Result<()> {
        self.lab.machine(STORE)?.pause().await
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It is not frozen.
    pub async fn unpause_store(&self) -> anyhow::Result<()> {
        self.lab.machine(STORE)?.unpause().await
    }

    /// The API of one node.
    #[must_use]
    pub fn api(&self, index: usize) -> Api {
        self.api.at(&self.nodes[index].pod.published)
    }

    /// Every node, to be asked.
    #[must_use]
    pub fn witnesses(&self) -> Vec<Witness> {
        let nodes = self.nodes.iter().enumerate();
        nodes
            .map(|(index, node)| (node.name.clone(), self.api(index)))
            .collect()
    }

    /// Starts clients whose keys are in a namespace of their own.
    #[must_use]
    pub fn load(&self, namespace: &str) -> Load {
        let plan = LoadPlan {
            writers: 4,
            readers: 3,
            namespace: namespace.to_owned(),
            ..LoadPlan::default()
        };
        let endpoints: Vec<String> = self
            .nodes
            .iter()
            .map(|node| node.pod.published.clone())
            .collect();
        Load::start_at(&self.api, &endpoints, &plan)
    }

    /// Waits until all is ready, ends the clients, and judges what they saw.
    ///
    /// # Errors
    /// Something was lost, doubled or stale, or a node is not well.
    pub async fn end(&self, load: Load, namespace: &str) -> anyhow::Result<()> {
        self.wait_all_ready().await?;
        load.wait_progress(30, PATIENCE).await?;
        let history = load.stop().await?;
        eprintln!("{namespace}: {} operations to judge", history.len());
        judge(&self.witnesses(), namespace, &history).await
    }

    /// Waits until a node is ready.
    ///
    /// # Errors
    /// It is not in time.
    pub async fn wait_ready(&self, index: usize) -> anyhow::Result<()> {
        let what = format!("{} is ready", self.nodes[index].name);
        wait_until(&what, PATIENCE, || async {
            let api = self.api(index);
            let ask = api.get("/health/ready").timeout(Duration::from_secs(2));
            ask.send().await?.expect(&[200]).map(|_| ())
        })
        .await
    }

    /// Waits until every node is ready.
    ///
    /// # Errors
    /// One is not in time.
    pub async fn wait_all_ready(&self) -> anyhow::Result<()> {
        for index in 0..self.nodes.len() {
            self.wait_ready(index).await?;
        }
        Ok(())
    }

    /// What one node says about a group.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn group(&self, index: usize, group: &str) -> anyhow::Result<Value> {
        group_of(&self.api(index), group).await
    }

    /// The metrics of one node.
    ///
    /// # Errors
    /// It does not answer, or not with metrics.
    pub async fn metrics(&self, index: usize) -> anyhow::Result<Page> {
        let asked = self.api(index).get("/metrics").timeout(PATIENCE);
        Page::parse(&asked.send().await?.expect(&[200])?.text())
    }

    /// Waits until these nodes agree on a leader among them.
    ///
    /// # Errors
    /// They do not in time.
    pub async fn wait_leader_among(&self, nodes: &[usize]) -> anyhow::Result<usize> {
        wait_until("a leader of config/0", PATIENCE, || async {
            let mut leader = None;
            for index in nodes {
                let group = self.group(*index, CONFIG).await?;
                let name = group["leader"]["name"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                let place = nodes.iter().find(|n| self.nodes[**n].name == name);
                let place = *place.with_context(|| format!("a leader {name:?}"))?;
                match leader {
                    Some(known) if known != place => bail!("two are named"),
                    _ => leader = Some(place),
                }
            }
            leader.context("no nodes")
        })
        .await
    }

    /// Waits until all nodes agree on a leader.
    ///
    /// # Errors
    /// They do not in time.
    pub async fn wait_leader(&self) -> anyhow::Result<usize> {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        self.wait_leader_among(&all).await
    }

    /// Takes a snapshot of the configuration now; gives its item of the answer.
    ///
    /// # Errors
    /// It fails, or does not end in time.
    pub async fn snapshot(&self) -> anyhow::Result<Value> {
        wait_until("a snapshot", PATIENCE, || async {
            let leader = self.wait_leader().await?;
            let path = "/api/v1/admin/snapshots?group=config%2F0";
            let mut answer = self.api(leader).post(path, &json!({})).send().await?;
            if answer.status == 307 {
                let base = origin(answer.header("location").context("307 without Location")?)?;
                answer = self.api.at(&base).post(path, &json!({})).send().await?;
            }
            let answered = answer.expect(&[200])?.json()?;
            answered["items"].get(0).cloned().context("no item")
        })
        .await
    }

    /// What a node has logged since its container was made.
    ///
    /// # Errors
    /// Docker does not answer.
    pub async fn log(&self, index: usize) -> anyhow::Result<String> {
        self.machine(index)?.logs().await
    }

    /// Ends the test well: no node has panicked.
    ///
    /// # Errors
    /// One has.
    async fn finish(&self) -> anyhow::Result<()> {
        for index in 0..self.nodes.len() {
            let log = self.log(index).await?;
            if let Some(line) = log.lines().find(|line| line.contains("panicked at")) {
                bail!("{} has panicked: {line}", self.nodes[index].name);
            }
        }
        self.lab.finish();
        Ok(())
    }
}
