//! Runs `drtool` as an operator does: arguments, an environment of its own, what it printed and how it ended.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::binary;
use crate::cluster::Cluster;

/// What one run may take: the longest commands wait for a cluster.
const WITHIN: Duration = Duration::from_secs(180);

/// One command to be.
#[derive(Debug, Clone, Default)]
pub struct Drtool {
    args: Vec<OsString>,
    env: Vec<(String, String)>,
    dir: Option<PathBuf>,
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Ran {
    /// The command, for complaints.
    pub line: String,
    /// The exit code; -1 when a signal ended it.
    pub code: i32,
    /// What it printed on stdout.
    pub stdout: String,
    /// What it printed on stderr.
    pub stderr: String,
}

impl Drtool {
    /// A command with these arguments and an empty environment: what a test does not give, it does not have.
    #[must_use]
    pub fn new<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Self {
        Self {
            args: args
                .into_iter()
                .map(|arg| arg.as_ref().to_owned())
                .collect(),
            ..Self::default()
        }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        self.args.extend(args);
        self
    }

    /// A variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Several variables of its environment, for example those of a [`crate::store::Store`].
    #[must_use]
    pub fn envs(mut self, env: impl IntoIterator<Item = (String, String)>) -> Self {
        self.env.extend(env);
        self
    }

    /// Where it runs.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Starts it with stdout and stderr captured: for tests that kill it half way.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self) -> anyhow::Result<Child> {
        let mut command = Command::new(binary::drtool()?);
        command
            .args(&self.args)
            .env_clear()
            .env("RUST_BACKTRACE", "1")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
            .spawn()
            .with_context(|| format!("start {}", self.line()))
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// It cannot be started, prints what is no text, panics, or does not end in time.
    pub async fn run(&self) -> anyhow::Result<Ran> {
        let child = self.spawn()?;
        let output = tokio::time::timeout(WITHIN, child.wait_with_output())
            .await
            .with_context(|| format!("{} did not end within {WITHIN:?}", self.line()))??;
        let ran = Ran {
            line: self.line(),
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).context("stdout is not text")?,
            stderr: String::from_utf8(output.stderr).context("stderr is not text")?,
        };
        if ran.stderr.contains("panicked at") {
            bail!("it has panicked: {ran}");
        }
        Ok(ran)
    }

    fn line(&self) -> String {
        let args: Vec<_> = self.args.iter().map(|arg| arg.to_string_lossy()).collect();
        format!("drtool {}", args.join(" "))
    }
}

impl Ran {
    /// Nothing but this exit code will do.
    ///
    /// # Errors
    /// It ended in another way.
    pub fn expect(self, code: i32) -> anyhow::Result<Self> {
        if self.code != code {
            bail!("expected exit code {code}: {self}");
        }
        Ok(self)
    }

    /// The one document of `--json`.
    ///
    /// # Errors
    /// stdout is not one JSON document.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("not one JSON document: {self}"))
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}` ended with {}\nstdout: {}\nstderr: {}",
            self.line, self.code, self.stdout, self.stderr
        )
    }
}

impl Cluster {
    /// `drtool` with the endpoints and the key of this cluster, in its directory.
    #[must_use]
    pub fn drtool<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Drtool {
        let tool = Drtool::new(args)
            .env("CONFMAN_ENDPOINTS", &self.endpoints().join(","))
            .env("CONFMAN_API_KEY", self.key())
            .envs(self.client_tls());
        match self.dir() {
            Ok(dir) => tool.dir(dir),
            Err(_) => tool,
        }
    }
}
