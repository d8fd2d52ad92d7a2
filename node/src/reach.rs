//! Which other nodes this one reaches now: each registered one is asked who it is, on the port that Raft uses and with the
//! cluster token. Asked of every node, it tells whether each two reach each other both ways. The answers tell the others' clocks too.

use std::time::Instant;

use confman_client::wire::PeerReach;
use confman_store::records::{NodeRecord, NodeState};
use futures::future::join_all;

use crate::node::Node;
use crate::peer::client::hello;
use crate::peer::proto;

/// Asks all of them at once; ends within the time of one question.
pub(crate) async fn peers(node: &Node) -> Vec<PeerReach> {
    let registered = node.registered();
    let others = registered.iter().filter(|other| {
        let superseded = registered
            .iter()
            .any(|newer| newer.name == other.name && newer.id > other.id);
        other.id != node.id() && other.state() != NodeState::Retired && !superseded
    });
    join_all(others.map(|other| ask(node, other))).await
}

async fn ask(node: &Node, other: &NodeRecord) -> PeerReach {
    let begun = Instant::now();
    let answer = hello(node.channels(), &other.peer_addr, node.question()).await;
    let error = match answer {
        Ok(reply) => {
            let error = another(node, other, &reply);
            if error.is_none() {
                node.clock().heard(other.id, reply.time_us, begun);
            }
            error
        }
        Err(why) => Some(why),
    };
    PeerReach {
        id: other.id,
        name: other.name.clone(),
        peer_addr: other.peer_addr.clone(),
        reached: error.is_none(),
        seconds: begun.elapsed().as_secs_f64(),
        error,
    }
}

/// Who answered in the place of the one that was asked for.
fn another(node: &Node, other: &NodeRecord, reply: &proto::HelloReply) -> Option<String> {
    let cluster = node.cluster();
    let found = reply.node.as_ref();
    let name = found.map_or("", |n| n.name.as_str());
    if reply.cluster_uuid != cluster.uuid {
        return Some(format!(
            "{name} answers there, of cluster {:?}",
            reply.cluster_uuid
        ));
    }
    if reply.incarnation != cluster.incarnation {
        return Some(format!(
            "{name} answers there, of incarnation {}; this node is of {}",
            reply.incarnation, cluster.incarnation
        ));
    }
    let id = found.map_or(0, |n| n.id);
    (id != other.id).then(|| format!("{name} answers there, under id {id}"))
}
