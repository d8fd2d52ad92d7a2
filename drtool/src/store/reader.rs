//! The store for those who only read.
//!
//! Promises (I16): there is no way from a [`StoreReader`] to a put or a delete. What it reads is counted, so that a
//! command can say how little of a large object it needed.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use confman_snapshot::error::{SnapshotError, StoreError};
use confman_snapshot::paths::ReportKind;
use confman_snapshot::repository::{
    ClusterObject, Inventory, ListedReport, Listing, OrderDone, StoreSettings,
};
use confman_snapshot::source::ChunkSource;
use confman_snapshot::{ClusterId, GroupId, Kind, Repository, SnapshotId, SnapshotReader, paths};

/// A store that can only be read. Cheap to clone; clones count together.
#[derive(Debug, Clone)]
pub struct StoreReader {
    repository: Repository,
    bytes: Arc<AtomicU64>,
}

impl StoreReader {
    pub(crate) fn new(repository: Repository) -> Self {
        Self {
            repository,
            bytes: Arc::default(),
        }
    }

    /// The store's URL, without secrets.
    #[must_use]
    pub fn url(&self) -> &str {
        self.repository.url()
    }

    /// Which of the store's own variables are in force, and which it does not know.
    #[must_use]
    pub fn settings(&self) -> &StoreSettings {
        self.repository.settings()
    }

    /// Bytes of objects read so far.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Who owns the prefix, highest incarnation first.
    ///
    /// # Errors
    /// The store fails, or an object cannot be read.
    pub async fn clusters(&self) -> Result<Vec<ClusterObject>, StoreError> {
        self.repository.list_clusters().await
    }

    /// The highest incarnation of the cluster that was ever claimed here; 0 for none.
    ///
    /// # Errors
    /// The store fails.
    pub async fn highest_incarnation(&self, uuid: &str) -> Result<u64, StoreError> {
        self.repository.highest_incarnation(uuid).await
    }

    /// The lives whose recovery was undone: what they wrote is no past of any other.
    ///
    /// # Errors
    /// The store fails.
    pub async fn undone_lives(&self) -> Result<Vec<ClusterId>, StoreError> {
        self.repository.undone_lives().await
    }

    /// Who spent the restore order of this life; none while nobody has.
    ///
    /// # Errors
    /// The store fails, or the object cannot be read.
    pub async fn done(&self, life: &ClusterId) -> Result<Option<OrderDone>, StoreError> {
        self.repository.read_done(life).await
    }

    /// Whether the restore order of a life may still be carried out: nothing says that it is spent, or what says so
    /// cannot be read.
    ///
    /// # Errors
    /// The store fails.
    pub async fn may_be_open(&self, life: &ClusterId) -> Result<bool, StoreError> {
        match self.done(life).await {
            Ok(done) => Ok(done.is_none()),
            Err(error) if error.kind == Kind::Damaged => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The snapshots of one group, newest first by position.
    ///
    /// # Errors
    /// The store fails.
    pub async fn snapshots(&self, group: &GroupId) -> Result<Listing, StoreError> {
        self.repository.list_snapshots(group).await
    }

    /// The reports of one kind, newest first, by their names.
    ///
    /// # Errors
    /// The store fails.
    pub async fn reports(&self, kind: ReportKind) -> Result<Vec<ListedReport>, StoreError> {
        self.repository.list_reports(kind).await
    }

    /// The snapshots of every group, each group's newest first by position.
    ///
    /// # Errors
    /// The store fails.
    pub async fn inventory(&self) -> Result<Inventory, StoreError> {
        self.repository.list_all_snapshots().await
    }

    /// Opens a snapshot: its footer, manifest and header are proven.
    ///
    /// # Errors
    /// The store fails, or the object is not what it should be.
    pub async fn open(
        &self,
        group: &GroupId,
        id: &SnapshotId,
    ) -> Result<SnapshotReader, SnapshotError> {
        let object = paths::snapshot(group, id);
        let reader = SnapshotReader::open(Arc::new(self.clone()), &object).await?;
        reader.expect_name(group, id)?;
        Ok(reader)
    }
}

#[async_trait]
impl ChunkSource for StoreReader {
    async fn size(&self, object: &str) -> Result<u64, StoreError> {
        self.repository.size(object).await
    }

    async fn read(&self, object: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let bytes = self.repository.read(object, range).await?;
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}
