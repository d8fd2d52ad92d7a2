//! What an import has done so far, and the report at its end.

use std::time::Duration;

use serde::Serialize;

use super::super::failure::Failure;
use super::super::{escape, output};
use super::walk::Skip;

/// Skips that are shown one by one to people.
const SHOWN_SKIPS: usize = 20;

/// Counts of an import.
#[derive(Debug, Default, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tally {
    pub(super) files: u64,
    pub(super) created: u64,
    pub(super) updated: u64,
    pub(super) unchanged: u64,
    /// Of all files that were looked at.
    pub(super) bytes: u64,
    /// Of those that were sent and stored.
    pub(super) bytes_stored: u64,
    pub(super) skips: Vec<Skip>,
}

/// What became of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Did {
    Created,
    Updated,
    Unchanged,
}

impl Tally {
    pub(super) fn add(&mut self, did: Did, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
        match did {
            Did::Created => self.created += 1,
            Did::Updated => self.updated += 1,
            Did::Unchanged => self.unchanged += 1,
        }
        if did != Did::Unchanged {
            self.bytes_stored += bytes;
        }
    }
}

/// The document of `--json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) source: String,
    pub(super) namespace: String,
    pub(super) dry_run: bool,
    /// Every file that is a value is there now.
    pub(super) complete: bool,
    #[serde(flatten)]
    pub(super) tally: Tally,
    pub(super) skipped: u64,
    pub(super) lost: u64,
    pub(super) seconds: f64,
    pub(super) correlation_id: String,
    pub(super) error: Option<String>,
}

impl Report {
    pub(super) fn new(
        source: String,
        namespace: String,
        dry_run: bool,
        tally: Tally,
        took: Duration,
        correlation_id: String,
        error: Option<String>,
    ) -> Self {
        let lost = tally.skips.iter().filter(|skip| skip.lost).count() as u64;
        Self {
            source,
            namespace,
            dry_run,
            complete: lost == 0 && error.is_none() && !dry_run,
            skipped: tally.skips.len() as u64 - lost,
            lost,
            seconds: took.as_secs_f64(),
            tally,
            correlation_id,
            error,
        }
    }

    pub(super) fn print(&self) -> Result<(), Failure> {
        let tally = &self.tally;
        for skip in tally.skips.iter().take(SHOWN_SKIPS) {
            let word = if skip.lost { "NOT IMPORTED" } else { "skipped" };
            eprintln!(
                "{word} {}: {}",
                escape::text(&skip.path),
                escape::text(&skip.reason)
            );
        }
        if tally.skips.len() > SHOWN_SKIPS {
            eprintln!(
                "and {} more (--json lists all)",
                tally.skips.len() - SHOWN_SKIPS
            );
        }
        let would = if self.dry_run {
            "would import"
        } else {
            "imported"
        };
        output::line(&format!("{would} {} into {}", self.source, self.namespace))?;
        let lost = if self.lost > 0 {
            format!(", {} NOT IMPORTED", self.lost)
        } else {
            String::new()
        };
        output::line(&format!(
            "{} files, {}: {} created, {} updated, {} unchanged, {} skipped{lost}",
            tally.files,
            output::bytes(tally.bytes),
            tally.created,
            tally.updated,
            tally.unchanged,
            self.skipped,
        ))?;
        if self.dry_run {
            return Ok(());
        }
        let rate = tally.bytes_stored as f64 / self.seconds.max(0.001);
        output::line(&format!(
            "{} stored in {:.1} s ({}/s); correlation id {}",
            output::bytes(tally.bytes_stored),
            self.seconds,
            output::bytes(rate as u64),
            self.correlation_id,
        ))
    }
}
