//! The nodes of a running `confman dev` and what can be done to each.
//!
//! Nothing here starts a node by itself. What a node does unasked, it exits; the fleet then tells once, with the end
//! of the node's log, and keeps it down.

use std::collections::VecDeque;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, MutexGuard};

use super::Told;
use super::document::Document;
use super::keeper::Keeper;
use super::layout::Layout;
use super::plan::NodePlan;

/// How long a node may take to stop when asked.
const STOP_WAIT: Duration = Duration::from_secs(10);
/// How much of a log's end is looked at, and how much of it is shown.
const LOG_TAIL_BYTES: u64 = 16 * 1024;
const LOG_TAIL_LINES: usize = 6;

/// All nodes; cheap to clone.
#[derive(Clone)]
pub(super) struct Fleet {
    inner: Arc<Inner>,
}

struct Inner {
    program: PathBuf,
    layout: Layout,
    document: Document,
    nodes: Mutex<Vec<Slot>>,
    /// The end of everything has begun: nothing is started any more, and single ends are no news.
    stopping: AtomicBool,
}

struct Slot {
    plan: NodePlan,
    keeper: Option<Keeper>,
    paused: bool,
    /// The end of the present process was asked for, so it is no news.
    expected: bool,
    /// A process of it that has ended was reported.
    reported: bool,
}

/// One node as `confman dev status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeStatus {
    /// Its name.
    pub name: String,
    /// `running`, `paused` or `down`.
    pub state: String,
    /// Its process id, the last one when it is down.
    pub pid: Option<u32>,
    /// Where it serves the API.
    pub api_url: String,
}

impl Fleet {
    /// A fleet of nodes that are not started yet.
    pub(super) fn new(
        program: PathBuf,
        layout: Layout,
        document: Document,
        nodes: Vec<NodePlan>,
    ) -> Self {
        let slot = |plan| Slot {
            plan,
            keeper: None,
            paused: false,
            expected: false,
            reported: true,
        };
        let nodes = Mutex::new(nodes.into_iter().map(slot).collect());
        Self {
            inner: Arc::new(Inner {
                program,
                layout,
                document,
                nodes,
                stopping: AtomicBool::new(false),
            }),
        }
    }

    /// Starts every node.
    pub(super) async fn start_all(&self) -> anyhow::Result<()> {
        let mut slots = self.inner.nodes.lock().await;
        for index in 0..slots.len() {
            self.spawn(&mut slots, index)?;
        }
        Ok(())
    }

    /// Starts a node that is down.
    pub(super) async fn start(&self, name: &str) -> anyhow::Result<String> {
        let mut slots = self.inner.nodes.lock().await;
        let index = find(&slots, name)?;
        if let Some(keeper) = running(&slots[index]) {
            return Err(Told::refused(format!(
                "{} runs already, as process {}",
                slots[index].plan.name,
                keeper.pid()
            ))
            .into());
        }
        let pid = self.spawn(&mut slots, index)?;
        Ok(format!("{} started, process {pid}", slots[index].plan.name))
    }

    fn spawn(&self, slots: &mut MutexGuard<'_, Vec<Slot>>, index: usize) -> anyhow::Result<u32> {
        if self.inner.stopping.load(Ordering::Relaxed) {
            return Err(Told::refused("everything is being stopped").into());
        }
        let slot = &mut slots[index];
        let log = self.inner.layout.log(&slot.plan.name);
        let keeper = Keeper::start(&self.inner.program, &slot.plan, &log)?;
        let pid = keeper.pid();
        slot.keeper = Some(keeper.clone());
        slot.paused = false;
        slot.expected = false;
        slot.reported = false;
        tokio::spawn(self.clone().report_exit(index, keeper, log));
        self.inner.document.write(&statuses(slots))?;
        Ok(pid)
    }

    async fn report_exit(self, index: usize, keeper: Keeper, log: PathBuf) {
        let Some(status) = keeper.wait().await else {
            return;
        };
        let mut slots = self.inner.nodes.lock().await;
        if self.inner.stopping.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.inner.document.write(&statuses(&slots)) {
            eprintln!("confman dev: {error:#}");
        }
        let slot = &mut slots[index];
        let same = slot
            .keeper
            .as_ref()
            .is_some_and(|now| now.pid() == keeper.pid());
        slot.reported |= same;
        if same && !slot.expected {
            let name = &slot.plan.name;
            eprintln!(
                "confman dev: {name} ended by itself: {}; it stays down",
                describe(status)
            );
            for line in log_tail(&log) {
                eprintln!("  {name}: {line}");
            }
            eprintln!(
                "  hint: its whole log is {}; `confman dev start {name}` starts it again",
                log.display()
            );
        }
    }

    /// Kills a node at once.
    pub(super) async fn kill(&self, name: &str) -> anyhow::Result<String> {
        let mut slots = self.inner.nodes.lock().await;
        let index = find(&slots, name)?;
        let slot = &mut slots[index];
        let Some(keeper) = running(slot) else {
            return Err(Told::refused(format!("{} is down already", slot.plan.name)).into());
        };
        slot.expected = true;
        slot.paused = false;
        keeper.signal(Signal::KILL).await;
        keeper.wait().await;
        Ok(format!(
            "{} killed, process {}",
            slot.plan.name,
            keeper.pid()
        ))
    }

    /// Kills a node, if it runs, and empties its data directory.
    pub(super) async fn wipe(&self, name: &str) -> anyhow::Result<String> {
        let mut slots = self.inner.nodes.lock().await;
        let index = find(&slots, name)?;
        let slot = &mut slots[index];
        if let Some(keeper) = running(slot) {
            slot.expected = true;
            slot.paused = false;
            keeper.signal(Signal::KILL).await;
            keeper.wait().await;
        }
        self.inner.layout.wipe(&slot.plan.name)?;
        Ok(format!(
            "{} killed and {} emptied",
            slot.plan.name,
            slot.plan.data_dir.display()
        ))
    }

    /// Stops a node in its tracks, or lets it go on.
    pub(super) async fn pause(&self, name: &str, pause: bool) -> anyhow::Result<String> {
        let mut slots = self.inner.nodes.lock().await;
        let index = find(&slots, name)?;
        let slot = &mut slots[index];
        let Some(keeper) = running(slot) else {
            return Err(Told::refused(format!("{} is down", slot.plan.name)).into());
        };
        keeper
            .signal(if pause { Signal::STOP } else { Signal::CONT })
            .await;
        slot.paused = pause;
        Ok(format!(
            "{} {}",
            slot.plan.name,
            if pause { "paused" } else { "goes on" }
        ))
    }

    /// Stops one node gracefully.
    pub(super) async fn stop(&self, name: &str) -> anyhow::Result<String> {
        let (keeper, name) = {
            let mut slots = self.inner.nodes.lock().await;
            let index = find(&slots, name)?;
            let slot = &mut slots[index];
            let Some(keeper) = running(slot) else {
                return Err(Told::refused(format!("{} is down already", slot.plan.name)).into());
            };
            slot.expected = true;
            slot.paused = false;
            (keeper, slot.plan.name.clone())
        };
        Ok(stop_gracefully(&keeper, &name).await)
    }

    /// Stops every node gracefully, all at the same time, for good; says how each ended.
    pub(super) async fn stop_all(&self) -> Vec<String> {
        let mut stopping = Vec::new();
        let mut slots = self.inner.nodes.lock().await;
        self.inner.stopping.store(true, Ordering::Relaxed);
        for slot in slots.iter_mut() {
            if let Some(keeper) = running(slot) {
                let name = slot.plan.name.clone();
                stopping.push(async move { stop_gracefully(&keeper, &name).await });
            }
        }
        let mut said = futures::future::join_all(stopping).await;
        if let Err(error) = self.inner.document.write(&statuses(&slots)) {
            said.push(format!("{error:#}"));
        }
        said
    }

    /// Every node's state.
    pub(super) async fn status(&self) -> Vec<NodeStatus> {
        statuses(&self.inner.nodes.lock().await)
    }

    /// Those whose end was not asked for.
    pub(super) async fn ended_by_themselves(&self) -> Vec<String> {
        let slots = self.inner.nodes.lock().await;
        slots
            .iter()
            .filter(|slot| running(slot).is_none() && slot.keeper.is_some() && !slot.expected)
            .map(|slot| slot.plan.name.clone())
            .collect()
    }

    /// The nodes that run now, and those of whose end nobody has been told yet.
    pub(super) async fn running(&self) -> Vec<NodePlan> {
        let slots = self.inner.nodes.lock().await;
        slots
            .iter()
            .filter(|slot| running(slot).is_some() || !slot.reported)
            .map(|slot| slot.plan.clone())
            .collect()
    }
}

async fn stop_gracefully(keeper: &Keeper, name: &str) -> String {
    keeper.signal(Signal::TERM).await;
    // A paused process would never see the request.
    keeper.signal(Signal::CONT).await;
    match tokio::time::timeout(STOP_WAIT, keeper.wait()).await {
        Ok(status) => format!(
            "{name} stopped: {}",
            status.map_or("end unknown".to_owned(), describe)
        ),
        Err(_) => {
            keeper.signal(Signal::KILL).await;
            keeper.wait().await;
            format!(
                "{name} did not stop within {} s and was killed",
                STOP_WAIT.as_secs()
            )
        }
    }
}

fn running(slot: &Slot) -> Option<Keeper> {
    slot.keeper
        .clone()
        .filter(|keeper| keeper.exited().is_none())
}

fn find(slots: &[Slot], name: &str) -> anyhow::Result<usize> {
    let wanted =
        |slot: &Slot| slot.plan.name == name || slot.plan.name.strip_prefix("node") == Some(name);
    slots.iter().position(wanted).ok_or_else(|| {
        let names: Vec<&str> = slots.iter().map(|slot| slot.plan.name.as_str()).collect();
        let there = names.join(", ");
        Told::not_found(format!("no node is named {name}\nhint: there are {there}")).into()
    })
}

fn statuses(slots: &[Slot]) -> Vec<NodeStatus> {
    let status = |slot: &Slot| {
        let state = match (running(slot).is_some(), slot.paused) {
            (true, false) => "running",
            (true, true) => "paused",
            (false, _) => "down",
        };
        NodeStatus {
            name: slot.plan.name.clone(),
            state: state.to_owned(),
            pid: slot.keeper.as_ref().map(Keeper::pid),
            api_url: slot.plan.api_url(),
        }
    };
    slots.iter().map(status).collect()
}

/// How a process ended, in words.
pub(super) fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "end unknown".to_owned(),
    }
}

/// The last lines of a node's log.
pub(super) fn log_tail(path: &Path) -> Vec<String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    // The log is a help, not a need: without it the exit itself is still told.
    let bytes = read().unwrap_or_default();
    let mut last = VecDeque::new();
    for line in String::from_utf8_lossy(&bytes)
        .lines()
        .filter(|line| !line.trim().is_empty())
    {
        if last.len() == LOG_TAIL_LINES {
            last.pop_front();
        }
        last.push_back(line.to_owned());
    }
    last.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::plan::{loopback, own_store};
    use super::*;

    struct Stage {
        fleet: Fleet,
        layout: Layout,
        _dir: tempfile::TempDir,
    }

    /// Two nodes whose program is this shell script: what counts here is the processes, not what they do.
    fn stage(script: &str) -> Stage {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program.sh");
        // Written by another process: a file that this one had open for writing could be "busy" when it is started.
        let text = format!(
            "cat > '{0}' <<'END'\n#!/bin/sh\n{script}\nEND\nchmod 700 '{0}'",
            program.display()
        );
        let written = std::process::Command::new("/bin/sh")
            .args(["-c", &text])
            .status()
            .unwrap();
        assert!(written.success());
        let layout = Layout::new(&dir.path().join("dev")).unwrap();
        layout.make_dirs(["node1", "node2"].into_iter()).unwrap();
        let node = |name: &str| NodePlan {
            name: name.to_owned(),
            api: loopback(1),
            peer: loopback(2),
            data_dir: layout.data(name),
            tls: false,
            env: BTreeMap::from([("CONFMAN_NODE_NAME".to_owned(), name.to_owned())]),
        };
        let nodes = vec![node("node1"), node("node2")];
        let document = Document {
            path: layout.document(),
            api_key: "key".to_owned(),
            store: own_store(loopback(3), "secret"),
            ca: None,
            nodes: nodes.clone(),
            control_socket: layout.socket(),
        };
        let fleet = Fleet::new(program, layout.clone(), document, nodes);
        Stage {
            fleet,
            layout,
            _dir: dir,
        }
    }

    fn document(layout: &Layout) -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(layout.document()).unwrap()).unwrap()
    }

    async fn states(fleet: &Fleet) -> Vec<String> {
        fleet
            .status()
            .await
            .into_iter()
            .map(|node| node.state)
            .collect()
    }

    #[tokio::test]
    async fn nodes_are_killed_wiped_paused_and_started_by_name() {
        let stage = stage("exec cat");
        let fleet = &stage.fleet;
        fleet.start_all().await.unwrap();
        assert_eq!(states(fleet).await, ["running", "running"]);
        let first = document(&stage.layout)["nodes"][0]["pid"].as_u64().unwrap();

        fleet.pause("node2", true).await.unwrap();
        assert_eq!(states(fleet).await, ["running", "paused"]);
        fleet.pause("2", false).await.unwrap();
        fleet.kill("node1").await.unwrap();
        assert_eq!(states(fleet).await, ["down", "running"]);
        assert!(
            fleet
                .kill("node1")
                .await
                .unwrap_err()
                .to_string()
                .contains("down already")
        );

        fleet.start("node1").await.unwrap();
        assert!(
            fleet
                .start("node1")
                .await
                .unwrap_err()
                .to_string()
                .contains("runs already")
        );
        let second = document(&stage.layout)["nodes"][0]["pid"].as_u64().unwrap();
        assert_ne!(first, second);

        std::fs::write(stage.layout.data("node2").join("identity"), "x").unwrap();
        fleet.wipe("node2").await.unwrap();
        assert_eq!(states(fleet).await, ["running", "down"]);
        assert_eq!(
            std::fs::read_dir(stage.layout.data("node2"))
                .unwrap()
                .count(),
            0
        );
        let error = fleet.kill("node7").await.unwrap_err().to_string();
        assert!(error.contains("node1, node2"), "{error}");
        fleet.stop_all().await;
        assert_eq!(states(fleet).await, ["down", "down"]);
    }

    #[tokio::test]
    async fn a_paused_node_is_stopped_gracefully_too() {
        let stage = stage("trap 'exit 0' TERM; while true; do sleep 0.05; done");
        stage.fleet.start_all().await.unwrap();
        // The trap is set before the first sleep; a signal before it would end the shell by signal 15.
        tokio::time::sleep(Duration::from_millis(300)).await;
        stage.fleet.pause("node1", true).await.unwrap();
        let said = stage.fleet.stop_all().await;
        assert_eq!(
            said,
            ["node1 stopped: exit code 0", "node2 stopped: exit code 0"]
        );
    }

    #[tokio::test]
    async fn a_node_that_ends_by_itself_stays_down_and_the_document_says_so() {
        let stage = stage("echo cannot open the log; exit 3");
        stage.fleet.start_all().await.unwrap();
        let begin = std::time::Instant::now();
        while document(&stage.layout)["nodes"][1]["running"] != false
            || document(&stage.layout)["nodes"][0]["running"] != false
        {
            assert!(
                begin.elapsed() < Duration::from_secs(10),
                "its end is not noticed"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(states(&stage.fleet).await, ["down", "down"]);
        assert_eq!(
            log_tail(&stage.layout.log("node1")),
            ["cannot open the log"]
        );
    }

    #[test]
    fn the_tail_of_a_log_is_short_whatever_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node1.log");
        assert!(log_tail(&path).is_empty());
        let mut text: String = (0..10_000).map(|n| format!("line {n}\n")).collect();
        text.push_str("\n\u{fffd}\n");
        std::fs::write(&path, text.as_bytes()).unwrap();
        let tail = log_tail(&path);
        assert_eq!(tail.len(), LOG_TAIL_LINES);
        assert_eq!(tail[LOG_TAIL_LINES - 2], "line 9999");
    }
}
