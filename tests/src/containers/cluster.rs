//! Nodes and their store in containers.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::docker::{docker, logs};
use super::lab::{Images, Lab, Pod};
use super::store::{self, ACCESS_KEY, BUCKET, SECRET_KEY, STORE_PORT};
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
/// Seconds that a node may take to hand over and leave.
const STOP_SECONDS: &str = "15";

/// One node: a container, a volume, a pod.
#[derive(Debug)]
pub struct ContainerNode {
    /// Its name.
    pub name: String,
    /// What happens to its packets.
    pub pod: Pod,
    container: String,
}

/// A cluster in containers; dropping it removes them.
#[derive(Debug)]
pub struct ContainerCluster {
    /// The nodes, in order of their names.
    pub nodes: Vec<ContainerNode>,
    /// The network of the store.
    pub store_pod: Pod,
    store: String,
    images: Images,
    api: Api,
    /// How the nodes know each other: name and address.
    peers: Vec<String>,
    /// The way to each node's peer listener, where it is one of ours.
    links: Vec<Link>,
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
        let store_pod = lab.pod(&images.tools, "store", STORE_PORT).await?;
        let store = store::create(&lab, &images.store, images.server, &store_pod, false).await?;
        store::wait(images.server, &store).await?;
        let keys = lab.volume("keys").await?;
        let mount = format!("type=volume,source={keys},target=/keys");
        let printed = lab
            .run(&["--mount", &mount, &images.node, "key", "init", "/keys"])
            .await?;
        let key = printed
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-')
            .find(|word| word.starts_with("confman_"))
            .with_context(|| format!("no key in {printed}"))?;
        let mut nodes = Vec::new();
        for number in 1..=count {
            let name = format!("node{number}");
            let pod = lab.pod(&images.tools, &name, API_PORT).await?;
            let container = lab.name(&name);
            nodes.push(ContainerNode {
                name,
                pod,
                container,
            });
        }
        let api = Api::new(&nodes.first().context("no nodes")?.pod.published, key)?;
        let mut links = Vec::new();
        let mut peers = Vec::new();
        for node in &nodes {
            let mut address = format!("{}:{PEER_PORT}", node.name);
            if linked {
                let here = SocketAddr::new(lab.gateway().await?, 0);
                let there = SocketAddr::new(node.pod.address.parse()?, PEER_PORT);
                let link = Link::lay(here, there).await?;
                address = link.address().to_string();
                links.push(link);
            }
            peers.push(format!("{}={address}", node.name));
        }
        let cluster = Self {
            nodes,
            store_pod,
            store,
            images,
            api,
            peers,
            links,
            lab,
        };
        for index in 0..count {
            cluster.create(index, &cluster.images.node).await?;
            cluster.start_node(index).await?;
        }
        cluster.wait_all_ready().await?;
        Ok(cluster)
    }

    /// Makes the container of a node, with the volume that it has, or a new one.
    async fn create(&self, index: usize, image: &str) -> anyhow::Result<()> {
        let node = &self.nodes[index];
        let data = self.lab.volume(&node.name).await?;
        let env = [
            format!("CONFMAN_NODE_NAME={}", node.name),
            format!("CONFMAN_PEERS={}", self.peers.join(",")),
            format!("CONFMAN_API_LISTEN=0.0.0.0:{API_PORT}"),
            format!("CONFMAN_API_ADVERTISE={}", node.pod.published),
            format!("CONFMAN_PEER_LISTEN=0.0.0.0:{PEER_PORT}"),
            "CONFMAN_API_KEYS_FILE=/keys/api-keys.json".to_owned(),
            "CONFMAN_CLUSTER_TOKEN_FILE=/keys/cluster-token".to_owned(),
            "CONFMAN_LOG=info,openraft=warn,raft_log=warn".to_owned(),
            // Snapshots and purges take part too.
            "CONFMAN_SNAPSHOT_LOG_THRESHOLD=400".to_owned(),
            "CONFMAN_SNAPSHOT_LOG_MARGIN=50".to_owned(),
            format!("CONFMAN_OBJECT_STORE_URL=s3://{BUCKET}/cluster"),
            format!("AWS_ENDPOINT_URL=http://store:{STORE_PORT}"),
            "AWS_ALLOW_HTTP=true".to_owned(),
            "AWS_REGION=us-east-1".to_owned(),
            format!("AWS_ACCESS_KEY_ID={ACCESS_KEY}"),
            format!("AWS_SECRET_ACCESS_KEY={SECRET_KEY}"),
            "RUST_BACKTRACE=1".to_owned(),
        ];
        let network = format!("container:{}", node.pod.container);
        let data = format!("type=volume,source={data},target=/var/lib/confman");
        let keys = self.lab.name("keys");
        let keys = format!("type=volume,source={keys},target=/keys,readonly");
        let mut args = vec!["--network", &network, "--mount", &data, "--mount", &keys];
        for variable in &env {
            args.extend(["--env", variable]);
        }
        args.push(image);
        self.lab.create(&node.name, &args).await.map(|_| ())
    }

    /// Starts a node that is down.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn start_node(&self, index: usize) -> anyhow::Result<()> {
        docker(&["start", &self.nodes[index].container])
            .await
            .map(|_| ())
    }

    /// kill -9.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&self, index: usize) -> anyhow::Result<()> {
        docker(&["kill", &self.nodes[index].container])
            .await
            .map(|_| ())
    }

    /// Freezes every process of a node.
    ///
    /// # Errors
    /// It does not run.
    pub async fn pause(&self, index: usize) -> anyhow::Result<()> {
        docker(&["pause", &self.nodes[index].container])
            .await
            .map(|_| ())
    }

    /// Lets a frozen node go on.
    ///
    /// # Errors
    /// It is not frozen.
    pub async fn unpause(&self, index: usize) -> anyhow::Result<()> {
        docker(&["unpause", &self.nodes[index].container])
            .await
            .map(|_| ())
    }

    /// Asks a node to stop, and checks that it left by itself.
    ///
    /// # Errors
    /// It had to be killed, or ended in another way.
    pub async fn stop(&self, index: usize) -> anyhow::Result<()> {
        let container = &self.nodes[index].container;
        docker(&["stop", "--time", STOP_SECONDS, container]).await?;
        let code = docker(&["inspect", "--format", "{{.State.ExitCode}}", container]).await?;
        ensure!(code == "0", "{container} ended with {code}");
        Ok(())
    }

    /// Removes container and volume of a node that is down, and makes both anew.
    ///
    /// # Errors
    /// It runs, or Docker refuses.
    pub async fn wipe(&self, index: usize) -> anyhow::Result<()> {
        let node = &self.nodes[index];
        docker(&["rm", &node.container]).await?;
        docker(&["volume", "rm", &self.lab.name(&node.name)]).await?;
        self.create(index, &self.images.node).await
    }

    /// Gives a node that is down the other image, which is of another version; its volume stays.
    ///
    /// # Errors
    /// It runs, or Docker refuses.
    pub async fn upgrade(&self, index: usize) -> anyhow::Result<()> {
        docker(&["rm", &self.nodes[index].container]).await?;
        self.create(index, &self.images.upgrade).await
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
        for image in [&self.images.node, &self.images.upgrade] {
            let printed = self.lab.run(&[image, "--version"]).await?;
            let version = printed.strip_prefix("confman ");
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
        let from = self.nodes[index].pod.address.parse()?;
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
        docker(&["kill", &self.store]).await.map(|_| ())
    }

    /// Starts the store that was killed, with what it had.
    ///
    /// # Errors
    /// It does not come back.
    pub async fn restart_store(&self) -> anyhow::Result<()> {
        docker(&["start", &self.store]).await?;
        store::wait(self.images.server, &self.store).await
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
        docker(&["rm", "--force", &self.store]).await?;
        let Images { store, server, .. } = &self.images;
        store::create(&self.lab, store, *server, &self.store_pod, full).await?;
        store::wait(*server, &self.store).await
    }

    /// Freezes the store: connections are taken and never answered.
    ///
    /// # Errors
    /// It does not run.
    pub async fn pause_store(&self) -> anyhow::Result<()> {
        docker(&["pause", &self.store]).await.map(|_| ())
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It is not frozen.
    pub async fn unpause_store(&self) -> anyhow::Result<()> {
        docker(&["unpause", &self.store]).await.map(|_| ())
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
        logs(&self.nodes[index].container).await
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
