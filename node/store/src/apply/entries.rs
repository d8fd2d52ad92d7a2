//! Entries: put and delete.

use confman_snapshot::value_hash;

use super::audit::{self, Change};
use super::{Ctx, Tx, blobs, namespaces, refuse_name};
use crate::command::{
    Answer, Condition, Content, Delete, Deleted, INLINE_MAX, Outcome, Precondition, Put,
    RefusalCode, Refused, Written,
};
use crate::error::StoreError;
use crate::keys;
use crate::names::{check_key, check_namespace};
use crate::records::{
    AuditRef, BlobRef, EntryHead, EntryRecord, StoredContent, TombstoneRecord, ValueType,
};

/// What a key holds, or held.
struct Before {
    entry: Option<EntryRecord>,
    version: u64,
    changed: Option<AuditRef>,
}

impl Before {
    fn read(tx: &Tx<'_>, namespace: &str, key: &str) -> Result<Self, StoreError> {
        if let Some(entry) = tx.get::<EntryRecord>(&keys::entry(namespace, key))? {
            let version = entry.head.as_ref().map_or(0, |head| head.version);
            return Ok(Self {
                version,
                changed: entry.changed,
                entry: Some(entry),
            });
        }
        let tombstone = tx
            .get::<TombstoneRecord>(&keys::tombstone(namespace, key))?
            .unwrap_or_default();
        Ok(Self {
            entry: None,
            version: tombstone.version,
            changed: tombstone.changed,
        })
    }

    fn current(&self) -> Option<u64> {
        self.entry.as_ref().map(|_| self.version)
    }

    /// The refusal of a command whose precondition does not hold.
    fn check(
        &self,
        ctx: &Ctx<'_>,
        precondition: Option<&Precondition>,
    ) -> Result<Option<Outcome>, StoreError> {
        let Some(precondition) = precondition else {
            return Ok(None);
        };
        let current = self.current();
        let (holds, wanted) = match precondition.condition {
            None => return Err(ctx.unknown("the precondition")),
            Some(Condition::VersionIs(version)) => {
                (current == Some(version), format!("version {version}"))
            }
            Some(Condition::Exists(_)) => (current.is_some(), "an entry".to_owned()),
            Some(Condition::Absent(_)) => (current.is_none(), "no entry".to_owned()),
        };
        if holds {
            return Ok(None);
        }
        let found = current.map_or_else(
            || "there is none".to_owned(),
            |version| format!("it has version {version}"),
        );
        Ok(Some(Outcome::new(Answer::Refused(Refused {
            code: RefusalCode::PreconditionFailed.into(),
            detail: format!("expected {wanted}, {found}"),
            current_version: current,
        }))))
    }
}

/// The value of a put, checked.
struct Value {
    content: StoredContent,
    size: u64,
    hash: bytes::Bytes,
}

fn value_of(tx: &Tx<'_>, ctx: &Ctx<'_>, put: &Put) -> Result<Result<Value, Outcome>, StoreError> {
    match &put.content {
        None => Err(ctx.unknown("the content")),
        Some(Content::Inline(bytes)) if bytes.len() > INLINE_MAX => {
            let detail = format!(
                "{} bytes inline, the limit is {INLINE_MAX}: stage it in parts",
                bytes.len()
            );
            Ok(Err(Outcome::refused(RefusalCode::TooLarge, detail)))
        }
        Some(Content::Inline(bytes)) => Ok(Ok(Value {
            size: bytes.len() as u64,
            hash: bytes::Bytes::copy_from_slice(&value_hash(bytes)),
            content: StoredContent::Inline(bytes.clone()),
        })),
        Some(Content::Staged(staged)) => Ok(blobs::find_staged(tx, staged)?.map(|blob| Value {
            size: blob.size,
            hash: staged.hash.clone(),
            content: StoredContent::Blob(blob),
        })),
    }
}

fn blob_of(entry: &EntryRecord) -> Option<&BlobRef> {
    match &entry.content {
        Some(StoredContent::Blob(blob)) => Some(blob),
        _ => None,
    }
}

pub(super) fn put(tx: &mut Tx<'_>, ctx: &mut Ctx<'_>, put: &Put) -> Result<Outcome, StoreError> {
    if ValueType::try_from(put.value_type).is_err() {
        return Err(ctx.unknown("the type of the value"));
    }
    if let Err(error) = check_namespace(&put.namespace).and_then(|()| check_key(&put.key)) {
        return Ok(refuse_name(&error));
    }
    let before = Before::read(tx, &put.namespace, &put.key)?;
    if let Some(refusal) = before.check(ctx, put.precondition.as_ref())? {
        return Ok(refusal);
    }
    let value = match value_of(tx, ctx, put)? {
        Ok(value) => value,
        Err(refusal) => return Ok(refusal),
    };
    let old_head = before.entry.as_ref().and_then(|entry| entry.head.clone());
    if put.skip_unchanged
        && let Some(head) = &old_head
        && (head.value_type, head.size, &head.hash) == (put.value_type, value.size, &value.hash)
    {
        return Ok(Outcome::new(Answer::Written(Written {
            head: old_head,
            created: false,
            unchanged: true,
        })));
    }
    let created = before.entry.is_none();
    let actor = &ctx.command.actor;
    let head = EntryHead {
        version: before.version.max(tx.facts.versions_from) + 1,
        value_type: put.value_type,
        size: value.size,
        hash: value.hash,
        created_us: old_head.as_ref().map_or(ctx.now_us, |head| head.created_us),
        updated_us: ctx.now_us,
        created_by: old_head
            .as_ref()
            .map_or_else(|| actor.clone(), |head| head.created_by.clone()),
        updated_by: actor.clone(),
    };
    let entry = EntryRecord {
        head: Some(head.clone()),
        changed: Some(audit::next_place(ctx)),
        content: Some(value.content),
    };
    if created {
        namespaces::ensure(tx, ctx, &put.namespace)?;
        namespaces::count_keys(tx, &put.namespace, 1)?;
        tx.delete(&keys::tombstone(&put.namespace, &put.key))?;
    }
    if let Some(old) = before.entry.as_ref().and_then(blob_of) {
        blobs::release(tx, ctx, old)?;
    }
    if let Some(blob) = blob_of(&entry) {
        blobs::commit_staged(tx, blob)?;
    }
    tx.put(&keys::entry(&put.namespace, &put.key), &entry)?;
    let change = Change {
        action: "put",
        namespace: &put.namespace,
        key: &put.key,
        version: head.version,
        old: before.entry.as_ref(),
        new: Some(&entry),
        previous: before.changed,
    };
    audit::record(tx, ctx, change)?;
    Ok(Outcome::new(Answer::Written(Written {
        head: Some(head),
        created,
        unchanged: false,
    })))
}

pub(super) fn delete(
    tx: &mut Tx<'_>,
    ctx: &mut Ctx<'_>,
    delete: &Delete,
) -> Result<Outcome, StoreError> {
    if let Err(error) = check_namespace(&delete.namespace).and_then(|()| check_key(&delete.key)) {
        return Ok(refuse_name(&error));
    }
    let before = Before::read(tx, &delete.namespace, &delete.key)?;
    if let Some(refusal) = before.check(ctx, delete.precondition.as_ref())? {
        return Ok(refusal);
    }
    let Some(entry) = before.entry else {
        return Ok(Outcome::refused(
            RefusalCode::NotFound,
            "there is no such entry",
        ));
    };
    remove(tx, ctx, &delete.namespace, &delete.key, &entry)?;
    namespaces::count_keys(tx, &delete.namespace, -1)?;
    Ok(Outcome::new(Answer::Deleted(Deleted {
        version: before.version,
    })))
}

/// Removes an entry that is there: leaves its version behind, and an audit record.
pub(super) fn remove(
    tx: &mut Tx<'_>,
    ctx: &mut Ctx<'_>,
    namespace: &str,
    key: &str,
    entry: &EntryRecord,
) -> Result<(), StoreError> {
    let version = entry.head.as_ref().map_or(0, |head| head.version);
    let tombstone = TombstoneRecord {
        version,
        deleted_us: ctx.now_us,
        changed: Some(audit::next_place(ctx)),
    };
    tx.delete(&keys::entry(namespace, key))?;
    tx.put(&keys::tombstone(namespace, key), &tombstone)?;
    if let Some(blob) = blob_of(entry) {
        blobs::release(tx, ctx, blob)?;
    }
    let change = Change {
        action: "delete",
        namespace,
        key,
        version,
        old: Some(entry),
        new: None,
        previous: entry.changed,
    };
    audit::record(tx, ctx, change)
}
