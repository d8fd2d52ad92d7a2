//! Reads of the audit history, newest first.

use bytes::Bytes;
use confman_snapshot::model::GroupId;

use super::StateHandle;
use super::read::Reader;
use crate::error::StoreError;
use crate::keys;
use crate::records::{AuditRecord, AuditRef, EntryRecord, TombstoneRecord};

/// Records that one call looks at, at most, when it has to search.
const SEARCH_MAX: usize = 20_000;

/// What begins the actions that tell of snapshots themselves: bookkeeping, and nothing that users wrote.
const OF_SNAPSHOTS: &str = "snapshot.";

/// Which changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Of this namespace only.
    pub namespace: Option<String>,
    /// With `namespace`: of the namespaces below it, too.
    pub recursive: bool,
    /// Of this key only (in any namespace when that is not given).
    pub key: Option<String>,
}

impl AuditFilter {
    fn admits(&self, record: &AuditRecord) -> bool {
        let namespace = match &self.namespace {
            None => true,
            Some(root) if record.namespace == *root => true,
            Some(root) => {
                self.recursive
                    && record
                        .namespace
                        .strip_prefix(root.as_str())
                        .is_some_and(|rest| rest.starts_with('/'))
            }
        };
        namespace && self.key.as_ref().is_none_or(|key| record.key == *key)
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    /// Its name, the same on every replica and never given twice: `{topic}-{partition}.{term}.{index}.{sub}`.
    pub id: String,
    /// Its place: the cursor to go on from.
    pub at: AuditRef,
    /// What happened.
    pub record: AuditRecord,
}

/// A page of changes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AuditPage {
    /// The changes, newest first.
    pub items: Vec<AuditEntry>,
    /// Pass as `before` for the rest; none when there is no rest. A page may hold fewer than were asked for, even
    /// none, and yet have one: a search stops after a bounded number of records.
    pub next: Option<AuditRef>,
}

/// The name of a change.
pub fn audit_id(group: &GroupId, at: AuditRef, record: &AuditRecord) -> String {
    format!(
        "{}-{}.{}.{}.{}",
        group.topic(),
        group.partition(),
        record.term,
        at.index,
        at.sub
    )
}

impl StateHandle {
    /// Changes, newest first, from the first before `before` on.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn list_audit(
        &self,
        filter: &AuditFilter,
        before: Option<AuditRef>,
        limit: usize,
    ) -> Result<AuditPage, StoreError> {
        let reader = self.reader()?;
        match (&filter.namespace, &filter.key) {
            (Some(namespace), Some(key)) if !filter.recursive => {
                self.history(&reader, namespace, key, before, limit)
            }
            (Some(namespace), None) if !filter.recursive => {
                self.of_namespace(&reader, namespace, before, limit)
            }
            _ => self.search(&reader, filter, before, limit),
        }
    }

    /// One change.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn get_audit(&self, at: AuditRef) -> Result<Option<AuditEntry>, StoreError> {
        self.change(&self.reader()?, at)
    }

    /// Whether anything that users see changed after the position of the newest recorded snapshot. What the history tells
    /// of snapshots themselves does not count; while none is recorded, everything is newer.
    ///
    /// Looks at the changes since, newest first, until one counts.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn changed_since_snapshot(&self) -> Result<bool, StoreError> {
        let Some(recorded) = self.stats().last_snapshot else {
            return Ok(true);
        };
        let since = recorded.position.index;
        let reader = self.reader()?;
        let mut changed = false;
        reader.scan_back(&[keys::AUDIT], None, |key, value| {
            if keys::parse_audit(key).is_none_or(|at| at.index <= since) {
                return Ok(false);
            }
            let record: AuditRecord = reader.decode(key, Bytes::copy_from_slice(value))?;
            changed = !record.action.starts_with(OF_SNAPSHOTS);
            Ok(!changed)
        })?;
        Ok(changed)
    }

    /// When the oldest change was made that no recorded snapshot holds, in microseconds by the group's time; none where there is none.
    /// What counts is what counts for [`StateHandle::changed_since_snapshot`]; while no snapshot is recorded, the group's first command does.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn unprotected_since_us(&self) -> Result<Option<i64>, StoreError> {
        let Some(recorded) = self.stats().last_snapshot else {
            return Ok(self.first_time_us());
        };
        let Some(after) = recorded.position.index.checked_add(1) else {
            return Ok(None);
        };
        let from = keys::audit(AuditRef {
            index: after,
            sub: 0,
        });
        let reader = self.reader()?;
        let mut oldest = None;
        reader.scan(&[keys::AUDIT], Some(from), |key, value| {
            let record: AuditRecord = reader.decode(key, Bytes::copy_from_slice(value))?;
            if !record.action.starts_with(OF_SNAPSHOTS) {
                oldest = Some(record.time_us);
            }
            Ok(oldest.is_none())
        })?;
        Ok(oldest)
    }

    fn change(&self, reader: &Reader, at: AuditRef) -> Result<Option<AuditEntry>, StoreError> {
        let record: Option<AuditRecord> = reader.record(&keys::audit(at))?;
        Ok(record.map(|record| AuditEntry {
            id: audit_id(self.group(), at, &record),
            at,
            record,
        }))
    }

    /// The history of one key: each change names the one before.
    fn history(
        &self,
        reader: &Reader,
        namespace: &str,
        key: &str,
        before: Option<AuditRef>,
        limit: usize,
    ) -> Result<AuditPage, StoreError> {
        let of_this_key = |record: &AuditRecord| record.namespace == namespace && record.key == key;
        // The usual cursor is a change of this very key: go on from the one before it.
        let resumed = match before {
            Some(at) => self
                .change(reader, at)?
                .filter(|entry| of_this_key(&entry.record)),
            None => None,
        };
        let mut next = match &resumed {
            Some(entry) => entry.record.previous,
            None => match reader.record::<EntryRecord>(&keys::entry(namespace, key))? {
                Some(entry) => entry.changed,
                None => {
                    let tombstone: Option<TombstoneRecord> =
                        reader.record(&keys::tombstone(namespace, key))?;
                    tombstone.and_then(|t| t.changed)
                }
            },
        };
        let mut page = AuditPage::default();
        while let Some(at) = next {
            if page.items.len() >= limit {
                page.next = page.items.last().map(|entry| entry.at);
                break;
            }
            let Some(entry) = self.change(reader, at)? else {
                break;
            };
            next = entry.record.previous.filter(|previous| *previous < at);
            if before.is_none_or(|before| at < before) {
                page.items.push(entry);
            }
        }
        Ok(page)
    }

    fn of_namespace(
        &self,
        reader: &Reader,
        namespace: &str,
        before: Option<AuditRef>,
        limit: usize,
    ) -> Result<AuditPage, StoreError> {
        let first = keys::audit_by_namespace(namespace, AuditRef::default());
        let prefix = &first[..first.len() - 12];
        let end = before.map(|at| keys::audit_by_namespace(namespace, at));
        let mut places = Vec::new();
        reader.scan_back(prefix, end, |key, _| {
            places.extend(keys::parse_audit_by_namespace(key));
            Ok(places.len() <= limit)
        })?;
        let more = places.len() > limit;
        places.truncate(limit);
        let mut page = AuditPage {
            next: places.last().copied().filter(|_| more),
            ..AuditPage::default()
        };
        for at in places {
            page.items.extend(self.change(reader, at)?);
        }
        Ok(page)
    }

    fn search(
        &self,
        reader: &Reader,
        filter: &AuditFilter,
        before: Option<AuditRef>,
        limit: usize,
    ) -> Result<AuditPage, StoreError> {
        let mut page = AuditPage::default();
        let mut looked_at = 0;
        let mut last = None;
        reader.scan_back(&[keys::AUDIT], before.map(keys::audit), |key, value| {
            if page.items.len() >= limit || looked_at >= SEARCH_MAX {
                page.next = last;
                return Ok(false);
            }
            looked_at += 1;
            let record: AuditRecord = reader.decode(key, Bytes::copy_from_slice(value))?;
            last = keys::parse_audit(key);
            if let Some(at) = last
                && filter.admits(&record)
            {
                page.items.push(AuditEntry {
                    id: audit_id(self.group(), at, &record),
                    at,
                    record,
                });
            }
            Ok(true)
        })?;
        Ok(page)
    }
}
