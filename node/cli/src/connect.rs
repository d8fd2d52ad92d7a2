//! From options and environment to a client.
//!
//! The first that applies: `--endpoints`, `--dev`, `CONFMAN_ENDPOINTS` and `CONFMAN_API_KEY`, a `./confman-dev/dev.json`
//! that is there, the default endpoint. `-v` says on stderr which it was.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use confman_client::{
    Client, ClientConfig, ClientFiles, ClientTls, Endpoint, NamedFile, parse_endpoints,
};
use confman_config::{ClientSettings, ClientTlsSettings, SecretString, catalog};
use serde::Deserialize;

use crate::failure::Failure;

const DEV_DIR_DEFAULT: &str = "confman-dev";

/// Options of every command that asks a cluster.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectArgs {
    /// Which cluster.
    #[command(flatten)]
    pub to: TargetArgs,
    /// Say on stderr what is asked and who answers
    #[arg(short, long)]
    pub verbose: bool,
}

/// Which cluster, for programs that have a `--verbose` of their own.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub struct TargetArgs {
    /// Nodes to ask: URLs with commas between [default: CONFMAN_ENDPOINTS, else http://127.0.0.1:6100]
    #[arg(long, value_name = "URLS")]
    pub endpoints: Option<String>,
    /// File that holds the API key [default: CONFMAN_API_KEY or CONFMAN_API_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Endpoints and key of the `confman dev` cluster in this directory [default: ./confman-dev if it is there and no CONFMAN_ variable says otherwise]
    #[arg(long, value_name = "DIR", conflicts_with = "endpoints")]
    pub dev: Option<PathBuf>,
    /// Give up after this long; large values get more
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
}

/// `--json`, for commands that have something to say.
#[derive(Debug, Clone, Copy, Args)]
pub struct OutputArgs {
    /// Print one JSON document on stdout and everything else on stderr
    #[arg(long)]
    pub json: bool,
}

/// Whom to ask, and with which key.
#[derive(Debug)]
pub struct Target {
    /// Nodes to ask, at least one.
    pub endpoints: Vec<Endpoint>,
    /// The key to present.
    pub api_key: Option<SecretString>,
    /// Whom to trust with https, and what to show.
    pub tls: ClientTls,
    /// Where that is from, in words.
    pub source: String,
}

/// The part of `dev.json` that a client needs.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DevFile {
    api_key: String,
    endpoints: Vec<String>,
    #[serde(default)]
    tls: Option<DevTls>,
}

/// What a client of a `confman dev --tls` cluster trusts.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DevTls {
    ca_file: PathBuf,
}

impl ConnectArgs {
    /// A client for what the options and this process's environment say.
    pub fn client(&self) -> Result<Client, Failure> {
        self.client_for_work(None)
    }

    /// The same, whose requests carry one correlation id.
    pub fn client_for_work(&self, correlation_id: Option<String>) -> Result<Client, Failure> {
        self.to.client(self.verbose, correlation_id)
    }

    /// Says with `-v` who answered.
    pub fn note<T>(&self, answered: &confman_client::Answered<T>) {
        if self.verbose {
            let token = answered
                .token
                .map_or_else(|| "-".to_owned(), |token| token.to_string());
            let request = answered.request_id.as_deref().unwrap_or("-");
            eprintln!(
                "answered by {} at version {token}, request {request}",
                answered.endpoint
            );
        }
    }
}

impl TargetArgs {
    /// A client for what the options and this process's environment say; `verbose` says on stderr what that is.
    pub fn client(&self, verbose: bool, correlation_id: Option<String>) -> Result<Client, Failure> {
        self.client_in(std::env::vars_os().collect(), verbose, correlation_id)
    }

    /// The same for a given environment.
    pub fn client_in(
        &self,
        env: Vec<(OsString, OsString)>,
        verbose: bool,
        correlation_id: Option<String>,
    ) -> Result<Client, Failure> {
        let target = self.target(env, Path::new("."))?;
        if verbose {
            let urls: Vec<_> = target.endpoints.iter().map(ToString::to_string).collect();
            let key = if target.api_key.is_some() {
                "with an API key"
            } else {
                "without an API key"
            };
            eprintln!("asking {} {key} ({})", urls.join(", "), target.source);
        }
        let mut config = ClientConfig::new(target.endpoints);
        config.api_key = target.api_key;
        config.tls = target.tls;
        config.deadline = Duration::from_secs(self.timeout);
        config.correlation_id = correlation_id;
        Ok(Client::new(config)?)
    }

    /// Whether a key would be sent.
    pub fn has_key(&self, env: Vec<(OsString, OsString)>) -> bool {
        self.target(env, Path::new("."))
            .is_ok_and(|target| target.api_key.is_some())
    }

    /// What the options, an environment and a working directory say.
    pub fn target(&self, env: Vec<(OsString, OsString)>, cwd: &Path) -> Result<Target, Failure> {
        let named = |name: &str| env.iter().any(|(k, v)| k == name && !v.is_empty());
        let from_env = [
            "CONFMAN_ENDPOINTS",
            "CONFMAN_API_KEY",
            "CONFMAN_API_KEY_FILE",
        ]
        .into_iter()
        .any(named);
        let settings = ClientSettings::from_env(env).map_err(|errors| {
            let lines: Vec<_> = errors
                .all()
                .iter()
                .map(|e| format!("{e} ({})", e.hint()))
                .collect();
            Failure::usage(lines.join("; ")).with_hint("`confman config` shows every setting")
        })?;
        let tls = client_tls(&settings.tls)?;
        let mut target = if let Some(dir) = &self.dev {
            dev_target(dir)?
        } else if let Some(text) = &self.endpoints {
            let endpoints = parse_endpoints(text)?;
            let dev = dev_target_of(&cwd.join(DEV_DIR_DEFAULT), &endpoints);
            let (dev_key, dev_tls) = dev.map(|dev| (dev.api_key, dev.tls)).unzip();
            Target {
                endpoints,
                api_key: settings.api_key.or(dev_key.flatten()),
                tls: match settings.tls == ClientTlsSettings::default() {
                    true => dev_tls.unwrap_or(tls),
                    false => tls,
                },
                source: "--endpoints".to_owned(),
            }
        } else if !from_env && cwd.join(DEV_DIR_DEFAULT).join("dev.json").is_file() {
            dev_target(&cwd.join(DEV_DIR_DEFAULT))?
        } else {
            let source = if from_env {
                "CONFMAN_ variables"
            } else {
                "default"
            };
            Target {
                endpoints: parse_endpoints(&settings.endpoints.join(","))?,
                api_key: settings.api_key,
                tls,
                source: source.to_owned(),
            }
        };
        if let Some(path) = &self.api_key_file {
            let text =
                std::fs::read_to_string(path).map_err(|e| Failure::local("read", path, &e))?;
            let key = text.trim();
            if key.is_empty() || key.lines().count() > 1 {
                return Err(Failure::usage(format!(
                    "{} is to hold one line, the API key",
                    path.display()
                )));
            }
            target.api_key = Some(SecretString::from(key));
        }
        Ok(target)
    }
}

fn read_dev(dir: &Path) -> Result<DevFile, Failure> {
    let path = dir.join("dev.json");
    let text = std::fs::read_to_string(&path).map_err(|e| {
        Failure::local("read", &path, &e)
            .with_hint("start a cluster there with `confman dev --dir DIR`")
    })?;
    serde_json::from_str(&text)
        .map_err(|e| Failure::usage(format!("{} is not a dev.json: {e}", path.display())))
}

fn dev_target(dir: &Path) -> Result<Target, Failure> {
    let dev = read_dev(dir)?;
    let tls = ClientTlsSettings {
        ca_file: dev.tls.map(|tls| tls.ca_file),
        identity: None,
    };
    Ok(Target {
        endpoints: parse_endpoints(&dev.endpoints.join(","))?,
        tls: client_tls(&tls)?,
        api_key: Some(SecretString::from(dev.api_key)),
        source: dir.join("dev.json").display().to_string(),
    })
}

/// A dev cluster, when all the endpoints are nodes of it: its key goes to nobody else.
fn dev_target_of(dir: &Path, endpoints: &[Endpoint]) -> Option<Target> {
    let target = dev_target(dir).ok()?;
    endpoints
        .iter()
        .all(|endpoint| target.endpoints.contains(endpoint))
        .then_some(target)
}

/// Whom this process's environment and working directory say to trust, for who asks nodes by addresses of their own.
///
/// # Errors
/// A setting or a file is wrong.
pub fn tls_here() -> Result<ClientTls, Failure> {
    let nobody = TargetArgs {
        endpoints: None,
        api_key_file: None,
        dev: None,
        timeout: 1,
    };
    let target = nobody.target(std::env::vars_os().collect(), Path::new("."))?;
    Ok(target.tls)
}

/// What the files that the settings name are good for.
///
/// # Errors
/// All that is wrong with them.
pub fn client_tls(settings: &ClientTlsSettings) -> Result<ClientTls, Failure> {
    let named = |setting: &'static str, path: &PathBuf| NamedFile::new(setting, path);
    let files = ClientFiles {
        ca: settings
            .ca_file
            .as_ref()
            .map(|path| named(catalog::TLS_CLIENT_CA_FILE.name, path)),
        identity: settings.identity.as_ref().map(|(cert, key)| {
            (
                named(catalog::TLS_CLIENT_CERT_FILE.name, cert),
                named(catalog::TLS_CLIENT_KEY_FILE.name, key),
            )
        }),
    };
    files.load(SystemTime::now()).map_err(|errors| {
        let each: Vec<String> = errors.all().iter().map(ToString::to_string).collect();
        let hint = errors
            .all()
            .first()
            .map(|e| e.hint.clone())
            .unwrap_or_default();
        Failure::usage(each.join("; ")).with_hint(hint)
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use confman_config::ExposeSecret;

    use super::*;

    #[derive(Parser)]
    struct Wrapper {
        #[command(flatten)]
        connect: ConnectArgs,
    }

    fn target(
        args: &[&str],
        env: &[(&str, &str)],
        cwd: &Path,
    ) -> Result<(Vec<String>, Option<String>), String> {
        let args = Wrapper::try_parse_from([&["x"], args].concat())
            .unwrap()
            .connect
            .to;
        let env = env
            .iter()
            .map(|(k, v)| (OsString::from(k), OsString::from(v)))
            .collect();
        let target = args
            .target(env, cwd)
            .map_err(|failure| failure.to_string())?;
        let key = target.api_key.map(|key| key.expose_secret().to_owned());
        Ok((
            target.endpoints.iter().map(ToString::to_string).collect(),
            key,
        ))
    }

    fn dev_dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("confman-dev")).unwrap();
        let text = r#"{"apiKey":"dev-key","endpoints":["http://127.0.0.1:7100","http://127.0.0.1:7200"],"nodes":[]}"#;
        std::fs::write(dir.path().join("confman-dev/dev.json"), text).unwrap();
        dir
    }

    #[test]
    fn the_default_is_loopback_without_a_key() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            target(&[], &[], dir.path()),
            Ok((vec!["http://127.0.0.1:6100".to_owned()], None))
        );
    }

    #[test]
    fn a_dev_cluster_in_the_working_directory_needs_no_exports() {
        let dir = dev_dir();
        let dev = vec![
            "http://127.0.0.1:7100".to_owned(),
            "http://127.0.0.1:7200".to_owned(),
        ];
        assert_eq!(
            target(&[], &[], dir.path()),
            Ok((dev, Some("dev-key".to_owned())))
        );
        let env = [("CONFMAN_ENDPOINTS", "http://n1:1")];
        assert_eq!(
            target(&[], &env, dir.path()),
            Ok((vec!["http://n1:1".to_owned()], None)),
            "variables come first"
        );
    }

    #[test]
    fn the_dev_key_goes_to_no_other_cluster() {
        let dir = dev_dir();
        let one = target(&["--endpoints", "http://127.0.0.1:7200"], &[], dir.path()).unwrap();
        assert_eq!(one.1.as_deref(), Some("dev-key"));
        let other = target(
            &["--endpoints", "http://127.0.0.1:7200,http://10.0.0.1:1"],
            &[],
            dir.path(),
        )
        .unwrap();
        assert_eq!(other.1, None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            target(&["--endpoints", "localhost:6100"], &[], dir.path())
                .unwrap_err()
                .contains("not an endpoint")
        );
        assert!(
            target(&["--dev", "/nonexistent"], &[], dir.path())
                .unwrap_err()
                .contains("/nonexistent/dev.json")
        );
        let env = [("CONFMAN_ENDPOINT", "http://n1:1")];
        assert!(
            target(&[], &env, dir.path())
                .unwrap_err()
                .contains("CONFMAN_ENDPOINT")
        );
    }
}
