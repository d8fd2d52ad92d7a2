//! The name of a snapshot: where in the log it was taken, in which life of the cluster, and a nonce.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::{ModelError, Position};

const EXPECTED: &str =
    "index-incarnation-term-nonce, zero padded to 20, 10, 10 digits and 8 hex digits";

/// The name of a snapshot: `{index:020}-{incarnation:010}-{term:010}-{nonce:08x}`. Sorts as the log does, so long
/// as incarnation and term stay below 10^10. The nonce tells apart two builds of one position.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Message)]
pub struct SnapshotId {
    /// The index of the last log entry that is in the snapshot.
    #[prost(uint64, tag = "1")]
    pub index: u64,
    /// The incarnation of the cluster that wrote it.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// The term of that last entry.
    #[prost(uint64, tag = "3")]
    pub term: u64,
    /// Random, so that two builders never write one object.
    #[prost(uint32, tag = "4")]
    pub nonce: u32,
}

impl SnapshotId {
    /// The id of a snapshot at `position`, with a nonce that the caller drew.
    pub fn new(position: Position, incarnation: u64, nonce: u32) -> Self {
        Self {
            index: position.index,
            incarnation,
            term: position.term,
            nonce,
        }
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:020}-{:010}-{:010}-{:08x}",
            self.index, self.incarnation, self.term, self.nonce
        )
    }
}

impl FromStr for SnapshotId {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        let wrong = || {
            ModelError::new(
                "snapshot id",
                text.chars().take(120).collect::<String>(),
                EXPECTED,
            )
        };
        let mut parts = text.split('-');
        let mut number = || {
            parts
                .next()
                .and_then(|p| p.parse::<u64>().ok())
                .ok_or_else(wrong)
        };
        let (index, incarnation, term) = (number()?, number()?, number()?);
        let nonce = parts
            .next()
            .and_then(|p| u32::from_str_radix(p, 16).ok())
            .ok_or_else(wrong)?;
        let id = Self {
            index,
            incarnation,
            term,
            nonce,
        };
        // One text per id: signs, capitals and missing zeros are refused.
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(wrong())
        }
    }
}

impl Serialize for SnapshotId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SnapshotId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
