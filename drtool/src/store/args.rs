//! Which object store, from options and environment.

use std::ffi::OsString;
use std::path::Path;

use clap::Args;
use confman_cli::failure::Failure;
use confman_config::StorePlace;
use confman_snapshot::Repository;
use confman_snapshot::repository::RepositoryOptions;
use serde::Deserialize;

use super::errors;
use super::reader::StoreReader;
use crate::codes;
use crate::context::Global;

/// Where `confman dev` is when nobody says where.
const DEV_DIR: &str = "confman-dev";
/// What a dev cluster says of itself, in its directory.
const DEV_FILE: &str = "dev.json";
/// Families of variables that belong to the store.
const FAMILIES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];
/// The part of our own variables that says how the store is spoken to.
const TLS_VARIABLES: &str = "CONFMAN_TLS_STORE_";
const URL_VARIABLE: &str = "CONFMAN_OBJECT_STORE_URL";

/// Options of every command that asks an object store.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Store")]
pub struct StoreArgs {
    /// The object store: s3://bucket/prefix, gs://, az:// or file:///folder; credentials in the variables of its kind,
    /// such as AWS_ENDPOINT_URL and AWS_ACCESS_KEY_ID, certificates in CONFMAN_TLS_STORE_* [default: that of --dev DIR, CONFMAN_OBJECT_STORE_URL, else that of ./confman-dev]
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

impl Target {
    async fn open(self, alter_bodies: bool) -> Result<Repository, Failure> {
        let StorePlace { url, data_dir, tls } = self.place;
        let options = RepositoryOptions {
            tls,
            alter_bodies,
            ..RepositoryOptions::default()
        };
        let opened = Repository::open_existing_with(&url, &data_dir, self.env, options).await;
        opened.map_err(|error| errors::store(&error))
    }
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
    pub fn is_named(&self, global: &Global) -> bool {
        self.store.is_some()
            || global.dev.is_some()
            || std::env::var_os(URL_VARIABLE).is_some_and(|url| !url.is_empty())
            || Path::new(DEV_DIR).join(DEV_FILE).is_file()
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
        let target = self.target(env, global.dev.as_deref(), Path::new("."))?;
        let source = target.source.clone();
        let opened = global.during("the store is looked for", target.open(false));
        let repository = opened.await?;
        global.note(format!("store {} ({source})", repository.url()));
        for name in &repository.settings().ignored {
            global.note(format!(
                "{name} is not known to the store and has no effect"
            ));
        }
        Ok(repository)
    }

    /// The same store with some of its own variables set otherwise, and bodies altered on the way where a probe wants that.
    ///
    /// # Errors
    /// As [`StoreArgs::open`].
    pub async fn open_as(
        &self,
        variables: &[(&str, &str)],
        alter_bodies: bool,
        global: &Global,
    ) -> Result<Repository, Failure> {
        let env = std::env::vars_os().collect();
        let mut target = self.target(env, global.dev.as_deref(), Path::new("."))?;
        for (name, value) in variables {
            target.env.retain(|(there, _)| there != name);
            target.env.push(((*name).to_owned(), (*value).to_owned()));
        }
        global.note(format!("the same store with {variables:?}"));
        target.open(alter_bodies).await
    }

    /// The store, for reading only, by type.
    ///
    /// # Errors
    /// As [`StoreArgs::open`].
    pub async fn reader(&self, global: &Global) -> Result<StoreReader, Failure> {
        Ok(StoreReader::new(self.open(global).await?))
    }

    fn target(
        &self,
        env: Vec<(OsString, OsString)>,
        dev: Option<&Path>,
        cwd: &Path,
    ) -> Result<Target, Failure> {
        let named = env.iter().any(|(k, v)| k == URL_VARIABLE && !v.is_empty());
        let here = cwd.join(DEV_DIR).join(DEV_FILE);
        match (&self.store, dev) {
            (None, Some(dir)) => return of_dev(&dir.join(DEV_FILE)),
            (None, None) if !named && here.is_file() => return of_dev(&here),
            _ => {}
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
        Ok(Target {
            place: place(ours)?,
            env: store_env,
            source: source.to_owned(),
        })
    }
}

fn place(env: Vec<(OsString, OsString)>) -> Result<StorePlace, Failure> {
    StorePlace::from_env(env).map_err(|errors| {
        codes::usage(
            "STORE_CONFIGURATION",
            errors.to_string().trim_end().replace('\n', "; "),
        )
    })
}

fn of_dev(path: &Path) -> Result<Target, Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        codes::local("read", path, &e)
            .with_hint("start a cluster there with `confman dev --dir DIR`")
    })?;
    let dev: DevFile = serde_json::from_str(&text).map_err(|e| {
        codes::usage(
            "LOCAL_FILE",
            format!("{} is not a dev.json: {e}", path.display()),
        )
    })?;
    // Those of the cluster, and none of this shell.
    let (ours, env): (Vec<_>, Vec<_>) = dev
        .object_store
        .env
        .into_iter()
        .partition(|(name, _)| name.starts_with(TLS_VARIABLES));
    let ours = ours
        .into_iter()
        .map(|(name, file)| (name.into(), file.into()));
    Ok(Target {
        place: StorePlace {
            url: dev.object_store.url,
            data_dir: path.parent().unwrap_or(Path::new(".")).to_owned(),
            tls: place(ours.collect())?.tls,
        },
        env,
        source: path.display().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(
        store: Option<&str>,
        env: &[(&str, &str)],
        dev: Option<&Path>,
        cwd: &Path,
    ) -> Result<Target, String> {
        let args = StoreArgs {
            store: store.map(str::to_owned),
        };
        let env = env
            .iter()
            .map(|(k, v)| (OsString::from(k), OsString::from(v)))
            .collect();
        args.target(env, dev, cwd)
            .map_err(|failure| failure.to_string())
    }

    #[test]
    fn the_option_comes_before_the_variable_and_that_before_a_dev_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let lay = |name: &str| {
            let dev = dir.path().join(name);
            std::fs::create_dir(&dev).unwrap();
            let text = format!(
                r#"{{"objectStore":{{"url":"s3://{name}/x","env":{{"AWS_REGION":"dev"}}}},"apiKey":"k"}}"#
            );
            std::fs::write(dev.join(DEV_FILE), text).unwrap();
            dev
        };
        lay(DEV_DIR);
        let named = lay("named");
        let env = [(URL_VARIABLE, "s3://env/x"), ("AWS_REGION", "eu")];
        let target = |store, env: &[_], dev| target(store, env, dev, dir.path());

        let by_option = target(Some("s3://option/x"), &env, Some(&named)).unwrap();
        assert_eq!(by_option.place.url, "s3://option/x");
        assert_eq!(by_option.env, [("AWS_REGION".to_owned(), "eu".to_owned())]);
        let by_dev_option = target(None, &env, Some(&named)).unwrap();
        assert_eq!(by_dev_option.place.url, "s3://named/x");
        assert_eq!(by_dev_option.place.data_dir, named);
        let by_variable = target(None, &env, None).unwrap();
        assert_eq!(by_variable.place.url, "s3://env/x");
        let by_dev = target(None, &env[1..], None).unwrap();
        assert_eq!(by_dev.place.url, "s3://confman-dev/x");
        assert_eq!(by_dev.env, [("AWS_REGION".to_owned(), "dev".to_owned())]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let error = target(Some("nowhere"), &[], None, dir.path()).unwrap_err();
        assert!(error.contains(URL_VARIABLE), "{error}");
        let error = target(None, &[], Some(dir.path()), dir.path()).unwrap_err();
        assert!(error.contains("dev.json"), "{error}");
    }
}
