//! What a cluster of `confman dev` is: its nodes, their ports, and the environment that each is started with.
//!
//! Everything here is a plain function of what was asked, what the directory remembers and what the user's
//! environment says; no process is started and no file is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use anyhow::{Context as _, bail};

use super::StartArgs;
use super::layout::{Birth, Found, Layout};

/// Distance between the ports of two nodes.
const PORT_STEP: u16 = 100;
const PORT_BASE: u16 = 6100;
const NODES: u16 = 3;
const SHARDS: u32 = 1;

/// Where `--port-base 0` looks for free ports.
const FREE_PORT_FIRST: u16 = 10_000;
const FREE_PORTS: u16 = 22_000;
const TRIES_MAX: usize = 100;

/// Bucket of the built-in S3 server.
pub(super) const S3_BUCKET: &str = "confman";
/// Access key of the built-in S3 server; the secret is made at birth.
pub(super) const S3_ACCESS_KEY: &str = "confman-dev";

/// The variables that `confman dev` decides itself for each node.
const OWN: [&str; 21] = [
    "CONFMAN_NODE_NAME",
    "CONFMAN_DATA_DIR",
    "CONFMAN_API_LISTEN",
    "CONFMAN_API_ADVERTISE",
    "CONFMAN_PEER_LISTEN",
    "CONFMAN_PEER_ADVERTISE",
    "CONFMAN_PEERS",
    "CONFMAN_API_KEYS_FILE",
    "CONFMAN_CLUSTER_TOKEN",
    "CONFMAN_CLUSTER_TOKEN_FILE",
    "CONFMAN_SHARDS",
    "CONFMAN_OBJECT_STORE_URL",
    "CONFMAN_TLS_CERT_FILE",
    "CONFMAN_TLS_KEY_FILE",
    "CONFMAN_TLS_CA_FILE",
    "CONFMAN_TLS_API_CLIENT_CERTS",
    // What a client reads; of no use to a node, and often set in the shell that starts this.
    "CONFMAN_ENDPOINTS",
    "CONFMAN_API_KEY",
    "CONFMAN_TLS_CLIENT_CA_FILE",
    "CONFMAN_TLS_CLIENT_CERT_FILE",
    "CONFMAN_TLS_CLIENT_KEY_FILE",
];
/// What belongs to the store, the built-in one or the user's.
const STORE_PREFIXES: [&str; 4] = ["AWS_", "GOOGLE_", "AZURE_", "CONFMAN_TLS_STORE_"];

/// One node as planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodePlan {
    /// `node1`, `node2`, ...
    pub name: String,
    /// Where it serves the API.
    pub api: SocketAddr,
    /// Where it serves its peers.
    pub peer: SocketAddr,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// All that `confman serve` needs to be this node.
    pub env: BTreeMap<String, String>,
}

impl NodePlan {
    /// The API as a URL.
    pub(super) fn api_url(&self) -> String {
        url_of(self.api, self.tls)
    }
}

fn url_of(api: SocketAddr, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{api}")
}

/// The object store as the nodes see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StorePlan {
    /// What `CONFMAN_OBJECT_STORE_URL` says.
    pub url: String,
    /// Endpoint and credentials.
    pub env: BTreeMap<String, String>,
}

/// The ports, shards and store of the cluster: as remembered, else as asked, else the defaults.
///
/// # Errors
/// When what is asked contradicts what the directory remembers, or the ports do not fit.
pub(super) fn birth(
    found: &Found,
    asked: &StartArgs,
    secret: impl FnOnce() -> String,
    free_port: impl FnMut() -> anyhow::Result<u16>,
) -> anyhow::Result<Birth> {
    match found {
        Found::Cluster(birth) => {
            agrees(
                "--nodes",
                asked.nodes.map(usize::from),
                birth.api_ports.len(),
            )?;
            agrees("--shards", asked.shards, birth.shards)?;
            if let Some(base) = asked.port_base.filter(|base| *base != 0) {
                agrees(
                    "--port-base",
                    Some(base),
                    birth.api_ports.first().copied().unwrap_or_default(),
                )?;
            }
            if asked.object_store.is_some() && asked.object_store != birth.object_store {
                let remembered = birth
                    .object_store
                    .as_deref()
                    .unwrap_or("the built-in S3 server");
                bail!(
                    "--object-store differs from the cluster in this directory, which uses {remembered}\nhint: leave it out, or start over with --fresh, or choose another --dir"
                );
            }
            // The nodes are all started anew, so from now on they can; they cannot forget it again.
            Ok(Birth {
                tls: birth.tls || asked.tls,
                ..birth.clone()
            })
        }
        Found::Nothing => {
            let nodes = asked.nodes.unwrap_or(NODES);
            let (api_ports, peer_ports) =
                ports(nodes, asked.port_base.unwrap_or(PORT_BASE), free_port)?;
            let shards = asked.shards.unwrap_or(SHARDS);
            let object_store = asked.object_store.clone();
            let birth = Birth::new(api_ports, peer_ports, shards, object_store, secret());
            Ok(Birth {
                tls: asked.tls,
                ..birth
            })
        }
    }
}

fn agrees<T: PartialEq + std::fmt::Display>(
    name: &str,
    asked: Option<T>,
    remembered: T,
) -> anyhow::Result<()> {
    match asked {
        Some(asked) if asked != remembered => bail!(
            "{name} {asked} differs from the cluster in this directory, which has {remembered}\nhint: leave {name} out, or start over with --fresh, or choose another --dir"
        ),
        _ => Ok(()),
    }
}

fn ports(
    nodes: u16,
    base: u16,
    mut free_port: impl FnMut() -> anyhow::Result<u16>,
) -> anyhow::Result<(Vec<u16>, Vec<u16>)> {
    let mut api = Vec::new();
    let mut peer = Vec::new();
    let mut chosen = BTreeSet::new();
    // A port that is free may be found twice: nobody listens on it yet.
    let mut another = || {
        for _ in 0..TRIES_MAX {
            let port = free_port()?;
            if chosen.insert(port) {
                return Ok(port);
            }
        }
        bail!("the same port is found free again and again")
    };
    for node in 0..nodes {
        if base == 0 {
            api.push(another()?);
            peer.push(another()?);
        } else {
            let port = base
                .checked_add(node * PORT_STEP)
                .filter(|port| *port < u16::MAX)
                .with_context(|| format!("--port-base {base} leaves no ports for {nodes} nodes"))?;
            api.push(port);
            peer.push(port + 1);
        }
    }
    Ok((api, peer))
}

fn name(index: usize) -> String {
    format!("node{}", index + 1)
}

/// The nodes of a cluster, with their environments.
pub(super) fn nodes(
    layout: &Layout,
    birth: &Birth,
    store: &StorePlan,
    user_env: &BTreeMap<String, String>,
) -> Vec<NodePlan> {
    let count = birth.api_ports.len();
    let peer = |index: usize| loopback(birth.peer_ports[index]);
    let peers: Vec<String> = (0..count)
        .map(|index| format!("{}={}", name(index), peer(index)))
        .collect();
    let plan = |index: usize| {
        let (node, api, peer) = (name(index), loopback(birth.api_ports[index]), peer(index));
        let data_dir = layout.data(&node);
        let mut env: BTreeMap<String, String> = user_env
            .iter()
            .filter(|(name, _)| name.starts_with("CONFMAN_") && !is_store_variable(name))
            .filter(|(name, _)| !OWN.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        env.extend(store.env.clone());
        env.extend(
            [
                ("CONFMAN_NODE_NAME", node.clone()),
                ("CONFMAN_DATA_DIR", data_dir.display().to_string()),
                ("CONFMAN_API_LISTEN", api.to_string()),
                ("CONFMAN_API_ADVERTISE", url_of(api, birth.tls)),
                ("CONFMAN_PEER_LISTEN", peer.to_string()),
                ("CONFMAN_PEER_ADVERTISE", peer.to_string()),
                ("CONFMAN_PEERS", peers.join(",")),
                (
                    "CONFMAN_API_KEYS_FILE",
                    layout.api_keys().display().to_string(),
                ),
                (
                    "CONFMAN_CLUSTER_TOKEN_FILE",
                    layout.cluster_token().display().to_string(),
                ),
                ("CONFMAN_SHARDS", birth.shards.to_string()),
                ("CONFMAN_OBJECT_STORE_URL", store.url.clone()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        if birth.tls {
            let file = |path: PathBuf| path.display().to_string();
            env.extend(
                [
                    ("CONFMAN_TLS_CERT_FILE", file(layout.cert(&node))),
                    ("CONFMAN_TLS_KEY_FILE", file(layout.cert_key(&node))),
                    ("CONFMAN_TLS_CA_FILE", file(layout.ca())),
                    // For `confman health` and the like with this very environment.
                    ("CONFMAN_TLS_CLIENT_CA_FILE", file(layout.ca())),
                ]
                .map(|(name, value)| (name.to_owned(), value)),
            );
        }
        NodePlan {
            name: node,
            api,
            peer,
            data_dir,
            tls: birth.tls,
            env,
        }
    };
    (0..count).map(plan).collect()
}

/// The built-in S3 server as the nodes see it.
pub(super) fn own_store(endpoint: SocketAddr, secret_key: &str) -> StorePlan {
    let env = [
        ("AWS_ENDPOINT_URL", format!("http://{endpoint}")),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", S3_ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", secret_key.to_owned()),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
    ];
    StorePlan {
        url: format!("s3://{S3_BUCKET}/dev"),
        env: env
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    }
}

/// The user's own store, with what the environment says about it.
pub(super) fn user_store(url: &str, user_env: &BTreeMap<String, String>) -> StorePlan {
    let env = user_env.iter().filter(|(name, _)| is_store_variable(name));
    StorePlan {
        url: url.to_owned(),
        env: env
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    }
}

/// Whether a child must not inherit this variable: it is planned, or it would reach past the plan.
pub(super) fn is_planned_variable(name: &str) -> bool {
    name.starts_with("CONFMAN_") || is_store_variable(name)
}

fn is_store_variable(name: &str) -> bool {
    STORE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The variables of a process that are text; others cannot be settings.
pub(super) fn text_env(
    env: impl Iterator<Item = (OsString, OsString)>,
) -> BTreeMap<String, String> {
    env.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Proves that every port of the cluster can be had.
///
/// # Errors
/// Names the first port that is taken, what wanted it, and what to do.
pub(super) fn check_ports(birth: &Birth) -> anyhow::Result<()> {
    for (index, ports) in birth.api_ports.iter().zip(&birth.peer_ports).enumerate() {
        for (port, what) in [(*ports.0, "API"), (*ports.1, "peer")] {
            if let Err(error) = TcpListener::bind(loopback(port)) {
                bail!(
                    "port {port} is not free ({error}); it is the {what} port of {}\nhint: stop what uses it, or choose other ports with --port-base N (0: any free ones)",
                    name(index)
                );
            }
        }
    }
    Ok(())
}

/// A loopback port that is free, below those that the system gives to outgoing connections: while a node is down,
/// nobody else can happen to get its port.
pub(super) fn free_port() -> anyhow::Result<u16> {
    let [low, high, ..] = *uuid::Uuid::new_v4().as_bytes();
    let start = u16::from_le_bytes([low, high]) % FREE_PORTS;
    let mut ports = (0..FREE_PORTS).map(|step| FREE_PORT_FIRST + (start + step) % FREE_PORTS);
    ports
        .find(|port| TcpListener::bind(loopback(*port)).is_ok())
        .context("no port is free")
}

/// An address on this machine only.
pub(super) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn asked() -> StartArgs {
        StartArgs {
            nodes: None,
            shards: None,
            object_store: None,
            port_base: None,
            tls: false,
            fresh: false,
        }
    }

    fn born(asked: &StartArgs) -> Birth {
        birth(&Found::Nothing, asked, || "s".to_owned(), free_port).unwrap()
    }

    #[test]
    fn the_default_cluster_has_the_documented_ports() {
        let birth = born(&asked());
        assert_eq!(birth.api_ports, [6100, 6200, 6300]);
        assert_eq!(birth.peer_ports, [6101, 6201, 6301]);
        assert_eq!(birth.shards, 1);
    }

    #[test]
    fn port_base_shifts_and_zero_asks_for_free_ones() {
        let shifted = born(&StartArgs {
            nodes: Some(5),
            port_base: Some(7000),
            ..asked()
        });
        assert_eq!(shifted.api_ports, [7000, 7100, 7200, 7300, 7400]);
        let mut next = 4000;
        let free = birth(
            &Found::Nothing,
            &StartArgs {
                port_base: Some(0),
                ..asked()
            },
            String::new,
            || {
                next += 1;
                Ok(next)
            },
        )
        .unwrap();
        assert_eq!(
            (free.api_ports, free.peer_ports),
            (vec![4001, 4003, 4005], vec![4002, 4004, 4006])
        );
        let error = birth(
            &Found::Nothing,
            &StartArgs {
                port_base: Some(65400),
                ..asked()
            },
            String::new,
            free_port,
        );
        assert!(error.unwrap_err().to_string().contains("leaves no ports"));
    }

    #[test]
    fn a_second_run_finds_what_the_first_one_chose() {
        let first = born(&StartArgs {
            nodes: Some(5),
            shards: Some(4),
            port_base: Some(0),
            ..asked()
        });
        let found = Found::Cluster(first.clone());
        let second = birth(&found, &asked(), || unreachable!(), || unreachable!()).unwrap();
        assert_eq!(first, second);
    }

    #[test]
    fn a_second_run_that_asks_for_something_else_is_refused_with_a_hint() {
        let found = Found::Cluster(born(&asked()));
        for (other, name) in [
            (
                StartArgs {
                    nodes: Some(5),
                    ..asked()
                },
                "--nodes 5",
            ),
            (
                StartArgs {
                    shards: Some(2),
                    ..asked()
                },
                "--shards 2",
            ),
            (
                StartArgs {
                    port_base: Some(7000),
                    ..asked()
                },
                "--port-base 7000",
            ),
            (
                StartArgs {
                    object_store: Some("s3://b/p".to_owned()),
                    ..asked()
                },
                "--object-store",
            ),
        ] {
            let error = birth(&found, &other, String::new, free_port)
                .unwrap_err()
                .to_string();
            assert!(error.contains(name) && error.contains("--fresh"), "{error}");
        }
    }

    #[test]
    fn each_node_gets_all_it_needs_and_the_users_own_settings() {
        let layout = Layout::new(Path::new("/tmp/x")).unwrap();
        let user = BTreeMap::from([
            (
                "CONFMAN_SNAPSHOT_LOG_THRESHOLD".to_owned(),
                "500".to_owned(),
            ),
            (
                "CONFMAN_API_KEY".to_owned(),
                "secret-of-another-cluster".to_owned(),
            ),
            ("AWS_PROFILE".to_owned(), "production".to_owned()),
            ("HOME".to_owned(), "/root".to_owned()),
        ]);
        let store = own_store(loopback(9000), "s");
        let nodes = nodes(&layout, &born(&asked()), &store, &user);
        let env = &nodes[1].env;
        assert_eq!(env["CONFMAN_NODE_NAME"], "node2");
        assert_eq!(env["CONFMAN_API_ADVERTISE"], "http://127.0.0.1:6200");
        assert_eq!(
            env["CONFMAN_PEERS"],
            "node1=127.0.0.1:6101,node2=127.0.0.1:6201,node3=127.0.0.1:6301"
        );
        assert_eq!(env["CONFMAN_SNAPSHOT_LOG_THRESHOLD"], "500");
        assert_eq!(env["AWS_ENDPOINT_URL"], "http://127.0.0.1:9000");
        for absent in [
            "CONFMAN_API_KEY",
            "AWS_PROFILE",
            "HOME",
            "CONFMAN_CLUSTER_TOKEN",
        ] {
            assert!(!env.contains_key(absent), "{absent}");
        }
    }

    #[test]
    fn a_cluster_that_speaks_tls_stays_one() {
        let layout = Layout::new(Path::new("/tmp/x")).unwrap();
        let birth = born(&StartArgs {
            tls: true,
            ..asked()
        });
        let again = super::birth(
            &Found::Cluster(birth),
            &asked(),
            || unreachable!(),
            || unreachable!(),
        );
        let store = own_store(loopback(9000), "s");
        let nodes = nodes(&layout, &again.unwrap(), &store, &BTreeMap::new());
        assert_eq!(nodes[0].api_url(), "https://127.0.0.1:6100");
        assert_eq!(nodes[0].env["CONFMAN_API_ADVERTISE"], nodes[0].api_url());
        assert!(nodes[1].env["CONFMAN_TLS_KEY_FILE"].ends_with("tls/node2-key.pem"));
        assert!(!nodes[1].env.contains_key("CONFMAN_TLS_API_CLIENT_CERTS"));
    }

    #[test]
    fn a_store_of_the_users_takes_its_credentials_from_the_environment() {
        let user = BTreeMap::from([
            ("AWS_ACCESS_KEY_ID".to_owned(), "id".to_owned()),
            ("PATH".to_owned(), "/bin".to_owned()),
        ]);
        let store = user_store("s3://prod/confman", &user);
        assert_eq!(store.env.keys().collect::<Vec<_>>(), ["AWS_ACCESS_KEY_ID"]);

        // What it is shown is meant for it, and not for the built-in one.
        let name = "CONFMAN_TLS_STORE_CA_FILE".to_owned();
        let user = BTreeMap::from([(name.clone(), "/ca.pem".to_owned())]);
        let store = user_store("s3://prod/confman", &user);
        assert_eq!(store.env[&name], "/ca.pem");
        let layout = Layout::new(Path::new("/tmp/x")).unwrap();
        let own = own_store(loopback(9000), "s");
        for (store, there) in [(own, false), (store, true)] {
            let nodes = nodes(&layout, &born(&asked()), &store, &user);
            assert_eq!(nodes[0].env.contains_key(&name), there);
        }
    }

    #[test]
    fn a_taken_port_is_named_with_what_wanted_it() {
        let taken = TcpListener::bind(loopback(0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let mut birth = born(&asked());
        birth.peer_ports[2] = port;
        birth.api_ports = vec![
            free_port().unwrap(),
            free_port().unwrap(),
            free_port().unwrap(),
        ];
        birth.peer_ports[0] = free_port().unwrap();
        birth.peer_ports[1] = free_port().unwrap();
        let error = check_ports(&birth).unwrap_err().to_string();
        assert!(
            error.contains(&format!("port {port} ")) && error.contains("peer port of node3"),
            "{error}"
        );
        assert!(error.contains("--port-base"), "{error}");
    }
}
