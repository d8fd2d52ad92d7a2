//! What a group loses when it goes on from one directory: what is proven, what may be, what cannot be known. Pure.
//!
//! Why entries that a later leader replaced were never committed: a leader has every entry that was committed before its
//! term, and a log that has an entry of that leader agrees with the leader's up to there.

use std::cmp::Reverse;

use confman_snapshot::model::{GroupId, Position};

use super::collection::{GroupFacts, TailEntry};
use super::plan::{Dropped, Loss, OldNode, Proof, Unknown};
use super::survey::{Candidate, Survey, common, holds};

/// What proves an entry to be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Witness {
    /// A directory that can be used.
    Directory,
    /// A snapshot in the store: the state there, and not the entries that led to it.
    Snapshot,
    /// A node that ran while it was asked.
    Told,
}

/// The highest entry of a group that is proven to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Evidence {
    pub(super) proof: Proof,
    pub(super) witness: Witness,
}

/// The account of one group that goes on from `source`.
pub(super) fn account(
    survey: &Survey<'_>,
    source: Candidate<'_>,
    group: &GroupId,
    evidence: Option<&Evidence>,
) -> Loss {
    let Some(facts) = source.group(group) else {
        return Loss::default();
    };
    let mut loss = Loss {
        last_write_at: facts.last_write_at,
        proven: evidence.map(|e| e.proof.clone()),
        ..Loss::default()
    };
    let kept = evidence.map_or(Kept::default(), |e| {
        kept(survey, facts, group, e.proof.position)
    });
    if let Some(proof) = &loss.proven {
        let all = proof.position.index.saturating_add(1);
        loss.lost_proven = all.saturating_sub(kept.entries());
        loss.lost_at_most = loss.lost_proven > 0 && !kept.exact;
    }
    // The first entry has the index 0.
    let there = facts.end().map_or(0, |end| end.index.saturating_add(1));
    loss.kept_unproven = there.saturating_sub(kept.entries());
    loss.kept = since(&facts.tail, kept.entries());
    for other in survey.usable.iter().filter(|c| c.id() != source.id()) {
        if let Some(theirs) = other.group(group) {
            loss.dropped.extend(dropped(other.node(), facts, theirs));
        }
    }
    if survey.unseen_could_commit(group) {
        let unseen = survey.unseen_voters(group);
        let proven = loss.proven.as_ref();
        loss.unknown = Some(Unknown {
            from: proven.map_or(0, |p| p.position.index.saturating_add(1)),
            unseen: unseen.into_iter().map(|id| survey.name_of(id)).collect(),
        });
    }
    loss
}

/// How much of what is proven a log has.
#[derive(Debug, Clone, Copy, Default)]
struct Kept {
    /// The last proven entry that it has, if it has any.
    to: Option<u64>,
    /// Whether it certainly has none of those that follow.
    exact: bool,
}

impl Kept {
    fn entries(self) -> u64 {
        self.to.map_or(0, |index| index.saturating_add(1))
    }
}

/// How much a log has of what leads to the proven entry. Where nobody here has that entry, only its position is known: what one
/// leader wrote is one log up to its end; behind a change of leaders that nobody here saw, other entries may have been committed in the
/// place of those that this log has.
fn kept(survey: &Survey<'_>, facts: &GroupFacts, group: &GroupId, proven: Position) -> Kept {
    let Some(end) = facts.end() else {
        return Kept {
            to: None,
            exact: true,
        };
    };
    if holds(facts, proven) {
        return Kept {
            to: Some(proven.index),
            exact: true,
        };
    }
    // It does not have that one itself.
    let before = |index: u64| Some(index.min(proven.index.checked_sub(1)?));
    let best = survey.best(group).and_then(|best| best.group(group));
    if let Some(best) = best
        && holds(best, proven)
    {
        return Kept {
            to: before(end.index.min(common(facts, best))),
            exact: true,
        };
    }
    if (end.term, end.node) == (proven.term, proven.node) {
        return Kept {
            to: before(end.index),
            exact: true,
        };
    }
    let directories = survey.usable.iter().filter_map(|c| c.group(group));
    let floor = directories
        .filter_map(|theirs| Some(theirs.proven()?.0))
        .filter(|position| holds(facts, *position))
        .map(|position| position.index)
        .max();
    Kept {
        to: floor.and_then(before),
        exact: floor == Some(end.index),
    }
}

fn since(tail: &[TailEntry], index: u64) -> Vec<TailEntry> {
    let later = tail.iter().filter(|entry| entry.position.index >= index);
    later.cloned().collect()
}

/// The entries of another directory that the new life does not have.
fn dropped(node: OldNode, kept: &GroupFacts, theirs: &GroupFacts) -> Option<Dropped> {
    let end = theirs.end()?;
    let shared = common(kept, theirs);
    let none_shared = kept.end().is_none();
    if end.index <= shared && !none_shared {
        return None;
    }
    let from = if none_shared {
        0
    } else {
        shared.saturating_add(1)
    };
    Some(Dropped {
        node,
        from,
        to: end.index,
        never_committed: kept.end() > Some(end),
        entries: since(&theirs.tail, from),
    })
}

/// The highest entry of which anything proves that it was committed.
pub(super) fn evidence(survey: &Survey<'_>, group: &GroupId) -> Option<Evidence> {
    let mut all: Vec<Evidence> = Vec::new();
    for candidate in &survey.usable {
        if let Some((position, by)) = candidate.group(group).and_then(GroupFacts::proven) {
            all.push(Evidence {
                proof: Proof {
                    position,
                    by: format!("{by} at {}", candidate.name()),
                },
                witness: Witness::Directory,
            });
        }
    }
    if let Some(snapshot) = survey.snapshot(group) {
        all.push(Evidence {
            proof: Proof {
                position: snapshot.position,
                by: format!("in snapshot {} of the store", snapshot.id),
            },
            witness: Witness::Snapshot,
        });
    }
    // Of equals the first that was said.
    all.sort_by_key(|evidence| Reverse(evidence.proof.position));
    let best = all.into_iter().next();
    let told = told_committed(survey, group);
    match (best, told) {
        (Some(best), Some(told)) if told.position.index <= best.proof.position.index => Some(best),
        (best, None) => best,
        (_, Some(proof)) => Some(Evidence {
            proof,
            witness: Witness::Told,
        }),
    }
}

/// What a node that ran while it was asked knew to be committed. It tells the index, and of the term only its own.
fn told_committed(survey: &Survey<'_>, group: &GroupId) -> Option<Proof> {
    let name = group.to_string();
    survey
        .collection
        .live
        .iter()
        .filter_map(|live| live.status.as_ref())
        .filter(|status| {
            status.cluster_uuid == survey.life.cluster_uuid
                && status.incarnation == survey.life.incarnation
        })
        .filter_map(|status| {
            let told = status.groups.iter().find(|g| g.group == name)?;
            // In the log of a node that is here it stands with its leader.
            let known = survey.usable.iter().find_map(|candidate| {
                let facts = candidate.group(group)?;
                let last = facts.end()?;
                (last.index >= told.committed_index).then_some(last)
            });
            if known.is_some() {
                return None;
            }
            Some(Proof {
                position: Position::new(told.term, status.node.id, told.committed_index),
                by: format!("told by {}", status.node.name),
            })
        })
        .max_by_key(|proof| proof.position.index)
}
