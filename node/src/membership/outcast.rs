//! A node whose id was retired and that nobody speaks to any more finds it out by asking.
//!
//! Whoever is taken out of a group is not sent the entry that says so, and a learner never asks for votes: without this it
//! would run on for ever, and say that it knows no leader.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::node::Node;
use crate::peer::client::hello;

const ASK_AGAIN: Duration = Duration::from_secs(2);

/// When the others were asked last.
#[derive(Default)]
pub(super) struct Outcast {
    asked: Option<Instant>,
}

impl Outcast {
    /// Asks now and then, while this node hears from nobody or is no member.
    pub(super) async fn turn(&mut self, node: &Node) {
        let meta = node.meta();
        let member = node.groups().all(|group| {
            let raft = group.metrics();
            let membership = raft.membership_config.membership();
            membership.get_node(&node.id()).is_some()
        });
        let alone = meta.leader_peer().is_none() || !member;
        let due = self.asked.is_none_or(|at| at.elapsed() > ASK_AGAIN);
        if !alone || !due {
            return;
        }
        self.asked = Some(Instant::now());
        if let Some(reason) = ask(node).await {
            node.told_retired(reason);
        }
    }
}

/// What another node of this life says of this node's id, if it calls it retired.
async fn ask(node: &Node) -> Option<String> {
    let own = &node.settings().peer_advertise;
    let addresses: BTreeSet<String> = node
        .registered()
        .into_iter()
        .filter(|n| n.id != node.id())
        .map(|n| n.peer_addr)
        .chain(node.settings().peers.iter().map(|p| p.addr.clone()))
        .filter(|addr| addr != own && !addr.is_empty())
        .collect();
    let asked = addresses
        .iter()
        .map(|addr| hello(node.channels(), addr, node.question()));
    futures::future::join_all(asked)
        .await
        .into_iter()
        .flatten()
        .find(|answer| {
            answer.caller_retired
                && answer.cluster_uuid == node.cluster().uuid
                && answer.incarnation == node.cluster().incarnation
                && answer.lineage == node.identity().lineage
        })
        .map(|answer| answer.caller_retired_reason)
}
