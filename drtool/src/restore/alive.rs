//! Whether a node answers where a member should be. Asked without a key: `/health/ready` needs none.

use std::time::Duration;

use clap::Args;
use confman_cli::failure::Failure;
use confman_client::wire::Readiness;
use confman_client::{Client, ClientConfig, ClientError, ClientTls, Endpoint};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use crate::context::Global;
use crate::endpoints;
use crate::not_ours::NotOurs;

const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// Where else to look, and what to make of it.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct AskArgs {
    /// Where else a node may live: URLs with commas between [default: CONFMAN_ENDPOINTS]
    #[arg(long, value_name = "URLS")]
    endpoints: Option<String>,
    #[command(flatten)]
    pub(super) not_ours: NotOurs,
}

impl AskArgs {
    /// Looks at these addresses and wherever else the operator knows of nodes, all at once.
    ///
    /// The newest snapshot knows the members of its own time: whoever joined or moved since is known to the operator alone.
    pub(super) async fn probe(
        &self,
        mut addresses: Vec<Address>,
        cluster_uuid: &str,
        global: &Global,
    ) -> Result<Vec<Probed>, Failure> {
        let (named, target) = endpoints::named(self.endpoints.as_deref(), None, global)?;
        for url in named {
            let plain = |url: &str| url.trim_end_matches('/').to_owned();
            if !addresses.iter().any(|a| plain(&a.api_url) == plain(&url)) {
                addresses.push(Address {
                    name: "endpoint".to_owned(),
                    api_url: url,
                    peer_addr: String::new(),
                });
            }
        }
        let looks = addresses
            .iter()
            .map(|address| probe_one(address, cluster_uuid, &target.tls, &self.not_ours));
        let looked = futures::future::join_all(looks);
        let doing = "the nodes are asked whether they live";
        Ok(global.during(doing, looked).await)
    }
}

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
    /// A node that has data of its cluster, whether its groups run or it still opens them.
    Alive,
    /// A node that says to be of another cluster: the address of a member was given to it.
    Foreign,
    /// A node that has no data, or serves none: it waits for a decision or has fenced itself.
    Waiting,
    /// Something that shakes no hands with this program, and may be a living node: no plan is made beside it.
    Unshaken,
    /// As that, and the operator says that it is no node of the cluster.
    NotOurs,
    /// Something that accepts connections and gives no answer: it may be a node that is paused.
    Mute,
    /// Nothing.
    Silent,
}

async fn probe_one(
    address: &Address,
    cluster_uuid: &str,
    tls: &ClientTls,
    not_ours: &NotOurs,
) -> Probed {
    let mut hint = None;
    let (found, detail) = match ask(&address.api_url, tls).await {
        Ok(readiness) => judge(&readiness, cluster_uuid),
        Err(error) => {
            let why = error.to_string().replace('\n', " ");
            if error.somebody_is_there() && not_ours.holds(&address.api_url) {
                (Found::NotOurs, why)
            } else if error.somebody_is_there() {
                hint = Some(NotOurs::hint(error.hint().as_deref(), &address.api_url));
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

/// What a node is to the cluster of this uuid. One that does not say of which it is may be of this one.
fn judge(readiness: &Readiness, cluster_uuid: &str) -> (Found, String) {
    let foreign = readiness.cluster_uuid.as_ref();
    let foreign = foreign.filter(|told| *told != cluster_uuid);
    match (&readiness.node, foreign) {
        (Some(node), Some(other)) => (Found::Foreign, format!("{} of cluster {other}", node.name)),
        (Some(node), None) => {
            let how = if readiness.ready {
                "ready"
            } else {
                "not ready"
            };
            let detail = format!("{} (node id {}) runs with data, {how}", node.name, node.id);
            (Found::Alive, detail)
        }
        (None, _) => {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_says_who_it_is_has_data_and_lives_ready_or_not() {
        let found = |text: &str| judge(&serde_json::from_str(text).unwrap(), "9364").0;
        let opening = r#"{"ready": false, "node": {"id": 2, "name": "node2"}, "reason": "it opens its groups", "groups": []}"#;
        assert_eq!(found(opening), Found::Alive);
        let waiting = r#"{"ready": false, "node": null, "reason": "fenced", "groups": []}"#;
        assert_eq!(found(waiting), Found::Waiting);
        let ours = r#"{"ready": true, "node": {"id": 2, "name": "node2"}, "clusterUuid": "9364", "groups": []}"#;
        assert_eq!(found(ours), Found::Alive);
        assert_eq!(found(&ours.replace("9364", "d0c2")), Found::Foreign);
    }
}
