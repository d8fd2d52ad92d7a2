//! The next step of a group's membership: a plain function of what is registered and what is there.
//!
//! The registry in `__meta/0` says which nodes exist; the newest id under a name is the one that
//! shall vote, older ids under that name are what a lost disk left behind (promise I14). Steps, one
//! at a time: learner first, then, when it has caught up, one joint change that lets it vote and
//! takes its predecessors away together, so that the number of voters never changes on the way.

use std::collections::{BTreeMap, BTreeSet};

/// A registered node, not retired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Registered {
    /// Node id.
    pub(crate) id: u64,
    /// The operator's name for it.
    pub(crate) name: String,
    /// URL of its API.
    pub(crate) api_url: String,
    /// Address of its peer listener.
    pub(crate) peer_addr: String,
}

/// The group as its leader sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// Ids that vote.
    pub(crate) voters: BTreeSet<u64>,
    /// Every member with the address it was added under: (`api_url`, `peer_addr`).
    pub(crate) members: BTreeMap<u64, (String, String)>,
    /// The newest membership is not committed yet.
    pub(crate) pending: bool,
    /// A joint membership is committed, and this is the set of voters it leads to: the leader that
    /// began the change died between its two entries.
    pub(crate) joint_towards: Option<BTreeSet<u64>>,
    /// Highest log index known to be on each member.
    pub(crate) matched: BTreeMap<u64, u64>,
    /// Committed index.
    pub(crate) committed: u64,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Feed this node; it does not vote.
    AddLearner(Registered),
    /// Let `add` vote, and take `remove` away, in one change.
    Promote {
        /// The caught-up learner.
        add: u64,
        /// Its predecessors under the same name.
        remove: BTreeSet<u64>,
    },
    /// Stop feeding these: a newer id took their name.
    Remove(BTreeSet<u64>),
    /// A node that kept its disk moved to another address.
    Readdress(Registered),
    /// Finish a joint change that was left half way.
    Finish(BTreeSet<u64>),
}

/// How far behind a learner may be, in entries, to be let vote.
pub(crate) const PROMOTE_LAG_MAX: u64 = 500;

/// The next step, if any. `registered` holds the nodes that are not retired.
pub(crate) fn next_step(registered: &[Registered], view: &View) -> Option<Step> {
    if view.pending {
        return None;
    }
    if let Some(voters) = &view.joint_towards {
        return Some(Step::Finish(voters.clone()));
    }
    let mut newest: BTreeMap<&str, &Registered> = BTreeMap::new();
    for node in registered {
        let slot = newest.entry(node.name.as_str()).or_insert(node);
        if node.id > slot.id {
            *slot = node;
        }
    }
    let current: BTreeSet<u64> = newest.values().map(|n| n.id).collect();

    for node in newest.values() {
        match view.members.get(&node.id) {
            None => return Some(Step::AddLearner((*node).clone())),
            Some((api_url, peer_addr))
                if *api_url != node.api_url || *peer_addr != node.peer_addr =>
            {
                return Some(Step::Readdress((*node).clone()));
            }
            Some(_) => {}
        }
        if view.voters.contains(&node.id) {
            continue;
        }
        let matched = view.matched.get(&node.id).copied();
        let caught_up = matched.is_some_and(|m| m + PROMOTE_LAG_MAX >= view.committed);
        if caught_up {
            let remove = registered
                .iter()
                .filter(|other| other.name == node.name && other.id != node.id)
                .map(|other| other.id)
                .filter(|id| view.members.contains_key(id))
                .collect();
            return Some(Step::Promote {
                add: node.id,
                remove,
            });
        }
    }
    // What is left over: retired ids and superseded learners, never a voter whose successor waits.
    let leftover: BTreeSet<u64> = view
        .members
        .keys()
        .copied()
        .filter(|id| !current.contains(id) && !view.voters.contains(id))
        .collect();
    (!leftover.is_empty()).then_some(Step::Remove(leftover))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64, name: &str) -> Registered {
        Registered {
            id,
            name: name.to_owned(),
            api_url: format!("http://{name}:6100"),
            peer_addr: format!("{name}:6101"),
        }
    }

    fn view(voters: &[u64], nodes: &[&Registered], matched: &[(u64, u64)]) -> View {
        View {
            voters: voters.iter().copied().collect(),
            members: nodes
                .iter()
                .map(|n| (n.id, (n.api_url.clone(), n.peer_addr.clone())))
                .collect(),
            pending: false,
            joint_towards: None,
            matched: matched.iter().copied().collect(),
            committed: 10_000,
        }
    }

    #[test]
    fn a_cluster_at_rest_needs_no_step() {
        let (a, b, c) = (node(1, "a"), node(2, "b"), node(3, "c"));
        let v = view(
            &[1, 2, 3],
            &[&a, &b, &c],
            &[(1, 10_000), (2, 10_000), (3, 9_000)],
        );
        assert_eq!(next_step(&[a, b, c], &v), None);
    }

    #[test]
    fn i14_a_new_id_learns_first_and_then_takes_its_predecessors_place_in_one_change() {
        let (a, b, c, d) = (node(1, "a"), node(2, "b"), node(3, "c"), node(4, "c"));
        let all = [a.clone(), b.clone(), c.clone(), d.clone()];
        let v = view(&[1, 2, 3], &[&a, &b, &c], &[(1, 10_000), (2, 10_000)]);
        assert_eq!(next_step(&all, &v), Some(Step::AddLearner(d.clone())));

        let v = view(
            &[1, 2, 3],
            &[&a, &b, &c, &d],
            &[(1, 10_000), (2, 10_000), (4, 9_000)],
        );
        assert_eq!(
            next_step(&all, &v),
            None,
            "a thousand entries behind: not yet"
        );

        let v = view(
            &[1, 2, 3],
            &[&a, &b, &c, &d],
            &[(1, 10_000), (2, 10_000), (4, 9_900)],
        );
        let step = next_step(&all, &v);
        assert_eq!(
            step,
            Some(Step::Promote {
                add: 4,
                remove: BTreeSet::from([3])
            })
        );
    }

    #[test]
    fn a_disk_lost_twice_leaves_no_half_joined_id_behind() {
        let (a, b, c, d, e) = (
            node(1, "a"),
            node(2, "b"),
            node(3, "c"),
            node(4, "c"),
            node(5, "c"),
        );
        let all = [a.clone(), b.clone(), c.clone(), d.clone(), e.clone()];
        let v = view(
            &[1, 2, 3],
            &[&a, &b, &c, &d, &e],
            &[(1, 10_000), (2, 10_000), (4, 10_000), (5, 10_000)],
        );
        let step = next_step(&all, &v);
        assert_eq!(
            step,
            Some(Step::Promote {
                add: 5,
                remove: BTreeSet::from([3, 4])
            })
        );
    }

    #[test]
    fn a_retired_learner_is_removed_and_a_voter_without_successor_is_not() {
        let (a, b, c, d) = (node(1, "a"), node(2, "b"), node(3, "c"), node(4, "c"));
        // 3 is retired (not registered any more) but still a learner somewhere.
        let v = view(&[1, 2, 4], &[&a, &b, &c, &d], &[]);
        let step = next_step(&[a.clone(), b.clone(), d.clone()], &v);
        assert_eq!(step, Some(Step::Remove(BTreeSet::from([3]))));
        // A voter that nobody registered is never taken away by this planner.
        let v = view(&[1, 2, 3], &[&a, &b, &c], &[]);
        assert_eq!(next_step(&[a, b], &v), None);
    }

    #[test]
    fn nothing_begins_before_the_last_change_is_committed_and_a_half_way_one_is_finished_first() {
        let (a, d) = (node(1, "a"), node(4, "c"));
        let mut v = view(&[1], &[&a], &[]);
        v.pending = true;
        assert_eq!(next_step(&[a.clone(), d.clone()], &v), None);
        v.pending = false;
        v.joint_towards = Some(BTreeSet::from([1, 2]));
        assert_eq!(
            next_step(&[a, d], &v),
            Some(Step::Finish(BTreeSet::from([1, 2])))
        );
    }

    #[test]
    fn a_node_that_moved_is_readdressed() {
        let (a, b) = (node(1, "a"), node(2, "b"));
        let v = view(&[1, 2], &[&a, &b], &[]);
        let moved = Registered {
            peer_addr: "elsewhere:6101".to_owned(),
            ..b
        };
        assert_eq!(
            next_step(&[a, moved.clone()], &v),
            Some(Step::Readdress(moved))
        );
    }
}
