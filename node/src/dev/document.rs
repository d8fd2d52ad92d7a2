//! `dev.json`: all that a script needs to know of a cluster that `confman dev` started.
//!
//! Written anew, whole, each time a process starts or ends. It holds the API key and the store's secret, so it is for
//! its owner only.

use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::fleet::NodeStatus;
use super::layout::write_private;
use super::plan::{NodePlan, StorePlan};

/// Writer of `dev.json`; it knows everything but the process ids.
#[derive(Debug, Clone)]
pub(super) struct Document {
    /// Where it is written.
    pub path: PathBuf,
    /// The admin key.
    pub api_key: String,
    /// The object store as the nodes see it.
    pub store: StorePlan,
    /// The authority of the nodes' certificates, when they speak TLS.
    pub ca: Option<PathBuf>,
    /// The nodes as planned.
    pub nodes: Vec<NodePlan>,
    /// Where the other terminal reaches this run.
    pub control_socket: PathBuf,
}

impl Document {
    /// Writes it with the present processes.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn write(&self, statuses: &[NodeStatus]) -> anyhow::Result<()> {
        let text =
            serde_json::to_string_pretty(&self.render(statuses)).context("encode dev.json")?;
        write_private(&self.path, &text)
    }

    fn render(&self, statuses: &[NodeStatus]) -> Value {
        let node = |plan: &NodePlan| {
            let status = statuses.iter().find(|status| status.name == plan.name);
            json!({
                "name": plan.name,
                "pid": status.and_then(|status| status.pid),
                "running": status.is_some_and(|status| status.state != "down"),
                "apiUrl": plan.api_url(),
                "peerAddr": plan.peer.to_string(),
                "dataDir": plan.data_dir,
                "env": plan.env,
            })
        };
        json!({
            "apiKey": self.api_key,
            "endpoints": self.nodes.iter().map(NodePlan::api_url).collect::<Vec<_>>(),
            "nodes": self.nodes.iter().map(node).collect::<Vec<_>>(),
            "tls": self.ca.as_ref().map(|ca| json!({ "caFile": ca })),
            "objectStore": { "url": self.store.url, "env": self.store.env },
            "controlSocket": self.control_socket,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::plan::{loopback, own_store};
    use super::*;

    #[test]
    fn it_has_the_names_that_scripts_rely_on() {
        let dir = tempfile::tempdir().unwrap();
        let env = BTreeMap::from([("CONFMAN_NODE_NAME".to_owned(), "node1".to_owned())]);
        let node = NodePlan {
            name: "node1".to_owned(),
            api: loopback(6100),
            peer: loopback(6101),
            data_dir: "/d/node1".into(),
            tls: false,
            env,
        };
        let document = Document {
            path: dir.path().join("dev.json"),
            api_key: "key".to_owned(),
            store: own_store(loopback(9000), "s"),
            ca: None,
            nodes: vec![node],
            control_socket: dir.path().join("dev.sock"),
        };
        let status = NodeStatus {
            name: "node1".to_owned(),
            state: "running".to_owned(),
            pid: Some(42),
            api_url: "http://127.0.0.1:6100".to_owned(),
        };
        document.write(&[status]).unwrap();
        let read: Value =
            serde_json::from_str(&std::fs::read_to_string(dir.path().join("dev.json")).unwrap())
                .unwrap();
        assert_eq!(read["apiKey"], "key");
        assert_eq!(read["endpoints"], json!(["http://127.0.0.1:6100"]));
        let node = &read["nodes"][0];
        assert_eq!(node["pid"], 42);
        assert_eq!(node["apiUrl"], "http://127.0.0.1:6100");
        assert_eq!(node["peerAddr"], "127.0.0.1:6101");
        assert_eq!(node["dataDir"], "/d/node1");
        assert_eq!(node["env"]["CONFMAN_NODE_NAME"], "node1");
        assert_eq!(read["objectStore"]["url"], "s3://confman/dev");
        assert_eq!(
            read["objectStore"]["env"]["AWS_ENDPOINT_URL"],
            "http://127.0.0.1:9000"
        );
    }
}
