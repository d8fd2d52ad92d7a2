//! `drtool snapshot verify`: whether an object is what was written.
//!
//! Three depths, and the answer says which one it was:
//! - structure: footer, manifest, header; every object that it refers to is there and long enough; it is the very
//!   object that the group recorded;
//! - sample: also some chunks, drawn at random, each proven by its sums;
//! - whole: every chunk, every record, the state hash.

use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use confman_cli::escape;
use confman_cli::failure::Failure;
use confman_cli::output;
use confman_client::ErrorKind;
use confman_snapshot::repository::Listed;
use confman_snapshot::source::ChunkSource as _;
use confman_snapshot::{GroupId, SnapshotError, SnapshotReader};
use indicatif::ProgressBar;
use rand::seq::index;
use serde::Serialize;

use crate::codes;
use crate::context::Global;
use crate::finding::{Finding, Severity};
use crate::store::facts::Facts;
use crate::store::pick::{GroupArgs, Wanted};
use crate::store::reader::StoreReader;
use crate::store::{StoreArgs, errors, settings_of_nodes};

/// Chunks that a whole read fetches ahead.
const AHEAD: usize = 2;

/// Prove that snapshots are what was written; names each damaged object and ends with exit code 5
#[derive(Debug, Args)]
#[command(after_help = "\
Without --read-data or --sample only structure is proven: footer, manifest, header, that what it refers to is there, and \
that it is the object that the group recorded. A flipped byte in the data is found by --read-data alone.")]
pub(super) struct VerifyArgs {
    /// The snapshot: its id or the beginning of it, its index, or `latest` [default: the newest of each group]
    #[arg(value_name = "ID")]
    snapshot: Option<Wanted>,
    /// Every snapshot
    #[arg(long, conflicts_with = "snapshot")]
    all: bool,
    /// Read every byte, and prove every record and the state hash
    #[arg(long, conflicts_with = "sample")]
    read_data: bool,
    /// Read this share of the chunks, drawn at random, at least one of each snapshot
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    sample: Option<f64>,
    /// A recorded snapshot that is not there is an error when fewer than this many newer ones are
    /// [default: CONFMAN_SNAPSHOT_RETENTION_COUNT, else 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    keep: Option<u16>,
    #[command(flatten)]
    group: GroupArgs,
    #[command(flatten)]
    store: StoreArgs,
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    number
        .parse()
        .ok()
        .filter(|share: &f64| *share > 0.0 && *share <= 100.0)
        .ok_or_else(|| "expected a share above 0% and up to 100%, such as 10%".to_owned())
}

/// How much of a snapshot is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Depth {
    Structure,
    Sample(#[serde(skip)] f64),
    Whole,
}

/// One snapshot that was looked at.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Checked {
    group: GroupId,
    id: String,
    object: String,
    good: bool,
    depth: Depth,
    chunks: usize,
    chunks_read: usize,
}

/// The document of `--json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    store: String,
    good: bool,
    items: Vec<Checked>,
    findings: Vec<Finding>,
    bytes_read: u64,
    seconds: f64,
}

/// One run: what is asked, and what was found so far.
struct Check<'a> {
    store: &'a StoreReader,
    depth: Depth,
    keep: usize,
    bar: ProgressBar,
    findings: Vec<Finding>,
    items: Vec<Checked>,
}

pub(super) async fn run(args: &VerifyArgs, global: &Global) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let keep = match args.keep {
        Some(keep) => usize::from(keep),
        None => settings_of_nodes()?.count,
    };
    let store = args.store.reader(global).await?;
    let depth = match (args.read_data, args.sample) {
        (true, _) => Depth::Whole,
        (false, Some(share)) => Depth::Sample(share),
        (false, None) => Depth::Structure,
    };
    let mut check = Check {
        store: &store,
        depth,
        keep,
        bar: global.progress("chunks read", 0),
        findings: Vec::new(),
        items: Vec::new(),
    };
    let checked = check.all(args).await;
    check.bar.finish_and_clear();
    checked?;
    let document = Document {
        store: store.url().to_owned(),
        good: !check.findings.iter().any(|f| f.severity == Severity::Error),
        items: check.items,
        findings: check.findings,
        bytes_read: store.bytes_read(),
        seconds: started.elapsed().as_secs_f64(),
    };
    if global.json {
        output::json(&document)?;
    } else {
        print(&document, depth)?;
    }
    Ok(match document.good {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(ErrorKind::Damaged.exit_code()),
    })
}

impl Check<'_> {
    async fn all(&mut self, args: &VerifyArgs) -> Result<(), Failure> {
        let group = args.group.group.as_ref();
        if let Some(wanted) = &args.snapshot {
            let picked = self.store.pick(wanted, group).await?;
            let listed = self.store.snapshots(&picked.group).await;
            let listed = listed.map_err(|error| errors::store(&error))?.snapshots;
            let facts = self.facts(&picked.group, &listed).await?;
            return self
                .one(&picked.group, &picked.listed, facts.as_ref())
                .await;
        }
        let mut groups = self.store.groups(group).await?;
        groups.retain(|_, listed| !listed.is_empty());
        if groups.is_empty() {
            let place = group.map_or_else(String::new, |group| format!(" of {group}"));
            let message = format!(
                "no snapshot{place} in {}: nothing was verified",
                self.store.url()
            );
            return Err(
                codes::refuse("STORE_NOT_FOUND", ErrorKind::NotFound, message)
                    .with_hint("check that the URL names the cluster's bucket and prefix"),
            );
        }
        for (group, listed) in &groups {
            let facts = self.facts(group, listed).await?;
            let wanted = if args.all { listed.len() } else { 1 };
            for one in listed.iter().take(wanted) {
                self.one(group, one, facts.as_ref()).await?;
            }
            if let (true, Some(facts)) = (args.all, &facts) {
                self.missing(listed, facts);
            }
        }
        Ok(())
    }

    async fn facts(&self, group: &GroupId, listed: &[Listed]) -> Result<Option<Facts>, Failure> {
        let facts = self.store.facts(group, listed).await;
        facts.map_err(|error| errors::snapshot(&error))
    }

    fn found(&mut self, severity: Severity, code: &'static str, what: String, hint: &str) {
        let view = format!("store {}", self.store.url());
        let finding = Finding::new(severity, code, view, what);
        self.findings.push(finding.with_hint(hint));
    }

    async fn one(
        &mut self,
        group: &GroupId,
        listed: &Listed,
        facts: Option<&Facts>,
    ) -> Result<(), Failure> {
        let before = self.findings.len();
        let (mut chunks, mut chunks_read) = (0, 0);
        match self.store.open(group, &listed.id).await {
            Ok(reader) => {
                chunks = reader.manifest().chunks.len();
                self.recorded(&reader, facts);
                let read = match self.references(&reader).await {
                    Ok(()) => self.data(&reader).await,
                    Err(error) => Err(error),
                };
                match read {
                    Ok(read) => chunks_read = read,
                    Err(error) => self.bad(&listed.object, &error)?,
                }
            }
            Err(error) => self.bad(&listed.object, &error)?,
        }
        let new = self.findings.get(before..).unwrap_or_default();
        self.items.push(Checked {
            group: group.clone(),
            id: listed.id.to_string(),
            object: listed.object.clone(),
            good: !new.iter().any(|f| f.severity == Severity::Error),
            depth: self.depth,
            chunks,
            chunks_read,
        });
        Ok(())
    }

    /// A damaged or missing object is a finding; a store that cannot be asked ends the command.
    fn bad(&mut self, object: &str, error: &SnapshotError) -> Result<(), Failure> {
        if !error.is_bad_snapshot() {
            return Err(errors::snapshot(error));
        }
        let (code, hint) = match error {
            SnapshotError::NewerVersion { .. } => (
                "SNAPSHOT_NEWER",
                "use the version of drtool that belongs to the cluster",
            ),
            SnapshotError::Mismatch { .. } => (
                "SNAPSHOT_REPLACED",
                "keep the object as evidence, and look who else writes to this bucket",
            ),
            _ => (
                "SNAPSHOT_DAMAGED",
                "keep the object as evidence; a restore takes the next older one, and the cluster makes a new one with \
                 `confman snapshot`",
            ),
        };
        let text = errors::split(&error.to_string()).0;
        // The name of what is damaged stands in the text already, unless it is another object's absence.
        let what = if text.contains(object) {
            text
        } else {
            format!("snapshot object {object:?}: {text}")
        };
        self.found(Severity::Error, code, what, hint);
        Ok(())
    }

    /// Whether it is the very object that the group verified and recorded.
    fn recorded(&mut self, reader: &SnapshotReader, facts: Option<&Facts>) {
        let Some(facts) = facts else { return };
        let id = reader.manifest().id;
        match facts.recorded.get(&id) {
            Some(fact) => {
                if let Err(error) = reader.expect(&fact.record) {
                    self.found(
                        Severity::Error,
                        "SNAPSHOT_REPLACED",
                        errors::split(&error.to_string()).0,
                        "keep the object as evidence, and look who else writes to this bucket",
                    );
                }
            }
            None if id == facts.told_by.manifest().id => {}
            None => {
                let what = format!(
                    "{:?} was not recorded by {} when snapshot {} was taken",
                    reader.object(),
                    reader.manifest().group,
                    facts.told_by.manifest().id
                );
                self.found(
                    Severity::Info,
                    "SNAPSHOT_NOT_RECORDED",
                    what,
                    "its builder died or lost its race, or its life of the cluster was left; the cluster collects it",
                );
            }
        }
    }

    /// Every other object that it refers to is there and reaches as far as it should.
    async fn references(&self, reader: &SnapshotReader) -> Result<(), SnapshotError> {
        let manifest = reader.manifest();
        for object in manifest.referenced_objects() {
            let chunks = manifest.chunks.iter().filter(|c| c.object == object);
            let end = chunks.map(|c| c.offset.saturating_add(c.stored_len)).max();
            let (size, end) = (self.store.size(object).await?, end.unwrap_or_default());
            if size < end {
                return Err(SnapshotError::Damaged {
                    object: object.to_owned(),
                    detail: format!(
                        "it has {size} bytes, and snapshot {} needs {end} of it",
                        manifest.id
                    ),
                });
            }
        }
        Ok(())
    }

    /// Reads as much as was asked for; says how many chunks that were.
    async fn data(&self, reader: &SnapshotReader) -> Result<usize, SnapshotError> {
        let chunks = reader.manifest().chunks.len();
        match self.depth {
            Depth::Structure => Ok(0),
            Depth::Sample(share) => {
                let wanted = sample_size(chunks, share);
                self.bar.inc_length(wanted as u64);
                for at in index::sample(&mut rand::rng(), chunks, wanted) {
                    reader.chunk(at).await?;
                    self.bar.inc(1);
                }
                Ok(wanted)
            }
            Depth::Whole => {
                self.bar.inc_length(chunks as u64);
                let mut records = reader.records(AHEAD);
                while records.next_chunk().await?.is_some() {
                    self.bar.inc(1);
                }
                Ok(chunks)
            }
        }
    }

    /// Names what the group had recorded and the store does not have.
    fn missing(&mut self, listed: &[Listed], facts: &Facts) {
        let told_by = facts.told_by.manifest().id;
        for fact in facts.recorded.values() {
            let id = fact.record.id;
            if listed.iter().any(|there| there.id == id) {
                continue;
            }
            let newer = listed
                .iter()
                .filter(|there| (there.id.incarnation, there.id.index) > (id.incarnation, id.index))
                .count();
            if fact.marked_us.is_some() || newer >= self.keep {
                // Retired since: as it should be.
                continue;
            }
            let what = format!(
                "{:?} is not there: it was recorded and not marked for deletion when snapshot {told_by} was taken, and \
                 only {newer} newer ones are there",
                fact.record.object
            );
            let hint = format!(
                "if the cluster keeps fewer than {} generations, say how many with --keep; else look who deleted it",
                self.keep
            );
            self.found(Severity::Error, "SNAPSHOT_MISSING", what, &hint);
        }
    }
}

/// At least one, at most all.
fn sample_size(chunks: usize, share: f64) -> usize {
    let wanted = (chunks as f64 * share / 100.0).ceil() as usize;
    wanted.clamp(usize::from(chunks > 0), chunks)
}

fn print(document: &Document, depth: Depth) -> Result<(), Failure> {
    let mut table = output::table(["GROUP", "ID", "CHUNKS READ", "VERDICT"]);
    for item in &document.items {
        let verdict = if item.good { "good" } else { "BAD" };
        table.add_row([
            escape::text(&item.group.to_string()).into_owned(),
            item.id.clone(),
            format!("{} of {}", item.chunks_read, item.chunks),
            verdict.to_owned(),
        ]);
    }
    output::print_table(&table)?;
    for finding in &document.findings {
        // Several lines: each is escaped by itself.
        for line in finding.to_string().lines() {
            output::line(line)?;
        }
    }
    let proven = match depth {
        Depth::Structure => "structure only; --read-data reads every byte",
        Depth::Sample(_) => "structure, and the chunks that were drawn",
        Depth::Whole => "every byte, every record and the state hash",
    };
    output::line(&format!(
        "{} snapshots looked at, {} bad; proven: {proven}; {} read in {:.1} s",
        document.items.len(),
        document.items.iter().filter(|item| !item.good).count(),
        output::bytes(document.bytes_read),
        document.seconds
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_above_nothing_and_up_to_all() {
        assert_eq!(percent("10%"), Ok(10.0));
        assert_eq!(percent("0.5"), Ok(0.5));
        for wrong in ["0", "-1%", "101%", "NaN", "ten", ""] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_sample_is_never_empty_and_never_more_than_all() {
        assert_eq!(sample_size(100, 10.0), 10);
        assert_eq!(sample_size(3, 1.0), 1);
        assert_eq!(sample_size(3, 100.0), 3);
        assert_eq!(sample_size(0, 50.0), 0);
    }
}
