//! What a test cluster shall be, and how it is laid out.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::certs::{Certs, Signer};
use crate::cluster::{Cluster, create_key};
use crate::delay::Link;
use crate::http::Api;
use crate::node::Node;
use crate::ports::free_port;
use crate::store::{ConditionalWrites, Store};

/// A cluster to be.
#[derive(Debug, Clone)]
pub struct Plan {
    name: String,
    nodes: usize,
    spares: usize,
    env: BTreeMap<String, String>,
    store: bool,
    conditional_writes: ConditionalWrites,
    tls: bool,
    links: bool,
    /// As it stands in addresses.
    host: &'static str,
}

/// The ports of one node.
struct Ports {
    api: u16,
    peer: u16,
    /// Where others connect to reach the peer port.
    way: u16,
}

impl Plan {
    /// Three nodes with quick elections and a store inside the test.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let env = [
            ("CONFMAN_HEARTBEAT_MS", "150"),
            ("CONFMAN_ELECTION_TIMEOUT_MIN_MS", "900"),
            ("CONFMAN_ELECTION_TIMEOUT_MAX_MS", "1800"),
            // A new life waits for three of them where old members are silent.
            ("CONFMAN_STORE_FENCE_INTERVAL_MS", "1000"),
            // What the node says, not every step of the library below it.
            ("CONFMAN_LOG", "info,openraft=warn,raft_log=warn"),
            ("RUST_BACKTRACE", "1"),
        ];
        let env = env
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        Self {
            name: name.to_owned(),
            nodes: 3,
            spares: 0,
            env,
            store: true,
            conditional_writes: ConditionalWrites::default(),
            tls: false,
            links: false,
            host: "127.0.0.1",
        }
    }

    /// This many nodes.
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// Machines beside the nodes of the birth, which nobody lists and that are not started with the others: they come
    /// when an operator says so.
    #[must_use]
    pub fn spares(mut self, spares: usize) -> Self {
        self.spares = spares;
        self
    }

    /// A setting for every node.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// No S3 server: the caller sets `CONFMAN_OBJECT_STORE_URL`, or leaves the default.
    #[must_use]
    pub fn without_store(mut self) -> Self {
        self.store = false;
        self
    }

    /// A store that takes conditional writes in that way.
    #[must_use]
    pub fn conditional_writes(mut self, how: ConditionalWrites) -> Self {
        self.conditional_writes = how;
        self
    }

    /// Everything over TLS: the API, the peers, and the store.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// The nodes are at `[::1]`; the store stays where it is.
    #[must_use]
    pub fn ipv6(mut self) -> Self {
        self.host = "[::1]";
        self
    }

    /// The nodes know each other by addresses from which a [`Link`] leads to their peer listeners, so that
    /// [`Cluster::delay`] can make the way long.
    #[must_use]
    pub fn links(mut self) -> Self {
        self.links = true;
        self
    }

    fn ports(&self) -> anyhow::Result<Vec<Ports>> {
        let one = |_| {
            let (api, peer) = (free_port()?, free_port()?);
            let way = if self.links { free_port()? } else { peer };
            Ok(Ports { api, peer, way })
        };
        (0..self.nodes + self.spares).map(one).collect()
    }

    fn at(&self, port: u16) -> String {
        format!("{}:{port}", self.host)
    }

    async fn store(&self, dir: &Path, certs: Option<&Certs>) -> anyhow::Result<Option<Store>> {
        let s3 = dir.join("s3");
        Ok(match (self.store, certs) {
            (true, None) => Some(Store::start_with(&s3, self.conditional_writes).await?),
            (true, Some(certs)) => {
                certs.issue("s3", Signer::Old, &["127.0.0.1"])?;
                Some(Store::start_tls(&s3, certs.server("s3")?, certs.client_ca()).await?)
            }
            (false, _) => None,
        })
    }

    /// Lays it out without starting a node.
    ///
    /// # Errors
    /// Directory, ports, store or keys cannot be had.
    pub async fn lay_out(self) -> anyhow::Result<Cluster> {
        let dir = tempfile::Builder::new()
            .prefix(&format!("confman-{}-", self.name))
            .tempdir()?;
        let keys = dir.path().join("api-keys.json");
        let key = create_key(&keys, "tester", "admin")?;
        let certs = match self.tls {
            true => Some(Certs::new(&dir.path().join("tls"))?),
            false => None,
        };
        let store = self.store(dir.path(), certs.as_ref()).await?;
        let ports = self.ports()?;
        let mut links = Vec::new();
        if self.links {
            for node in &ports {
                let (way, peer) = (self.at(node.way), self.at(node.peer));
                links.push(Link::lay(way.parse()?, peer.parse()?).await?);
            }
        }
        let listed: Vec<String> = (0..self.nodes)
            .map(|index| format!("node{}={}", index + 1, self.at(ports[index].way)))
            .collect();
        let mut nodes = Vec::new();
        for (index, ports) in ports.iter().enumerate() {
            let mut env = self.env_of(&dir, index, ports, &listed);
            env.insert(
                "CONFMAN_API_KEYS_FILE".to_owned(),
                keys.display().to_string(),
            );
            if let Some(store) = &store {
                env.extend(store.env());
            }
            let name = name(index);
            if let Some(certs) = &certs {
                certs.trust(&name, &[Signer::Old])?;
                certs.issue(&name, Signer::Old, &[self.host.trim_matches(['[', ']'])])?;
                env.extend(certs.env(&name));
            }
            env.extend(self.env.clone());
            let scheme = if self.tls { "https" } else { "http" };
            let api_url = format!("{scheme}://{}", self.at(ports.api));
            let log = dir.path().join(format!("{name}.log"));
            let data_dir = dir.path().join(&name);
            let peer_addr = self.at(ports.way);
            nodes.push(Node::new(name, api_url, peer_addr, data_dir, log, env));
        }
        let trusted = certs.as_ref().map(|certs| std::fs::read(certs.client_ca()));
        let trusted = trusted.transpose()?;
        let first = &nodes.first().context("no nodes")?.api_url;
        let api = Api::trusting(first, &key, trusted.as_deref())?;
        Ok(Cluster {
            name: self.name,
            nodes,
            key,
            api,
            store: Mutex::new(store),
            certs,
            links,
            dir: Some(dir),
            writes: AtomicU64::new(0),
            finished: false,
            born: self.nodes,
        })
    }

    /// What a node is told of itself and the others.
    fn env_of(
        &self,
        dir: &TempDir,
        index: usize,
        ports: &Ports,
        listed: &[String],
    ) -> BTreeMap<String, String> {
        let mut peers = listed.to_vec();
        if index >= self.nodes {
            // It looks for the members, and nobody looks for it.
            peers.push(format!("{}={}", name(index), self.at(ports.way)));
        }
        let data_dir = dir.path().join(name(index));
        [
            ("CONFMAN_NODE_NAME", name(index)),
            ("CONFMAN_DATA_DIR", data_dir.display().to_string()),
            ("CONFMAN_API_LISTEN", self.at(ports.api)),
            ("CONFMAN_PEER_LISTEN", self.at(ports.peer)),
            ("CONFMAN_PEERS", peers.join(",")),
            (
                "CONFMAN_CLUSTER_TOKEN",
                "token-of-the-test-cluster-0123456789".to_owned(),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Starts it and waits until every node is ready.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn start(self) -> anyhow::Result<Cluster> {
        let cluster = self.lay_out().await?;
        cluster.start_all()?;
        cluster.wait_all_ready().await?;
        Ok(cluster)
    }
}

fn name(index: usize) -> String {
    format!("node{}", index + 1)
}
