//! Values: from the JSON envelope or raw bytes to what is stored, and back.
//!
//! Promises: stored bytes fit their type (text is UTF-8, JSON is one JSON text), so that every entry can be read as
//! JSON; a raw upload is stored byte for byte; a number keeps its digits.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use confman_client::wire::ValueType;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::failure::Failure;
use super::json;
use super::json::Scanner;
use super::json::Utf8;

/// Longest number or boolean.
const SCALAR_BYTES_MAX: u64 = 1024;

/// What is stored of a value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Content {
    /// What the bytes are.
    pub(crate) value_type: ValueType,
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
}

/// The members of one JSON object, each still as text, to be taken out by name.
#[derive(Debug)]
pub(crate) struct Members<'t> {
    /// Prefix of the field names in problems: `items[3].`, or nothing.
    prefix: String,
    members: Vec<(String, &'t RawValue)>,
}

impl<'t> Members<'t> {
    /// Reads an object. The text has passed `json::check_unique`.
    pub(crate) fn read(prefix: &str, text: &'t str) -> Result<Self, Failure> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        let mut reader = serde_json::Deserializer::from_str(text);
        let members = serde::Deserializer::deserialize_map(&mut reader, Visitor).map_err(|_| {
            Failure::invalid(
                if prefix.is_empty() {
                    "body"
                } else {
                    prefix.trim_end_matches('.')
                },
                "this is not a JSON object",
            )
        })?;
        Ok(Self {
            prefix: prefix.to_owned(),
            members,
        })
    }

    /// The member `name`, as text.
    pub(crate) fn take(&mut self, name: &str) -> Option<&'t RawValue> {
        let i = self.members.iter().position(|(found, _)| found == name)?;
        Some(self.members.swap_remove(i).1)
    }

    /// The member `name`, of a simple type; absent when it is not there.
    pub(crate) fn take_as<T: DeserializeOwned>(
        &mut self,
        name: &str,
        expected: &str,
    ) -> Result<Option<T>, Failure> {
        let field = self.field(name);
        self.take(name)
            .map(|raw| serde_json::from_str(raw.get()))
            .transpose()
            .map_err(|_| Failure::invalid(field.clone(), format!("{field} is {expected}")))
    }

    /// The member `name`, which must be there.
    pub(crate) fn require<T: DeserializeOwned>(
        &mut self,
        name: &str,
        expected: &str,
    ) -> Result<T, Failure> {
        let field = self.field(name);
        self.take_as(name, expected)?
            .ok_or_else(|| Failure::invalid(field.clone(), format!("{field} is missing")))
    }

    /// Refuses what nobody took.
    pub(crate) fn nothing_left(&self, known: &str) -> Result<(), Failure> {
        match self.members.first() {
            None => Ok(()),
            Some((name, _)) => {
                let name: String = name.chars().take(80).collect();
                let field = self.field(&name);
                Err(Failure::invalid(field, format!("unknown member {name:?}"))
                    .hint(format!("known here: {known}")))
            }
        }
    }

    /// The name of a member in problems.
    pub(crate) fn field(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The member `type`.
    pub(crate) fn value_type(&mut self) -> Result<Option<ValueType>, Failure> {
        self.take_as("type", "one of string, number, boolean, json, binary")
    }
}

/// The whole body as JSON text that is harmless to take apart.
pub(crate) fn json_text(body: &[u8]) -> Result<&str, Failure> {
    json::check_unique(body)
        .map_err(|e| Failure::invalid("body", format!("the body is not valid JSON: {e}")))?;
    std::str::from_utf8(body).map_err(|_| Failure::invalid("body", "the body is not UTF-8"))
}

/// The value in `{"value": ..., "type"?: ...}`.
pub(crate) fn from_envelope(body: &[u8]) -> Result<Content, Failure> {
    let mut members = Members::read("", json_text(body)?)?;
    let value_type = members.value_type()?;
    let value = members.take("value");
    members.nothing_left("value, type")?;
    let value = value.ok_or_else(|| {
        Failure::invalid("value", "value is missing").hint("the JSON body is {\"value\": ..., \"type\"?: ...}; to store a file as it is, send it with another content type and X-Confman-Type")
    })?;
    from_json("value", value, value_type)
}

/// A JSON value as stored bytes; `field` is its name in problems.
pub(crate) fn from_json(
    field: &str,
    value: &RawValue,
    value_type: Option<ValueType>,
) -> Result<Content, Failure> {
    let value_type = value_type.unwrap_or_else(|| ValueType::of_json(value));
    let mismatch = || {
        Failure::invalid(
            field,
            format!("the type is {value_type}, the value is {}", kind_of(value)),
        )
    };
    let bytes = match value_type {
        ValueType::String => text_of(field, value)?.ok_or_else(mismatch)?.into_bytes(),
        ValueType::Binary => {
            let text = text_of(field, value)?.ok_or_else(mismatch)?;
            from_base64(field, &text)?
        }
        ValueType::Number | ValueType::Boolean => {
            if ValueType::of_json(value) != value_type {
                return Err(mismatch());
            }
            let text = value.get().trim();
            if text.len() as u64 > SCALAR_BYTES_MAX {
                return Err(too_long(field, value_type));
            }
            text.as_bytes().to_vec()
        }
        ValueType::Json => json::compact(value.get()).into_bytes(),
    };
    Ok(Content { value_type, bytes })
}

/// Bytes that must fit their type.
pub(crate) fn from_bytes(
    field: &str,
    bytes: Vec<u8>,
    value_type: ValueType,
) -> Result<Content, Failure> {
    let mut checker = Checker::new(value_type);
    checker
        .push(&bytes)
        .and_then(|()| checker.finish())
        .map_err(|failure| failure.field(field))?;
    Ok(Content { value_type, bytes })
}

/// Base64 text as bytes.
pub(crate) fn from_base64(field: &str, text: &str) -> Result<Vec<u8>, Failure> {
    BASE64
        .decode(text)
        .map_err(|e| Failure::invalid(field, format!("{field} is not base64: {e}")))
}

/// The text of a JSON string, `None` for other JSON.
fn text_of(field: &str, value: &RawValue) -> Result<Option<String>, Failure> {
    if ValueType::of_json(value) != ValueType::String {
        return Ok(None);
    }
    String::deserialize(&mut serde_json::Deserializer::from_str(value.get()))
        .map(Some)
        .map_err(|_| {
            Failure::invalid(
                field,
                format!("{field} holds an escape that is no character"),
            )
        })
}

fn kind_of(value: &RawValue) -> &'static str {
    match value.get().trim_start().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'n') => "null",
        _ => "a number",
    }
}

fn too_long(field: &str, value_type: ValueType) -> Failure {
    Failure::invalid(
        field,
        format!("a {value_type} has at most {SCALAR_BYTES_MAX} bytes"),
    )
}

/// Stored bytes as a JSON value.
pub(crate) fn to_json(
    value_type: ValueType,
    bytes: &[u8],
) -> Result<Box<RawValue>, serde_json::Error> {
    match value_type {
        ValueType::String => serde_json::value::to_raw_value(&utf8(bytes)?),
        ValueType::Binary => serde_json::value::to_raw_value(&BASE64.encode(bytes)),
        ValueType::Number | ValueType::Boolean | ValueType::Json => {
            RawValue::from_string(utf8(bytes)?.to_owned())
        }
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, serde_json::Error> {
    std::str::from_utf8(bytes).map_err(serde::de::Error::custom)
}

/// Checks that raw bytes fit their type, piece by piece.
#[derive(Debug)]
pub(crate) struct Checker {
    value_type: ValueType,
    kind: CheckerKind,
    seen: u64,
}

#[derive(Debug)]
enum CheckerKind {
    Any,
    Text(Utf8),
    Json(Scanner),
    /// A number or boolean: JSON whose first visible byte says what it is.
    Scalar {
        scanner: Scanner,
        first: Option<u8>,
    },
}

impl Checker {
    /// A checker for bytes of this type.
    pub(crate) fn new(value_type: ValueType) -> Self {
        let kind = match value_type {
            ValueType::Binary => CheckerKind::Any,
            ValueType::String => CheckerKind::Text(Utf8::default()),
            ValueType::Json => CheckerKind::Json(Scanner::new()),
            ValueType::Number | ValueType::Boolean => CheckerKind::Scalar {
                scanner: Scanner::new(),
                first: None,
            },
        };
        Self {
            value_type,
            kind,
            seen: 0,
        }
    }

    /// Takes the next piece.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.seen += piece.len() as u64;
        let wrong = |e: json::JsonError| not_valid(self.value_type, e);
        match &mut self.kind {
            CheckerKind::Any => Ok(()),
            CheckerKind::Text(utf8) => utf8.push(piece).map_err(|()| not_text()),
            CheckerKind::Json(scanner) => scanner.push(piece).map_err(wrong),
            CheckerKind::Scalar { scanner, first } => {
                if self.seen > SCALAR_BYTES_MAX {
                    return Err(too_long("body", self.value_type));
                }
                if first.is_none() {
                    *first = piece.iter().copied().find(|b| !b.is_ascii_whitespace());
                }
                scanner.push(piece).map_err(wrong)
            }
        }
    }

    /// Says whether the whole fits.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        let value_type = self.value_type;
        let wrong = |e: json::JsonError| not_valid(value_type, e);
        match self.kind {
            CheckerKind::Any => Ok(()),
            CheckerKind::Text(utf8) => utf8.finish().map_err(|()| not_text()),
            CheckerKind::Json(scanner) => scanner.finish().map_err(wrong),
            CheckerKind::Scalar { scanner, first } => {
                scanner.finish().map_err(wrong)?;
                let found = match first {
                    Some(b't' | b'f') => Some(ValueType::Boolean),
                    Some(b'-' | b'0'..=b'9') => Some(ValueType::Number),
                    _ => None,
                };
                if found == Some(value_type) {
                    Ok(())
                } else {
                    Err(Failure::invalid(
                        "body",
                        format!("the body is not a {value_type}"),
                    ))
                }
            }
        }
    }
}

fn not_valid(value_type: ValueType, e: json::JsonError) -> Failure {
    Failure::invalid(
        "body",
        format!("the body is not a valid {value_type} value: {e}"),
    )
    .hint("send X-Confman-Type: binary to store bytes of any kind")
}

fn not_text() -> Failure {
    Failure::invalid("body", "the body is not UTF-8 text")
        .hint("send X-Confman-Type: binary to store bytes of any kind")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value_type: ValueType, bytes: &[u8]) -> Result<(), Failure> {
        let mut checker = Checker::new(value_type);
        for piece in bytes.chunks(3) {
            checker.push(piece)?;
        }
        checker.finish()
    }

    #[test]
    fn envelopes_become_bytes_and_come_back() {
        for (body, value_type, stored, back) in [
            (
                r#"{"value":"a\u00e4\n"}"#,
                ValueType::String,
                "aä\n",
                r#""aä\n""#,
            ),
            (r#"{"value": 1.10 }"#, ValueType::Number, "1.10", "1.10"),
            (
                r#"{"value":18446744073709551617}"#,
                ValueType::Number,
                "18446744073709551617",
                "18446744073709551617",
            ),
            (r#"{"value":false}"#, ValueType::Boolean, "false", "false"),
            (r#"{"value":null}"#, ValueType::Json, "null", "null"),
            (
                r#"{"value": {"b": [1, 2.0] , "a":"x y"}}"#,
                ValueType::Json,
                r#"{"b":[1,2.0],"a":"x y"}"#,
                r#"{"b":[1,2.0],"a":"x y"}"#,
            ),
            (
                r#"{"type":"json","value":"text"}"#,
                ValueType::Json,
                r#""text""#,
                r#""text""#,
            ),
            (
                r#"{"type":"binary","value":"AAH/"}"#,
                ValueType::Binary,
                "",
                r#""AAH/""#,
            ),
        ] {
            let content = from_envelope(body.as_bytes()).expect(body);
            assert_eq!(content.value_type, value_type, "{body}");
            if value_type == ValueType::Binary {
                assert_eq!(content.bytes, [0, 1, 255]);
            } else {
                assert_eq!(
                    std::str::from_utf8(&content.bytes).unwrap(),
                    stored,
                    "{body}"
                );
            }
            assert_eq!(
                to_json(value_type, &content.bytes).unwrap().get(),
                back,
                "{body}"
            );
            assert!(
                check(value_type, &content.bytes).is_ok(),
                "stored bytes pass the raw check: {body}"
            );
        }
    }

    #[test]
    fn i19_wrong_envelopes_name_the_field() {
        for (body, field) in [
            ("", "body"),
            ("[]", "body"),
            ("7", "body"),
            ("{", "body"),
            (r#"{"value":1}x"#, "body"),
            (r#"{"value":1,"value":2}"#, "body"),
            (r#"{"value":{"a":1,"a":2}}"#, "body"),
            (r#"{"value":NaN}"#, "body"),
            ("{\"value\":\"\u{1}\"}", "body"),
            (r#"{}"#, "value"),
            (r#"{"type":"string"}"#, "value"),
            (r#"{"value":1,"type":"text"}"#, "type"),
            (r#"{"value":1,"type":7}"#, "type"),
            (r#"{"value":1,"type":"string"}"#, "value"),
            (r#"{"value":"1","type":"number"}"#, "value"),
            (r#"{"value":"true","type":"boolean"}"#, "value"),
            (r#"{"value":"***","type":"binary"}"#, "value"),
            (r#"{"value":[1],"type":"binary"}"#, "value"),
            (r#"{"value":"\ud800"}"#, "value"),
            (r#"{"value":1,"version":9}"#, "version"),
            (r#"{"value":1,"actor":"root"}"#, "actor"),
        ] {
            let problem = from_envelope(body.as_bytes())
                .expect_err(body)
                .into_problem();
            assert_eq!(
                (problem.status, problem.field.as_deref()),
                (400, Some(field)),
                "{body}"
            );
        }
        let long = format!("{{\"value\":{}}}", "1".repeat(2000));
        assert!(from_envelope(long.as_bytes()).is_err());
    }

    #[test]
    fn raw_bytes_must_fit_their_type() {
        for (value_type, bytes, fits) in [
            (ValueType::Binary, &b"\xff\x00"[..], true),
            (ValueType::String, "zwölf".as_bytes(), true),
            (ValueType::String, b"\xff", false),
            (ValueType::String, b"a\xc3", false),
            (ValueType::String, b"", true),
            (ValueType::Json, b" {\"a\": [1]}\n", true),
            (ValueType::Json, b"{\"a\": [1]", false),
            (ValueType::Json, b"", false),
            (ValueType::Number, b" 42\n", true),
            (ValueType::Number, b"true", false),
            (ValueType::Number, b"[1]", false),
            (ValueType::Number, b"4 2", false),
            (ValueType::Boolean, b"true", true),
            (ValueType::Boolean, b"null", false),
            (ValueType::Boolean, b"TRUE", false),
        ] {
            assert_eq!(
                check(value_type, bytes).is_ok(),
                fits,
                "{value_type} {bytes:?}"
            );
            if fits {
                assert!(to_json(value_type, bytes).is_ok(), "{value_type} {bytes:?}");
            }
        }
        assert!(check(ValueType::Number, &[b'1'; 2000]).is_err());
    }
}
