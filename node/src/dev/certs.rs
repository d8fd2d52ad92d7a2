//! The certificates of `confman dev --tls`: a throw-away authority and one certificate a node, made anew at each start.

use std::time::SystemTime;

use anyhow::Context as _;
use confman_client::{ClientFiles, ClientTls, NamedFile};
use confman_config::catalog;

use super::layout::Layout;
use super::plan::NodePlan;
use crate::cli::cert::{self, Bearer};

/// Makes and writes them, under the names that [`Layout`] knows.
///
/// # Errors
/// A file cannot be written.
pub(super) fn make(layout: &Layout, nodes: &[NodePlan]) -> anyhow::Result<()> {
    let bearer = |node: &NodePlan| Bearer {
        name: node.name.clone(),
        hosts: vec![
            node.name.clone(),
            "localhost".to_owned(),
            node.api.ip().to_string(),
        ],
    };
    let bearers: Vec<Bearer> = nodes.iter().map(bearer).collect();
    cert::make(&layout.tls(), "confman dev", &bearers).context("make certificates")
}

/// What a client of these nodes trusts.
///
/// # Errors
/// The authority's file is gone or damaged.
pub(super) fn client(layout: &Layout) -> anyhow::Result<ClientTls> {
    let files = ClientFiles {
        ca: Some(NamedFile::new(
            catalog::TLS_CLIENT_CA_FILE.name,
            layout.ca(),
        )),
        identity: None,
    };
    files.load(SystemTime::now()).map_err(anyhow::Error::new)
}
