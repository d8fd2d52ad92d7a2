//! Namespaces: made with their ancestors, deleted with all below them in bounded steps.

use prost::Message;

use super::audit::{self, Change};
use super::{Ctx, Tx, entries, refuse_name};
use crate::command::{Answer, NamespaceCreated, NamespaceDeleted, Outcome, RefusalCode};
use crate::error::StoreError;
use crate::keys;
use crate::names::{check_namespace, parent};
use crate::records::{EntryRecord, NamespaceRecord};

/// Keys and namespaces deleted with one entry of the log, at most: apply stays short.
pub(crate) const DELETED_MAX: usize = 1000;

pub(super) fn create(
    tx: &mut Tx<'_>,
    ctx: &mut Ctx<'_>,
    path: &str,
) -> Result<Outcome, StoreError> {
    if let Err(error) = check_namespace(path) {
        return Ok(refuse_name(&error));
    }
    let created = ensure(tx, ctx, path)?;
    if created {
        audit::record(
            tx,
            ctx,
            Change {
                action: "namespace.create",
                namespace: path,
                ..Change::default()
            },
        )?;
    }
    let record = tx.get(&keys::namespace(path))?;
    Ok(Outcome::new(Answer::NamespaceCreated(NamespaceCreated {
        created,
        record,
    })))
}

/// Makes a namespace and its ancestors where they are missing; says whether it was missing itself.
pub(super) fn ensure(tx: &mut Tx<'_>, ctx: &Ctx<'_>, path: &str) -> Result<bool, StoreError> {
    let mut missing = Vec::new();
    let mut next = Some(path);
    while let Some(path) = next
        && !tx.has(&keys::namespace(path))?
    {
        missing.push(path);
        next = parent(path);
    }
    let made = !missing.is_empty();
    for path in missing.into_iter().rev() {
        let record = NamespaceRecord {
            created_us: ctx.now_us,
            created_by: ctx.command.actor.clone(),
            ..NamespaceRecord::default()
        };
        tx.put(&keys::namespace(path), &record)?;
        if let Some(above) = parent(path) {
            change(tx, above, |record| record.children += 1)?;
        }
    }
    Ok(made)
}

fn change(
    tx: &mut Tx<'_>,
    path: &str,
    change: impl FnOnce(&mut NamespaceRecord),
) -> Result<(), StoreError> {
    let key = keys::namespace(path);
    if let Some(mut record) = tx.get::<NamespaceRecord>(&key)? {
        change(&mut record);
        tx.put(&key, &record)?;
    }
    Ok(())
}

pub(super) fn count_keys(tx: &mut Tx<'_>, path: &str, by: i64) -> Result<(), StoreError> {
    change(tx, path, |record| {
        record.keys = record.keys.saturating_add_signed(by)
    })
}

pub(super) fn delete(
    tx: &mut Tx<'_>,
    ctx: &mut Ctx<'_>,
    path: &str,
) -> Result<Outcome, StoreError> {
    if let Err(error) = check_namespace(path) {
        return Ok(refuse_name(&error));
    }
    if !tx.has(&keys::namespace(path))? {
        return Ok(Outcome::refused(
            RefusalCode::NotFound,
            "there is no such namespace",
        ));
    }
    let mut budget = DELETED_MAX;
    let mut deleted = 0;
    for prefix in [keys::entries_of(path), keys::entries_below(path)] {
        let removed = delete_keys(tx, ctx, &prefix, budget)?;
        deleted += removed as u64;
        budget -= removed;
    }
    // The namespaces go when their keys are gone, the deepest first, so that a half deleted tree is still a tree.
    let mut more = budget == 0;
    if !more {
        let below = tx.last_keys(&keys::namespaces_below(path), budget)?;
        more = below.len() == budget;
        for key in &below {
            if let Some(path) = keys::parse_namespace(key) {
                delete_one(tx, ctx, path)?;
            }
        }
    }
    if !more {
        delete_one(tx, ctx, path)?;
    }
    Ok(Outcome::new(Answer::NamespaceDeleted(NamespaceDeleted {
        keys: deleted,
        more,
    })))
}

fn delete_keys(
    tx: &mut Tx<'_>,
    ctx: &mut Ctx<'_>,
    prefix: &[u8],
    limit: usize,
) -> Result<usize, StoreError> {
    let mut removed = 0;
    // In small batches: an entry may hold a value of 256 KiB.
    while removed < limit {
        let found = tx.first(prefix, 16.min(limit - removed))?;
        if found.is_empty() {
            break;
        }
        for (key, bytes) in &found {
            let Some((namespace, name)) = keys::parse_entry(key) else {
                return Err(StoreError::Internal("an entry without a name".to_owned()));
            };
            let entry = EntryRecord::decode(bytes.clone())
                .map_err(|e| StoreError::Internal(format!("entry {namespace}/{name}: {e}")))?;
            entries::remove(tx, ctx, namespace, name, &entry)?;
            count_keys(tx, namespace, -1)?;
        }
        removed += found.len();
    }
    Ok(removed)
}

fn delete_one(tx: &mut Tx<'_>, ctx: &mut Ctx<'_>, path: &str) -> Result<(), StoreError> {
    tx.delete(&keys::namespace(path))?;
    if let Some(above) = parent(path) {
        change(tx, above, |record| {
            record.children = record.children.saturating_sub(1)
        })?;
    }
    audit::record(
        tx,
        ctx,
        Change {
            action: "namespace.delete",
            namespace: path,
            ..Change::default()
        },
    )
}
