//! Who may join the new life, and as what. Pure.
//!
//! Everybody who was a member or was to be one may come back, empty, under a new id; and shall be what the registry wished for, which
//! need not be what it was at that moment: a node that is being rebuilt, or was just added, is a learner until it has caught up.

use std::collections::{BTreeMap, BTreeSet};

use confman_snapshot::model::NodeInfo;

use super::collection::{NodeFacts, WishFacts};
use super::decide::Wishes;
use super::plan::Expected;
use super::survey::{Candidate, Survey};

/// The names that may join a life which `base` begins.
pub(super) fn expected(survey: &Survey<'_>, base: Candidate<'_>, wishes: &Wishes) -> Vec<Expected> {
    let known = known(survey).into_iter();
    known
        .filter(|(name, _)| *name != base.name() && !wishes.gone.contains(*name))
        .filter_map(|(name, info)| {
            let learner = match wish_of(survey, name) {
                WishFacts::Voter => false,
                WishFacts::Learner => true,
                WishFacts::Gone => return None,
            };
            Some(Expected { info, learner })
        })
        .collect()
}

/// All names that a node may have joined under.
pub(super) fn names(survey: &Survey<'_>) -> BTreeSet<String> {
    known(survey).into_keys().map(str::to_owned).collect()
}

/// What is to be known of those that may not join though they were members.
pub(super) fn left_out(survey: &Survey<'_>, base: Candidate<'_>) -> Vec<String> {
    let names: BTreeSet<&str> = survey.members.values().map(|i| i.name.as_str()).collect();
    names
        .into_iter()
        .filter(|name| *name != base.name() && wish_of(survey, name) == WishFacts::Gone)
        .map(|name| {
            format!(
                "{name} was being taken out of the cluster and may not join the new life: `drtool member add` lets it, if that is wanted after all"
            )
        })
        .collect()
}

/// Every name, and where the newest node of that name was or is to be.
fn known<'s>(survey: &'s Survey<'_>) -> BTreeMap<&'s str, NodeInfo> {
    let registry = survey.registry();
    let mut known: BTreeMap<&str, NodeInfo> = BTreeMap::new();
    for expected in registry.iter().flat_map(|d| &d.expected) {
        known.insert(&expected.info.name, expected.info.clone());
    }
    // Not all who were admitted have come so far as to be members of a group.
    let mut nodes: BTreeMap<u64, &NodeInfo> = living(survey).map(|n| (n.id, &n.info)).collect();
    nodes.extend(survey.members.iter().map(|(id, info)| (*id, info)));
    for info in nodes.into_values() {
        known.insert(&info.name, info.clone());
    }
    known
}

fn living<'s>(survey: &'s Survey<'_>) -> impl Iterator<Item = &'s NodeFacts> {
    let nodes = survey.registry().into_iter().flat_map(|d| &d.nodes);
    nodes.filter(|node| !node.retired)
}

/// What the nodes of a name shall be: by the newest that is registered, else as that name is expected. Whoever is admitted under a
/// name of which nothing else is said shall vote.
fn wish_of(survey: &Survey<'_>, name: &str) -> WishFacts {
    let registered = living(survey).filter(|node| node.info.name == name);
    if let Some(newest) = registered.max_by_key(|node| node.id) {
        return newest.wish;
    }
    let mut expected = survey.registry().into_iter().flat_map(|d| &d.expected);
    match expected.find(|e| e.info.name == name) {
        Some(expected) if expected.learner => WishFacts::Learner,
        _ => WishFacts::Voter,
    }
}
