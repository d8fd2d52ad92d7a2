//! Who is a member: admission of new ids, and the executors that bring every group's membership to what the registry in
//! `__meta/0` says.
//!
//! - [`admission`] gives ids to empty nodes; [`incarnation`] begins a new life, which [`claim`] claims in the store.
//! - [`executor`] takes the steps of the pure planner ([`plan`]) in the groups that this node leads.
//! - [`settle`] says when what was wished has come to be; the leader of `__meta/0` writes that down.
//! - [`outcast`] finds out that this node's own id was retired.
//!
//! None of them keeps a state of its own: killed anywhere, the next leader goes on. A node id is never given twice, and a
//! name whose node answers is not given away (I14).

mod admission;
mod claim;
mod executor;
mod incarnation;
mod outcast;
mod plan;
mod settle;

use std::sync::Arc;
use std::time::Duration;

use confman_store::command::{ActivateNode, Genesis, Op, UpdateNode};
use confman_store::membership::{EndChange, Registry};
use confman_store::records::{NodeRecord, NodeState};
use tokio_util::sync::CancellationToken;

pub(crate) use self::admission::admit;
use self::claim::Claiming;
pub(crate) use self::executor::alive;
use self::outcast::Outcast;
use self::settle::Settled;
use crate::forward;
use crate::node::Node;
use crate::peer::client::hello;
use crate::peer::proto;

const TURN: Duration = Duration::from_millis(300);

/// Keeps the registry fresh and takes membership steps while this node leads, until cancelled.
pub(crate) async fn run(node: Arc<Node>, stop: CancellationToken) {
    let mut applied = node.meta().state().applied_watch();
    let mut outcast = Outcast::default();
    let mut claiming = Claiming::default();
    loop {
        if let Err(error) = node.refresh_registry()
            && let Some(kept_back) = node.may_tell(node.meta().id(), "registry")
        {
            tracing::error!(kept_back, "read the registry of nodes: {error}");
        }
        turn(&node, &mut claiming).await;
        outcast.turn(&node).await;
        tokio::select! {
            () = stop.cancelled() => return,
            changed = applied.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(TURN) => {}
        }
    }
}

async fn turn(node: &Arc<Node>, claiming: &mut Claiming) {
    let begun = incarnation::turn(node, claiming).await;
    // The registry is of the older life until the new one has begun: its members are not to be fed.
    let older = || node.pending().is_some() || node.is_unborn_copy();
    if !begun && (older() || !node.registered().is_empty()) {
        return;
    }
    if begun {
        forget_pending(node).await;
    }
    let registry = match node.meta().state().registry() {
        Ok(registry) => registry,
        Err(error) => {
            if let Some(kept_back) = node.may_tell(node.meta().id(), "wishes") {
                tracing::error!(kept_back, "read the registry of nodes: {error}");
            }
            return;
        }
    };
    if let Err(error) = registry_step(node, &registry).await {
        tracing::debug!("registry: {error}");
    }
    executor::turn(node, &registry).await;
}

/// What was to be proposed has been committed in every group: a start need not ask for it any more. Durable in the states
/// first: a start of a copy reads from them whose nodes it may speak to, before the log is applied again.
async fn forget_pending(node: &Node) {
    let path = node.paths().incarnation();
    if node.pending().is_none() || !path.exists() {
        return;
    }
    for group in node.groups() {
        let state = group.state().clone();
        let flushed = tokio::task::spawn_blocking(move || state.flush_durable()).await;
        let failed = match flushed {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = failed {
            if let Some(kept_back) = node.may_tell(group.id(), "durable") {
                tracing::warn!(group = %group.id(), kept_back, "make the new incarnation durable, to be tried again: {error}");
            }
            return;
        }
    }
    fail::fail_point!("life::before-forget");
    match std::fs::remove_file(&path) {
        Ok(()) => {
            fail::fail_point!("life::after-forget");
            tracing::info!(
                incarnation = node.cluster().incarnation,
                "the incarnation has begun in every group"
            )
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!("remove {}: {error}", path.display()),
    }
}

/// What `__meta/0` must be told: that the cluster is born, that a node has arrived, that a change has come to be, that
/// this node moved.
async fn registry_step(node: &Arc<Node>, registry: &Registry) -> Result<(), forward::ForwardError> {
    let meta = node.meta();
    let registered = &registry.nodes;
    if meta.is_leader() {
        if registered.is_empty() {
            return genesis(node).await;
        }
        settle(node, registry).await?;
    }
    let settings = node.settings();
    let moved = registered.iter().find(|n| {
        n.id == node.id()
            && (n.api_url != settings.api_advertise || n.peer_addr != settings.peer_advertise)
    });
    if moved.is_some() {
        let op = Op::UpdateNode(UpdateNode {
            id: node.id(),
            api_url: settings.api_advertise.clone(),
            peer_addr: settings.peer_advertise.clone(),
        });
        if let Err(error) = forward::propose(node, meta, op.clone()).await {
            // Nobody can reach this node to tell it who leads: it asks.
            let leader = ask_who_leads(node).await.ok_or(error)?;
            forward::propose_at(node, meta, op, &leader).await?;
        }
        tracing::info!(api_url = %settings.api_advertise, peer_addr = %settings.peer_advertise, "this node's new addresses are registered");
    }
    Ok(())
}

/// Writes down what has come to be, at the leader of `__meta/0`.
async fn settle(node: &Arc<Node>, registry: &Registry) -> Result<(), forward::ForwardError> {
    let meta = node.meta();
    let places = executor::places(node);
    let is_newest = |n: &NodeRecord| {
        // Its disk may be lost again: then a newer id has its name.
        !registry
            .nodes
            .iter()
            .any(|o| o.name == n.name && o.id > n.id)
    };
    for joining in registry
        .nodes
        .iter()
        .filter(|n| n.state() == NodeState::Joining && is_newest(n))
        .filter(|n| settle::arrived(n, &registry.nodes, &places))
    {
        let op = Op::ActivateNode(ActivateNode { id: joining.id });
        fail::fail_point!("membership::before-activate");
        forward::propose(node, meta, op).await?;
        fail::fail_point!("membership::after-activate");
        tracing::info!(node_id = joining.id, name = %joining.name, "a node is what it shall be in every group, and active");
    }
    let Some(change) = registry.running() else {
        return Ok(());
    };
    let error = match settle::settled(change, &registry.nodes, &places, meta.now_us()) {
        Settled::Running => return Ok(()),
        Settled::Done => None,
        Settled::GivenUp(why) => Some(why),
    };
    let op = Op::EndChange(EndChange {
        id: change.id.clone(),
        error: error.clone(),
    });
    fail::fail_point!("membership::before-end");
    forward::propose(node, meta, op).await?;
    fail::fail_point!("membership::after-end");
    match error {
        None => tracing::info!(change = %change.id, "{}: done", change.words()),
        Some(why) => {
            tracing::warn!(change = %change.id, "{}: given up: {why}", change.words());
        }
    }
    Ok(())
}

/// The leader of `__meta/0`, as one of the listed peers knows it.
async fn ask_who_leads(node: &Node) -> Option<proto::Node> {
    for peer in node
        .settings()
        .peers
        .iter()
        .filter(|p| p.name != node.name())
    {
        let question = node.question();
        if let Ok(answer) = hello(node.channels(), &peer.addr, question).await
            && answer.cluster_uuid == node.cluster().uuid
            && answer.leader.is_some()
        {
            return answer.leader;
        }
    }
    None
}

async fn genesis(node: &Arc<Node>) -> Result<(), forward::ForwardError> {
    let identity = node.identity();
    let nodes = identity
        .members
        .iter()
        .filter_map(|m| {
            let info = m.info.clone()?;
            Some(NodeRecord {
                id: m.id,
                name: info.name,
                api_url: info.api_url,
                peer_addr: info.peer_addr,
                ..Default::default()
            })
        })
        .collect();
    let op = Op::Genesis(Genesis {
        cluster_uuid: identity.cluster_uuid.clone(),
        incarnation: identity.incarnation,
        shards: identity.shards,
        nodes,
    });
    forward::propose(node, node.meta(), op).await.map(|_| ())
}
