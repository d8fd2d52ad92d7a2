//! Entries, namespaces and changes out of a snapshot, as the API shows them; values piece by piece.
//!
//! Promises: a value is compared with its hash before its end is told; a piece that is missing is damage, never a shorter
//! value.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use confman_client::wire::{AuditEvent, EntryHead, NamespaceInfo, Time, ValueType};
use confman_snapshot::{GroupId, SnapshotError, ValueHasher};
use confman_store::keys;
use confman_store::records::{
    self, AuditRecord, AuditRef, AuditValue, BlobRef, EntryRecord, NamespaceRecord, StoredContent,
};
use serde_json::value::RawValue;

use super::records::Records;

/// Longest value that is taken into memory whole: nodes take none that is longer.
const WHOLE_BYTES_MAX: u64 = 100 << 20;

/// The value of one entry, piece by piece.
#[derive(Debug)]
pub struct ValuePieces {
    object: String,
    name: String,
    head: records::EntryHead,
    inline: Option<Vec<u8>>,
    blob: Option<BlobRef>,
    next_part: u32,
    bytes: u64,
    hasher: ValueHasher,
    ended: bool,
}

impl ValuePieces {
    /// The value of the entry of that name; `object` is the snapshot that it is from.
    #[must_use]
    pub fn new(object: &str, namespace: &str, key: &str, entry: EntryRecord) -> Self {
        let (inline, blob) = match entry.content {
            Some(StoredContent::Inline(bytes)) => (Some(bytes.to_vec()), None),
            Some(StoredContent::Blob(blob)) => (None, Some(blob)),
            None => (None, None),
        };
        Self {
            object: object.to_owned(),
            name: format!("{namespace}/{key}"),
            head: entry.head.unwrap_or_default(),
            inline,
            blob,
            next_part: 0,
            bytes: 0,
            hasher: ValueHasher::new(),
            ended: false,
        }
    }

    /// The next piece; `None` only when all of them together are what the entry says.
    ///
    /// # Errors
    /// A part is missing, or cannot be read or proven; the whole is not what the entry says.
    pub async fn next(&mut self, records: &mut Records) -> Result<Option<Vec<u8>>, SnapshotError> {
        if self.ended {
            return Ok(None);
        }
        let piece = match (self.inline.take(), &self.blob) {
            (Some(bytes), _) => Some(bytes),
            (None, Some(blob)) if self.next_part < blob.parts => {
                let part = self.next_part;
                let found = records.get(&keys::part(&blob.id, part)).await?;
                self.next_part += 1;
                Some(found.ok_or_else(|| self.damaged(format!("part {part} is missing")))?)
            }
            _ => None,
        };
        let Some(piece) = piece else {
            self.ended = true;
            return self.prove().map(|()| None);
        };
        self.hasher.update(&piece);
        self.bytes += piece.len() as u64;
        Ok(Some(piece))
    }

    /// The whole value.
    ///
    /// # Errors
    /// As [`ValuePieces::next`]; or it is longer than any that a node takes.
    pub async fn whole(mut self, records: &mut Records) -> Result<Vec<u8>, SnapshotError> {
        let mut whole = Vec::new();
        while let Some(piece) = self.next(records).await? {
            if self.bytes > WHOLE_BYTES_MAX {
                return Err(self.damaged(format!("it is longer than {WHOLE_BYTES_MAX} bytes")));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }

    fn prove(&self) -> Result<(), SnapshotError> {
        let hash = self.hasher.finish();
        if self.bytes == self.head.size && hash.as_slice() == self.head.hash.as_ref() {
            return Ok(());
        }
        Err(self.damaged(format!(
            "{} bytes that hash to {}, the entry says {} bytes and {}",
            self.bytes,
            hex::encode(hash),
            self.head.size,
            hex::encode(&self.head.hash)
        )))
    }

    fn damaged(&self, detail: String) -> SnapshotError {
        SnapshotError::Damaged {
            object: self.object.clone(),
            detail: format!("the value of {:?}: {detail}", self.name),
        }
    }
}

/// An entry less its value.
#[must_use]
pub fn entry_head(namespace: &str, key: &str, head: &records::EntryHead) -> EntryHead {
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

/// A namespace.
#[must_use]
pub fn namespace(path: &str, record: &NamespaceRecord) -> NamespaceInfo {
    NamespaceInfo {
        namespace: path.to_owned(),
        created_at: Time::from_us(record.created_us),
        created_by: record.created_by.clone(),
        keys: Some(record.keys),
        children: Some(record.children),
    }
}

/// One change.
///
/// # Errors
/// A value in it is not what its type says.
pub fn audit_event(
    group: &GroupId,
    at: AuditRef,
    record: &AuditRecord,
) -> Result<AuditEvent, serde_json::Error> {
    let present = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let hash = |bytes: &[u8]| (!bytes.is_empty()).then(|| hex::encode(bytes));
    let value = |value: &Option<AuditValue>| {
        let value = value.as_ref();
        value
            .map(|v| to_json(value_type(v.value_type), &v.bytes))
            .transpose()
    };
    Ok(AuditEvent {
        id: confman_store::audit_id(group, at, record),
        time: Time::from_us(record.time_us),
        actor: record.actor.clone(),
        action: record.action.clone(),
        group: group.to_string(),
        namespace: present(&record.namespace),
        key: present(&record.key),
        version: (record.version > 0).then_some(record.version),
        old_value_hash: hash(&record.old_hash),
        new_value_hash: hash(&record.new_hash),
        old_value: value(&record.old_value)?,
        new_value: value(&record.new_value)?,
        request_id: present(&record.request_id),
        correlation_id: present(&record.correlation_id),
    })
}

/// The store's value type as the API's; one of a newer version is bytes to us.
#[must_use]
pub fn value_type(stored: i32) -> ValueType {
    match records::ValueType::try_from(stored) {
        Ok(records::ValueType::String) => ValueType::String,
        Ok(records::ValueType::Number) => ValueType::Number,
        Ok(records::ValueType::Boolean) => ValueType::Boolean,
        Ok(records::ValueType::Json) => ValueType::Json,
        Ok(records::ValueType::Binary) | Err(_) => ValueType::Binary,
    }
}

/// Stored bytes as a JSON value; base64 text where they are any bytes.
///
/// # Errors
/// They are not what their type says.
pub fn to_json(value_type: ValueType, bytes: &[u8]) -> Result<Box<RawValue>, serde_json::Error> {
    let utf8 = || str::from_utf8(bytes).map_err(serde::de::Error::custom);
    match value_type {
        ValueType::String => serde_json::value::to_raw_value(utf8()?),
        ValueType::Binary => serde_json::value::to_raw_value(&BASE64.encode(bytes)),
        ValueType::Number | ValueType::Boolean | ValueType::Json => {
            RawValue::from_string(utf8()?.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_shown_as_its_type() {
        let json = |value_type, bytes: &[u8]| {
            to_json(value_type, bytes)
                .map(|value| value.get().to_owned())
                .map_err(|error| error.to_string())
        };
        assert_eq!(json(ValueType::String, b"a\"b").unwrap(), "\"a\\\"b\"");
        assert_eq!(json(ValueType::Binary, b"\xff").unwrap(), "\"/w==\"");
        assert_eq!(json(ValueType::Number, b"1.10").unwrap(), "1.10");
        assert!(json(ValueType::String, b"\xff").is_err());
        assert!(json(ValueType::Json, b"{} , \"extra\": 1").is_err());
        assert_eq!(value_type(99), ValueType::Binary);
    }
}
