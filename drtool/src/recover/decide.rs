//! From a collection to a plan: a pure function.
//!
//! The rule for several groups: the node that is ahead in most groups begins the new life, and a group in which another
//! directory ends later is taken from that one, log and state together. Groups are independent of each other, and the
//! node that begins has a new id in all of them, so that is as sound as if it had been ahead everywhere. Nothing that any
//! directory has is given up unless the operator says so by the group's name.

use std::collections::BTreeSet;

use confman_client::Endpoint;
use confman_client::wire::Time;
use confman_snapshot::model::{ClusterId, GroupId, NodeInfo};

use super::behind;
use super::collection::{Collection, Live, Stage};
use super::expected::{expected, left_out, names};
use super::loss;
use super::plan::{Accepted, GroupPlan, KIND, LostNode, OtherDirectory, Plan, Survivor, VERSION};
use super::refusal::Refusal;
use super::survey::{Candidate, Survey, survey};
use crate::finding::Severity;

/// Above the highest term that was seen: a dead majority may have voted on.
const TERM_MARGIN: u64 = 1_000;
/// Ids that a majority which nobody saw may have given.
const ID_MARGIN: u64 = 16;

/// What the operator decides, and what a pure function is given from outside.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// Who begins the new life; else the node that is ahead in most groups.
    pub survivor: Option<String>,
    /// Members whose data is lost for good, by name.
    pub lost: BTreeSet<String>,
    /// Groups of which entries may be dropped that others have or that are proven to be committed.
    pub data_loss: BTreeSet<GroupId>,
    /// Members that shall not come back, by name.
    pub gone: BTreeSet<String>,
    /// The id of the plan.
    pub plan_id: String,
    /// The time of the plan, microseconds since the epoch.
    pub now_us: i64,
}

/// Makes the plan, or says everything that stands against one.
///
/// # Errors
/// All refusals, at least one.
pub fn decide(collection: &Collection, wishes: &Wishes) -> Result<Plan, Vec<Refusal>> {
    let survey = survey(collection)?;
    let mut refusals = Vec::new();
    check_alive(&survey, &mut refusals);
    // Without any directory there is nothing to give members up for.
    if !survey.usable.is_empty() {
        check_unseen(&survey, wishes, &mut refusals);
    }
    let base = choose(&survey, wishes, &mut refusals);
    let mut groups = Vec::new();
    if let Some(base) = base {
        for group in survey.groups() {
            match plan_group(&survey, base, &group, wishes) {
                Ok(plan) => groups.push(plan),
                Err(refusal) => refusals.push(*refusal),
            }
        }
    }
    match base {
        Some(base) if refusals.is_empty() => Ok(write_down(&survey, base, groups, wishes)),
        _ => Err(refusals),
    }
}

fn check_alive(survey: &Survey<'_>, refusals: &mut Vec<Refusal>) {
    if survey.could_form_quorum() {
        let names: Vec<&str> = survey.usable.iter().map(Candidate::name).collect();
        refusals.push(Refusal::new(
            "RECOVER_QUORUM_POSSIBLE",
            format!(
                "the nodes that are left are a quorum by themselves ({})",
                names.join(", ")
            ),
            "start them with their directories: they elect a leader, nothing is lost, and empty nodes rejoin by themselves",
        ));
        return;
    }
    for (id, words) in &survey.running {
        refusals.push(Refusal::new(
            "RECOVER_RUNNING",
            format!("{words} (node id {id})"),
            "stop it, then collect its directory again: what a running node has may change",
        ));
    }
}

/// Every member is either here with sound data, or given up by name.
fn check_unseen(survey: &Survey<'_>, wishes: &Wishes, refusals: &mut Vec<Refusal>) {
    let is_here = |id: &u64| survey.usable.iter().any(|c| c.id() == *id);
    // A node whose disk was lost while it was a member comes back under a second id. What is given up is what is missing.
    let missing: BTreeSet<&str> = survey
        .members
        .iter()
        .filter(|(id, _)| !is_here(id))
        .map(|(_, info)| info.name.as_str())
        .collect();
    for (id, info) in &survey.members {
        let given_up = wishes.lost.contains(&info.name);
        match (is_here(id), given_up) {
            (true, true) if missing.contains(info.name.as_str()) => {}
            (true, true) => refusals.push(Refusal::new(
                "RECOVER_NOT_LOST",
                format!(
                    "{} is given up with --lost, and its data is here",
                    info.name
                ),
                "leave --lost out for it: its log counts",
            )),
            (false, false) => refusals.push(Refusal::new(
                "RECOVER_TOO_FEW",
                format!(
                    "{} (node id {id}) is a member and its data is not at hand: {}",
                    info.name,
                    why_missing(survey, *id)
                ),
                format!(
                    "collect its directory too. If it is lost for good: --lost {}",
                    info.name
                ),
            )),
            _ => {}
        }
    }
    let known = |name: &&String| survey.members.values().any(|info| info.name == **name);
    let may_join = names(survey);
    let unknown = wishes.lost.iter().filter(|n| !known(n));
    let gone = wishes.gone.iter();
    for name in unknown.chain(gone.filter(|n| !known(n) && !may_join.contains(*n))) {
        let names: BTreeSet<&str> = survey.members.values().map(|i| i.name.as_str()).collect();
        refusals.push(Refusal::new(
            "RECOVER_UNKNOWN_NAME",
            format!("there is no member called {name}"),
            format!("the members are {}", join(names)),
        ));
    }
}

fn join<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}

fn why_missing(survey: &Survey<'_>, id: u64) -> String {
    survey
        .unusable
        .get(&id)
        .cloned()
        .unwrap_or_else(|| "not collected".to_owned())
}

/// The node that begins the new life: the one that is ahead in most groups, of those that the operator means.
fn choose<'c>(
    survey: &Survey<'c>,
    wishes: &Wishes,
    refusals: &mut Vec<Refusal>,
) -> Option<Candidate<'c>> {
    let groups = survey.groups();
    let ahead = |candidate: &Candidate<'_>| {
        groups
            .iter()
            .filter(|group| {
                let best = survey.best(group).and_then(|best| best.end(group));
                candidate.end(group) == best
            })
            .count()
    };
    let meta = GroupId::meta();
    let rank = |c: &Candidate<'_>| (ahead(c), c.end(&meta));
    // A name may be that of two directories: then, too, it is the one that is ahead.
    let is_meant = |c: &&Candidate<'_>| wishes.survivor.as_ref().is_none_or(|n| c.name() == n);
    let mut best: Option<Candidate<'c>> = None;
    for candidate in survey.usable.iter().filter(is_meant) {
        // Of equals the first by name.
        if best.is_none_or(|known| rank(candidate) > rank(&known)) {
            best = Some(*candidate);
        }
    }
    if best.is_none() {
        refusals.push(match &wishes.survivor {
            Some(name) => cannot_begin(survey, name),
            None => nobody_can_begin(survey),
        });
    }
    best
}

fn cannot_begin(survey: &Survey<'_>, name: &str) -> Refusal {
    let unusable = survey
        .members
        .iter()
        .find(|(_, info)| info.name == name)
        .map_or_else(
            || "no member is called so".to_owned(),
            |(id, _)| why_missing(survey, *id),
        );
    Refusal::new(
        "RECOVER_SURVIVOR",
        format!("{name} cannot begin the new life: {unusable}"),
        format!(
            "those that can: {}",
            join(survey.usable.iter().map(Candidate::name))
        ),
    )
}

fn nobody_can_begin(survey: &Survey<'_>) -> Refusal {
    let why: Vec<String> = survey
        .unusable
        .iter()
        .map(|(id, why)| format!("node id {id}: {why}"))
        .collect();
    Refusal::new(
        "RECOVER_SURVIVOR",
        format!("no directory can be used: {}", why.join("; ")),
        "restore from the store: `drtool restore plan`",
    )
}

fn plan_group(
    survey: &Survey<'_>,
    base: Candidate<'_>,
    group: &GroupId,
    wishes: &Wishes,
) -> Result<GroupPlan, Box<Refusal>> {
    let best = survey.best(group).unwrap_or(base);
    let accepted = wishes.data_loss.contains(group);
    // What is given up is what the refusal said, of the best directory, unless another was asked for by name.
    let named = accepted && wishes.survivor.is_some();
    let source = if base.end(group) == best.end(group) || named {
        base
    } else {
        best
    };
    let evidence = loss::evidence(survey, group);
    let loss = loss::account(survey, source, group, evidence.as_ref());
    if let Some(evidence) = evidence
        && loss.lost_proven > 0
        && !accepted
    {
        let refusal = behind::refusal(survey, source, group, &evidence, &loss);
        return Err(Box::new(refusal));
    }
    let facts = source.group(group);
    Ok(GroupPlan {
        group: group.clone(),
        from: source.node(),
        last: facts.and_then(|f| f.last),
        applied: facts.and_then(|f| f.applied),
        loss,
    })
}

fn write_down(
    survey: &Survey<'_>,
    base: Candidate<'_>,
    groups: Vec<GroupPlan>,
    wishes: &Wishes,
) -> Plan {
    let info = survey
        .members
        .get(&base.id())
        .cloned()
        .unwrap_or_else(|| NodeInfo {
            name: base.name().to_owned(),
            ..NodeInfo::default()
        });
    let others = others(survey, base, &groups);
    let lost = survey
        .members
        .iter()
        .filter(|(id, _)| !survey.usable.iter().any(|c| c.id() == **id))
        .map(|(id, info)| LostNode {
            id: *id,
            info: info.clone(),
            why: why_missing(survey, *id),
        })
        .collect();
    Plan {
        kind: KIND.to_owned(),
        version: VERSION,
        plan_id: wishes.plan_id.clone(),
        created_at: Time::from_us(wishes.now_us),
        collected_at: survey.collection.collected_at,
        cluster: ClusterId::new(survey.life.cluster_uuid.clone(), survey.life.incarnation),
        lineage: survey.life.lineage.clone(),
        new_incarnation: highest_incarnation(survey).saturating_add(1),
        term: highest_term(survey).saturating_add(TERM_MARGIN),
        shards: survey.life.shards,
        survivor: Survivor {
            old_id: base.id(),
            new_id: new_id(survey),
            path: base.directory.path.clone(),
            host: base.directory.host.clone(),
            fingerprint: base.directory.fingerprint(),
            info,
        },
        groups,
        others,
        lost,
        expected: expected(survey, base, wishes),
        accepted: Accepted {
            lost: wishes.lost.clone(),
            data_loss: wishes.data_loss.clone(),
            not_ours: survey.not_ours().map(|live| live.url.clone()).collect(),
        },
        notes: notes(survey, base),
        digest: String::new(),
    }
    .sealed()
}

fn others(survey: &Survey<'_>, base: Candidate<'_>, groups: &[GroupPlan]) -> Vec<OtherDirectory> {
    let gives = |id: u64| {
        let taken = groups.iter().filter(|g| g.from.id == id);
        taken.map(|g| g.group.clone()).collect()
    };
    survey
        .collection
        .directories
        .iter()
        .filter_map(|directory| Some((directory, directory.identity.as_ref()?)))
        .filter(|(_, identity)| identity.node_id != base.id())
        .map(|(directory, identity)| OtherDirectory {
            name: identity.name.clone(),
            id: identity.node_id,
            path: directory.path.clone(),
            host: directory.host.clone(),
            fingerprint: directory.fingerprint(),
            gives: gives(identity.node_id),
        })
        .collect()
}

fn highest_incarnation(survey: &Survey<'_>) -> u64 {
    let of_directories = survey
        .collection
        .directories
        .iter()
        .filter_map(|d| d.identity.as_ref())
        .map(|i| i.incarnation.max(i.incarnation_floor));
    let of_store = survey
        .collection
        .store
        .iter()
        .map(|s| s.highest_incarnation);
    of_directories.chain(of_store).max().unwrap_or(0)
}

fn highest_term(survey: &Survey<'_>) -> u64 {
    let of_directories = survey
        .collection
        .directories
        .iter()
        .flat_map(|d| &d.groups)
        .flat_map(|g| {
            let vote = g.vote.map(|v| v.term);
            let end = g.end().map(|p| p.term);
            [vote, end].into_iter().flatten()
        });
    let of_live = survey
        .collection
        .live
        .iter()
        .filter_map(|l| l.status.as_ref())
        .filter(|s| s.cluster_uuid == survey.life.cluster_uuid)
        .flat_map(|s| s.groups.iter().map(|g| g.term));
    let of_store = survey
        .collection
        .store
        .iter()
        .flat_map(|s| s.snapshots.iter().map(|s| s.position.term));
    of_directories
        .chain(of_live)
        .chain(of_store)
        .max()
        .unwrap_or(0)
}

/// An id above every one that was ever given, as far as anybody here knows, and some more where nobody here can know.
fn new_id(survey: &Survey<'_>) -> u64 {
    let of_directories = survey.collection.directories.iter().flat_map(|d| {
        let own = d.identity.as_ref().map(|i| i.node_id);
        let memberships = d.groups.iter().flat_map(|g| &g.memberships);
        let members = memberships.flat_map(|m| m.nodes.keys());
        let registered = d.nodes.iter().map(|n| &n.id);
        let known = members.chain(registered).copied();
        known.chain(own).chain([d.next_node_id.saturating_sub(1)])
    });
    let highest = of_directories.max().unwrap_or(0);
    let margin = if survey.unseen_could_commit(&GroupId::meta()) {
        ID_MARGIN
    } else {
        0
    };
    highest.saturating_add(margin).saturating_add(1)
}

/// What stands against nothing and is to be known.
fn notes(survey: &Survey<'_>, base: Candidate<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    match &survey.collection.store {
        None => notes.push("no store was asked: a snapshot there may be newer than every directory, and nobody else is kept from recovering at the same time".to_owned()),
        Some(store) => {
            if let Some(error) = &store.error {
                notes.push(format!("the store {} was not reached ({error}): a snapshot there may be newer than every directory", store.url));
            }
        }
    }
    for directory in &survey.collection.directories {
        let Some(identity) = &directory.identity else {
            let mut note = format!(
                "{} on {} cannot be used: nothing says whose it is",
                directory.path, directory.host
            );
            let before = survey.collection.read_before_at_place_of(directory);
            if !before.is_empty() {
                note.push_str(&format!(
                    "; it was read later than {} there, without an identity: if it is the same directory, look what became of it before you apply",
                    before.join(", ")
                ));
            }
            notes.push(note);
            continue;
        };
        if identity.stage != Stage::Initialized {
            continue;
        }
        for finding in directory
            .findings
            .iter()
            .filter(|f| f.severity == Severity::Warning)
        {
            notes.push(format!(
                "{}: {} {}",
                identity.name, finding.code, finding.what
            ));
        }
    }
    notes.extend(left_out(survey, base));
    notes.extend(only_here(&survey.collection.live));
    for live in survey.not_ours() {
        notes.push(format!(
            "{} cannot be asked whether it lives ({}): --not-ours says that it is no node of this cluster",
            live.url,
            live.why.as_deref().unwrap_or_default()
        ));
    }
    let foreign = |live: &&Live| live.is_foreign(&survey.life.cluster_uuid);
    let all = survey.collection.live.iter();
    notes.extend(all.filter(foreign).map(Live::foreign_words));
    notes
}

/// Where all who were asked are at the asking machine itself, silence may be that of a container in which no node is.
fn only_here(asked: &[Live]) -> Option<String> {
    let is_here = |live: &Live| live.url.parse::<Endpoint>().is_ok_and(|e| e.is_loopback());
    let silent: Vec<&str> = asked
        .iter()
        .filter(|live| live.status.is_none() && live.readiness.is_none() && !live.not_ours)
        .map(|live| live.url.as_str())
        .collect();
    (!silent.is_empty() && asked.iter().all(is_here)).then(|| {
        format!(
            "nobody answered at {}, which is the machine itself that asked: from within a container, or on another machine than the nodes', that says nothing of whether they live. `drtool recover collect --endpoints` asks them where they are reached",
            silent.join(", ")
        )
    })
}
