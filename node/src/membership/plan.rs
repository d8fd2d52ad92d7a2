//! The next step of a group's membership: a plain function of what is wished and what is there.
//!
//! The registry in `__meta/0` says which nodes exist and what each shall be; the newest id under a name is the one that
//! counts, older ids under that name are what a lost disk left behind (promise I14). One step at a time: learner first,
//! then, when it has caught up, one joint change that lets it vote and takes those away whose place it takes, so that
//! the number of voters does not change on the way. Whoever shall stop voting leads nothing first, and is taken out only
//! while those who stay can commit. `__meta/0` comes last, so that a node hears what is wished of it until the end.

use std::collections::{BTreeMap, BTreeSet};

use confman_store::membership::NodeWish;

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
    /// What it shall be.
    pub(crate) wish: NodeWish,
    /// The id that it takes the place of.
    pub(crate) replaces: Option<u64>,
}

/// What the registry says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    /// Every node that is not retired.
    pub(crate) nodes: Vec<Registered>,
    /// Ids that are retired.
    pub(crate) retired: BTreeSet<u64>,
    /// Who shall lead this group, when an operator asked for it.
    pub(crate) lead: Option<u64>,
}

/// The group as its leader sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// The leader's own id.
    pub(crate) own: u64,
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
    /// Members that answered the leader lately, the leader too.
    pub(crate) alive: BTreeSet<u64>,
    /// Committed index.
    pub(crate) committed: u64,
    /// In `__meta/0`: ids that are members of other groups. Empty in the others.
    pub(crate) elsewhere: BTreeSet<u64>,
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
        /// Those whose place it takes.
        remove: BTreeSet<u64>,
    },
    /// It follows on and does not vote any more.
    Demote(u64),
    /// A voter leaves.
    RemoveVoter(u64),
    /// Stop feeding these, who do not vote.
    Remove(BTreeSet<u64>),
    /// A node that kept its disk moved to another address.
    Readdress(Registered),
    /// Finish a joint change that was left half way.
    Finish(BTreeSet<u64>),
    /// This voter shall lead.
    HandOver(u64),
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing: the group is as it shall be, or a step is under way.
    Rest,
    /// This.
    Step(Step),
    /// Something is to be done and cannot be yet.
    Wait(String),
}

/// How far behind a learner may be, in entries, to be let vote.
pub(crate) const PROMOTE_LAG_MAX: u64 = 500;

/// What comes next in one group.
pub(crate) fn next(wishes: &Wishes, view: &View) -> Next {
    if view.pending {
        return Next::Rest;
    }
    if let Some(voters) = &view.joint_towards {
        return Next::Step(Step::Finish(voters.clone()));
    }
    let plan = Plan {
        view,
        nodes: &wishes.nodes,
        newest: newest(&wishes.nodes),
    };
    // What can be done is done before anything is waited for.
    let mut waits = None;
    let mut looks = plan.arrivals();
    looks.extend(plan.departures());
    looks.extend(plan.leftovers(&wishes.retired));
    looks.extend(wishes.lead.map(|id| plan.lead(id)));
    for look in looks {
        match look {
            Next::Rest => {}
            Next::Step(step) => return Next::Step(step),
            Next::Wait(why) => {
                waits.get_or_insert(why);
            }
        }
    }
    waits.map_or(Next::Rest, Next::Wait)
}

fn newest(nodes: &[Registered]) -> BTreeMap<&str, &Registered> {
    let mut newest: BTreeMap<&str, &Registered> = BTreeMap::new();
    for node in nodes {
        let slot = newest.entry(node.name.as_str()).or_insert(node);
        if node.id > slot.id {
            *slot = node;
        }
    }
    newest
}

struct Plan<'a> {
    view: &'a View,
    nodes: &'a [Registered],
    newest: BTreeMap<&'a str, &'a Registered>,
}

impl Plan<'_> {
    /// The newest node of the same name, which is the one that counts.
    fn current(&self, id: u64) -> Option<&Registered> {
        let node = self.nodes.iter().find(|n| n.id == id)?;
        self.newest.get(node.name.as_str()).copied()
    }

    /// It shall leave: its name goes.
    fn goes(&self, id: u64) -> bool {
        self.current(id).is_some_and(|n| n.wish == NodeWish::Gone)
    }

    /// The node of another name that takes its place.
    fn successor(&self, id: u64) -> Option<&Registered> {
        self.newest
            .values()
            .find(|n| n.replaces == Some(id) && n.wish != NodeWish::Gone)
            .filter(|n| {
                self.nodes
                    .iter()
                    .any(|old| old.id == id && old.name != n.name)
            })
            .copied()
    }

    fn name(&self, id: u64) -> String {
        self.nodes
            .iter()
            .find(|n| n.id == id)
            .map_or_else(|| format!("node id {id}"), |n| format!("{} ({id})", n.name))
    }

    /// How many of `voters` answer, and how many must for anything to be committed.
    fn strength(&self, voters: &BTreeSet<u64>) -> confman_client::Strength {
        confman_client::Strength::of(voters.iter().copied(), |id| self.view.alive.contains(&id))
    }

    fn arrivals(&self) -> Vec<Next> {
        self.newest
            .values()
            .filter(|node| node.wish != NodeWish::Gone && self.successor(node.id).is_none())
            .map(|node| self.arrival(node))
            .collect()
    }

    fn arrival(&self, node: &Registered) -> Next {
        match self.view.members.get(&node.id) {
            None => return Next::Step(Step::AddLearner(node.clone())),
            Some((api_url, peer_addr))
                if *api_url != node.api_url || *peer_addr != node.peer_addr =>
            {
                return Next::Step(Step::Readdress(node.clone()));
            }
            Some(_) => {}
        }
        match (node.wish, self.view.voters.contains(&node.id)) {
            (NodeWish::Voter, false) => self.promotion(node),
            (NodeWish::Learner, true) => self.leave(node.id, Step::Demote(node.id)),
            _ => Next::Rest,
        }
    }

    fn promotion(&self, node: &Registered) -> Next {
        let lag = match self.view.matched.get(&node.id) {
            Some(matched) => self.view.committed.saturating_sub(*matched),
            None => {
                return Next::Wait(format!("{} has not answered yet", self.name(node.id)));
            }
        };
        if lag > PROMOTE_LAG_MAX {
            return Next::Wait(format!(
                "{} is {lag} entries behind, and may be {PROMOTE_LAG_MAX} to vote",
                self.name(node.id)
            ));
        }
        let remove: BTreeSet<u64> = self
            .nodes
            .iter()
            .filter(|other| other.id != node.id)
            .filter(|other| other.name == node.name || node.replaces == Some(other.id))
            .map(|other| other.id)
            .filter(|id| self.view.members.contains_key(id))
            .collect();
        let mut after: BTreeSet<u64> = self.view.voters.difference(&remove).copied().collect();
        after.insert(node.id);
        let strength = self.strength(&after);
        if !strength.has_quorum() {
            return Next::Wait(format!(
                "with {} {} of {} voters would answer, {} are needed",
                self.name(node.id),
                strength.up,
                strength.voters,
                strength.quorum()
            ));
        }
        if remove.contains(&self.view.own)
            && let Some(to) = self.best_leader(&after)
        {
            return Next::Step(Step::HandOver(to));
        }
        Next::Step(Step::Promote {
            add: node.id,
            remove,
        })
    }

    /// Voters that shall not be here any more.
    fn departures(&self) -> Vec<Next> {
        self.view
            .voters
            .iter()
            .copied()
            .filter(|id| self.departs(*id))
            .map(|id| self.leave(id, Step::RemoveVoter(id)))
            .collect()
    }

    fn departs(&self, id: u64) -> bool {
        if self.goes(id) {
            return true;
        }
        // Whose place was taken already.
        if let Some(successor) = self.successor(id) {
            return self.view.voters.contains(&successor.id);
        }
        // A lost disk of a node that shall learn: its new id never votes in its place.
        self.current(id).is_some_and(|current| {
            current.id != id
                && current.wish == NodeWish::Learner
                && self.view.members.contains_key(&current.id)
        })
    }

    /// `step` takes a vote away from `id`: only while the others can commit, and not from who leads.
    fn leave(&self, id: u64, step: Step) -> Next {
        let mut after = self.view.voters.clone();
        after.remove(&id);
        let strength = self.strength(&after);
        if !strength.has_quorum() {
            return Next::Wait(format!(
                "without {} {} of {} voters would answer, {} are needed",
                self.name(id),
                strength.up,
                strength.voters,
                strength.quorum()
            ));
        }
        if id == self.view.own {
            return match self.best_leader(&after) {
                Some(to) => Next::Step(Step::HandOver(to)),
                None => Next::Wait(format!("nobody can lead instead of {}", self.name(id))),
            };
        }
        if matches!(step, Step::RemoveVoter(_)) && self.view.elsewhere.contains(&id) {
            return Next::Wait(format!("{} leaves the other groups first", self.name(id)));
        }
        Next::Step(step)
    }

    /// Of those that vote now and then and answer, the one that has the most.
    fn best_leader(&self, after: &BTreeSet<u64>) -> Option<u64> {
        after
            .iter()
            .copied()
            .filter(|id| *id != self.view.own && self.view.voters.contains(id))
            .filter(|id| self.view.alive.contains(id) && !self.departs(*id))
            .max_by_key(|id| self.view.matched.get(id).copied())
    }

    /// Members that do not vote and shall not be fed.
    fn leftovers(&self, retired: &BTreeSet<u64>) -> Vec<Next> {
        let stale = |id: u64| {
            retired.contains(&id)
                || self.goes(id)
                || self.current(id).is_some_and(|current| {
                    // Its new id is fed, or votes already.
                    current.id != id && self.view.members.contains_key(&current.id)
                })
                || self
                    .successor(id)
                    .is_some_and(|s| self.view.voters.contains(&s.id))
        };
        let (waits, goes): (BTreeSet<u64>, BTreeSet<u64>) = self
            .view
            .members
            .keys()
            .copied()
            .filter(|id| !self.view.voters.contains(id) && stale(*id))
            .partition(|id| self.goes(*id) && self.view.elsewhere.contains(id));
        let mut next = Vec::new();
        if !goes.is_empty() {
            next.push(Next::Step(Step::Remove(goes)));
        }
        next.extend(
            waits
                .first()
                .map(|id| Next::Wait(format!("{} leaves the other groups first", self.name(*id)))),
        );
        next
    }

    fn lead(&self, id: u64) -> Next {
        if id == self.view.own {
            return Next::Rest;
        }
        let lag = self
            .view
            .matched
            .get(&id)
            .map_or(u64::MAX, |m| self.view.committed.saturating_sub(*m));
        if !self.view.voters.contains(&id) {
            return Next::Wait(format!(
                "{} does not vote, so it cannot lead",
                self.name(id)
            ));
        }
        if !self.view.alive.contains(&id) || lag > PROMOTE_LAG_MAX {
            return Next::Wait(format!(
                "{} does not answer or is behind, so it cannot lead",
                self.name(id)
            ));
        }
        Next::Step(Step::HandOver(id))
    }
}

#[cfg(test)]
mod tests;
