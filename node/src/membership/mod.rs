//! Who is a member: admission of new ids, and the executor that brings every group's membership to
//! what the registry in `__meta/0` says.
//!
//! The executor keeps no state of its own: at every turn it reads the registry and Raft's metrics,
//! asks the pure planner ([`plan::next_step`]) and takes one step. Killed anywhere, the next leader
//! goes on. A node id is never given twice, and a name whose node answers is not given away (I14).

mod incarnation;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use confman_store::command::{ActivateNode, AdmitNode, Answer, Genesis, Op, UpdateNode};
use confman_store::records::{NodeRecord, NodeState};
use confman_store::types::Member;
use openraft::ChangeMembers;
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use self::plan::{Registered, Step, View};
use crate::formation::hello;
use crate::forward;
use crate::group::Group;
use crate::node::Node;
use crate::peer::{Refusal, proto};

const TURN: Duration = Duration::from_millis(300);
const STEP_WITHIN: Duration = Duration::from_secs(15);

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
    let nodes = meta.state().nodes().map_err(internal)?;
    let node_id = match nodes
        .iter()
        .find(|n| ask.node_id != 0 && n.id == ask.node_id)
    {
        Some(known) if known.state() == NodeState::Joining && known.name == ask.name => {
            alone(node, known, ask.boot).await?;
            known.id
        }
        Some(known) => {
            return Err(Refusal::Retired.status(format!(
                "node id {} ({}) cannot go on joining\nhint: move the data directory aside and start again: the node joins under a new id",
                known.id, known.name
            )));
        }
        None => admit_anew(node, &nodes, ask).await?,
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
    nodes: &[NodeRecord],
    ask: proto::JoinRequest,
) -> Result<u64, Status> {
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
        let names: BTreeSet<&str> = nodes
            .iter()
            .filter(|n| n.state() != NodeState::Retired)
            .map(|n| n.name.as_str())
            .collect();
        return Err(Refusal::UnknownName.status(format!(
            "the cluster has no node called {:?}; it has {}\nhint: set CONFMAN_NODE_NAME to the name of the node whose disk was lost",
            ask.name,
            names.into_iter().collect::<Vec<_>>().join(", ")
        )));
    }
    for old in &living {
        let question = node.question();
        if let Ok(answer) = hello(node.channels(), &old.peer_addr, question).await
            && answer.cluster_uuid == node.cluster().uuid
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
    let outcome = forward::propose(node, node.meta(), op)
        .await
        .map_err(|e| Status::unavailable(e.to_string()))?;
    match outcome.answer {
        Some(Answer::NodeAdmitted(admitted)) => {
            tracing::info!(name, node_id = admitted.id, replaces = ?voted, "a node that lost its disk is taken in under a new id");
            Ok(admitted.id)
        }
        other => Err(Status::internal(format!("admission answered {other:?}"))),
    }
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
            "node id {} ({}) is joining already, as another process at {}\nhint: stop one of the two, and set its data directory aside",
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

/// Keeps the registry fresh and takes membership steps while this node leads, until cancelled.
pub(crate) async fn run(node: Arc<Node>, stop: CancellationToken) {
    let mut applied = node.meta().state().applied_watch();
    loop {
        if let Err(error) = node.refresh_registry() {
            tracing::error!("read the registry of nodes: {error}");
        }
        turn(&node).await;
        tokio::select! {
            () = stop.cancelled() => return,
            changed = applied.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(TURN) => {}
        }
    }
}

async fn turn(node: &Arc<Node>) {
    let begun = incarnation::turn(node).await;
    // The registry is of the older life until the new one has begun: its members are not to be fed.
    if !begun && !node.registered().is_empty() {
        return;
    }
    if begun {
        forget_pending(node);
    }
    if let Err(error) = registry_step(node).await {
        tracing::debug!("registry: {error}");
    }
    let registered: Vec<Registered> = node
        .registered()
        .into_iter()
        .filter(|n| n.state() != NodeState::Retired)
        .map(|n| Registered {
            id: n.id,
            name: n.name,
            api_url: n.api_url,
            peer_addr: n.peer_addr,
        })
        .collect();
    if registered.is_empty() {
        return;
    }
    let steps = node
        .groups()
        .filter(|g| g.is_leader())
        .map(|group| group_step(group, &registered));
    futures::future::join_all(steps).await;
}

/// What was to be proposed has been committed in every group: a start need not ask for it any more.
fn forget_pending(node: &Node) {
    if node.pending().is_none() {
        return;
    }
    let path = node.paths().incarnation();
    match std::fs::remove_file(&path) {
        Ok(()) => {
            tracing::info!(
                incarnation = node.cluster().incarnation,
                "the incarnation has begun in every group"
            )
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!("remove {}: {error}", path.display()),
    }
}

/// What `__meta/0` must be told: that the cluster is born, that a node votes everywhere, that this
/// node moved.
async fn registry_step(node: &Arc<Node>) -> Result<(), forward::ForwardError> {
    let meta = node.meta();
    let registered = node.registered();
    if meta.is_leader() {
        if registered.is_empty() {
            return genesis(node).await;
        }
        for joining in registered
            .iter()
            .filter(|n| n.state() == NodeState::Joining)
        {
            // Its disk is lost again: a newer id has its name.
            if registered
                .iter()
                .any(|o| o.name == joining.name && o.id > joining.id)
            {
                continue;
            }
            if votes_everywhere(node, joining) {
                forward::propose(
                    node,
                    meta,
                    Op::ActivateNode(ActivateNode { id: joining.id }),
                )
                .await?;
                tracing::info!(node_id = joining.id, name = %joining.name, "a node votes in every group and is active");
            }
        }
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

/// As this node's replicas see it: the joining id votes in every group and no predecessor does.
fn votes_everywhere(node: &Node, joining: &NodeRecord) -> bool {
    let predecessors: BTreeSet<u64> = node
        .registered()
        .iter()
        .filter(|n| n.name == joining.name && n.id < joining.id)
        .map(|n| n.id)
        .collect();
    node.groups().all(|group| {
        let raft = group.metrics();
        let membership = raft.committed_membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        membership.get_joint_config().len() == 1
            && voters.contains(&joining.id)
            && voters.is_disjoint(&predecessors)
    })
}

fn view(group: &Group) -> View {
    let raft = group.metrics();
    let membership = raft.membership_config.membership();
    let matched = raft
        .replication
        .iter()
        .flatten()
        .filter_map(|(id, log_id)| Some((*id, log_id.as_ref()?.index)))
        .collect::<BTreeMap<_, _>>();
    View {
        voters: membership.voter_ids().collect(),
        members: membership
            .nodes()
            .map(|(id, m)| (*id, (m.api_url.clone(), m.peer_addr.clone())))
            .collect(),
        pending: raft.membership_config.log_id() != raft.committed_membership_config.log_id(),
        joint_towards: match membership.get_joint_config().as_slice() {
            [_, .., target] => Some(target.clone()),
            _ => None,
        },
        matched,
        committed: raft.local_committed.as_ref().map_or(0, |id| id.index),
    }
}

async fn group_step(group: &Group, registered: &[Registered]) {
    let view = view(group);
    // Before the first entries are committed there is nothing to change.
    if view.members.is_empty() {
        return;
    }
    let Some(step) = plan::next_step(registered, &view) else {
        return;
    };
    tracing::info!(group = %group.id(), ?step, "membership step");
    let raft = group.raft();
    let done = tokio::time::timeout(STEP_WITHIN, async {
        match &step {
            Step::AddLearner(node) => raft
                .add_learner(node.id, member(node), false)
                .await
                .map(|_| ()),
            Step::Promote { add, remove } => {
                let mut voters = view.voters.clone();
                voters.retain(|id| !remove.contains(id));
                voters.insert(*add);
                raft.change_membership(voters, false).await.map(|_| ())
            }
            Step::Remove(ids) => raft
                .change_membership(ChangeMembers::RemoveNodes(ids.clone()), false)
                .await
                .map(|_| ()),
            Step::Finish(voters) => raft
                .change_membership(voters.clone(), false)
                .await
                .map(|_| ()),
            Step::Readdress(node) => {
                let nodes = BTreeMap::from([(node.id, member(node))]);
                raft.change_membership(ChangeMembers::SetNodes(nodes), false)
                    .await
                    .map(|_| ())
            }
        }
    });
    match done.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(group = %group.id(), ?step, "membership step, to be tried again: {error}")
        }
        Err(_) => {
            tracing::warn!(group = %group.id(), ?step, "membership step was not confirmed within {STEP_WITHIN:?}, to be looked at again")
        }
    }
}

fn member(node: &Registered) -> Member {
    Member {
        name: node.name.clone(),
        api_url: node.api_url.clone(),
        peer_addr: node.peer_addr.clone(),
    }
}
