//! What `drtool doctor` says: the document of `--json`, and the text of it.

use std::fmt::Write as _;

use confman_cli::escape;
use confman_client::ErrorKind;
use serde::Serialize;

use crate::finding::{Finding, Severity};
use crate::live::words;

/// What was looked at. The order is that of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Subject {
    /// The `CONFMAN_*` and store variables of this machine.
    Settings,
    /// The API key at hand.
    Key,
    /// The nodes, one by one.
    Nodes,
    /// Majorities, leaders, tolerance.
    Quorum,
    /// Whether each two nodes reach each other.
    Peers,
    /// Whether replicas have the same state.
    State,
    /// The programs' versions.
    Versions,
    /// The clocks of the nodes, of the store and of this machine.
    Clocks,
    /// The disks of the nodes.
    Disks,
    /// The object store.
    Store,
    /// Whose the store's prefix is.
    Prefix,
    /// What is safe if every node is lost now.
    Snapshots,
    /// Whether anybody has tried lately to restore it.
    Drills,
}

impl Subject {
    fn word(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Key => "key",
            Self::Nodes => "nodes",
            Self::Quorum => "quorum",
            Self::Peers => "peers",
            Self::State => "state",
            Self::Versions => "versions",
            Self::Clocks => "clocks",
            Self::Disks => "disks",
            Self::Store => "store",
            Self::Prefix => "prefix",
            Self::Snapshots => "snapshots",
            Self::Drills => "drills",
        }
    }
}

/// How one check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// Nothing is wrong.
    Ok,
    /// Worth knowing.
    Note,
    /// It could not be looked at.
    Unknown,
    /// It will hurt if it stays.
    Warning,
    /// It hurts.
    Problem,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Unknown => "unknown",
            Self::Warning => "WARNING",
            Self::Problem => "PROBLEM",
        }
    }

    fn color(self) -> u8 {
        match self {
            Self::Ok => 32,
            Self::Note | Self::Unknown => 36,
            Self::Warning => 33,
            Self::Problem => 31,
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Check {
    pub(super) check: Subject,
    pub(super) outcome: Outcome,
    /// A name of [`crate::codes`]; none where nothing is wrong.
    pub(super) code: Option<&'static str>,
    /// Whose view this is.
    pub(super) view: String,
    /// What was found.
    pub(super) what: String,
    /// The next command or step.
    pub(super) hint: Option<String>,
}

impl Check {
    /// Nothing is wrong.
    pub(super) fn ok(check: Subject, view: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            check,
            outcome: Outcome::Ok,
            code: None,
            view: view.into(),
            what: what.into(),
            hint: None,
        }
    }

    /// Something else; it has a code and says what to do.
    pub(super) fn not(
        check: Subject,
        outcome: Outcome,
        code: &'static str,
        view: impl Into<String>,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            check,
            outcome,
            code: Some(code),
            view: view.into(),
            what: what.into(),
            hint: Some(hint.into()),
        }
    }

    /// What another command finds too.
    pub(super) fn of(check: Subject, finding: &Finding) -> Self {
        Self {
            check,
            outcome: match finding.severity {
                Severity::Info => Outcome::Note,
                Severity::Warning => Outcome::Warning,
                Severity::Error => Outcome::Problem,
            },
            code: Some(finding.code),
            view: finding.view.clone(),
            what: finding.what.clone(),
            hint: finding.hint.clone(),
        }
    }
}

/// How many checks ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Counts {
    pub(super) ok: usize,
    pub(super) note: usize,
    pub(super) unknown: usize,
    pub(super) warning: usize,
    pub(super) problem: usize,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// The worst of the checks.
    pub(super) outcome: Outcome,
    pub(super) counts: Counts,
    /// Whether any node answered.
    pub(super) answered: bool,
    pub(super) checks: Vec<Check>,
}

impl Report {
    /// Puts the checks in order: by subject, and within one what is wrong first.
    pub(super) fn new(mut checks: Vec<Check>, answered: bool) -> Self {
        checks.sort_by_key(|c| (c.check, std::cmp::Reverse(c.outcome)));
        let mut counts = Counts::default();
        for check in &checks {
            *match check.outcome {
                Outcome::Ok => &mut counts.ok,
                Outcome::Note => &mut counts.note,
                Outcome::Unknown => &mut counts.unknown,
                Outcome::Warning => &mut counts.warning,
                Outcome::Problem => &mut counts.problem,
            } += 1;
        }
        Self {
            outcome: checks
                .iter()
                .map(|c| c.outcome)
                .max()
                .unwrap_or(Outcome::Ok),
            counts,
            answered,
            checks,
        }
    }

    /// 0 when nothing is wrong, 1 when something is, 6 when no node answered at all.
    pub(super) fn exit_code(&self) -> u8 {
        if !self.answered {
            return ErrorKind::Unreachable.exit_code();
        }
        u8::from(self.outcome >= Outcome::Warning)
    }

    /// For people. Nothing in it steers a terminal but the colours, and those only when asked for.
    pub(super) fn text(&self, colored: bool) -> String {
        let mut out = String::new();
        for check in &self.checks {
            let word = format!("{:<7}", check.outcome.word());
            let word = match colored {
                true => format!("\u{1b}[{}m{word}\u{1b}[0m", check.outcome.color()),
                false => word,
            };
            let code = check.code.map_or_else(String::new, |c| format!("[{c}] "));
            // Writing to a String does not fail.
            let _ = writeln!(
                out,
                "{:<9} {word} {code}{}: {}",
                check.check.word(),
                escape::text(&check.view),
                escape::lines(&check.what).replace('\n', "\n  "),
            );
            if let Some(hint) = check.hint.as_ref().filter(|_| check.outcome != Outcome::Ok) {
                let _ = writeln!(out, "  hint: {}", escape::text(hint));
            }
        }
        let c = self.counts;
        let _ = writeln!(
            out,
            "{}: {} ok, {} to note, {} unknown, {}, {}",
            words::count(self.checks.len(), "check", "checks"),
            c.ok,
            c.note,
            c.unknown,
            words::count(c.warning, "warning", "warnings"),
            words::count(c.problem, "problem", "problems")
        );
        out
    }
}
