//! From what was seen to checks: pure, so that every sentence can be tried out without a cluster.

use std::collections::{BTreeMap, BTreeSet};

use confman_config::SnapshotSettings;

use super::facts::{ClusterFacts, Newest, StoreFacts, StoreRead};
use super::report::{Check, Outcome, Subject};
use super::{clocks, disks, report};
use crate::finding::Finding;
use crate::live::report::{GroupReport, Report as Cluster};
use crate::live::words;

/// How often a threshold must have passed before a snapshot is called overdue: one may be under way.
const OVERDUE_TIMES: u64 = 2;
/// Entries behind a snapshot that nobody needs to hear of: records of snapshots, of members, of leaders.
const ENTRIES_IDLE: u64 = 100;

/// All that was looked at.
pub(super) struct Facts<'a> {
    pub(super) settings: Vec<Check>,
    /// The thresholds of snapshots that this machine's settings have.
    pub(super) snapshots: Option<SnapshotSettings>,
    pub(super) key_given: bool,
    pub(super) tool_version: &'a str,
    pub(super) facts: &'a ClusterFacts,
    pub(super) cluster: &'a Cluster,
    pub(super) store: &'a StoreFacts,
    pub(super) now_us: i64,
}

/// The whole report.
pub(super) fn report(seen: Facts<'_>) -> report::Report {
    let mut checks = seen.settings;
    let accounts = &seen.facts.accounts;
    let told = accounts.iter().any(|a| a.status.is_some());
    // Who refuses, or says why it serves nothing, has answered.
    let answered = told || accounts.iter().any(|a| a.refused || a.readiness.is_some());
    checks.extend(key(seen.facts, seen.key_given));
    checks.extend(nodes(seen.facts, seen.cluster));
    if told {
        checks.extend(quorum(seen.cluster));
        checks.extend(state(seen.cluster));
        checks.extend(peers(seen.facts));
        checks.extend(versions(seen.facts, seen.tool_version));
        checks.extend(disks::judge(seen.facts));
    } else {
        let unknown = [
            Subject::Quorum,
            Subject::State,
            Subject::Peers,
            Subject::Versions,
            Subject::Disks,
        ];
        checks.extend(unknown.map(|subject| {
            Check::not(
                subject,
                Outcome::Unknown,
                "CLUSTER_UNKNOWN",
                "this machine",
                "no node told anything that this could be seen from",
                "mend what is said about settings, key and nodes first",
            )
        }));
    }
    let mut seen_clocks = seen.facts.clocks.clone();
    if let StoreFacts::Read(read) = seen.store {
        seen_clocks.extend(read.clock.clone().ok());
    }
    checks.extend(clocks::judge(&seen_clocks));
    checks.extend(store(seen.store));
    if let StoreFacts::Read(read) = seen.store {
        checks.extend(prefix(read, seen.cluster));
    }
    checks.extend(snapshots(seen.cluster, seen.snapshots.as_ref()));
    if let StoreFacts::Read(read) = seen.store {
        checks.extend(snapshots_in_store(read, seen.cluster, seen.now_us));
        checks.extend(drills(read));
    }
    report::Report::new(checks, answered)
}

/// What each finding of `drtool status` is about.
pub(super) fn subject(code: &str) -> Subject {
    match code {
        "NO_QUORUM" | "NO_LEADER" | "NO_LEADER_SEEN" | "NO_TOLERANCE" | "LEADERS_DIFFER" => {
            Subject::Quorum
        }
        "STATE_DIFFERS" | "REPLICA_BEHIND" => Subject::State,
        "SNAPSHOT_FAILED" | "SNAPSHOT_OLD" | "NOTHING_PROTECTED" => Subject::Snapshots,
        _ => Subject::Nodes,
    }
}

fn found(cluster: &Cluster, about: Subject) -> Vec<Check> {
    let of = |finding: &&Finding| subject(finding.code) == about;
    let found = cluster.findings.iter().filter(of);
    found.map(|finding| Check::of(about, finding)).collect()
}

fn key(facts: &ClusterFacts, given: bool) -> Vec<Check> {
    let refused: Vec<&str> = facts
        .accounts
        .iter()
        .filter(|a| a.refused)
        .map(|a| a.endpoint.as_str())
        .collect();
    let mut checks = Vec::new();
    if let (false, Some(told)) = (refused.is_empty(), &facts.refusal) {
        let which = match given {
            true => "the API key",
            false => "a request without an API key",
        };
        checks.push(Check::not(
            Subject::Key,
            Outcome::Problem,
            "API_KEY_REFUSED",
            format!("nodes at {}", refused.join(", ")),
            format!("{which} is refused: {}", told.what),
            told.hint.clone().unwrap_or_else(|| {
                "set CONFMAN_API_KEY, or make a key with `confman key create`".to_owned()
            }),
        ));
    }
    let mut accepted: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for status in facts.accounts.iter().filter_map(|a| a.status.as_ref()) {
        if let Some(caller) = &status.caller {
            let names = accepted.entry((&caller.name, &caller.role)).or_default();
            names.push(&status.node.name);
        }
    }
    for ((name, role), nodes) in accepted {
        let may = match role {
            "admin" => "it may do everything".to_owned(),
            _ => format!(
                "`drtool member` and `drtool snapshot create` need an admin; {role} is enough to look"
            ),
        };
        let what = match name {
            "anonymous" => "no key is needed: the nodes have none".to_owned(),
            _ => format!("the key {name:?} has the role {role}: {may}"),
        };
        checks.push(Check::ok(Subject::Key, of_nodes(&nodes), what));
    }
    checks
}

fn of_nodes(names: &[&str]) -> String {
    match names {
        [one] => format!("node {one}"),
        _ => format!("nodes {}", names.join(", ")),
    }
}

fn nodes(facts: &ClusterFacts, cluster: &Cluster) -> Vec<Check> {
    if let Some(told) = &facts.unasked {
        return vec![Check::not(
            Subject::Nodes,
            Outcome::Problem,
            told.code.unwrap_or("CLUSTER_UNKNOWN"),
            "this machine",
            format!("no node can be asked: {}", told.what),
            told.hint.clone().unwrap_or_else(|| {
                "name the nodes with --endpoints or CONFMAN_ENDPOINTS".to_owned()
            }),
        )];
    }
    let refused: BTreeSet<&str> = facts
        .accounts
        .iter()
        .filter(|a| a.refused)
        .map(|a| a.endpoint.as_str())
        .collect();
    let mut checks = found(cluster, Subject::Nodes);
    // Who refuses has answered; the key's check says so.
    checks.retain(|check| {
        let at = |url: &&str| check.view.ends_with(*url);
        check.code != Some("NODE_SILENT") || !refused.iter().any(at)
    });
    let ready = facts.accounts.iter().filter_map(|a| a.status.as_ref());
    let ready: Vec<String> = ready
        .filter(|status| status.ready && cluster.is_of(status))
        .map(|status| format!("{} ({})", status.node.name, status.node.id))
        .collect();
    if !ready.is_empty() {
        let life = match (&cluster.cluster_uuid, cluster.incarnation) {
            (Some(uuid), Some(incarnation)) => {
                format!(" in cluster {uuid}, incarnation {incarnation}")
            }
            _ => String::new(),
        };
        let what = format!("{} answer and are ready{life}", ready.join(", "));
        checks.push(Check::ok(Subject::Nodes, "each node", what));
    }
    checks
}

fn quorum(cluster: &Cluster) -> Vec<Check> {
    let mut checks = found(cluster, Subject::Quorum);
    let wrong: BTreeSet<String> = checks.iter().map(|check| check.view.clone()).collect();
    for group in &cluster.groups {
        let view = format!("group {}", group.group);
        let (Some(leader), Some(tolerance)) = (&group.leader, group.tolerance) else {
            continue;
        };
        if wrong.contains(&view) {
            continue;
        }
        let what = format!(
            "{} leads, {} of {} voters are up, {} may go",
            leader.name,
            group.up,
            group.voters,
            match tolerance {
                0 => "none".to_owned(),
                n => words::count(n, "more", "more"),
            }
        );
        checks.push(Check::ok(Subject::Quorum, view, what));
    }
    checks
}

fn state(cluster: &Cluster) -> Vec<Check> {
    let mut checks = found(cluster, Subject::State);
    for group in &cluster.groups {
        let view = format!("group {}", group.group);
        if let [one] = group.agreement.hashes.as_slice() {
            let what = match one.nodes.as_slice() {
                [alone] => format!(
                    "only {alone} could be looked at, at {}",
                    group.agreement.index
                ),
                several => format!(
                    "{} have the same state at {}",
                    several.join(", "),
                    group.agreement.index
                ),
            };
            checks.push(Check::ok(Subject::State, view, what));
        }
    }
    checks
}

fn peers(facts: &ClusterFacts) -> Vec<Check> {
    let living: BTreeSet<u64> = facts
        .accounts
        .iter()
        .filter_map(|a| Some(a.status.as_ref()?.node.id))
        .collect();
    let mut checks = Vec::new();
    let mut links = 0;
    for (node, reach) in &facts.peers {
        let reach = match reach {
            Ok(reach) => reach,
            Err(error) => {
                checks.push(Check::not(
                    Subject::Peers,
                    Outcome::Unknown,
                    "CLUSTER_UNKNOWN",
                    format!("node {node}"),
                    format!("it does not say whom it reaches: {error}"),
                    "a node of an older version cannot say it",
                ));
                continue;
            }
        };
        // Who is down is not reached by anybody; the check of nodes says so.
        for peer in reach.iter().filter(|peer| living.contains(&peer.id)) {
            if peer.reached {
                links += 1;
                continue;
            }
            checks.push(Check::not(
                Subject::Peers,
                Outcome::Problem,
                "PEER_UNREACHED",
                format!("node {node}"),
                format!(
                    "it does not reach {} at {}, which lives: {}",
                    peer.name,
                    peer.peer_addr,
                    peer.error.as_deref().unwrap_or("no reason was given")
                ),
                format!(
                    "from the machine of {node} try {}; compare CONFMAN_CLUSTER_TOKEN and CONFMAN_PEER_ADVERTISE of both",
                    peer.peer_addr
                ),
            ));
        }
    }
    if checks.is_empty() {
        let what = match links {
            0 => "there are no two living nodes to reach each other".to_owned(),
            _ => "every two living nodes reach each other, both ways".to_owned(),
        };
        checks.push(Check::ok(Subject::Peers, "each node", what));
    }
    checks
}

fn versions(facts: &ClusterFacts, tool: &str) -> Vec<Check> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for status in facts.accounts.iter().filter_map(|a| a.status.as_ref()) {
        let version = status.version.as_deref().unwrap_or("unknown");
        versions.entry(version).or_default().push(&status.node.name);
    }
    let told: Vec<String> = versions
        .iter()
        .map(|(version, nodes)| format!("{version} on {}", nodes.join(", ")))
        .collect();
    let told = told.join("; ");
    let mut checks = Vec::new();
    if versions.len() > 1 {
        checks.push(Check::not(
            Subject::Versions,
            Outcome::Warning,
            "VERSIONS_DIFFER",
            "each node",
            format!("the nodes run different versions: {told}"),
            "finish the upgrade: `drtool runbook rolling-upgrade`",
        ));
    }
    if versions.keys().any(|version| *version != tool) {
        checks.push(Check::not(
            Subject::Versions,
            Outcome::Warning,
            "TOOL_VERSION_DIFFERS",
            "this machine",
            format!("drtool is {tool}, the nodes are {told}"),
            "use the drtool that came with the nodes' program",
        ));
    }
    if checks.is_empty() {
        let what = format!("{told}, and drtool too");
        checks.push(Check::ok(Subject::Versions, "each node", what));
    }
    checks
}

fn store(store: &StoreFacts) -> Vec<Check> {
    match store {
        StoreFacts::NotNamed => vec![Check::not(
            Subject::Store,
            Outcome::Unknown,
            "STORE_NOT_NAMED",
            "this machine",
            "no object store was named, so nothing of it was looked at",
            "drtool doctor --store URL, with the AWS_ variables as the nodes have them",
        )],
        StoreFacts::Failed(told) => vec![Check::not(
            Subject::Store,
            Outcome::Problem,
            told.code.unwrap_or("STORE_UNREACHABLE"),
            "the store, from this machine",
            told.what.clone(),
            told.hint
                .clone()
                .unwrap_or_else(|| "`drtool runbook store-unreachable`".to_owned()),
        )],
        StoreFacts::Read(read) => {
            let view = format!("store {}", read.url);
            let mut checks = vec![Check::ok(
                Subject::Store,
                view.clone(),
                format!(
                    "answered in {:.3} s, can be listed and read with the credentials at hand; {}; writing was not tried (`drtool store probe` does)",
                    read.seconds,
                    words::count(read.snapshots, "snapshot", "snapshots")
                ),
            )];
            checks.extend(read.ignored.iter().map(|name| {
                Check::not(
                    Subject::Store,
                    Outcome::Warning,
                    "STORE_VARIABLE_IGNORED",
                    "this machine's environment",
                    format!("{name} is not known to the store and has no effect"),
                    "correct its name, or unset it; `confman config` lists those that are known",
                )
            }));
            if let Err(why) = &read.clock {
                checks.push(Check::not(
                    Subject::Clocks,
                    Outcome::Unknown,
                    "CLUSTER_UNKNOWN",
                    view,
                    why.clone(),
                    "`drtool store probe` compares its clock by writing to it",
                ));
            }
            checks
        }
    }
}

fn prefix(read: &StoreRead, cluster: &Cluster) -> Vec<Check> {
    let view = format!("store {}", read.url);
    let (Some(uuid), Some(incarnation)) = (&cluster.cluster_uuid, cluster.incarnation) else {
        let owners: Vec<String> = read.owners.iter().map(ToString::to_string).collect();
        let what = match owners.as_slice() {
            [] => "no cluster owns the prefix".to_owned(),
            owners => format!("the prefix is that of {}", owners.join(", ")),
        };
        return vec![Check::not(
            Subject::Prefix,
            Outcome::Unknown,
            "CLUSTER_UNKNOWN",
            view,
            format!("{what}; no node told whether it is of that cluster"),
            "mend what keeps the nodes from answering first",
        )];
    };
    let mut checks = Vec::new();
    let foreign: BTreeSet<&str> = read
        .owners
        .iter()
        .map(|owner| owner.uuid.as_str())
        .filter(|owner| owner != uuid)
        .collect();
    if !foreign.is_empty() {
        let foreign: Vec<&str> = foreign.into_iter().collect();
        checks.push(Check::not(
            Subject::Prefix,
            Outcome::Problem,
            "PREFIX_FOREIGN",
            view.clone(),
            format!(
                "the prefix has objects of cluster {}; the living one is {uuid}",
                foreign.join(", ")
            ),
            "compare --store with CONFMAN_OBJECT_STORE_URL of the nodes; every cluster needs a prefix of its own",
        ));
    }
    let ours = read.owners.iter().filter(|owner| owner.uuid == *uuid);
    match ours.map(|owner| owner.incarnation).max() {
        Some(newest) if newest > incarnation => checks.push(Check::not(
            Subject::Prefix,
            Outcome::Problem,
            "PREFIX_NEWER_LIFE",
            view,
            format!("incarnation {newest} was begun; the nodes that answer are of incarnation {incarnation}"),
            "find out who began it and where its nodes are; `drtool runbook lost-quorum`",
        )),
        Some(newest) if newest == incarnation => checks.push(Check::ok(
            Subject::Prefix,
            view,
            format!("it is owned by the living cluster, incarnation {incarnation}"),
        )),
        _ => checks.push(Check::not(
            Subject::Prefix,
            Outcome::Warning,
            "PREFIX_UNCLAIMED",
            view,
            format!("it has no object of cluster {uuid}, incarnation {incarnation}"),
            "compare --store with CONFMAN_OBJECT_STORE_URL of the nodes",
        )),
    }
    checks
}

fn snapshots(cluster: &Cluster, thresholds: Option<&SnapshotSettings>) -> Vec<Check> {
    let mut checks = found(cluster, Subject::Snapshots);
    let told: BTreeSet<String> = checks.iter().map(|check| check.view.clone()).collect();
    for group in &cluster.groups {
        let view = format!("group {}", group.group);
        let Some(protected) = group.protected.as_ref().filter(|_| !told.contains(&view)) else {
            continue;
        };
        let what = format!(
            "protected up to {} of {} ({} behind) by a verified snapshot, {} old",
            protected.index,
            group.committed_index,
            protected.entries_behind,
            words::age(protected.age_seconds)
        );
        checks.push(match thresholds.and_then(|t| overdue(group, t)) {
            None => Check::ok(Subject::Snapshots, view, what),
            Some(why) => Check::not(
                Subject::Snapshots,
                Outcome::Warning,
                "SNAPSHOT_OVERDUE",
                view,
                format!("{what}: {why}"),
                "`drtool snapshot create`; `drtool status` says whether one failed",
            ),
        });
    }
    checks
}

/// By which threshold a snapshot should have been made long ago.
fn overdue(group: &GroupReport, thresholds: &SnapshotSettings) -> Option<String> {
    let protected = group.protected.as_ref()?;
    if !thresholds.enabled || protected.entries_behind <= ENTRIES_IDLE {
        return None;
    }
    let entries = thresholds.log_threshold;
    if protected.entries_behind > entries.saturating_mul(OVERDUE_TIMES) {
        return Some(format!(
            "one is due every {entries} entries by this machine's settings"
        ));
    }
    let seconds = thresholds.time_threshold.as_secs();
    (protected.age_seconds > seconds.saturating_mul(OVERDUE_TIMES)).then(|| {
        format!(
            "one is due every {} by this machine's settings",
            words::age(seconds)
        )
    })
}

/// How old a snapshot is: by the group's own time where a node tells it, because that may be ahead of this machine's clock.
fn age(newest: &Newest, created_us: i64, cluster: &Cluster, now_us: i64) -> String {
    let id = newest.id.to_string();
    let told = cluster.groups.iter().filter(|g| g.group == newest.group);
    let told = told.filter_map(|g| g.protected.as_ref());
    let mut told = told.filter(|p| p.snapshot_id == id).map(|p| p.age_seconds);
    let since_us = now_us.saturating_sub(created_us);
    let since = words::age(since_us.unsigned_abs() / 1_000_000);
    match told.next() {
        Some(seconds) => format!("{} old", words::age(seconds)),
        None if since_us < 0 => format!("dated {since} ahead of this machine's clock"),
        None => format!("{since} old"),
    }
}

fn snapshots_in_store(read: &StoreRead, cluster: &Cluster, now_us: i64) -> Vec<Check> {
    let view = format!("store {}", read.url);
    let checks = read.newest.iter().map(|newest| match &newest.opened {
        Ok(created_us) => {
            let age = age(newest, *created_us, cluster, now_us);
            let which = match newest.recorded {
                true => "the snapshot that the group counts on",
                false => "the newest snapshot",
            };
            Check::ok(
                Subject::Snapshots,
                view.clone(),
                format!(
                    "{}: {which} is there, {} (index {}, {age}); its manifest is whole, its data was not read",
                    newest.group, newest.id, newest.id.index
                ),
            )
        }
        Err(told) => Check::not(
            Subject::Snapshots,
            Outcome::Problem,
            match told.code {
                Some("STORE_NOT_FOUND") if newest.recorded => "SNAPSHOT_MISSING",
                Some(code) => code,
                None => "SNAPSHOT_DAMAGED",
            },
            view.clone(),
            format!("{}: snapshot {}: {}", newest.group, newest.id, told.what),
            format!(
                "`drtool snapshot verify --all`, and `drtool snapshot create --group {}` for a good one",
                newest.group
            ),
        ),
    });
    checks.collect()
}

fn drills(read: &StoreRead) -> Vec<Check> {
    let view = format!("store {}", read.url);
    let drills = &read.drills;
    if drills.unknown.is_some() {
        return vec![Check::not(
            Subject::Drills,
            Outcome::Unknown,
            "DRILL_UNKNOWN",
            view,
            drills.line(),
            "mend what is said about the store first",
        )];
    }
    let found = drills.findings();
    if found.is_empty() {
        return vec![Check::ok(Subject::Drills, view, drills.line())];
    }
    let of = |finding: &Finding| Check {
        view: view.clone(),
        ..Check::of(Subject::Drills, finding)
    };
    found.iter().map(of).collect()
}
