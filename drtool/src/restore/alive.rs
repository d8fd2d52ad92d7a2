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
}

/// What may be at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Found {
    /// A node whose groups run.
    Alive,
    /// A node that has no data, or serves none: it waits for a decision or has fenced itself.
    Waiting,
    /// Something that accepts connections and gives no answer: it may be a node that is paused, or one whose TLS is not trusted
    /// here.
    Mute,
    /// Nothing.
    Silent,
}

/// Looks at all addresses at once.
pub(super) async fn probe(addresses: &[Address], tls: &ClientTls) -> Vec<Probed> {
    futures::future::join_all(addresses.iter().map(|address| probe_one(address, tls))).await
}

async fn probe_one(address: &Address, tls: &ClientTls) -> Probed {
    let (found, detail) = match ask(&address.api_url, tls).await {
        Ok(readiness) => judge(&readiness),
        Err(Unasked {
            why,
            is_there: true,
        }) => (Found::Mute, why),
        Err(Unasked { why, .. }) => match listens(&address.peer_addr).await {
            true => (
                Found::Mute,
                format!("something listens at {} and {why}", address.peer_addr),
            ),
            false => (Found::Silent, why),
        },
    };
    Probed {
        name: address.name.clone(),
        api_url: address.api_url.clone(),
        found,
        detail,
    }
}

/// Why nothing was learned.
struct Unasked {
    why: String,
    /// Something is there, and shakes no hands with this program.
    is_there: bool,
}

async fn ask(api_url: &str, tls: &ClientTls) -> Result<Readiness, Unasked> {
    let unasked = |error: ClientError| Unasked {
        why: error.to_string().replace('\n', " "),
        is_there: error.is_handshake(),
    };
    let endpoint: Endpoint = api_url.parse().map_err(unasked)?;
    let mut config = ClientConfig::new(vec![endpoint.clone()]);
    config.tls = tls.clone();
    let client = Client::new(config).map_err(unasked)?;
    client.readiness(&endpoint).await.map_err(unasked)
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
