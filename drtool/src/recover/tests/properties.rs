//! Against logs that a Raft really writes, changes of the members among them: whatever part of the nodes is left, the plan keeps
//! every entry that any of them knows to be committed, and what it says about the rest is true.

use std::collections::BTreeSet;

use confman_snapshot::model::{ClusterId, GroupId, Membership, Position};
use proptest::prelude::*;

use super::kit::*;
use crate::recover::collection::{GroupFacts, StoreSnapshot};
use crate::recover::decide::decide;

/// One step of a Raft of which only the logs matter.
#[derive(Debug, Clone)]
enum Step {
    /// A node stands, and these vote for it if its log is good enough.
    Elect { node: usize, voters: u8 },
    /// The leader appends.
    Append(u8),
    /// The leader appends the next step on the way to these voters, once the one before is committed.
    Change { voters: u8 },
    /// A whole change to these voters, of which each half reaches its own nodes: by chance alone that is rare.
    Shift { voters: u8, to: [u8; 2] },
    /// The leader sends all it has to these, and learns what a quorum has.
    Replicate { to: u8 },
    /// These learn what is committed.
    Tell { to: u8 },
}

/// Sets of voters: one, or two while they change.
type Voters = Vec<BTreeSet<usize>>;

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    term: u64,
    node: u64,
    voters: Option<Voters>,
}

#[derive(Debug, Clone, Default)]
struct Log {
    entries: Vec<Entry>,
    committed: usize,
    voted: u64,
}

impl Log {
    /// Those of the last membership entry, committed or not, and where it stands.
    fn voters(&self) -> (usize, &Voters) {
        let entries = self.entries.iter().enumerate().rev();
        let mut told = entries.filter_map(|(at, e)| Some((at, e.voters.as_ref()?)));
        told.next().expect("the first entry is one")
    }

    fn rank(&self) -> (Option<(u64, u64)>, usize) {
        let last = self.entries.last();
        (last.map(|e| (e.term, e.node)), self.entries.len())
    }
}

#[derive(Debug)]
struct World {
    logs: Vec<Log>,
    leader: Option<(usize, u64)>,
    term: u64,
    /// The longest prefix that a quorum had, as a leader learned it.
    committed: Vec<Entry>,
}

fn bit(mask: u8, at: usize) -> bool {
    mask >> at & 1 == 1
}

fn is_quorum(voters: &Voters, there: impl Fn(usize) -> bool) -> bool {
    voters
        .iter()
        .all(|set| set.iter().filter(|at| there(**at)).count() > set.len() / 2)
}

impl World {
    /// So many nodes, of which these vote first.
    fn new(nodes: usize, voters: u8) -> Self {
        let mut first: BTreeSet<usize> = (0..nodes).filter(|at| bit(voters, *at)).collect();
        if first.is_empty() {
            first.extend(0..nodes);
        }
        // The birth: the same first entry everywhere.
        let birth = Entry {
            term: 1,
            node: 1,
            voters: Some(vec![first]),
        };
        let log = Log {
            entries: vec![birth.clone()],
            committed: 1,
            voted: 1,
        };
        Self {
            logs: vec![log; nodes],
            leader: None,
            term: 1,
            committed: vec![birth],
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Elect { node, voters } => self.elect(node % self.logs.len(), *voters),
            Step::Append(count) => {
                for _ in 0..*count {
                    self.append(None);
                }
            }
            Step::Change { voters } => self.change(*voters),
            Step::Shift { voters, to } => {
                for to in to {
                    self.change(*voters);
                    self.replicate(*to);
                }
            }
            Step::Replicate { to } => self.replicate(*to),
            Step::Tell { to } => {
                if let Some((leader, term)) = self.leader {
                    let known = self.logs[leader].committed;
                    let has = self.logs[leader].entries.clone();
                    for (at, log) in self.logs.iter_mut().enumerate() {
                        if bit(*to, at) && log.voted == term {
                            let shared = shared(&log.entries, &has);
                            log.committed = log.committed.max(known.min(shared));
                        }
                    }
                }
            }
        }
    }

    fn append(&mut self, voters: Option<Voters>) {
        if let Some((leader, term)) = self.leader {
            self.logs[leader].entries.push(Entry {
                term,
                node: leader as u64 + 1,
                voters,
            });
        }
    }

    fn change(&mut self, mask: u8) {
        let Some((leader, _)) = self.leader else {
            return;
        };
        let log = &self.logs[leader];
        let (at, known) = log.voters();
        let goal: BTreeSet<usize> = (0..self.logs.len()).filter(|at| bit(mask, *at)).collect();
        if goal.is_empty() || at >= log.committed {
            return;
        }
        // The way that openraft goes: to one of the halves at once, to any other set by way of both.
        let next = match known.last() {
            _ if known.contains(&goal) => vec![goal],
            Some(last) => vec![last.clone(), goal],
            None => return,
        };
        self.append(Some(next));
    }

    fn elect(&mut self, node: usize, voters: u8) {
        let term = self.term + 1;
        let own = self.logs[node].rank();
        let (_, config) = self.logs[node].voters();
        if !config.iter().any(|set| set.contains(&node)) {
            return;
        }
        let grants = |at: usize| at == node || (bit(voters, at) && self.logs[at].rank() <= own);
        if !is_quorum(config, grants) {
            return;
        }
        let granted: Vec<usize> = (0..self.logs.len()).filter(|at| grants(*at)).collect();
        self.term = term;
        for at in granted {
            self.logs[at].voted = term;
        }
        self.leader = Some((node, term));
        self.append(None);
    }

    fn replicate(&mut self, to: u8) {
        let Some((leader, term)) = self.leader else {
            return;
        };
        let has = self.logs[leader].entries.clone();
        for (at, log) in self.logs.iter_mut().enumerate() {
            if at != leader && bit(to, at) && log.voted <= term {
                log.voted = term;
                log.entries.clone_from(&has);
            }
        }
        let (_, config) = self.logs[leader].voters();
        // Only an entry of its own term makes those before it committed.
        let is_held = |len: usize| {
            let has_it = |at: usize| {
                let log = &self.logs[at];
                log.voted == term && log.entries.starts_with(&has[..len])
            };
            is_quorum(config, has_it)
        };
        let reached = (1..=has.len())
            .rev()
            .find(|len| has[*len - 1].term == term && is_held(*len));
        if let Some(len) = reached {
            if len > self.committed.len() {
                self.committed = has[..len].to_vec();
            }
            let log = &mut self.logs[leader];
            log.committed = log.committed.max(len);
        }
    }

    fn facts(&self, at: usize, group: &GroupId) -> GroupFacts {
        let log = &self.logs[at];
        let position = |index: usize| {
            let entry = &log.entries[index];
            Position::new(entry.term, entry.node, index as u64)
        };
        let leader = |index: usize| (log.entries[index].term, log.entries[index].node);
        let last = position(log.entries.len() - 1);
        let leaders: Vec<Position> = (0..log.entries.len())
            .filter(|index| *index == 0 || leader(*index) != leader(*index - 1))
            .map(position)
            .collect();
        let known = position(log.committed - 1);
        let nodes = self.logs.len() as u64;
        let memberships = log.entries.iter().enumerate().filter_map(|(index, entry)| {
            let ids = |set: &BTreeSet<usize>| set.iter().map(|at| *at as u64 + 1).collect();
            Some(Membership {
                position: Some(position(index)),
                voters: entry.voters.as_ref()?.iter().map(ids).collect(),
                ..members(1..=nodes)
            })
        });
        GroupFacts {
            leaders,
            committed: Some(known),
            memberships: memberships.collect(),
            ..group_of(group, nodes, last)
        }
    }
}

fn group_of(name: &GroupId, voters: u64, last: Position) -> GroupFacts {
    group(name, voters, &[], last)
}

fn shared(a: &[Entry], b: &[Entry]) -> usize {
    a.iter()
        .zip(b)
        .take_while(|(one, other)| one == other)
        .count()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..5usize, any::<u8>()).prop_map(|(node, voters)| Step::Elect { node, voters }),
        3 => (1..4u8).prop_map(Step::Append),
        2 => any::<u8>().prop_map(|voters| Step::Change { voters }),
        2 => (any::<u8>(), any::<[u8; 2]>()).prop_map(|(voters, to)| Step::Shift { voters, to }),
        4 => any::<u8>().prop_map(|to| Step::Replicate { to }),
        2 => any::<u8>().prop_map(|to| Step::Tell { to }),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i15_no_entry_that_a_survivor_knows_to_be_committed_is_lost_and_the_account_is_true(
        nodes in 3..=5usize,
        first in prop_oneof![Just(31u8), 1..32u8],
        left in 1..31u8,
        steps in steps(),
    ) {
        let mut world = World::new(nodes, first);
        for step in &steps {
            world.take(step);
        }
        let survivors: Vec<usize> = (0..nodes).filter(|at| bit(left, *at)).collect();
        prop_assume!(!survivors.is_empty());
        let groups = [GroupId::meta(), GroupId::config(0)];
        let directories = survivors
            .iter()
            .map(|at| directory(*at as u64 + 1, groups.iter().map(|g| world.facts(*at, g)).collect()))
            .collect();
        let seen = collection(directories);
        let lost: BTreeSet<String> = (0..nodes)
            .filter(|at| !survivors.contains(at))
            .map(|at| format!("node{}", at + 1))
            .collect();
        let mut wishes = wishes(&[]);
        wishes.lost = lost;
        let decided = decide(&seen, &wishes);
        let best = survivors.iter().map(|at| &world.logs[*at]).max_by_key(|log| log.rank()).unwrap();
        if is_quorum(best.voters().1, |at| survivors.contains(&at)) {
            let codes: Vec<_> = decided.unwrap_err().iter().map(|r| r.code).collect();
            prop_assert_eq!(codes, ["RECOVER_QUORUM_POSSIBLE"]);
            return Ok(());
        }
        let plan = decided.map_err(|r| TestCaseError::fail(format!("{r:#?}")))?;
        let base = plan.survivor.old_id as usize - 1;
        let kept = &world.logs[base].entries;
        let loss = &plan.groups[1].loss;
        // Everything that somebody here knows to be committed is kept.
        for at in &survivors {
            let log = &world.logs[*at];
            prop_assert!(kept.starts_with(&log.entries[..log.committed]), "node{} knew more", at + 1);
        }
        prop_assert_eq!(loss.lost_proven, 0);
        // What is said to be proven was committed, and with the rest it is the whole log.
        let proven = loss.proven.as_ref().unwrap().position.index as usize;
        prop_assert!(world.committed.starts_with(&kept[..=proven]));
        prop_assert_eq!(proven as u64 + loss.kept_unproven, kept.len() as u64 - 1);
        // When nothing is said to be unknowable, nothing that was acknowledged is gone.
        if loss.unknown.is_none() {
            prop_assert!(kept.starts_with(&world.committed), "{:?} of {:?}", kept, world.committed);
        }
        // What is said to have never been committed was not.
        for dropped in &loss.dropped {
            prop_assert!(dropped.never_committed, "the best log was chosen");
            let other = usize::try_from(dropped.node.id).unwrap() - 1;
            let entries = &world.logs[other].entries;
            prop_assert!(shared(entries, &world.committed) <= dropped.from as usize);
            prop_assert_eq!(shared(entries, kept), dropped.from as usize);
        }
    }

    /// The store has a snapshot of what was committed, anywhere in it.
    #[test]
    fn i15_a_plan_is_refused_where_the_store_proves_more_and_what_is_counted_as_lost_is_true(
        nodes in 3..=5usize,
        first in prop_oneof![Just(31u8), 1..32u8],
        left in 1..31u8,
        taken in prop_oneof![Just(0usize), 0..40usize],
        steps in steps(),
    ) {
        let mut world = World::new(nodes, first);
        for step in &steps {
            world.take(step);
        }
        let survivors: Vec<usize> = (0..nodes).filter(|at| bit(left, *at)).collect();
        prop_assume!(!survivors.is_empty());
        let groups = [GroupId::meta(), GroupId::config(0)];
        let facts = |at: usize| groups.iter().map(|g| world.facts(at, g)).collect();
        let directories = survivors.iter().map(|at| directory(*at as u64 + 1, facts(*at))).collect();
        let mut seen = collection(directories);
        // Most often the newest possible.
        let index = world.committed.len().saturating_sub(taken + 1);
        let entry = &world.committed[index];
        seen.store.as_mut().unwrap().snapshots = groups
            .iter()
            .map(|group| StoreSnapshot {
                group: group.clone(),
                id: "taken".to_owned(),
                cluster: ClusterId::new(UUID, 1),
                position: Position::new(entry.term, entry.node, index as u64),
            })
            .collect();
        let mut wishes = wishes(&[]);
        wishes.lost = (0..nodes)
            .filter(|at| !survivors.contains(at))
            .map(|at| format!("node{}", at + 1))
            .collect();
        let refused = decide(&seen, &wishes).err().unwrap_or_default();
        if refused.iter().any(|r| r.code == "RECOVER_QUORUM_POSSIBLE") {
            return Ok(());
        }
        wishes.data_loss.extend(groups);
        let plan = decide(&seen, &wishes).map_err(|r| TestCaseError::fail(format!("{r:#?}")))?;
        let kept = &world.logs[plan.survivor.old_id as usize - 1].entries;
        let loss = &plan.groups[1].loss;
        let proven = loss.proven.as_ref().unwrap().position.index as usize;
        let lost = proven + 1 - shared(kept, &world.committed[..=proven]);
        if loss.lost_at_most {
            prop_assert!(loss.lost_proven as usize >= lost, "{} are lost: {loss:?}", lost);
        } else {
            prop_assert_eq!(loss.lost_proven as usize, lost);
        }
        // What is kept and not called unproven was committed.
        let sure = kept.len() - loss.kept_unproven as usize;
        prop_assert!(world.committed.starts_with(&kept[..sure]), "{:?} of {:?}", kept, world.committed);
        let codes: BTreeSet<&str> = refused.iter().map(|r| r.code).collect();
        let expected: BTreeSet<&str> = (lost > 0).then_some("RECOVER_BEHIND").into_iter().collect();
        prop_assert_eq!(codes, expected);
    }
}
