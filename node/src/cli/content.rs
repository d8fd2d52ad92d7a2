//! What bytes are: told by looking at them, piece by piece, so that a large file needs little memory.
//!
//! The scanner is the node's own, so what is called JSON here is accepted as JSON there.

use std::io::{self, Read};

use confman_client::wire::ValueType;
use confman_snapshot::ValueHasher;

use super::failure::Failure;
use crate::api::json::{Scanner, Utf8};

const PIECE_BYTES: usize = 256 << 10;

/// What one pass over some bytes has told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// What they are.
    pub(crate) value_type: ValueType,
    /// How many.
    pub(crate) bytes: u64,
    /// Their BLAKE3, hex, as the node's `valueHash`.
    pub(crate) hash: String,
}

/// Judges bytes as they come: JSON if they are a JSON object or array (or any JSON, under a name that ends in
/// `.json`), else text if they are UTF-8 without NUL, else binary.
pub(crate) struct Judge {
    any_json: bool,
    json: Option<Scanner>,
    text: Option<Utf8>,
    first: Option<u8>,
    hasher: ValueHasher,
    bytes: u64,
}

impl Judge {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            any_json: name.to_ascii_lowercase().ends_with(".json"),
            json: Some(Scanner::new()),
            text: Some(Utf8::default()),
            first: None,
            hasher: ValueHasher::new(),
            bytes: 0,
        }
    }

    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        self.hasher.update(piece);
        self.first = self
            .first
            .or_else(|| piece.iter().copied().find(|b| !b.is_ascii_whitespace()));
        let worth = self.any_json || matches!(self.first, None | Some(b'{' | b'['));
        self.json = self
            .json
            .take()
            .filter(|_| worth)
            .and_then(|mut json| json.push(piece).ok().map(|()| json));
        let nul = piece.contains(&0);
        self.text = self
            .text
            .take()
            .filter(|_| !nul)
            .and_then(|mut text| text.push(piece).ok().map(|()| text));
    }

    pub(crate) fn finish(self) -> Seen {
        let container = matches!(self.first, Some(b'{' | b'['));
        let is_json =
            self.json.is_some_and(|json| json.finish().is_ok()) && (container || self.any_json);
        let value_type = if is_json {
            ValueType::Json
        } else if self.text.is_some_and(|text| text.finish().is_ok()) {
            ValueType::String
        } else {
            ValueType::Binary
        };
        Seen {
            value_type,
            bytes: self.bytes,
            hash: hex::encode(self.hasher.finish()),
        }
    }
}

/// One pass over a reader; `name` is a file name, or nothing.
pub(crate) fn of_reader(name: &str, mut reader: impl Read) -> io::Result<Seen> {
    let mut judge = Judge::new(name);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match reader.read(&mut piece) {
            Ok(0) => return Ok(judge.finish()),
            Ok(n) => judge.push(&piece[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Refuses a value of the command line that is not what `--type` says.
pub(crate) fn check(value_type: ValueType, bytes: &[u8]) -> Result<(), Failure> {
    let first = bytes.iter().copied().find(|b| !b.is_ascii_whitespace());
    let fits = match value_type {
        ValueType::String | ValueType::Binary => return Ok(()),
        ValueType::Json => true,
        ValueType::Number => matches!(first, Some(b'-' | b'0'..=b'9')),
        ValueType::Boolean => matches!(first, Some(b't' | b'f')),
    };
    let mut scanner = Scanner::new();
    if fits && scanner.push(bytes).and_then(|()| scanner.finish()).is_ok() {
        return Ok(());
    }
    Err(Failure::usage(format!("the value is not a {value_type}"))
        .with_hint("--type string stores any text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(name: &str, bytes: &[u8]) -> ValueType {
        of_reader(name, bytes).unwrap().value_type
    }

    #[test]
    fn the_type_is_told_by_the_content() {
        for (name, bytes, expected) in [
            ("a.json", &b"{\"a\": 1}\n"[..], ValueType::Json),
            ("a.yaml", b"{\"a\": 1}", ValueType::Json),
            ("a.json", b"5\n", ValueType::Json),
            ("a.txt", b"5\n", ValueType::String),
            ("a.json", b"{\"a\": 1,}", ValueType::String),
            ("a.json", b"\xef\xbb\xbf{}", ValueType::String),
            ("a.json", b"", ValueType::String),
            ("a.toml", b"[table]\na = 1\n", ValueType::String),
            ("a.bin", b"\xff\xfe", ValueType::Binary),
            ("a.txt", b"a\0b", ValueType::Binary),
            ("a.json", b"{\"a\": \"\xff\"}", ValueType::Binary),
        ] {
            assert_eq!(seen(name, bytes), expected, "{name} {bytes:?}");
        }
    }

    #[test]
    fn pieces_make_no_difference() {
        let text = "{\"ä\": [1, \"日本\"]}";
        let mut judge = Judge::new("x");
        text.as_bytes().iter().for_each(|b| judge.push(&[*b]));
        assert_eq!(judge.finish(), of_reader("x", text.as_bytes()).unwrap());
    }

    #[test]
    fn a_value_must_be_what_its_type_says() {
        for (value_type, text, fits) in [
            (ValueType::Number, "0.19", true),
            (ValueType::Number, "1e999", true),
            (ValueType::Number, "five", false),
            (ValueType::Number, "true", false),
            (ValueType::Boolean, "false", true),
            (ValueType::Boolean, "no", false),
            (ValueType::Json, "[1,", false),
            (ValueType::Json, "null", true),
            (ValueType::String, "\u{1}", true),
        ] {
            assert_eq!(
                check(value_type, text.as_bytes()).is_ok(),
                fits,
                "{value_type} {text}"
            );
        }
    }
}
