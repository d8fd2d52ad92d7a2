//! JSON from strangers: a scanner that takes text in pieces, bounded in depth, and refuses repeated members.
//!
//! Promises: what passes [`Scanner`] is one JSON text of RFC 8259 in UTF-8, nested at most [`DEPTH_MAX`] deep; no
//! recursion, so depth cannot break the stack; numbers keep the digits they came with ([`compact`]).
//!
//! Does not: build a value. `serde_json` does that afterwards, on text that is known to be harmless.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::hash::RandomState;

/// Deepest nesting. Readers that build values commonly stop at 128; lists and batches wrap an entry three deep.
pub(crate) const DEPTH_MAX: usize = 100;

/// Why text is no JSON that we take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JsonError {
    #[error("byte {at} does not continue a JSON text")]
    Syntax { at: u64 },
    #[error("the JSON text ends too early, after {at} bytes")]
    Early { at: u64 },
    #[error("it is not UTF-8 near byte {at}")]
    Utf8 { at: u64 },
    #[error("it is nested deeper than {DEPTH_MAX}, at byte {at}")]
    Deep { at: u64 },
    #[error("a member is repeated in one object, at byte {at}")]
    Repeated { at: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A value must come.
    Value,
    /// After `[`.
    ValueOrEnd,
    /// After `{`.
    KeyOrEnd,
    /// After `,` in an object.
    Key,
    Colon,
    CommaOrEnd,
    /// After the whole text.
    Done,
    Text,
    Escape,
    Hex(u8),
    Literal(&'static [u8]),
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

/// Checks one JSON text, piece by piece.
#[derive(Debug)]
pub(crate) struct Scanner {
    utf8: Utf8,
    state: State,
    /// The open containers, `true` for objects.
    stack: Vec<bool>,
    in_key: bool,
    at: u64,
    members: Option<Members>,
}

impl Scanner {
    /// A scanner of text that is stored as it came.
    pub(crate) fn new() -> Self {
        Self {
            utf8: Utf8::default(),
            state: State::Value,
            stack: Vec::new(),
            in_key: false,
            at: 0,
            members: None,
        }
    }

    /// A scanner that also refuses repeated members, for text that we take apart ourselves.
    pub(crate) fn unique() -> Self {
        Self {
            members: Some(Members::default()),
            ..Self::new()
        }
    }

    /// Takes the next piece.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<(), JsonError> {
        self.utf8
            .push(piece)
            .map_err(|()| JsonError::Utf8 { at: self.at })?;
        for &byte in piece {
            self.step(byte)?;
            self.at += 1;
        }
        Ok(())
    }

    /// Says whether the text is whole.
    pub(crate) fn finish(mut self) -> Result<(), JsonError> {
        self.utf8
            .finish()
            .map_err(|()| JsonError::Utf8 { at: self.at })?;
        if self.ends_number() {
            self.value_ends();
        }
        match self.state {
            State::Done => Ok(()),
            _ => Err(JsonError::Early { at: self.at }),
        }
    }

    fn step(&mut self, byte: u8) -> Result<(), JsonError> {
        if let Some(next) = self.inside_number(byte) {
            self.state = next;
            return Ok(());
        }
        if self.ends_number() {
            self.value_ends();
        }
        let syntax = JsonError::Syntax { at: self.at };
        match self.state {
            State::Text => self.step_text(byte)?,
            State::Escape => {
                self.keep(byte);
                self.state = match byte {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => State::Text,
                    b'u' => State::Hex(4),
                    _ => return Err(syntax),
                };
            }
            State::Hex(left) => {
                self.keep(byte);
                self.state = match (byte.is_ascii_hexdigit(), left) {
                    (false, _) => return Err(syntax),
                    (true, 1) => State::Text,
                    (true, _) => State::Hex(left - 1),
                };
            }
            State::Literal(rest) => match rest.split_first() {
                Some((first, rest)) if *first == byte => match rest {
                    [] => self.value_ends(),
                    _ => self.state = State::Literal(rest),
                },
                _ => return Err(syntax),
            },
            _ if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') => {
                if self.inside_token() {
                    return Err(syntax);
                }
            }
            State::ValueOrEnd if byte == b']' => self.close(false)?,
            State::Value | State::ValueOrEnd => self.open_value(byte)?,
            State::KeyOrEnd if byte == b'}' => self.close(true)?,
            State::KeyOrEnd | State::Key if byte == b'"' => {
                self.in_key = true;
                if let Some(members) = &mut self.members {
                    members.key.clear();
                }
                self.state = State::Text;
            }
            State::Colon if byte == b':' => self.state = State::Value,
            State::CommaOrEnd => match (byte, self.stack.last()) {
                (b',', Some(true)) => self.state = State::Key,
                (b',', Some(false)) => self.state = State::Value,
                (b'}', _) => self.close(true)?,
                (b']', _) => self.close(false)?,
                _ => return Err(syntax),
            },
            _ => return Err(syntax),
        }
        Ok(())
    }

    fn step_text(&mut self, byte: u8) -> Result<(), JsonError> {
        match byte {
            b'"' if self.in_key => {
                self.in_key = false;
                self.state = State::Colon;
                if let Some(members) = &mut self.members
                    && !members.insert_key()
                {
                    return Err(JsonError::Repeated { at: self.at });
                }
            }
            b'"' => self.value_ends(),
            0..0x20 => return Err(JsonError::Syntax { at: self.at }),
            _ => {
                self.keep(byte);
                if byte == b'\\' {
                    self.state = State::Escape;
                }
            }
        }
        Ok(())
    }

    /// Remembers a byte of a member's name.
    fn keep(&mut self, byte: u8) {
        if self.in_key
            && let Some(members) = &mut self.members
        {
            members.key.push(byte);
        }
    }

    fn open_value(&mut self, byte: u8) -> Result<(), JsonError> {
        self.state = match byte {
            b'"' => State::Text,
            b'{' | b'[' => {
                if self.stack.len() >= DEPTH_MAX {
                    return Err(JsonError::Deep { at: self.at });
                }
                let object = byte == b'{';
                self.stack.push(object);
                if let Some(members) = &mut self.members {
                    members.open(object);
                }
                if object {
                    State::KeyOrEnd
                } else {
                    State::ValueOrEnd
                }
            }
            b't' => State::Literal(b"rue"),
            b'f' => State::Literal(b"alse"),
            b'n' => State::Literal(b"ull"),
            b'-' => State::Minus,
            b'0' => State::Zero,
            b'1'..=b'9' => State::Digits,
            _ => return Err(JsonError::Syntax { at: self.at }),
        };
        Ok(())
    }

    fn close(&mut self, object: bool) -> Result<(), JsonError> {
        if self.stack.pop() != Some(object) {
            return Err(JsonError::Syntax { at: self.at });
        }
        if let Some(members) = &mut self.members {
            members.close();
        }
        self.value_ends();
        Ok(())
    }

    fn value_ends(&mut self) {
        self.state = if self.stack.is_empty() {
            State::Done
        } else {
            State::CommaOrEnd
        };
    }

    /// The state after `byte` when it continues a number.
    fn inside_number(&self, byte: u8) -> Option<State> {
        let digit = byte.is_ascii_digit();
        match (self.state, byte) {
            (State::Minus, b'0') => Some(State::Zero),
            (State::Minus | State::Digits, _) if digit => Some(State::Digits),
            (State::Zero | State::Digits, b'.') => Some(State::Point),
            (State::Point | State::Fraction, _) if digit => Some(State::Fraction),
            (State::Zero | State::Digits | State::Fraction, b'e' | b'E') => Some(State::Exponent),
            (State::Exponent, b'+' | b'-') => Some(State::ExponentSign),
            (State::Exponent | State::ExponentSign | State::ExponentDigits, _) if digit => {
                Some(State::ExponentDigits)
            }
            _ => None,
        }
    }

    /// Whether a number may end here.
    fn ends_number(&self) -> bool {
        matches!(
            self.state,
            State::Zero | State::Digits | State::Fraction | State::ExponentDigits
        )
    }

    /// Whether a number has begun that may not end here.
    fn inside_token(&self) -> bool {
        matches!(
            self.state,
            State::Minus | State::Point | State::Exponent | State::ExponentSign
        )
    }
}

/// The names seen in each open object, as keyed hashes: bounded by 16 bytes or so a member.
#[derive(Debug, Default)]
struct Members {
    hasher: RandomState,
    open: Vec<HashSet<u64>>,
    key: Vec<u8>,
}

impl Members {
    fn open(&mut self, _object: bool) {
        self.open.push(HashSet::new());
    }

    fn close(&mut self) {
        self.open.pop();
    }

    /// Whether the name is new in its object.
    fn insert_key(&mut self) -> bool {
        let hash = if self.key.contains(&b'\\') {
            // Two spellings of one name are one name; what does not decode (a lone surrogate) counts as spelled.
            let mut quoted = Vec::with_capacity(self.key.len() + 2);
            quoted.push(b'"');
            quoted.extend_from_slice(&self.key);
            quoted.push(b'"');
            match serde_json::from_slice::<String>(&quoted) {
                Ok(name) => self.hasher.hash_one(name.as_bytes()),
                Err(_) => self.hasher.hash_one(self.key.as_slice()),
            }
        } else {
            self.hasher.hash_one(self.key.as_slice())
        };
        self.open.last_mut().is_none_or(|names| names.insert(hash))
    }
}

/// Checks UTF-8, piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Utf8 {
    carry: [u8; 4],
    carried: usize,
}

impl Utf8 {
    /// Takes the next piece.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<(), ()> {
        let mut rest = piece;
        while self.carried > 0 {
            let Some((&first, tail)) = rest.split_first() else {
                return Ok(());
            };
            let Some(slot) = self.carry.get_mut(self.carried) else {
                return Err(());
            };
            *slot = first;
            self.carried += 1;
            rest = tail;
            match std::str::from_utf8(self.carry.get(..self.carried).unwrap_or_default()) {
                Ok(_) => self.carried = 0,
                Err(e) if e.error_len().is_some() => return Err(()),
                Err(_) => {}
            }
        }
        match std::str::from_utf8(rest) {
            Ok(_) => Ok(()),
            Err(e) if e.error_len().is_some() => Err(()),
            Err(e) => {
                let tail = rest.get(e.valid_up_to()..).unwrap_or_default();
                for (slot, byte) in self.carry.iter_mut().zip(tail) {
                    *slot = *byte;
                }
                self.carried = tail.len();
                Ok(())
            }
        }
    }

    /// Says whether no character is cut.
    pub(crate) fn finish(&self) -> Result<(), ()> {
        if self.carried == 0 { Ok(()) } else { Err(()) }
    }
}

/// A whole text at once.
pub(crate) fn check_unique(text: &[u8]) -> Result<(), JsonError> {
    let mut scanner = Scanner::unique();
    scanner.push(text)?;
    scanner.finish()
}

/// JSON text without the white space between its tokens; everything else as its writer spelled it.
pub(crate) fn compact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_text = false;
    let mut escaped = false;
    for c in text.chars() {
        if in_text {
            in_text = escaped || c != '"';
            escaped = !escaped && c == '\\';
            out.push(c);
        } else if !matches!(c, ' ' | '\t' | '\n' | '\r') {
            in_text = c == '"';
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    fn scan(text: &[u8], piece: usize) -> Result<(), JsonError> {
        let mut scanner = Scanner::new();
        for part in text.chunks(piece.max(1)) {
            scanner.push(part)?;
        }
        scanner.finish()
    }

    /// What the library that readers use says.
    fn reference(text: &[u8]) -> bool {
        serde_json::from_slice::<Box<RawValue>>(text).is_ok()
    }

    #[test]
    fn agrees_with_the_grammar() {
        for text in [
            "1",
            "-0",
            "0.5",
            "1e9",
            "1E+9",
            "-1.25e-3",
            "\"\"",
            "\"a\\n\\u00e4\"",
            "true",
            "false",
            "null",
            "[]",
            "{}",
            " [ 1 , {\"a\" : [ ] } ] ",
            "[1,2]",
            "{\"a\":{\"a\":1}}",
            "\"\u{e4}\u{1f600}\"",
        ] {
            assert_eq!(scan(text.as_bytes(), 1), Ok(()), "{text}");
            assert!(reference(text.as_bytes()), "{text}");
        }
        for text in [
            "",
            " ",
            "-",
            "01",
            "1.",
            ".5",
            "1e",
            "1e+",
            "+1",
            "- 1",
            "1 2",
            "\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "tru",
            "truex",
            "[",
            "]",
            "[1,]",
            "[,1]",
            "[1}",
            "{",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{1:2}",
            "{\"a\":1]",
            "nan",
            "NaN",
            "Infinity",
            "'a'",
            "\"\n\"",
            "[1 2]",
            "1e 5",
            "1. 5",
            "\u{feff}1",
        ] {
            assert!(scan(text.as_bytes(), 1).is_err(), "{text}");
            assert!(!reference(text.as_bytes()), "{text}");
        }
        assert!(matches!(scan(b"\"\xff\"", 1), Err(JsonError::Utf8 { .. })));
        assert!(matches!(scan(b"\"\xc3\"", 1), Err(JsonError::Utf8 { .. })));
    }

    #[test]
    fn i19_depth_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(scan(nested(DEPTH_MAX).as_bytes(), 7), Ok(()));
        assert_eq!(
            scan(nested(DEPTH_MAX + 1).as_bytes(), 7),
            Err(JsonError::Deep {
                at: DEPTH_MAX as u64
            })
        );
        assert!(matches!(
            scan("{\"a\":".repeat(1_000_000).as_bytes(), 4096),
            Err(JsonError::Deep { .. })
        ));
    }

    #[test]
    fn i19_repeated_members_are_refused() {
        for text in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"b":[{"x":1,"y":{},"x":2}]}"#,
            r#"{"":1,"":2}"#,
        ] {
            assert!(
                matches!(
                    check_unique(text.as_bytes()),
                    Err(JsonError::Repeated { .. })
                ),
                "{text}"
            );
            assert_eq!(
                scan(text.as_bytes(), 3),
                Ok(()),
                "stored text keeps them: {text}"
            );
        }
        for text in [
            r#"{"a":{"a":1},"b":{"a":2}}"#,
            r#"[{"a":1},{"a":2}]"#,
            r#"{"a":"a","b":"a"}"#,
        ] {
            assert_eq!(check_unique(text.as_bytes()), Ok(()), "{text}");
        }
    }

    #[test]
    fn compact_leaves_tokens_as_they_were() {
        assert_eq!(
            compact(" { \"a b\" : [ 1.50 , \"x \\\" y\\\\\" , 1e+400 ] } "),
            r#"{"a b":[1.50,"x \" y\\",1e+400]}"#
        );
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json_on_noise(text in r#"[\[\]{}",:0-9eE+\-. truefalsn\\]{0,40}"#, piece in 1usize..9) {
            prop_assert_eq!(scan(text.as_bytes(), piece).is_ok(), reference(text.as_bytes()), "{}", text);
        }

        #[test]
        fn agrees_on_bytes_and_pieces(bytes in proptest::collection::vec(any::<u8>(), 0..60), piece in 1usize..9) {
            let mut text = vec![b'"'];
            text.extend(bytes.iter().filter(|b| **b >= 0x20 && **b != b'\\' && **b != b'"'));
            text.push(b'"');
            prop_assert_eq!(scan(&text, piece).is_ok(), reference(&text));
        }

        #[test]
        fn compact_keeps_the_value(keys in proptest::collection::vec(".{0,10}", 0..5)) {
            let value: serde_json::Value = keys.iter().map(|k| (k.clone(), serde_json::json!([k, 1.5, null]))).collect::<serde_json::Map<_, _>>().into();
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(compact(&pretty), serde_json::to_string(&value).unwrap());
        }
    }
}
