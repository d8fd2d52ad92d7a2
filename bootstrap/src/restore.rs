//! Gives an empty group its state from the store: the newest good one of the snapshots that the living
//! cluster has recorded.
//!
//! Promises:
//!
//! - a snapshot that is missing, damaged, another one or of a newer format is skipped by name, with the
//!   reason, for the next older one, and nothing of it is ever applied in part (I9);
//! - a state is installed only after its state hash has been proven equal to the recorded one (I11);
//! - a store that does not answer costs bounded time and ends in [`RestoreOutcome::NotFromStore`]: the group then
//!   starts empty as a learner and the leader feeds it (I18);
//! - memory is bounded by the chunks read ahead, times the groups restored at once (I6);
//! - killed anywhere and run again it reaches the same end; a state that somebody else put there is never
//!   touched: only a directory whose report says that a restore was going on is begun anew.
//!
//! It does not choose node ids, talk to peers, start Raft, or replay the tail.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use confman_snapshot::model::{ClusterId, GroupId};
use confman_snapshot::repository::Listing;
use confman_snapshot::source::ChunkSource;
use confman_snapshot::{Manifest, Repository, SnapshotError, SnapshotReader, SnapshotRecord};
use confman_store::{GroupPaths, StoreError, install_ordered, install_state};
use futures::StreamExt;
use tokio::time::{Instant, timeout};
use tracing::Instrument as _;
use tracing::field::Empty;

use crate::error::RestoreError;
use crate::measure;
use crate::ordered::OrderedTask;
use crate::plan::{Plan, plan};
use crate::report::{self, ReportError, RestoreReport, Skipped, Source, Stage, one_line};
use crate::space;
use crate::watched::Watched;

/// The bounds of a restore.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long the store may take to show what it has, before the leader is asked instead.
    pub reach: Duration,
    /// How long one read of at most a chunk may take, retries included.
    pub read: Duration,
    /// Chunks read ahead for each group: memory is this many chunks more.
    pub prefetch: usize,
    /// Groups restored at the same time.
    pub parallel: usize,
    /// Bytes on disk for each byte of records, while the database is being filled.
    pub disk_factor: u64,
    /// Bytes that must stay free on the disk whatever is restored.
    pub spare_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            reach: Duration::from_secs(10),
            // One try of the repository may hang for a minute; this leaves room for the next.
            read: Duration::from_secs(90),
            prefetch: 2,
            parallel: 2,
            // Sorted bulk inserts of 256-byte records fill a database of 1.8 times their size.
            disk_factor: 2,
            spare_bytes: 64 * 1024 * 1024,
        }
    }
}

/// Measures the free space of the disk that holds a directory.
type FreeBytes = dyn Fn(&Path) -> io::Result<u64> + Send + Sync;

/// Restores groups of one cluster from one store. Cheap to clone.
#[derive(Clone)]
pub struct Restorer {
    pub(crate) repository: Option<Repository>,
    cluster: ClusterId,
    pub(crate) limits: Limits,
    now_us: Arc<dyn Fn() -> i64 + Send + Sync>,
    free_bytes: Arc<FreeBytes>,
}

/// One group to restore.
#[derive(Debug, Clone)]
pub struct GroupTask {
    /// Where the group's data go; also names the group.
    pub paths: GroupPaths,
    /// The snapshots that the group's leader has recorded, in any order.
    pub candidates: Vec<SnapshotRecord>,
}

/// How the restore of one group ended. The report lies in the group's directory as well.
#[derive(Debug, Clone, PartialEq)]
pub enum RestoreOutcome {
    /// The state is in place, durable and proven, as of the report's snapshot.
    FromStore(RestoreReport),
    /// The store gave nothing; the group starts empty and its leader feeds it.
    NotFromStore(RestoreReport),
    /// An earlier run had finished; nothing was done.
    Already(RestoreReport),
}

impl RestoreOutcome {
    /// The report, however it ended.
    pub fn report(&self) -> &RestoreReport {
        match self {
            RestoreOutcome::FromStore(report)
            | RestoreOutcome::NotFromStore(report)
            | RestoreOutcome::Already(report) => report,
        }
    }
}

/// Where a state goes, and as whose.
pub(crate) struct Place<'a> {
    pub(crate) paths: &'a GroupPaths,
    /// The member that it is for, when the log is to begin a new life; otherwise it goes on as the snapshot has it.
    pub(crate) ordered: Option<&'a OrderedTask>,
}

/// Why a snapshot did not become the state.
pub(crate) enum Failure {
    /// This snapshot is no good: the next older one.
    Bad(String),
    /// The store does not answer: the leader.
    Unreachable(String),
    /// This machine: stop.
    Here(RestoreError),
}

/// The restore of a group within a span, which says in the end what came from where.
pub(crate) async fn traced(
    group: &GroupId,
    restore: impl Future<Output = Result<RestoreOutcome, RestoreError>>,
) -> Result<RestoreOutcome, RestoreError> {
    let span = tracing::info_span!(
        "restore",
        otel.status_code = Empty,
        confman.group = %group,
        confman.snapshot.id = Empty,
        confman.restore.source = Empty,
        error.type = Empty,
    );
    let restored = measure::restore(group, restore.instrument(span.clone())).await;
    let source = match &restored {
        Ok(RestoreOutcome::FromStore(_)) => "store",
        Ok(RestoreOutcome::NotFromStore(_)) => "leader",
        Ok(RestoreOutcome::Already(_)) => "earlier-run",
        Err(error) => {
            span.record("otel.status_code", "ERROR");
            span.record("error.type", error.kind());
            return restored;
        }
    };
    span.record("confman.restore.source", source);
    if let Some(id) = restored
        .as_ref()
        .ok()
        .and_then(|r| r.report().snapshot.as_ref())
    {
        span.record("confman.snapshot.id", id);
    }
    restored
}

impl Restorer {
    /// A restorer for `cluster`. Without a repository every group comes from its leader. `now_us` is the
    /// clock for reports: microseconds since 1970 UTC.
    pub fn new(
        repository: Option<Repository>,
        cluster: ClusterId,
        limits: Limits,
        now_us: impl Fn() -> i64 + Send + Sync + 'static,
    ) -> Self {
        let free_bytes = Arc::new(space::free_bytes);
        Self {
            repository,
            cluster,
            limits,
            now_us: Arc::new(now_us),
            free_bytes,
        }
    }

    /// Measures free space with `free_bytes` instead of asking the system.
    pub fn with_free_bytes(
        mut self,
        free_bytes: impl Fn(&Path) -> io::Result<u64> + Send + Sync + 'static,
    ) -> Self {
        self.free_bytes = Arc::new(free_bytes);
        self
    }

    /// Restores several groups, a bounded number at once; results in the order of the tasks. Fails before
    /// anything is read when the disk cannot take them all, and otherwise with the first group's error.
    pub async fn restore_groups(
        &self,
        tasks: Vec<GroupTask>,
    ) -> Result<Vec<RestoreOutcome>, RestoreError> {
        self.check_space_for_all(&tasks)?;
        let parallel = self.limits.parallel.max(1);
        let mut running = futures::stream::iter(tasks.iter().map(|task| self.restore_group(task)))
            .buffered(parallel);
        // A failure waits for the others: what they have finished need not be fetched again.
        let mut ended = Vec::with_capacity(tasks.len());
        while let Some(outcome) = running.next().await {
            ended.push(outcome);
        }
        ended.into_iter().collect()
    }

    /// Restores one group, or finds that an earlier run did.
    pub async fn restore_group(&self, task: &GroupTask) -> Result<RestoreOutcome, RestoreError> {
        traced(task.paths.group(), self.find_or_restore(task)).await
    }

    async fn find_or_restore(&self, task: &GroupTask) -> Result<RestoreOutcome, RestoreError> {
        if let Some(report) = self.earlier_run(&task.paths)? {
            return Ok(RestoreOutcome::Already(report));
        }
        self.clear_half_product(&task.paths).await?;
        let began = Instant::now();
        let mut report = self.new_report(task.paths.group());
        let restored = self.try_store(task, &mut report).await?;
        report.took_us = began.elapsed().as_micros() as u64;
        stop_at("restore::installed")?;
        report.stage = Stage::Installed.into();
        self.write(&task.paths, &report).await?;
        tracing::info!("restored {}", report.summary());
        Ok(if restored {
            RestoreOutcome::FromStore(report)
        } else {
            RestoreOutcome::NotFromStore(report)
        })
    }

    /// What an earlier run left behind: its result, or nothing, or a state that is not a restore's.
    pub(crate) fn earlier_run(
        &self,
        paths: &GroupPaths,
    ) -> Result<Option<RestoreReport>, RestoreError> {
        let has_state = exists(&paths.state())?;
        let has_log = exists(&paths.log())?;
        let Some(report) = report::read(paths)? else {
            if has_state || has_log {
                let path = if has_state {
                    paths.state()
                } else {
                    paths.log()
                };
                return Err(RestoreError::NotEmpty {
                    group: paths.group().clone(),
                    path,
                });
            }
            return Ok(None);
        };
        let expected = format!("{} of cluster {}", paths.group(), self.cluster.uuid);
        let found = format!("{} of cluster {}", report.group, report.cluster_uuid);
        if found != expected {
            let (group, path) = (paths.group().clone(), paths.restored());
            return Err(RestoreError::Foreign {
                group,
                path,
                found,
                expected,
            });
        }
        match (report.is_installed(), report.source(), has_state) {
            (true, _, true) => Ok(Some(report)),
            (true, Source::Peer, false) if has_log => Ok(Some(report)),
            // The leader was to feed it and has not begun: the store may answer by now.
            (true, Source::Peer, false) => Ok(None),
            // The report says that the state is durable, and it is not there.
            (true, _, false) => Err(RestoreError::Report(ReportError::Damaged {
                path: paths.restored(),
                detail: format!("it speaks of a state, and {:?} is missing", paths.state()),
            })),
            // A restore was going on: what is there is its own half product.
            (false, _, _) => Ok(None),
        }
    }

    /// Removes what an interrupted restore left: no Raft was ever started on it, because its report never
    /// said that it was installed. Removed in any order and killed in between, it is still a half product.
    pub(crate) async fn clear_half_product(&self, paths: &GroupPaths) -> Result<(), RestoreError> {
        let files = [paths.state(), paths.state_new()];
        let dirs = [paths.log(), paths.log_new()];
        let work = move || {
            files
                .iter()
                .try_for_each(|file| gone(std::fs::remove_file(file), file))?;
            dirs.iter()
                .try_for_each(|dir| gone(std::fs::remove_dir_all(dir), dir))
        };
        blocking("remove", paths.dir(), work).await?
    }

    /// Tries the candidates newest first; says whether one of them is the state now.
    async fn try_store(
        &self,
        task: &GroupTask,
        report: &mut RestoreReport,
    ) -> Result<bool, RestoreError> {
        let group = task.paths.group();
        let (repository, plan) = match self.reach(task).await {
            Ok(reached) => reached,
            Err(why) => {
                report.why_not_store = one_line(&why);
                return Ok(false);
            }
        };
        report.newest_index = plan.tries.first().map(|record| record.position.index);
        report.skipped = plan.skipped;
        for note in &plan.notes {
            tracing::warn!("{group}: {note}");
        }
        let read_bytes = Arc::new(AtomicU64::new(0));
        for record in &plan.tries {
            let place = Place {
                paths: &task.paths,
                ordered: None,
            };
            let outcome = self.try_snapshot(&place, record, &repository, &read_bytes, report);
            let outcome = outcome.await;
            report.read_bytes = read_bytes.load(Ordering::Relaxed);
            match outcome {
                Ok(()) => return Ok(true),
                Err(Failure::Bad(why)) => {
                    let why = one_line(&why);
                    tracing::warn!("{group}: skip snapshot {}: {why}", record.id);
                    report
                        .skipped
                        .push(Skipped::new(record.id, record.position.index, why));
                }
                Err(Failure::Unreachable(why)) => {
                    report.why_not_store = one_line(&why);
                    return Ok(false);
                }
                Err(Failure::Here(error)) => return Err(error),
            }
        }
        report.why_not_store = if report.skipped.is_empty() {
            "the cluster has recorded no snapshot of this group".to_owned()
        } else {
            format!(
                "none of the {} recorded snapshots is good",
                report.skipped.len()
            )
        };
        Ok(false)
    }

    /// Asks the store what it has, in bounded time, and orders what to try.
    async fn reach(&self, task: &GroupTask) -> Result<(Repository, Plan), String> {
        let group = task.paths.group();
        let Some(repository) = self.repository.clone() else {
            return Err("there is no store".to_owned());
        };
        if task.candidates.is_empty() {
            return Ok((repository, Plan::default()));
        }
        let listing = timeout(self.limits.reach, repository.list_snapshots(group));
        let failed = |listing: &Result<Result<_, _>, _>| !matches!(listing, Ok(Ok(_)));
        let listing: Option<Listing> = match measure::phase(group, "list", failed, listing).await {
            Err(_) => return Err(format!("no answer within {:?}", self.limits.reach)),
            Ok(Err(error)) if error.kind.is_transient() => return Err(error.to_string()),
            // Listing may be denied where reading is not.
            Ok(Err(error)) => {
                tracing::warn!("{group}: go on without a list of the store: {error}");
                None
            }
            Ok(Ok(listing)) => Some(listing),
        };
        let plan = plan(&self.cluster, group, &task.candidates, listing.as_ref());
        Ok((repository, plan))
    }

    /// Makes one snapshot the state of the group, or says why not. Nothing of it is in place on error.
    pub(crate) async fn try_snapshot(
        &self,
        place: &Place<'_>,
        record: &SnapshotRecord,
        repository: &Repository,
        read_bytes: &Arc<AtomicU64>,
        report: &mut RestoreReport,
    ) -> Result<(), Failure> {
        let paths = place.paths;
        let group = paths.group();
        let what = format!("{group} from snapshot {}", record.id);
        self.check_space(&what, paths.dir(), record.raw_bytes)?;
        let inner: Arc<dyn ChunkSource> = Arc::new(repository.clone());
        let source = Watched::new(
            inner,
            self.limits.read,
            read_bytes.clone(),
            what.clone(),
            record.object_bytes,
        );
        let opening = SnapshotReader::open(Arc::new(source), &record.object);
        let reader = measure::phase(group, "open", Result::is_err, opening)
            .await
            .map_err(|error| judge(group, error.into()))?;
        reader
            .expect(record)
            .map_err(|error| judge(group, error.into()))?;
        let manifest = reader.manifest();
        // The manifest is proven by now, the record only came from a peer.
        self.check_space(&what, paths.dir(), manifest.raw_bytes)?;
        fill_in(report, record, manifest);
        self.write(paths, report).await.map_err(Failure::Here)?;
        stop_at("restore::started").map_err(Failure::Here)?;
        let records = reader.records(self.limits.prefetch);
        let install = async {
            match place.ordered {
                None => {
                    let membership = manifest.membership();
                    install_state(paths, records, manifest.position, membership, Some(record)).await
                }
                Some(ordered) => {
                    let members = ordered.members.clone();
                    install_ordered(paths, records, record, members, ordered.candidacy()).await
                }
            }
        };
        let installed = measure::phase(group, "install", Result::is_err, install).await;
        if let Err(error) = installed {
            fill_out(report);
            self.clear_half_product(paths)
                .await
                .map_err(Failure::Here)?;
            return Err(judge(group, error));
        }
        Ok(())
    }

    pub(crate) fn new_report(&self, group: &GroupId) -> RestoreReport {
        RestoreReport {
            group: group.to_string(),
            cluster_uuid: self.cluster.uuid.clone(),
            incarnation: self.cluster.incarnation,
            source: Source::Peer.into(),
            stage: Stage::Started.into(),
            started_us: (self.now_us)(),
            ..RestoreReport::default()
        }
    }

    /// Writes the report off the runtime's threads.
    pub(crate) async fn write(
        &self,
        paths: &GroupPaths,
        report: &RestoreReport,
    ) -> Result<(), RestoreError> {
        let (to, report) = (paths.clone(), report.clone());
        blocking("write", &paths.restored(), move || {
            report::write(&to, &report)
        })
        .await??;
        Ok(())
    }

    fn check_space_for_all(&self, tasks: &[GroupTask]) -> Result<(), RestoreError> {
        let Some(first) = tasks.first() else {
            return Ok(());
        };
        if self.repository.is_none() {
            return Ok(());
        }
        let mut raw_bytes = 0_u64;
        for task in tasks {
            if self.earlier_run(&task.paths)?.is_none() {
                let plan = plan(&self.cluster, task.paths.group(), &task.candidates, None);
                let newest = plan.tries.first().map_or(0, |record| record.raw_bytes);
                raw_bytes = raw_bytes.saturating_add(newest);
            }
        }
        if raw_bytes == 0 {
            return Ok(());
        }
        let what = format!("{} groups", tasks.len());
        self.need(&what, first.paths.dir(), raw_bytes)
    }

    fn check_space(&self, what: &str, dir: &Path, raw_bytes: u64) -> Result<(), Failure> {
        self.need(what, dir, raw_bytes).map_err(Failure::Here)
    }

    pub(crate) fn need(&self, what: &str, dir: &Path, raw_bytes: u64) -> Result<(), RestoreError> {
        let need = raw_bytes
            .saturating_mul(self.limits.disk_factor)
            .saturating_add(self.limits.spare_bytes);
        let dir = space::existing(dir);
        let free = (self.free_bytes)(&dir).map_err(|source| RestoreError::Io {
            operation: "measure the free space of",
            path: dir.clone(),
            source,
        })?;
        if free < need {
            return Err(RestoreError::Space {
                what: what.to_owned(),
                dir,
                need,
                free,
            });
        }
        Ok(())
    }
}

/// What the report says while and after this snapshot is installed.
fn fill_in(report: &mut RestoreReport, record: &SnapshotRecord, manifest: &Manifest) {
    report.source = Source::Store.into();
    report.snapshot = Some(record.id.to_string());
    report.snapshot_index = Some(record.position.index);
    report.records = manifest.records;
    report.raw_bytes = manifest.raw_bytes;
    report.state_hash = manifest.state_digest().to_string();
}

/// Takes back what [`fill_in`] said: the snapshot did not become the state.
fn fill_out(report: &mut RestoreReport) {
    report.source = Source::Peer.into();
    report.snapshot = None;
    report.snapshot_index = None;
    report.records = 0;
    report.raw_bytes = 0;
    report.state_hash = String::new();
}

/// Sorts an error by what it calls for: an older snapshot, the leader, or an operator. Only what this
/// machine's disk says stops the restore; anything else that is wrong is wrong with the snapshot.
fn judge(group: &GroupId, error: StoreError) -> Failure {
    let is_local = match &error {
        StoreError::Snapshot(snapshot) if snapshot.is_unreachable() => {
            return Failure::Unreachable(error.to_string());
        }
        StoreError::Snapshot(snapshot) => matches!(snapshot, SnapshotError::Io { .. }),
        StoreError::Io { .. } | StoreError::Database { .. } | StoreError::InUse { .. } => true,
        _ => false,
    };
    if is_local {
        Failure::Here(RestoreError::Install {
            group: group.clone(),
            source: Box::new(error),
        })
    } else {
        Failure::Bad(error.to_string())
    }
}

fn exists(path: &Path) -> Result<bool, RestoreError> {
    path.try_exists().map_err(|source| RestoreError::Io {
        operation: "look for",
        path: path.to_owned(),
        source,
    })
}

/// Runs file work off the runtime's threads.
async fn blocking<T: Send + 'static>(
    operation: &'static str,
    path: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RestoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| RestoreError::Io {
            operation,
            path: path.to_owned(),
            source: io::Error::other(error),
        })
}

/// A removal that finds nothing has been done before.
fn gone(removed: io::Result<()>, path: &Path) -> Result<(), RestoreError> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(RestoreError::Io {
            operation: "remove",
            path: path.to_owned(),
            source: error,
        }),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A named point at which a test can stop a restore as a kill would.
pub(crate) fn stop_at(point: &'static str) -> Result<(), RestoreError> {
    fail::fail_point!(point, |_| Err(RestoreError::Stopped(point)));
    // Without the feature nothing else reads it.
    let _ = point;
    Ok(())
}
