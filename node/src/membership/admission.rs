//! Admission of new ids: a node that lost its disk, or one whose name an operator expects.
//!
//! Promises (I14): an id is given once; a name whose node answers is not given away; a name that nobody expects is
//! refused, and so is one that asks from another address than it is expected at.

use std::collections::BTreeSet;
use std::sync::Arc;

use confman_store::command::{AdmitNode, Answer, Op};
use confman_store::membership::Registry;
use confman_store::records::{NodeRecord, NodeState};
use prost::Message;
use tonic::Status;

use crate::forward;
use crate::node::Node;
use crate::peer::client::hello;
use crate::peer::proto::hello_reply::State;
use crate::peer::{Refusal, proto};

/// Answers a node that asks to be taken in.
pub(crate) async fn admit(
    node: &Arc<Node>,
    ask: proto::JoinRequest,
) -> Result<proto::JoinReply, Status> {
    let meta = node.meta();
    if !meta.is_leader() {
        let leader = meta
            .leader_peer()
            .filter(|l| l.info.id != node.id())
            .ok_or_else(|| Status::unavailable("__meta/0 has no leader"))?;
        let at = proto::Node {
            id: leader.info.id,
            name: leader.info.name,
            api_url: leader.info.api_url,
            peer_addr: leader.peer_addr,
            boot: 0,
        };
        return Ok(proto::JoinReply {
            ask_leader: Some(at),
            ..Default::default()
        });
    }
    if !node.has_begun() {
        return Err(Status::unavailable(format!(
            "incarnation {} has not begun in every group",
            node.cluster().incarnation
        )));
    }
    let internal = |e: confman_store::StoreError| Status::internal(e.to_string());
    let registry = meta.state().registry().map_err(internal)?;
    let node_id = match registry
        .nodes
        .iter()
        .find(|n| ask.node_id != 0 && n.id == ask.node_id)
    {
        Some(known) if known.state() == NodeState::Joining && known.name == ask.name => {
            alone(node, known, ask.boot).await?;
            known.id
        }
        Some(known) => {
            return Err(Refusal::Retired.status(format!(
                "node id {} ({}) cannot go on joining\nhint: run `drtool set-aside` on the data directory and start again: the node joins under a new id",
                known.id, known.name
            )));
        }
        None => admit_anew(node, &registry, ask).await?,
    };
    let nodes = meta.state().nodes().map_err(internal)?;
    let mut reply = proto::JoinReply {
        node_id,
        cluster_uuid: node.cluster().uuid.clone(),
        incarnation: node.cluster().incarnation,
        lineage: node.identity().lineage.clone(),
        shards: node.identity().shards,
        replaces: nodes
            .iter()
            .find(|n| n.id == node_id)
            .and_then(|n| n.replaces)
            .into_iter()
            .collect(),
        nodes: nodes
            .iter()
            .filter(|n| n.state() != NodeState::Retired)
            .map(wire_node)
            .collect(),
        ..Default::default()
    };
    for group in node.groups() {
        let facts = group.state().snapshots().map_err(internal)?;
        // What is marked for deletion may be gone before it is read.
        let records = facts
            .iter()
            .filter(|f| f.marked_us.is_none())
            .map(|f| f.record.encode_to_vec())
            .collect();
        let last_index = group.metrics().last_log_index.unwrap_or(0);
        reply.groups.push(proto::GroupSnapshots {
            group: group.id().to_string(),
            records,
            last_index,
        });
    }
    Ok(reply)
}

async fn admit_anew(
    node: &Arc<Node>,
    registry: &Registry,
    ask: proto::JoinRequest,
) -> Result<u64, Status> {
    let nodes = &registry.nodes;
    let living: Vec<&NodeRecord> = nodes
        .iter()
        .filter(|n| n.name == ask.name && n.state() != NodeState::Retired)
        .collect();
    if nodes.is_empty() {
        return Err(Status::unavailable(
            "the cluster is being born: its members are not registered yet",
        ));
    }
    if living.is_empty() {
        expected(registry, &ask)?;
    }
    for old in &living {
        let question = node.question();
        if let Ok(answer) = hello(node.channels(), &old.peer_addr, question).await
            && answer.cluster_uuid == node.cluster().uuid
            // Who is fenced is of an older life and will not come back as this id.
            && answer.state() != State::Fenced
            && answer.node.is_some_and(|n| n.id == old.id)
        {
            return Err(Refusal::NameInUse.status(format!(
                "node {:?} is alive at {} as node id {}\nhint: give this node its own CONFMAN_NODE_NAME",
                old.name, old.peer_addr, old.id
            )));
        }
    }
    let voted = living
        .iter()
        .find(|n| n.state() == NodeState::Active)
        .or(living.first())
        .map(|n| n.id);
    let name = ask.name.clone();
    let op = Op::AdmitNode(AdmitNode {
        name: ask.name,
        api_url: ask.api_url,
        peer_addr: ask.peer_addr,
        replaces: voted,
        nonce: ask.nonce,
    });
    fail::fail_point!("membership::before-admit");
    let outcome = forward::propose(node, node.meta(), op)
        .await
        .map_err(|e| Status::unavailable(e.to_string()))?;
    fail::fail_point!("membership::after-admit");
    match outcome.answer {
        Some(Answer::NodeAdmitted(admitted)) => {
            tracing::info!(name, node_id = admitted.id, replaces = ?voted, "an empty node is taken in under a new id");
            Ok(admitted.id)
        }
        other => Err(Status::internal(format!("admission answered {other:?}"))),
    }
}

/// A name that no member has joins only where an operator expects it.
fn expected(registry: &Registry, ask: &proto::JoinRequest) -> Result<(), Status> {
    let Some(expected) = registry.expected.iter().find(|e| e.name == ask.name) else {
        let names: BTreeSet<&str> = registry
            .nodes
            .iter()
            .filter(|n| n.state() != NodeState::Retired)
            .map(|n| n.name.as_str())
            .collect();
        let removed = registry
            .nodes
            .iter()
            .filter(|n| n.name == ask.name && n.retired_index > 0)
            .map(|n| {
                format!(
                    " any more: it was removed at index {} of __meta/0",
                    n.retired_index
                )
            })
            .next_back()
            .unwrap_or_default();
        return Err(Refusal::UnknownName.status(format!(
            "the cluster has no node called {:?}{removed}; it has {}\nhint: set CONFMAN_NODE_NAME to the name of the node whose disk was lost; to take in a new one run `drtool member add {} {}` first",
            ask.name,
            names.into_iter().collect::<Vec<_>>().join(", "),
            ask.name,
            ask.peer_addr
        )));
    };
    if expected.peer_addr != ask.peer_addr {
        return Err(Refusal::UnknownName.status(format!(
            "{} is expected at {} and asks from {}\nhint: set CONFMAN_PEER_ADVERTISE to {}, or expect it where it is: `drtool member remove {}`, then `drtool member add {} {}`",
            ask.name, expected.peer_addr, ask.peer_addr, expected.peer_addr, ask.name, ask.name, ask.peer_addr
        )));
    }
    Ok(())
}

/// Whether no other process goes on with the join that `boot` goes on with: its directory may have been copied.
async fn alone(node: &Node, joining: &NodeRecord, boot: u64) -> Result<(), Status> {
    if let Ok(answer) = hello(node.channels(), &joining.peer_addr, node.question()).await
        && answer.cluster_uuid == node.cluster().uuid
        && answer
            .node
            .is_some_and(|n| n.id == joining.id && n.boot != boot)
    {
        return Err(Refusal::SecondProcess.status(format!(
            "node id {} ({}) is joining already, as another process at {}\nhint: stop one of the two, and run `drtool set-aside` on its data directory",
            joining.id, joining.name, joining.peer_addr
        )));
    }
    Ok(())
}

fn wire_node(node: &NodeRecord) -> proto::Node {
    proto::Node {
        id: node.id,
        name: node.name.clone(),
        api_url: node.api_url.clone(),
        peer_addr: node.peer_addr.clone(),
        boot: 0,
    }
}
