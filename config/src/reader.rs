//! Takes settings out of an environment, collecting everything that is wrong and what is in force.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use crate::catalog::{self, FILE_SUFFIX, Fallback, Setting};
use crate::effective::{EffectiveSetting, Source};
use crate::errors::{SettingError, SettingsErrors, printable};
use crate::kinds::{Kind, NOT_SHOWN};
use crate::machine::Machine;
use crate::suggest;

/// What is ours in the environment.
pub(crate) const PREFIX: &str = "CONFMAN_";

/// Our part of an environment while it is being read.
pub(crate) struct Reader<'m> {
    machine: &'m dyn Machine,
    given: BTreeMap<String, OsString>,
    errors: Vec<SettingError>,
    effective: Vec<EffectiveSetting>,
}

impl<'m> Reader<'m> {
    /// Takes what is ours out of the environment and refuses the names nobody declared.
    pub(crate) fn new(
        env: impl IntoIterator<Item = (OsString, OsString)>,
        machine: &'m dyn Machine,
    ) -> Self {
        let mut reader = Self {
            machine,
            given: BTreeMap::new(),
            errors: Vec::new(),
            effective: Vec::new(),
        };
        let mut unknown = BTreeMap::new();
        for (name, value) in env {
            let name = name.to_string_lossy().into_owned();
            // In any case: a name in lower case was surely meant for us, and must not be passed over.
            let ours = name
                .get(..PREFIX.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
            if !ours {
                continue;
            }
            if !catalog::names().any(|known| known == name) {
                unknown.insert(name, value);
            } else if let Some(_first) = reader.given.insert(name.clone(), value) {
                reader.errors.push(SettingError::Repeated { name });
            }
        }
        for (name, value) in unknown {
            reader.errors.push(SettingError::Unknown {
                suggestions: suggest::nearest(&name, catalog::names()),
                service_link: is_service_link(&name, &value.to_string_lossy()),
                name: printable(&name),
            });
        }
        reader
    }

    pub(crate) fn machine(&self) -> &'m dyn Machine {
        self.machine
    }

    pub(crate) fn refuse(&mut self, error: SettingError) {
        self.errors.push(error);
    }

    /// The value given, or that of its fallback text. `None` when neither is there or it is wrong; then
    /// the error is already noted.
    pub(crate) fn read<K: Kind>(&mut self, setting: &Setting<K>) -> Option<K::Value> {
        let (text, source) = match (self.given_text(setting), setting.fallback) {
            (Given::Text(text, source), _) => (text, source),
            (Given::Wrong, _) => return None,
            (Given::Nothing, Fallback::Text(text)) => (text.to_owned(), Source::Default),
            (Given::Nothing, Fallback::Nothing(_)) => {
                self.note(setting, None, Source::Default);
                return None;
            }
            // Whoever derives it notes it.
            (Given::Nothing, Fallback::Derived(_)) => return None,
        };
        let value = self.parse(setting, setting.name, &text)?;
        self.note(setting, Some(&value), source);
        Some(value)
    }

    /// The value given; else the one that `derive` makes out of the source it names, checked alike.
    pub(crate) fn read_or<K: Kind>(
        &mut self,
        setting: &Setting<K>,
        derived: Option<(String, &'static str)>,
    ) -> Option<K::Value> {
        if self.is_given(setting) {
            return self.read(setting);
        }
        let (text, from) = derived?;
        let value = self.parse(setting, &format!("{} (from {from})", setting.name), &text)?;
        self.note(setting, Some(&value), Source::From(from));
        Some(value)
    }

    /// Whether somebody set it, rightly or wrongly.
    pub(crate) fn is_given<K>(&self, setting: &Setting<K>) -> bool {
        self.given.contains_key(setting.name)
            || setting.secret && self.given.contains_key(&file_name(setting))
    }

    /// What is in force, or everything that is wrong.
    pub(crate) fn finish(self) -> Result<Vec<EffectiveSetting>, SettingsErrors> {
        if self.errors.is_empty() {
            Ok(self.effective)
        } else {
            Err(SettingsErrors(self.errors))
        }
    }

    fn note<K: Kind>(&mut self, setting: &Setting<K>, value: Option<&K::Value>, source: Source) {
        let value = value.map(|value| {
            if setting.secret {
                NOT_SHOWN.to_owned()
            } else {
                setting.kind.show(value)
            }
        });
        self.effective.push(EffectiveSetting {
            name: setting.name,
            value,
            source,
        });
    }

    fn parse<K: Kind>(&mut self, setting: &Setting<K>, name: &str, text: &str) -> Option<K::Value> {
        let expected = || setting.kind.expected();
        if text.is_empty() {
            self.errors.push(SettingError::Empty {
                name: name.to_owned(),
                expected: expected(),
            });
            return None;
        }
        // The URL parser drops tabs and line ends; what was checked must be what is used.
        let parsed = if text.chars().any(char::is_control) {
            Err(Some("it contains a control character".to_owned()))
        } else {
            setting.kind.parse(text)
        };
        match parsed {
            Ok(value) => Some(value),
            Err(why) => {
                let shown = if setting.secret || looks_secret(text) {
                    NOT_SHOWN.to_owned()
                } else {
                    format!("`{}`", printable(text))
                };
                self.errors.push(SettingError::Wrong {
                    name: name.to_owned(),
                    shown,
                    expected: expected(),
                    why,
                });
                None
            }
        }
    }

    fn given_text<K: Kind>(&mut self, setting: &Setting<K>) -> Given {
        let file_setting = file_name(setting);
        let direct = self.given.get(setting.name).cloned();
        let file = if setting.secret {
            self.given.get(&file_setting).cloned()
        } else {
            None
        };
        match (direct, file) {
            (None, None) => Given::Nothing,
            (Some(_), Some(_)) => {
                self.errors.push(SettingError::Both {
                    name: setting.name.to_owned(),
                });
                Given::Wrong
            }
            (Some(text), None) => match text.into_string() {
                Ok(text) => Given::Text(text, Source::Environment),
                Err(text) => {
                    let shown = if setting.secret {
                        NOT_SHOWN.to_owned()
                    } else {
                        format!("`{}`", printable(&text.to_string_lossy()))
                    };
                    self.errors.push(SettingError::Wrong {
                        name: setting.name.to_owned(),
                        shown,
                        expected: setting.kind.expected(),
                        why: Some("it is not UTF-8".to_owned()),
                    });
                    Given::Wrong
                }
            },
            (None, Some(path)) => self.read_file(file_setting, PathBuf::from(path)),
        }
    }

    fn read_file(&mut self, name: String, path: PathBuf) -> Given {
        if path.as_os_str().is_empty() {
            self.errors.push(SettingError::Empty {
                name,
                expected: "a path".to_owned(),
            });
            return Given::Wrong;
        }
        let read = self
            .machine
            .read_secret(&path)
            .map_err(|error| error.to_string())
            .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned()))
            .map(|text| text.trim_end_matches(['\n', '\r']).to_owned())
            .and_then(|text| {
                if text.is_empty() {
                    Err("it is empty".to_owned())
                } else {
                    Ok(text)
                }
            });
        match read {
            Ok(text) => Given::Text(text, Source::File(path)),
            Err(why) => {
                let path = PathBuf::from(printable(&path.to_string_lossy()));
                self.errors
                    .push(SettingError::SecretFile { name, path, why });
                Given::Wrong
            }
        }
    }
}

enum Given {
    Text(String, Source),
    Wrong,
    Nothing,
}

fn file_name<K>(setting: &Setting<K>) -> String {
    format!("{}{FILE_SUFFIX}", setting.name)
}

/// A URL with a password in it, put where no password belongs.
fn looks_secret(text: &str) -> bool {
    text.contains("://") && text.contains('@')
}

/// `CONFMAN_SERVICE_HOST`, `CONFMAN_PORT_6100_TCP_ADDR`, ... as Kubernetes makes them.
fn is_service_link(name: &str, value: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || value.starts_with("tcp://") && name.contains("_PORT")
        || name.contains("_PORT_") && (name.contains("_TCP") || name.contains("_UDP"))
}
