//! A new life of the cluster begins: what a recovery or a restore left in the data directory is committed in every group.
//!
//! Until then nothing of that life is acknowledged, and it ends no other (I13). Before it begins, every node of the
//! older life that can be reached is told, and fences itself unless one of its groups has a leader or had one since it
//! started; that one holds the new life back, because then a quorum lives, or has acknowledged what nobody collected, and
//! the recovery was a mistake that can still be undone.
//!
//! Whoever of the older life does not answer may be an old majority that reaches the store and not us. Where the store has the claim
//! of this life, the life waits until they have seen it there, or acknowledge nothing more ([`crate::fence`]).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use confman_store::command::{BeginIncarnation, Op};
use confman_store::records::{IncarnationKind, NodeState};

use crate::forward;
use crate::node::Node;
use crate::peer::client::hello;
use crate::peer::proto;
use crate::store_door::Claimed;

/// Longest that the second look at the claim takes.
const LOOK_WITHIN: Duration = Duration::from_secs(5);

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
    let (mut standing, silent) = match copy {
        true => (None, Vec::new()),
        false => standing_against(node, pending).await,
    };
    let mut waits = None;
    // Of two recoveries that reach the store one gets it, before either acknowledges anything.
    if !copy && standing.is_none() && node.groups().any(|g| g.is_leader() && !g.has_begun()) {
        match node
            .store()
            .claim_life(node.identity(), pending.kind())
            .await
        {
            Claimed::Against(why) => standing = Some(why),
            Claimed::Ours => (standing, waits) = outwait(node, &silent).await,
            Claimed::Unknown => {}
        }
    }
    let why = standing.clone().or(waits);
    let before = node.hold_back(why.clone());
    if let Some(why) = why {
        let (incarnation, plan) = (pending.incarnation, &pending.plan_id);
        match standing {
            _ if before.as_ref() == Some(&why) => {}
            Some(_) => {
                tracing::error!(incarnation, %plan, "incarnation {incarnation} does not begin: {why}");
            }
            None => {
                tracing::warn!(incarnation, %plan, "incarnation {incarnation} does not begin yet: {why}");
            }
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

/// The claim lies in the store. While members of the older life are `silent`, waits until each of them that reaches the store must have seen
/// it there; what is waited for is the second answer. Then looks once more: on a store that ignores conditions, of two
/// recoveries that claimed one number at one time the later may have replaced the earlier. What stands against the life is the first.
async fn outwait(node: &Node, silent: &[String]) -> (Option<String>, Option<String>) {
    let until = node.fence().begins_at();
    if silent.is_empty() {
        return (None, None);
    }
    if let Some(until) = until.and_then(|us| jiff::Timestamp::from_microsecond(us).ok()) {
        let waits = format!(
            "it waits until {until:.0}, because {} of the older life gave no answer: by then, where they reach the object store, they have seen there that their time is over",
            silent.join(", ")
        );
        return (None, Some(waits));
    }
    match node.store().ended_by(node.identity(), LOOK_WITHIN).await {
        Ok(against) => (against, None),
        Err(error) => {
            tracing::warn!("the claim of the new incarnation could not be read again: {error}");
            (None, None)
        }
    }
}

/// Asks every address that the older life had who is there. A node of the older life that answers and has not fenced
/// itself stands against the new one: with a leader for as long as that lives, without one until it has fenced itself. Beside that, the
/// members of the older life of which nothing was heard.
async fn standing_against(
    node: &Node,
    pending: &BeginIncarnation,
) -> (Option<String>, Vec<String>) {
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
    let mut heard = BTreeSet::new();
    let mut waiting = None;
    for (addr, answer) in answers {
        let Ok(answer) = answer else { continue };
        let name = answer.node.as_ref().map_or("a node", |n| n.name.as_str());
        heard.insert((addr.clone(), name.to_owned()));
        let older = answer.cluster_uuid == node.cluster().uuid
            && answer.incarnation < node.cluster().incarnation
            && answer.state() == proto::hello_reply::State::Member;
        let other = answer.cluster_uuid == node.cluster().uuid
            && answer.incarnation == node.cluster().incarnation
            && answer.lineage != node.identity().lineage;
        if other {
            return (
                Some(format!(
                    "{name} at {addr} is of another recovery ({}) of the same incarnation\nhint: decide which one stays, stop the nodes of the other and set their data directories aside",
                    answer.lineage
                )),
                Vec::new(),
            );
        }
        if older && answer.lives {
            let (old, leader) = (answer.incarnation, answer.leader.as_ref());
            let what = leader.map_or_else(
                || "has had a leader since it started, and may have acknowledged what nobody collected".to_owned(),
                |leader| format!("follows {}", leader.name),
            );
            return (
                Some(format!(
                    "incarnation {old} lives: {name} at {addr} {what}\nhint: the recovery may have been a mistake; stop this node and run `drtool recover undo`, or stop the nodes of incarnation {old} for good"
                )),
                Vec::new(),
            );
        }
        if older {
            waiting = Some(format!(
                "{name} at {addr} is of incarnation {} and has not fenced itself yet",
                answer.incarnation
            ));
        }
    }
    // The registry is the older life's until this one has begun.
    let mut silent: Vec<String> = node
        .registered()
        .into_iter()
        .filter(|n| n.state() != NodeState::Retired && n.name != node.name())
        .map(|n| (n.peer_addr, n.name))
        .filter(|who| !heard.contains(who))
        .map(|(_, name)| name)
        .collect();
    silent.sort();
    (waiting, silent)
}
