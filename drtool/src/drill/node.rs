//! The throw-away node: a real `confman serve` on the restored copy.
//!
//! It knows nothing of the real cluster: its environment is made here and has no other variable in it; it listens on
//! loopback, on ports that were free a moment ago, with a token and a key that nobody else has, and uses no store. Its
//! standard input is a pipe of this process: when that closes, however, the node stops.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use confman_cli::failure::Failure;
use confman_client::{Client, ClientConfig, Endpoint, ErrorKind};
use confman_config::SecretString;
use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};

use crate::codes;

/// The name of its node.
pub(super) const NAME: &str = "drill";
const PROGRAM: &str = "confman";
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long it may take to stop by itself.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// How long its program may take to say something.
const SAY_WITHIN: Duration = Duration::from_secs(20);
/// As much of its log is told.
const LOG_BYTES_TOLD: usize = 600;

/// The node's program.
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// What it says of itself.
    pub(super) version: String,
}

/// Finds it: where it is named, beside this program, or in `PATH`.
pub(super) fn program(named: Option<&Path>) -> Result<Program, Failure> {
    let path = match named {
        Some(path) => path.is_file().then(|| path.to_owned()),
        None => beside().or_else(|| in_path(std::env::var_os("PATH").as_deref())),
    };
    let missing = || {
        let what = match named {
            Some(path) => format!("{} is no file", path.display()),
            None => format!("there is no {PROGRAM} beside this program and none in PATH"),
        };
        codes::usage("PROGRAM_NOT_FOUND", what)
            .with_hint("a drill boots a real node: name its program with --confman FILE")
    };
    let path = path.ok_or_else(missing)?;
    let asked = std::process::Command::new(&path)
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .output();
    let output = asked.map_err(|e| codes::local("run", &path, &e).coded("PROGRAM_NOT_FOUND"))?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || !version.starts_with(PROGRAM) {
        let message = format!("{} is not the node's program", path.display());
        return Err(
            codes::usage("PROGRAM_NOT_FOUND", message).with_hint("name it with --confman FILE")
        );
    }
    Ok(Program { path, version })
}

fn beside() -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?.parent()?.join(PROGRAM);
    path.is_file().then_some(path)
}

fn in_path(path: Option<&OsStr>) -> Option<PathBuf> {
    std::env::split_paths(path?)
        .map(|dir| dir.join(PROGRAM))
        .find(|file| file.is_file())
}

/// Where it will be.
pub(super) struct Site {
    /// The directory of the drill.
    scratch: PathBuf,
    api_port: u16,
    peer_port: u16,
}

impl Site {
    /// Chooses ports that nobody has.
    pub(super) fn choose(scratch: &Path) -> Result<Self, Failure> {
        // Both at once, so that they are two.
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let failed =
            |e: std::io::Error| codes::usage("LOCAL_FILE", format!("find a free port: {e}"));
        let (api, peer) = (free().map_err(failed)?, free().map_err(failed)?);
        let port = |listener: &TcpListener| listener.local_addr().map(|addr| addr.port());
        Ok(Self {
            scratch: scratch.to_owned(),
            api_port: port(&api).map_err(failed)?,
            peer_port: port(&peer).map_err(failed)?,
        })
    }

    pub(super) fn data(&self) -> PathBuf {
        self.scratch.join("data")
    }

    pub(super) fn api_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.api_port)
    }

    pub(super) fn peer_addr(&self) -> String {
        format!("127.0.0.1:{}", self.peer_port)
    }

    fn log(&self) -> PathBuf {
        self.scratch.join("node.log")
    }

    fn keys(&self) -> PathBuf {
        self.scratch.join("api-keys.json")
    }

    fn env(&self) -> Vec<(&'static str, String)> {
        let token: [u8; 32] = rand::random();
        vec![
            ("CONFMAN_NODE_NAME", NAME.to_owned()),
            ("CONFMAN_DATA_DIR", self.data().display().to_string()),
            ("CONFMAN_API_LISTEN", format!("127.0.0.1:{}", self.api_port)),
            ("CONFMAN_PEER_LISTEN", self.peer_addr()),
            ("CONFMAN_API_KEYS_FILE", self.keys().display().to_string()),
            ("CONFMAN_CLUSTER_TOKEN", hex::encode(token)),
            ("CONFMAN_SNAPSHOT_ENABLED", "false".to_owned()),
            // Not used while snapshots are off, and not the real one if they ever were on.
            (
                "CONFMAN_OBJECT_STORE_URL",
                format!("file://{}", self.scratch.join("objects").display()),
            ),
            // One reader, a few values: the least that is taken.
            ("CONFMAN_LOG_CACHE_BYTES", "1048576".to_owned()),
        ]
    }
}

/// The node, running.
pub(super) struct Node {
    child: Child,
    pub(super) endpoint: Endpoint,
    pub(super) client: Client,
    log: PathBuf,
}

impl Node {
    /// Starts it, without waiting for anything.
    pub(super) async fn start(program: &Program, site: &Site) -> Result<Self, Failure> {
        let key = make_key(program, site).await?;
        let log = site.log();
        let file = std::fs::File::create(&log).map_err(|e| codes::local("create", &log, &e))?;
        let second = file
            .try_clone()
            .map_err(|e| codes::local("open", &log, &e))?;
        let child = Command::new(&program.path)
            .args(["serve", "--exit-with-parent"])
            .env_clear()
            .envs(site.env())
            .current_dir(&site.scratch)
            .stdin(Stdio::piped())
            .stdout(file)
            .stderr(second)
            // Ctrl-C on the terminal is for this program, which then ends the node.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| codes::local("start", &program.path, &e))?;
        let endpoint: Endpoint = site.api_url().parse()?;
        let mut config = ClientConfig::new(vec![endpoint.clone()]);
        config.api_key = Some(key);
        Ok(Self {
            child,
            endpoint,
            client: Client::new(config)?,
            log,
        })
    }

    /// Waits until it is ready; why it is not, otherwise.
    pub(super) async fn wait_ready(&mut self, within: Duration) -> Result<(), String> {
        let began = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("it ended with {status}: {}", self.last_words()));
            }
            let waits = match self.client.readiness(&self.endpoint).await {
                Ok(readiness) if readiness.ready => return Ok(()),
                Ok(readiness) => readiness.reason.unwrap_or_else(|| {
                    let group = |g: confman_client::wire::GroupReadiness| {
                        g.reason.map(|why| format!("{}: {why}", g.group))
                    };
                    let waits: Vec<String> =
                        readiness.groups.into_iter().filter_map(group).collect();
                    waits.join("; ")
                }),
                Err(error) => error.to_string(),
            };
            if began.elapsed() >= within {
                return Err(format!(
                    "it was not ready within {} s: {waits}",
                    within.as_secs()
                ));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The end of its log, as one line.
    fn last_words(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().rev().take(4).collect();
        let told: Vec<&str> = lines.into_iter().rev().collect();
        let told = told.join("; ");
        let from = told.len().saturating_sub(LOG_BYTES_TOLD);
        let from = (from..=told.len())
            .find(|at| told.is_char_boundary(*at))
            .unwrap_or(0);
        told.get(from..).unwrap_or_default().to_owned()
    }

    /// Ends it: asked first, killed when it does not listen. By its own process id.
    pub(super) async fn end(mut self) {
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok())
            && let Some(pid) = Pid::from_raw(id)
        {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, Signal::TERM);
            if tokio::time::timeout(STOP_WITHIN, self.child.wait())
                .await
                .is_ok()
            {
                return;
            }
        }
        let _ = self.child.kill().await;
    }
}

/// A key that may read, for this node only; made by its own program.
async fn make_key(program: &Program, site: &Site) -> Result<SecretString, Failure> {
    let making = Command::new(&program.path)
        .args([
            "key", "create", "--name", NAME, "--role", "viewer", "--file",
        ])
        .arg(site.keys())
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let failed = |why: String| {
        codes::refuse(
            "BUG",
            ErrorKind::Bug,
            format!("make a key for the node: {why}"),
        )
        .with_hint("check that confman and drtool are of one version")
    };
    let output = tokio::time::timeout(SAY_WITHIN, making)
        .await
        .map_err(|_| failure_of_time(program))?
        .map_err(|e| failed(e.to_string()))?;
    let key = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || key.is_empty() {
        return Err(failed(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ));
    }
    Ok(SecretString::from(key))
}

fn failure_of_time(program: &Program) -> Failure {
    codes::usage(
        "PROGRAM_NOT_FOUND",
        format!(
            "{} key create did not end within {} s",
            program.path.display(),
            SAY_WITHIN.as_secs()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_looked_for_in_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = std::env::join_paths([Path::new("/nonexistent"), dir.path()]).unwrap();
        assert_eq!(in_path(Some(&path)), None);
        let file = dir.path().join(PROGRAM);
        std::fs::write(&file, "").unwrap();
        assert_eq!(in_path(Some(&path)), Some(file));
        assert_eq!(in_path(None), None);
    }

    #[test]
    fn i13_the_environment_of_the_node_names_nothing_of_the_real_cluster() {
        let site = Site::choose(Path::new("/scratch")).unwrap();
        let env = site.env();
        let value = |name: &str| {
            env.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| v.as_str())
        };
        assert_eq!(value("CONFMAN_PEERS"), None);
        assert_eq!(value("CONFMAN_SNAPSHOT_ENABLED"), Some("false"));
        assert_eq!(
            value("CONFMAN_OBJECT_STORE_URL"),
            Some("file:///scratch/objects")
        );
        for listen in ["CONFMAN_API_LISTEN", "CONFMAN_PEER_LISTEN"] {
            assert!(value(listen).unwrap().starts_with("127.0.0.1:"));
        }
        let again = site.env();
        let token = |env: &[(&'static str, String)]| {
            let mut named = env.iter().filter(|(n, _)| *n == "CONFMAN_CLUSTER_TOKEN");
            named.next().map(|(_, token)| token.clone())
        };
        assert_ne!(
            token(&env),
            token(&again),
            "the token is a new one each time"
        );
    }
}
