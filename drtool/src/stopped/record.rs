//! One record of a state as people and scripts read it.

use bytes::Bytes;
use confman_store::keys;
use confman_store::records::{
    AuditRecord, EntryRecord, NamespaceRecord, NodeRecord, TombstoneRecord, ValueType,
};
use jiff::Timestamp;
use prost::Message;
use serde::Serialize;

/// One record of a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StateRecord {
    /// Its kind and name.
    pub key: String,
    /// What it says, in a few words, for the kinds that people ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub says: Option<String>,
    /// Its size in bytes.
    pub bytes: u64,
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Microseconds since the epoch as a time, or as a number where it is none.
pub fn time(us: i64) -> String {
    Timestamp::from_microsecond(us).map_or_else(|_| us.to_string(), |time| time.to_string())
}

/// A record by its key and value.
pub fn tell(key: &[u8], value: &Bytes) -> StateRecord {
    let (says, error) = match says(key, value) {
        Ok(says) => (says, None),
        Err(error) => (None, Some(error.to_string())),
    };
    StateRecord {
        key: keys::describe(key),
        says,
        bytes: value.len() as u64,
        error,
    }
}

fn says(key: &[u8], value: &Bytes) -> Result<Option<String>, prost::DecodeError> {
    let bytes = value.as_ref();
    let kind = key.first().and_then(|first| keys::kind(*first));
    Ok(Some(match kind {
        Some("entry") => match EntryRecord::decode(bytes)?.head {
            Some(head) => format!(
                "v{} {} {} bytes by {} at {}",
                head.version,
                ValueType::try_from(head.value_type).map_or("unknown", ValueType::as_str),
                head.size,
                head.updated_by,
                time(head.updated_us)
            ),
            None => "no head".to_owned(),
        },
        Some("tombstone") => {
            let record = TombstoneRecord::decode(bytes)?;
            format!("v{} deleted at {}", record.version, time(record.deleted_us))
        }
        Some("namespace") => {
            let record = NamespaceRecord::decode(bytes)?;
            format!("{} keys, {} namespaces below", record.keys, record.children)
        }
        Some("node") => {
            let record = NodeRecord::decode(bytes)?;
            let state = format!("{:?}", record.state()).to_lowercase();
            format!("{} at {}, {state}", record.name, record.peer_addr)
        }
        Some("audit event") => {
            let record = AuditRecord::decode(bytes)?;
            let about = [record.namespace.as_str(), record.key.as_str()];
            let about: Vec<&str> = about.into_iter().filter(|part| !part.is_empty()).collect();
            format!(
                "{} {} v{} by {} at {}",
                record.action,
                about.join("/"),
                record.version,
                record.actor,
                time(record.time_us)
            )
        }
        _ => return Ok(None),
    }))
}

impl std::fmt::Display for StateRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.key)?;
        match (&self.says, &self.error) {
            (_, Some(error)) => write!(f, ": cannot be read: {error}"),
            (Some(says), None) => write!(f, ": {says}"),
            (None, None) => write!(f, ": {} bytes", self.bytes),
        }
    }
}
