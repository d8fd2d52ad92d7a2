//! The version token: a position that a client can carry from a write to a read.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// `incarnation.term.index` in the group that the request was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionToken {
    /// The cluster's life.
    pub incarnation: u64,
    /// The leader's term.
    pub term: u64,
    /// The log index.
    pub index: u64,
}

/// Text that is no version token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a version token: {text:?}, expected incarnation.term.index, for example 1.3.42")]
pub struct ParseTokenError {
    /// What was given.
    pub text: String,
}

impl fmt::Display for VersionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.incarnation, self.term, self.index)
    }
}

impl FromStr for VersionToken {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |part: Option<&str>| -> Option<u64> {
            let part = part?;
            // `parse` alone takes a leading plus.
            (!part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
                .then(|| part.parse().ok())?
        };
        let parsed = || {
            let mut parts = text.split('.');
            let token = Self {
                incarnation: number(parts.next())?,
                term: number(parts.next())?,
                index: number(parts.next())?,
            };
            parts.next().is_none().then_some(token)
        };
        parsed().ok_or_else(|| ParseTokenError {
            text: text.chars().take(80).collect(),
        })
    }
}

impl Serialize for VersionToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for VersionToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_what_is_no_token() {
        for text in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "a.b.c",
            "1..3",
            "+1.2.3",
            "1.2.-3",
            " 1.2.3",
            "1.2.99999999999999999999",
        ] {
            assert!(text.parse::<VersionToken>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn prints_and_parses_to_itself(incarnation: u64, term: u64, index: u64) {
            let token = VersionToken { incarnation, term, index };
            prop_assert_eq!(token.to_string().parse::<VersionToken>(), Ok(token));
        }
    }
}
