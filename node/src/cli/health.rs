//! `confman health`: is this node alive, is it ready? Made for container health checks: exits with 0 or 1.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use confman_client::{Client, ClientConfig, Endpoint};
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
    let listen = std::env::var("CONFMAN_API_LISTEN").ok();
    let endpoint: Endpoint = match (&args.url, listen.as_deref().and_then(local_url)) {
        (Some(url), _) => url.parse()?,
        (None, Some(url))
            if args.connect.to.endpoints.is_none() && args.connect.to.dev.is_none() =>
        {
            url.parse()?
        }
        _ => {
            let target = args
                .connect
                .to
                .target(std::env::vars_os().collect(), Path::new("."))?;
            target
                .endpoints
                .into_iter()
                .next()
                .ok_or_else(|| Failure::usage("no endpoint is given"))?
        }
    };
    // Neither question needs a key, so none is sent.
    let client = Client::new(ClientConfig::new(vec![endpoint.clone()]))?;
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

/// Where a node that listens there is reached on its own machine.
fn local_url(listen: &str) -> Option<String> {
    let mut addr: SocketAddr = listen.trim().parse().ok()?;
    if addr.ip().is_unspecified() {
        addr.set_ip(if addr.is_ipv4() {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            IpAddr::V6(Ipv6Addr::LOCALHOST)
        });
    }
    Some(format!("http://{addr}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_listens_everywhere_is_asked_on_loopback() {
        assert_eq!(
            local_url("0.0.0.0:6100").as_deref(),
            Some("http://127.0.0.1:6100")
        );
        assert_eq!(local_url("[::]:6100").as_deref(), Some("http://[::1]:6100"));
        assert_eq!(
            local_url("10.0.0.7:6100").as_deref(),
            Some("http://10.0.0.7:6100")
        );
        assert_eq!(local_url("node1"), None);
    }
}
