//! What can be wrong with a keys file; each error names the file and the remedy.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A file of more keys than this is not one of ours.
pub(super) const KEYS_MAX: usize = 10_000;
/// The longest name of a key; it stands in every audit event.
pub(super) const NAME_CHARS_MAX: usize = 64;
/// The actor of a node without keys: no key may pass for it.
pub(super) const NAME_RESERVED: &str = "anonymous";

/// What is wrong with a keys file, or with what is to be done to it.
#[derive(Debug)]
#[non_exhaustive]
pub enum KeysError {
    /// There is no such file.
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Reading or writing it.
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Its content.
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong; no hash is in it.
        why: String,
    },
    /// Who else could write it could make keys.
    WritableByOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A name that cannot be given to a key.
    Name {
        /// The name.
        name: String,
    },
    /// The name is taken.
    NameTaken {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// There is no key of that name.
    NoSuchKey {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// There is no room for another.
    Full {
        /// The file.
        path: PathBuf,
    },
}

impl std::error::Error for KeysError {}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nhint: {}", self.problem(), self.hint())
    }
}

impl KeysError {
    /// What is wrong, on one line; [`fmt::Display`] adds the hint.
    #[must_use]
    pub fn problem(&self) -> String {
        match self {
            Self::Missing { path } => format!("find the keys file {}", path.display()),
            Self::Io {
                action,
                path,
                source,
            } => {
                format!("{action} the keys file {}: {source}", path.display())
            }
            Self::Content { path, why } => format!("read the keys file {}: {why}", path.display()),
            Self::WritableByOthers { path, mode } => {
                format!(
                    "the keys file {} can be written by others (mode {mode:03o})",
                    path.display()
                )
            }
            Self::Name { name } => format!(
                "{name:?} is no name for a key: expected 1 to {NAME_CHARS_MAX} letters, digits, \
                 `.`, `_`, `@` or `-`, and not `{NAME_RESERVED}`"
            ),
            Self::NameTaken { path, name } => {
                format!(
                    "the keys file {} already has a key named `{name}`",
                    path.display()
                )
            }
            Self::NoSuchKey { path, name } => {
                format!(
                    "the keys file {} has no key named `{}`",
                    path.display(),
                    name.escape_debug()
                )
            }
            Self::Full { path } => {
                format!(
                    "the keys file {} has {KEYS_MAX} keys, and that is the limit",
                    path.display()
                )
            }
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        let make = |path: &Path| {
            format!(
                "confman key create --name admin --role admin --file {}",
                path.display()
            )
        };
        match self {
            Self::Missing { path } => format!("make one with `{}`", make(path)),
            Self::Io { path, .. } => {
                format!(
                    "let the user that runs confman read and write {} and its directory",
                    path.display()
                )
            }
            Self::Content { path, .. } => format!(
                "put back a good copy of it, or move it away and make new keys with `{}`",
                make(path)
            ),
            Self::WritableByOthers { path, .. } => format!("chmod 600 {}", path.display()),
            Self::Name { .. } => {
                "choose a name that tells who holds the key, such as `deploy-bot`".to_owned()
            }
            Self::NameTaken { path, name } => format!(
                "choose another name, or revoke that one: confman key revoke --name {name} --file {}",
                path.display()
            ),
            Self::NoSuchKey { path, .. } | Self::Full { path } => {
                format!("see `confman key list --file {}`", path.display())
            }
        }
    }
}
