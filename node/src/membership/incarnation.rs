//! A new life of the cluster begins: what a recovery or a restore left in the data directory is committed in every group.
//!
//! Until then nothing of that life is acknowledged, and it ends no other (I13). Before it begins, every node of the
//! older life that can be reached is told, and fences itself unless one of its groups has a leader or had one since it
//! started; that one holds the new life back, because then a quorum lives, or has acknowledged what nobody collected, and
//! the recovery was a mistake that can still be undone.
//!
//! Whoever of the older life does not answer may be an old majority that reaches the store and not us. So the life waits until they have
//! seen its claim there, or acknowledge nothing more ([`super::claim`], [`crate::fence`]). Heard is who says by its own id that it is of this
//! life or fenced: at the address of another, or under its name, a replacement may answer that knows nothing of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use confman_store::Identity;
use confman_store::command::{BeginIncarnation, Op};
use confman_store::records::{IncarnationKind, NodeRecord, NodeState};

use crate::forward;
use crate::node::Node;
use crate::peer::client::hello;
use crate::peer::proto;
use crate::peer::proto::hello_reply::State;

use super::claim::{Claiming, Standing};

/// One look: begins the life in every group that this node leads, when nothing stands against it. Says whether all
/// groups have begun it.
pub(super) async fn turn(node: &Arc<Node>, claiming: &mut Claiming) -> bool {
    if node.has_begun() {
        return true;
    }
    let Some(pending) = node.pending() else {
        return false;
    };
    // Whom to ask and to wait for stands in the registry, and a state may be far behind its log: to one that is empty yet, nobody is.
    if pending.kind() != IncarnationKind::Copy {
        let meta = node.meta();
        if !meta.has_applied_its_log() {
            node.hold_back(Some(format!("{} has not applied its log yet", meta.id())));
            return false;
        }
        if let Err(error) = node.refresh_registry() {
            tracing::error!("read the registry of nodes: {error}");
            return false;
        }
    }
    // A copy has no older life, and asks nobody: not the store either, which is claimed when something is written.
    let copy = pending.kind() == IncarnationKind::Copy;
    let (mut standing, silent) = match copy {
        true => (None, Vec::new()),
        false => standing_against(node, pending).await,
    };
    let mut waits = None;
    let leads = node.groups().any(|g| g.is_leader() && !g.has_begun());
    if leads && standing.is_none() && !copy {
        // Of two recoveries that reach the store one gets it, before either acknowledges anything.
        let claimed = claiming.turn(node, pending.kind(), &silent).await;
        Standing {
            against: standing,
            waits,
        } = claimed;
    } else {
        claiming.pause();
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
        fail::fail_point!("life::before-begin");
        match forward::propose(node, group, Op::BeginIncarnation(pending.clone())).await {
            Ok(_) => {
                // It has begun in some groups, and not in those that come after.
                fail::fail_point!("life::after-begin");
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
        heard.extend(heard_id(node.identity(), &answer));
        let older = answer.cluster_uuid == node.cluster().uuid
            && answer.incarnation < node.cluster().incarnation
            && answer.state() == State::Member;
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
                "{name} at {addr} is of incarnation {} and has not fenced itself yet\nhint: it does so when it is asked, which is every moment; where this stays, see its log, or stop it for good",
                answer.incarnation
            ));
        }
    }
    // The registry is the older life's until this one has begun.
    let own = [node.id(), pending.survivor_id];
    (waiting, silent(&node.registered(), &own, &heard))
}

/// The id of the older life that need not be waited for, because its own process says that it is of this life or that it is fenced.
/// Whoever else answers is somebody else: an empty machine, or a new one of the same name and address.
fn heard_id(own: &Identity, answer: &proto::HelloReply) -> Option<u64> {
    if answer.cluster_uuid != own.cluster_uuid {
        return None;
    }
    let of_this_life = answer.state() == State::Member
        && answer.incarnation == own.incarnation
        && answer.lineage == own.lineage;
    let fenced = answer.state() == State::Fenced && answer.incarnation < own.incarnation;
    let id = answer.node.as_ref().map_or(0, |n| n.id);
    (id != 0 && (of_this_life || fenced)).then_some(id)
}

/// The names of those registered of whom nothing was heard, but for this very directory's ids in the new life and in the older one. A
/// node may have its name and another id: that is another one.
fn silent(registered: &[NodeRecord], own: &[u64], heard: &BTreeSet<u64>) -> Vec<String> {
    let unheard = |n: &&NodeRecord| {
        n.state() != NodeState::Retired && !own.contains(&n.id) && !heard.contains(&n.id)
    };
    let mut names: Vec<String> = registered
        .iter()
        .filter(unheard)
        .map(|n| format!("{} (node id {})", n.name, n.id))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "11111111-1111-4111-8111-111111111111";

    fn own() -> Identity {
        Identity {
            cluster_uuid: UUID.to_owned(),
            incarnation: 2,
            lineage: "plan".to_owned(),
            node_id: 4,
            name: "node1".to_owned(),
            ..Default::default()
        }
    }

    fn registered() -> Vec<NodeRecord> {
        let record = |id: u64| NodeRecord {
            id,
            name: format!("node{id}"),
            peer_addr: format!("node{id}:6101"),
            ..Default::default()
        };
        (1..=3).map(record).collect()
    }

    fn answer(name: &str, id: u64, state: State, incarnation: u64) -> proto::HelloReply {
        proto::HelloReply {
            state: state.into(),
            cluster_uuid: match state {
                State::Empty => String::new(),
                _ => UUID.to_owned(),
            },
            incarnation,
            lineage: match incarnation {
                2 => "plan".to_owned(),
                _ => String::new(),
            },
            node: Some(proto::Node {
                id,
                name: name.to_owned(),
                peer_addr: format!("{name}:6101"),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// Of whom nothing was heard, for a node that was `survivor` in the older life, or nobody.
    fn unheard(survivor: u64, answers: &[proto::HelloReply]) -> Vec<String> {
        let own = own();
        let heard = answers.iter().filter_map(|a| heard_id(&own, a)).collect();
        silent(&registered(), &[own.node_id, survivor], &heard)
    }

    /// Machines that were replaced answer by the names and at the addresses of the old ones; the old ones may go on elsewhere.
    #[test]
    fn i13_replacements_at_the_old_addresses_are_not_the_old_members() {
        let all = [
            "node1 (node id 1)",
            "node2 (node id 2)",
            "node3 (node id 3)",
        ];
        let empty = [
            answer("node2", 0, State::Empty, 0),
            answer("node3", 0, State::Empty, 0),
        ];
        assert_eq!(unheard(0, &empty), all);
        let members = [
            answer("node2", 5, State::Member, 2),
            answer("node3", 6, State::Member, 2),
        ];
        assert_eq!(unheard(0, &members), all, "under new ids");
        let another_plan = proto::HelloReply {
            lineage: "another".to_owned(),
            ..answer("node2", 2, State::Member, 2)
        };
        let another_cluster = proto::HelloReply {
            cluster_uuid: UUID.replace('1', "2"),
            ..answer("node3", 3, State::Fenced, 1)
        };
        assert_eq!(unheard(0, &[another_plan, another_cluster]), all);
    }

    #[test]
    fn i13_who_is_of_the_new_life_or_fenced_by_its_own_id_is_heard() {
        let answers = [
            answer("node2", 2, State::Member, 2),
            answer("node3", 3, State::Fenced, 1),
        ];
        assert!(unheard(1, &answers).is_empty());
        assert_eq!(unheard(1, &answers[..1]), ["node3 (node id 3)"]);
    }
}
