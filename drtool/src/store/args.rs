//! Which object store, from options and environment.

use std::ffi::OsString;
use std::path::Path;

use clap::Args;
use confman_cli::failure::Failure;
use confman_config::StorePlace;
use confman_snapshot::Repository;
use serde::Deserialize;

use super::errors;
use super::reader::StoreReader;
use crate::codes;
use crate::context::Global;

/// Where `confman dev` in the working directory says what its store is.
const DEV_FILE: &str = "confman-dev/dev.json";
/// Families of variables that belong to the store.
const FAMILIES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];
const URL_VARIABLE: &str = "CONFMAN_OBJECT_STORE_URL";

/// Options of every command that asks an object store.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Store")]
pub struct StoreArgs {
    /// The object store: s3://bucket/prefix, gs://, az:// or file:///folder; credentials in the variables of its kind,
    /// such as AWS_ENDPOINT_URL and AWS_ACCESS_KEY_ID [default: CONFMAN_OBJECT_STORE_URL, else that of ./confman-dev]
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
}

/// A store to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    place: StorePlace,
    env: Vec<(String, String)>,
    source: String,
}

/// The part of `dev.json` that says where the store is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DevFile {
    object_store: DevStore,
}

#[derive(Deserialize)]
struct DevStore {
    url: String,
    env: std::collections::BTreeMap<String, String>,
}

impl StoreArgs {
    /// Whether anything says which store is meant: an option, the environment, or a dev cluster in the working directory.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.store.is_some()
            || std::env::var_os(URL_VARIABLE).is_some_and(|url| !url.is_empty())
            || Path::new(DEV_FILE).is_file()
    }

    /// The store, for reading and writing. Nothing is asked of it yet.
    ///
    /// # Errors
    /// The URL or a variable is wrong; a `file://` folder is not there.
    pub async fn open(&self, global: &Global) -> Result<Repository, Failure> {
        self.open_in(std::env::vars_os().collect(), global).await
    }

    /// The store for a given environment, for reading only.
    ///
    /// # Errors
    /// As [`StoreArgs::open`].
    pub async fn reader_in(
        &self,
        env: Vec<(OsString, OsString)>,
        global: &Global,
    ) -> Result<StoreReader, Failure> {
        Ok(StoreReader::new(self.open_in(env, global).await?))
    }

    async fn open_in(
        &self,
        env: Vec<(OsString, OsString)>,
        global: &Global,
    ) -> Result<Repository, Failure> {
        let target = self.target(env, Path::new("."))?;
        let StorePlace { url, data_dir } = &target.place;
        let opened = Repository::open_existing(url, data_dir, target.env).await;
        let repository = opened.map_err(|error| errors::store(&error))?;
        global.note(format!("store {} ({})", repository.url(), target.source));
        for name in &repository.settings().ignored {
            global.note(format!(
                "{name} is not known to the store and has no effect"
            ));
        }
        Ok(repository)
    }

    /// The same store with some of its own variables set otherwise.
    ///
    /// # Errors
    /// As [`StoreArgs::open`].
    pub async fn open_as(
        &self,
        variables: &[(&str, &str)],
        global: &Global,
    ) -> Result<Repository, Failure> {
        let mut target = self.target(std::env::vars_os().collect(), Path::new("."))?;
        for (name, value) in variables {
            target.env.retain(|(there, _)| there != name);
            target.env.push(((*name).to_owned(), (*value).to_owned()));
        }
        global.note(format!("the same store with {variables:?}"));
        let StorePlace { url, data_dir } = &target.place;
        let opened = Repository::open_existing(url, data_dir, target.env).await;
        opened.map_err(|error| errors::store(&error))
    }

    /// The store, for reading only, by type.
    ///
    /// # Errors
    /// As [`StoreArgs::open`].
    pub async fn reader(&self, global: &Global) -> Result<StoreReader, Failure> {
        Ok(StoreReader::new(self.open(global).await?))
    }

    fn target(&self, env: Vec<(OsString, OsString)>, cwd: &Path) -> Result<Target, Failure> {
        let named = env.iter().any(|(k, v)| k == URL_VARIABLE && !v.is_empty());
        let dev = cwd.join(DEV_FILE);
        if self.store.is_none() && !named && dev.is_file() {
            return of_dev(&dev);
        }
        let store_env = env
            .iter()
            .filter_map(|(name, value)| Some((name.to_str()?, value.to_str()?)))
            .filter(|(name, _)| FAMILIES.iter().any(|family| name.starts_with(family)))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut ours: Vec<(OsString, OsString)> = env;
        let source = if let Some(url) = &self.store {
            // The option in the variable's place, so that both are checked alike.
            ours.retain(|(name, _)| name != URL_VARIABLE);
            ours.push((URL_VARIABLE.into(), url.into()));
            "--store"
        } else if named {
            URL_VARIABLE
        } else {
            "default"
        };
        let place = StorePlace::from_env(ours).map_err(|errors| {
            codes::usage(
                "STORE_CONFIGURATION",
                errors.to_string().trim_end().replace('\n', "; "),
            )
        })?;
        Ok(Target {
            place,
            env: store_env,
            source: source.to_owned(),
        })
    }
}

fn of_dev(path: &Path) -> Result<Target, Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| codes::local("read", path, &e))?;
    let dev: DevFile = serde_json::from_str(&text).map_err(|e| {
        codes::usage(
            "LOCAL_FILE",
            format!("{} is not a dev.json: {e}", path.display()),
        )
    })?;
    Ok(Target {
        place: StorePlace {
            url: dev.object_store.url,
            data_dir: path.parent().unwrap_or(Path::new(".")).to_owned(),
        },
        env: dev.object_store.env.into_iter().collect(),
        source: path.display().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(store: Option<&str>, env: &[(&str, &str)], cwd: &Path) -> Result<Target, String> {
        let args = StoreArgs {
            store: store.map(str::to_owned),
        };
        let env = env
            .iter()
            .map(|(k, v)| (OsString::from(k), OsString::from(v)))
            .collect();
        args.target(env, cwd).map_err(|failure| failure.to_string())
    }

    #[test]
    fn the_option_comes_before_the_variable_and_that_before_a_dev_cluster() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("confman-dev")).unwrap();
        let dev = r#"{"objectStore":{"url":"s3://dev/x","env":{"AWS_REGION":"dev"}},"apiKey":"k"}"#;
        std::fs::write(dir.path().join(DEV_FILE), dev).unwrap();
        let env = [(URL_VARIABLE, "s3://env/x"), ("AWS_REGION", "eu")];

        let by_option = target(Some("s3://option/x"), &env, dir.path()).unwrap();
        assert_eq!(by_option.place.url, "s3://option/x");
        assert_eq!(by_option.env, [("AWS_REGION".to_owned(), "eu".to_owned())]);
        let by_variable = target(None, &env, dir.path()).unwrap();
        assert_eq!(by_variable.place.url, "s3://env/x");
        let by_dev = target(None, &env[1..], dir.path()).unwrap();
        assert_eq!(by_dev.place.url, "s3://dev/x");
        assert_eq!(by_dev.env, [("AWS_REGION".to_owned(), "dev".to_owned())]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let error = target(Some("nowhere"), &[], dir.path()).unwrap_err();
        assert!(error.contains(URL_VARIABLE), "{error}");
    }
}
