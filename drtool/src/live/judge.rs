//! From the nodes' accounts to a report: pure, so that every sentence of it can be tried out without a cluster.
//!
//! Promises: nothing is guessed. A node counts as up for a group when it answered under an id that votes, is of the
//! same life as the others, follows the leader that the others follow, and is not far behind.

use std::collections::{BTreeMap, BTreeSet};

use confman_client::Strength;
use confman_client::wire::{ExpectedMember, GroupStatus, MemberRole, NodeRef, ReplicaRole};

use super::account::{Account, Asked};
use super::lives;
use super::report::{Agreement, GroupReport, HashHolders, Protected, Report, Verdict};
use crate::drill::last::Drills;
use crate::finding::{Finding, Severity};

/// A replica that is further behind is not counted on.
const LAG_MAX: u64 = 500;
/// A verified snapshot that is older while there is something to lose is a finding.
const SNAPSHOT_AGE_MAX_SECONDS: u64 = 24 * 3600;

/// One replica with the node that told of it.
#[derive(Clone, Copy)]
struct View<'a> {
    node: &'a NodeRef,
    group: &'a GroupStatus,
    account: &'a Account,
}

/// Puts the accounts together with what the store says of drills. `now_us` is the clock of whoever asks.
pub(crate) fn report(asked: Asked, drills: Option<Drills>, now_us: i64) -> Report {
    let Asked { nodes, expected } = asked;
    let mut findings = drills.as_ref().map(Drills::findings).unwrap_or_default();
    let life = lives::judged(&nodes, &mut findings);
    let of_life: Vec<&Account> = nodes
        .iter()
        .filter(|account| {
            account
                .status
                .as_ref()
                .is_some_and(|s| life.as_ref().is_some_and(|life| life.is_of(s)))
        })
        .collect();
    silent(&nodes, &of_life, &mut findings);
    awaited(expected.as_deref().unwrap_or_default(), &mut findings);
    not_ready(&of_life, &mut findings);
    let names: BTreeSet<&str> = of_life
        .iter()
        .filter_map(|account| account.status.as_ref())
        .flat_map(|status| status.groups.iter().map(|g| g.group.as_str()))
        .collect();
    let groups: Vec<GroupReport> = names
        .into_iter()
        .map(|name| group(name, &of_life, now_us, &mut findings))
        .collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let takes_writes = !groups.is_empty()
        && groups
            .iter()
            .all(|g| g.tolerance.is_some() && g.leader.is_some());
    let verdict = if !takes_writes {
        Verdict::NoQuorum
    } else if findings.iter().any(|f| f.severity >= Severity::Warning) {
        Verdict::Degraded
    } else {
        Verdict::Healthy
    };
    let tolerance = groups.iter().map(|g| g.tolerance).min().flatten();
    Report {
        verdict,
        incarnation: life.as_ref().map(|life| life.incarnation),
        cluster_uuid: life.map(|life| life.cluster_uuid),
        tolerance,
        groups,
        expected: expected.map(|all| all.into_iter().map(|e| e.name).collect()),
        drills,
        findings,
        nodes,
    }
}

/// Names that may join and have not: the cluster is smaller than it is meant to be.
fn awaited(expected: &[ExpectedMember], findings: &mut Vec<Finding>) {
    for member in expected {
        findings.push(
            Finding::new(
                Severity::Warning,
                "MEMBER_EXPECTED",
                format!("node {}", member.name),
                format!(
                    "it is expected to join from {} since {}, and has not",
                    member.peer_addr, member.since
                ),
            )
            .with_hint(format!(
                "start it with an empty data directory and its usual settings; when it will not come, `drtool member remove {}`",
                member.name
            )),
        );
    }
}

/// Nodes that did not answer, or answer that they serve nothing.
fn silent(nodes: &[Account], of_life: &[&Account], findings: &mut Vec<Finding>) {
    let answered: BTreeSet<u64> = of_life
        .iter()
        .filter_map(|a| Some(a.status.as_ref()?.node.id))
        .collect();
    let mut missing: BTreeMap<u64, (&str, &str, BTreeSet<&str>)> = BTreeMap::new();
    for status in of_life.iter().filter_map(|a| a.status.as_ref()) {
        for group in &status.groups {
            for member in group.members.iter().filter(|m| !answered.contains(&m.id)) {
                let entry = missing.entry(member.id).or_insert((
                    &member.name,
                    &member.api_url,
                    BTreeSet::new(),
                ));
                if member.role == MemberRole::Voter {
                    entry.2.insert(&group.group);
                }
            }
        }
    }
    for account in nodes.iter().filter(|account| account.status.is_none()) {
        let known = missing
            .iter()
            .find(|(_, (_, url, _))| same_url(url, &account.endpoint));
        let view = known.map_or_else(
            || format!("endpoint {}", account.endpoint),
            |(id, (name, ..))| format!("node {name} ({id}) at {}", account.endpoint),
        );
        let finding = match account.readiness.as_ref().and_then(|r| r.reason.as_ref()) {
            Some(reason) => {
                let (reason, hint) = split(reason);
                let finding = Finding::new(
                    Severity::Error,
                    "NODE_SERVES_NOTHING",
                    view,
                    format!("it runs and serves nothing: {reason}"),
                );
                finding.with_hint(hint.unwrap_or("look at the node's log"))
            }
            None => Finding::new(
                Severity::Error,
                "NODE_SILENT",
                view,
                account
                    .error
                    .clone()
                    .unwrap_or_else(|| "it does not answer".to_owned()),
            )
            .with_hint("look whether its process runs and at its log; start it again with its usual settings"),
        };
        findings.push(finding);
    }
    for (id, (name, url, groups)) in &missing {
        // Who is silent was told above, and who answers under this id in another life by `lives`.
        if nodes.iter().any(|a| {
            same_url(url, &a.endpoint) && a.status.as_ref().is_none_or(|s| s.node.id == *id)
        }) {
            continue;
        }
        // Somebody else answers at its address, or its address could not be asked.
        let groups: Vec<&str> = groups.iter().copied().collect();
        let role = if groups.is_empty() {
            "a learner".to_owned()
        } else {
            format!("a voter of {}", groups.join(", "))
        };
        findings.push(
            Finding::new(
                Severity::Error,
                "MEMBER_MISSING",
                format!("node {name} ({id})"),
                format!("{role}, has not answered at {url} under its id"),
            )
            .with_hint("when its disk is lost, start it empty under its name: it joins under a new id; when it is gone for good, `drtool member remove` or `replace` it"),
        );
    }
}

fn same_url(a: &str, b: &str) -> bool {
    a.trim_end_matches('/') == b.trim_end_matches('/')
}

/// A node's words, less the remedy that it gives in a line of its own.
fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once("\nhint: ") {
        Some((what, hint)) => (what, Some(hint)),
        None => (text, None),
    }
}

fn not_ready(of_life: &[&Account], findings: &mut Vec<Finding>) {
    for account in of_life {
        let Some(status) = account.status.as_ref().filter(|s| !s.ready) else {
            continue;
        };
        let mut reasons: Vec<String> = Vec::new();
        if let Some(readiness) = &account.readiness {
            reasons.extend(readiness.reason.iter().map(|r| split(r).0.to_owned()));
            reasons.extend(
                readiness
                    .groups
                    .iter()
                    .filter_map(|g| Some(format!("{}: {}", g.group, g.reason.as_ref()?))),
            );
        }
        let what = match reasons.as_slice() {
            [] => "it is not ready".to_owned(),
            _ => format!("it is not ready: {}", reasons.join("; ")),
        };
        findings.push(
            Finding::new(
                Severity::Warning,
                "NODE_NOT_READY",
                format!("node {}", status.node.name),
                what,
            )
            .with_hint(
                "it becomes ready by itself when that has passed; if it stays, look at its log",
            ),
        );
    }
}

fn group(
    name: &str,
    of_life: &[&Account],
    now_us: i64,
    findings: &mut Vec<Finding>,
) -> GroupReport {
    let views: Vec<View<'_>> = of_life
        .iter()
        .filter_map(|account| {
            let status = account.status.as_ref()?;
            let group = status.groups.iter().find(|g| g.group == name)?;
            Some(View {
                node: &status.node,
                group,
                account,
            })
        })
        .collect();
    // Who knows best: the leader of the highest term, else who has the most.
    let best = views
        .iter()
        .max_by_key(|v| {
            let leads = v.group.role == ReplicaRole::Leader && v.group.leader.is_some();
            (leads, v.group.term, v.group.last_index)
        })
        .copied();
    let committed = views
        .iter()
        .map(|v| v.group.committed_index)
        .max()
        .unwrap_or(0);
    let leader = leader(name, &views, findings);
    let voters: Vec<u64> = best
        .iter()
        .flat_map(|v| &v.group.members)
        .filter(|m| m.role == MemberRole::Voter)
        .map(|m| m.id)
        .collect();
    let follows = |v: &View<'_>| match &leader {
        Some(leader) => v.group.leader.as_ref().is_some_and(|l| l.id == leader.id),
        // Those who answer could elect one.
        None => true,
    };
    for v in views
        .iter()
        .filter(|v| v.group.applied_index + LAG_MAX < committed)
    {
        findings.push(
            Finding::new(
                Severity::Warning,
                "REPLICA_BEHIND",
                format!("node {}", v.node.name),
                format!("{name}: {} of {committed} entries applied", v.group.applied_index),
            )
            .with_hint("it catches up by itself; if it does not, look at its disk, its network and its log"),
        );
    }
    let strength = Strength::of(voters, |id| {
        views
            .iter()
            .any(|v| v.node.id == id && follows(v) && v.group.applied_index + LAG_MAX >= committed)
    });
    weak(name, strength, leader.as_ref(), findings);
    snapshot_failures(name, &views, findings);
    let protected = protected(name, (&views, leader.as_ref()), committed, now_us, findings);
    let agreement = agreement(name, &views, findings);
    GroupReport {
        group: name.to_owned(),
        leader,
        term: best.map_or(0, |v| v.group.term),
        voters: strength.voters,
        up: strength.up,
        quorum: strength.quorum(),
        tolerance: strength.tolerance(),
        committed_index: committed,
        protected,
        agreement,
    }
}

/// The leader that the views name; several in one term are a finding, and so is a view that names none.
fn leader(name: &str, views: &[View<'_>], findings: &mut Vec<Finding>) -> Option<NodeRef> {
    let mut named: BTreeMap<u64, BTreeMap<u64, &str>> = BTreeMap::new();
    for v in views {
        match &v.group.leader {
            Some(leader) => {
                named.entry(v.group.term).or_default().insert(leader.id, &leader.name);
            }
            None => findings.push(
                Finding::new(
                    Severity::Warning,
                    "NO_LEADER_SEEN",
                    format!("node {}", v.node.name),
                    format!("{name}: it knows no leader"),
                )
                .with_hint("an election takes some seconds; if it stays, look at the network between the nodes"),
            ),
        }
    }
    for (term, leaders) in named.iter().filter(|(_, leaders)| leaders.len() > 1) {
        let leaders: Vec<String> = leaders
            .iter()
            .map(|(id, n)| format!("{n} ({id})"))
            .collect();
        findings.push(
            Finding::new(
                Severity::Error,
                "LEADERS_DIFFER",
                format!("group {name}"),
                format!("more than one leader in term {term}: {}", leaders.join(", ")),
            )
            .with_hint("this must never be: stop writing, keep all data directories and logs, and report it"),
        );
    }
    let (_, leaders) = named.into_iter().next_back()?;
    let (id, leader) = leaders.into_iter().next()?;
    Some(NodeRef {
        id,
        name: leader.to_owned(),
    })
}

fn weak(name: &str, s: Strength, leader: Option<&NodeRef>, findings: &mut Vec<Finding>) {
    let view = format!("group {name}");
    match (s.tolerance(), leader) {
        (None, _) => findings.push(
            Finding::new(
                Severity::Error,
                "NO_QUORUM",
                view,
                format!("{} of {} voters are up, {} are needed: no write can be committed", s.up, s.voters, s.quorum()),
            )
            .with_hint("start the voters that still have their data directory; only if a majority is gone for ever go on with `drtool recover`"),
        ),
        (Some(_), None) => findings.push(
            Finding::new(
                Severity::Error,
                "NO_LEADER",
                view,
                format!("{} of {} voters are up and none leads: no write can be committed now", s.up, s.voters),
            )
            .with_hint("an election takes some seconds; if it stays, look at the network between the nodes and their logs"),
        ),
        (Some(0), Some(_)) if s.tolerance_at_best() > 0 => findings.push(
            Finding::new(
                Severity::Warning,
                "NO_TOLERANCE",
                view,
                format!("{} of {} voters are up: the next one that goes takes the quorum with it", s.up, s.voters),
            )
            .with_hint("bring the missing voters back, or replace them: `drtool member replace`"),
        ),
        (Some(_), Some(_)) => {}
    }
}

fn snapshot_failures(name: &str, views: &[View<'_>], findings: &mut Vec<Finding>) {
    // It is replicated: one view of it is enough, the newest.
    let Some(v) = views
        .iter()
        .filter(|v| v.group.snapshot_error.is_some())
        .max_by_key(|v| v.group.applied_index)
    else {
        return;
    };
    let Some(error) = &v.group.snapshot_error else {
        return;
    };
    findings.push(
        Finding::new(
            Severity::Warning,
            "SNAPSHOT_FAILED",
            format!("node {}", v.node.name),
            format!(
                "{name}: snapshot failed at {} of {}: {}",
                error.phase, error.time, error.message
            ),
        )
        .with_hint(error.hint.clone().unwrap_or_else(|| {
            "it is tried again by itself; the builder's log says more".to_owned()
        })),
    );
}

fn protected(
    name: &str,
    (views, leader): (&[View<'_>], Option<&NodeRef>),
    committed: u64,
    now_us: i64,
    findings: &mut Vec<Finding>,
) -> Option<Protected> {
    let newest = views
        .iter()
        .filter_map(|v| v.group.snapshot.as_ref())
        .filter(|s| s.verified)
        .max_by_key(|s| s.index);
    let view = format!("group {name}");
    let hint =
        "`drtool snapshot create` makes one now; CONFMAN_SNAPSHOT_* says when it happens by itself";
    let Some(snapshot) = newest else {
        // A young group makes its first one by itself, within minutes.
        let severity = if committed > LAG_MAX {
            Severity::Warning
        } else {
            Severity::Info
        };
        findings.push(
            Finding::new(
                severity,
                "NOTHING_PROTECTED",
                view,
                "there is no verified snapshot: if every node burns, all of it is lost",
            )
            .with_hint(hint),
        );
        return None;
    };
    // Its time is the group's, which may be ahead of this machine's clock: who knows the group's time says how old it is. The
    // leader gives that time; a replica's own goes on with its own clock until it hears more, and of several the one that has
    // run ahead least is closest.
    let same = views.iter().filter_map(|v| {
        let told = v.group.snapshot.as_ref().filter(|s| s.id == snapshot.id)?;
        Some((leader.is_some_and(|l| l.id == v.node.id), told.age_seconds?))
    });
    let age = same.min_by_key(|(leads, age)| (!leads, *age));
    let age_seconds = age.map(|(_, age)| age).unwrap_or_else(|| {
        let age_us = now_us.saturating_sub(snapshot.time.as_us()).max(0);
        age_us.unsigned_abs() / 1_000_000
    });
    let protected = Protected {
        index: snapshot.index,
        entries_behind: committed.saturating_sub(snapshot.index),
        snapshot_id: snapshot.id.clone(),
        time: snapshot.time,
        age_seconds,
    };
    if protected.age_seconds > SNAPSHOT_AGE_MAX_SECONDS && protected.entries_behind > LAG_MAX {
        let what = format!(
            "the newest verified snapshot is {} old and {} entries behind",
            super::words::age(protected.age_seconds),
            protected.entries_behind
        );
        findings.push(Finding::new(Severity::Warning, "SNAPSHOT_OLD", view, what).with_hint(hint));
    }
    Some(protected)
}

/// Compares the hashes at every position that two replicas told theirs of.
fn agreement(name: &str, views: &[View<'_>], findings: &mut Vec<Finding>) -> Agreement {
    let mut seen: BTreeMap<u64, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    for v in views {
        let own = &v.group.state_hash;
        let asked = v
            .account
            .hashes
            .iter()
            .filter(|h| h.group == name)
            .filter_map(|h| Some((h.index, h.hash.as_deref()?)));
        for (index, hash) in asked.chain([(own.index, own.hash.as_str())]) {
            seen.entry(index)
                .or_default()
                .entry(hash)
                .or_default()
                .insert(&v.node.name);
        }
    }
    for (index, hashes) in seen.iter().filter(|(_, hashes)| hashes.len() > 1) {
        let sides: Vec<String> = hashes
            .iter()
            .map(|(hash, nodes)| format!("{} has {}", join(nodes), short(hash)))
            .collect();
        findings.push(
            Finding::new(
                Severity::Error,
                "STATE_DIFFERS",
                format!("group {name}"),
                format!("the replicas differ at {index}: {}", sides.join(", ")),
            )
            .with_hint("keep all data directories; find the one that differs with `drtool diff` on the stopped nodes, set its directory aside and let it rejoin empty"),
        );
    }
    let most = seen
        .iter()
        .max_by_key(|(index, hashes)| (hashes.values().map(BTreeSet::len).sum::<usize>(), **index));
    let Some((index, hashes)) = most else {
        return Agreement::default();
    };
    let known: BTreeSet<&str> = hashes.values().flatten().copied().collect();
    Agreement {
        index: *index,
        hashes: hashes
            .iter()
            .map(|(hash, nodes)| HashHolders {
                hash: (*hash).to_owned(),
                nodes: nodes.iter().map(|n| (*n).to_owned()).collect(),
            })
            .collect(),
        unknown: views
            .iter()
            .map(|v| v.node.name.clone())
            .filter(|n| !known.contains(n.as_str()))
            .collect(),
    }
}

fn join(names: &BTreeSet<&str>) -> String {
    names.iter().copied().collect::<Vec<_>>().join(" and ")
}

pub(crate) fn short(hash: &str) -> String {
    hash.chars().take(12).collect()
}
