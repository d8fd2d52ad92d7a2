//! A report as people read it.

use std::fmt::Write as _;

use comfy_table::{Table, presets};
use confman_cli::{escape, output};
use confman_client::wire::ReplicaRole;

use super::judge::short;
use super::report::{Agreement, GroupReport, Report, Verdict};
use super::words;

/// The whole report. Nothing in it steers a terminal but the colours, and those only when asked for.
pub(crate) fn text(report: &Report, colored: bool) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let mut line = |text: &str| {
        let _ = writeln!(out, "{}", text.trim_end());
    };
    if let (Some(uuid), Some(incarnation)) = (&report.cluster_uuid, report.incarnation) {
        line(&safe(&format!("cluster {uuid}, incarnation {incarnation}")));
    }
    line(&paint(&headline(report), report.verdict, colored));
    for group in &report.groups {
        line("");
        line(&safe(&group_line(group)));
        line(&format!("  {}", safe(&agreement_line(&group.agreement))));
        line(&format!("  {}", safe(&protected_line(group))));
        for row in table(report, &group.group).lines() {
            line(&format!(" {row}"));
        }
    }
    if let Some(drills) = &report.drills {
        line("");
        line(&safe(&drills.line()));
    }
    if !report.findings.is_empty() {
        line("");
        for finding in &report.findings {
            line(&escape::lines(&finding.to_string()));
        }
    }
    out
}

fn headline(report: &Report) -> String {
    match (report.verdict, report.tolerance) {
        (Verdict::Healthy, Some(tolerance)) => format!("healthy: {}", may_go(tolerance)),
        (Verdict::Degraded, Some(tolerance)) => {
            format!("degraded: writes go on, {}", may_go(tolerance))
        }
        _ if report.groups.is_empty() => "nothing is known: no node answered".to_owned(),
        _ => {
            let without: Vec<&str> = report
                .groups
                .iter()
                .filter(|g| g.tolerance.is_none() || g.leader.is_none())
                .map(|g| g.group.as_str())
                .collect();
            format!("no quorum: no writes in {}", safe(&without.join(", ")))
        }
    }
}

fn may_go(tolerance: usize) -> String {
    match tolerance {
        0 => "no more node may go".to_owned(),
        n => format!("{} may go", words::count(n, "more node", "more nodes")),
    }
}

fn group_line(group: &GroupReport) -> String {
    let leader = group.leader.as_ref().map_or_else(
        || "no leader".to_owned(),
        |l| format!("{} leads in term {}", l.name, group.term),
    );
    format!(
        "{}: {leader}, {} of {} voters up, {} needed",
        group.group, group.up, group.voters, group.quorum
    )
}

fn agreement_line(agreement: &Agreement) -> String {
    let unknown = match agreement.unknown.as_slice() {
        [] => String::new(),
        names => format!("; not comparable there: {}", names.join(", ")),
    };
    match agreement.hashes.as_slice() {
        [] => format!("state unknown{unknown}"),
        [one] => format!(
            "state {} at {} on {}{unknown}",
            short(&one.hash),
            agreement.index,
            one.nodes.join(", ")
        ),
        several => {
            let sides: Vec<String> = several
                .iter()
                .map(|side| format!("{} on {}", short(&side.hash), side.nodes.join(", ")))
                .collect();
            format!(
                "STATE DIFFERS at {}: {}{unknown}",
                agreement.index,
                sides.join(" / ")
            )
        }
    }
}

fn protected_line(group: &GroupReport) -> String {
    match &group.protected {
        None => "protected: nothing, there is no verified snapshot".to_owned(),
        Some(p) => format!(
            "protected up to {} of {} by verified snapshot {}, {} old",
            p.index,
            group.committed_index,
            p.snapshot_id,
            words::age(p.age_seconds)
        ),
    }
}

fn table(report: &Report, group: &str) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "NODE",
        "ROLE",
        "TERM",
        "LEADER",
        "LAST",
        "COMMITTED",
        "APPLIED",
        "LAG",
        "PURGED",
        "LOG",
        "INC",
        "STATE",
    ]);
    let committed = report
        .groups
        .iter()
        .find(|g| g.group == group)
        .map_or(0, |g| g.committed_index);
    for account in &report.nodes {
        let Some(status) = &account.status else {
            table.add_row([safe(&account.endpoint), "no answer".to_owned()]);
            continue;
        };
        let Some(g) = status.groups.iter().find(|g| g.group == group) else {
            continue;
        };
        table.add_row([
            safe(&format!("{} ({})", status.node.name, status.node.id)),
            role(g.role).to_owned(),
            g.term.to_string(),
            g.leader
                .as_ref()
                .map_or_else(|| "none".to_owned(), |l| safe(&l.name)),
            g.last_index.to_string(),
            g.committed_index.to_string(),
            g.applied_index.to_string(),
            committed.saturating_sub(g.applied_index).to_string(),
            g.purged_index.to_string(),
            format!("{} / {}", g.log_entries, output::bytes(g.log_bytes)),
            status.incarnation.to_string(),
            format!(
                "{}@{}",
                safe(&short(&g.state_hash.hash)),
                g.state_hash.index
            ),
        ]);
    }
    table
}

fn role(role: ReplicaRole) -> &'static str {
    match role {
        ReplicaRole::Leader => "leader",
        ReplicaRole::Follower => "follower",
        ReplicaRole::Candidate => "candidate",
        ReplicaRole::Learner => "learner",
    }
}

fn paint(text: &str, verdict: Verdict, colored: bool) -> String {
    if !colored {
        return text.to_owned();
    }
    let color = match verdict {
        Verdict::Healthy => 32,
        Verdict::Degraded => 33,
        Verdict::NoQuorum => 31,
    };
    format!("\u{1b}[{color}m{text}\u{1b}[0m")
}

fn safe(text: &str) -> String {
    escape::text(text).into_owned()
}
