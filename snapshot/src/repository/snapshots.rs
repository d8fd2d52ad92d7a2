//! Snapshots in the store: put, open, verify, list, delete.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use tokio::time::Instant;

use super::Repository;
use super::call::measure;
use crate::Digest;
use crate::error::{Kind, SnapshotError, StoreError};
use crate::format::{FOOTER_BYTES, Manifest, SnapshotReader};
use crate::id::SnapshotId;
use crate::model::GroupId;
use crate::paths;
use crate::record::SnapshotRecord;
use crate::source::ChunkSource;

/// A listing that goes on for ever ends here: 10 million snapshots of one group are not ours.
const LIST_OBJECTS_MAX: u64 = 10_000_000;
/// As many snapshots of one group are kept in memory at a time; the newest ones.
const LISTED_MAX: usize = 100_000;
/// More groups than any cluster has.
const GROUPS_MAX: usize = 10_000;

/// An uploaded object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// Its name relative to the prefix.
    pub object: String,
    /// Its size in bytes.
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

/// The snapshots of one group that a listing showed: newest incarnation first, then highest index; each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The snapshots.
    pub snapshots: Vec<Listed>,
    /// Objects whose names are not ours: ignored, counted, never deleted.
    pub foreign: u64,
}

/// The snapshots of all groups that a listing showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// By group; a group without snapshots is not in it.
    pub groups: BTreeMap<GroupId, Vec<Listed>>,
    /// Objects among them whose names are not ours: ignored, counted, never deleted.
    pub foreign: u64,
}

impl Repository {
    /// Uploads a finished local snapshot file as a new object. Done twice, the second time finds the first.
    pub async fn put_snapshot(
        &self,
        local: &Path,
        group: &GroupId,
        id: &SnapshotId,
    ) -> Result<Uploaded, SnapshotError> {
        let object = paths::snapshot(group, id);
        let bytes = self.upload(local, &object, FOOTER_BYTES).await?;
        // One object appears at once or not at all: what the store shows must be what was sent.
        let shown = self.size(&object).await?;
        if shown != bytes {
            return Err(SnapshotError::damaged(
                &object,
                format!("{bytes} bytes were sent, the store has {shown}"),
            ));
        }
        Ok(Uploaded { object, bytes })
    }

    /// Opens a snapshot by name and refuses one that calls itself otherwise.
    pub async fn open_snapshot(
        &self,
        group: &GroupId,
        id: &SnapshotId,
    ) -> Result<SnapshotReader, SnapshotError> {
        let object = paths::snapshot(group, id);
        let source: Arc<dyn ChunkSource> = Arc::new(self.clone());
        let reader = SnapshotReader::open(source, &object).await?;
        reader.expect_name(group, id)?;
        Ok(reader)
    }

    /// Opens the recorded snapshot and refuses any other.
    pub async fn open_recorded(
        &self,
        record: &SnapshotRecord,
    ) -> Result<SnapshotReader, SnapshotError> {
        record.check().map_err(|source| SnapshotError::Invalid {
            id: record.id,
            source,
        })?;
        let reader = self.open_snapshot(&record.group, &record.id).await?;
        reader.expect(record)?;
        Ok(reader)
    }

    /// Reads a snapshot back and decodes it to the end, with every object that it refers to.
    pub async fn verify(
        &self,
        group: &GroupId,
        id: &SnapshotId,
    ) -> Result<Verified, SnapshotError> {
        let reader = self.open_snapshot(group, id).await?;
        let mut records = reader.records(self.inner.options.verify_prefetch);
        while records.next_chunk().await?.is_some() {}
        Ok(Verified {
            manifest: reader.manifest().clone(),
            manifest_blake3: reader.manifest_blake3(),
            object_bytes: reader.object_bytes(),
        })
    }

    /// The snapshots of one group. A listing may be stale: what a group has recorded is the truth, this is not.
    pub async fn list_snapshots(&self, group: &GroupId) -> Result<Listing, StoreError> {
        let folder = paths::snapshots(group);
        let mut listing = Listing::default();
        self.list(&folder, |object, bytes| {
            match paths::parse_snapshot(object).filter(|(theirs, _)| theirs == group) {
                Some((_, id)) => listing.snapshots.push(Listed {
                    id,
                    object: object.to_owned(),
                    bytes,
                }),
                None => listing.foreign += 1,
            }
            if listing.snapshots.len() >= 2 * LISTED_MAX {
                newest_first(&mut listing.snapshots);
            }
        })
        .await?;
        newest_first(&mut listing.snapshots);
        metrics::gauge!("confman_store_foreign_objects", "folder" => folder)
            .set(listing.foreign as f64);
        Ok(listing)
    }

    /// The snapshots of every group, each group's newest first. What [`Repository::list_snapshots`] says of a listing holds here.
    pub async fn list_all_snapshots(&self) -> Result<Inventory, StoreError> {
        let mut inventory = Inventory::default();
        self.list(paths::SNAPSHOTS, |object, bytes| {
            let known = paths::parse_snapshot(object).filter(|(group, _)| {
                inventory.groups.len() < GROUPS_MAX || inventory.groups.contains_key(group)
            });
            let Some((group, id)) = known else {
                inventory.foreign += 1;
                return;
            };
            let listed = inventory.groups.entry(group).or_default();
            listed.push(Listed {
                id,
                object: object.to_owned(),
                bytes,
            });
            if listed.len() >= 2 * LISTED_MAX {
                newest_first(listed);
            }
        })
        .await?;
        inventory.groups.values_mut().for_each(newest_first);
        Ok(inventory)
    }

    /// Deletes a snapshot; one that is not there is deleted.
    pub async fn delete_snapshot(
        &self,
        group: &GroupId,
        id: &SnapshotId,
    ) -> Result<(), StoreError> {
        self.delete(&paths::snapshot(group, id)).await
    }

    /// Shows every object under a folder to `each`, with its size; names are relative to the prefix. From the start again when
    /// a try fails, so `each` may see an object more than once.
    pub(super) async fn list(
        &self,
        folder: &str,
        mut each: impl FnMut(&str, u64),
    ) -> Result<(), StoreError> {
        let path = self.path(folder)?;
        let total = self.inner.options.list_total;
        let deadline = Instant::now() + total;
        let limits = super::call::Limits {
            one_try: total,
            total,
        };
        let mut tries = self.tries("list", limits);
        loop {
            let store = self.inner.slot.get();
            let mut stream = store.list(Some(&path));
            let mut seen = 0_u64;
            let error = loop {
                let left = deadline.saturating_duration_since(Instant::now());
                let time = self.inner.options.small_try.min(left);
                // Measured as one request, however many objects it shows.
                let next = self.within("list", folder, time, stream.try_next()).await;
                match next.and_then(|next| next.map_err(|e| self.classify("list", folder, &e))) {
                    Ok(None) => {
                        measure("list", None);
                        return Ok(());
                    }
                    Ok(Some(meta)) => {
                        if let Some(object) = self.relative(&meta.location) {
                            each(object, meta.size);
                        }
                    }
                    Err(error) => break error,
                }
                seen += 1;
                if seen > LIST_OBJECTS_MAX {
                    let detail = format!("the listing has more than {LIST_OBJECTS_MAX} objects");
                    return Err(self.error(
                        Kind::Damaged,
                        "list",
                        folder,
                        detail,
                        "look into the bucket",
                    ));
                }
            };
            measure("list", Some(error.kind));
            // A store without the folder has nothing in it.
            if error.kind == Kind::NotFound {
                return Ok(());
            }
            tries.after(error).await?;
        }
    }
}

fn newest_first(snapshots: &mut Vec<Listed>) {
    // A newer life of the cluster counts more than a higher index of an older one: the older one may be a dead branch.
    snapshots
        .sort_by_key(|s| std::cmp::Reverse((s.id.incarnation, s.id.index, s.id.term, s.id.nonce)));
    snapshots.dedup_by_key(|s| s.id);
    snapshots.truncate(LISTED_MAX);
}
