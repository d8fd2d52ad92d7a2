//! The store's own variables (`AWS_*`, `GOOGLE_*`, `AZURE_*`): which are in force, which are not known, which are secret.

use std::collections::BTreeMap;

use serde::Serialize;

/// Shorter values are no secrets, and striking them out would maim every text.
const SECRET_BYTES_MIN: usize = 6;
const STRUCK: &str = "***";

/// One variable of the store that has an effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SettingInForce {
    /// Its name.
    pub name: String,
    /// Its value; `***` for a secret.
    pub value: String,
}

/// What the environment says to the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreSettings {
    /// Variables that have an effect.
    pub in_force: Vec<SettingInForce>,
    /// Variables of the store's family that have none: misspelt, or of other tools.
    pub ignored: Vec<String>,
}

/// Values that must not appear in an error or a log.
#[derive(Clone, Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    pub(super) fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), STRUCK);
            }
        }
        text
    }
}

/// The family's variables, sorted out.
#[derive(Debug, Clone, Default)]
pub(super) struct Chosen {
    /// Lower case name and value of those that have an effect; `..._FILE` already read.
    pub(super) values: Vec<(String, String)>,
    pub(super) settings: StoreSettings,
    secrets: Vec<String>,
}

impl Chosen {
    pub(super) fn secrets(&self) -> Secrets {
        let mut secrets = self.secrets.clone();
        // Longer ones first: one may be a part of another.
        secrets.sort_by_key(|s| std::cmp::Reverse(s.len()));
        Secrets(secrets)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Sorts out the variables that start with `family`; `known` says whether the store understands a lower case name. A known
/// name with `_FILE` behind it names a file that holds the value, so that it can change while we run.
pub(super) fn choose(
    family: &str,
    env: &BTreeMap<String, String>,
    known: impl Fn(&str) -> bool,
) -> Result<Chosen, String> {
    let mut chosen = Chosen::default();
    for (name, value) in env
        .iter()
        .filter(|(name, value)| name.starts_with(family) && !value.is_empty())
    {
        let lower = name.to_ascii_lowercase();
        if known(&lower) {
            take(&mut chosen, name, lower, value.clone(), is_secret(name));
            continue;
        }
        let base = lower.strip_suffix("_file").filter(|base| known(base));
        let Some(base) = base else {
            chosen.settings.ignored.push(name.clone());
            continue;
        };
        if env
            .get(&base.to_ascii_uppercase())
            .is_some_and(|value| !value.is_empty())
        {
            return Err(format!(
                "both {} and {name} are set",
                base.to_ascii_uppercase()
            ));
        }
        let content =
            std::fs::read_to_string(value).map_err(|e| format!("read {name} {value:?}: {e}"))?;
        take(
            &mut chosen,
            name,
            base.to_owned(),
            content.trim().to_owned(),
            true,
        );
    }
    Ok(chosen)
}

fn take(chosen: &mut Chosen, name: &str, lower: String, value: String, secret: bool) {
    let shown = if secret {
        STRUCK.to_owned()
    } else {
        value.clone()
    };
    if secret && value.len() >= SECRET_BYTES_MIN {
        chosen.secrets.push(value.clone());
    }
    chosen.settings.in_force.push(SettingInForce {
        name: name.to_owned(),
        value: shown,
    });
    chosen.values.push((lower, value));
}

fn is_secret(name: &str) -> bool {
    let marks = ["SECRET", "TOKEN", "PASSWORD", "KEY", "SAS", "CREDENTIAL"];
    !name.ends_with("_FILE") && marks.iter().any(|mark| name.contains(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn known(name: &str) -> bool {
        ["aws_region", "aws_secret_access_key", "aws_session_token"].contains(&name)
    }

    #[test]
    fn unknown_names_of_the_family_are_said_and_others_left_alone() {
        let env = env(&[
            ("AWS_REGION", "eu-1"),
            ("AWS_REGIN", "x"),
            ("AWS_PROFILE", "p"),
            ("HOME", "/"),
            ("AWS_X", ""),
        ]);
        let chosen = choose("AWS_", &env, known).unwrap();
        assert_eq!(chosen.settings.ignored, ["AWS_PROFILE", "AWS_REGIN"]);
        assert_eq!(chosen.get("aws_region"), Some("eu-1"));
        assert_eq!(chosen.settings.in_force[0].value, "eu-1");
    }

    #[test]
    fn x18_secrets_are_struck_out() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "canary-token\n").unwrap();
        let env = env(&[
            ("AWS_SECRET_ACCESS_KEY", "canary-secret"),
            ("AWS_SESSION_TOKEN_FILE", file.to_str().unwrap()),
        ]);
        let chosen = choose("AWS_", &env, known).unwrap();
        assert_eq!(chosen.get("aws_session_token"), Some("canary-token"));
        assert!(
            chosen
                .settings
                .in_force
                .iter()
                .all(|s| !s.value.contains("canary")),
            "{:?}",
            chosen.settings
        );
        let text = chosen
            .secrets()
            .redact("key canary-secret, token canary-token: refused");
        assert_eq!(text, "key ***, token ***: refused");
    }

    #[test]
    fn a_value_and_its_file_together_are_refused() {
        let env = env(&[
            ("AWS_SECRET_ACCESS_KEY", "a"),
            ("AWS_SECRET_ACCESS_KEY_FILE", "/nowhere"),
        ]);
        assert!(choose("AWS_", &env, known).unwrap_err().contains("both"));
    }
}
