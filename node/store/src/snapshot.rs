//! Snapshots as openraft passes them around: by reference where the store has one, else as a local file.
//!
//! openraft purges no further than the newest snapshot it was shown, and stops the node when it needs one and there
//! is none. So a replica shows the newest snapshot that its group recorded as its own, and builds a local file only
//! when there is none that reaches as far as the log is purged, or when it was told to.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use confman_snapshot::model::{Membership, Position};
use confman_snapshot::{
    Manifest, RecordStream, SnapshotId, SnapshotRecord, WriteOptions, write_snapshot,
};
use openraft::RaftSnapshotBuilder;

use crate::convert;
use crate::error::StoreError;
use crate::state::{Reader, Shared, StateHandle};
use crate::types::{Snapshot, SnapshotMeta, TypeConfig};

/// A snapshot as openraft passes it around: never its bytes.
#[derive(Debug, Clone)]
pub enum SnapshotHandle {
    /// In the store: whoever gets this reads it there.
    Recorded(SnapshotRecord),
    /// In a local file of this node, to be sent as bytes.
    Local(Arc<LocalSnapshot>),
    /// Being received: only for `install_full_snapshot`.
    Incoming(Incoming),
}

/// A `.snap` file of this node, deleted with its last handle.
#[derive(Debug)]
pub struct LocalSnapshot {
    path: PathBuf,
    manifest: Manifest,
    file_bytes: u64,
}

impl LocalSnapshot {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The size of the file in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }
}

impl Drop for LocalSnapshot {
    fn drop(&mut self) {
        // What stays is emptied at the next start.
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "a local snapshot was not removed");
        }
    }
}

/// A snapshot that is being received: the records to install, and what is kept of it as this replica's own.
#[derive(Clone)]
pub struct Incoming {
    stream: Arc<parking_lot::Mutex<Option<RecordStream>>>,
    record: Option<SnapshotRecord>,
}

impl Incoming {
    /// Records from the store (with the record of the snapshot that they are of) or from a file that a peer sent
    /// (without).
    pub fn new(stream: RecordStream, record: Option<SnapshotRecord>) -> Self {
        Self {
            stream: Arc::new(parking_lot::Mutex::new(Some(stream))),
            record,
        }
    }

    /// The records; none when they were taken before.
    pub(crate) fn take(&self) -> Option<RecordStream> {
        self.stream.lock().take()
    }

    pub(crate) fn record(&self) -> Option<&SnapshotRecord> {
        self.record.as_ref()
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let open = self.stream.lock().is_some();
        f.debug_struct("Incoming")
            .field("record", &self.record)
            .field("open", &open)
            .finish()
    }
}

/// A snapshot that this replica shows to openraft.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    /// None for the snapshot of a state that nothing was applied to, which openraft may ask for.
    position: Option<Position>,
    membership: Membership,
    handle: SnapshotHandle,
}

impl Offer {
    fn recorded(record: SnapshotRecord, membership: Membership) -> Self {
        Self {
            position: Some(record.position),
            membership,
            handle: SnapshotHandle::Recorded(record),
        }
    }

    fn into_raft(self) -> Result<Snapshot, StoreError> {
        let last_membership = convert::stored_membership(&self.membership)
            .map_err(|e| StoreError::Internal(e.to_string()))?;
        let meta = SnapshotMeta {
            last_log_id: self.position.as_ref().map(convert::log_id),
            last_membership,
        };
        Ok(Snapshot {
            meta,
            snapshot: self.handle,
        })
    }
}

/// The newest snapshot in the store that reaches as far as the log is purged: recorded by the group, or the one that
/// this state came from.
fn newest_recorded(shared: &Shared) -> Result<Option<Offer>, StoreError> {
    let database = shared.database();
    let recorded = Reader::new(&database)?
        .newest_snapshot()?
        .and_then(|fact| Some(Offer::recorded(fact.record?, fact.membership?.into())));
    let installed = database.read_installed()?.and_then(|installed| {
        Some(Offer::recorded(
            installed.record?,
            installed.membership?.into(),
        ))
    });
    let purged = shared.purged_index();
    Ok([installed, recorded]
        .into_iter()
        .flatten()
        .filter(|offer| {
            purged.is_none_or(|purged| offer.position.is_some_and(|p| p.index >= purged))
        })
        .max_by_key(|offer| offer.position))
}

fn came_from_snapshot(shared: &Shared) -> Result<bool, StoreError> {
    Ok(shared.database().read_installed()?.is_some())
}

/// What this replica shows to openraft now.
pub(crate) async fn current(shared: &Arc<Shared>) -> Result<Option<Snapshot>, StoreError> {
    let mut offer = newest_recorded(shared)?;
    if let Some(local) = shared.local_offer() {
        let newer = offer
            .as_ref()
            .is_none_or(|recorded| local.position > recorded.position);
        if newer || shared.prefer_local.load(Ordering::Relaxed) {
            offer = Some(local);
        }
    }
    match (offer, shared.purged_index()) {
        (Some(offer), _) => offer.into_raft().map(Some),
        (None, None) if !came_from_snapshot(shared)? => Ok(None),
        (None, purged) => {
            // openraft stops the node when it finds none. This holds up apply, and happens only where a state came
            // from a peer and nothing has been recorded since.
            tracing::warn!(group = %shared.group(), ?purged, "no recorded snapshot reaches as far as this log begins: building one here");
            build_local(shared).await?.into_raft().map(Some)
        }
    }
}

async fn build_local(shared: &Arc<Shared>) -> Result<Offer, StoreError> {
    let owned = shared.clone();
    let build = move || -> Result<Offer, StoreError> {
        static NONCE: AtomicU32 = AtomicU32::new(0);
        let handle = StateHandle::new(owned.clone());
        // No clock of this node: the state's own time says what is in it.
        let (view, position) = handle.open_any_view(handle.stats().last_time_us)?;
        let nonce = NONCE.fetch_add(1, Ordering::Relaxed);
        let id = SnapshotId::new(view.info.position, view.info.cluster.incarnation, nonce);
        let path = owned.paths.tmp_file(&format!("{id}.local.snap"));
        std::fs::create_dir_all(owned.paths.tmp_dir())
            .map_err(StoreError::io("create", owned.paths.tmp_dir()))?;
        let written = match write_snapshot(
            &path,
            &id,
            &view.info,
            view.records,
            &WriteOptions::default(),
        ) {
            Ok(written) => written,
            Err(error) => {
                // Best effort: `tmp` is emptied at the next start.
                drop(std::fs::remove_file(&path));
                return Err(error.into());
            }
        };
        let membership = view.info.membership;
        let local = LocalSnapshot {
            path,
            manifest: written.manifest,
            file_bytes: written.file_bytes,
        };
        Ok(Offer {
            position,
            membership,
            handle: SnapshotHandle::Local(Arc::new(local)),
        })
    };
    let offer = tokio::task::spawn_blocking(build)
        .await
        .map_err(|e| StoreError::Internal(e.to_string()))??;
    shared.set_local_offer(Some(offer.clone()));
    Ok(offer)
}

/// Gives openraft the snapshot that it asks for.
#[derive(Clone)]
pub struct SnapshotBuilder {
    shared: Arc<Shared>,
}

impl SnapshotBuilder {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl std::fmt::Debug for SnapshotBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotBuilder")
            .field("group", self.shared.group())
            .finish()
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotHandle;

    async fn build_snapshot(&mut self) -> Result<Snapshot, std::io::Error> {
        let recorded = match self.shared.prefer_local.load(Ordering::Relaxed) {
            true => None,
            false => newest_recorded(&self.shared)?,
        };
        let offer = match recorded {
            Some(offer) => {
                // A local file that a recorded snapshot has overtaken is of no use any more.
                self.shared.set_local_offer(None);
                offer
            }
            None => match build_local(&self.shared).await {
                Ok(offer) => offer,
                // An error here would end the node; where there is something else to offer, that is offered.
                Err(error) => match newest_recorded(&self.shared)? {
                    Some(offer) => {
                        tracing::error!(group = %self.shared.group(), "build a snapshot for a follower that cannot reach the store: {error}");
                        offer
                    }
                    None => return Err(error.into()),
                },
            },
        };
        Ok(offer.into_raft()?)
    }
}
