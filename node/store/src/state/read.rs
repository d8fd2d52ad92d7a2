//! Reads of entries, namespaces, nodes, snapshots: one short read transaction each.

use bytes::Bytes;
use confman_snapshot::SnapshotRecord;
use prost::Message;
use redb::ReadOnlyTable;

use super::StateHandle;
use super::db::{RECORDS, StateDb, database_error};
use crate::command::Outcome;
use crate::error::StoreError;
use crate::keys;
use crate::membership::Registry;
use crate::records::{
    BlobRef, ClusterRecord, EntryHead, EntryRecord, IdempotencyRecord, IncarnationRecord,
    NamespaceRecord, NodeRecord, SnapshotFactRecord, SnapshotFailure, SnapshotTask,
    TombstoneRecord,
};

/// An entry with its name.
#[derive(Debug, Clone, PartialEq)]
pub struct EntryItem {
    /// The namespace.
    pub namespace: String,
    /// The key in it.
    pub key: String,
    /// The entry.
    pub record: EntryRecord,
}

impl EntryItem {
    /// The entry less its value.
    pub fn head(&self) -> EntryHead {
        self.record.head.clone().unwrap_or_default()
    }
}

/// A namespace with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceItem {
    /// The namespace.
    pub path: String,
    /// What is known of it.
    pub record: NamespaceRecord,
}

/// A snapshot that the group knows of.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotFact {
    /// The snapshot.
    pub record: SnapshotRecord,
    /// When it was recorded, in the group's time.
    pub recorded_us: i64,
    /// When it was marked for deletion.
    pub marked_us: Option<i64>,
}

/// What a command with an idempotency key did.
#[derive(Debug, Clone, PartialEq)]
pub struct IdempotencyAnswer {
    /// What the key stands for.
    pub fingerprint: Bytes,
    /// What was answered, with the position of the command in `replayed_from`.
    pub outcome: Outcome,
}

/// One read transaction.
pub(crate) struct Reader {
    path: std::path::PathBuf,
    table: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl Reader {
    pub(crate) fn new(database: &StateDb) -> Result<Self, StoreError> {
        let path = database.path().to_owned();
        let tx = database.read()?;
        let table = tx
            .open_table(RECORDS)
            .map_err(database_error("read", &path))?;
        Ok(Self { path, table })
    }

    /// The value of a record as bytes.
    pub(crate) fn bytes(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self
            .table
            .get(key)
            .map_err(database_error("read", &self.path))?;
        Ok(value.map(|v| Bytes::copy_from_slice(v.value())))
    }

    /// A record.
    pub(crate) fn record<M: Message + Default>(&self, key: &[u8]) -> Result<Option<M>, StoreError> {
        self.bytes(key)?
            .map(|bytes| self.decode(key, bytes))
            .transpose()
    }

    pub(crate) fn decode<M: Message + Default>(
        &self,
        key: &[u8],
        bytes: Bytes,
    ) -> Result<M, StoreError> {
        M::decode(bytes).map_err(|e| StoreError::Damaged {
            path: self.path.clone(),
            detail: format!("record {}: {e}", hex::encode(&key[..key.len().min(64)])),
            hint: "run `drtool set-aside` on the data directory and start the node: it rejoins from the other nodes",
        })
    }

    /// Calls `visit` with the records from `from` on that begin with `prefix`, until it says stop.
    pub(crate) fn scan(
        &self,
        prefix: &[u8],
        from: Option<Vec<u8>>,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let start = from.unwrap_or_else(|| prefix.to_vec());
        let range = self
            .table
            .range::<&[u8]>(start.as_slice()..)
            .map_err(database_error("read", &self.path))?;
        for item in range {
            let (key, value) = item.map_err(database_error("read", &self.path))?;
            if !key.value().starts_with(prefix) || !visit(key.value(), value.value())? {
                break;
            }
        }
        Ok(())
    }

    /// As [`Reader::scan`], from the last before `before` back.
    pub(crate) fn scan_back(
        &self,
        prefix: &[u8],
        before: Option<Vec<u8>>,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let end = before
            .or_else(|| keys::after_prefix(prefix))
            .unwrap_or_default();
        let range = self
            .table
            .range::<&[u8]>(prefix..end.as_slice())
            .map_err(database_error("read", &self.path))?;
        for item in range.rev() {
            let (key, value) = item.map_err(database_error("read", &self.path))?;
            if !visit(key.value(), value.value())? {
                break;
            }
        }
        Ok(())
    }

    /// All records of a kind.
    pub(crate) fn all<M: Message + Default>(&self, prefix: &[u8]) -> Result<Vec<M>, StoreError> {
        let mut all = Vec::new();
        self.scan(prefix, None, |key, value| {
            all.push(self.decode(key, Bytes::copy_from_slice(value))?);
            Ok(true)
        })?;
        Ok(all)
    }

    /// The snapshot with the highest position.
    pub(crate) fn newest_snapshot(&self) -> Result<Option<SnapshotFactRecord>, StoreError> {
        let mut all: Vec<SnapshotFactRecord> = self.all(&[keys::SNAPSHOT])?;
        all.retain(|fact| fact.record.is_some() && fact.marked_us.is_none());
        Ok(all
            .into_iter()
            .max_by_key(|fact| fact.record.as_ref().map(|r| (r.position, r.id))))
    }
}

fn utf8_error(key: &[u8]) -> StoreError {
    StoreError::Internal(format!(
        "record {} has no name",
        hex::encode(&key[..key.len().min(64)])
    ))
}

impl StateHandle {
    /// An entry.
    ///
    /// # Errors
    /// When the database cannot be read; so for all methods below.
    pub fn get_entry(&self, namespace: &str, key: &str) -> Result<Option<EntryRecord>, StoreError> {
        self.reader()?.record(&keys::entry(namespace, key))
    }

    /// What stays of a deleted entry.
    pub fn get_tombstone(
        &self,
        namespace: &str,
        key: &str,
    ) -> Result<Option<TombstoneRecord>, StoreError> {
        self.reader()?.record(&keys::tombstone(namespace, key))
    }

    /// One part of a value that is not inline. `None` when the value was replaced more than a minute of the group's
    /// time ago: read the entry again.
    pub fn read_part(&self, blob: &BlobRef, part: u32) -> Result<Option<Bytes>, StoreError> {
        self.reader()?.bytes(&keys::part(&blob.id, part))
    }

    /// Entries of a namespace, by key, from the first after `after` on.
    pub fn list_entries(
        &self,
        namespace: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<EntryItem>, StoreError> {
        let reader = self.reader()?;
        let mut items = Vec::new();
        // The smallest key that is greater than `after` ends in a zero byte.
        let from = after.map(|key| [keys::entry(namespace, key), vec![0]].concat());
        reader.scan(&keys::entries_of(namespace), from, |key, value| {
            if items.len() >= limit {
                return Ok(false);
            }
            let (namespace, name) = keys::parse_entry(key).ok_or_else(|| utf8_error(key))?;
            let record = reader.decode(key, Bytes::copy_from_slice(value))?;
            items.push(EntryItem {
                namespace: namespace.to_owned(),
                key: name.to_owned(),
                record,
            });
            Ok(true)
        })?;
        Ok(items)
    }

    /// A namespace.
    pub fn get_namespace(&self, path: &str) -> Result<Option<NamespaceRecord>, StoreError> {
        self.reader()?.record(&keys::namespace(path))
    }

    /// Namespaces in the order of their bytes, from the first after `after` on; with `prefix` only that namespace
    /// (before all others) and those below it.
    pub fn list_namespaces(
        &self,
        prefix: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<NamespaceItem>, StoreError> {
        let reader = self.reader()?;
        let mut items: Vec<NamespaceItem> = Vec::new();
        if let Some(root) = prefix
            && after.is_none()
            && limit > 0
            && let Some(record) = reader.record(&keys::namespace(root))?
        {
            items.push(NamespaceItem {
                path: root.to_owned(),
                record,
            });
        }
        let scope = prefix.map_or_else(|| vec![keys::NAMESPACE], keys::namespaces_below);
        let from = after
            .map(|path| [keys::namespace(path), vec![0]].concat())
            .map(|from| from.max(scope.clone()));
        reader.scan(&scope, from, |key, value| {
            if items.len() >= limit {
                return Ok(false);
            }
            let path = keys::parse_namespace(key).ok_or_else(|| utf8_error(key))?;
            items.push(NamespaceItem {
                path: path.to_owned(),
                record: reader.decode(key, Bytes::copy_from_slice(value))?,
            });
            Ok(true)
        })?;
        Ok(items)
    }

    /// The names of the namespaces directly below one, from the first after `after` on (a whole path).
    pub fn list_children(
        &self,
        path: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<NamespaceItem>, StoreError> {
        let reader = self.reader()?;
        let scope = keys::namespaces_below(path);
        let mut items: Vec<NamespaceItem> = Vec::new();
        let mut from = after
            .map(|path| [keys::namespace(path), vec![0]].concat())
            .map(|from| from.max(scope.clone()));
        while items.len() < limit {
            let mut found: Option<NamespaceItem> = None;
            reader.scan(&scope, from.take(), |key, value| {
                let path = keys::parse_namespace(key).ok_or_else(|| utf8_error(key))?;
                if key[scope.len()..].contains(&b'/') {
                    return Ok(true);
                }
                found = Some(NamespaceItem {
                    path: path.to_owned(),
                    record: reader.decode(key, Bytes::copy_from_slice(value))?,
                });
                Ok(false)
            })?;
            let Some(item) = found else { break };
            from = Some([keys::namespace(&item.path), vec![0]].concat());
            items.push(item);
        }
        Ok(items)
    }

    /// How many keys a namespace holds, those of namespaces below it not counted.
    pub fn count_keys(&self, namespace: &str) -> Result<u64, StoreError> {
        Ok(self
            .get_namespace(namespace)?
            .map_or(0, |record| record.keys))
    }

    /// The snapshots that the group knows of, newest position first.
    pub fn snapshots(&self) -> Result<Vec<SnapshotFact>, StoreError> {
        let all: Vec<SnapshotFactRecord> = self.reader()?.all(&[keys::SNAPSHOT])?;
        let mut facts: Vec<SnapshotFact> = all
            .into_iter()
            .filter_map(|fact| {
                let record = fact.record?;
                Some(SnapshotFact {
                    record,
                    recorded_us: fact.recorded_us,
                    marked_us: fact.marked_us,
                })
            })
            .collect();
        facts.sort_by_key(|fact| std::cmp::Reverse((fact.record.position, fact.record.id)));
        Ok(facts)
    }

    /// Group `__meta/0`: all nodes that ever were, by id.
    pub fn nodes(&self) -> Result<Vec<NodeRecord>, StoreError> {
        self.reader()?.all(&[keys::NODE])
    }

    /// Group `__meta/0`: all that is said about members, at one position.
    pub fn registry(&self) -> Result<Registry, StoreError> {
        let reader = self.reader()?;
        Ok(Registry {
            nodes: reader.all(&[keys::NODE])?,
            expected: reader.all(&[keys::EXPECTED])?,
            change: reader.record(&keys::change())?,
        })
    }

    /// Group `__meta/0`: one node.
    pub fn node(&self, id: u64) -> Result<Option<NodeRecord>, StoreError> {
        self.reader()?.record(&keys::node(id))
    }

    /// Group `__meta/0`: the cluster, once it is born.
    pub fn cluster(&self) -> Result<Option<ClusterRecord>, StoreError> {
        self.reader()?.record(&keys::cluster())
    }

    /// The life of the cluster that this group is in; none in the first.
    pub fn incarnation(&self) -> Result<Option<IncarnationRecord>, StoreError> {
        self.reader()?.record(&keys::incarnation())
    }

    /// Group `__meta/0`: the snapshot tasks that are not finished.
    pub fn snapshot_tasks(&self) -> Result<Vec<SnapshotTask>, StoreError> {
        self.reader()?.all(&[keys::TASK])
    }

    /// Group `__meta/0`: how the last snapshot task of each group failed, where it did.
    pub fn snapshot_failures(&self) -> Result<Vec<SnapshotFailure>, StoreError> {
        self.reader()?.all(&[keys::FAILURE])
    }

    /// What a command with this idempotency key did, if it is still remembered.
    pub fn idempotency(
        &self,
        actor: &str,
        key: &str,
    ) -> Result<Option<IdempotencyAnswer>, StoreError> {
        let record: Option<IdempotencyRecord> =
            self.reader()?.record(&keys::idempotency(actor, key))?;
        Ok(record.map(|record| IdempotencyAnswer {
            fingerprint: record.fingerprint,
            outcome: Outcome {
                replayed_from: record.position,
                ..record.outcome.unwrap_or_default()
            },
        }))
    }
}
