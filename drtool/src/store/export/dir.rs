//! The export as a tree: namespaces are directories, keys are files, values are their bytes.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use confman_cli::escape;
use confman_cli::failure::Failure;
use confman_cli::output;
use confman_cli::tree::{Place, Tree};
use confman_client::ErrorKind;
use confman_snapshot::{Record, SnapshotError, SnapshotReader};
use confman_store::keys;
use confman_store::records::EntryRecord;
use serde::Serialize;

use super::{ExportArgs, Pass, is_within};
use crate::codes;
use crate::context::Global;
use crate::store::errors;
use crate::store::reader::StoreReader;
use crate::store::records::{Records, decode};
use crate::store::snapshot::Summary;
use crate::store::values::ValuePieces;

const SHOWN_FAILURES: usize = 20;
/// As many keys without a file are named; more are counted.
const KEPT_FAILURES: usize = 10_000;

/// The document of `--json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    store: String,
    directory: String,
    snapshots: Vec<Summary>,
    /// Every snapshot was read to its end and has the state hash of its manifest.
    proven: bool,
    files: u64,
    bytes: u64,
    not_written: u64,
    failures: Vec<NotWritten>,
    /// Why it is not proven.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// A key that has no file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NotWritten {
    namespace: String,
    key: String,
    reason: String,
}

/// What is being written.
struct Work<'a> {
    args: &'a ExportArgs,
    tree: Tree,
    strip: usize,
    /// The directory of the namespace that came last: keys come namespace by namespace.
    place: Option<(String, Place)>,
    report: Report,
}

pub(super) async fn run(
    args: &ExportArgs,
    store: &StoreReader,
    readers: Vec<SnapshotReader>,
    global: &Global,
) -> Result<ExitCode, Failure> {
    let dir = args.to.as_deref().unwrap_or(Path::new("."));
    let mut work = Work {
        args,
        tree: prepare(dir, args.overwrite)?,
        strip: args.from.as_ref().map_or(0, |from| from.split('/').count()),
        place: None,
        report: Report {
            store: store.url().to_owned(),
            directory: dir.display().to_string(),
            snapshots: readers.iter().map(Summary::new).collect(),
            proven: true,
            files: 0,
            bytes: 0,
            not_written: 0,
            failures: Vec::new(),
            problem: None,
        },
    };
    let chunks: usize = readers.iter().map(|r| r.manifest().chunks.len()).sum();
    let bar = global.progress("chunks read", chunks as u64);
    for reader in readers {
        let mut pass = Pass::new(reader);
        let ended = work.snapshot(&mut pass, || bar.inc(1)).await;
        match ended {
            Ok(()) => {}
            Err(Trouble::Snapshot(error)) if error.is_bad_snapshot() => {
                work.report.proven = false;
                work.report.problem = Some(errors::split(&error.to_string()).0);
            }
            Err(Trouble::Snapshot(error)) => return Err(errors::snapshot(&error)),
            Err(Trouble::Disk(failure)) => return Err(failure),
        }
    }
    bar.finish_and_clear();
    work.report.print(global)?;
    Ok(match (work.report.proven, work.report.not_written) {
        (false, _) => ExitCode::from(ErrorKind::Damaged.exit_code()),
        (true, 0) => ExitCode::SUCCESS,
        (true, _) => ExitCode::from(ErrorKind::Unknown.exit_code()),
    })
}

/// Opens DIR; an existing one must be empty unless the user says otherwise.
fn prepare(dir: &Path, overwrite: bool) -> Result<Tree, Failure> {
    let failed = |doing: &str, error: &std::io::Error| codes::local(doing, dir, error);
    match std::fs::read_dir(dir) {
        Ok(mut entries) => {
            if entries.next().is_some() && !overwrite {
                return Err(codes::usage(
                    "TARGET_EXISTS",
                    format!("{} is not empty", dir.display()),
                )
                .with_hint("name a new directory, or write into this one with --overwrite"));
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir_all(dir).map_err(|error| failed("create", &error))?;
        }
        Err(error) => return Err(failed("open", &error)),
    }
    Tree::open(dir).map_err(|error| failed("open", &error))
}

/// Why a snapshot did not come to its end.
enum Trouble {
    Snapshot(SnapshotError),
    /// What concerns every file.
    Disk(Failure),
}

impl From<SnapshotError> for Trouble {
    fn from(error: SnapshotError) -> Self {
        Self::Snapshot(error)
    }
}

impl Work<'_> {
    async fn snapshot(&mut self, pass: &mut Pass, mut read: impl FnMut()) -> Result<(), Trouble> {
        while let Some(chunk) = pass.stream.next_chunk().await? {
            for record in &chunk {
                self.take(pass, record).await?;
            }
            read();
        }
        Ok(())
    }

    async fn take(&mut self, pass: &mut Pass, (key, value): &Record) -> Result<(), Trouble> {
        if key.first() != Some(&keys::ENTRY) {
            return Ok(());
        }
        let object = pass.records.reader().object().to_owned();
        let Some((namespace, name)) = keys::parse_entry(key) else {
            let detail = format!("record {} has no name", hex::encode(key));
            return Err(SnapshotError::Damaged { object, detail }.into());
        };
        if !is_within(namespace, self.args.from.as_deref()) {
            return Ok(());
        }
        let entry: EntryRecord = decode(&object, key, value)?;
        let mut pieces = ValuePieces::new(&object, namespace, name, entry);
        if let Err(error) = self.enter(namespace) {
            return self.not_written(namespace, name, &error);
        }
        let Some((_, place)) = &self.place else {
            return Ok(());
        };
        match write(place, name, &mut pieces, &mut pass.records).await? {
            Ok(bytes) => {
                self.report.files += 1;
                self.report.bytes += bytes;
                Ok(())
            }
            Err(error) => self.not_written(namespace, name, &error),
        }
    }

    /// Makes the directory of a namespace the current one.
    fn enter(&mut self, namespace: &str) -> std::io::Result<()> {
        if self
            .place
            .as_ref()
            .is_some_and(|(there, _)| there == namespace)
        {
            return Ok(());
        }
        let place = self.tree.place(namespace.split('/').skip(self.strip))?;
        self.place = Some((namespace.to_owned(), place));
        Ok(())
    }

    /// One key has no file; a disk that takes nothing more ends the export.
    fn not_written(
        &mut self,
        namespace: &str,
        key: &str,
        error: &std::io::Error,
    ) -> Result<(), Trouble> {
        if matches!(
            error.kind(),
            std::io::ErrorKind::StorageFull
                | std::io::ErrorKind::QuotaExceeded
                | std::io::ErrorKind::ReadOnlyFilesystem
        ) {
            let failure = codes::usage(
                "LOCAL_FILE",
                format!("write below {}: {error}", self.report.directory),
            );
            return Err(Trouble::Disk(failure));
        }
        self.report.not_written += 1;
        if self.report.failures.len() < KEPT_FAILURES {
            self.report.failures.push(NotWritten {
                namespace: namespace.to_owned(),
                key: key.to_owned(),
                reason: error.to_string(),
            });
        }
        Ok(())
    }
}

/// Writes one file; it gets its name when the value is proven. What is inside is the disk's error, outside the snapshot's.
async fn write(
    place: &Place,
    name: &str,
    pieces: &mut ValuePieces,
    records: &mut Records,
) -> Result<std::io::Result<u64>, SnapshotError> {
    let (pending, mut file) = match place.begin(rand::random()) {
        Ok(begun) => begun,
        Err(error) => return Ok(Err(error)),
    };
    let mut bytes = 0;
    while let Some(piece) = pieces.next(records).await? {
        if let Err(error) = file.write_all(&piece) {
            return Ok(Err(error));
        }
        bytes += piece.len() as u64;
    }
    Ok(pending.commit(name).map(|()| bytes))
}

impl Report {
    fn print(&self, global: &Global) -> Result<(), Failure> {
        if global.json {
            return output::json(self);
        }
        for failure in self.failures.iter().take(SHOWN_FAILURES) {
            let name = format!("{}/{}", failure.namespace, failure.key);
            eprintln!(
                "NOT WRITTEN {}: {}",
                escape::text(&name),
                escape::text(&failure.reason)
            );
        }
        let failed = match self.not_written {
            0 => String::new(),
            count => format!(", {count} NOT WRITTEN"),
        };
        output::line(&format!(
            "exported to {}: {} files, {}{failed}",
            self.directory,
            self.files,
            output::bytes(self.bytes)
        ))?;
        for snapshot in &self.snapshots {
            output::line(&format!(
                "  {} at index {}, last change {}",
                snapshot.group, snapshot.index, snapshot.last_change_at
            ))?;
        }
        if let Some(problem) = &self.problem {
            output::line(&format!("NOT PROVEN: {problem}"))?;
            output::line(
                "hint: what was written may be incomplete; export an older snapshot (`drtool snapshot list`)",
            )?;
        }
        Ok(())
    }
}
