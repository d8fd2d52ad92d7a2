//! What a group had recorded about its snapshots, told by its newest readable snapshot.
//!
//! A snapshot holds the records of those before it, with the hashes of their manifests. So the bucket alone says which
//! older objects are what the group verified, which one was replaced, and which is missing. It says nothing about what
//! happened after that snapshot, and the newest one has no record in itself: that is shown as unknown.

use std::collections::BTreeMap;

use confman_snapshot::repository::Listed;
use confman_snapshot::{GroupId, SnapshotError, SnapshotId, SnapshotReader, SnapshotRecord};
use confman_store::keys;
use confman_store::records::SnapshotFactRecord;

use super::reader::StoreReader;
use super::records::Records;

/// One recorded snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// The snapshot.
    pub record: SnapshotRecord,
    /// When it was recorded, in the group's time.
    pub recorded_us: i64,
    /// When it was marked for deletion.
    pub marked_us: Option<i64>,
}

/// What a group had recorded when its newest readable snapshot was taken.
#[derive(Debug)]
pub struct Facts {
    /// The snapshot that says it.
    pub told_by: SnapshotReader,
    /// The recorded snapshots.
    pub recorded: BTreeMap<SnapshotId, Fact>,
    /// Newer objects that could not be read, and why.
    pub unreadable: Vec<(Listed, SnapshotError)>,
}

impl StoreReader {
    /// What the group had recorded; none when no snapshot of it can be read. `listed` is newest first.
    ///
    /// # Errors
    /// The store cannot be asked. A damaged snapshot is no error: the next older one is asked.
    pub async fn facts(
        &self,
        group: &GroupId,
        listed: &[Listed],
    ) -> Result<Option<Facts>, SnapshotError> {
        let mut unreadable = Vec::new();
        for candidate in listed {
            match self.facts_of(group, &candidate.id).await {
                Ok((told_by, recorded)) => {
                    return Ok(Some(Facts {
                        told_by,
                        recorded,
                        unreadable,
                    }));
                }
                Err(error) if error.is_bad_snapshot() => {
                    unreadable.push((candidate.clone(), error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    async fn facts_of(
        &self,
        group: &GroupId,
        id: &SnapshotId,
    ) -> Result<(SnapshotReader, BTreeMap<SnapshotId, Fact>), SnapshotError> {
        let reader = self.open(group, id).await?;
        let mut records = Records::new(reader.clone());
        let found: Vec<SnapshotFactRecord> = records.all(&[keys::SNAPSHOT]).await?;
        let facts = found.into_iter().filter_map(|fact| {
            let record = fact.record?;
            // Not one that this package could have made: it says nothing.
            record.check().ok().filter(|()| record.group == *group)?;
            let known = Fact {
                record,
                recorded_us: fact.recorded_us,
                marked_us: fact.marked_us,
            };
            Some((known.record.id, known))
        });
        let facts = facts.collect();
        Ok((reader, facts))
    }
}
