//! Against logs that a Raft really writes: whatever part of the nodes is left, the plan keeps every entry that any of
//! them knows to be committed, and what it says about the rest is true.

use std::collections::BTreeSet;

use confman_snapshot::model::{GroupId, Position};
use proptest::prelude::*;

use super::kit::*;
use crate::recover::collection::GroupFacts;
use crate::recover::decide::decide;

/// One step of a Raft of which only the logs matter.
#[derive(Debug, Clone)]
enum Step {
    /// A node stands, and these vote for it if its log is good enough.
    Elect { node: usize, voters: u8 },
    /// The leader appends.
    Append(u8),
    /// The leader sends all it has to these, and learns what a quorum has.
    Replicate { to: u8 },
    /// These learn what is committed.
    Tell { to: u8 },
}

#[derive(Debug, Clone, Default)]
struct Log {
    entries: Vec<(u64, u64)>,
    committed: usize,
    voted: u64,
}

#[derive(Debug)]
struct World {
    logs: Vec<Log>,
    leader: Option<(usize, u64)>,
    term: u64,
    /// The longest prefix that a quorum had, as a leader learned it.
    committed: Vec<(u64, u64)>,
}

fn bit(mask: u8, at: usize) -> bool {
    mask >> at & 1 == 1
}

impl World {
    fn new(nodes: usize) -> Self {
        // The birth: the same first entry everywhere.
        let log = Log {
            entries: vec![(1, 1)],
            committed: 1,
            voted: 1,
        };
        Self {
            logs: vec![log; nodes],
            leader: None,
            term: 1,
            committed: vec![(1, 1)],
        }
    }

    fn majority(&self) -> usize {
        self.logs.len() / 2 + 1
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Elect { node, voters } => self.elect(node % self.logs.len(), *voters),
            Step::Append(count) => {
                if let Some((leader, term)) = self.leader {
                    let entry = (term, leader as u64 + 1);
                    let log = &mut self.logs[leader].entries;
                    log.extend(std::iter::repeat_n(entry, usize::from(*count)));
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

    fn elect(&mut self, node: usize, voters: u8) {
        let term = self.term + 1;
        let rank = |log: &Log| (log.entries.last().copied(), log.entries.len());
        let own = rank(&self.logs[node]);
        let granted: Vec<usize> = (0..self.logs.len())
            .filter(|at| *at == node || (bit(voters, *at) && rank(&self.logs[*at]) <= own))
            .collect();
        if granted.len() < self.majority() {
            return;
        }
        self.term = term;
        for at in granted {
            self.logs[at].voted = term;
        }
        self.leader = Some((node, term));
        self.logs[node].entries.push((term, node as u64 + 1));
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
        // Only an entry of its own term makes those before it committed.
        let holders = |len: usize| {
            let prefix = &has[..len];
            let having = self
                .logs
                .iter()
                .filter(|log| log.voted == term && log.entries.starts_with(prefix));
            having.count()
        };
        let reached = (1..=has.len())
            .rev()
            .find(|len| has[*len - 1].0 == term && holders(*len) >= self.majority());
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
            let (term, node) = log.entries[index];
            Position::new(term, node, index as u64)
        };
        let last = position(log.entries.len() - 1);
        let leaders: Vec<Position> = (0..log.entries.len())
            .filter(|index| *index == 0 || log.entries[*index] != log.entries[*index - 1])
            .map(position)
            .collect();
        let known = position(log.committed - 1);
        GroupFacts {
            leaders,
            committed: Some(known),
            ..group_of(group, self.logs.len() as u64, last)
        }
    }
}

fn group_of(name: &GroupId, voters: u64, last: Position) -> GroupFacts {
    group(name, voters, &[], last)
}

fn shared(a: &[(u64, u64)], b: &[(u64, u64)]) -> usize {
    a.iter()
        .zip(b)
        .take_while(|(one, other)| one == other)
        .count()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..5usize, any::<u8>()).prop_map(|(node, voters)| Step::Elect { node, voters }),
        3 => (1..4u8).prop_map(Step::Append),
        4 => any::<u8>().prop_map(|to| Step::Replicate { to }),
        2 => any::<u8>().prop_map(|to| Step::Tell { to }),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i15_no_entry_that_a_survivor_knows_to_be_committed_is_lost_and_the_account_is_true(
        nodes in 3..=5usize,
        left in 1..31u8,
        steps in steps(),
    ) {
        let mut world = World::new(nodes);
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
        if survivors.len() >= world.majority() {
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
}
