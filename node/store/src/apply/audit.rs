//! One audit record for each change, in the transaction of the change.

use bytes::Bytes;

use super::{Ctx, Tx};
use crate::error::StoreError;
use crate::keys;
use crate::records::{
    AUDIT_VALUE_MAX, AuditRecord, AuditRef, AuditValue, EntryRecord, StoredContent,
};

/// One change, as the one who makes it knows it.
#[derive(Default)]
pub(super) struct Change<'a> {
    pub(super) action: &'static str,
    pub(super) namespace: &'a str,
    pub(super) key: &'a str,
    pub(super) version: u64,
    pub(super) old: Option<&'a EntryRecord>,
    pub(super) new: Option<&'a EntryRecord>,
    pub(super) previous: Option<AuditRef>,
}

/// The place that the next audit record of this command gets.
pub(super) fn next_place(ctx: &Ctx<'_>) -> AuditRef {
    AuditRef {
        index: ctx.position.index,
        sub: ctx.sub,
    }
}

pub(super) fn record(
    tx: &mut Tx<'_>,
    ctx: &mut Ctx<'_>,
    change: Change<'_>,
) -> Result<(), StoreError> {
    let at = next_place(ctx);
    ctx.sub += 1;
    let record = AuditRecord {
        term: ctx.position.term,
        time_us: ctx.now_us,
        actor: ctx.command.actor.clone(),
        action: change.action.to_owned(),
        namespace: change.namespace.to_owned(),
        key: change.key.to_owned(),
        version: change.version,
        old_hash: hash(change.old),
        new_hash: hash(change.new),
        old_value: small_value(change.old),
        new_value: small_value(change.new),
        request_id: ctx.command.request_id.clone(),
        correlation_id: ctx.command.correlation_id.clone(),
        previous: change.previous,
    };
    tx.put(&keys::audit(at), &record)?;
    if !change.namespace.is_empty() {
        tx.put_bytes(&keys::audit_by_namespace(change.namespace, at), &[])?;
    }
    Ok(())
}

fn hash(entry: Option<&EntryRecord>) -> Bytes {
    entry
        .and_then(|e| e.head.as_ref())
        .map(|head| head.hash.clone())
        .unwrap_or_default()
}

fn small_value(entry: Option<&EntryRecord>) -> Option<AuditValue> {
    let entry = entry?;
    match &entry.content {
        Some(StoredContent::Inline(bytes)) if bytes.len() <= AUDIT_VALUE_MAX => Some(AuditValue {
            value_type: entry.head.as_ref()?.value_type,
            bytes: bytes.clone(),
        }),
        _ => None,
    }
}
