//! The rows of the decision table that speak of restore orders.
//!
//! An order is an operator's word that every node of the older lives is gone. It is carried out by an empty node that it
//! names, under an id that nobody took up before, and never where a node of an older life still follows a leader. Once the
//! life that it begins has begun, it is spent and these rows are not read.

use confman_snapshot::model::ClusterId;

use crate::decide::{newer_incarnation, peers_with_leader, retires_me, store_notes, wait};
use crate::facts::{
    LocalIdentity, OrderFact, OrderState, PeerAnswer, PeerFacts, StoreFacts, named,
};
use crate::verdict::{Decision, Verdict};

const HINT_AGAIN: &str = "start the other members that the order names; when a majority of them is gone \
    again, `drtool restore plan` and `drtool restore apply` order the restore anew";
const HINT_OLDER: &str = "a node of the older life fences itself as soon as it sees the store; stop it if \
    it cannot reach the store";

/// An empty directory, and an order that is not spent. None: the order is nothing to this node, the other rows are.
pub(crate) fn empty(
    name: &str,
    order: &OrderFact,
    peers: &PeerFacts,
    store: &StoreFacts,
) -> Option<Verdict> {
    let life = &order.life;
    if let Some(verdict) = older_life_lives(life, peers) {
        return Some(verdict);
    }
    let has_leader = !peers_with_leader(life, peers).is_empty();
    let ordered = format!("the store has a restore order for {}", named(life));
    if let OrderState::Unusable { why } = &order.state {
        return (!has_leader).then(|| {
            wait(
                format!("{ordered}, and this program cannot carry it out: {why}"),
                "a member of that life that knows a leader answers".to_owned(),
                "use the version of confman that drtool has",
                peers,
            )
        });
    }
    match order.member {
        Some(node_id) if !order.taken => Some(restore(order, node_id, ordered, store)),
        // The ordinary rows: it rejoins under a new id, or is told that the cluster does not know it.
        _ if has_leader => None,
        Some(node_id) => Some(wait(
            format!(
                "{ordered}, and node id {node_id}, which it gives to {name}, was taken up before by another data directory"
            ),
            "a member of that life that knows a leader answers, so that this node can join it under a new id"
                .to_owned(),
            HINT_AGAIN,
            peers,
        )),
        None => Some(wait(
            format!(
                "{ordered}, and it names {}; this node is called {name}",
                order.names.join(", ")
            ),
            "a member of that life that knows a leader answers".to_owned(),
            "check CONFMAN_NODE_NAME, or make another plan with --member",
            peers,
        )),
    }
}

/// A directory that was being restored by the order `plan`, and whose node has never started.
pub(crate) fn resume(
    identity: &LocalIdentity,
    plan: &str,
    peers: &PeerFacts,
    store: &StoreFacts,
) -> Verdict {
    let own = &identity.cluster;
    let node_id = identity.node_id;
    let what = format!("node id {node_id} of {} was being restored", named(own));
    if let Some((newer, seen)) = newer_incarnation(own, peers, store) {
        return set_aside(format!("{what}, and {seen} has {}", named(newer)));
    }
    if let Some(peer) = peers.peers.iter().find(|p| retires_me(&p.answer, own)) {
        return set_aside(format!("{what}, and {} says that it is retired", peer.name));
    }
    if let Some(verdict) = older_life_lives(own, peers) {
        return verdict;
    }
    let order = match store {
        StoreFacts::Off => {
            return wait(
                format!("{what}, and there is no store"),
                "CONFMAN_SNAPSHOT_ENABLED is true again".to_owned(),
                "a restore needs the store; start the node with the settings that it had",
                peers,
            );
        }
        StoreFacts::Unreachable { why } => {
            return wait(
                format!("{what}, and the store is unreachable: {why}"),
                "the store answers".to_owned(),
                "check CONFMAN_OBJECT_STORE_URL and its credentials",
                peers,
            );
        }
        StoreFacts::Reached { order, .. } => order.as_ref().filter(|o| o.life == *own),
    };
    match order {
        None => wait(
            format!("{what}, and the store does not have the order for it"),
            "the store shows it again".to_owned(),
            "check CONFMAN_OBJECT_STORE_URL; with another order in mind, run `drtool set-aside` on the data directory",
            peers,
        ),
        Some(order) if order.plan != plan => set_aside(format!(
            "{what} by order {plan}, and the store has order {}",
            order.plan
        )),
        Some(OrderFact {
            state: OrderState::Unusable { why },
            ..
        }) => wait(
            format!("{what}, and this program cannot carry the order out: {why}"),
            "the node is started with another version".to_owned(),
            "use the version of confman that drtool has",
            peers,
        ),
        // Also when it is spent: this node was a member of that life from its first moment, and never voted.
        Some(order) if order.member == Some(node_id) => restore(order, node_id, what, store),
        Some(order) => set_aside(format!(
            "{what}, and the order names {}",
            order.names.join(", ")
        )),
    }
}

fn restore(order: &OrderFact, node_id: u64, reason: String, store: &StoreFacts) -> Verdict {
    Verdict {
        decision: Decision::Restore {
            life: order.life.clone(),
            plan: order.plan.clone(),
            node_id,
        },
        reason,
        notes: store_notes(&order.life, store),
    }
}

/// A quorum of an older life may be alive: nothing is restored beside it.
fn older_life_lives(life: &ClusterId, peers: &PeerFacts) -> Option<Verdict> {
    let (name, older, leader) = peers.peers.iter().find_map(|p| match &p.answer {
        PeerAnswer::Member {
            cluster,
            leader: Some(leader),
            ..
        } if cluster.uuid == life.uuid && cluster.incarnation < life.incarnation => {
            Some((&p.name, cluster, leader))
        }
        _ => None,
    })?;
    Some(wait(
        format!(
            "{} is ordered, and {name} of incarnation {} still follows {leader}",
            named(life),
            older.incarnation
        ),
        format!("{name} has fenced itself"),
        HINT_OLDER,
        peers,
    ))
}

fn set_aside(reason: String) -> Verdict {
    Verdict {
        decision: Decision::SetAside,
        reason,
        notes: Vec::new(),
    }
}
