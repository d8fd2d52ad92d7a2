//! What the store tells about a group's snapshots: which are there, which were recorded, marked, pinned, referred to.

use std::collections::BTreeMap;

use confman_cli::failure::Failure;
use confman_snapshot::paths::NoteKind;
use confman_snapshot::repository::Listed;
use confman_snapshot::retention::{Holds, SnapshotFact};
use confman_snapshot::{GroupId, Repository, SnapshotId, SnapshotRecord, paths};
use futures::{StreamExt as _, TryStreamExt as _};

use super::orders::Orders;
use crate::store::errors;
use crate::store::facts::Facts;
use crate::store::reader::StoreReader;

/// Manifests that are read side by side.
const OPENED_AT_ONCE: usize = 8;

/// What is known of one group.
#[derive(Debug)]
pub(super) struct View {
    /// The group.
    pub(super) group: GroupId,
    /// Its objects, newest first.
    pub(super) listed: Vec<Listed>,
    /// Those of them that count as generations: recorded, or the newest that can be read.
    pub(super) facts: Vec<SnapshotFact>,
    /// Those that cannot be read, and why.
    pub(super) unreadable: BTreeMap<SnapshotId, String>,
    /// What stays whatever its age.
    pub(super) holds: Holds,
    /// When a tool marked what is marked, microseconds since 1970 UTC.
    pub(super) tool_marks: BTreeMap<SnapshotId, i64>,
    /// The cluster that the newest readable snapshot is of.
    pub(super) cluster_uuid: Option<String>,
}

/// Looks at one group, or at all that have snapshots.
pub(super) async fn look(
    repository: &Repository,
    group: Option<&GroupId>,
) -> Result<Vec<View>, Failure> {
    let store = StoreReader::new(repository.clone());
    let orders = Orders::read(&store).await?;
    let mut views = Vec::new();
    for (group, listed) in store.groups(group).await? {
        views.push(one(repository, &store, group, listed, &orders).await?);
    }
    Ok(views)
}

async fn one(
    repository: &Repository,
    store: &StoreReader,
    group: GroupId,
    listed: Vec<Listed>,
    orders: &Orders,
) -> Result<View, Failure> {
    let told = |error| errors::store(&error);
    let facts = store.facts(&group, &listed).await;
    let facts = facts.map_err(|error| errors::snapshot(&error))?;
    let mut holds = Holds::new();
    for listed in &listed {
        if let Some(why) = orders.hold(&group, &listed.id) {
            holds.insert(listed.id, why);
        }
    }
    let mut unreadable = BTreeMap::new();
    for (listed, references) in references(store, &group, &listed).await? {
        match references {
            Ok(objects) => {
                for (_, id) in objects.iter().filter_map(|o| paths::parse_snapshot(o)) {
                    holds.insert(id, format!("snapshot {} refers to it", listed.id));
                }
            }
            Err(problem) => {
                unreadable.insert(listed.id, problem);
            }
        }
    }
    for id in repository
        .list_notes(NoteKind::Pin, &group)
        .await
        .map_err(told)?
    {
        holds.insert(id, pinned(repository, &group, &id).await?);
    }
    let mut tool_marks = BTreeMap::new();
    for id in repository
        .list_notes(NoteKind::Mark, &group)
        .await
        .map_err(told)?
    {
        // One that cannot be read, or is gone since, counts as none: it is made anew.
        if let Ok(Some(note)) = repository.read_note(NoteKind::Mark, &group, &id).await {
            tool_marks.insert(id, note.created_us);
        }
    }
    let cluster_uuid = facts
        .as_ref()
        .map(|facts| facts.told_by.manifest().cluster.uuid.clone());
    Ok(View {
        facts: generations(facts.as_ref(), &listed, &unreadable, &tool_marks),
        group,
        listed,
        unreadable,
        holds,
        tool_marks,
        cluster_uuid,
    })
}

/// Which other objects each refers to, or why it cannot be read.
async fn references(
    store: &StoreReader,
    group: &GroupId,
    listed: &[Listed],
) -> Result<Vec<(Listed, Result<Vec<String>, String>)>, Failure> {
    futures::stream::iter(listed.to_vec())
        .map(|listed| async move {
            let read = match store.open(group, &listed.id).await {
                Ok(reader) => {
                    let objects = reader.manifest().referenced_objects();
                    Ok(objects.into_iter().map(str::to_owned).collect())
                }
                Err(error) if error.is_bad_snapshot() => Err(errors::split(&error.to_string()).0),
                Err(error) => return Err(errors::snapshot(&error)),
            };
            Ok((listed, read))
        })
        .buffered(OPENED_AT_ONCE)
        .try_collect()
        .await
}

/// What a pin says; one that cannot be read is a pin all the same.
async fn pinned(
    repository: &Repository,
    group: &GroupId,
    id: &SnapshotId,
) -> Result<String, Failure> {
    match repository.read_note(NoteKind::Pin, group, id).await {
        Ok(Some(note)) if note.reason.is_empty() => Ok(format!("pinned by {}", note.created_by)),
        Ok(Some(note)) => Ok(format!("pinned by {}: {}", note.created_by, note.reason)),
        Ok(None) => Ok("pinned".to_owned()),
        Err(error) if error.kind.is_transient() => Err(errors::store(&error)),
        Err(_) => Ok("pinned (the pin itself cannot be read)".to_owned()),
    }
}

/// What counts as a generation: there, readable, and recorded by the group or the newest that tells of the others.
fn generations(
    facts: Option<&Facts>,
    listed: &[Listed],
    unreadable: &BTreeMap<SnapshotId, String>,
    tool_marks: &BTreeMap<SnapshotId, i64>,
) -> Vec<SnapshotFact> {
    let Some(facts) = facts else {
        return Vec::new();
    };
    let told_by = facts.told_by.manifest().id;
    let mark = |id: &SnapshotId, theirs: Option<i64>| match (theirs, tool_marks.get(id)) {
        (Some(theirs), Some(ours)) => Some(theirs.min(*ours)),
        (theirs, ours) => theirs.or(ours.copied()),
    };
    listed
        .iter()
        .filter(|listed| !unreadable.contains_key(&listed.id))
        .filter_map(|listed| match facts.recorded.get(&listed.id) {
            Some(fact) => Some(SnapshotFact {
                record: fact.record.clone(),
                marked_us: mark(&listed.id, fact.marked_us),
            }),
            // The newest has no record in itself; the judgement needs its name only.
            None if listed.id == told_by => Some(SnapshotFact {
                record: SnapshotRecord {
                    id: listed.id,
                    ..SnapshotRecord::default()
                },
                marked_us: None,
            }),
            None => None,
        })
        .collect()
}
