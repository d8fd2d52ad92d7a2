//! The restored state against the snapshots: every record on the disk read back and hashed, and a sample of values as a client
//! gets them from the booted node, against the same values read out of the snapshot in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use confman_cli::failure::Failure;
use confman_client::{Page, ReadMode};
use confman_snapshot::{GroupId, SnapshotError, SnapshotId};
use confman_store::keys;
use confman_store::offline::OfflineNode;
use confman_store::records::{EntryRecord, NamespaceRecord};
use rand::seq::IndexedRandom as _;
use serde::Serialize;

use super::node::Node;
use crate::codes;
use crate::finding::{Finding, Severity};
use crate::store::errors;
use crate::store::reader::StoreReader;
use crate::store::records::{Records, decode};
use crate::store::values::ValuePieces;

/// Values are taken from as many chunks at most, since each is fetched whole.
const CHUNKS_MAX: usize = 8;
/// A value is compared in memory; nodes take none that is longer.
const VALUE_BYTES_MAX: usize = 100 << 20;
/// As many namespaces are counted over HTTP; of more it is not said.
const NAMESPACES_MAX: u64 = 50_000;
const PAGE: u32 = 1000;

/// What lies on the disk.
#[derive(Debug, Default)]
pub(super) struct OnDisk {
    /// The hash of all records of each group, taken anew; none where not all could be read.
    pub(super) hashes: BTreeMap<String, Option<String>>,
    /// How many records of each kind there are, in all groups.
    pub(super) kinds: BTreeMap<&'static str, u64>,
    /// What does not belong together.
    pub(super) findings: Vec<Finding>,
}

/// Reads every record of the restored directory.
///
/// # Errors
/// There is no such directory.
pub(super) fn read_back(dir: &Path) -> Result<OnDisk, Failure> {
    let node = OfflineNode::open(dir).map_err(|e| codes::usage("DIR_UNREADABLE", e.to_string()))?;
    let mut read = OnDisk::default();
    let wrong = |finding: &Finding| finding.severity == Severity::Error;
    let own = node.all_findings().map(crate::stopped::findings::of);
    read.findings.extend(own.filter(wrong));
    for group in &node.groups {
        let records = group.check_records(node.owner(), |_| {});
        let hash = records.as_ref().and_then(|r| r.hash);
        let name = group.group.to_string();
        read.hashes.insert(name, hash.map(|hash| hash.to_string()));
        let Some(records) = records else { continue };
        for (kind, count) in records.kinds {
            *read.kinds.entry(kind).or_default() += count;
        }
        let told = records.findings.iter().map(crate::stopped::findings::of);
        read.findings.extend(told.filter(wrong));
    }
    Ok(read)
}

/// What was read from the booted node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReadOver {
    /// Values that were compared byte for byte.
    pub(crate) values: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Namespaces whose number of keys was compared.
    pub(crate) namespaces: u64,
    /// How many namespaces the node lists; none when there are too many to list.
    pub(crate) namespaces_listed: Option<u64>,
}

/// One entry of a snapshot.
struct Sampled {
    namespace: String,
    key: String,
    entry: EntryRecord,
}

/// Compares a sample with the booted node. `done` is called after the first value.
///
/// # Errors
/// The store cannot be read, or what is there is damaged.
pub(super) async fn read_over(
    node: &Node,
    store: &StoreReader,
    snapshots: &[(GroupId, SnapshotId)],
    sample: usize,
    mut first: impl FnMut(),
) -> Result<(ReadOver, Vec<Finding>), Failure> {
    let (mut read, mut findings) = (ReadOver::default(), Vec::new());
    let config: Vec<_> = snapshots.iter().filter(|(g, _)| !g.is_meta()).collect();
    let share = sample.div_ceil(config.len().max(1));
    for (group, id) in config {
        let failed = |error: SnapshotError| errors::snapshot(&error);
        let reader = store.open(group, id).await.map_err(failed)?;
        let mut records = Records::new(reader);
        let chosen = choose(&mut records, share).await.map_err(failed)?;
        let namespaces: BTreeSet<String> = chosen.iter().map(|s| s.namespace.clone()).collect();
        for one in chosen {
            compare_value(node, &mut records, one, (&mut read, &mut findings)).await?;
            first();
        }
        for path in namespaces {
            compare_namespace(node, &mut records, &path, (&mut read, &mut findings)).await?;
        }
    }
    Ok((read, findings))
}

/// Some entries out of some chunks, by chance.
async fn choose(records: &mut Records, count: usize) -> Result<Vec<Sampled>, SnapshotError> {
    let of_entries = |chunk: &&confman_snapshot::format::ChunkEntry| {
        chunk.first_key.first() <= Some(&keys::ENTRY)
            && chunk.last_key.first() >= Some(&keys::ENTRY)
    };
    let chunks = records.manifest().chunks.iter().enumerate();
    let places: Vec<usize> = chunks
        .filter(|(_, chunk)| of_entries(chunk))
        .map(|(at, _)| at)
        .collect();
    let chosen: Vec<usize> = places
        .sample(&mut rand::rng(), CHUNKS_MAX.min(count.max(1)))
        .copied()
        .collect();
    let share = count.div_ceil(chosen.len().max(1));
    let mut sampled = Vec::new();
    for at in chosen {
        let chunk = records.chunk(at).await?;
        let entries: Vec<_> = chunk
            .iter()
            .filter(|(key, _)| key.first() == Some(&keys::ENTRY))
            .collect();
        for (key, value) in entries.sample(&mut rand::rng(), share) {
            let Some((namespace, name)) = keys::parse_entry(key) else {
                continue;
            };
            sampled.push(Sampled {
                namespace: namespace.to_owned(),
                key: name.to_owned(),
                entry: decode(records.reader().object(), key, value)?,
            });
        }
    }
    Ok(sampled)
}

async fn compare_value(
    node: &Node,
    records: &mut Records,
    one: Sampled,
    (read, findings): (&mut ReadOver, &mut Vec<Finding>),
) -> Result<(), Failure> {
    let name = format!("{}/{}", one.namespace, one.key);
    let object = records.reader().object().to_owned();
    let version = one.entry.head.as_ref().map(|head| head.version);
    let pieces = ValuePieces::new(&object, &one.namespace, &one.key, one.entry);
    let wanted = pieces.whole(records).await;
    let wanted = wanted.map_err(|error| errors::snapshot(&error))?;
    let asked = node
        .client
        .get_raw(&one.namespace, &one.key, ReadMode::Linearizable)
        .await;
    let found = match asked {
        Ok(answered) => {
            let found_version = answered.value.version;
            let body = answered.value.body.bytes(VALUE_BYTES_MAX).await;
            body.map(|bytes| (found_version, bytes))
        }
        Err(error) => Err(error),
    };
    read.values += 1;
    read.bytes += wanted.len() as u64;
    let wrong = match found {
        Ok((found, bytes)) if bytes == wanted && found == version => return Ok(()),
        Ok((found, bytes)) => format!(
            "{name}: the node has {}, the snapshot has {}{}",
            told(found, bytes.len()),
            told(version, wanted.len()),
            if bytes.len() == wanted.len() && found == version {
                ", and the bytes are others"
            } else {
                ""
            }
        ),
        Err(error) => format!("{name}: {error}"),
    };
    findings.push(differs(wrong));
    Ok(())
}

fn told(version: Option<u64>, bytes: usize) -> String {
    match version {
        Some(version) => format!("version {version} of {bytes} bytes"),
        None => format!("{bytes} bytes of no version"),
    }
}

async fn compare_namespace(
    node: &Node,
    records: &mut Records,
    path: &str,
    (read, findings): (&mut ReadOver, &mut Vec<Finding>),
) -> Result<(), Failure> {
    let wanted: Option<NamespaceRecord> = records
        .record(&keys::namespace(path))
        .await
        .map_err(|error| errors::snapshot(&error))?;
    let wanted = wanted.map(|record| record.keys);
    let asked = node
        .client
        .get_namespace(path, ReadMode::Linearizable)
        .await;
    read.namespaces += 1;
    match asked {
        Ok(answered) if answered.value.keys == wanted => {}
        Ok(answered) => findings.push(differs(format!(
            "namespace {path}: the node counts {} keys, the snapshot {}",
            counted(answered.value.keys),
            counted(wanted)
        ))),
        Err(error) => findings.push(differs(format!("namespace {path}: {error}"))),
    }
    Ok(())
}

fn counted(keys: Option<u64>) -> String {
    keys.map_or_else(|| "no".to_owned(), |keys| keys.to_string())
}

/// Counts the namespaces that the node lists, when they are not too many.
pub(super) async fn count_namespaces(
    node: &Node,
    on_disk: u64,
    findings: &mut Vec<Finding>,
) -> Option<u64> {
    if on_disk > NAMESPACES_MAX {
        return None;
    }
    let (mut count, mut cursor) = (0, None);
    loop {
        let page = Page {
            limit: Some(PAGE),
            cursor,
        };
        let listed = node
            .client
            .list_namespaces(None, &page, ReadMode::Linearizable)
            .await;
        match listed {
            Ok(answered) => {
                count += answered.value.items.len() as u64;
                cursor = answered.value.next_cursor;
            }
            Err(error) => {
                findings.push(differs(format!("list the namespaces: {error}")));
                return None;
            }
        }
        if cursor.is_none() {
            break;
        }
    }
    if count != on_disk {
        findings.push(differs(format!(
            "the node lists {count} namespaces, the restored state has {on_disk}"
        )));
    }
    Some(count)
}

fn differs(what: String) -> Finding {
    Finding::new(
        Severity::Error,
        "DRILL_VALUE_DIFFERS",
        "the booted copy",
        what,
    )
}
