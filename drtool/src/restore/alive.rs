//! Whether a node answers where a member should be. Asked without a key: `/health/ready` needs none.

use std::time::Duration;

use confman_client::wire::Readiness;
use confman_client::{Client, ClientConfig, ClientError, ClientTls, Endpoint};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// Where a node should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) name: String,
    pub(super) api_url: String,
    pub(super) peer_addr: String,
}

/// What was found at one address, in this program's view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Probed {
    /// The member that was looked for.
    pub(super) name: String,
    /// Where.
    pub(super) api_url: String,
    /// What was found.
    pub(super) found: Found,
    /// In words.
    pub(super) detail: String,
    /// What lets this program ask there.
    #[serde(skip)]
    pub(super) hint: Option<String>,
}

/// What may be at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Found {
    /// A node whose groups run.
    Alive,
    /// A node that has no data, or serves none: it waits for a decision or has fenced itself.
    Waiting,
    /// Something that shakes no hands with this program, and may be a living node: no plan is made beside it.
    Unshaken,
    /// Something that accepts connections and gives no answer: it may be a node that is paused.
    Mute,
    /// Nothing.
    Silent,
}

/// Looks at all addresses at once.
pub(super) async fn probe(addresses: &[Address], tls: &ClientTls) -> Vec<Probed> {
    futures::future::join_all(addresses.iter().map(|address| probe_one(address, tls))).await
}

async fn probe_one(address: &Address, tls: &ClientTls) -> Probed {
    let mut hint = None;
    let (found, detail) = match ask(&address.api_url, tls).await {
        Ok(readiness) => judge(&readiness),
        Err(error) => {
            let why = error.to_string().replace('\n', " ");
            if error.somebody_is_there() {
                hint = error.hint();
                (Found::Unshaken, why)
            } else if listens(&address.peer_addr).await {
                let detail = format!("something listens at {} and {why}", address.peer_addr);
                (Found::Mute, detail)
            } else {
                (Found::Silent, why)
            }
        }
    };
    Probed {
        name: address.name.clone(),
        api_url: address.api_url.clone(),
        found,
        detail,
        hint,
    }
}

async fn ask(api_url: &str, tls: &ClientTls) -> Result<Readiness, ClientError> {
    let endpoint: Endpoint = api_url.parse()?;
    let mut config = ClientConfig::new(vec![endpoint.clone()]);
    config.tls = tls.clone();
    Client::new(config)?.readiness(&endpoint).await
}

fn judge(readiness: &Readiness) -> (Found, String) {
    match &readiness.node {
        Some(node) => {
            let how = if readiness.ready {
                "ready"
            } else {
                "not ready"
            };
            let detail = format!("{} (node id {}) runs with data, {how}", node.name, node.id);
            (Found::Alive, detail)
        }
        None => {
            let why = readiness.reason.clone().unwrap_or_default();
            (Found::Waiting, format!("waits: {}", first_line(&why)))
        }
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

async fn listens(peer_addr: &str) -> bool {
    let connected = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(peer_addr)).await;
    matches!(connected, Ok(Ok(_)))
}
