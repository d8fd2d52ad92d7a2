//! The certificates of `confman dev --tls`: a throw-away authority and one certificate a node, made anew at each start.

use std::time::SystemTime;

use anyhow::Context as _;
use confman_client::{ClientFiles, ClientTls, NamedFile};
use confman_config::catalog;
use confman_tls::throwaway::{Authority, Order};

use super::layout::{Layout, write_private};
use super::plan::NodePlan;

/// Longer than anybody leaves a `confman dev` running. The authority's key is thrown away at once.
const DAYS: u32 = 365;

/// Makes and writes them.
///
/// # Errors
/// A file cannot be written.
pub(super) fn make(layout: &Layout, nodes: &[NodePlan]) -> anyhow::Result<()> {
    let now = SystemTime::now();
    let authority = Authority::new("confman dev", now, DAYS).context("make an authority")?;
    for node in nodes {
        let host = node.api.ip().to_string();
        let names = [node.name.as_str(), "localhost", host.as_str()];
        let issued = authority
            .issue(&Order::node(&names, now, DAYS))
            .with_context(|| format!("make a certificate for {}", node.name))?;
        write_private(&layout.cert(&node.name), &issued.cert)?;
        write_private(&layout.cert_key(&node.name), &issued.key)?;
    }
    write_private(&layout.ca(), &authority.pem())
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
