//! What a group loses when it goes on from one directory: what is proven, what may be, what cannot be known. Pure.
//!
//! Why entries that a later leader replaced were never committed: a leader has every entry that was committed before its
//! term, and a log that has an entry of that leader agrees with the leader's up to there.

use std::cmp::Reverse;

use confman_snapshot::model::{GroupId, Position};

use super::collection::{GroupFacts, TailEntry};
use super::plan::{Dropped, Loss, OldNode, Proof, Unknown};
use super::survey::{Candidate, Survey, common, holds};

/// The account of one group that goes on from `source`.
pub(super) fn account(survey: &Survey<'_>, source: Candidate<'_>, group: &GroupId) -> Loss {
    let Some(facts) = source.group(group) else {
        return Loss::default();
    };
    let end = facts.end();
    let end_index = end.map_or(0, |p| p.index);
    let proven = proof(survey, group);
    let mut loss = Loss {
        last_write_at: facts.last_write_at,
        ..Loss::default()
    };
    // What is proven and what is kept of it.
    let kept_proven = match &proven {
        Some(proof) if holds(facts, proof.position) => proof.position.index,
        Some(proof) => {
            let best = survey.best(group).and_then(|best| best.group(group));
            let shared = best.map_or(end_index, |best| common(facts, best));
            loss.lost_proven = proof
                .position
                .index
                .saturating_sub(shared.min(end_index))
                .max(1);
            shared.min(proof.position.index).min(end_index)
        }
        None => 0,
    };
    loss.kept_unproven = match (&proven, end) {
        (_, None) => 0,
        // The first entry has the index 0.
        (None, Some(_)) => end_index.saturating_add(1),
        (Some(_), Some(_)) => end_index.saturating_sub(kept_proven),
    };
    let first_unproven = proven.as_ref().map_or(0, |_| kept_proven.saturating_add(1));
    loss.kept = since(&facts.tail, first_unproven);
    for other in survey.usable.iter().filter(|c| c.id() != source.id()) {
        if let Some(theirs) = other.group(group) {
            loss.dropped.extend(dropped(other.node(), facts, theirs));
        }
    }
    if survey.unseen_could_commit(group) {
        let unseen = survey.unseen_voters(group);
        loss.unknown = Some(Unknown {
            from: proven
                .as_ref()
                .map_or(0, |p| p.position.index.saturating_add(1)),
            unseen: unseen.into_iter().map(|id| survey.name_of(id)).collect(),
        });
    }
    loss.proven = proven;
    loss
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
fn proof(survey: &Survey<'_>, group: &GroupId) -> Option<Proof> {
    let mut proofs: Vec<Proof> = Vec::new();
    for candidate in &survey.usable {
        if let Some((position, by)) = candidate.group(group).and_then(GroupFacts::proven) {
            proofs.push(Proof {
                position,
                by: format!("{by} at {}", candidate.name()),
            });
        }
    }
    if let Some(store) = &survey.collection.store {
        let of_us = |uuid: &str| uuid == survey.life.cluster_uuid;
        for snapshot in store
            .snapshots
            .iter()
            .filter(|s| s.group == *group && of_us(&s.cluster.uuid))
        {
            proofs.push(Proof {
                position: snapshot.position,
                by: format!("in snapshot {} of the store", snapshot.id),
            });
        }
    }
    // Of equals the first that was said.
    proofs.sort_by_key(|proof| Reverse(proof.position));
    let best = proofs.into_iter().next();
    let told = told_committed(survey, group);
    match (best, told) {
        (best, None) => best,
        (Some(best), Some(told)) if told.position.index <= best.position.index => Some(best),
        (_, told) => told,
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
