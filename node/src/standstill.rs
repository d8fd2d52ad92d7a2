//! A node that serves nothing any more and stays up to say why: fenced by a newer life of its cluster, or stopped because its
//! state differs from the recorded one.
//!
//! It stays because a process that ended would be started again and again by whoever keeps it, and because `/health/ready` and
//! `/metrics` are where operators and alerts look. Both findings are durable before anybody hears of them: a restart ends here
//! again. What the node said of its groups is taken back, see [`account::withdraw`].

use std::sync::Arc;

use confman_snapshot::model::GroupId;
use confman_store::datadir::IdentityState;
use confman_store::{DataDir, DataPaths, Diverged, Identity, StoreError, diverged};

use crate::front::Front;
use crate::node::Node;
use crate::peer::desk::{Desk, Life, Stage};
use crate::{account, stop};

/// The groups of a node, `__meta/0` first.
pub(crate) fn group_ids(identity: &Identity) -> impl Iterator<Item = GroupId> {
    std::iter::once(GroupId::meta()).chain((0..identity.shards).map(GroupId::config))
}

/// The first of this node's groups whose state was found to differ.
pub(crate) fn finding(
    paths: &DataPaths,
    identity: &Identity,
) -> Result<Option<Diverged>, StoreError> {
    for id in group_ids(identity) {
        if let Some(finding) = diverged::standing(&paths.group(&id))? {
            return Ok(Some(finding));
        }
    }
    Ok(None)
}

/// A starting node has found that its state differed in an earlier run.
pub(crate) fn stay_diverged(desk: &Desk, front: &Front, finding: &Diverged) {
    if let Stage::Starting(life) = &*desk.stage() {
        desk.enter(Stage::Diverged(life.clone()));
    }
    front.diverged(&finding.group, &finding.to_string());
    tracing::error!(group = %finding.group, "this node serves nothing: {finding}");
}

/// A running node has found that its state differs.
pub(crate) async fn diverge(node: &Arc<Node>, desk: &Desk, front: &Front, finding: &Diverged) {
    desk.enter(Stage::Diverged(Life {
        cluster: node.cluster().clone(),
        lineage: node.identity().lineage.clone(),
        unborn: !node.has_begun(),
        node_id: node.id(),
    }));
    front.diverged(&finding.group, &finding.to_string());
    tracing::error!(group = %finding.group, "this node serves nothing any more: {finding}");
    close(node).await;
}

/// A running node has met a newer life of its cluster: written down first, so that no later start forgets it.
pub(crate) async fn fence(
    data: &DataDir,
    node: &Arc<Node>,
    desk: &Desk,
    front: &Front,
    reason: &str,
) -> Result<(), StoreError> {
    let reason = format!("{reason}\nhint: {}", confman_bootstrap::HINT_REJOIN);
    front.fenced(&reason);
    desk.enter(Stage::Fenced(node.cluster().clone()));
    let mut identity = node.identity().clone();
    identity.set_state(IdentityState::Fenced);
    identity.reason.clone_from(&reason);
    data.write_identity(&identity)?;
    tracing::error!(cluster = %node.cluster().uuid, incarnation = node.cluster().incarnation, "this node is fenced and serves nothing: {reason}");
    close(node).await;
    Ok(())
}

async fn close(node: &Arc<Node>) {
    stop::close(node).await;
    // After the last append has measured itself.
    account::withdraw(node);
}
