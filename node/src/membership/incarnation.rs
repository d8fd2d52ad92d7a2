//! A new life of the cluster begins: what a recovery or a restore left in the data directory is committed in every group.
//!
//! Until then nothing of that life is acknowledged, and it ends no other (I13). Before it begins, every node of the
//! older life that can be reached is told, and fences itself unless one of its groups has a leader or had one since it
//! started; that one holds the new life back, because then a quorum lives, or has acknowledged what nobody collected, and
//! the recovery was a mistake that can still be undone.

use std::collections::BTreeSet;
use std::sync::Arc;

use confman_store::command::{BeginIncarnation, Op};
use confman_store::records::IncarnationKind;

use crate::forward;
use crate::node::Node;
use crate::peer::client::hello;
use crate::peer::proto;

/// One look: begins the life in every group that this node leads, when nothing stands against it. Says whether all
/// groups have begun it.
pub(super) async fn turn(node: &Arc<Node>) -> bool {
    if node.has_begun() {
        return true;
    }
    let Some(pending) = node.pending() else {
        return false;
    };
    // A copy has no older life, and asks nobody: not the store either, which is claimed when something is written.
    let copy = pending.kind() == IncarnationKind::Copy;
    let mut standing = match copy {
        true => None,
        false => standing_against(node, pending).await,
    };
    // Of two recoveries that reach the store one gets it, before either acknowledges anything.
    if !copy && standing.is_none() && node.groups().any(|g| g.is_leader() && !g.has_begun()) {
        standing = node
            .store()
            .stands_against(node.identity(), pending.kind())
            .await;
    }
    let before = node.hold_back(standing.clone());
    if let Some(why) = standing {
        if before.as_ref() != Some(&why) {
            tracing::error!(incarnation = pending.incarnation, plan = %pending.plan_id, "incarnation {} does not begin: {why}", pending.incarnation);
        }
        return false;
    }
    for group in node.groups().filter(|g| g.is_leader() && !g.has_begun()) {
        match forward::propose(node, group, Op::BeginIncarnation(pending.clone())).await {
            Ok(_) => {
                tracing::info!(group = %group.id(), incarnation = pending.incarnation, plan = %pending.plan_id, "a new incarnation has begun");
            }
            Err(error) => {
                if let Some(kept_back) = node.may_tell(group.id(), "begin") {
                    tracing::warn!(group = %group.id(), kept_back, "begin incarnation {}: {error}", pending.incarnation);
                }
            }
        }
    }
    let begun = node.has_begun();
    // What was read of the registry is of the older life: nobody of that is to be fed, not even once.
    if begun && let Err(error) = node.refresh_registry() {
        tracing::error!("read the registry of nodes: {error}");
        return false;
    }
    begun
}

/// Asks every address that the older life had who is there. A node of the older life that answers and has not fenced
/// itself stands against the new one: with a leader for as long as that lives, without one until it has fenced itself.
async fn standing_against(node: &Node, pending: &BeginIncarnation) -> Option<String> {
    let own = &node.settings().peer_advertise;
    let addresses: BTreeSet<String> = node
        .identity()
        .members
        .iter()
        .filter_map(|m| Some(m.info.as_ref()?.peer_addr.clone()))
        .chain(node.registered().into_iter().map(|n| n.peer_addr))
        .chain(node.settings().peers.iter().map(|p| p.addr.clone()))
        .chain(pending.expected.iter().map(|e| e.peer_addr.clone()))
        .filter(|addr| addr != own && !addr.is_empty())
        .collect();
    let asked = addresses.iter().map(|addr| async move {
        let question = node.question();
        (addr, hello(node.channels(), addr, question).await)
    });
    let answers = futures::future::join_all(asked).await;
    let mut waiting = None;
    for (addr, answer) in answers {
        let Ok(answer) = answer else { continue };
        let name = answer.node.as_ref().map_or("a node", |n| n.name.as_str());
        let older = answer.cluster_uuid == node.cluster().uuid
            && answer.incarnation < node.cluster().incarnation
            && answer.state() == proto::hello_reply::State::Member;
        let other = answer.cluster_uuid == node.cluster().uuid
            && answer.incarnation == node.cluster().incarnation
            && answer.lineage != node.identity().lineage;
        if other {
            return Some(format!(
                "{name} at {addr} is of another recovery ({}) of the same incarnation\nhint: decide which one stays, stop the nodes of the other and set their data directories aside",
                answer.lineage
            ));
        }
        if older && answer.lives {
            let (old, leader) = (answer.incarnation, answer.leader.as_ref());
            let what = leader.map_or_else(
                || "has had a leader since it started, and may have acknowledged what nobody collected".to_owned(),
                |leader| format!("follows {}", leader.name),
            );
            return Some(format!(
                "incarnation {old} lives: {name} at {addr} {what}\nhint: the recovery may have been a mistake; stop this node and run `drtool recover undo`, or stop the nodes of incarnation {old} for good"
            ));
        }
        if older {
            waiting = Some(format!(
                "{name} at {addr} is of incarnation {} and has not fenced itself yet",
                answer.incarnation
            ));
        }
    }
    waiting
}
