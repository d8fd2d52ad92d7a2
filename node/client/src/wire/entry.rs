//! Entries and the namespaces that hold them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Time;

/// What an entry's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueType {
    /// UTF-8 text.
    String,
    /// A JSON number, with the digits its writer used.
    Number,
    /// `true` or `false`.
    Boolean,
    /// Any JSON text.
    Json,
    /// Any bytes; base64 where they travel inside JSON.
    Binary,
}

/// A name that is no value type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown value type {text:?}, expected string, number, boolean, json or binary")]
pub struct ParseValueTypeError {
    /// What was given.
    pub text: String,
}

impl ValueType {
    /// Every type, in the order of the documentation.
    pub const ALL: [Self; 5] = [
        Self::String,
        Self::Number,
        Self::Boolean,
        Self::Json,
        Self::Binary,
    ];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Json => "json",
            Self::Binary => "binary",
        }
    }

    /// The type that an envelope without `type` gets: by the first byte of its JSON value.
    pub fn of_json(value: &RawValue) -> Self {
        match value.get().trim_start().as_bytes().first() {
            Some(b'"') => Self::String,
            Some(b't' | b'f') => Self::Boolean,
            Some(b'-' | b'0'..=b'9') => Self::Number,
            _ => Self::Json,
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ValueType {
    type Err = ParseValueTypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| ParseValueTypeError {
                text: text.chars().take(80).collect(),
            })
    }
}

/// An entry without its value: the answer of a write, and an item of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EntryHead {
    /// Path of the namespace, segments joined by `/`.
    pub namespace: String,
    /// The key, as stored: not percent-encoded.
    pub key: String,
    /// What the bytes are.
    #[serde(rename = "type")]
    pub value_type: ValueType,
    /// 1, 2, ...; never used twice for a key, even after it was deleted.
    pub version: u64,
    /// Size of the stored bytes.
    pub size: u64,
    /// BLAKE3 of the stored bytes, hex.
    pub value_hash: String,
    /// When this version was written.
    pub updated_at: Time,
    /// Name of the API key that wrote this version.
    pub updated_by: String,
    /// When the key came into being.
    pub created_at: Time,
    /// Name of the API key that made it.
    pub created_by: String,
}

/// An entry. `value` is absent in lists without `values=true` and in those too large to be inline.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Everything but the value.
    #[serde(flatten)]
    pub head: EntryHead,
    /// The value as JSON: text, number, boolean, any JSON, or base64 text for `binary`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Box<RawValue>>,
}

/// The body of `PUT /api/v1/config/...` with `application/json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PutEnvelope {
    /// The value; base64 text when `type` is `binary`.
    pub value: Box<RawValue>,
    /// Inferred from the value when absent.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub value_type: Option<ValueType>,
}

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceInfo {
    /// Path, segments joined by `/`.
    pub namespace: String,
    /// When it came into being.
    pub created_at: Time,
    /// Name of the API key that made it.
    pub created_by: String,
    /// How many keys are directly in it; absent in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<u64>,
    /// How many namespaces are directly under it; absent in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub children: Option<u64>,
}

/// The `ETag` of a version, quotes included: `"v6"`.
pub fn etag(version: u64) -> String {
    format!("\"v{version}\"")
}

/// The version in an `ETag`; a weak one counts as well.
pub fn parse_etag(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .strip_prefix("W/")
        .unwrap_or(text)
        .strip_prefix("\"v")?
        .strip_suffix('"')?;
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> EntryHead {
        EntryHead {
            namespace: "shop/eu".to_owned(),
            key: "tax".to_owned(),
            value_type: ValueType::Number,
            version: 6,
            size: 4,
            value_hash: "ab".to_owned(),
            updated_at: Time::from_us(2),
            updated_by: "ci".to_owned(),
            created_at: Time::from_us(1),
            created_by: "ci".to_owned(),
        }
    }

    #[test]
    fn an_entry_keeps_the_digits_of_a_number() -> Result<(), serde_json::Error> {
        let text = "1.10000000000000000000000001e+400";
        let entry = Entry {
            head: head(),
            value: Some(RawValue::from_string(text.to_owned())?),
        };
        let json = serde_json::to_string(&entry)?;
        assert!(
            json.contains("\"updatedAt\":\"1970-01-01T00:00:00.000002Z\""),
            "{json}"
        );
        let again: Entry = serde_json::from_str(&json)?;
        assert_eq!(again.head, head());
        assert_eq!(
            again.value.map(|v| v.get().to_owned()).as_deref(),
            Some(text)
        );
        Ok(())
    }

    #[test]
    fn the_type_follows_the_json_value() -> Result<(), serde_json::Error> {
        for (json, expected) in [
            ("\"x\"", ValueType::String),
            (" -1", ValueType::Number),
            ("true", ValueType::Boolean),
            ("false", ValueType::Boolean),
            ("null", ValueType::Json),
            ("[1]", ValueType::Json),
            ("{}", ValueType::Json),
        ] {
            let envelope: PutEnvelope = serde_json::from_str(&format!("{{\"value\":{json}}}"))?;
            assert_eq!(ValueType::of_json(&envelope.value), expected, "{json}");
        }
        Ok(())
    }

    #[test]
    fn etags_print_and_parse() {
        assert_eq!(etag(6), "\"v6\"");
        assert_eq!(parse_etag("\"v6\""), Some(6));
        assert_eq!(parse_etag(" W/\"v6\" "), Some(6));
        for text in ["v6", "\"6\"", "\"v\"", "\"v+6\"", "*", ""] {
            assert_eq!(parse_etag(text), None, "{text:?}");
        }
    }
}
