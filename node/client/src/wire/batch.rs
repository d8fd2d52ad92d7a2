//! Many small writes in one request: `POST /api/v1/batch`.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Problem, ValueType};

/// Most items of one batch.
pub const BATCH_ITEMS_MAX: usize = 1000;
/// Largest body of one batch.
pub const BATCH_BYTES_MAX: usize = 8 << 20;

/// Writes that are proposed together. Each is its own log entry: one that is refused does not stop the others.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BatchRequest {
    /// At most [`BATCH_ITEMS_MAX`].
    pub items: Vec<BatchItem>,
}

/// What one item does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchOp {
    /// Write a value.
    Put,
    /// Remove a key.
    Delete,
}

/// One write. A put has either `value` or `value_base64`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BatchItem {
    /// What to do.
    pub op: BatchOp,
    /// Path of the namespace.
    pub namespace: String,
    /// The key, not percent-encoded.
    pub key: String,
    /// The value as JSON, as in [`super::PutEnvelope`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Box<RawValue>>,
    /// The bytes to store exactly, whatever the type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
    /// Inferred from `value` when absent; `binary` for `value_base64`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub value_type: Option<ValueType>,
    /// The same bytes and type make no new version.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skip_unchanged: bool,
}

/// The answers, in the order of the items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchResult {
    /// One for each item of the request.
    pub items: Vec<BatchItemResult>,
}

/// What became of one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchItemResult {
    /// The HTTP status that the write would have had alone: 201, 200, 204 or an error.
    pub status: u16,
    /// The key's version after the write, or the one that was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The bytes were there already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unchanged: bool,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}
