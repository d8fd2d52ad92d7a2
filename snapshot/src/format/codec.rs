//! Compression of one chunk.

use std::str::FromStr;

use crate::model::ModelError;

/// How a chunk is compressed; recorded with every chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Codec {
    /// Not at all.
    None = 0,
    /// gzip.
    Gzip = 1,
    /// Zstandard.
    Zstd = 2,
}

impl Codec {
    /// The name that settings and records use.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

impl FromStr for Codec {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        match text {
            "none" => Ok(Self::None),
            "gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            _ => Err(ModelError::new("codec", text, "zstd, gzip or none")),
        }
    }
}
