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
    let advertised = std::env::var(catalog::API_ADVERTISE.name).ok();
    let url = advertised.unwrap_or_else(|| format!("https://{addr}"));
    let mut config = ClientConfig::new(vec![url.parse()?]);
    let host = url.trim_start_matches("https://").rsplit_once(':');
    if let Some((host, _)) = host.filter(|(host, _)| host.parse::<IpAddr>().is_err()) {
        config.resolve = Some((host.to_owned(), addr));
    }
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
}
