//! The verdict over every object of a group: a pure function of what the store tells and a time.

use std::collections::{BTreeMap, BTreeSet};

use confman_snapshot::retention::{self, Decision, Orphan, Policy, Verdict};
use confman_snapshot::{GroupId, SnapshotId};
use serde::Serialize;

use super::view::View;

/// How long an object that no record names must have been marked: longer than any build takes, as on the nodes.
const ORPHAN_GRACE_US: i64 = 24 * 3600 * 1_000_000;

/// What may be done with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Fate {
    /// It stays.
    Keep,
    /// It would be marked: the first of two steps.
    Mark,
    /// It would be deleted.
    Delete,
}

impl Fate {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Mark => "mark",
            Self::Delete => "DELETE",
        }
    }
}

/// One object and its verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Item {
    pub(super) group: GroupId,
    pub(super) id: SnapshotId,
    pub(super) object: String,
    pub(super) bytes: u64,
    pub(super) decision: Fate,
    pub(super) reason: String,
    /// It is one of the generations that stay for their position.
    pub(super) generation: bool,
    /// The mark of a tool that lies there although it is no longer due.
    pub(super) stale_mark: bool,
}

/// Judges the objects of one group, newest first.
pub(super) fn judge(view: &View, policy: &Policy, now_us: i64) -> Vec<Item> {
    let verdicts = by_id(retention::judge(&view.facts, &view.holds, policy, now_us));
    let orphans = by_id(orphans(view, now_us));
    let generations = generations(view, policy);
    let items = view.listed.iter().map(|listed| {
        let id = listed.id;
        let judged = (verdicts.get(&id), orphans.get(&id));
        let (decision, reason) = match (view.unreadable.get(&id), judged) {
            (Some(problem), _) => (
                Fate::Keep,
                format!("it cannot be read, and stays as evidence: {problem}"),
            ),
            (None, (Some(verdict), _)) => (fate(verdict.decision), verdict.reason.clone()),
            (None, (None, Some(verdict))) => orphan_fate(view, verdict),
            (None, (None, None)) => (
                Fate::Keep,
                "no newer snapshot can be read that tells of it".to_owned(),
            ),
        };
        let generation = generations.contains(&id);
        Item {
            group: view.group.clone(),
            id,
            object: listed.object.clone(),
            bytes: listed.bytes,
            decision,
            reason,
            generation,
            stale_mark: view.tool_marks.contains_key(&id)
                && decision == Fate::Keep
                && (generation || view.holds.contains_key(&id)),
        }
    });
    items.collect()
}

fn by_id(verdicts: Vec<Verdict>) -> BTreeMap<SnapshotId, Verdict> {
    verdicts.into_iter().map(|v| (v.id, v)).collect()
}

/// Those that stay for their position, not for a hold or the rest of a grace: they would stay with no mark as well.
fn generations(view: &View, policy: &Policy) -> BTreeSet<SnapshotId> {
    let mut facts = view.facts.clone();
    facts.iter_mut().for_each(|fact| fact.marked_us = None);
    retention::judge(&facts, &retention::Holds::new(), policy, 0)
        .into_iter()
        .filter(|v| v.decision == Decision::Keep)
        .map(|v| v.id)
        .collect()
}

fn fate(decision: Decision) -> Fate {
    match decision {
        Decision::Keep => Fate::Keep,
        Decision::Mark => Fate::Mark,
        Decision::Delete => Fate::Delete,
    }
}

/// Objects that no record names, seen for as long as a tool's mark lies beside them.
fn orphans(view: &View, now_us: i64) -> Vec<Verdict> {
    let known: BTreeSet<SnapshotId> = view.facts.iter().map(|f| f.record.id).collect();
    let orphans: Vec<Orphan> = view
        .listed
        .iter()
        .filter(|listed| !known.contains(&listed.id))
        .map(|listed| Orphan {
            id: listed.id,
            seen_for_us: view
                .tool_marks
                .get(&listed.id)
                .map_or(0, |marked| now_us.saturating_sub(*marked)),
        })
        .collect();
    retention::judge_orphans(&orphans, &view.facts, &view.holds, ORPHAN_GRACE_US)
}

/// An orphan that could go one day is marked first, so that its time begins.
fn orphan_fate(view: &View, verdict: &Verdict) -> (Fate, String) {
    let old_enough_one_day = || {
        let patient = Orphan {
            id: verdict.id,
            seen_for_us: i64::MAX,
        };
        retention::judge_orphans(&[patient], &view.facts, &view.holds, ORPHAN_GRACE_US)
            .iter()
            .any(|v| v.decision == Decision::Delete)
    };
    match verdict.decision {
        Decision::Keep if !view.tool_marks.contains_key(&verdict.id) && old_enough_one_day() => {
            let reason = "no record names it, and all recorded ones are newer".to_owned();
            (Fate::Mark, reason)
        }
        decision => (fate(decision), verdict.reason.clone()),
    }
}

#[cfg(test)]
mod tests {
    use confman_snapshot::SnapshotRecord;
    use confman_snapshot::repository::Listed;
    use confman_snapshot::retention::{Holds, SnapshotFact};

    use super::*;

    const SECOND: i64 = 1_000_000;

    fn id(index: u64) -> SnapshotId {
        SnapshotId {
            index,
            incarnation: 1,
            term: 1,
            nonce: 1,
        }
    }

    /// A group with these objects, newest first; `recorded` of them the group knows.
    fn view(there: &[u64], recorded: &[u64]) -> View {
        View {
            group: GroupId::config(0),
            listed: there
                .iter()
                .map(|index| Listed {
                    id: id(*index),
                    object: format!("snapshots/config/0/{}.snap", id(*index)),
                    bytes: 10,
                })
                .collect(),
            facts: recorded
                .iter()
                .map(|index| SnapshotFact {
                    record: SnapshotRecord {
                        id: id(*index),
                        ..SnapshotRecord::default()
                    },
                    marked_us: None,
                })
                .collect(),
            unreadable: BTreeMap::new(),
            holds: Holds::new(),
            tool_marks: BTreeMap::new(),
            cluster_uuid: None,
        }
    }

    fn story(view: &View, now_us: i64) -> Vec<String> {
        let policy = Policy {
            keep: 2,
            grace_us: 30 * SECOND,
        };
        judge(view, &policy, now_us)
            .iter()
            .map(|i| format!("{} {}: {}", i.id.index, i.decision.name(), i.reason))
            .collect()
    }

    #[test]
    fn story_of_a_bucket_whose_cluster_is_gone() {
        let mut view = view(&[400, 300, 200, 100], &[400, 300, 200, 100]);
        view.holds.insert(id(100), "pinned by ann".to_owned());
        assert_eq!(
            story(&view, 0),
            [
                "400 keep: generation 1 of the 2 that stay",
                "300 keep: generation 2 of the 2 that stay",
                "200 mark: 2 newer generations stay",
                "100 keep: 2 newer generations stay; pinned by ann",
            ]
        );
        // A tool's mark counts as the group's own.
        view.tool_marks.insert(id(200), 5 * SECOND);
        view.facts[2].marked_us = Some(5 * SECOND);
        assert_eq!(
            story(&view, 10 * SECOND)[2],
            "200 keep: 2 newer generations stay; marked, 25 s of grace left"
        );
        assert_eq!(
            story(&view, 35 * SECOND)[2],
            "200 DELETE: 2 newer generations stay; marked, and its grace is over"
        );
    }

    #[test]
    fn i10_what_cannot_be_read_is_neither_counted_nor_let_go() {
        let mut view = view(&[400, 300, 200, 100], &[300, 200, 100]);
        view.unreadable.insert(id(400), "it is cut off".to_owned());
        let told = story(&view, 0);
        assert!(
            told[0].starts_with("400 keep: it cannot be read"),
            "{told:?}"
        );
        assert_eq!(told[1], "300 keep: generation 1 of the 2 that stay");
        assert_eq!(told[2], "200 keep: generation 2 of the 2 that stay");
        assert_eq!(told[3], "100 mark: 2 newer generations stay");
    }

    #[test]
    fn c11_an_orphan_is_marked_first_and_goes_a_day_later() {
        let mut view = view(&[400, 300, 50], &[400, 300]);
        assert!(story(&view, 0)[2].starts_with("50 mark: no record names it"));
        view.tool_marks.insert(id(50), 0);
        let day = 24 * 3600 * SECOND;
        assert!(story(&view, day - 1)[2].starts_with("50 keep: it may still be in the making"));
        assert!(story(&view, day)[2].starts_with("50 DELETE: no record names it"));
        // Nothing recorded tells of anything: all of it may be all there is.
        view.facts.clear();
        assert!(story(&view, day).iter().all(|line| line.contains("keep")));
    }

    #[test]
    fn a_mark_is_taken_back_when_its_snapshot_stays_after_all() {
        let mut view = view(&[400, 300], &[400, 300]);
        view.tool_marks.insert(id(300), 0);
        view.facts[1].marked_us = Some(0);
        let policy = Policy {
            keep: 2,
            grace_us: 30 * SECOND,
        };
        let items = judge(&view, &policy, 100 * SECOND);
        assert!(items[1].generation && items[1].stale_mark, "{items:?}");
        // Within its grace a mark is no stale one.
        let policy = Policy { keep: 1, ..policy };
        let items = judge(&view, &policy, 10 * SECOND);
        assert!(!items[1].generation && !items[1].stale_mark, "{items:?}");
    }
}
