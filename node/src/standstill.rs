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

/// A node that stands still because its state differs does so until it is asked to stop; gives why. A newer life of its cluster fences it
/// meanwhile, as it fences every node that acknowledges nothing: until it has, that life takes it for one that may yet go on.
pub(crate) async fn stay(
    data: &DataDir,
    identity: &Identity,
    desk: &Desk,
    front: &Front,
    stop: impl Future<Output = &'static str>,
) -> Result<&'static str, StoreError> {
    tokio::pin!(stop);
    let incarnation = tokio::select! {
        why = &mut stop => return Ok(why),
        incarnation = desk.newer() => incarnation,
    };
    let reason = format!(
        "a node of incarnation {incarnation} of this cluster has spoken, this node is of {} and its state differs from the recorded one",
        identity.incarnation
    );
    seal(data, identity, desk, front, &reason)?;
    Ok(stop.await)
}

/// A running node has found that its state differs.
pub(crate) async fn diverge(node: &Arc<Node>, desk: &Desk, front: &Front, finding: &Diverged) {
    desk.enter(Stage::Diverged(Life::of(
        node.identity(),
        !node.has_begun(),
    )));
    front.diverged(&finding.group, &finding.to_string());
    tracing::error!(group = %finding.group, "this node serves nothing any more: {finding}");
    close(node).await;
}

/// A running node has met a newer life of its cluster.
pub(crate) async fn fence(
    data: &DataDir,
    node: &Arc<Node>,
    desk: &Desk,
    front: &Front,
    reason: &str,
) -> Result<(), StoreError> {
    seal(data, node.identity(), desk, front, reason)?;
    close(node).await;
    Ok(())
}

/// Nothing is answered any more, and that is written down, so that no later start forgets it.
fn seal(
    data: &DataDir,
    identity: &Identity,
    desk: &Desk,
    front: &Front,
    reason: &str,
) -> Result<(), StoreError> {
    let reason = format!("{reason}\nhint: {}", confman_bootstrap::HINT_REJOIN);
    front.fenced(&reason);
    let life = Life::of(identity, false);
    let mut identity = identity.clone();
    identity.set_state(IdentityState::Fenced);
    identity.reason.clone_from(&reason);
    data.write_identity(&identity)?;
    // Not before: a new life waits no longer for who says this, so no restart may take it back.
    desk.enter(Stage::Fenced(life));
    tracing::error!(cluster = %identity.cluster_uuid, incarnation = identity.incarnation, "this node is fenced and serves nothing: {reason}");
    Ok(())
}

async fn close(node: &Arc<Node>) {
    stop::close(node).await;
    // After the last append has measured itself.
    account::withdraw(node);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use futures::FutureExt as _;
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::peer::acquaintance::Acquaintances;
    use crate::peer::client::Channels;
    use crate::peer::proto::hello_reply::State;
    use crate::peer::proto::peer_server::Peer as _;
    use crate::peer::proto::{self, HelloReply, HelloRequest};
    use crate::peer::service::Service;

    const UUID: &str = "11111111-1111-4111-8111-111111111111";

    async fn asked_by(desk: &Arc<Desk>, uuid: &str, incarnation: u64) -> HelloReply {
        let service = Service {
            desk: Arc::clone(desk),
        };
        let question = HelloRequest {
            cluster_uuid: uuid.to_owned(),
            incarnation,
            ..Default::default()
        };
        let answer = service.hello(tonic::Request::new(question)).await;
        answer.expect("an answer").into_inner()
    }

    /// A node that stands still because its state differs.
    fn diverged(dir: &Path) -> (DataDir, Identity, Arc<Desk>, Front) {
        let data = DataDir::open(dir).expect("open");
        let identity = Identity {
            cluster_uuid: UUID.to_owned(),
            incarnation: 1,
            node_id: 3,
            shards: 1,
            name: "node3".to_owned(),
            state: IdentityState::Initialized.into(),
            ..Default::default()
        };
        data.write_identity(&identity).expect("write");
        let own = proto::Node {
            name: "node3".to_owned(),
            boot: 7,
            ..Default::default()
        };
        let channels = Channels::new(None, None).expect("channels");
        let (desk, _births) = Desk::new(own, Acquaintances::new(7, channels), None);
        desk.enter(Stage::Diverged(Life::of(&identity, false)));
        let recorder = PrometheusBuilder::new().build_recorder();
        let front = Front::new("node3", recorder.handle());
        (data, identity, desk, front)
    }

    /// A restart would find it unfenced, and the new life would have stopped waiting for it.
    #[tokio::test]
    async fn i13_who_cannot_write_down_that_it_is_fenced_does_not_say_so() {
        let dir = tempfile::tempdir().expect("a directory");
        let (data, identity, desk, front) = diverged(dir.path());
        let file = data.paths().identity();
        std::fs::remove_file(&file).expect("remove it");
        std::fs::create_dir_all(file.join("in the way")).expect("something in its place");
        let error = seal(&data, &identity, &desk, &front, "a newer life").expect_err("no room");
        assert!(error.to_string().contains("identity"), "{error}");
        let answer = asked_by(&desk, UUID, 2).await;
        assert_eq!(answer.state(), State::Member);
    }

    /// The new life waits for every member of the old one that answers as such: one that has diverged would hold it for ever.
    #[tokio::test]
    async fn i13_a_node_that_stands_still_with_another_state_is_fenced_by_a_newer_life() {
        let dir = tempfile::tempdir().expect("a directory");
        let (data, identity, desk, front) = diverged(dir.path());
        let stop = std::future::pending();
        let mut staying = std::pin::pin!(stay(&data, &identity, &desk, &front, stop));
        for (uuid, incarnation) in [(UUID, 1), ("another", 2)] {
            let answer = asked_by(&desk, uuid, incarnation).await;
            assert!((&mut staying).now_or_never().is_none());
            assert_eq!(answer.state(), State::Member);
        }
        asked_by(&desk, UUID, 2).await;
        assert!(
            (&mut staying).now_or_never().is_none(),
            "it stays to say so"
        );
        let answer = asked_by(&desk, UUID, 2).await;
        assert_eq!((answer.state(), answer.incarnation), (State::Fenced, 1));
        let said = answer.node.expect("who");
        assert_eq!((said.id, said.boot), (3, 0));
        let kept = data.read_identity().expect("read").expect("an identity");
        assert_eq!(kept.state(), IdentityState::Fenced);
        assert!(kept.reason.contains("hint: "), "{}", kept.reason);
    }
}
