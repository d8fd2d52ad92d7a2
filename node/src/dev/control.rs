//! The socket through which another terminal acts on a running `confman dev`.
//!
//! One line of JSON each way. The socket lies in the directory; where that path is too long for a socket it lies in
//! a directory of its own among the temporary files, and `dev.json` says where.

use crate::cli::output::say;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use confman_client::ErrorKind;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::fleet::{Fleet, NodeStatus};
use super::layout::Layout;
use super::{DevAction, Told};

/// What fits into a socket's address everywhere (104 bytes on macOS, 108 on Linux, with the final zero).
const SOCKET_PATH_BYTES_MAX: usize = 103;
const REQUEST_BYTES_MAX: u64 = 4 * 1024;
const ANSWER_BYTES_MAX: u64 = 256 * 1024;
/// Longer than a graceful stop may take.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "action")]
enum Request {
    Kill { node: String },
    Wipe { node: String },
    Start { node: String },
    Pause { node: String },
    Resume { node: String },
    Stop { node: Option<String> },
    Status,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    ok: bool,
    message: String,
    /// The exit code of what was refused.
    #[serde(default)]
    exit: Option<u8>,
    #[serde(default)]
    nodes: Vec<NodeStatus>,
}

/// The listening socket; its file goes when it does.
pub(super) struct Control {
    listener: UnixListener,
    path: PathBuf,
    own_dir: Option<PathBuf>,
}

impl Control {
    /// Listens in the directory, or among the temporary files when the path is too long.
    ///
    /// # Errors
    /// When neither can be bound.
    pub(super) fn bind(layout: &Layout) -> anyhow::Result<Self> {
        let wanted = layout.socket();
        let (path, own_dir) = if wanted.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            (wanted, None)
        } else {
            let dir =
                std::env::temp_dir().join(format!("confman-dev-{}", uuid::Uuid::new_v4().simple()));
            let mut builder = std::fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder
                .create(&dir)
                .with_context(|| format!("make directory {}", dir.display()))?;
            (dir.join("dev.sock"), Some(dir))
        };
        // The directory's lock is ours, so a socket that is there belongs to a run that is over.
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error).with_context(|| format!("remove old socket {}", path.display()));
        }
        let listener = UnixListener::bind(&path).with_context(|| {
            format!(
                "listen on socket {}\nhint: choose a shorter --dir, or one on a local disk",
                path.display()
            )
        })?;
        Ok(Self {
            listener,
            path,
            own_dir,
        })
    }

    /// Where it listens.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Answers until dropped; a request to stop everything goes to `stop`, and its connection stays open until then.
    pub(super) async fn serve(&self, fleet: Fleet, stop: mpsc::Sender<()>) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(answer_one(stream, fleet.clone(), stop.clone()));
                }
                // Out of file descriptors or the like: the cluster goes on, the other terminal tries again.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // A socket left behind is removed by the next run.
        let _ = std::fs::remove_file(&self.path);
        if let Some(dir) = &self.own_dir {
            let _ = std::fs::remove_dir(dir);
        }
    }
}

async fn answer_one(stream: UnixStream, fleet: Fleet, stop: mpsc::Sender<()>) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    let read = (&mut stream)
        .take(REQUEST_BYTES_MAX)
        .read_line(&mut line)
        .await;
    let request = match read
        .map_err(anyhow::Error::from)
        .and_then(|_| Ok(serde_json::from_str(&line)?))
    {
        Ok(request) => request,
        Err(error) => {
            reply(
                &mut stream,
                Answer {
                    ok: false,
                    message: format!("cannot read the request: {error}"),
                    exit: None,
                    nodes: vec![],
                },
            )
            .await;
            return;
        }
    };
    let stops_all = matches!(request, Request::Stop { node: None });
    let answer = match act(&fleet, request).await {
        Ok(message) => Answer {
            ok: true,
            message,
            exit: None,
            nodes: fleet.status().await,
        },
        Err(error) => Answer {
            ok: false,
            message: format!("{error:#}"),
            exit: Some(super::kind(&error).exit_code()),
            nodes: vec![],
        },
    };
    reply(&mut stream, answer).await;
    if stops_all {
        // The other side waits for the end of this connection, which is the end of this process.
        let _ = stop.send(()).await;
        std::future::pending::<()>().await;
    }
}

async fn reply(stream: &mut BufReader<UnixStream>, answer: Answer) {
    let mut text = serde_json::to_vec(&answer).unwrap_or_default();
    text.push(b'\n');
    // Whoever asked may be gone; nothing depends on the answer.
    let _ = stream.write_all(&text).await;
    let _ = stream.flush().await;
}

async fn act(fleet: &Fleet, request: Request) -> anyhow::Result<String> {
    match request {
        Request::Kill { node } => fleet.kill(&node).await,
        Request::Wipe { node } => fleet.wipe(&node).await,
        Request::Start { node } => fleet.start(&node).await,
        Request::Pause { node } => fleet.pause(&node, true).await,
        Request::Resume { node } => fleet.pause(&node, false).await,
        Request::Stop { node: Some(node) } => fleet.stop(&node).await,
        Request::Stop { node: None } => Ok("stopping".to_owned()),
        Request::Status => Ok(String::new()),
    }
}

/// Carries one action to the `confman dev` that runs in `dir`.
pub(super) async fn send(dir: &Path, action: DevAction) -> anyhow::Result<ExitCode> {
    let layout = Layout::new(dir)?;
    let path = socket_of(&layout)?;
    let (request, show, json) = match action {
        DevAction::Kill(arg) => (Request::Kill { node: arg.node }, Show::Message, arg.json),
        DevAction::Wipe(arg) => (Request::Wipe { node: arg.node }, Show::Message, arg.json),
        DevAction::Start(arg) => (Request::Start { node: arg.node }, Show::Message, arg.json),
        DevAction::Pause(arg) => (Request::Pause { node: arg.node }, Show::Message, arg.json),
        DevAction::Resume(arg) => (Request::Resume { node: arg.node }, Show::Message, arg.json),
        DevAction::Stop { node, json } => {
            let show = match node {
                Some(_) => Show::Message,
                None => Show::End,
            };
            (Request::Stop { node }, show, json)
        }
        DevAction::Status { json } => (Request::Status, Show::Table, json),
    };
    let answer = tokio::time::timeout(ANSWER_WAIT, exchange(&path, &request, &show))
        .await
        .with_context(|| {
            Told::unreachable(format!(
                "no answer from the `confman dev` in {}",
                layout.root().display()
            ))
        })?
        .with_context(|| {
            Told::unreachable(format!(
                "ask the `confman dev` in {}\nhint: is it running? start it with `confman dev`",
                layout.root().display()
            ))
        })?;
    if !answer.ok {
        let kind = ErrorKind::ALL
            .into_iter()
            .find(|kind| Some(kind.exit_code()) == answer.exit)
            .unwrap_or(ErrorKind::Usage);
        let message = answer.message;
        return Err(Told { kind, message }.into());
    }
    if json {
        say(format_args!("{:#}", document(&show, &answer)));
        return Ok(ExitCode::SUCCESS);
    }
    match show {
        Show::Message => say(&answer.message),
        Show::End => say(STOPPED),
        Show::Table => {
            for node in &answer.nodes {
                let pid = node.pid.map(|pid| pid.to_string()).unwrap_or_default();
                say(format_args!(
                    "{:<8} {:<8} {:>8}  {}",
                    node.name, node.state, pid, node.api_url
                ));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What is said when all of it has ended.
const STOPPED: &str = "stopped";

#[derive(Debug, PartialEq, Eq)]
enum Show {
    Message,
    Table,
    /// Wait until the connection ends.
    End,
}

/// What a script reads: what was done, and the nodes as they are after it; nobody is left to tell of them after the end.
fn document(show: &Show, answer: &Answer) -> serde_json::Value {
    match show {
        Show::Table => serde_json::json!({ "items": answer.nodes }),
        Show::Message => serde_json::json!({ "message": answer.message, "items": answer.nodes }),
        Show::End => serde_json::json!({ "message": STOPPED, "items": [] }),
    }
}

fn socket_of(layout: &Layout) -> anyhow::Result<PathBuf> {
    let path = layout.document();
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "read {}\nhint: start a cluster with `confman dev`, or say where it is with --dir",
            path.display()
        )
    })?;
    let document: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
    let socket = document["controlSocket"].as_str();
    Ok(socket
        .with_context(|| format!("{} has no controlSocket", path.display()))?
        .into())
}

async fn exchange(path: &Path, request: &Request, show: &Show) -> anyhow::Result<Answer> {
    let stream = UnixStream::connect(path)
        .await
        .with_context(|| format!("connect to {}", path.display()))?;
    let mut stream = BufReader::new(stream);
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await.context("send")?;
    let mut text = String::new();
    (&mut stream)
        .take(ANSWER_BYTES_MAX)
        .read_line(&mut text)
        .await
        .context("read the answer")?;
    let answer: Answer = serde_json::from_str(&text).context("read the answer")?;
    if *show == Show::End && answer.ok {
        // Ends with the process at the other side, cleanly or not.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_directory_with_a_long_path_gets_its_socket_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let short = Layout::new(&dir.path().join("dev")).unwrap();
        std::fs::create_dir_all(short.root()).unwrap();
        let control = Control::bind(&short).unwrap();
        assert_eq!(control.path(), short.socket());

        let long = Layout::new(&dir.path().join("d".repeat(120))).unwrap();
        std::fs::create_dir_all(long.root()).unwrap();
        let control = Control::bind(&long).unwrap();
        let path = control.path().to_owned();
        assert!(
            path.exists() && !path.starts_with(long.root()),
            "{}",
            path.display()
        );
        drop(control);
        assert!(!path.exists() && path.parent().is_some_and(|dir| !dir.exists()));
    }

    #[tokio::test]
    async fn a_socket_of_a_run_that_is_over_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path()).unwrap();
        std::fs::write(layout.socket(), "left behind").unwrap();
        Control::bind(&layout).unwrap();
    }

    #[tokio::test]
    async fn without_a_cluster_an_action_says_how_to_start_one() {
        let dir = tempfile::tempdir().unwrap();
        let error = send(dir.path(), DevAction::Status { json: false })
            .await
            .unwrap_err();
        assert!(
            format!("{error:#}").contains("hint: start a cluster with `confman dev`"),
            "{error:#}"
        );
    }
}
