//! Whether what was wished has come to be: plain functions of the registry and of the memberships as this node's replicas
//! have them.

use std::collections::BTreeSet;

use confman_store::membership::{ChangeKind, ChangeRecord, NodeWish};
use confman_store::records::{NodeRecord, NodeState};

/// How long a transfer is tried.
const TRANSFER_WITHIN_US: i64 = 30_000_000;

/// The committed membership of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) group: String,
    pub(crate) voters: BTreeSet<u64>,
    pub(crate) members: BTreeSet<u64>,
    pub(crate) joint: bool,
    pub(crate) leader: Option<u64>,
}

/// What is to be told of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// It goes on.
    Running,
    /// It has come to be.
    Done,
    /// It cannot come to be.
    GivenUp(String),
}

fn votes(places: &[Place], id: u64) -> bool {
    places.iter().all(|p| !p.joint && p.voters.contains(&id))
}

fn learns(places: &[Place], id: u64) -> bool {
    places
        .iter()
        .all(|p| !p.joint && p.members.contains(&id) && !p.voters.contains(&id))
}

fn absent(places: &[Place], id: u64) -> bool {
    places
        .iter()
        .all(|p| !p.joint && !p.members.contains(&id) && !p.voters.contains(&id))
}

/// A joining node has become what it shall be, and nobody is left whose place it takes.
pub(crate) fn arrived(node: &NodeRecord, nodes: &[NodeRecord], places: &[Place]) -> bool {
    let there = match node.wish() {
        NodeWish::Voter => votes(places, node.id),
        NodeWish::Learner => learns(places, node.id),
        NodeWish::Gone => false,
    };
    there
        && nodes
            .iter()
            .filter(|old| old.id != node.id && old.state() != NodeState::Retired)
            .filter(|old| {
                node.replaces == Some(old.id) || (old.name == node.name && old.id < node.id)
            })
            .all(|old| absent(places, old.id))
}

/// How it stands with the change that is under way.
pub(crate) fn settled(
    change: &ChangeRecord,
    nodes: &[NodeRecord],
    places: &[Place],
    now_us: i64,
) -> Settled {
    let node = nodes.iter().find(|n| n.id == change.node_id);
    let done = |done: bool| {
        if done {
            Settled::Done
        } else {
            Settled::Running
        }
    };
    if change.node_id == 0 {
        // The name is expected and has not come.
        return Settled::Running;
    }
    let Some(node) = node else {
        return Settled::GivenUp(format!("there is no node id {}", change.node_id));
    };
    if node.state() == NodeState::Retired && change.kind() != ChangeKind::Remove {
        return Settled::GivenUp(format!("node id {} ({}) was retired", node.id, node.name));
    }
    match change.kind() {
        ChangeKind::Add => done(node.state() == NodeState::Active),
        ChangeKind::Promote => done(votes(places, node.id)),
        ChangeKind::Demote => done(learns(places, node.id)),
        ChangeKind::Remove => done(
            nodes
                .iter()
                .filter(|n| n.name == change.name && n.id <= change.node_id)
                .all(|n| absent(places, n.id)),
        ),
        ChangeKind::Replace => done(
            node.state() == NodeState::Active
                && votes(places, node.id)
                && absent(places, change.old_id),
        ),
        ChangeKind::Transfer => {
            let mut wanted = places
                .iter()
                .filter(|p| change.group.is_empty() || p.group == change.group);
            let behind: Vec<&Place> = wanted
                .by_ref()
                .filter(|p| p.leader != Some(node.id))
                .collect();
            match behind.first() {
                None => Settled::Done,
                Some(p) if now_us.saturating_sub(change.begun_us) > TRANSFER_WITHIN_US => {
                    Settled::GivenUp(format!(
                        "{} did not come to lead {} within {} s",
                        node.name,
                        p.group,
                        TRANSFER_WITHIN_US / 1_000_000
                    ))
                }
                Some(_) => Settled::Running,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64, name: &str) -> NodeRecord {
        NodeRecord {
            id,
            name: name.to_owned(),
            state: NodeState::Active.into(),
            ..NodeRecord::default()
        }
    }

    fn place(group: &str, voters: &[u64], learners: &[u64]) -> Place {
        Place {
            group: group.to_owned(),
            voters: voters.iter().copied().collect(),
            members: voters.iter().chain(learners).copied().collect(),
            joint: false,
            leader: voters.first().copied(),
        }
    }

    fn change(kind: ChangeKind, name: &str, node_id: u64) -> ChangeRecord {
        ChangeRecord {
            id: "c".to_owned(),
            kind: kind.into(),
            name: name.to_owned(),
            node_id,
            ..ChangeRecord::default()
        }
    }

    #[test]
    fn a_change_is_done_when_every_group_is_there_and_none_is_between_two_memberships() {
        let nodes = [node(1, "a"), node(2, "b"), node(3, "c")];
        let mut places = [
            place("__meta/0", &[1, 2, 3], &[]),
            place("config/0", &[1, 2], &[3]),
        ];
        let told = |kind, places: &[Place]| settled(&change(kind, "c", 3), &nodes, places, 0);
        assert_eq!(told(ChangeKind::Promote, &places), Settled::Running);
        assert_eq!(told(ChangeKind::Demote, &places), Settled::Running);
        assert_eq!(told(ChangeKind::Remove, &places), Settled::Running);
        places[1] = place("config/0", &[1, 2, 3], &[]);
        assert_eq!(told(ChangeKind::Promote, &places), Settled::Done);
        places[1].joint = true;
        assert_eq!(told(ChangeKind::Promote, &places), Settled::Running);
        let places = [
            place("__meta/0", &[1, 2], &[3]),
            place("config/0", &[1, 2], &[3]),
        ];
        assert_eq!(told(ChangeKind::Demote, &places), Settled::Done);
        let places = [
            place("__meta/0", &[1, 2], &[]),
            place("config/0", &[1, 2], &[]),
        ];
        assert_eq!(told(ChangeKind::Remove, &places), Settled::Done);
        assert_eq!(told(ChangeKind::Demote, &places), Settled::Running);
    }

    #[test]
    fn an_add_waits_for_its_node_and_a_replacement_for_both() {
        let mut nodes = vec![node(1, "a"), node(2, "b")];
        let expected = change(ChangeKind::Add, "c", 0);
        let places = [place("__meta/0", &[1, 2], &[])];
        assert_eq!(settled(&expected, &nodes, &places, 0), Settled::Running);
        let mut joining = node(3, "c");
        joining.set_state(NodeState::Joining);
        joining.replaces = Some(2);
        nodes.push(joining);
        let replace = ChangeRecord {
            old_name: "b".to_owned(),
            old_id: 2,
            ..change(ChangeKind::Replace, "c", 3)
        };
        let both = [place("__meta/0", &[1, 2, 3], &[])];
        assert!(!arrived(&nodes[2], &nodes, &both), "the old one votes");
        let one = [place("__meta/0", &[1, 3], &[])];
        assert!(arrived(&nodes[2], &nodes, &one));
        assert_eq!(
            settled(&replace, &nodes, &one, 0),
            Settled::Running,
            "it is not active yet"
        );
        nodes[2].set_state(NodeState::Active);
        assert_eq!(settled(&replace, &nodes, &one, 0), Settled::Done);
        assert_eq!(settled(&replace, &nodes, &both, 0), Settled::Running);
    }

    #[test]
    fn a_transfer_is_done_in_one_group_or_all_and_given_up_after_a_while() {
        let nodes = [node(1, "a"), node(2, "b")];
        let mut places = [
            place("__meta/0", &[1, 2], &[]),
            place("config/0", &[1, 2], &[]),
        ];
        places[1].leader = Some(2);
        let all = change(ChangeKind::Transfer, "b", 2);
        let one = ChangeRecord {
            group: "config/0".to_owned(),
            ..all.clone()
        };
        assert_eq!(settled(&one, &nodes, &places, 0), Settled::Done);
        assert_eq!(settled(&all, &nodes, &places, 0), Settled::Running);
        let later = TRANSFER_WITHIN_US + 1;
        assert!(
            matches!(settled(&all, &nodes, &places, later), Settled::GivenUp(why) if why.contains("__meta/0"))
        );
    }
}
