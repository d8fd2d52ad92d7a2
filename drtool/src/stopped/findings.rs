//! What the reader of a directory found, as findings of this tool.

use confman_cli::failure::Failure;
use confman_cli::output;
use confman_store::offline::{OfflineFinding, OfflineSeverity};

use crate::codes;
use crate::finding::{Finding, Severity};

/// A finding of the reader, with what to do.
pub fn of(finding: &OfflineFinding) -> Finding {
    let severity = match finding.severity {
        OfflineSeverity::Info => Severity::Info,
        OfflineSeverity::Warning => Severity::Warning,
        OfflineSeverity::Error => Severity::Error,
    };
    let mut view = format!("file {}", finding.path.display());
    if let Some(offset) = finding.offset {
        view.push_str(&format!(" at byte {offset}"));
    }
    let told = Finding::new(severity, finding.code, view, &finding.what);
    match codes::find(finding.code) {
        Some(code) => told.with_hint(code.remedy),
        None => told,
    }
}

/// How many there are of each severity: errors, warnings, the rest.
pub fn count(findings: &[Finding]) -> (usize, usize, usize) {
    let of = |severity| findings.iter().filter(|f| f.severity == severity).count();
    (
        of(Severity::Error),
        of(Severity::Warning),
        of(Severity::Info),
    )
}

/// Prints them, the worst first; a hint that was given already is not repeated.
pub(super) fn print(findings: &[Finding]) -> Result<(), Failure> {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let mut hinted: Vec<&str> = Vec::new();
    for finding in sorted {
        let mut told = finding.clone();
        if hinted.contains(&finding.code) {
            told.hint = None;
        }
        hinted.push(finding.code);
        for line in told.to_string().lines() {
            output::line(line)?;
        }
    }
    Ok(())
}
