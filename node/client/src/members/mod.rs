//! What a change of the membership would do, and whether it may be: a pure function of what the leader of `__meta/0` says.
//!
//! The tool shows the plan before it asks, and the node refuses by the same function, so that neither says what the other
//! does not hold.
//!
//! Promises: a plan whose result could not commit anything now is refused; one after which fewer nodes may go than now
//! is refused unless that is asked for by name; what is already so is nothing to do, so that every intent can be
//! repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use crate::Strength;
use crate::wire::{ChangeIntent, MemberNode, MemberState, Members};

mod shift;

/// What will happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberPlan {
    /// The intent in words.
    pub what: String,
    /// Why there is nothing to do, when there is not.
    pub nothing_to_do: Option<String>,
    /// The change under way that has the same intent: it is followed, not begun anew.
    pub resumes: Option<String>,
    /// The change under way that this one calls off.
    pub calls_off: Option<String>,
    /// [`Members::registry`] that this was made from.
    pub registry: String,
    /// Each group, before and after.
    pub groups: Vec<GroupPlan>,
    /// What happens, in order.
    pub steps: Vec<String>,
    /// What an operator should know or do.
    pub notes: Vec<String>,
}

/// One group, before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupPlan {
    /// The group.
    pub group: String,
    /// Who votes now.
    pub voters_before: Vec<String>,
    /// Who votes then.
    pub voters_after: Vec<String>,
    /// How many must be up, now and then.
    pub quorum: [usize; 2],
    /// How many more nodes may go, now and then.
    pub tolerance: [usize; 2],
}

/// Every stable name that a [`MemberRefusal`] has.
pub const REFUSALS: &[&str] = &[
    "ADDRESS_NEEDED",
    "ADDRESS_TAKEN",
    "ALREADY_VOTES",
    "BAD_ADDRESS",
    "BAD_NAME",
    "CHANGE_RUNNING",
    "EXPECTED_ELSEWHERE",
    "GROUP_UNKNOWN",
    "LAST_VOTER",
    "LESS_TOLERANCE",
    "MEMBER_DOWN",
    "MEMBER_EXISTS",
    "MEMBER_UNKNOWN",
    "NOT_A_VOTER",
    "NO_QUORUM",
    "RESULT_HAS_NO_QUORUM",
    "SAME_NAME",
];

/// Why it may not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct MemberRefusal {
    /// A stable name, one of [`REFUSALS`].
    pub code: &'static str,
    /// What stands against it.
    pub what: String,
    /// What to do.
    pub hint: String,
}

fn refuse<T>(
    code: &'static str,
    what: impl Into<String>,
    hint: impl Into<String>,
) -> Result<T, MemberRefusal> {
    Err(MemberRefusal {
        code,
        what: what.into(),
        hint: hint.into(),
    })
}

/// Who shall vote beside those who do, and who shall not any more.
#[derive(Default)]
struct Shift {
    comes: Option<Comer>,
    goes: BTreeSet<u64>,
}

/// A node that shall vote.
struct Comer {
    /// None while it has no id.
    id: Option<u64>,
    name: String,
}

/// Plans `intent`.
///
/// # Errors
/// [`MemberRefusal`].
pub fn plan(
    intent: &ChangeIntent,
    members: &Members,
    allow_less_tolerance: bool,
) -> Result<MemberPlan, MemberRefusal> {
    let mut plan = MemberPlan {
        what: intent.to_string(),
        nothing_to_do: None,
        resumes: None,
        calls_off: None,
        registry: members.registry.clone(),
        groups: Vec::new(),
        steps: Vec::new(),
        notes: Vec::new(),
    };
    let running = members.change.as_ref().filter(|c| c.ended_at.is_none());
    if let Some(running) = running {
        if intent.is_of(running) {
            same_address(intent, members)?;
            plan.resumes = Some(running.id.clone());
            plan.steps
                .push(format!("follow the change that {} began", running.actor));
            return Ok(plan);
        }
        // A replacement that is under way is called off by taking the new node out again, and in no other way: its old one
        // may be gone from some groups.
        let calls_off = running.name == intent.name()
            && (running.kind != "replace" || matches!(intent, ChangeIntent::Remove { .. }));
        if !calls_off {
            return refuse(
                "CHANGE_RUNNING",
                format!(
                    "another change is under way: {}, begun by {} at {}",
                    running.words, running.actor, running.begun_at
                ),
                format!(
                    "wait for it (`drtool member list` shows it), or call it off with a change of the same node: `drtool member remove {}`",
                    running.name
                ),
            );
        }
        plan.calls_off = Some(running.words.clone());
    }
    let shift = shift::shift(intent, members, &mut plan)?;
    if plan.nothing_to_do.is_some() {
        plan.groups = unchanged(members);
        return Ok(plan);
    }
    for group in &members.groups {
        let names = names(members);
        let before: BTreeSet<u64> = group.voters.iter().copied().collect();
        let mut after: BTreeSet<u64> = before.difference(&shift.goes).copied().collect();
        let mut voters_after: Vec<String> = Vec::new();
        if let Some(comer) = &shift.comes {
            match comer.id {
                Some(id) => {
                    after.insert(id);
                }
                // It votes only when it has caught up, so it is up when it counts.
                None => voters_after.push(comer.name.clone()),
            }
        }
        let up = |id: u64| members.nodes.iter().any(|n| n.id == id && n.up);
        let now = Strength::of(before.iter().copied(), up);
        let newcomers = voters_after.len();
        let then = Strength::of(after.iter().copied(), up);
        let then = Strength {
            voters: then.voters + newcomers,
            up: then.up + newcomers,
        };
        let (tolerance_now, tolerance_then) = judge(&group.group, now, then, allow_less_tolerance)?;
        voters_after.extend(after.iter().map(|id| name_of(&names, *id)));
        voters_after.sort_unstable();
        plan.groups.push(GroupPlan {
            group: group.group.clone(),
            voters_before: before.iter().map(|id| name_of(&names, *id)).collect(),
            voters_after,
            quorum: [now.quorum(), then.quorum()],
            tolerance: [tolerance_now, tolerance_then],
        });
    }
    Ok(plan)
}

/// A name is expected at one address; another one is another wish.
fn same_address(intent: &ChangeIntent, members: &Members) -> Result<(), MemberRefusal> {
    let (ChangeIntent::Add { peer_addr, .. }
    | ChangeIntent::Replace {
        peer_addr: Some(peer_addr),
        ..
    }) = intent
    else {
        return Ok(());
    };
    let other = members
        .expected
        .iter()
        .find(|e| e.name == intent.name() && e.peer_addr != *peer_addr);
    match other {
        None => Ok(()),
        Some(expected) => refuse(
            "EXPECTED_ELSEWHERE",
            format!("{} is expected at {}", expected.name, expected.peer_addr),
            format!(
                "to expect it elsewhere, `drtool member remove {}` first",
                expected.name
            ),
        ),
    }
}

/// Whether a group of strength `now` may become one of strength `then`.
fn judge(
    group: &str,
    now: Strength,
    then: Strength,
    allow_less: bool,
) -> Result<(usize, usize), MemberRefusal> {
    let Some(tolerance_now) = now.tolerance() else {
        return refuse(
            "NO_QUORUM",
            format!(
                "{group}: {} of {} voters are up, {} are needed: nothing can be committed, a change neither",
                now.up,
                now.voters,
                now.quorum()
            ),
            "start the voters that still have their data directory; only if a majority is gone for ever go on with `drtool recover`",
        );
    };
    if then.voters == 0 {
        return refuse(
            "LAST_VOTER",
            format!("{group}: nobody would vote any more"),
            "add or promote another node first",
        );
    }
    let Some(tolerance_then) = then.tolerance() else {
        return refuse(
            "RESULT_HAS_NO_QUORUM",
            format!(
                "{group}: of the {} that would vote {} are up, {} are needed: the result could not commit anything",
                then.voters,
                then.up,
                then.quorum()
            ),
            "bring nodes that are down back first, or remove those that are gone for good before any other",
        );
    };
    if tolerance_then < tolerance_now && !allow_less {
        return refuse(
            "LESS_TOLERANCE",
            format!(
                "{group}: {tolerance_now} more may go now, and {tolerance_then} afterwards ({} of {} voters up)",
                then.up, then.voters
            ),
            "add a node first, or `replace` instead of removing; if it is meant, say --allow-less-tolerance",
        );
    }
    Ok((tolerance_now, tolerance_then))
}

fn unchanged(members: &Members) -> Vec<GroupPlan> {
    let names = names(members);
    let up = |id: u64| members.nodes.iter().any(|n| n.id == id && n.up);
    members
        .groups
        .iter()
        .map(|group| {
            let strength = Strength::of(group.voters.iter().copied(), up);
            let voters: Vec<String> = group.voters.iter().map(|id| name_of(&names, *id)).collect();
            let tolerance = strength.tolerance().unwrap_or(0);
            GroupPlan {
                group: group.group.clone(),
                voters_before: voters.clone(),
                voters_after: voters,
                quorum: [strength.quorum(); 2],
                tolerance: [tolerance; 2],
            }
        })
        .collect()
}

fn names(members: &Members) -> BTreeMap<u64, &str> {
    members
        .nodes
        .iter()
        .map(|n| (n.id, n.name.as_str()))
        .collect()
}

fn name_of(names: &BTreeMap<u64, &str>, id: u64) -> String {
    names
        .get(&id)
        .map_or_else(|| format!("node id {id}"), |name| format!("{name} ({id})"))
}

/// The node of that name that is not retired; the newest, when a lost disk has left an older one.
fn living<'m>(members: &'m Members, name: &str) -> Option<&'m MemberNode> {
    members
        .nodes
        .iter()
        .filter(|n| n.name == name && n.state != MemberState::Retired)
        .max_by_key(|n| n.id)
}

fn needed<'m>(members: &'m Members, name: &str) -> Result<&'m MemberNode, MemberRefusal> {
    let known: BTreeSet<&str> = members
        .nodes
        .iter()
        .filter(|n| n.state != MemberState::Retired)
        .map(|n| n.name.as_str())
        .collect();
    match living(members, name) {
        Some(node) => Ok(node),
        None => refuse(
            "MEMBER_UNKNOWN",
            format!("the cluster has no node called {name}"),
            format!(
                "it has {}",
                known.into_iter().collect::<Vec<_>>().join(", ")
            ),
        ),
    }
}

impl fmt::Display for MemberPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "plan: {}", self.what)?;
        if let Some(why) = &self.nothing_to_do {
            return writeln!(f, "  nothing to do: {why}");
        }
        if let Some(words) = &self.calls_off {
            writeln!(f, "  calls off: {words}")?;
        }
        for (number, step) in (1..).zip(&self.steps) {
            writeln!(f, "  {number}. {step}")?;
        }
        for group in &self.groups {
            writeln!(f, "  {}:", group.group)?;
            if group.voters_before == group.voters_after {
                writeln!(
                    f,
                    "    voters     {} (unchanged)",
                    group.voters_before.join(", ")
                )?;
            } else {
                writeln!(f, "    voters     {}", group.voters_before.join(", "))?;
                writeln!(f, "           ->  {}", group.voters_after.join(", "))?;
            }
            let [quorum_now, quorum_then] = group.quorum;
            let [now, then] = group.tolerance;
            writeln!(f, "    quorum     {quorum_now} -> {quorum_then}")?;
            writeln!(f, "    tolerance  {now} -> {then} more may go")?;
        }
        for note in &self.notes {
            writeln!(f, "  note: {note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
