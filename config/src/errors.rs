//! What can be wrong with settings; each error names the setting, what was expected and a remedy.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// One wrong setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingError {
    /// A `CONFMAN_*` name that is not declared.
    #[error("{name} is not a setting")]
    Unknown {
        /// As given, made printable.
        name: String,
        /// Declared names near to it, nearest first.
        suggestions: Vec<String>,
        /// Kubernetes makes such names for a service called `confman`.
        service_link: bool,
    },
    /// The value is not of its kind.
    #[error("{name} is {shown}: expected {expected}{}", because(.why.as_deref()))]
    Wrong {
        /// The setting.
        name: String,
        /// The value made printable, or that it is not shown.
        shown: String,
        /// What was expected.
        expected: String,
        /// More about it.
        why: Option<String>,
    },
    /// The value is there but empty.
    #[error("{name} is empty: expected {expected}")]
    Empty {
        /// The setting.
        name: String,
        /// What was expected.
        expected: String,
    },
    /// The same name more than once.
    #[error("{name} is given more than once")]
    Repeated {
        /// The setting.
        name: String,
    },
    /// A secret in the environment and in a file.
    #[error("{name} and {name}_FILE are both set")]
    Both {
        /// The setting.
        name: String,
    },
    /// The file of a secret.
    #[error("{name} names {path}: {why}", path = .path.display())]
    SecretFile {
        /// The setting that names the file.
        name: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Settings that do not go together.
    #[error("{why}")]
    Together {
        /// The settings concerned.
        names: Vec<&'static str>,
        /// What is wrong, with the values.
        why: String,
        /// The remedy.
        hint: String,
    },
}

fn because(why: Option<&str>) -> String {
    why.map_or_else(String::new, |why| format!(" ({why})"))
}

impl SettingError {
    /// The settings concerned.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::Unknown { name, .. }
            | Self::Wrong { name, .. }
            | Self::Empty { name, .. }
            | Self::Repeated { name }
            | Self::Both { name }
            | Self::SecretFile { name, .. } => vec![name],
            Self::Together { names, .. } => names.clone(),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Unknown {
                name,
                service_link: true,
                ..
            } => {
                format!(
                    "Kubernetes sets {name} for a service: set `enableServiceLinks: false` in the pod, or unset it"
                )
            }
            Self::Unknown { suggestions, .. } if suggestions.is_empty() => {
                "unset it; `confman config` in a clean environment lists every setting".to_owned()
            }
            Self::Unknown { suggestions, .. } => {
                format!("did you mean {}?", suggestions.join(" or "))
            }
            Self::Wrong { name, .. } => format!("correct {name}, or unset it for its default"),
            Self::Empty { name, .. } => format!("unset {name} for its default"),
            Self::Repeated { name } => format!("keep one {name}"),
            Self::Both { name } => format!("unset {name} or {name}_FILE"),
            Self::SecretFile { name, .. } => {
                format!("let {name} name a readable file that holds the secret and nothing else")
            }
            Self::Together { hint, .. } => hint.clone(),
        }
    }
}

/// All that is wrong with the settings; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsErrors(pub(crate) Vec<SettingError>);

impl SettingsErrors {
    /// Each error, in the order in which the settings are declared; unknown names first.
    #[must_use]
    pub fn all(&self) -> &[SettingError] {
        &self.0
    }
}

impl fmt::Display for SettingsErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => write!(f, "one setting is wrong")?,
            count => write!(f, "{count} settings are wrong")?,
        }
        for error in &self.0 {
            write!(f, "\n  {error}\n    hint: {}", error.hint())?;
        }
        Ok(())
    }
}

impl Error for SettingsErrors {}

/// For `confman config --json`: `{"names": [...], "problem": "...", "hint": "..."}`.
impl Serialize for SettingError {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("SettingError", 3)?;
        out.serialize_field("names", &self.names())?;
        out.serialize_field("problem", &self.to_string())?;
        out.serialize_field("hint", &self.hint())?;
        out.end()
    }
}

/// The longest piece of a wrong value or name that is repeated in an error.
const SHOWN_CHARS_MAX: usize = 120;

/// Text from outside made fit for a terminal or a log: escaped and bounded.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::new();
    for (at, c) in text.chars().enumerate() {
        if at == SHOWN_CHARS_MAX {
            shown.push('…');
            break;
        }
        // Every character that is not plain is escaped: some invisible ones reorder the line.
        if c.is_ascii_graphic() || c == ' ' || c.is_alphanumeric() {
            shown.push(c);
        } else {
            shown.extend(c.escape_default());
        }
    }
    shown
}
