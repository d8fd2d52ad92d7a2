//! How to read, when to write, which page.

use std::{fmt, str::FromStr};

use crate::wire::{VersionToken, etag};

/// How fresh an answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadMode {
    /// As of now, wherever it is asked.
    #[default]
    Linearizable,
    /// At least as new as the write that answered with this token.
    ReadYourWrites(VersionToken),
    /// Whatever the node that is asked has.
    Eventual,
}

impl ReadMode {
    /// The name in `X-Confman-Consistency`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Linearizable => "linearizable",
            Self::ReadYourWrites(_) => "read-your-writes",
            Self::Eventual => "eventual",
        }
    }
}

impl fmt::Display for ReadMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What must be there for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precondition {
    /// Anything.
    #[default]
    None,
    /// This version.
    VersionIs(u64),
    /// Any version.
    Exists,
    /// Nothing.
    Absent,
}

impl Precondition {
    /// The header and its value.
    pub(crate) fn header(self) -> Option<(&'static str, String)> {
        match self {
            Self::None => None,
            Self::VersionIs(version) => Some(("if-match", etag(version))),
            Self::Exists => Some(("if-match", "*".to_owned())),
            Self::Absent => Some(("if-none-match", "*".to_owned())),
        }
    }
}

impl FromStr for Precondition {
    type Err = String;

    /// What `--if-match` takes: `6`, `v6`, `"v6"` or `*`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "*" {
            return Ok(Self::Exists);
        }
        let digits = text.trim_matches('"');
        let digits = digits.strip_prefix('v').unwrap_or(digits);
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!(
                "not a version: {text:?}, expected for example v6, or *"
            ));
        }
        digits
            .parse()
            .map(Self::VersionIs)
            .map_err(|_| format!("not a version: {text:?}, expected for example v6, or *"))
    }
}

/// How to put.
#[derive(Debug, Clone, Default)]
pub struct PutOptions {
    /// What must be there.
    pub precondition: Precondition,
    /// The same bytes and type make no new version.
    pub skip_unchanged: bool,
    /// The write's own name; made when absent.
    pub idempotency_key: Option<String>,
}

/// Which page of a list.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Most items; the node has its own limit.
    pub limit: Option<u32>,
    /// `nextCursor` of the page before.
    pub cursor: Option<String>,
}

/// Which audit events.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Of this namespace.
    pub namespace: Option<String>,
    /// And of all below it.
    pub recursive: bool,
    /// Of this key; needs the namespace.
    pub key: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_taken_as_people_write_them() {
        for text in ["6", "v6", "\"v6\""] {
            assert_eq!(text.parse(), Ok(Precondition::VersionIs(6)), "{text}");
        }
        assert_eq!("*".parse(), Ok(Precondition::Exists));
        for text in ["", "v", "+6", "six", "v6x"] {
            assert!(text.parse::<Precondition>().is_err(), "{text:?}");
        }
    }
}
