//! `confman health`: is this node alive, is it ready? Made for container health checks: exits with 0 or 1.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use confman_client::{Client, ClientConfig, ClientFiles, ClientTls, NamedFile};
use confman_config::catalog;
use serde_json::json;

use super::connect::{ConnectArgs, OutputArgs};
use super::escape;
use super::failure::Failure;
use super::output;

/// Say whether one node is alive (exit code 0) or not (1)
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// The node's URL [default: from CONFMAN_API_LISTEN, else the first endpoint]
    #[arg(value_name = "URL")]
    url: Option<String>,
    /// Ask whether it is ready to serve: every group has a leader and is up to date
    #[arg(long)]
    ready: bool,
    #[command(flatten)]
    out: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(crate) async fn run(args: HealthArgs) -> Result<ExitCode, Failure> {
    let config = config(&args)?;
    let endpoint = config
        .endpoints
        .first()
        .cloned()
        .ok_or_else(|| Failure::usage("no endpoint is given"))?;
    let client = Client::new(config)?;
    let (well, reasons) = if args.ready {
        match client.readiness(&endpoint).await {
            Ok(readiness) => {
                let groups = readiness.groups.iter().filter(|group| !group.ready);
                let of_groups = groups.map(|g| {
                    format!(
                        "{}: {}",
                        g.group,
                        g.reason.as_deref().unwrap_or("not ready")
                    )
                });
                (
                    readiness.ready,
                    readiness
                        .reason
                        .iter()
                        .cloned()
                        .chain(of_groups)
                        .collect::<Vec<_>>(),
                )
            }
            Err(error) => (false, vec![error.to_string()]),
        }
    } else {
        match client.health(&endpoint).await {
            Ok(()) => (true, Vec::new()),
            Err(error) => (false, vec![error.to_string()]),
        }
    };
    if args.out.json {
        output::json(&json!({"ok": well, "endpoint": endpoint.to_string(), "reasons": reasons}))?;
    } else {
        let word = match (well, args.ready) {
            (true, true) => "ready",
            (true, false) => "alive",
            (false, true) => "not ready",
            (false, false) => "not alive",
        };
        output::line(&format!("{endpoint} is {word}"))?;
        for reason in &reasons {
            eprintln!("{}", escape::text(reason));
        }
    }
    Ok(if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// Whom to ask, and how. Neither question needs a key, so none is sent.
fn config(args: &HealthArgs) -> Result<ClientConfig, Failure> {
    let env = || std::env::vars_os().collect();
    let to = &args.connect.to;
    let target = to.target(env(), Path::new("."))?;
    if let Some(url) = &args.url {
        let mut config = ClientConfig::new(vec![url.parse()?]);
        config.tls = target.tls;
        return Ok(config);
    }
    let listen = std::env::var("CONFMAN_API_LISTEN").ok();
    let listen = listen.as_deref().and_then(local_addr);
    match listen.filter(|_| to.endpoints.is_none() && to.dev.is_none()) {
        Some(addr) => own(addr, target.tls),
        None => {
            let mut config = ClientConfig::new(target.endpoints);
            config.tls = target.tls;
            Ok(config)
        }
    }
}

/// The node of this very environment. One that speaks TLS is asked at home and by the name that its certificate bears.
fn own(addr: SocketAddr, tls: ClientTls) -> Result<ClientConfig, Failure> {
    let given = |setting: &'static str| {
        let path = std::env::var_os(setting).filter(|path| !path.is_empty());
        path.map(|path| NamedFile::new(setting, path))
    };
    let Some(cert) = given(catalog::TLS_CERT_FILE.name) else {
        return Ok(ClientConfig::new(vec![format!("http://{addr}").parse()?]));
    };
    let text = |name: &str| std::env::var(name).unwrap_or_default();
    let peer = own_peer_address(
        &text(catalog::PEER_ADVERTISE.name),
        &text(catalog::PEERS.name),
        &text(catalog::NODE_NAME.name),
    );
    let (url, resolve) = at_home(addr, &text(catalog::API_ADVERTISE.name), &peer);
    let mut config = ClientConfig::new(vec![url.parse()?]);
    config.resolve = resolve;
    // A client's own settings come first; without them the node's will do, which trusts and shows the same.
    let client = [
        catalog::TLS_CLIENT_CA_FILE.name,
        catalog::TLS_CLIENT_CERT_FILE.name,
    ];
    config.tls = if client.into_iter().any(|name| given(name).is_some()) {
        tls
    } else {
        let files = ClientFiles {
            ca: given(catalog::TLS_CA_FILE.name),
            identity: given(catalog::TLS_KEY_FILE.name).map(|key| (cert, key)),
        };
        files
            .load(SystemTime::now())
            .map_err(|errors| Failure::usage(errors.on_one_line()))?
    };
    Ok(config)
}

/// The URL of a node that speaks https and listens there, by a host that its certificate bears, and where that host is for this once: what
/// it advertises may be an address that only others reach, such as one that a container publishes, or a load balancer's. An IP address
/// cannot be told to be elsewhere, so then it is the host by which peers know the node, and if that is none either, it is where it is.
fn at_home(
    addr: SocketAddr,
    advertised: &str,
    peer: &str,
) -> (String, Option<(String, SocketAddr)>) {
    for host in [host(advertised), host(peer)] {
        let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        if !host.is_empty() && !is_address {
            let at = format!("https://{host}:{}", addr.port());
            return (at, Some((host.to_owned(), addr)));
        }
    }
    match advertised.trim() {
        "" => (format!("https://{addr}"), None),
        url => (url.to_owned(), None),
    }
}

/// The host of a URL or of a `host:port`.
fn host(place: &str) -> &str {
    let place = place.trim();
    let rest = place.split_once("://").map_or(place, |(_, rest)| rest);
    let rest = rest.trim_end_matches('/');
    match rest.rsplit_once(':') {
        // The colons of an IPv6 address are in brackets.
        Some((host, port)) if !port.ends_with(']') => host,
        _ => rest,
    }
}

/// How peers know this node, as far as its environment says.
fn own_peer_address(advertised: &str, peers: &str, name: &str) -> String {
    if !advertised.trim().is_empty() {
        return advertised.to_owned();
    }
    let mut all = peers.split(',').filter_map(|peer| peer.split_once('='));
    let own = all.find(|(known, _)| known.trim() == name.trim());
    own.map_or_else(String::new, |(_, address)| address.to_owned())
}

/// Where a node that listens there is reached on its own machine.
fn local_addr(listen: &str) -> Option<SocketAddr> {
    let mut addr: SocketAddr = listen.trim().parse().ok()?;
    if addr.ip().is_unspecified() {
        addr.set_ip(if addr.is_ipv4() {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            IpAddr::V6(Ipv6Addr::LOCALHOST)
        });
    }
    Some(addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_listens_everywhere_is_asked_on_loopback() {
        let local = |listen| local_addr(listen).map(|addr| addr.to_string());
        assert_eq!(local("0.0.0.0:6100").as_deref(), Some("127.0.0.1:6100"));
        assert_eq!(local("[::]:6100").as_deref(), Some("[::1]:6100"));
        assert_eq!(local("10.0.0.7:6100").as_deref(), Some("10.0.0.7:6100"));
        assert_eq!(local("node1"), None);
    }

    #[test]
    fn a_node_that_speaks_tls_is_asked_at_home_by_the_host_of_its_certificate() {
        let addr: SocketAddr = "127.0.0.1:6100".parse().unwrap();
        let home = |advertised: &str, peer: &str| {
            let (url, resolve) = at_home(addr, advertised, peer);
            (url, resolve.map(|(host, at)| format!("{host} {at}")))
        };
        let named = |host: &str| {
            let resolve = Some(format!("{host} 127.0.0.1:6100"));
            (format!("https://{host}:6100"), resolve)
        };
        let peer = "node1:6101";
        assert_eq!(home("https://localhost:6100", peer), named("localhost"));
        // Published under another port, and behind something that listens on https's own.
        assert_eq!(
            home("https://node1.example:16100", peer),
            named("node1.example")
        );
        assert_eq!(home("https://node1.example/", peer), named("node1.example"));
        // An address that may be another machine's, or none that can be reached from here.
        for there in [
            "https://10.0.0.1:6100",
            "https://[::1]:6100",
            "https://[::1]",
        ] {
            assert_eq!(home(there, peer), named("node1"));
            assert_eq!(home(there, "10.0.0.1:6101"), (there.to_owned(), None));
            assert_eq!(home(there, ""), (there.to_owned(), None));
        }
        assert_eq!(home("", peer), named("node1"));
        assert_eq!(home("", ""), ("https://127.0.0.1:6100".to_owned(), None));
    }

    #[test]
    fn a_node_finds_itself_among_the_peers() {
        let peers = "node1=a:6101, node2=b:6201";
        assert_eq!(own_peer_address("", peers, "node2"), "b:6201");
        assert_eq!(own_peer_address(" c:6301", peers, "node2"), " c:6301");
        assert_eq!(own_peer_address("", peers, "node3"), "");
        assert_eq!(own_peer_address("", "", ""), "");
    }
}
