//! Build, upload, verify: from a view of the state to a record that can be committed.
//!
//! ```text
//! view -> temporary file -> object -> read back to the end -> record
//!      build             upload    verify
//! ```
//!
//! Promises: the runtime's threads are never held up; memory is a few chunks; the temporary file is gone in the end, whatever
//! the end, a dropped future included; a record is given out only for what was read back and is what was built.
//!
//! A crash leaves a temporary file (emptied at the next start) or an object that no record names (judged by
//! `retention::judge_orphans`). An object that fails its verification is left where it is, for who wants to look.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tracing::Instrument as _;
use tracing::field::Empty;

use crate::error::{BoxError, Kind, SnapshotError};
use crate::format::{WriteOptions, Written, write_snapshot};
use crate::id::SnapshotId;
use crate::model::GroupId;
use crate::record::SnapshotRecord;
use crate::repository::{Repository, Uploaded};
use crate::view::{Record, StateView};

/// How many records go by between two looks at whether anybody still waits for them.
const CANCEL_CHECK_RECORDS: usize = 256;

/// A phase of making a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Writing the temporary file.
    Build,
    /// Uploading it.
    Upload,
    /// Reading it back.
    Verify,
}

impl Phase {
    /// One lower case word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Upload => "upload",
            Self::Verify => "verify",
        }
    }
}

/// A snapshot could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{} a snapshot of {group}: {source}", .phase.name())]
pub struct BuildError {
    /// How far it came.
    pub phase: Phase,
    /// The group.
    pub group: GroupId,
    /// What went wrong.
    pub source: SnapshotError,
}

/// How a snapshot is made.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// How it is written.
    pub write: WriteOptions,
    /// Where the temporary file goes; made if it is not there.
    pub tmp_dir: PathBuf,
    /// The id of this node.
    pub builder_node: u64,
    /// Random, for the snapshot's name.
    pub nonce: u32,
}

/// Makes a snapshot: temporary file, upload, verification, record. `progress` hears of each phase as it begins.
pub async fn build_and_upload(
    view: StateView,
    repository: &Repository,
    options: &BuildOptions,
    progress: impl Fn(Phase) + Send + Sync,
) -> Result<SnapshotRecord, BuildError> {
    let group = view.info.group.clone();
    let id = SnapshotId::new(
        view.info.position,
        view.info.cluster.incarnation,
        options.nonce,
    );
    let started = Instant::now();
    let run = Run {
        repository,
        options,
        group: &group,
        id: &id,
    };

    progress(Phase::Build);
    let (written, file) = run.phase(Phase::Build, run.build(view)).await?;
    progress(Phase::Upload);
    let uploaded = run.phase(Phase::Upload, run.upload(&file)).await?;
    drop(file);
    progress(Phase::Verify);
    run.phase(Phase::Verify, run.verify(&written, &uploaded))
        .await?;

    let took_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    let labels = [("group", group.to_string())];
    metrics::counter!("confman_snapshot_built_total", &labels).increment(1);
    metrics::gauge!("confman_snapshot_object_bytes", &labels).set(uploaded.bytes as f64);
    metrics::gauge!("confman_snapshot_raw_bytes", &labels).set(written.manifest.raw_bytes as f64);
    metrics::gauge!("confman_snapshot_records", &labels).set(written.manifest.records as f64);
    Ok(written.record(options.write.codec, options.builder_node, took_us))
}

struct Run<'a> {
    repository: &'a Repository,
    options: &'a BuildOptions,
    group: &'a GroupId,
    id: &'a SnapshotId,
}

impl Run<'_> {
    /// Runs one phase, measures it, and says which one failed.
    async fn phase<T>(
        &self,
        phase: Phase,
        work: impl Future<Output = Result<T, SnapshotError>>,
    ) -> Result<T, BuildError> {
        let started = Instant::now();
        let span = tracing::info_span!(
            "phase",
            otel.name = %format_args!("snapshot.{}", phase.name()),
            otel.status_code = Empty,
            confman.group = %self.group,
            error.type = Empty,
        );
        let done = work.instrument(span.clone()).await;
        let group = self.group.to_string();
        let result = if done.is_ok() { "ok" } else { "failed" };
        metrics::histogram!(
            "confman_snapshot_phase_seconds", "group" => group.clone(), "phase" => phase.name(), "result" => result
        )
        .record(started.elapsed().as_secs_f64());
        done.map_err(|source| {
            let kind = source.kind().name();
            span.record("otel.status_code", "ERROR");
            span.record("error.type", kind);
            if source.kind() == Kind::Diverged {
                metrics::counter!("confman_state_hash_mismatches_total", "group" => group.clone())
                    .increment(1);
            }
            metrics::counter!(
                "confman_snapshot_errors_total", "group" => group, "phase" => phase.name(), "kind" => kind
            )
            .increment(1);
            BuildError { phase, group: self.group.clone(), source }
        })
    }

    async fn build(&self, view: StateView) -> Result<(Written, TempFile), SnapshotError> {
        failpoint("snapshot::build")?;
        let file = TempFile(self.options.tmp_dir.join(format!("{}.snap.tmp", self.id)));
        let (id, write, tmp_dir) = (*self.id, self.options.write, self.options.tmp_dir.clone());
        let waiting = Waiting::default();
        let cancelled = waiting.0.clone();
        let work = move || {
            let io = |source| SnapshotError::Io {
                operation: "create",
                path: tmp_dir.clone(),
                source,
            };
            std::fs::create_dir_all(&tmp_dir).map_err(io)?;
            let records = stop_when(view.records, cancelled);
            let written = write_snapshot(&file.0, &id, &view.info, records, &write)?;
            // The file goes with the answer: if nobody takes it, it is removed.
            Ok((written, file))
        };
        let written = tokio::task::spawn_blocking(work).await;
        drop(waiting);
        written.map_err(|e| SnapshotError::Internal(format!("write a snapshot: {e}")))?
    }

    async fn upload(&self, file: &TempFile) -> Result<Uploaded, SnapshotError> {
        failpoint("snapshot::upload")?;
        self.repository
            .put_snapshot(&file.0, self.group, self.id)
            .await
    }

    async fn verify(&self, written: &Written, uploaded: &Uploaded) -> Result<(), SnapshotError> {
        failpoint("snapshot::verify")?;
        let verified = self.repository.verify(self.group, self.id).await?;
        let pairs = [
            (
                "manifest hash",
                verified.manifest_blake3.to_string(),
                written.manifest_blake3.to_string(),
            ),
            (
                "size",
                verified.object_bytes.to_string(),
                written.file_bytes.to_string(),
            ),
        ];
        if let Some((what, found, expected)) = pairs
            .into_iter()
            .find(|(_, found, expected)| found != expected)
        {
            return Err(SnapshotError::Mismatch {
                object: uploaded.object.clone(),
                what,
                found,
                expected,
            });
        }
        failpoint("snapshot::record")
    }
}

/// A file that is removed when nobody needs it any more.
#[derive(Debug)]
struct TempFile(PathBuf);

impl Drop for TempFile {
    fn drop(&mut self) {
        // What cannot be removed is found at the next start, which empties the folder.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Tells the writing thread, when it goes, that nobody waits any more.
#[derive(Debug, Default)]
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn stop_when(
    records: impl Iterator<Item = Result<Record, BoxError>>,
    cancelled: Arc<AtomicBool>,
) -> impl Iterator<Item = Result<Record, BoxError>> {
    records.enumerate().map(move |(i, record)| {
        if i % CANCEL_CHECK_RECORDS == 0 && cancelled.load(Ordering::Relaxed) {
            return Err("cancelled".into());
        }
        record
    })
}

/// A place where a test can stop the process or make the phase fail.
fn failpoint(name: &'static str) -> Result<(), SnapshotError> {
    let _ = name;
    fail::fail_point!(name, |detail| Err(SnapshotError::Internal(
        detail.unwrap_or_else(|| format!("failpoint {name}"))
    )));
    Ok(())
}
