//! Which snapshots stay, and why: a pure verdict over what the group has recorded.
//!
//! Promises (I10):
//! - the newest `keep` verified generations stay, whatever the clock says; never fewer than one;
//! - newest means highest position of the newest incarnation, never the latest time;
//! - what is held (pinned, referred to, named by an order) is neither marked nor deleted, however old;
//! - nothing is deleted that was not marked before, and a grace time has passed since.
//!
//! A clock that jumps can make a deletion late, or shorten a grace; it never changes which ones stay.
//!
//! Not here: carrying the verdict out. The manager proposes the marks, deletes the objects, proposes that they are gone.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::SnapshotId;
use crate::record::SnapshotRecord;

/// What a group knows about one recorded snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotFact {
    /// The verified snapshot.
    pub record: SnapshotRecord,
    /// When it was marked for deletion, microseconds since 1970 UTC, by the group's time; none if it is not.
    pub marked_us: Option<i64>,
}

/// What must stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How many verified generations stay; at least 1, whatever this says.
    pub keep: usize,
    /// How long a marked snapshot stays, in microseconds, for those who are reading it.
    pub grace_us: i64,
}

/// Snapshots that stay whatever their age, each with the reason. They do not count as generations: the newest stay beside
/// them.
pub type Holds = BTreeMap<SnapshotId, String>;

/// What to do with one snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Leave it.
    Keep,
    /// Mark it for deletion.
    Mark,
    /// Delete it now.
    Delete,
}

/// The decision over one snapshot and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The snapshot.
    pub id: SnapshotId,
    /// What to do.
    pub decision: Decision,
    /// Why, for logs and for who asks.
    pub reason: String,
}

/// Judges every recorded snapshot of one group as of `now_us`; one verdict each, newest first.
pub fn judge(facts: &[SnapshotFact], holds: &Holds, policy: &Policy, now_us: i64) -> Vec<Verdict> {
    let keep = policy.keep.max(1);
    let mut newest_first: Vec<&SnapshotFact> = facts.iter().collect();
    newest_first.sort_by_key(|fact| std::cmp::Reverse(order(&fact.record.id)));
    newest_first.dedup_by_key(|fact| fact.record.id);
    // Two snapshots of one position are one generation: the second adds nothing that could be restored.
    let mut generations: BTreeSet<(u64, u64)> = BTreeSet::new();
    newest_first
        .into_iter()
        .map(|fact| {
            let id = fact.record.id;
            let is_new = !generations.contains(&(id.incarnation, id.index));
            if is_new && generations.len() < keep {
                generations.insert((id.incarnation, id.index));
                let reason = format!("generation {} of the {keep} that stay", generations.len());
                return Verdict {
                    id,
                    decision: Decision::Keep,
                    reason,
                };
            }
            let why = if is_new {
                format!("{keep} newer generations stay")
            } else {
                "a newer one of its position stays".into()
            };
            let (decision, reason) = match holds.get(&id) {
                Some(hold) => (Decision::Keep, format!("{why}; {hold}")),
                None => retire(fact.marked_us, policy.grace_us, now_us, &why),
            };
            Verdict {
                id,
                decision,
                reason,
            }
        })
        .collect()
}

fn retire(marked_us: Option<i64>, grace_us: i64, now_us: i64, why: &str) -> (Decision, String) {
    let Some(marked_us) = marked_us else {
        return (Decision::Mark, why.to_owned());
    };
    let due_us = marked_us.saturating_add(grace_us.max(0));
    if now_us >= due_us {
        return (
            Decision::Delete,
            format!("{why}; marked, and its grace is over"),
        );
    }
    let left_s = due_us.saturating_sub(now_us) / 1_000_000;
    (
        Decision::Keep,
        format!("{why}; marked, {left_s} s of grace left"),
    )
}

/// What is known of an object in the store that no record names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Its name.
    pub id: SnapshotId,
    /// For how long this collector has seen it, in microseconds: never the store's own time.
    pub seen_for_us: i64,
}

/// Judges objects that no record names: left by builders that died or lost their race. One goes only if it is older, by
/// position, than every snapshot that is recorded, and of no newer incarnation, and was seen for the whole of `grace_us`,
/// which is longer than any build takes.
pub fn judge_orphans(
    orphans: &[Orphan],
    recorded: &[SnapshotFact],
    holds: &Holds,
    grace_us: i64,
) -> Vec<Verdict> {
    let oldest = recorded.iter().map(|fact| order(&fact.record.id)).min();
    let known: BTreeSet<SnapshotId> = recorded.iter().map(|fact| fact.record.id).collect();
    let verdict = |orphan: &Orphan| {
        let hold = holds.get(&orphan.id);
        let (decision, reason) = match oldest {
            _ if hold.is_some() => (Decision::Keep, hold.cloned().unwrap_or_default()),
            None => (
                Decision::Keep,
                "nothing is recorded: it may be all there is".to_owned(),
            ),
            Some(oldest) if order(&orphan.id) >= oldest => (
                Decision::Keep,
                "it is not older than all recorded ones".to_owned(),
            ),
            Some(_) if orphan.seen_for_us < grace_us => {
                (Decision::Keep, "it may still be in the making".to_owned())
            }
            Some(_) => (
                Decision::Delete,
                "no record names it, and all recorded ones are newer".to_owned(),
            ),
        };
        Verdict {
            id: orphan.id,
            decision,
            reason,
        }
    };
    orphans
        .iter()
        .filter(|orphan| !known.contains(&orphan.id))
        .map(verdict)
        .collect()
}

/// A newer life of the cluster first, then the log's own order.
fn order(id: &SnapshotId) -> (u64, u64, u64, u32) {
    (id.incarnation, id.index, id.term, id.nonce)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;

    use super::*;

    const MINUTE: i64 = 60_000_000;

    fn fact(index: u64, nonce: u32, marked_us: Option<i64>) -> SnapshotFact {
        fact_in(1, index, nonce, marked_us)
    }

    fn fact_in(incarnation: u64, index: u64, nonce: u32, marked_us: Option<i64>) -> SnapshotFact {
        let id = SnapshotId {
            index,
            incarnation,
            term: 1,
            nonce,
        };
        SnapshotFact {
            record: SnapshotRecord {
                id,
                ..SnapshotRecord::default()
            },
            marked_us,
        }
    }

    /// A story: one line a snapshot, as an operator would read it.
    fn story(facts: &[SnapshotFact], keep: usize, now_us: i64) -> String {
        let policy = Policy {
            keep,
            grace_us: 10 * MINUTE,
        };
        judge(facts, &Holds::new(), &policy, now_us)
            .iter()
            .fold(String::new(), |mut story, v| {
                let _ = writeln!(story, "{:>6} {:?}: {}", v.id.index, v.decision, v.reason);
                story
            })
    }

    #[test]
    fn story_of_a_snapshot_that_retires() {
        let mut facts = vec![
            fact(100, 1, None),
            fact(200, 2, None),
            fact(300, 3, None),
            fact(400, 4, None),
        ];
        assert_eq!(
            story(&facts, 3, 0),
            "   400 Keep: generation 1 of the 3 that stay\n   \
                300 Keep: generation 2 of the 3 that stay\n   \
                200 Keep: generation 3 of the 3 that stay\n   \
                100 Mark: 3 newer generations stay\n"
        );
        facts[0].marked_us = Some(5 * MINUTE);
        let last = |now_us| story(&facts, 3, now_us).lines().last().unwrap().to_owned();
        assert_eq!(
            last(6 * MINUTE),
            "   100 Keep: 3 newer generations stay; marked, 540 s of grace left"
        );
        assert_eq!(
            last(15 * MINUTE),
            "   100 Delete: 3 newer generations stay; marked, and its grace is over"
        );
    }

    #[test]
    fn story_of_a_count_that_was_raised() {
        // Marked under the old count, needed under the new one: it stays, long after its grace.
        let facts = [fact(100, 1, Some(0)), fact(200, 2, None)];
        assert_eq!(
            story(&facts, 5, i64::MAX),
            "   200 Keep: generation 1 of the 5 that stay\n   100 Keep: generation 2 of the 5 that stay\n"
        );
    }

    #[test]
    fn story_of_two_snapshots_of_one_position() {
        let facts = [fact(100, 1, None), fact(200, 7, None), fact(200, 8, None)];
        assert_eq!(
            story(&facts, 2, 0),
            "   200 Keep: generation 1 of the 2 that stay\n   \
                200 Mark: a newer one of its position stays\n   \
                100 Keep: generation 2 of the 2 that stay\n"
        );
    }

    #[test]
    fn newest_is_by_number_and_by_incarnation_never_by_text() {
        // 9637 sorts after 10137 as text; a newer life with a lower index is newer.
        let facts = [
            fact(9637, 1, None),
            fact(10_137, 2, None),
            fact_in(2, 50, 3, None),
        ];
        assert_eq!(
            story(&facts, 2, 0),
            "    50 Keep: generation 1 of the 2 that stay\n \
              10137 Keep: generation 2 of the 2 that stay\n  \
               9637 Mark: 2 newer generations stay\n"
        );
    }

    #[test]
    fn i10_a_count_of_zero_keeps_one() {
        assert_eq!(
            story(&[fact(1, 1, Some(i64::MIN))], 0, i64::MAX),
            "     1 Keep: generation 1 of the 1 that stay\n"
        );
    }

    proptest! {
        #[test]
        fn i10_never_below_n_verified_generations_whatever_the_clock_says(
            facts in prop::collection::vec(
                (1..3_u64, 0..30_u64, 0..3_u32, prop::option::of(any::<i64>())), 0..40),
            keep in 0..6_usize,
            grace_us in any::<i64>(),
            now_us in any::<i64>(),
            held in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        ) {
            let facts: Vec<SnapshotFact> =
                facts.into_iter().map(|(inc, index, nonce, marked)| fact_in(inc, index, nonce, marked)).collect();
            let ids: Vec<SnapshotId> = facts.iter().map(|f| f.record.id).collect();
            let held = held.iter().filter(|_| !ids.is_empty()).map(|i| *i.get(&ids));
            let holds: Holds = held.map(|id| (id, "pinned".to_owned())).collect();
            let verdicts = judge(&facts, &holds, &Policy { keep, grace_us }, now_us);
            let all: BTreeSet<_> = facts.iter().map(|f| (f.record.id.incarnation, f.record.id.index)).collect();
            let stay: BTreeSet<_> = verdicts
                .iter()
                .filter(|v| v.decision == Decision::Keep)
                .map(|v| (v.id.incarnation, v.id.index))
                .collect();
            // The newest N generations are all among those that stay.
            for generation in all.iter().rev().take(keep.max(1)) {
                prop_assert!(stay.contains(generation), "{generation:?} of {all:?} does not stay: {verdicts:?}");
            }
            // Nothing goes unmarked.
            for verdict in verdicts.iter().filter(|v| v.decision == Decision::Delete) {
                prop_assert!(facts.iter().any(|f| f.record.id == verdict.id && f.marked_us.is_some()));
            }
            // What is held stays.
            for verdict in verdicts.iter().filter(|v| holds.contains_key(&v.id)) {
                prop_assert_eq!(verdict.decision, Decision::Keep);
            }
            // Each has one verdict.
            let ids: BTreeSet<_> = facts.iter().map(|f| f.record.id).collect();
            prop_assert_eq!(verdicts.len(), ids.len());
        }

        #[test]
        fn i10_collecting_again_and_again_ends_with_n_generations(
            count in 0..20_u64,
            keep in 0..6_usize,
            step_us in 0..30 * MINUTE,
        ) {
            let policy = Policy { keep, grace_us: 10 * MINUTE };
            let mut facts: Vec<SnapshotFact> = (0..count).map(|i| fact(i * 10, 1, None)).collect();
            for round in 0..100 {
                let now_us = round * step_us.max(MINUTE);
                for verdict in judge(&facts, &Holds::new(), &policy, now_us) {
                    match verdict.decision {
                        Decision::Keep => {}
                        Decision::Mark => {
                            facts.iter_mut().filter(|f| f.record.id == verdict.id).for_each(|f| {
                                f.marked_us = Some(now_us);
                            });
                        }
                        Decision::Delete => facts.retain(|f| f.record.id != verdict.id),
                    }
                }
            }
            prop_assert_eq!(facts.len() as u64, count.min(keep.max(1) as u64));
        }
    }

    #[test]
    fn c11_an_orphan_goes_only_when_old_by_position_and_long_seen() {
        let recorded = [fact(100, 1, None), fact(200, 2, None)];
        let orphan = |incarnation, index, seen_for_us| Orphan {
            id: SnapshotId {
                index,
                incarnation,
                term: 1,
                nonce: 9,
            },
            seen_for_us,
        };
        let decide = |orphan: Orphan, recorded: &[SnapshotFact]| {
            judge_orphans(&[orphan], recorded, &Holds::new(), 60 * MINUTE)
                .first()
                .map(|v| v.decision)
        };
        assert_eq!(
            decide(orphan(1, 50, 60 * MINUTE), &recorded),
            Some(Decision::Delete)
        );
        assert_eq!(
            decide(orphan(1, 50, 59 * MINUTE), &recorded),
            Some(Decision::Keep)
        );
        assert_eq!(
            decide(orphan(1, 150, i64::MAX), &recorded),
            Some(Decision::Keep)
        );
        assert_eq!(
            decide(orphan(2, 50, i64::MAX), &recorded),
            Some(Decision::Keep)
        );
        assert_eq!(decide(orphan(1, 50, i64::MAX), &[]), Some(Decision::Keep));
        // A recorded one is no orphan.
        let named = Orphan {
            id: recorded[0].record.id,
            seen_for_us: i64::MAX,
        };
        assert_eq!(decide(named, &recorded), None);
        // A held one stays, however old and long seen.
        let held = orphan(1, 50, i64::MAX);
        let holds = Holds::from([(held.id, "pinned".to_owned())]);
        let verdicts = judge_orphans(&[held], &recorded, &holds, 60 * MINUTE);
        assert_eq!(verdicts[0].decision, Decision::Keep);
    }

    #[test]
    fn story_of_a_snapshot_that_is_held() {
        // Long marked, far beyond its grace, and held: it stays, and the count is that of the others.
        let facts = [
            fact(100, 1, Some(0)),
            fact(200, 2, None),
            fact(300, 3, None),
            fact(400, 4, None),
        ];
        let holds = Holds::from([
            (
                facts[0].record.id,
                "pinned by ann: before the move".to_owned(),
            ),
            (facts[3].record.id, "pinned by ann".to_owned()),
        ]);
        let policy = Policy {
            keep: 2,
            grace_us: MINUTE,
        };
        let told: Vec<String> = judge(&facts, &holds, &policy, i64::MAX)
            .iter()
            .map(|v| format!("{} {:?}: {}", v.id.index, v.decision, v.reason))
            .collect();
        assert_eq!(
            told,
            [
                "400 Keep: generation 1 of the 2 that stay",
                "300 Keep: generation 2 of the 2 that stay",
                "200 Mark: 2 newer generations stay",
                "100 Keep: 2 newer generations stay; pinned by ann: before the move",
            ]
        );
    }
}
