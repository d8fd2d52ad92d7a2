//! What the store holds: the lives of the cluster, and for each group the best snapshot that is whole. Reads only.

use confman_cli::failure::Failure;
use confman_client::ErrorKind;
use confman_snapshot::repository::{ClusterObject, Listed};
use confman_snapshot::{
    ChunkSource as _, GroupId, Manifest, SnapshotError, SnapshotReader, SnapshotRecord,
};
use serde::{Deserialize, Serialize};

use super::choose::{Choice, Life};
use crate::codes;
use crate::context::Global;
use crate::store::errors;
use crate::store::reader::StoreReader;

/// Chunks read ahead while a snapshot is proven.
const PREFETCH: usize = 2;

/// The lives of one cluster.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Survey {
    pub(super) uuid: String,
    /// Their objects, newest first; what was undone is not among them.
    pub(super) objects: Vec<ClusterObject>,
    /// The numbers of those that were undone.
    pub(super) undone: Vec<u64>,
    /// The highest number ever claimed, also by a recovery that was undone.
    pub(super) highest: u64,
    /// Whether the order of the newest life, if it has one, was reported as carried out.
    pub(super) spent: bool,
}

/// Which cluster owns the prefix, and how its lives began. `named`: the cluster to take where there are several.
pub(super) async fn survey(store: &StoreReader, named: Option<&str>) -> Result<Survey, Failure> {
    let mut objects = store.clusters().await.map_err(|e| errors::store(&e))?;
    let mut uuids: Vec<&str> = objects.iter().map(|o| o.cluster.uuid.as_str()).collect();
    uuids.sort_unstable();
    uuids.dedup();
    let uuid = match (named, uuids.as_slice()) {
        (Some(named), _) => match uuids.iter().find(|uuid| **uuid == named) {
            Some(uuid) => (*uuid).to_owned(),
            None => {
                let there = if uuids.is_empty() {
                    "no cluster".to_owned()
                } else {
                    uuids.join(", ")
                };
                let message = format!("{} has {there}, not cluster {named}", store.url());
                return Err(
                    codes::refuse("NO_CLUSTER", ErrorKind::NotFound, message).with_hint(
                        "check --store and --cluster: this may be another cluster's bucket",
                    ),
                );
            }
        },
        (None, []) => {
            let message = format!("{} has no cluster", store.url());
            return Err(
                codes::refuse("NO_CLUSTER", ErrorKind::NotFound, message).with_hint(
                    "--store takes the URL that the nodes had in CONFMAN_OBJECT_STORE_URL",
                ),
            );
        }
        (None, [only]) => (*only).to_owned(),
        (None, several) => {
            let message = format!(
                "{} has several clusters: {}",
                store.url(),
                several.join(", ")
            );
            return Err(codes::refuse("PREFIX_SHARED", ErrorKind::Refused, message)
                .with_hint("name one with --cluster UUID"));
        }
    };
    objects.retain(|o| o.cluster.uuid == uuid);
    let highest = store.highest_incarnation(&uuid).await;
    let highest = highest.map_err(|e| errors::store(&e))?;
    let spent = match objects.first() {
        Some(newest) if newest.order.is_some() => {
            let done = store.done(&newest.cluster).await;
            done.map_err(|e| errors::store(&e))?.is_some()
        }
        _ => true,
    };
    let undone = store.undone_lives().await.map_err(|e| errors::store(&e))?;
    let undone = undone.iter().filter(|life| life.uuid == uuid);
    let undone = undone.map(|life| life.incarnation).collect();
    Ok(Survey {
        uuid,
        objects,
        undone,
        highest,
        spent,
    })
}

impl Survey {
    /// How the lives began. One whose order cannot be read is an error: what is dead cannot be told then.
    pub(super) fn lives(&self) -> Result<Vec<Life>, Failure> {
        let life = |object: &ClusterObject| {
            let order = object.order().map_err(|error| {
                let message = format!("the object of {}: {error}", object.cluster);
                codes::refuse("SNAPSHOT_DAMAGED", ErrorKind::Damaged, message)
                    .with_hint("use a newer version of drtool, or compare with the other objects under cluster/")
            })?;
            Ok(Life {
                incarnation: object.cluster.incarnation,
                order,
                undone: false,
            })
        };
        let never_was = |incarnation: &u64| Life {
            incarnation: *incarnation,
            order: None,
            undone: true,
        };
        let never_were = self.undone.iter().map(never_was).map(Ok);
        self.objects.iter().map(life).chain(never_were).collect()
    }

    /// The newest life that has an object.
    pub(super) fn newest(&self) -> u64 {
        self.objects.first().map_or(0, |o| o.cluster.incarnation)
    }

    /// The highest term and node id that the objects of the lives speak of.
    pub(super) fn floor(&self) -> (u64, u64) {
        let mut floor = (0, 0);
        for object in &self.objects {
            let begun_by = object.order.as_ref().or(object.recovery.as_ref());
            let number = |name: &str| begun_by.and_then(|by| by.get(name)?.as_u64()).unwrap_or(0);
            floor.0 = floor.0.max(number("term"));
            floor.1 = floor.1.max(number("nextNodeId").saturating_sub(1));
        }
        floor
    }
}

/// A snapshot that was looked at and is not used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Skipped {
    pub(crate) snapshot_id: String,
    pub(crate) index: u64,
    pub(crate) why: String,
}

/// The snapshot that a group is restored to.
#[derive(Debug, Clone)]
pub(super) struct Picked {
    pub(super) reader: SnapshotReader,
    pub(super) record: SnapshotRecord,
    /// Better ones that are not whole.
    pub(super) skipped: Vec<Skipped>,
    /// Whether every byte was read and proven.
    pub(super) data_read: bool,
}

/// How much of a snapshot is proven, and which time it may not go beyond.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demands {
    /// Every byte; otherwise footer, manifest, header and that every object is there.
    pub(super) data: bool,
    /// The last entry in it may not be later, microseconds since 1970 UTC.
    pub(super) at_us: Option<i64>,
}

/// The first of the candidates that is whole; where none is, what was looked at and why not.
pub(super) async fn pick(
    store: &StoreReader,
    group: &GroupId,
    (choice, uuid): (&Choice, &str),
    demands: Demands,
    global: &Global,
) -> Result<Result<Picked, Vec<Skipped>>, Failure> {
    let mut skipped = Vec::new();
    for listed in &choice.candidates {
        match look(store, group, listed, demands, global).await {
            Ok(reader) => {
                let manifest = reader.manifest();
                if manifest.cluster.uuid != uuid {
                    continue;
                }
                if demands.at_us.is_some_and(|at| manifest.last_time_us > at) {
                    continue;
                }
                let record = record_of(&reader);
                return Ok(Ok(Picked {
                    record,
                    reader,
                    skipped,
                    data_read: demands.data,
                }));
            }
            // The store is the reason, and not the snapshot.
            Err(error) if error.is_unreachable() => return Err(errors::snapshot(&error)),
            Err(error) => {
                let why = error.to_string().replace('\n', "; ");
                global.note(format!("{group}: skip {}: {why}", listed.id));
                skipped.push(Skipped {
                    snapshot_id: listed.id.to_string(),
                    index: listed.id.index,
                    why,
                });
            }
        }
    }
    Ok(Err(skipped))
}

async fn look(
    store: &StoreReader,
    group: &GroupId,
    listed: &Listed,
    demands: Demands,
    global: &Global,
) -> Result<SnapshotReader, SnapshotError> {
    let reader = store.open(group, &listed.id).await?;
    // Not the data of one that is too new anyway.
    let fits = demands
        .at_us
        .is_none_or(|at| reader.manifest().last_time_us <= at);
    if fits {
        prove(store, &reader, demands.data, global).await?;
    }
    Ok(reader)
}

/// Proves an opened snapshot: all of its bytes, or that every object it refers to is there.
pub(super) async fn prove(
    store: &StoreReader,
    reader: &SnapshotReader,
    data: bool,
    global: &Global,
) -> Result<(), SnapshotError> {
    let manifest = reader.manifest();
    if !data {
        for object in manifest.referenced_objects() {
            store.size(object).await?;
        }
        return Ok(());
    }
    let chunks = manifest.chunks.len() as u64;
    let bar = global.progress(&format!("read {}", manifest.group), chunks);
    let mut records = reader.records(PREFETCH);
    let ended = loop {
        match records.next_chunk().await {
            Ok(Some(_)) => bar.inc(1),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    bar.finish_and_clear();
    ended
}

/// The record of a snapshot as its own object tells it. Who built it and how long that took stands only in the group.
pub(super) fn record_of(reader: &SnapshotReader) -> SnapshotRecord {
    let manifest: &Manifest = reader.manifest();
    SnapshotRecord {
        id: manifest.id,
        group: manifest.group.clone(),
        cluster_uuid: manifest.cluster.uuid.clone(),
        incarnation: manifest.cluster.incarnation,
        position: manifest.position,
        object: reader.object().to_owned(),
        object_bytes: reader.object_bytes(),
        manifest_blake3: reader.manifest_blake3().as_bytes().to_vec(),
        state_hash: manifest.state_digest().as_bytes().to_vec(),
        records: manifest.records,
        raw_bytes: manifest.raw_bytes,
        created_us: manifest.created_us,
        codec: manifest.chunks.first().map_or(0, |chunk| chunk.codec),
        builder_node: 0,
        took_us: 0,
    }
}
