//! Brings the membership of every group that this node leads to what the registry says, one step at a time.
//!
//! It keeps no state of its own: at every turn it reads the registry and Raft's metrics, asks the planner
//! ([`plan::next`]) and takes one step. Killed anywhere, the next leader goes on. What a group waits for is shown in
//! status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use confman_snapshot::Digest;
use confman_store::membership::{ChangeKind, Registry};
use confman_store::records::NodeState;
use confman_store::types::Member;
use openraft::{ChangeMembers, Instant as _};

use super::plan::{self, Next, Registered, Step, View, Wishes};
use super::settle::Place;
use crate::group::{Group, Raft};
use crate::node::Node;
use crate::peer::client::{Purpose, with_deadline};
use crate::peer::proto;

const STEP_WITHIN: Duration = Duration::from_secs(15);
/// How long a node takes to say its state hash.
const ASK_WITHIN: Duration = Duration::from_secs(5);
/// How long a transfer takes before it is tried again.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(3);

/// One look at every group that this node leads.
pub(super) async fn turn(node: &Arc<Node>, registry: &Registry) {
    if registry.nodes.is_empty() {
        return;
    }
    let steps = node.groups().map(|group| async move {
        let wait = if group.is_leader() {
            group_turn(node, group, registry).await
        } else {
            None
        };
        node.wait_for(group.id(), wait);
    });
    futures::future::join_all(steps).await;
}

/// What the registry wishes of `group`.
fn wishes(group: &Group, registry: &Registry) -> Wishes {
    let running = registry.running();
    let replacing = running.filter(|c| c.kind() == ChangeKind::Replace && c.node_id != 0);
    let nodes = registry
        .nodes
        .iter()
        .filter(|n| n.state() != NodeState::Retired)
        .map(|n| Registered {
            id: n.id,
            name: n.name.clone(),
            api_url: n.api_url.clone(),
            peer_addr: n.peer_addr.clone(),
            wish: n.wish(),
            // Only while that change runs: one that was called off replaces nobody.
            replaces: replacing.filter(|c| c.node_id == n.id).map(|c| c.old_id),
        })
        .collect();
    Wishes {
        nodes,
        retired: registry
            .nodes
            .iter()
            .filter(|n| n.state() == NodeState::Retired)
            .map(|n| n.id)
            .collect(),
        lead: running
            .filter(|c| c.kind() == ChangeKind::Transfer)
            .filter(|c| c.group.is_empty() || c.group == group.id().to_string())
            .map(|c| c.node_id),
    }
}

/// The committed membership of every group, as this node's replicas have it.
pub(super) fn places(node: &Node) -> Vec<Place> {
    node.groups()
        .map(|group| {
            let raft = group.metrics();
            let committed = raft.committed_membership_config.membership();
            let newest = raft.membership_config.membership();
            Place {
                group: group.id().to_string(),
                voters: committed.voter_ids().collect(),
                // What is being taken out is there until that is committed.
                members: committed
                    .nodes()
                    .chain(newest.nodes())
                    .map(|(id, _)| *id)
                    .collect(),
                joint: committed.get_joint_config().len() != 1
                    || newest.get_joint_config().len() != 1,
                leader: group.leader_peer().map(|l| l.info.id),
            }
        })
        .collect()
}

/// Those that answered this leader within the time after which a leader counts as gone; itself too.
pub(crate) fn alive(node: &Node, group: &Group) -> BTreeSet<u64> {
    let raft = group.metrics();
    let silence = node.settings().election_max;
    raft.heartbeat
        .iter()
        .flatten()
        .filter(|(_, at)| at.as_ref().is_some_and(|at| at.elapsed() < silence))
        .map(|(id, _)| *id)
        .chain([node.id()])
        .collect()
}

fn view(node: &Node, group: &Group) -> View {
    let raft = group.metrics();
    let membership = raft.membership_config.membership();
    let matched = raft
        .replication
        .iter()
        .flatten()
        .filter_map(|(id, log_id)| Some((*id, log_id.as_ref()?.index)))
        .collect::<BTreeMap<_, _>>();
    let elsewhere = if group.id().is_meta() {
        places(node)
            .into_iter()
            .filter(|place| place.group != group.id().to_string())
            .flat_map(|place| place.members)
            .collect()
    } else {
        BTreeSet::new()
    };
    View {
        own: node.id(),
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
        alive: alive(node, group),
        committed: raft.local_committed.as_ref().map_or(0, |id| id.index),
        elsewhere,
    }
}

/// Takes the next step, if there is one; gives what is waited for.
async fn group_turn(node: &Node, group: &Arc<Group>, registry: &Registry) -> Option<String> {
    let view = view(node, group);
    // Before the first entries are committed there is nothing to change.
    if view.members.is_empty() {
        return None;
    }
    let wishes = wishes(group, registry);
    let step = match plan::next(&wishes, &view) {
        Next::Rest => return None,
        Next::Wait(why) => return Some(why),
        Next::Step(step) => step,
    };
    if let Step::Promote { add, .. } = &step
        && let Some(learner) = wishes.nodes.iter().find(|n| n.id == *add)
        && let Err(why) = same_state(node, group, learner).await
    {
        return Some(why);
    }
    tracing::info!(group = %group.id(), ?step, "membership step");
    let (before, after) = points(&step);
    // Without the feature nothing else reads them.
    let _ = (before, after);
    fail::fail_point!(before);
    #[cfg(feature = "failpoints")]
    let _watched = crate::killpoints::watch_for_joint(group);
    let taken = tokio::time::timeout(STEP_WITHIN, take(group, &view, &step)).await;
    fail::fail_point!(after);
    match taken {
        Ok(Ok(())) => None,
        Ok(Err(error)) => {
            if let Some(kept_back) = node.may_tell(group.id(), "membership-step") {
                tracing::warn!(group = %group.id(), ?step, kept_back, "membership step, to be tried again: {error}");
            }
            Some(format!("a step that failed and is tried again: {error}"))
        }
        Err(_) => {
            tracing::warn!(group = %group.id(), ?step, "membership step was not confirmed within {STEP_WITHIN:?}, to be looked at again");
            Some(format!(
                "a step that was not confirmed within {STEP_WITHIN:?}"
            ))
        }
    }
}

/// The places before and after a step at which a test kills the program.
fn points(step: &Step) -> (&'static str, &'static str) {
    match step {
        Step::AddLearner(_) => (
            "membership::before-add-learner",
            "membership::after-add-learner",
        ),
        Step::Promote { .. } => ("membership::before-promote", "membership::after-promote"),
        Step::Demote(_) => ("membership::before-demote", "membership::after-demote"),
        Step::RemoveVoter(_) => (
            "membership::before-remove-voter",
            "membership::after-remove-voter",
        ),
        Step::Remove(_) => ("membership::before-remove", "membership::after-remove"),
        Step::Readdress(_) => (
            "membership::before-readdress",
            "membership::after-readdress",
        ),
        Step::Finish(_) => ("membership::before-finish", "membership::after-finish"),
        Step::HandOver(_) => (
            "membership::before-hand-over",
            "membership::after-hand-over",
        ),
    }
}

async fn take(group: &Group, view: &View, step: &Step) -> Result<(), String> {
    let raft = group.raft();
    let without = |gone: &dyn Fn(u64) -> bool| -> BTreeSet<u64> {
        view.voters
            .iter()
            .copied()
            .filter(|id| !gone(*id))
            .collect()
    };
    // With `true` whoever stops voting is kept as a learner.
    let (voters, keep) = match step {
        Step::AddLearner(node) => {
            let added = raft.add_learner(node.id, member(node), false).await;
            return added.map(|_| ()).map_err(|e| e.to_string());
        }
        Step::Remove(ids) => {
            return change(raft, ChangeMembers::RemoveNodes(ids.clone()), false).await;
        }
        Step::Readdress(node) => {
            let nodes = BTreeMap::from([(node.id, member(node))]);
            return change(raft, ChangeMembers::SetNodes(nodes), false).await;
        }
        Step::HandOver(to) => return hand_over(group, *to).await,
        Step::Promote { add, remove } => {
            let mut voters = without(&|id| remove.contains(&id));
            voters.insert(*add);
            (voters, false)
        }
        Step::Demote(gone) => (without(&|id| id == *gone), true),
        Step::RemoveVoter(gone) => (without(&|id| id == *gone), false),
        // What was meant is not known any more: who shall not be fed is taken out by a step of its own.
        Step::Finish(voters) => (voters.clone(), true),
    };
    change(raft, ChangeMembers::ReplaceAllVoters(voters), keep).await
}

async fn change(raft: &Raft, change: ChangeMembers<u64, Member>, keep: bool) -> Result<(), String> {
    let changed = raft.change_membership(change, keep).await;
    changed.map(|_| ()).map_err(|error| error.to_string())
}

fn member(node: &Registered) -> Member {
    Member {
        name: node.name.clone(),
        api_url: node.api_url.clone(),
        peer_addr: node.peer_addr.clone(),
    }
}

async fn hand_over(group: &Group, to: u64) -> Result<(), String> {
    match group.hand_over(HAND_OVER_WITHIN, |_| Some(to)).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("node id {to} did not come to lead")),
        Err(fatal) => Err(fatal.to_string()),
    }
}

/// Whether the learner has the state that this leader had at the learner's position. What cannot be compared is not
/// called equal: it is asked again at the next turn, at another position.
async fn same_state(node: &Node, group: &Arc<Group>, learner: &Registered) -> Result<(), String> {
    let (index, theirs) = ask_state(group, learner).await?;
    let mut applied = group.state().applied_watch();
    let reached = tokio::time::timeout(ASK_WITHIN, applied.wait_for(|at| *at >= index)).await;
    if !matches!(reached, Ok(Ok(_))) {
        return Err(format!(
            "{} is at {index}, where this leader is not yet",
            learner.name
        ));
    }
    drop(reached);
    let state = group.state().clone();
    let own = tokio::task::spawn_blocking(move || state.hash_at(index))
        .await
        .map_err(|e| e.to_string())?;
    match own {
        Some(own) if own == theirs => Ok(()),
        Some(own) => {
            metrics::counter!("confman_state_hash_mismatches_total", "group" => group.id().to_string())
                .increment(1);
            let why = format!(
                "the state of {} ({}) is not the leader's at {index}: {theirs} and {own}; it does not vote",
                learner.name, learner.id
            );
            // It is asked again at every turn, for as long as it differs.
            if let Some(kept_back) = node.may_tell(group.id(), "a learner that differs") {
                tracing::error!(group = %group.id(), kept_back, "{why}");
            }
            Err(why)
        }
        None => Err(format!(
            "the state of {} ({}) at {index} cannot be compared: this leader does not remember its own there",
            learner.name, learner.id
        )),
    }
}

async fn ask_state(group: &Group, learner: &Registered) -> Result<(u64, Digest), String> {
    let failed = |e: &dyn std::fmt::Display| {
        format!(
            "{} ({}) does not tell its state hash: {e}",
            learner.name, learner.id
        )
    };
    let stub = group
        .channels()
        .stub(&learner.peer_addr, Purpose::Control)
        .map_err(|e| failed(&e))?;
    let ask = || {
        let mut stub = stub.clone();
        let request = proto::StateAtRequest {
            header: Some(group.header(learner.id)),
        };
        async move { stub.state_at(with_deadline(request, ASK_WITHIN)).await }
    };
    let reply = group
        .acquaintances()
        .call(learner.id, &learner.peer_addr, ask)
        .await
        .map_err(|s| failed(&s.message()))?
        .0
        .into_inner();
    let hash = Digest::from_slice(&reply.hash).map_err(|e| failed(&e))?;
    Ok((reply.index, hash))
}
