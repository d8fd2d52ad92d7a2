//! Waiting until the nodes of `confman dev` are ready, by asking each over HTTP as anyone would.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::fleet::Fleet;

/// Enough for three nodes of a debug build on a busy machine that replay a long log.
const READY_WAIT: Duration = Duration::from_secs(120);
const ASK_WAIT: Duration = Duration::from_secs(2);
const ASK_PAUSE: Duration = Duration::from_millis(100);
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

/// Waits until every node that runs is ready, and at least a majority runs.
///
/// # Errors
/// When too few are left, or the bound has passed; says what each unready node answered.
pub(super) async fn wait(fleet: &Fleet, nodes_total: usize) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + READY_WAIT;
    loop {
        let running = fleet.running().await;
        if running.len() * 2 <= nodes_total {
            bail!(
                "{} of {nodes_total} nodes run, too few to agree\nhint: what they said stands above and in their logs",
                running.len()
            );
        }
        let mut unready = Vec::new();
        for node in running {
            match ask(node.api).await {
                Ok(None) => {}
                Ok(Some(reasons)) => unready.push(format!("{}: {reasons}", node.name)),
                Err(error) => unready.push(format!("{}: {error:#}", node.name)),
            }
        }
        if unready.is_empty() {
            return Ok(());
        }
        if tokio::time::Instant::now() >= deadline {
            bail!(
                "not ready within {} s: {}",
                READY_WAIT.as_secs(),
                unready.join("; ")
            );
        }
        tokio::time::sleep(ASK_PAUSE).await;
    }
}

/// None when ready, else what the node says about it.
async fn ask(api: SocketAddr) -> anyhow::Result<Option<String>> {
    let asked = async {
        let mut stream = TcpStream::connect(api).await.context("connect")?;
        let request =
            format!("GET /health/ready HTTP/1.1\r\nHost: {api}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.context("ask")?;
        let mut answer = Vec::new();
        stream
            .take(ANSWER_BYTES_MAX)
            .read_to_end(&mut answer)
            .await
            .context("read the answer")?;
        anyhow::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = tokio::time::timeout(ASK_WAIT, asked)
        .await
        .context("no answer in time")??;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    Ok((status != "200").then(|| format!("{status} {}", body.trim())))
}
