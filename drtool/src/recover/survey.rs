//! What a collection shows: which directories can be used, who is missing, whether a quorum is there.
//!
//! Pure. A directory that cannot be used is named with the reason, and so is everybody whose data was not seen.

use std::collections::{BTreeMap, BTreeSet};

use confman_snapshot::model::{GroupId, Membership, NodeInfo, Position};
use confman_store::offline::codes;

use super::collection::{
    Collection, Directory, GroupFacts, IdentityFacts, Live, Stage, StoreSnapshot,
};
use super::plan::OldNode;
use super::refusal::Refusal;
use crate::finding::Severity;

/// A collection, looked through.
#[derive(Debug)]
pub(super) struct Survey<'c> {
    pub(super) collection: &'c Collection,
    /// The life that all directories are of.
    pub(super) life: &'c IdentityFacts,
    /// Directories that can be used, in order of the nodes' names.
    pub(super) usable: Vec<Candidate<'c>>,
    /// Why a node's data cannot be used, by node id.
    pub(super) unusable: BTreeMap<u64, String>,
    /// All members of all groups, learners too, by id.
    pub(super) members: BTreeMap<u64, NodeInfo>,
    /// The nodes that run and have data of this life, by id.
    pub(super) running: BTreeMap<u64, String>,
}

/// A directory that can be used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'c> {
    pub(super) directory: &'c Directory,
    pub(super) identity: &'c IdentityFacts,
}

impl<'c> Candidate<'c> {
    pub(super) fn name(&self) -> &'c str {
        &self.identity.name
    }

    pub(super) fn id(&self) -> u64 {
        self.identity.node_id
    }

    pub(super) fn node(&self) -> OldNode {
        OldNode {
            id: self.id(),
            name: self.name().to_owned(),
        }
    }

    pub(super) fn group(&self, group: &GroupId) -> Option<&'c GroupFacts> {
        self.directory.group(group)
    }

    /// Where its data of the group ends.
    pub(super) fn end(&self, group: &GroupId) -> Option<Position> {
        self.group(group).and_then(GroupFacts::end)
    }
}

/// Looks through a collection. Everything that forbids a plan is told at once.
pub(super) fn survey(collection: &Collection) -> Result<Survey<'_>, Vec<Refusal>> {
    let identities = collection
        .directories
        .iter()
        .filter_map(|d| d.identity.as_ref());
    // Of equals the first: the others are told to be foreign to it.
    let Some(life) = identities.reduce(|known, identity| {
        if identity.incarnation > known.incarnation {
            identity
        } else {
            known
        }
    }) else {
        return Err(vec![Refusal::new(
            "RECOVER_NO_DIRECTORY",
            "the collection has no directory whose identity can be read",
            "collect the data directory of a node that survived; when there is none, restore from the store: `drtool restore plan`",
        )]);
    };
    let mut refusals = Vec::new();
    let mut survey = Survey {
        collection,
        life,
        usable: Vec::new(),
        unusable: BTreeMap::new(),
        members: BTreeMap::new(),
        running: BTreeMap::new(),
    };
    survey.sort_directories(&mut refusals);
    for live in &collection.live {
        survey.hear(live, &mut refusals);
    }
    survey.hear_store(&mut refusals);
    survey.find_members();
    survey.check_agreement(&mut refusals);
    if refusals.is_empty() {
        Ok(survey)
    } else {
        Err(refusals)
    }
}

impl<'c> Survey<'c> {
    /// All groups that the cluster has.
    pub(super) fn groups(&self) -> Vec<GroupId> {
        // A number of shards that no directory has groups for is not believed.
        let there = self.collection.directories.iter().map(|d| d.groups.len());
        let shards = (self.life.shards as usize).min(there.max().unwrap_or(0)) as u32;
        std::iter::once(GroupId::meta())
            .chain((0..shards).map(GroupId::config))
            .collect()
    }

    /// The directory in which the group's log ends last; of equals the first by name.
    pub(super) fn best(&self, group: &GroupId) -> Option<Candidate<'c>> {
        let mut best: Option<Candidate<'c>> = None;
        for candidate in &self.usable {
            if best.is_none_or(|known| candidate.end(group) > known.end(group)) {
                best = Some(*candidate);
            }
        }
        best
    }

    /// The members of the group, by the log that ends last.
    pub(super) fn membership(&self, group: &GroupId) -> Option<&'c Membership> {
        self.best(group)?.group(group)?.membership()
    }

    /// The memberships under which anything may have been acknowledged that no directory here proves, oldest first: the last one
    /// that is proven to be committed, and all that were appended after it. The last of them alone does not say it: a change that
    /// its leader appended and nobody else got was never in effect, and those who did not get it went on under the one before.
    /// What a later leader replaced was never committed, and does not count.
    pub(super) fn memberships(&self, group: &GroupId) -> Vec<&'c Membership> {
        let facts = || self.usable.iter().filter_map(|c| c.group(group));
        let best = self.best(group).and_then(|best| best.group(group));
        let is_there = |m: &&Membership| match (best, m.position) {
            (Some(best), Some(position)) => holds(best, position),
            _ => true,
        };
        let committed = facts().filter_map(|f| f.committed_membership()?.position);
        let floor = committed.max();
        let mut all: Vec<&Membership> = facts()
            .flat_map(|f| &f.memberships)
            .filter(|m| m.position >= floor)
            .filter(is_there)
            .collect();
        all.sort_by_key(|m| m.position);
        all.dedup_by_key(|m| m.position);
        all
    }

    /// The voters of the group, by any of those memberships, of whom no directory can be used.
    pub(super) fn unseen_voters(&self, group: &GroupId) -> BTreeSet<u64> {
        let voters = self.memberships(group).into_iter();
        voters
            .flat_map(|m| m.voters.iter().flatten().copied())
            .filter(|id| !self.usable.iter().any(|c| c.id() == *id))
            .collect()
    }

    /// Whether the nodes that were seen could elect a leader in every group by themselves.
    pub(super) fn could_form_quorum(&self) -> bool {
        let there: BTreeSet<u64> = self
            .usable
            .iter()
            .map(Candidate::id)
            .chain(self.running.keys().copied())
            .collect();
        self.groups().iter().all(|group| {
            self.membership(group)
                .is_some_and(|m| !m.voters.is_empty() && has_quorum(m, &there))
        })
    }

    /// Whether the voters that were not seen are enough to have acknowledged entries among themselves. Of a membership in
    /// transition each half counts by itself: once it is committed, those unseen may have gone on to either of them.
    pub(super) fn unseen_could_commit(&self, group: &GroupId) -> bool {
        let unseen = self.unseen_voters(group);
        let memberships = self.memberships(group).into_iter();
        memberships
            .flat_map(|m| &m.voters)
            .any(|set| is_majority(set, &unseen))
    }

    /// What answers and cannot be asked, and is no node of the cluster by the operator's word.
    pub(super) fn not_ours(&self) -> impl Iterator<Item = &'c Live> {
        self.collection.live.iter().filter(|live| live.not_ours)
    }

    /// The newest snapshot of the group in the store, of this life or one that it grew from. What a life wrote whose recovery was
    /// undone is no past of this one.
    pub(super) fn snapshot(&self, group: &GroupId) -> Option<&'c StoreSnapshot> {
        let is_ours = |s: &&StoreSnapshot| {
            s.group == *group
                && s.cluster.uuid == self.life.cluster_uuid
                && s.cluster.incarnation <= self.life.incarnation
        };
        let snapshots = &self.collection.store.as_ref()?.snapshots;
        snapshots.iter().filter(is_ours).max_by_key(|s| s.position)
    }

    /// The name of a node.
    pub(super) fn name_of(&self, id: u64) -> String {
        self.members
            .get(&id)
            .map_or_else(|| format!("node id {id}"), |info| info.name.clone())
    }

    fn sort_directories(&mut self, refusals: &mut Vec<Refusal>) {
        let mut seen: BTreeMap<u64, &Directory> = BTreeMap::new();
        let life = |i: &IdentityFacts| (i.cluster_uuid.clone(), i.incarnation, i.lineage.clone());
        for directory in &self.collection.directories {
            let place = format!("{} on {}", directory.path, directory.host);
            if let Some(plan) = &directory.surgery {
                refusals.push(Refusal::new(
                    "RECOVER_UNDER_WAY",
                    format!("{place}: plan {plan} was begun there and has not ended"),
                    "end it with `drtool recover apply` or take it back with `drtool recover undo`, with that plan, then collect again",
                ));
                continue;
            }
            let Some(identity) = &directory.identity else {
                continue;
            };
            if life(identity) != life(self.life) {
                refusals.push(foreign(&place, identity, self.life));
                continue;
            }
            if let Some(other) = seen.insert(identity.node_id, directory) {
                refusals.push(Refusal::new(
                    "RECOVER_SAME_NODE",
                    format!(
                        "{place} and {} on {} are both of {} (node id {}): one is a copy",
                        other.path, other.host, identity.name, identity.node_id
                    ),
                    "collect again with one of them: the one that the node ran on last; or collect without --merge if one is an older reading",
                ));
                continue;
            }
            match why_unusable(directory, identity) {
                Some(why) => {
                    self.unusable.insert(identity.node_id, why);
                }
                None => self.usable.push(Candidate {
                    directory,
                    identity,
                }),
            }
            if let Some(holder) = &directory.in_use {
                self.running
                    .insert(identity.node_id, format!("{place} is held by {holder}"));
            }
        }
        self.usable
            .sort_by(|a, b| (a.name(), a.id()).cmp(&(b.name(), b.id())));
    }

    /// What a living node says, as far as it matters.
    fn hear(&mut self, live: &Live, refusals: &mut Vec<Refusal>) {
        let alive = |what: String| {
            Refusal::new(
                "RECOVER_QUORUM_ALIVE",
                what,
                "nothing is to be recovered: a quorum lives. Bring the other nodes back with their directories, or empty ones: they rejoin by themselves",
            )
        };
        if live.is_foreign(&self.life.cluster_uuid) {
            return;
        }
        if let Some(readiness) = live.readiness.as_ref().filter(|r| r.ready) {
            let name = readiness.node.as_ref().map_or("a node", |n| &n.name);
            refusals.push(alive(format!("{name} at {} is ready", live.url)));
            return;
        }
        let Some(status) = &live.status else {
            // It runs, and does not tell us more. Before it has an identity it has nothing to lose.
            if let Some(node) = live.node() {
                self.running
                    .insert(node.id, format!("{} runs at {}", node.name, live.url));
            }
            return;
        };
        if status.incarnation > self.life.incarnation {
            refusals.push(newer(format!(
                "{} at {} is of incarnation {}, the directories are of {}",
                status.node.name, live.url, status.incarnation, self.life.incarnation
            )));
            return;
        }
        let led = status
            .groups
            .iter()
            .find_map(|g| Some((g.leader.as_ref()?, &g.group)));
        if let Some((leader, group)) = led {
            refusals.push(alive(format!(
                "{} at {} says that {} leads {group}",
                status.node.name, live.url, leader.name
            )));
            return;
        }
        self.running.insert(
            status.node.id,
            format!("{} runs at {}", status.node.name, live.url),
        );
    }

    /// Whose the store is, and whether it knows of another life.
    fn hear_store(&self, refusals: &mut Vec<Refusal>) {
        let Some(store) = &self.collection.store else {
            return;
        };
        let ours = |c: &&super::collection::ClaimFacts| c.cluster.uuid == self.life.cluster_uuid;
        if !store.clusters.is_empty() && !store.clusters.iter().any(|c| ours(&c)) {
            refusals.push(Refusal::new(
                "RECOVER_FOREIGN",
                format!("the store {} belongs to another cluster", store.url),
                "name this cluster's store with --store, or go without one: --no-store",
            ));
        }
        for claim in store.clusters.iter().filter(ours) {
            let (theirs, own) = (claim.cluster.incarnation, self.life.incarnation);
            if theirs > own {
                refusals.push(newer(format!(
                    "the store has incarnation {theirs} of this cluster (by {:?}, {}), the directories are of {own}",
                    claim.lineage, claim.created_at
                )));
            } else if theirs == own && claim.lineage != self.life.lineage {
                refusals.push(newer(format!(
                    "the store says that incarnation {own} was begun by {:?}, the directories by {:?}",
                    claim.lineage, self.life.lineage
                )));
            }
        }
    }

    fn find_members(&mut self) {
        for candidate in &self.usable {
            self.members.extend(
                candidate
                    .identity
                    .members
                    .iter()
                    .map(|(id, i)| (*id, i.clone())),
            );
        }
        // Later words are better: the registry knows those that moved.
        let mut of_groups = BTreeSet::new();
        for group in self.groups() {
            for membership in self.memberships(&group) {
                let nodes = membership.nodes.iter().map(|(id, i)| (*id, i.clone()));
                self.members.extend(nodes);
                of_groups.extend(membership.nodes.keys().copied());
            }
        }
        self.members.retain(|id, _| of_groups.contains(id));
        if let Some(registry) = self.registry() {
            for node in registry.nodes.iter().filter(|n| !n.retired) {
                if let Some(known) = self.members.get_mut(&node.id) {
                    *known = node.info.clone();
                }
            }
        }
    }

    /// The directory whose state knows most of nodes and names.
    pub(super) fn registry(&self) -> Option<&'c Directory> {
        let applied = |c: &&Candidate<'c>| Some(c.group(&GroupId::meta())?.applied);
        // Of equals the first by name.
        let most = self.usable.iter().rev().max_by_key(applied);
        most.map(|c| c.directory)
    }

    /// Directories of one life cannot contradict each other; where they do, one of them is not what it seems.
    fn check_agreement(&self, refusals: &mut Vec<Refusal>) {
        for group in self.groups() {
            let Some(best) = self.best(&group) else {
                continue;
            };
            let Some(best_facts) = best.group(&group) else {
                continue;
            };
            for candidate in &self.usable {
                let Some(facts) = candidate.group(&group) else {
                    continue;
                };
                if let Some((proven, by)) = facts.proven()
                    && !holds(best_facts, proven)
                {
                    refusals.push(diverged(format!(
                        "{group}: entry {proven} is {by} at {}, and {}, whose log ends later, does not have it",
                        candidate.name(),
                        best.name()
                    )));
                }
            }
            for (a, b) in pairs(&self.usable) {
                let (Some(one), Some(other)) = (a.group(&group), b.group(&group)) else {
                    continue;
                };
                if let Some(position) = differing_state(one, other) {
                    refusals.push(diverged(format!(
                        "{group}: {} and {} have different states at entry {position}",
                        a.name(),
                        b.name()
                    )));
                }
            }
        }
    }
}

fn pairs<T: Copy>(all: &[T]) -> impl Iterator<Item = (T, T)> + '_ {
    all.iter()
        .enumerate()
        .flat_map(|(at, a)| all.iter().skip(at + 1).map(|b| (*a, *b)))
}

/// Where two directories say different hashes of the same position.
fn differing_state(a: &GroupFacts, b: &GroupFacts) -> Option<Position> {
    let said = |g: &GroupFacts| -> BTreeMap<Position, String> {
        let recorded = g
            .snapshots
            .iter()
            .map(|s| (s.position, s.state_hash.clone()));
        let own = g.applied.zip(g.state_hash.clone());
        recorded.chain(own).collect()
    };
    let (a, b) = (said(a), said(b));
    a.iter()
        .find(|(position, hash)| b.get(*position).is_some_and(|other| other != *hash))
        .map(|(position, _)| *position)
}

/// Why the data of a node cannot be used, if it cannot.
fn why_unusable(directory: &Directory, identity: &IdentityFacts) -> Option<String> {
    match identity.stage {
        Stage::Formed => return Some("it has not finished joining".to_owned()),
        Stage::Fenced => return Some(format!("it is fenced: {}", first_line(&identity.reason))),
        Stage::Initialized => {}
    }
    let errors = directory
        .findings
        .iter()
        .filter(|f| f.severity == Severity::Error);
    // A state that turned out to be wrong says most.
    let worst = errors.max_by_key(|f| f.code == codes::GROUP_DIVERGED)?;
    Some(format!("{} {}", worst.code, worst.what))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn foreign(place: &str, found: &IdentityFacts, expected: &IdentityFacts) -> Refusal {
    let text = |i: &IdentityFacts| {
        let by = if i.lineage.is_empty() {
            String::new()
        } else {
            format!(" by {:?}", i.lineage)
        };
        format!(
            "cluster {} incarnation {}{by}",
            i.cluster_uuid, i.incarnation
        )
    };
    Refusal::new(
        "RECOVER_FOREIGN",
        format!(
            "{place} is of {}, another directory of {}",
            text(found),
            text(expected)
        ),
        "collect again without the directories of another cluster or of a life that is over, or collect without --merge if that is an older reading of the same directory",
    )
}

fn newer(what: String) -> Refusal {
    Refusal::new(
        "RECOVER_NEWER_LIFE",
        what,
        "the life of these directories is over. Start the node: it fences itself and says how to rejoin; or undo the other recovery first",
    )
}

fn diverged(what: String) -> Refusal {
    Refusal::new(
        "RECOVER_DIVERGED",
        what,
        "one of them is damaged or was restored from an older copy: compare them with `drtool diff`, collect again without the wrong one, and give it up with --lost NAME",
    )
}

/// Whether these nodes are a quorum of every set of voters.
fn has_quorum(membership: &Membership, there: &BTreeSet<u64>) -> bool {
    membership.voters.iter().all(|set| is_majority(set, there))
}

fn is_majority(of: &BTreeSet<u64>, there: &BTreeSet<u64>) -> bool {
    of.intersection(there).count() > of.len() / 2
}

/// The leader that wrote the entry at `index` of this log; none when the directory does not tell any more.
fn leader_at(facts: &GroupFacts, index: u64) -> Option<(u64, u64)> {
    let begins = facts.leaders.iter().rev().find(|p| p.index <= index)?;
    (facts.last.is_some_and(|last| index <= last.index)).then_some((begins.term, begins.node))
}

/// Whether the log has exactly this entry, or has purged or applied beyond it.
pub(super) fn holds(facts: &GroupFacts, position: Position) -> bool {
    if facts.end().is_none_or(|end| end.index < position.index) {
        return false;
    }
    leader_at(facts, position.index).is_none_or(|leader| leader == (position.term, position.node))
}

/// Up to which index two logs are the same: Raft never writes two different entries under one leader and index.
pub(super) fn common(a: &GroupFacts, b: &GroupFacts) -> u64 {
    let ends = (
        a.end().map_or(0, |p| p.index),
        b.end().map_or(0, |p| p.index),
    );
    let shorter = ends.0.min(ends.1);
    // Between two begins of a leader, in either log, nothing changes.
    let mut bounds: Vec<u64> = [a, b]
        .iter()
        .flat_map(|facts| facts.leaders.iter().map(|p| p.index))
        .filter(|begins| *begins <= shorter && *begins > 0)
        .map(|begins| begins - 1)
        .collect();
    bounds.push(shorter);
    bounds.sort_unstable();
    bounds
        .into_iter()
        .rev()
        .find(|index| {
            let (one, other) = (leader_at(a, *index), leader_at(b, *index));
            // What one of them has purged or installed was committed, and is in every later log.
            one.is_none() || other.is_none() || one == other
        })
        .unwrap_or(0)
}
