//! The object store under one prefix, in domain words.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{SnapshotError, StoreError};
use crate::format::{Manifest, SnapshotReader};
use crate::id::SnapshotId;
use crate::lthash::Digest;
use crate::model::{ClusterId, GroupId};
use crate::record::SnapshotRecord;
use crate::source::ChunkSource;

/// The store under one prefix. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Repository {
    url: Arc<str>,
}

/// The object that says which cluster owns a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterObject {
    /// Version of this object's format.
    pub version: u32,
    /// The cluster and incarnation.
    #[serde(flatten)]
    pub cluster: ClusterId,
    /// When it was made, microseconds since 1970 UTC.
    pub created_us: i64,
    /// The node that made it.
    pub created_by: String,
    /// Random, so that its maker knows it again when a retried create answers "exists".
    pub nonce: String,
}

/// How a claim of the prefix ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The cluster object is ours, now or from before.
    Ours,
    /// Another cluster owns the prefix.
    Foreign(Vec<ClusterId>),
    /// A newer incarnation of this cluster owns the prefix.
    Newer(ClusterId),
}

/// What a probe of the store learned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Whether "create only if absent" is refused for an object that exists.
    pub conditional_put: bool,
    /// Whether what was put was found in a list at once.
    pub list_after_put: bool,
    /// Whether deleting is allowed; snapshots are kept for ever without it.
    pub delete: bool,
}

/// An uploaded object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// Its name relative to the prefix.
    pub object: String,
    /// Its size.
    pub bytes: u64,
}

/// A snapshot that was read back and decoded to the end.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// Its manifest.
    pub manifest: Manifest,
    /// BLAKE3 of the manifest's bytes.
    pub manifest_blake3: Digest,
    /// The size of its object.
    pub object_bytes: u64,
}

/// One snapshot in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub id: SnapshotId,
    /// Its object relative to the prefix.
    pub object: String,
    /// The size of its object.
    pub bytes: u64,
}

/// The snapshots of one group that a listing showed, newest position first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The snapshots.
    pub snapshots: Vec<Listed>,
    /// Objects whose names are not ours: ignored, counted, never deleted.
    pub foreign: u64,
}

impl Repository {
    /// Opens a store by URL; `{data}` in it stands for `data_dir`. `env` gives the `AWS_*` and similar variables.
    pub async fn open(
        url: &str,
        data_dir: &Path,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, StoreError> {
        let _ = (url, data_dir, env.into_iter().count());
        todo!()
    }

    /// The store's URL, without secrets.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Writes, lists, reads and deletes an object of its own, to learn what the store honours.
    pub async fn probe_short(&self) -> Result<Probe, StoreError> {
        todo!()
    }

    /// Whether the store answers at all.
    pub async fn ping(&self) -> Result<(), StoreError> {
        todo!()
    }

    /// Uploads a finished local snapshot file as a new object.
    pub async fn put_snapshot(
        &self,
        local: &Path,
        group: &GroupId,
        id: &SnapshotId,
    ) -> Result<Uploaded, SnapshotError> {
        let _ = (local, group, id);
        todo!()
    }

    /// Opens a snapshot by name.
    pub async fn open_snapshot(
        &self,
        group: &GroupId,
        id: &SnapshotId,
    ) -> Result<SnapshotReader, SnapshotError> {
        let _ = (group, id);
        todo!()
    }

    /// Opens the recorded snapshot and refuses any other.
    pub async fn open_recorded(
        &self,
        record: &SnapshotRecord,
    ) -> Result<SnapshotReader, SnapshotError> {
        let _ = record;
        todo!()
    }

    /// Reads a snapshot back and decodes it to the end.
    pub async fn verify(
        &self,
        group: &GroupId,
        id: &SnapshotId,
    ) -> Result<Verified, SnapshotError> {
        let _ = (group, id);
        todo!()
    }

    /// The snapshots of one group.
    pub async fn list_snapshots(&self, group: &GroupId) -> Result<Listing, StoreError> {
        let _ = group;
        todo!()
    }

    /// Deletes a snapshot; one that is not there is deleted.
    pub async fn delete_snapshot(
        &self,
        group: &GroupId,
        id: &SnapshotId,
    ) -> Result<(), StoreError> {
        let _ = (group, id);
        todo!()
    }

    /// Makes the prefix this cluster's, or says whose it is.
    pub async fn claim_cluster(&self, ours: &ClusterObject) -> Result<Claim, StoreError> {
        let _ = ours;
        todo!()
    }

    /// Every cluster object under the prefix, highest incarnation first.
    pub async fn list_clusters(&self) -> Result<Vec<ClusterObject>, StoreError> {
        todo!()
    }
}

#[async_trait]
impl ChunkSource for Repository {
    async fn size(&self, object: &str) -> Result<u64, StoreError> {
        let _ = object;
        todo!()
    }

    async fn read(&self, object: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let _ = (object, range);
        todo!()
    }
}
