//! The kinds of value a setting can have: what is expected, how it is read, how it is shown.
//!
//! A kind never echoes the text it refuses: the caller does, because only the caller knows whether
//! the setting is a secret.

mod place;
mod quantity;

use std::path::PathBuf;

use secrecy::SecretString;

pub use place::{ApiUrl, CollectorUrl, Endpoints, HostPort, Listen, Peers, StoreUrl};
pub use quantity::{Millis, Number, Ratio, Seconds};

/// A value, or why the text is not one where there is more to say than what was expected.
pub type Parsed<T> = Result<T, Option<String>>;

/// What a setting's text must be.
pub trait Kind: Sync {
    /// The typed value.
    type Value;
    /// What is expected, to follow "expected": `a whole number from 1 to 64`.
    fn expected(&self) -> String;
    /// Reads the text.
    ///
    /// # Errors
    /// The reason, if it says more than [`Kind::expected`]. It never contains the text itself.
    fn parse(&self, text: &str) -> Parsed<Self::Value>;
    /// The value as text that [`Kind::parse`] reads again (secrets excepted).
    fn show(&self, value: &Self::Value) -> String;
}

/// Shown in place of a secret.
pub(crate) const NOT_SHOWN: &str = "(set, not shown)";

/// The longest node name: `HOST_NAME_MAX` of Linux.
const NAME_CHARS_MAX: usize = 64;
/// The longest token or key.
const SECRET_CHARS_MAX: usize = 1024;

/// A node name.
pub struct Name;

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    text.len() <= NAME_CHARS_MAX
        && chars
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

impl Kind for Name {
    type Value = String;

    fn expected(&self) -> String {
        format!(
            "1 to {NAME_CHARS_MAX} letters, digits, `.`, `_` or `-`, the first a letter or digit"
        )
    }

    fn parse(&self, text: &str) -> Parsed<String> {
        if is_name(text) {
            Ok(text.to_owned())
        } else {
            Err(None)
        }
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }
}

/// A file or directory; relative ones are relative to the working directory.
pub struct FilePath;

impl Kind for FilePath {
    type Value = PathBuf;

    fn expected(&self) -> String {
        "a path".to_owned()
    }

    fn parse(&self, text: &str) -> Parsed<PathBuf> {
        Ok(PathBuf::from(text))
    }

    fn show(&self, value: &PathBuf) -> String {
        value.display().to_string()
    }
}

/// A key or token; it travels in a header, so it is visible ASCII.
pub struct Secret;

impl Kind for Secret {
    type Value = SecretString;

    fn expected(&self) -> String {
        format!("1 to {SECRET_CHARS_MAX} visible ASCII characters without spaces")
    }

    fn parse(&self, text: &str) -> Parsed<SecretString> {
        let fits = !text.is_empty()
            && text.len() <= SECRET_CHARS_MAX
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits {
            Ok(SecretString::from(text))
        } else {
            Err(None)
        }
    }

    fn show(&self, _: &SecretString) -> String {
        NOT_SHOWN.to_owned()
    }
}

/// Yes or no.
pub struct Flag;

impl Kind for Flag {
    type Value = bool;

    fn expected(&self) -> String {
        "`true` or `false`".to_owned()
    }

    fn parse(&self, text: &str) -> Parsed<bool> {
        match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(None),
        }
    }

    fn show(&self, value: &bool) -> String {
        value.to_string()
    }
}

/// One of a few words.
pub struct Choice<T: 'static>(pub &'static [(&'static str, T)]);

impl<T: Copy + PartialEq + Sync> Kind for Choice<T> {
    type Value = T;

    fn expected(&self) -> String {
        let words: Vec<String> = self.0.iter().map(|(word, _)| format!("`{word}`")).collect();
        match words.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => words.concat(),
        }
    }

    fn parse(&self, text: &str) -> Parsed<T> {
        self.0
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| *value)
            .ok_or(None)
    }

    fn show(&self, value: &T) -> String {
        let word = self
            .0
            .iter()
            .find(|(_, known)| known == value)
            .map(|(word, _)| *word);
        word.unwrap_or_default().to_owned()
    }
}

/// Names the item of a list that is wrong, counting from 1.
fn numbered(noun: &str, at: usize, why: Option<String>) -> Option<String> {
    let place = format!("{noun} {}", at + 1);
    Some(why.map_or_else(
        || format!("{place} is not one"),
        |why| format!("{place}: {why}"),
    ))
}

/// What is logged: `info` or `info,openraft=warn`.
///
/// Stricter than the filter that reads it, which takes a misspelt level for the name of a module.
pub struct LogFilter;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl Kind for LogFilter {
    type Value = String;

    fn expected(&self) -> String {
        "`off`, `error`, `warn`, `info`, `debug` or `trace`, alone or as `module=level`, with commas \
         between, such as `info,openraft=warn`"
            .to_owned()
    }

    fn parse(&self, text: &str) -> Parsed<String> {
        for (at, part) in text.split(',').enumerate() {
            let (module, level) = match part.split_once('=') {
                Some((module, level)) => (Some(module), level),
                None => (None, part),
            };
            let is_path = |module: &str| {
                module.split("::").all(|segment| {
                    !segment.is_empty()
                        && segment
                            .bytes()
                            .all(|b| b.is_ascii_alphanumeric() || b == b'_')
                })
            };
            if !LEVELS.contains(&level) || module.is_some_and(|module| !is_path(module)) {
                return Err(numbered("part", at, None));
            }
        }
        Ok(text.to_owned())
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }
}
