//! Notes about snapshots, beside them in the store: pins, which retention honours on every node, and marks, by which
//! retention without a cluster keeps its two steps.
//!
//! A note counts by its name: one whose content cannot be read is a note all the same.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Repository;
use super::cluster::rfc3339;
use super::create::Fingerprint;
use crate::error::{Kind, StoreError};
use crate::id::SnapshotId;
use crate::model::GroupId;
use crate::paths::{self, NoteKind};
use crate::source::ChunkSource;

/// Largest note, in bytes.
const OBJECT_BYTES_MAX: u64 = 64 << 10;
/// As many notes of one group are kept in memory.
const LISTED_MAX: usize = 100_000;
const VERSION: u32 = 1;

/// What is noted about a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    /// Version of its format: 1.
    pub version: u32,
    /// The group.
    pub group: GroupId,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// When it was noted, microseconds since 1970 UTC; RFC 3339 in the object.
    #[serde(rename = "createdAt", with = "rfc3339")]
    pub created_us: i64,
    /// Who noted it.
    pub created_by: String,
    /// Why.
    pub reason: String,
}

impl Note {
    /// A note of now.
    pub fn new(
        group: GroupId,
        snapshot: SnapshotId,
        created_us: i64,
        created_by: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            version: VERSION,
            group,
            snapshot,
            created_us,
            created_by: created_by.into(),
            reason: reason.into(),
        }
    }
}

impl Repository {
    /// Writes a note; one that is there already stays as it is. Gives the one that is there then.
    pub async fn put_note(&self, kind: NoteKind, note: &Note) -> Result<Note, StoreError> {
        let object = paths::note(kind, &note.group, &note.snapshot);
        let bug = |detail: String| self.error(Kind::Bug, "put", &object, detail, "");
        let content = Bytes::from(serde_json::to_vec_pretty(note).map_err(|e| bug(e.to_string()))?);
        if content.len() as u64 > OBJECT_BYTES_MAX {
            let detail = format!("{} bytes, at most {OBJECT_BYTES_MAX}", content.len());
            let hint = "give a shorter reason";
            return Err(self.error(Kind::Configuration, "put", &object, detail, hint));
        }
        let fingerprint = Fingerprint {
            size: content.len() as u64,
            tail: content.clone(),
        };
        match self
            .create(&object, content, &fingerprint, self.small_limits())
            .await
        {
            Ok(()) => Ok(note.clone()),
            Err(error) if error.kind == Kind::Conflict => {
                let there = self.read_note(kind, &note.group, &note.snapshot).await?;
                // Removed by somebody in between: the next try writes it.
                there.ok_or(StoreError {
                    kind: Kind::Retry,
                    ..error
                })
            }
            Err(error) => Err(error),
        }
    }

    /// The snapshots of a group that have such a note.
    pub async fn list_notes(
        &self,
        kind: NoteKind,
        group: &GroupId,
    ) -> Result<BTreeSet<SnapshotId>, StoreError> {
        let mut found = BTreeSet::new();
        let mut too_many = false;
        self.list(&paths::notes(kind, group), |object, _| {
            let known = paths::parse_note(kind, object).filter(|(theirs, _)| theirs == group);
            if let Some((_, id)) = known {
                too_many |= found.len() >= LISTED_MAX;
                if !too_many {
                    found.insert(id);
                }
            }
        })
        .await?;
        if too_many {
            // One that was left out would be taken for absent.
            let detail = format!("{group} has more than {LISTED_MAX} notes");
            return Err(self.error(
                Kind::Damaged,
                "list",
                &paths::notes(kind, group),
                detail,
                "",
            ));
        }
        Ok(found)
    }

    /// The groups that have snapshots with such a note.
    pub async fn list_note_groups(&self, kind: NoteKind) -> Result<Vec<GroupId>, StoreError> {
        let mut found = BTreeSet::new();
        self.list(paths::notes_of_all(kind), |object, _| {
            if let Some((group, _)) = paths::parse_note(kind, object)
                && found.len() < LISTED_MAX
            {
                found.insert(group);
            }
        })
        .await?;
        Ok(found.into_iter().collect())
    }

    /// Whether a snapshot has such a note: asked by name, because a listing may be behind.
    pub async fn has_note(
        &self,
        kind: NoteKind,
        group: &GroupId,
        id: &SnapshotId,
    ) -> Result<bool, StoreError> {
        match self.size(&paths::note(kind, group, id)).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What a note says; none if there is none. [`Kind::Damaged`] when it is there and cannot be read.
    pub async fn read_note(
        &self,
        kind: NoteKind,
        group: &GroupId,
        id: &SnapshotId,
    ) -> Result<Option<Note>, StoreError> {
        let object = paths::note(kind, group, id);
        let bytes = match self.read_small(&object, OBJECT_BYTES_MAX).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind == Kind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let damaged = |detail: String| {
            let hint = "it counts all the same; remove it and write it anew";
            self.error(Kind::Damaged, "get", &object, detail, hint)
        };
        let note: Note = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if note.group != *group || note.snapshot != *id {
            return Err(damaged(format!(
                "it is about {} {}, which is not its name",
                note.group, note.snapshot
            )));
        }
        Ok(Some(note))
    }

    /// Removes a note; one that is not there is removed.
    pub async fn delete_note(
        &self,
        kind: NoteKind,
        group: &GroupId,
        id: &SnapshotId,
    ) -> Result<(), StoreError> {
        self.delete(&paths::note(kind, group, id)).await
    }
}
