//! Stories of steps, and what holds of every walk from one membership to another.

use proptest::prelude::*;

use super::*;

fn node(id: u64, name: &str) -> Registered {
    Registered {
        id,
        name: name.to_owned(),
        api_url: format!("http://{name}:6100"),
        peer_addr: format!("{name}:6101"),
        wish: NodeWish::Voter,
        replaces: None,
    }
}

fn wished(id: u64, name: &str, wish: NodeWish) -> Registered {
    Registered {
        wish,
        ..node(id, name)
    }
}

fn wishes(nodes: &[&Registered]) -> Wishes {
    Wishes {
        nodes: nodes.iter().map(|n| (*n).clone()).collect(),
        ..Wishes::default()
    }
}

/// Led by node 1; everybody answers and has everything, unless `matched` says less.
fn view(voters: &[u64], nodes: &[&Registered], matched: &[(u64, u64)]) -> View {
    let mut all: BTreeMap<u64, u64> = nodes.iter().map(|n| (n.id, 10_000)).collect();
    all.extend(matched.iter().copied());
    View {
        own: 1,
        voters: voters.iter().copied().collect(),
        members: nodes
            .iter()
            .map(|n| (n.id, (n.api_url.clone(), n.peer_addr.clone())))
            .collect(),
        alive: nodes.iter().map(|n| n.id).collect(),
        matched: all,
        committed: 10_000,
        ..View::default()
    }
}

fn step(wishes: &Wishes, view: &View) -> Step {
    match next(wishes, view) {
        Next::Step(step) => step,
        other => panic!("{other:?}"),
    }
}

fn waits(wishes: &Wishes, view: &View) -> String {
    match next(wishes, view) {
        Next::Wait(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cluster_at_rest_needs_no_step() {
    let (a, b, c) = (node(1, "a"), node(2, "b"), node(3, "c"));
    let v = view(&[1, 2, 3], &[&a, &b, &c], &[(3, 9_000)]);
    assert_eq!(next(&wishes(&[&a, &b, &c]), &v), Next::Rest);
}

#[test]
fn i14_a_new_id_learns_first_and_then_takes_its_predecessors_place_in_one_change() {
    let (a, b, c, d) = (node(1, "a"), node(2, "b"), node(3, "c"), node(4, "c"));
    let all = wishes(&[&a, &b, &c, &d]);
    let v = view(&[1, 2, 3], &[&a, &b, &c], &[]);
    assert_eq!(step(&all, &v), Step::AddLearner(d.clone()));
    let v = view(&[1, 2, 3], &[&a, &b, &c, &d], &[(4, 9_000)]);
    assert_eq!(
        waits(&all, &v),
        "c (4) is 1000 entries behind, and may be 500 to vote"
    );
    let v = view(&[1, 2, 3], &[&a, &b, &c, &d], &[(4, 9_900)]);
    let promote = Step::Promote {
        add: 4,
        remove: BTreeSet::from([3]),
    };
    assert_eq!(step(&all, &v), promote);
}

#[test]
fn a_disk_lost_twice_leaves_no_half_joined_id_behind() {
    let (a, b, c) = (node(1, "a"), node(2, "b"), node(3, "c"));
    let (d, e) = (node(4, "c"), node(5, "c"));
    let v = view(&[1, 2, 3], &[&a, &b, &c, &d, &e], &[]);
    let promote = Step::Promote {
        add: 5,
        remove: BTreeSet::from([3, 4]),
    };
    assert_eq!(step(&wishes(&[&a, &b, &c, &d, &e]), &v), promote);
}

#[test]
fn i14_a_retired_learner_is_removed_and_what_nobody_registered_is_left_alone() {
    let (a, b, c, d) = (node(1, "a"), node(2, "b"), node(3, "c"), node(4, "c"));
    let v = view(&[1, 2, 4], &[&a, &b, &c, &d], &[]);
    let mut all = wishes(&[&a, &b, &d]);
    // Admitted, perhaps, by what this leader has not applied yet.
    assert_eq!(next(&all, &v), Next::Rest);
    all.retired.insert(3);
    assert_eq!(step(&all, &v), Step::Remove(BTreeSet::from([3])));
    // A voter that nobody registered is never taken away by this planner.
    let v = view(&[1, 2, 3], &[&a, &b, &c], &[]);
    assert_eq!(next(&wishes(&[&a, &b]), &v), Next::Rest);
}

#[test]
fn nothing_begins_before_the_last_change_is_committed_and_a_half_way_one_is_finished_first() {
    let (a, d) = (node(1, "a"), node(4, "c"));
    let mut v = view(&[1], &[&a], &[]);
    v.pending = true;
    assert_eq!(next(&wishes(&[&a, &d]), &v), Next::Rest);
    v.pending = false;
    v.joint_towards = Some(BTreeSet::from([1, 2]));
    assert_eq!(
        step(&wishes(&[&a, &d]), &v),
        Step::Finish(BTreeSet::from([1, 2]))
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
    assert_eq!(step(&wishes(&[&a, &moved]), &v), Step::Readdress(moved));
}

#[test]
fn a_voter_that_shall_go_leaves_the_other_groups_before_meta_and_only_while_the_rest_can_commit() {
    let (a, b, c) = (node(1, "a"), node(2, "b"), wished(3, "c", NodeWish::Gone));
    let all = wishes(&[&a, &b, &c]);
    let mut v = view(&[1, 2, 3], &[&a, &b, &c], &[]);
    assert_eq!(step(&all, &v), Step::RemoveVoter(3));
    v.elsewhere = BTreeSet::from([1, 2, 3]);
    assert_eq!(waits(&all, &v), "c (3) leaves the other groups first");
    v.elsewhere = BTreeSet::from([1, 2]);
    assert_eq!(step(&all, &v), Step::RemoveVoter(3));
    v.alive.remove(&2);
    assert_eq!(
        waits(&all, &v),
        "without c (3) 1 of 2 voters would answer, 2 are needed"
    );
    // A learner goes in one step, from meta last too.
    let mut v = view(&[1, 2], &[&a, &b, &c], &[]);
    v.elsewhere = BTreeSet::from([3]);
    assert_eq!(waits(&all, &v), "c (3) leaves the other groups first");
    v.elsewhere.clear();
    assert_eq!(step(&all, &v), Step::Remove(BTreeSet::from([3])));
}

#[test]
fn a_leader_that_shall_go_or_learn_hands_over_to_who_has_the_most_and_stays() {
    for wish in [NodeWish::Gone, NodeWish::Learner] {
        let (a, b, c) = (wished(1, "a", wish), node(2, "b"), node(3, "c"));
        let all = wishes(&[&a, &b, &c]);
        let mut v = view(&[1, 2, 3], &[&a, &b, &c], &[(2, 9_990)]);
        assert_eq!(step(&all, &v), Step::HandOver(3));
        v.alive.remove(&3);
        assert!(waits(&all, &v).starts_with("without a (1)"));
        // The next leader takes the step.
        let mut v = view(&[1, 2, 3], &[&a, &b, &c], &[]);
        v.own = 3;
        let expected = match wish {
            NodeWish::Gone => Step::RemoveVoter(1),
            _ => Step::Demote(1),
        };
        assert_eq!(step(&all, &v), expected);
    }
}

#[test]
fn a_replacement_votes_in_place_of_the_other_name_and_is_called_off_by_its_going() {
    let (a, b, c) = (node(1, "a"), node(2, "b"), node(3, "c"));
    let d = Registered {
        replaces: Some(3),
        ..node(4, "d")
    };
    let all = wishes(&[&a, &b, &c, &d]);
    let v = view(&[1, 2, 3], &[&a, &b, &c, &d], &[]);
    let promote = Step::Promote {
        add: 4,
        remove: BTreeSet::from([3]),
    };
    assert_eq!(step(&all, &v), promote);
    // Done here; it is not fed again while other groups go on.
    let v = view(&[1, 2, 4], &[&a, &b, &d], &[]);
    assert_eq!(next(&all, &v), Next::Rest);
    // Called off half way: who went comes back, since its id was not retired.
    let off = Registered {
        wish: NodeWish::Gone,
        ..d.clone()
    };
    let all = wishes(&[&a, &b, &c, &off]);
    assert_eq!(step(&all, &v), Step::AddLearner(c.clone()));
}

#[test]
fn a_lost_disk_of_a_learner_comes_back_as_one_and_of_a_demoted_voter_too() {
    let (a, b) = (node(1, "a"), node(2, "b"));
    let c = wished(3, "c", NodeWish::Learner);
    let d = wished(4, "c", NodeWish::Learner);
    let all = wishes(&[&a, &b, &c, &d]);
    let v = view(&[1, 2], &[&a, &b, &c, &d], &[]);
    assert_eq!(step(&all, &v), Step::Remove(BTreeSet::from([3])));
    let v = view(&[1, 2, 3], &[&a, &b, &c, &d], &[]);
    assert_eq!(step(&all, &v), Step::RemoveVoter(3));
}

#[test]
fn who_shall_lead_is_handed_over_to_when_it_can() {
    let (a, b) = (node(1, "a"), node(2, "b"));
    let mut all = wishes(&[&a, &b]);
    all.lead = Some(2);
    let mut v = view(&[1, 2], &[&a, &b], &[]);
    assert_eq!(step(&all, &v), Step::HandOver(2));
    v.alive.remove(&2);
    assert!(waits(&all, &v).contains("cannot lead"));
    v.own = 2;
    assert_eq!(next(&all, &v), Next::Rest);
}

/// Raft, as far as it matters here: takes the step at once.
fn take(view: &mut View, step: &Step) {
    match step {
        Step::AddLearner(n) | Step::Readdress(n) => {
            view.members
                .insert(n.id, (n.api_url.clone(), n.peer_addr.clone()));
            view.matched.insert(n.id, view.committed);
            view.alive.insert(n.id);
        }
        Step::Promote { add, remove } => {
            view.voters.insert(*add);
            view.voters.retain(|id| !remove.contains(id));
            view.members.retain(|id, _| !remove.contains(id));
        }
        Step::Demote(id) => {
            view.voters.remove(id);
        }
        Step::RemoveVoter(id) => {
            view.voters.remove(id);
            view.members.remove(id);
        }
        Step::Remove(ids) => view.members.retain(|id, _| !ids.contains(id)),
        Step::Finish(voters) => {
            view.voters.clone_from(voters);
            view.joint_towards = None;
        }
        Step::HandOver(to) => view.own = *to,
    }
}

proptest! {
    /// Whatever is wished of whom and whoever is down: each step changes the voters by one, leaves those that answer able
    /// to commit, and is not taken by a leader that takes itself out; and with everybody up the group comes to be what
    /// is wished, and rests.
    #[test]
    fn i14_every_walk_is_safe_and_ends_where_it_shall(
        kinds in proptest::collection::vec((0_u8..4, 0_u8..3), 2..7),
        dead in proptest::collection::btree_set(2_u64..8, 0..3),
    ) {
        // Node 1 stays, so that there is one voter at least.
        let mut all = vec![node(1, "n1")];
        let mut voters = vec![1];
        let mut there = vec![1];
        for (id, (wish, was)) in (2..).zip(&kinds) {
            let wish = match wish {
                0 => NodeWish::Learner,
                1 => NodeWish::Gone,
                _ => NodeWish::Voter,
            };
            all.push(wished(id, &format!("n{id}"), wish));
            match was {
                0 => {}
                1 => there.push(id),
                _ => { there.push(id); voters.push(id); }
            }
        }
        let refs: Vec<&Registered> = all.iter().collect();
        let all_wishes = wishes(&refs);
        let members: Vec<&Registered> = all.iter().filter(|n| there.contains(&n.id)).collect();
        let mut v = view(&voters, &members, &[]);
        v.alive.retain(|id| !dead.contains(id));
        let had = confman_client::Strength::of(v.voters.iter().copied(), |id| v.alive.contains(&id));
        prop_assume!(had.has_quorum());
        let mut ended = false;
        for _ in 0..40 {
            let Next::Step(step) = next(&all_wishes, &v) else { ended = true; break };
            let before = v.voters.clone();
            take(&mut v, &step);
            prop_assert!(v.voters.symmetric_difference(&before).count() <= 2);
            prop_assert!(v.voters.len().abs_diff(before.len()) <= 1);
            prop_assert!(v.voters.contains(&v.own), "{step:?} took the leader out");
            if v.voters != before {
                let now = confman_client::Strength::of(v.voters.iter().copied(), |id| v.alive.contains(&id));
                prop_assert!(now.has_quorum(), "{step:?} left {:?}", v.voters);
            }
        }
        prop_assert!(ended, "it goes round in circles");
        if dead.is_empty() {
            prop_assert_eq!(next(&all_wishes, &v), Next::Rest);
            let wanted: BTreeSet<u64> = all.iter().filter(|n| n.wish == NodeWish::Voter).map(|n| n.id).collect();
            prop_assert_eq!(&v.voters, &wanted);
            let fed: BTreeSet<u64> = all.iter().filter(|n| n.wish != NodeWish::Gone).map(|n| n.id).collect();
            prop_assert_eq!(v.members.keys().copied().collect::<BTreeSet<_>>(), fed);
        }
    }
}
