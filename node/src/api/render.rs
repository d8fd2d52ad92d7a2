//! Records of the store as documents of the API.

use confman_client::wire::AuditEvent;
use confman_client::wire::Entry;
use confman_client::wire::EntryHead;
use confman_client::wire::NamespaceInfo;
use confman_client::wire::Time;
use confman_client::wire::ValueType;
use confman_snapshot::model::GroupId;
use confman_store::AuditEntry;
use confman_store::records;
use confman_store::records::AuditValue;
use confman_store::records::NamespaceRecord;
use serde_json::value::RawValue;

use super::content;
use super::failure::Failure;

/// The store's value type as the API's; one of a newer version is bytes to us.
pub(crate) fn value_type(stored: i32) -> ValueType {
    match records::ValueType::try_from(stored) {
        Ok(records::ValueType::String) => ValueType::String,
        Ok(records::ValueType::Number) => ValueType::Number,
        Ok(records::ValueType::Boolean) => ValueType::Boolean,
        Ok(records::ValueType::Json) => ValueType::Json,
        Ok(records::ValueType::Binary) | Err(_) => ValueType::Binary,
    }
}

/// The API's value type as the store's.
pub(crate) fn stored_type(value_type: ValueType) -> i32 {
    match value_type {
        ValueType::String => records::ValueType::String,
        ValueType::Number => records::ValueType::Number,
        ValueType::Boolean => records::ValueType::Boolean,
        ValueType::Json => records::ValueType::Json,
        ValueType::Binary => records::ValueType::Binary,
    }
    .into()
}

/// An entry less its value.
pub(crate) fn entry_head(namespace: &str, key: &str, head: &records::EntryHead) -> EntryHead {
    EntryHead {
        namespace: namespace.to_owned(),
        key: key.to_owned(),
        value_type: value_type(head.value_type),
        version: head.version,
        size: head.size,
        value_hash: hex::encode(&head.hash),
        updated_at: Time::from_us(head.updated_us),
        updated_by: head.updated_by.clone(),
        created_at: Time::from_us(head.created_us),
        created_by: head.created_by.clone(),
    }
}

/// An entry with its value.
pub(crate) fn entry(head: EntryHead, bytes: &[u8]) -> Result<Entry, Failure> {
    let value = json_value(head.value_type, bytes)?;
    Ok(Entry {
        head,
        value: Some(value),
    })
}

fn json_value(value_type: ValueType, bytes: &[u8]) -> Result<Box<RawValue>, Failure> {
    content::to_json(value_type, bytes)
        .map_err(|e| Failure::internal(format!("a stored {value_type} value is not one: {e}")))
}

/// A namespace; `whole` adds what lists leave out.
pub(crate) fn namespace(path: &str, record: &NamespaceRecord, whole: bool) -> NamespaceInfo {
    NamespaceInfo {
        namespace: path.to_owned(),
        created_at: Time::from_us(record.created_us),
        created_by: record.created_by.clone(),
        keys: whole.then_some(record.keys),
        children: whole.then_some(record.children),
    }
}

/// One change.
pub(crate) fn audit_event(group: &GroupId, entry: &AuditEntry) -> Result<AuditEvent, Failure> {
    let record = &entry.record;
    Ok(AuditEvent {
        id: entry.id.clone(),
        time: Time::from_us(record.time_us),
        actor: record.actor.clone(),
        action: record.action.clone(),
        group: group.to_string(),
        namespace: present(&record.namespace),
        key: present(&record.key),
        version: (record.version > 0).then_some(record.version),
        old_value_hash: hash(&record.old_hash),
        new_value_hash: hash(&record.new_hash),
        old_value: record.old_value.as_ref().map(audit_value).transpose()?,
        new_value: record.new_value.as_ref().map(audit_value).transpose()?,
        request_id: present(&record.request_id),
        correlation_id: present(&record.correlation_id),
    })
}

fn audit_value(value: &AuditValue) -> Result<Box<RawValue>, Failure> {
    json_value(value_type(value.value_type), &value.bytes)
}

fn hash(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| hex::encode(bytes))
}

fn present(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
