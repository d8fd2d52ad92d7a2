//! `confman key`: makes, lists and revokes API keys in a file. No server is asked.

use crate::cli::output::say;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use confman_cli::failure::Failure;
use confman_client::ErrorKind;
use serde_json::json;

use super::Role;
use super::error::KeysError;
use super::file::{create_key, create_token, list_keys, revoke_key, role_from_word};

/// Make, list and revoke API keys in a file.
#[derive(Debug, Args)]
pub struct KeyArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a key and print it: this once, and never again. Only its hash is kept
    Create {
        /// Who holds it; the actor in the audit history
        #[arg(long)]
        name: String,
        /// What it may do: admin, publisher, editor or viewer
        #[arg(long, value_parser = role_from_word)]
        role: Role,
        #[command(flatten)]
        common: Common,
    },
    /// Make what a new cluster needs, where it is missing: an admin key in DIR/api-keys.json, printed this once, and
    /// DIR/cluster-token. What is there stays, so that it can be run at every start
    Init {
        /// A directory that every node can read and nobody else
        dir: PathBuf,
        /// Print one JSON document on stdout: the files, which of them were made now, and the key where it was
        #[arg(long)]
        json: bool,
    },
    /// List names and roles
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Take a key away; running nodes refuse it within about a second
    Revoke {
        /// The key's name
        #[arg(long)]
        name: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
struct Common {
    /// The keys file
    #[arg(long, env = "CONFMAN_API_KEYS_FILE")]
    file: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Does what `confman key` was asked for.
pub(crate) fn run(args: KeyArgs) -> Result<ExitCode, Failure> {
    act(args.action)
        .map(|()| ExitCode::SUCCESS)
        .map_err(|error| {
            let kind = match error {
                KeysError::NameTaken { .. } | KeysError::Full { .. } => ErrorKind::Refused,
                KeysError::NoSuchKey { .. } => ErrorKind::NotFound,
                _ => ErrorKind::Usage,
            };
            Failure::new(kind, error.problem()).with_hint(error.hint())
        })
}

fn act(action: Action) -> Result<(), KeysError> {
    match action {
        Action::Create { name, role, common } => {
            let key = create_key(&common.file, &name, role)?;
            if common.json {
                print_json(&json!({"name": name, "role": role.word(), "key": key}));
            } else {
                say(&key);
            }
            eprintln!(
                "made the key `{name}` ({}) and kept its hash in {}; the key itself is not kept",
                role.word(),
                common.file.display()
            );
        }
        Action::Init { dir, json } => init(&dir, json)?,
        Action::List { common } => {
            let keys = list_keys(&common.file)?;
            if common.json {
                print_json(&json!({"items": keys, "nextCursor": null}));
                return Ok(());
            }
            let mut table = comfy_table::Table::new();
            table
                .load_style(comfy_table::presets::NOTHING)
                .set_header(["NAME", "ROLE", "CREATED"]);
            for key in keys {
                table.add_row([
                    key.name,
                    key.role.word().to_owned(),
                    format!("{:.6}", key.created_at),
                ]);
            }
            say(&table);
        }
        Action::Revoke { name, common } => {
            let key = revoke_key(&common.file, &name)?;
            if common.json {
                print_json(&json!(key));
            }
            eprintln!("revoked the key `{name}` ({})", key.role.word());
        }
    }
    Ok(())
}

/// The name of the key that [`init`] makes.
const FIRST_KEY: &str = "admin";

fn init(dir: &Path, json: bool) -> Result<(), KeysError> {
    let (keys, token) = (dir.join("api-keys.json"), dir.join("cluster-token"));
    // The token first: whoever reads the key in a log finds the rest in place.
    let made = create_token(&token)?;
    eprintln!("{} {}", if made { "made" } else { "kept" }, token.display());
    let key = create_key(&keys, FIRST_KEY, Role::Admin);
    if json {
        let new = match &key {
            Ok(key) => Some(key.to_string()),
            Err(KeysError::NameTaken { .. }) => None,
            Err(_) => return key.map(|_| ()),
        };
        print_json(&json!({
            "tokenFile": token, "tokenMade": made, "keysFile": keys, "keyMade": new.is_some(), "key": new,
        }));
    }
    match key {
        Ok(key) => {
            if !json {
                say(format_args!("CONFMAN_API_KEY={key}"));
            }
            eprintln!(
                "made the key `{FIRST_KEY}` and kept its hash in {}; the key itself is not kept",
                keys.display()
            );
        }
        Err(KeysError::NameTaken { .. }) => eprintln!(
            "kept {}; for another key: confman key create",
            keys.display()
        ),
        Err(error) => return Err(error),
    }
    Ok(())
}

fn print_json(document: &serde_json::Value) {
    say(format_args!("{document:#}"));
}
