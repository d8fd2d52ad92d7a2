//! `drtool diff`: the first position at which two nodes differ.
//!
//! A log says with certainty where two nodes part: one index, two entries. States are compared by the hash of all their
//! records, which says something at one position only; where the positions differ, the audit histories are compared as far
//! as both reach, since an event is never changed or removed.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use confman_cli::failure::Failure;
use confman_cli::output;
use confman_client::ErrorKind;
use confman_snapshot::model::GroupId;
use confman_store::offline::OfflineNode;
use serde::Serialize;

use super::inspect::IdentityView;
use super::{findings, open};
use crate::codes;
use crate::context::Global;
use crate::finding::{Finding, Severity};

pub mod logs;
pub mod states;

/// Compare the directories of two nodes of one cluster: where do their logs or states differ first?
///
/// Exit code 0 when they agree as far as both reach, 1 when they differ, 5 when a part could not be read.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// One node's data directory
    dir1: PathBuf,
    /// The other one's
    dir2: PathBuf,
}

/// What a comparison gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    nodes: [Side; 2],
    /// Whether anything differs.
    pub differs: bool,
    /// Group by group.
    pub groups: Vec<GroupReport>,
    /// What stood in the way.
    pub findings: Vec<Finding>,
}

/// One of the two.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Side {
    dir: String,
    identity: Option<IdentityView>,
    in_use: bool,
}

impl Side {
    fn of(node: &OfflineNode) -> Self {
        Self {
            dir: node.paths.root().display().to_string(),
            identity: IdentityView::of(node),
            in_use: node.in_use.is_some(),
        }
    }

    fn name(&self) -> String {
        match &self.identity {
            Some(identity) => identity.name.clone(),
            None => self.dir.clone(),
        }
    }
}

/// What the comparison of one group gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupReport {
    /// The group.
    pub group: GroupId,
    /// Their logs.
    pub log: logs::Verdict,
    /// Their states.
    pub state: states::Verdict,
}

pub(crate) fn run(args: &DiffArgs, global: &Global) -> Result<ExitCode, Failure> {
    let one = open::open(&args.dir1, global)?;
    let two = open::open(&args.dir2, global)?;
    let report = compare(&one, &two, global)?;
    if global.json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(if report.differs {
        ExitCode::from(1)
    } else if report
        .findings
        .iter()
        .any(|f| f.severity == Severity::Error)
    {
        ExitCode::from(ErrorKind::Damaged.exit_code())
    } else {
        ExitCode::SUCCESS
    })
}

/// Compares two directories, group by group.
///
/// # Errors
/// They are of two clusters.
pub fn compare(one: &OfflineNode, two: &OfflineNode, global: &Global) -> Result<Report, Failure> {
    let nodes = [Side::of(one), Side::of(two)];
    let mut found = Vec::new();
    if let [Some(a), Some(b)] = [&nodes[0].identity, &nodes[1].identity] {
        if a.cluster_uuid != b.cluster_uuid {
            let message = format!(
                "{} is of cluster {}, {} of cluster {}",
                nodes[0].dir, a.cluster_uuid, nodes[1].dir, b.cluster_uuid
            );
            return Err(
                codes::refuse("DIFF_OTHER_CLUSTER", ErrorKind::Refused, message)
                    .with_hint("what differs between two clusters means nothing; check the paths"),
            );
        }
        if (a.incarnation, &a.lineage) != (b.incarnation, &b.lineage) {
            let what = format!(
                "the first is of incarnation {} {:?}, the second of {} {:?}",
                a.incarnation, a.lineage, b.incarnation, b.lineage
            );
            found.push(hinted(
                Severity::Info,
                "DIFF_OTHER_LIFE",
                &nodes[1].dir,
                what,
            ));
        }
    }
    for node in [one, two] {
        let in_use = node.findings.iter().filter(|f| f.code == "DIR_IN_USE");
        found.extend(in_use.map(findings::of));
    }
    let mut ids: Vec<&GroupId> = one
        .groups
        .iter()
        .chain(&two.groups)
        .map(|g| &g.group)
        .collect();
    ids.sort();
    ids.dedup();
    let mut groups = Vec::new();
    for id in ids {
        let mut unreadable = Vec::new();
        let (a, b) = (one.group(id), two.group(id));
        let log = logs::compare(a, b, &mut unreadable);
        let state = states::compare(a, b, global, &mut unreadable);
        for (number, what) in unreadable {
            let Some(side) = nodes.get(number) else {
                continue;
            };
            let what = format!("{id}: {what}");
            found.push(hinted(Severity::Error, "DIFF_UNREADABLE", &side.dir, what));
        }
        groups.push(GroupReport {
            group: id.clone(),
            log,
            state,
        });
    }
    Ok(Report {
        differs: groups
            .iter()
            .any(|group| group.log.differs() || group.state.differs()),
        nodes,
        groups,
        findings: found,
    })
}

fn hinted(severity: Severity, code: &'static str, dir: &str, what: String) -> Finding {
    let finding = Finding::new(severity, code, format!("directory {dir}"), what);
    match codes::find(code) {
        Some(code) => finding.with_hint(code.remedy),
        None => finding,
    }
}

fn print(report: &Report) -> Result<(), Failure> {
    let [one, two] = &report.nodes;
    for (number, side) in [(1, one), (2, two)] {
        let who = side.identity.as_ref().map_or_else(
            || "no node that can be told".to_owned(),
            ToString::to_string,
        );
        output::line(&format!("{number}: {}, {who}", side.dir))?;
    }
    let names = [one.name(), two.name()];
    for group in &report.groups {
        output::line(&format!("group {}", group.group))?;
        for line in group.log.lines(&names) {
            output::line(&format!("  log: {line}"))?;
        }
        for line in group.state.lines(&names) {
            output::line(&format!("  state: {line}"))?;
        }
    }
    findings::print(&report.findings)?;
    output::line(if report.differs {
        "they differ"
    } else {
        "they agree as far as both reach and can be read"
    })
}
