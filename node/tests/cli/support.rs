//! A node as a process, and the command as one.

use std::io::Write;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

const CONFMAN: &str = env!("CARGO_BIN_EXE_confman");

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    /// stdout as the one JSON document that it must be.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }
}

/// A command in an environment that holds nothing of Confman but what is given.
fn command(args: &[&str], env: &[(&str, String)]) -> Command {
    let mut command = Command::new(CONFMAN);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CONFMAN_")) {
        command.env_remove(name);
    }
    command
        .args(args)
        .envs(env.iter().map(|(name, value)| (name, value)));
    // A dev cluster in the working directory is not meant.
    command.current_dir(std::env::temp_dir());
    command
}

fn run(mut command: Command, stdin: &[u8]) -> Ended {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut pipe, bytes) = (child.stdin.take().unwrap(), stdin.to_vec());
    let writer = std::thread::spawn(move || {
        // A command that does not read its stdin is no failure.
        let _ = pipe.write_all(&bytes);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs the command without a cluster.
pub(crate) fn confman(args: &[&str]) -> Ended {
    run(command(args, &[]), b"")
}

/// Runs the command against the given endpoint.
pub(crate) fn confman_at(url: &str, args: &[&str]) -> Ended {
    run(command(args, &[("CONFMAN_ENDPOINTS", url.to_owned())]), b"")
}

/// A cluster of one, killed when dropped.
pub(crate) struct Node {
    child: Child,
    port: u16,
    dir: TempDir,
}

impl Node {
    /// Started, and ready.
    pub(crate) fn start() -> Self {
        // A port that was free a moment ago may be taken by another test: then it is tried again.
        for _ in 0..5 {
            let mut node = Self::spawn();
            let until = Instant::now() + Duration::from_secs(60);
            while Instant::now() < until && node.child.try_wait().unwrap().is_none() {
                if confman(&["health", &node.url(), "--ready"]).code == 0 {
                    return node;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        panic!("no node became ready");
    }

    fn spawn() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let free = || {
            TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port()
        };
        let (port, peer) = (free(), free());
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let env = [
            ("CONFMAN_NODE_NAME", "node1".to_owned()),
            (
                "CONFMAN_DATA_DIR",
                dir.path().join("data").display().to_string(),
            ),
            ("CONFMAN_API_LISTEN", format!("127.0.0.1:{port}")),
            ("CONFMAN_PEER_LISTEN", format!("127.0.0.1:{peer}")),
            // Alone it need not wait for anybody.
            ("CONFMAN_HEARTBEAT_MS", "50".to_owned()),
            ("CONFMAN_ELECTION_TIMEOUT_MIN_MS", "200".to_owned()),
            ("CONFMAN_ELECTION_TIMEOUT_MAX_MS", "400".to_owned()),
        ];
        let child = command(&["serve"], &env)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, port, dir }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The node's data directory.
    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn confman(&self, args: &[&str]) -> Ended {
        confman_at(&self.url(), args)
    }

    pub(crate) fn confman_with_stdin(&self, args: &[&str], stdin: &[u8]) -> Ended {
        run(command(args, &[("CONFMAN_ENDPOINTS", self.url())]), stdin)
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            eprintln!(
                "the node's last words:\n{}",
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
    }
}
