//! One `confman serve` process and its directory.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal};

use crate::binary;
use crate::log_tail::log_tail;
use crate::wait::wait_until;

/// A node of a test cluster, running or not.
pub struct Node {
    /// Its name.
    pub name: String,
    /// `http://127.0.0.1:port`, or with https.
    pub api_url: String,
    /// `127.0.0.1:port`.
    pub peer_addr: String,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Where its output goes.
    pub log: PathBuf,
    env: Mutex<BTreeMap<String, String>>,
    child: Mutex<Option<Child>>,
}

impl Node {
    pub(crate) fn new(
        name: String,
        api_url: String,
        peer_addr: String,
        data_dir: PathBuf,
        log: PathBuf,
        env: BTreeMap<String, String>,
    ) -> Self {
        Self {
            name,
            api_url,
            peer_addr,
            data_dir,
            log,
            env: Mutex::new(env),
            child: Mutex::new(None),
        }
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a setting from the next start on.
    pub fn set_env(&self, name: &str, value: &str) {
        let mut env = self.env.lock().unwrap_or_else(PoisonError::into_inner);
        env.insert(name.to_owned(), value.to_owned());
    }

    /// Takes a setting away from the next start on.
    pub fn unset_env(&self, name: &str) {
        let mut env = self.env.lock().unwrap_or_else(PoisonError::into_inner);
        env.remove(name);
    }

    /// Its settings.
    #[must_use]
    pub fn env(&self) -> BTreeMap<String, String> {
        self.env
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Starts the process, without waiting for anything.
    ///
    /// # Errors
    /// It runs already, or cannot be started.
    pub fn start(&self) -> anyhow::Result<()> {
        let mut child = self.child();
        if child.is_some() {
            bail!("{} runs already", self.name);
        }
        fs::create_dir_all(&self.data_dir)
            .with_context(|| format!("make {}", self.data_dir.display()))?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)?;
        let started = std::process::Command::new(binary::confman()?)
            .args(["serve", "--exit-with-parent"])
            .env_clear()
            .envs(self.env())
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", self.name))?;
        *child = Some(started);
        Ok(())
    }

    /// Its process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let child = self.child();
        let id = child
            .as_ref()
            .with_context(|| format!("{} does not run", self.name))?
            .id();
        let pid = Pid::from_raw(i32::try_from(id)?).context("no process id")?;
        rustix::process::kill_process(pid, signal).with_context(|| format!("signal {}", self.name))
    }

    /// kill -9; back when it is gone.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&self) -> anyhow::Result<()> {
        let mut child = self.child();
        let mut killed = child
            .take()
            .with_context(|| format!("{} does not run", self.name))?;
        killed
            .kill()
            .with_context(|| format!("kill {}", self.name))?;
        killed
            .wait()
            .with_context(|| format!("wait for {}", self.name))?;
        Ok(())
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGTERM; waits for its end and says how it ended and how long that took.
    ///
    /// # Errors
    /// It does not end within `bound`.
    pub async fn stop(&self, bound: Duration) -> anyhow::Result<(ExitStatus, Duration)> {
        let begin = Instant::now();
        self.signal(Signal::TERM)?;
        let status = self.wait_exit(bound).await?;
        Ok((status, begin.elapsed()))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It does not end within `bound`.
    pub async fn wait_exit(&self, bound: Duration) -> anyhow::Result<ExitStatus> {
        let what = format!("{} ends", self.name);
        wait_until(&what, bound, || async {
            let mut child = self.child();
            let running = child.as_mut().context("does not run")?;
            match running.try_wait()? {
                Some(status) => {
                    *child = None;
                    Ok(status)
                }
                None => bail!("still runs"),
            }
        })
        .await
    }

    /// Starts it again when it has ended by itself, as a service manager does; says whether it had.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn revive(&self) -> anyhow::Result<bool> {
        {
            let mut child = self.child();
            let ended = match child.as_mut() {
                Some(running) => running.try_wait()?.is_some(),
                None => false,
            };
            if !ended {
                return Ok(false);
            }
            *child = None;
        }
        self.start()?;
        Ok(true)
    }

    /// Loses the disk of a node that does not run.
    ///
    /// # Errors
    /// It runs, or its directory cannot be removed.
    pub fn wipe(&self) -> anyhow::Result<()> {
        if self.pid().is_some() {
            bail!("{} runs; kill it first", self.name);
        }
        fs::remove_dir_all(&self.data_dir)
            .with_context(|| format!("remove {}", self.data_dir.display()))
    }

    /// Everything that it has logged so far.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn log_text(&self) -> anyhow::Result<String> {
        let bytes = fs::read(&self.log).with_context(|| format!("read {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits until its log has a line with all of these words.
    ///
    /// # Errors
    /// It does not within `bound`.
    pub async fn wait_log(&self, words: &[&str], bound: Duration) -> anyhow::Result<String> {
        let what = format!("log of {} says {words:?}", self.name);
        wait_until(&what, bound, || async {
            let text = self.log_text()?;
            let line = text
                .lines()
                .find(|line| words.iter().all(|word| line.contains(word)));
            line.map(str::to_owned).context("it does not")
        })
        .await
    }

    /// Kilobytes of memory that the process holds now and has held at most.
    ///
    /// # Errors
    /// It does not run, or this system has no `/proc`.
    pub fn memory_kib(&self) -> anyhow::Result<(u64, u64)> {
        let pid = self.pid().context("does not run")?;
        let text = fs::read_to_string(format!("/proc/{pid}/status")).context("read /proc")?;
        let field = |name: &str| -> anyhow::Result<u64> {
            let line = text
                .lines()
                .find(|line| line.starts_with(name))
                .context("no such field")?;
            Ok(line
                .split_whitespace()
                .nth(1)
                .context("no number")?
                .parse()?)
        };
        Ok((field("VmRSS:")?, field("VmHWM:")?))
    }

    /// Makes the greatest memory so far begin anew from now.
    ///
    /// # Errors
    /// It does not run, or this system has no `/proc`.
    pub fn reset_peak_memory(&self) -> anyhow::Result<()> {
        let pid = self.pid().context("does not run")?;
        fs::write(format!("/proc/{pid}/clear_refs"), "5").context("reset the peak in /proc")
    }

    pub(crate) fn show_log(&self) {
        let log = self.log_text().unwrap_or_default();
        eprint!("{}", log_tail(&self.name, &log));
    }

    /// Whether there is anything in its data directory.
    #[must_use]
    pub fn has_data(&self) -> bool {
        is_filled(&self.data_dir)
    }
}

fn is_filled(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child().take() {
            // It may have ended already; both are then no-ops.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
