//! What this node knows the others to have promised, kept in its data directory across its own restarts ([`confman_store::promises`]).
//!
//! A node that is put back to an older copy of its directory is found out by those who remember ([`crate::alone`]). What is remembered in
//! memory alone is gone when every process has been restarted, as after a power cut, and the copy would be let in.
//!
//! Written while it changes, and at the end. What was promised since the last time is not in it: a copy that is that young is found by
//! those who still run, or not at all.

use std::sync::Arc;
use std::time::Duration;

use confman_store::promises::{self, Promises};
use confman_store::records::NodeState;
use confman_store::{DataPaths, Identity};
use tokio_util::sync::CancellationToken;

use crate::node::Node;
use crate::peer::acquaintance::Acquaintances;

/// Often enough that no backup of a directory is younger, and so seldom that its syncs delay no write that counts.
const KEEP_EVERY: Duration = Duration::from_secs(10);

/// What was kept in this life of the cluster comes to mind. A file that cannot be read is told of, and that is all: the node knows less.
pub(crate) fn recall(paths: &DataPaths, identity: &Identity, acquaintances: &Acquaintances) {
    match promises::read(paths) {
        Ok(None) => {}
        Ok(Some(kept)) if is_of(&kept, identity) => acquaintances.recall(&kept.nodes),
        Ok(Some(kept)) => tracing::debug!(
            incarnation = kept.incarnation,
            "what others promised was of another life"
        ),
        Err(error) => tracing::warn!(
            "what others have promised is not known any more, an older copy of a directory may not be found out: {error}"
        ),
    }
}

fn is_of(kept: &Promises, identity: &Identity) -> bool {
    (
        kept.cluster_uuid.as_str(),
        kept.incarnation,
        kept.lineage.as_str(),
    ) == (
        identity.cluster_uuid.as_str(),
        identity.incarnation,
        identity.lineage.as_str(),
    )
}

/// Writes it while it changes, and once more when cancelled.
pub(crate) async fn keep(node: Arc<Node>, stop: CancellationToken) {
    let mut written = Promises::default();
    loop {
        let ends = tokio::select! {
            () = stop.cancelled() => true,
            () = tokio::time::sleep(KEEP_EVERY) => false,
        };
        // Who has not seen the members yet would forget them all.
        let now = (!node.registered().is_empty()).then(|| known(&node));
        if let Some(now) = now.filter(|now| *now != written) {
            let (paths, write) = (node.paths().clone(), now.clone());
            let done = tokio::task::spawn_blocking(move || promises::write(&paths, &write)).await;
            match done {
                Ok(Ok(())) => written = now,
                Ok(Err(error)) => {
                    if let Some(kept_back) = node.may_tell(node.meta().id(), "promises") {
                        tracing::warn!(kept_back, "keep what others have promised: {error}");
                    }
                }
                Err(error) => tracing::debug!("keep what others have promised: {error}"),
            }
        }
        if ends {
            return;
        }
    }
}

/// What is known now of those who are not gone for good: their ids never come back.
fn known(node: &Node) -> Promises {
    let identity = node.identity();
    let mut nodes = node.meta().acquaintances().recollect();
    let registered = node.registered();
    nodes.retain(|known| {
        registered
            .iter()
            .any(|n| n.id == known.id && n.state() != NodeState::Retired)
    });
    Promises {
        cluster_uuid: identity.cluster_uuid.clone(),
        incarnation: identity.incarnation,
        lineage: identity.lineage.clone(),
        nodes,
    }
}
