//! This machine's environment, as a node and a client that are started in it would judge it.

use std::ffi::OsString;

use confman_config::{ClientSettings, SettingError, Settings, SettingsErrors, SnapshotSettings};

use super::report::{Check, Outcome, Subject};

const VIEW: &str = "this machine's environment";

/// An environment, judged.
pub(super) struct Judged {
    pub(super) checks: Vec<Check>,
    /// The thresholds of snapshots that a node here would have; none when the settings are wrong.
    pub(super) snapshots: Option<SnapshotSettings>,
    /// The environment less what is wrong with it, so that the rest can still be used.
    pub(super) usable: Vec<(OsString, OsString)>,
}

/// Everything that is wrong, at once.
pub(super) fn judge(env: Vec<(OsString, OsString)>) -> Judged {
    let ours = |name: &OsString| name.to_string_lossy().starts_with("CONFMAN_");
    let given: Vec<String> = env
        .iter()
        .filter(|(name, _)| ours(name))
        .map(|(name, _)| name.to_string_lossy().into_owned())
        .collect();
    let node = Settings::from_env(env.clone());
    let client = ClientSettings::from_env(env.clone());
    let mut mistakes: Vec<SettingError> = Vec::new();
    for error in all(node.as_ref().err()).chain(all(client.as_ref().err())) {
        // An unknown name is wrong for both: once is enough. What nobody set is not this environment's mistake: an
        // operator's machine need not be a node.
        if !mistakes.contains(error) && concerns(error, &given) {
            mistakes.push(error.clone());
        }
    }
    let mut checks: Vec<Check> = mistakes
        .iter()
        .map(|error| {
            Check::not(
                Subject::Settings,
                Outcome::Problem,
                "SETTING_WRONG",
                VIEW,
                error.to_string(),
                error.hint(),
            )
        })
        .collect();
    let is_node = given
        .iter()
        .any(|name| name == "CONFMAN_NODE_NAME" || name == "CONFMAN_PEERS");
    if let Ok(settings) = &node
        && is_node
    {
        checks.extend(settings.notices().into_iter().map(|notice| {
            Check::not(
                Subject::Settings,
                Outcome::Warning,
                "SETTING_RISKY",
                VIEW,
                notice,
                "`confman config` shows every setting",
            )
        }));
    }
    if checks.is_empty() {
        let what = match given.len() {
            0 => "no CONFMAN_ variable is set: the defaults are in force".to_owned(),
            1 => "1 CONFMAN_ variable, nothing wrong".to_owned(),
            n => format!("{n} CONFMAN_ variables, nothing wrong"),
        };
        checks.push(Check::ok(Subject::Settings, VIEW, what));
    }
    let wrong = |name: &OsString| {
        let name = name.to_string_lossy();
        mistakes.iter().any(|error| concerns_name(error, &name))
    };
    Judged {
        checks,
        snapshots: node.ok().map(|settings| settings.snapshot),
        usable: env.into_iter().filter(|(name, _)| !wrong(name)).collect(),
    }
}

fn all(errors: Option<&SettingsErrors>) -> impl Iterator<Item = &SettingError> {
    errors.into_iter().flat_map(|errors| errors.all())
}

fn concerns(error: &SettingError, given: &[String]) -> bool {
    given.iter().any(|name| concerns_name(error, name))
}

/// Whether the error is about that variable, or about the one that it takes the place of.
fn concerns_name(error: &SettingError, name: &str) -> bool {
    let base = name.strip_suffix("_FILE").unwrap_or(name);
    error.names().iter().any(|told| {
        // A value that was derived is told as `NAME (from OTHER)`.
        told.split([' ', '(', ')'])
            .any(|word| word == name || word == base)
    })
}
