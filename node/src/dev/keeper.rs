//! One child process and the task that owns it.
//!
//! Only the keeper task sends signals to its child and only it reaps it, so a signal never reaches a process that
//! merely inherited the id. The child reads a pipe that nobody but the keeper holds: when this process dies, however
//! it dies, the pipe closes and the child ends itself.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use anyhow::Context as _;
use rustix::process::{Pid, Signal};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, watch};

use super::plan::{NodePlan, is_planned_variable};

/// A running child: its id, a way to signal it, and its end.
#[derive(Debug, Clone)]
pub(super) struct Keeper {
    pid: u32,
    signals: mpsc::Sender<Signal>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Keeper {
    /// Starts `confman serve` as the node is planned, its output going to `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or the process cannot be started.
    pub(super) fn start(program: &Path, node: &NodePlan, log: &Path) -> anyhow::Result<Self> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("open log {}", log.display()))?;
        let log_too = log.try_clone().context("open log a second time")?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(is_planned_variable) {
                command.env_remove(&name);
            }
        }
        let mut child = command
            .args(["serve", "--exit-with-parent"])
            .envs(&node.env)
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(log_too)
            // Its own process group: Ctrl-C in the terminal reaches `confman dev` alone, which then stops each in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {} for {}", program.display(), node.name))?;
        let pid = child.id().context("the child has no process id")?;
        let lifeline = child
            .stdin
            .take()
            .context("the child has no standard input")?;
        let (signals, inbox) = mpsc::channel(8);
        let (exited, exit) = watch::channel(None);
        tokio::spawn(keep(child, lifeline, inbox, exited));
        Ok(Self { pid, signals, exit })
    }

    /// The process id; stale once [`Keeper::exited`] says so.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it has.
    pub(super) fn exited(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Sends a signal, unless it has ended.
    pub(super) async fn signal(&self, signal: Signal) {
        // The keeper is gone exactly when the child is.
        let _ = self.signals.send(signal).await;
    }

    /// Waits for its end; none if the keeper was cut short, which happens only when the runtime shuts down.
    pub(super) async fn wait(&self) -> Option<ExitStatus> {
        let mut exit = self.exit.clone();
        let status = exit.wait_for(Option::is_some).await.ok()?;
        *status
    }
}

async fn keep(
    mut child: Child,
    lifeline: ChildStdin,
    mut inbox: mpsc::Receiver<Signal>,
    exited: watch::Sender<Option<ExitStatus>>,
) {
    loop {
        // `wait` is cancel safe, but it would close a stdin still inside the child; the lifeline was taken out before.
        tokio::select! {
            status = child.wait() => {
                drop(lifeline);
                // An error here means that someone else reaped our child; the end is then unknown, and said as such.
                exited.send_replace(Some(status.unwrap_or_default()));
                return;
            }
            Some(signal) = inbox.recv() => {
                let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
                if let Some(pid) = pid {
                    // It can only fail when the child has just ended, which `wait` is about to tell.
                    let _ = rustix::process::kill_process(pid, signal);
                }
            }
        }
    }
}
