//! `confman config`: every setting as it is in force and where it comes from, or everything that is wrong.
//!
//! It judges the environment it is run in, asks no server, and shows no secret.

use crate::cli::output::say;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use comfy_table::{Table, presets};
use confman_config::{
    ClientSettings, EffectiveSetting, SettingError, Settings, SettingsErrors, StoreVariable,
    store_environment,
};
use serde::Serialize;

use crate::auth::Keys;

/// The settings are wrong.
const EXIT_WRONG: u8 = 2;

/// Show the settings in force and where each comes from; exit code 2 and every error if any is wrong.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What is in force.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Effective {
    node: Vec<EffectiveSetting>,
    client: Vec<EffectiveSetting>,
    object_store: Vec<StoreVariable>,
    notices: Vec<String>,
}

/// One thing that is wrong; the shape of a [`SettingError`] in JSON.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    names: Vec<String>,
    problem: String,
    hint: String,
}

/// Everything that is wrong.
#[derive(Debug, Serialize)]
struct Wrong {
    errors: Vec<Finding>,
}

/// Prints the settings of this environment. 0: they are right; 2: they are not.
#[must_use]
pub fn run(args: ConfigArgs) -> ExitCode {
    let env: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    match judge(env) {
        Ok(effective) => {
            if args.json {
                print_json(&effective);
            } else {
                print_tables(&effective);
            }
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            if args.json {
                print_json(&wrong);
            }
            for finding in &wrong.errors {
                eprintln!("error: {}\n  hint: {}", finding.problem, finding.hint);
            }
            ExitCode::from(EXIT_WRONG)
        }
    }
}

fn judge(env: Vec<(OsString, OsString)>) -> Result<Effective, Wrong> {
    let client = ClientSettings::from_env(env.clone());
    let mut errors = Vec::new();
    let node = match Settings::from_env(env.clone()) {
        Ok(settings) => {
            errors.extend(keys_finding(&settings));
            errors.extend(tls_findings(&settings));
            Some(settings)
        }
        Err(found) => {
            errors.extend(findings(&found));
            None
        }
    };
    match (node, client) {
        (Some(node), Ok(client)) if errors.is_empty() => Ok(Effective {
            node: node.effective(),
            client: client.effective(),
            object_store: store_environment(env),
            notices: node.notices(),
        }),
        (_, client) => {
            // An unknown name is wrong for both: once is enough.
            for finding in client.err().iter().flat_map(findings) {
                if !errors.contains(&finding) {
                    errors.push(finding);
                }
            }
            Err(Wrong { errors })
        }
    }
}

fn findings(errors: &SettingsErrors) -> Vec<Finding> {
    let finding = |error: &SettingError| Finding {
        names: error.names().into_iter().map(str::to_owned).collect(),
        problem: error.to_string(),
        hint: error.hint(),
    };
    errors.all().iter().map(finding).collect()
}

/// The keys file is read at start, so a start would fail by it too.
fn keys_finding(settings: &Settings) -> Option<Finding> {
    let error = Keys::load(settings.api_keys_file.as_deref()?).err()?;
    Some(Finding {
        names: vec![confman_config::catalog::API_KEYS_FILE.name.to_owned()],
        problem: error.problem(),
        hint: error.hint(),
    })
}

/// So are the TLS files.
fn tls_findings(settings: &Settings) -> Vec<Finding> {
    let store = crate::tls::check_store(settings, SystemTime::now()).err();
    let errors = crate::tls::load(settings).err().into_iter().chain(store);
    let errors: Vec<_> = errors.collect();
    let each = errors.iter().flat_map(|errors| errors.all());
    each.map(|error| Finding {
        names: vec![error.setting.to_owned()],
        problem: error.to_string(),
        hint: error.hint.clone(),
    })
    .collect()
}

fn print_json(document: &impl Serialize) {
    match serde_json::to_string_pretty(document) {
        Ok(text) => say(text),
        Err(error) => eprintln!("error: write JSON: {error}"),
    }
}

fn print_tables(effective: &Effective) {
    say(settings_table(&effective.node));
    say(format_args!("\n{}", settings_table(&effective.client)));
    if !effective.object_store.is_empty() {
        let mut table = new_table(["OBJECT STORE", "VALUE", ""]);
        for variable in &effective.object_store {
            let used = if variable.used {
                ""
            } else {
                "not known to the object store: ignored"
            };
            table.add_row([variable.name.as_str(), &variable.value, used]);
        }
        say(format_args!("\n{table}"));
    }
    for notice in &effective.notices {
        eprintln!("notice: {notice}");
    }
}

fn settings_table(settings: &[EffectiveSetting]) -> Table {
    let mut table = new_table(["SETTING", "VALUE", "SOURCE"]);
    for setting in settings {
        let value = setting.value.as_deref().unwrap_or("-");
        table.add_row([setting.name, value, &setting.source.to_string()]);
    }
    table
}

fn new_table<const COLUMNS: usize>(header: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect()
    }

    #[test]
    fn i20_everything_wrong_is_told_once() {
        let wrong = judge(env(&[
            ("CONFMAN_NODE_NAME", "n"),
            ("CONFMAN_SHARDS", "x"),
            ("CONFMAN_ENDPOINTS", "nowhere"),
            ("CONFMAN_TYPO", "x"),
        ]))
        .expect_err("three mistakes");
        let names: Vec<&str> = wrong
            .errors
            .iter()
            .flat_map(|finding| &finding.names)
            .map(String::as_str)
            .collect();
        assert_eq!(
            names,
            ["CONFMAN_TYPO", "CONFMAN_SHARDS", "CONFMAN_ENDPOINTS"]
        );
    }

    #[test]
    fn i20_a_keys_file_that_a_start_would_refuse_is_told() {
        let wrong = judge(env(&[
            ("CONFMAN_NODE_NAME", "n"),
            ("CONFMAN_API_KEYS_FILE", "/nonexistent/keys.json"),
        ]))
        .expect_err("no such file");
        assert_eq!(wrong.errors.len(), 1);
        assert_eq!(wrong.errors[0].names, ["CONFMAN_API_KEYS_FILE"]);
        assert!(
            wrong.errors[0].hint.contains("confman key create"),
            "{:?}",
            wrong.errors[0]
        );
    }

    #[test]
    fn what_is_in_force_is_shown_without_secrets() {
        let effective = judge(env(&[
            ("CONFMAN_NODE_NAME", "n"),
            ("CONFMAN_CLUSTER_TOKEN", "canary-0123456789"),
            ("CONFMAN_API_KEY", "canary-0123456789"),
            ("AWS_SECRET_ACCESS_KEY", "canary"),
            ("AWS_REGION", "here"),
        ]))
        .expect("right");
        let json = serde_json::to_string(&effective).expect("JSON");
        let tables = format!(
            "{}{}",
            settings_table(&effective.node),
            settings_table(&effective.client)
        );
        assert!(
            !json.contains("canary") && !tables.contains("canary"),
            "{json}"
        );
        assert!(
            json.contains(r#""objectStore":[{"name":"AWS_REGION","value":"here","used":true}"#),
            "{json}"
        );
        assert!(tables.contains("CONFMAN_CLUSTER_TOKEN"), "{tables}");
        for line in tables.lines() {
            assert!(
                !line.contains("CONFMAN_SHARDS") || line.contains("default"),
                "{line}"
            );
        }
    }
}
