//! An environment and a machine made of constants.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;

use confman_config::{Machine, Settings, SettingsErrors};

/// A machine with a host name and a few secret files.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) host_name: Option<String>,
    pub(crate) files: BTreeMap<&'static str, Vec<u8>>,
}

impl Machine for Fake {
    fn host_name(&self) -> Option<String> {
        self.host_name.clone()
    }

    fn read_secret(&self, path: &Path) -> io::Result<Vec<u8>> {
        let content = path.to_str().and_then(|path| self.files.get(path));
        content
            .cloned()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

/// A machine called `node1`.
pub(crate) fn machine() -> Fake {
    Fake {
        host_name: Some("node1".to_owned()),
        files: BTreeMap::new(),
    }
}

/// The environment as a process gets it.
pub(crate) fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)))
        .collect()
}

pub(crate) fn resolve(pairs: &[(&str, &str)]) -> Result<Settings, SettingsErrors> {
    Settings::resolve(env(pairs), &machine())
}

/// The errors as one text.
pub(crate) fn refusal(pairs: &[(&str, &str)]) -> String {
    match resolve(pairs) {
        Ok(_) => panic!("{pairs:?} was taken"),
        Err(errors) => {
            assert!(!errors.all().is_empty(), "a refusal without a reason");
            errors.to_string()
        }
    }
}

/// The one error that there must be.
pub(crate) fn only_refusal(pairs: &[(&str, &str)]) -> String {
    let text = refusal(pairs);
    assert!(
        text.starts_with("one setting is wrong\n"),
        "expected one error: {text}"
    );
    text
}
