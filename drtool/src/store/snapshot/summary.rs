//! A snapshot in a few lines, the same in every command.

use confman_client::wire::Time;
use confman_snapshot::{Codec, GroupId, Manifest, SnapshotId, SnapshotReader};
use serde::Serialize;

/// What a snapshot's manifest says of it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The group.
    pub group: GroupId,
    /// Its name.
    pub id: SnapshotId,
    /// Its object relative to the store's prefix.
    pub object: String,
    /// The cluster that wrote it.
    pub cluster_uuid: String,
    /// The life of the cluster that wrote it.
    pub incarnation: u64,
    /// The index of the last entry in it.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// When it was made, by the builder's clock.
    pub created_at: Time,
    /// The time of the last entry in it.
    pub last_change_at: Time,
    /// How many records.
    pub records: u64,
    /// Size of its own object.
    pub object_bytes: u64,
    /// Bytes of all records before compression.
    pub raw_bytes: u64,
    /// Bytes of all chunks as stored, here and in other objects.
    pub stored_bytes: u64,
    /// How many chunks.
    pub chunks: usize,
    /// How the chunks are compressed; several when they differ.
    pub codecs: Vec<String>,
    /// Other objects that hold chunks of it.
    pub references: Vec<String>,
    /// Digest of the state hash.
    pub state_hash: String,
    /// BLAKE3 of the manifest.
    pub manifest_hash: String,
    /// The voters at that position, by name where known.
    pub voters: Vec<String>,
}

impl Summary {
    /// The summary of an opened snapshot.
    #[must_use]
    pub fn new(reader: &SnapshotReader) -> Self {
        let manifest = reader.manifest();
        Self {
            group: manifest.group.clone(),
            id: manifest.id,
            object: reader.object().to_owned(),
            cluster_uuid: manifest.cluster.uuid.clone(),
            incarnation: manifest.cluster.incarnation,
            index: manifest.position.index,
            term: manifest.position.term,
            created_at: Time::from_us(manifest.created_us),
            last_change_at: Time::from_us(manifest.last_time_us),
            records: manifest.records,
            object_bytes: reader.object_bytes(),
            raw_bytes: manifest.raw_bytes,
            stored_bytes: manifest.stored_bytes,
            chunks: manifest.chunks.len(),
            codecs: codecs(manifest),
            references: manifest
                .referenced_objects()
                .into_iter()
                .map(str::to_owned)
                .collect(),
            state_hash: manifest.state_digest().to_string(),
            manifest_hash: reader.manifest_blake3().to_string(),
            voters: voters(manifest),
        }
    }
}

fn codecs(manifest: &Manifest) -> Vec<String> {
    let mut names: Vec<String> = manifest
        .chunks
        .iter()
        .map(|chunk| match Codec::try_from(chunk.codec) {
            Ok(codec) => codec.name().to_owned(),
            Err(_) => format!("codec {}", chunk.codec),
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

fn voters(manifest: &Manifest) -> Vec<String> {
    let membership = manifest.membership();
    let mut ids: Vec<u64> = membership.voters.iter().flatten().copied().collect();
    ids.sort_unstable();
    ids.dedup();
    ids.into_iter()
        .map(|id| match membership.nodes.get(&id) {
            Some(node) if !node.name.is_empty() => format!("{} (id {id})", node.name),
            _ => format!("id {id}"),
        })
        .collect()
}
