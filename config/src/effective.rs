//! What is in force and where it comes from.

use std::fmt;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The environment.
    Environment,
    /// The file named by the `_FILE` variable.
    File(PathBuf),
    /// Another setting, or the machine: `CONFMAN_API_LISTEN`, `host name`.
    From(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(f, "default"),
            Self::Environment => write!(f, "environment"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::From(what) => write!(f, "from {what}"),
        }
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One setting as it is in force; a secret is never in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveSetting {
    /// The setting.
    pub name: &'static str,
    /// Its value as text; `None` when it is not set and has no default.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: Source,
}
