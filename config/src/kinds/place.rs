//! Kinds of value that say where something is: sockets, hosts, URLs, peers, object stores.

use std::net::{IpAddr, SocketAddr};

use url::{Host, Url};

use super::{Kind, Parsed, is_name, numbered};
use crate::settings::Peer;

/// More peers than this form no sensible Raft group.
const PEERS_MAX: usize = 64;
/// More endpoints than this are no sensible list.
const ENDPOINTS_MAX: usize = 64;
/// A socket to listen on.
pub struct Listen;

impl Kind for Listen {
    type Value = SocketAddr;

    fn expected(&self) -> String {
        "an IP address and a port, such as `127.0.0.1:6100` or `[::]:6100`".to_owned()
    }

    fn parse(&self, text: &str) -> Parsed<SocketAddr> {
        let address: SocketAddr = text.parse().map_err(|_| None)?;
        if address.port() == 0 {
            return Err(Some("port 0 cannot be told to others".to_owned()));
        }
        Ok(address)
    }

    fn show(&self, value: &SocketAddr) -> String {
        value.to_string()
    }
}

/// `host:port` that others connect to.
pub struct HostPort;

/// Splits and checks `host:port`; the result is normalized (lower case, IPv6 in brackets).
fn host_port(text: &str) -> Parsed<String> {
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| Some("the port is missing".to_owned()))?;
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port: u16 = match port.parse() {
        Ok(port) if port > 0 && digits => port,
        _ => return Err(Some("the port is not a number from 1 to 65535".to_owned())),
    };
    let host = Host::parse(host).map_err(|error| Some(error.to_string()))?;
    reachable(&host)?;
    Ok(format!("{host}:{port}"))
}

/// Others cannot connect to `0.0.0.0` or `::`.
fn reachable<S: AsRef<str>>(host: &Host<S>) -> Parsed<()> {
    let address = match host {
        Host::Ipv4(address) => IpAddr::V4(*address),
        Host::Ipv6(address) => IpAddr::V6(*address),
        Host::Domain(domain) if domain.as_ref().is_empty() => {
            return Err(Some("the host is missing".to_owned()));
        }
        Host::Domain(_) => return Ok(()),
    };
    if address.is_unspecified() {
        return Err(Some(format!("nobody can connect to {address}")));
    }
    Ok(())
}

impl Kind for HostPort {
    type Value = String;

    fn expected(&self) -> String {
        "a host and a port, such as `node1.example:6101`".to_owned()
    }

    fn parse(&self, text: &str) -> Parsed<String> {
        host_port(text)
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }
}

/// The URL of a node's API: scheme, host and port only.
pub struct ApiUrl;

/// Checks a URL of a node; the result has no trailing slash.
fn api_url(text: &str) -> Parsed<String> {
    let url = Url::parse(text).map_err(|error| Some(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Some("the scheme is neither http nor https".to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Some("it carries a user name or a password".to_owned()));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(Some("it goes on after the port".to_owned()));
    }
    let Some(host) = url.host() else {
        return Err(Some("the host is missing".to_owned()));
    };
    reachable(&host)?;
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

impl Kind for ApiUrl {
    type Value = String;

    fn expected(&self) -> String {
        "a URL of scheme, host and port, such as `http://node1.example:6100`".to_owned()
    }

    fn parse(&self, text: &str) -> Parsed<String> {
        api_url(text)
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }
}

/// URLs with commas between.
pub struct Endpoints;

impl Kind for Endpoints {
    type Value = Vec<String>;

    fn expected(&self) -> String {
        "URLs with commas between, such as `http://127.0.0.1:6100,http://127.0.0.1:6200`".to_owned()
    }

    fn parse(&self, text: &str) -> Parsed<Vec<String>> {
        let mut urls: Vec<String> = Vec::new();
        for (at, part) in text.split(',').enumerate() {
            if at == ENDPOINTS_MAX {
                return Err(Some(format!("there are more than {ENDPOINTS_MAX}")));
            }
            let url = api_url(part.trim()).map_err(|why| numbered("URL", at, why))?;
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
        Ok(urls)
    }

    fn show(&self, value: &Vec<String>) -> String {
        value.join(",")
    }
}

/// The URL of a collector that takes OTLP over gRPC.
pub struct CollectorUrl;

impl Kind for CollectorUrl {
    type Value = String;

    fn expected(&self) -> String {
        "a URL of scheme `http`, host and port, such as `http://127.0.0.1:4317`".to_owned()
    }

    fn parse(&self, text: &str) -> Parsed<String> {
        let url = api_url(text)?;
        if url.starts_with("https:") {
            let why =
                "https is not spoken to a collector: let one beside the node take it from there";
            return Err(Some(why.to_owned()));
        }
        // A URL forgets the port that its scheme has anyway: what stands in the text counts.
        let rest = text.trim().trim_end_matches('/');
        let port = rest.rsplit_once(':').map_or("", |(_, port)| port);
        if port.is_empty() || !port.bytes().all(|digit| digit.is_ascii_digit()) {
            let why = "the port is missing: collectors listen on 4317 for OTLP over gRPC";
            return Err(Some(why.to_owned()));
        }
        Ok(url)
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }
}

/// The members that form the cluster.
pub struct Peers;

impl Kind for Peers {
    type Value = Vec<Peer>;

    fn expected(&self) -> String {
        "`name=host:port` with commas between, such as `node1=10.0.0.1:6101,node2=10.0.0.2:6101`"
            .to_owned()
    }

    fn parse(&self, text: &str) -> Parsed<Vec<Peer>> {
        let mut peers: Vec<Peer> = Vec::new();
        for (at, part) in text.split(',').enumerate() {
            if at == PEERS_MAX {
                return Err(Some(format!("there are more than {PEERS_MAX}")));
            }
            let (name, addr) = part
                .trim()
                .split_once('=')
                .ok_or_else(|| numbered("peer", at, Some("the `=` is missing".to_owned())))?;
            if !is_name(name) {
                return Err(numbered("peer", at, Some("the name is not one".to_owned())));
            }
            let addr = host_port(addr).map_err(|why| numbered("peer", at, why))?;
            if let Some(other) = peers
                .iter()
                .find(|peer| peer.name == name || peer.addr == addr)
            {
                let what = if other.name == name {
                    "name"
                } else {
                    "address"
                };
                let why = format!("it has the {what} of `{}`", other.name);
                return Err(numbered("peer", at, Some(why)));
            }
            peers.push(Peer {
                name: name.to_owned(),
                addr,
            });
        }
        Ok(peers)
    }

    fn show(&self, value: &Vec<Peer>) -> String {
        let parts: Vec<String> = value
            .iter()
            .map(|peer| format!("{}={}", peer.name, peer.addr))
            .collect();
        parts.join(",")
    }
}

/// Where objects are kept. `{data}` stands for the data directory and is replaced by the repository.
pub struct StoreUrl;

/// Stands for the data directory in a [`StoreUrl`].
const DATA_DIR_MARK: &str = "{data}";

impl Kind for StoreUrl {
    type Value = String;

    fn expected(&self) -> String {
        "`file:///path`, `file://{data}/path`, `s3://bucket/prefix`, `gs://bucket/prefix`, \
         `az://container/prefix` or `memory://name`"
            .to_owned()
    }

    fn parse(&self, text: &str) -> Parsed<String> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| Some("the scheme is missing".to_owned()))?;
        if !matches!(scheme, "file" | "s3" | "gs" | "az" | "memory") {
            return Err(Some("the scheme is not one of these".to_owned()));
        }
        let rest = match (scheme, rest.strip_prefix(DATA_DIR_MARK)) {
            ("file", Some(below)) => below,
            _ => rest,
        };
        if rest.contains(['{', '}']) {
            let why = "`{data}` stands only right after `file://`";
            return Err(Some(why.to_owned()));
        }
        if rest.contains('@') && scheme != "file" {
            return Err(Some("credentials do not belong in it".to_owned()));
        }
        if rest.contains(['?', '#', '\\', ' ']) {
            return Err(Some("it contains `?`, `#`, `\\` or a space".to_owned()));
        }
        if rest.split('/').any(|part| matches!(part, "." | "..")) {
            return Err(Some(
                "it contains `.` or `..` as a part of the path".to_owned(),
            ));
        }
        if scheme == "file" {
            let absolute = rest.starts_with('/') && rest.len() > 1;
            return if absolute {
                Ok(text.to_owned())
            } else {
                Err(Some("the path is not absolute".to_owned()))
            };
        }
        // A name is for those that have several stores in one process: tests.
        if scheme != "memory" && rest.split('/').next().is_none_or(str::is_empty) {
            return Err(Some("the bucket is missing".to_owned()));
        }
        let shown = match text.trim_end_matches('/') {
            "memory:" => "memory://",
            trimmed => trimmed,
        };
        Ok(shown.to_owned())
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }
}
