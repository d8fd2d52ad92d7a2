//! `drtool verify`: every invariant of a directory, as findings.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use confman_bootstrap::report;
use confman_cli::failure::Failure;
use confman_cli::output;
use confman_client::ErrorKind;
use confman_snapshot::model::{GroupId, Position};
use confman_store::offline::OfflineNode;
use serde::Serialize;

use super::inspect::IdentityView;
use super::{findings, open};
use crate::context::Global;
use crate::finding::{Finding, Severity};

/// How often a directory that a process holds is looked at before its errors are believed.
const LOOKS_MAX: u32 = 3;

/// Check every invariant of a data directory: files, logs, states, and whether they belong together
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The node's data directory
    dir: PathBuf,
}

/// What was found in a directory.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The directory, resolved.
    pub dir: String,
    /// Who holds it.
    pub in_use: Option<String>,
    identity: Option<IdentityView>,
    /// Its groups.
    pub groups: Vec<GroupReport>,
    /// How many findings hurt.
    pub errors: usize,
    /// How many will hurt if they stay.
    pub warnings: usize,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// What was read of one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupReport {
    /// The group.
    pub group: GroupId,
    /// Entries of the log that can be read; none without a log.
    pub log_entries: Option<u64>,
    /// The last entry of the log.
    pub last: Option<Position>,
    /// The last entry that the state has applied.
    pub applied: Option<Position>,
    /// Records of the state that were read; none without a readable state.
    pub records: Option<u64>,
    /// The hash that was kept up.
    pub state_hash: Option<String>,
    /// The hash of all records; none when not all could be read.
    pub records_hash: Option<String>,
    /// Entries of the log that were compared with what the state says of them.
    pub entries_compared: u64,
}

pub(crate) fn run(args: &VerifyArgs, global: &Global) -> Result<ExitCode, Failure> {
    let report = verify(&args.dir, global)?;
    if global.json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(if report.errors > 0 {
        ExitCode::from(ErrorKind::Damaged.exit_code())
    } else {
        ExitCode::SUCCESS
    })
}

/// Reads all that there is. A directory that a process holds is looked at again when it shows errors: what moved between
/// two reads is not there the next time.
///
/// # Errors
/// There is no such directory, or it cannot be listed. All else is a finding.
pub fn verify(dir: &Path, global: &Global) -> Result<Report, Failure> {
    let mut report = look(dir, global)?;
    for _ in 1..LOOKS_MAX {
        if report.in_use.is_none() || report.errors == 0 {
            break;
        }
        global.note("the directory is in use and shows errors: looking again");
        let again = look(dir, global)?;
        if again.errors < report.errors {
            report = again;
        }
    }
    Ok(report)
}

fn look(dir: &Path, global: &Global) -> Result<Report, Failure> {
    let node = open::open(dir, global)?;
    let mut all: Vec<Finding> = node.all_findings().map(findings::of).collect();
    let mut groups = Vec::new();
    for group in &node.groups {
        let total = group.state.as_ref().map_or(0, |state| state.bytes());
        let bar = global.progress(&format!("reading {}", group.group), total);
        let records = group.check_records(node.owner(), |bytes| bar.set_position(bytes));
        bar.finish_and_clear();
        if let Some(records) = &records {
            all.extend(records.findings.iter().map(findings::of));
        }
        groups.push(GroupReport {
            group: group.group.clone(),
            log_entries: group.log.as_ref().map(|log| log.entries_count()),
            last: group.last,
            applied: group.applied,
            records: records.as_ref().map(|records| records.records),
            state_hash: group.state_hash.map(|hash| hash.to_string()),
            records_hash: records
                .as_ref()
                .and_then(|r| r.hash)
                .map(|hash| hash.to_string()),
            entries_compared: records.map_or(0, |records| records.entries_compared),
        });
    }
    all.extend(restore_reports(&node));
    let (errors, warnings, _) = findings::count(&all);
    Ok(Report {
        dir: node.paths.root().display().to_string(),
        in_use: node.in_use.as_ref().map(|in_use| in_use.holder.clone()),
        identity: IdentityView::of(&node),
        groups,
        errors,
        warnings,
        findings: all,
    })
}

/// The reports of restores, which another package writes and reads.
fn restore_reports(node: &OfflineNode) -> Vec<Finding> {
    let mut found = Vec::new();
    for group in &node.groups {
        if let Err(error) = report::read(&group.paths) {
            let text = error.to_string();
            let text = text.split("\nhint: ").next().unwrap_or_default();
            let view = format!("file {}", group.paths.restored().display());
            let code = "RESTORE_REPORT_DAMAGED";
            let finding = Finding::new(Severity::Warning, code, view, text);
            found.push(match crate::codes::find(code) {
                Some(code) => finding.with_hint(code.remedy),
                None => finding,
            });
        }
    }
    found
}

fn print(report: &Report) -> Result<(), Failure> {
    output::line(&format!("directory {}", report.dir))?;
    match &report.identity {
        Some(identity) => output::line(&format!("  {identity}"))?,
        None => output::line("  of no node that can be told")?,
    }
    for group in &report.groups {
        output::line(&format!("  {}", told(group)))?;
    }
    findings::print(&report.findings)?;
    let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    output::line(&format!(
        "{}, {}",
        plural(report.errors, "error"),
        plural(report.warnings, "warning")
    ))
}

fn told(group: &GroupReport) -> String {
    let log = match (group.log_entries, group.last) {
        (None, _) => "no log that can be read".to_owned(),
        (Some(entries), None) => format!("{entries} log entries"),
        (Some(entries), Some(last)) => format!("{entries} log entries up to {last}"),
    };
    let state = match (group.records, &group.records_hash) {
        (None, _) => "no state that can be read".to_owned(),
        (Some(records), None) => format!("{records} records, not all could be read"),
        (Some(records), Some(hash)) => {
            let agrees = if Some(hash) == group.state_hash.as_ref() {
                "as kept up"
            } else {
                "not as kept up"
            };
            let at = group.applied.map_or_else(
                || "nothing applied".to_owned(),
                |at| format!("applied {at}"),
            );
            format!(
                "{records} records, {at}, hash {} {agrees}, {} entries compared with them",
                hash.get(..16).unwrap_or(hash),
                group.entries_compared
            )
        }
    };
    format!("{}: {log}; {state}", group.group)
}
