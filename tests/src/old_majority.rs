//! An old majority that comes back, or lives and cannot be told: what it is let, what its clients are told, and who of two lives accepts
//! writes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::cluster::{Cluster, PATIENCE};
use crate::delay::{Delay, Link};
use crate::http::{Api, Token};
use crate::wait::wait_until;

const LOOKED: &str = "confman_store_fence_look_timestamp_seconds ";

/// Takes the directory of a node away, as a machine that is unreachable does; [`bring_back`] puts it back.
///
/// # Errors
/// It cannot be moved.
pub fn take_away(cluster: &Cluster, node: usize) -> anyhow::Result<PathBuf> {
    let node = cluster.node(node);
    let away = node.data_dir.with_extension("away");
    std::fs::rename(&node.data_dir, &away)
        .with_context(|| format!("move {}", node.data_dir.display()))?;
    Ok(away)
}

/// The machine is back, with all that it had.
///
/// # Errors
/// It cannot be moved.
pub fn bring_back(cluster: &Cluster, node: usize) -> anyhow::Result<()> {
    let node = cluster.node(node);
    let away = node.data_dir.with_extension("away");
    if node.data_dir.exists() {
        std::fs::remove_dir_all(&node.data_dir)?;
    }
    std::fs::rename(&away, &node.data_dir).with_context(|| format!("move {}", away.display()))
}

/// What a node says that it waits for, with the words of `/health/ready`.
///
/// # Errors
/// It does not answer.
pub async fn readiness(cluster: &Cluster, node: usize) -> anyhow::Result<(u16, String)> {
    let answer = cluster
        .api(node)
        .get("/health/ready")
        .timeout(Duration::from_secs(2))
        .send()
        .await?;
    Ok((answer.status, answer.text()))
}

/// Tries to write at one node, once; gives the token if it was acknowledged.
pub async fn try_write(cluster: &Cluster, node: usize, key: &str) -> Option<Token> {
    let answer = cluster
        .api(node)
        .put(&format!("/api/v1/config/app/{key}"), &json!("v"))
        .timeout(Duration::from_secs(2))
        .send()
        .await
        .ok()?;
    (answer.status < 300).then(|| answer.token().ok()).flatten()
}

/// Writes at these nodes for a while; fails when any of them acknowledges in another incarnation.
///
/// # Errors
/// One does.
pub async fn only_incarnation_writes(
    cluster: &Cluster,
    nodes: &[usize],
    incarnation: u64,
    lasts: Duration,
) -> anyhow::Result<u32> {
    let begin = Instant::now();
    let mut acknowledged = 0;
    while begin.elapsed() < lasts {
        for node in nodes {
            if let Some(token) = try_write(cluster, *node, "probe").await {
                ensure!(
                    token.incarnation == incarnation,
                    "{} acknowledged {token} while incarnation {incarnation} lives",
                    cluster.node(*node).name
                );
                acknowledged += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(acknowledged)
}

/// [`only_incarnation_writes`], where that life goes on: it acknowledges several writes meanwhile, however busy the machine is.
///
/// # Errors
/// It does not in time, or another one does.
pub async fn keeps_writing(
    cluster: &Cluster,
    nodes: &[usize],
    incarnation: u64,
    lasts: Duration,
) -> anyhow::Result<()> {
    let begin = Instant::now();
    let mut acknowledged = 0;
    while acknowledged < 4 {
        ensure!(
            begin.elapsed() < PATIENCE,
            "incarnation {incarnation} was harmed: it acknowledged {acknowledged} writes"
        );
        acknowledged += only_incarnation_writes(cluster, nodes, incarnation, lasts).await?;
    }
    Ok(())
}

/// Waits until a node is fenced, says how to come back, and has all that it had.
///
/// # Errors
/// It is not in time.
pub async fn wait_fenced(cluster: &Cluster, node: usize) -> anyhow::Result<()> {
    let what = format!("{} is fenced", cluster.node(node).name);
    wait_until(&what, PATIENCE, || async {
        let (status, text) = readiness(cluster, node).await?;
        ensure!(status == 503, "{status}: {text}");
        ensure!(text.contains("fenced"), "{text}");
        ensure!(
            text.contains("aside"),
            "it does not say how to rejoin: {text}"
        );
        Ok(())
    })
    .await?;
    ensure!(cluster.node(node).has_data(), "its data is gone");
    Ok(())
}

/// Something that a node of the old life answered as a leader, or by a leader's word, may.
#[derive(Debug, Clone, Copy)]
pub struct Answered {
    /// When it was asked.
    pub begin: Instant,
    /// When it had answered.
    pub end: Instant,
    /// What it was asked for.
    pub what: &'static str,
}

/// Writes and reads, linearizably, at one node; gives what was not refused.
pub async fn ask_both(api: &Api, timeout: Duration) -> Vec<Answered> {
    let path = "/api/v1/config/app/left-behind";
    let begin = Instant::now();
    let write = api.put(path, &json!("v")).timeout(timeout);
    let read = api.get(path).consistency("linearizable").timeout(timeout);
    let (write, read) = tokio::join!(async { (write.send().await, Instant::now()) }, async {
        (read.send().await, Instant::now())
    },);
    [("write", write), ("read", read)]
        .into_iter()
        .filter_map(|(what, (answer, end))| {
            // That there is nothing is an answer too.
            let done = matches!(answer.ok()?.status, 200..=299 | 404);
            done.then_some(Answered { begin, end, what })
        })
        .collect()
}

/// Clients of an old life, each with a node that it does not leave, that ask one thing after the other until they are told to stop.
pub struct Clients {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Vec<Answered>>>,
}

impl Clients {
    /// One for each of these nodes.
    #[must_use]
    pub fn of(cluster: &Cluster, nodes: &[usize]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let one = |node: &usize| {
            let (api, stop) = (cluster.api(*node), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut all = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    all.extend(ask_both(&api, Duration::from_secs(10)).await);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                all
            })
        };
        let tasks = nodes.iter().map(one).collect();
        Self { stop, tasks }
    }

    /// Ends them; gives what they were answered.
    ///
    /// # Errors
    /// One has panicked.
    pub async fn stop(self) -> anyhow::Result<Vec<Answered>> {
        self.stop.store(true, Ordering::SeqCst);
        let mut answered = Vec::new();
        for task in self.tasks {
            answered.extend(task.await?);
        }
        Ok(answered)
    }
}

/// Whether the old life, which was told nothing and looked into the store at `looked` for the last time before the new life was claimed there,
/// had ended when the new one acknowledged its first write.
///
/// # Errors
/// It answered something that it was asked later; or it was dead before, and nothing was tried.
pub fn judge_apart(answered: &[Answered], looked: Instant, first: Instant) -> anyhow::Result<()> {
    let lived = answered.iter().filter(|a| a.begin > looked).count();
    ensure!(
        lived > 3,
        "the old majority was dead before the plan was applied"
    );
    let late: Vec<&Answered> = answered.iter().filter(|a| a.begin > first).collect();
    ensure!(
        late.is_empty(),
        "{} answers of the old life after the first write of the new, the first to a {:?}",
        late.len(),
        late.first().map(|a| a.what)
    );
    let last = answered.iter().map(|a| a.end).max().context("no answers")?;
    eprintln!(
        "the old life went on for {:.1} s, the new one began after {:.1} s",
        (last - looked).as_secs_f64(),
        (first - looked).as_secs_f64()
    );
    Ok(())
}

/// Waits until one of these nodes acknowledges a write, the first of this life; gives when.
///
/// # Errors
/// None does in time, or one does in another life.
pub async fn wait_first_write(
    cluster: &Cluster,
    nodes: &[usize],
    incarnation: u64,
) -> anyhow::Result<Instant> {
    // It waits for the others' fence by itself, which the story may have made long.
    wait_until("the new life writes", PATIENCE * 2, || async {
        for node in nodes {
            if let Some(token) = try_write(cluster, *node, "after").await {
                ensure!(token.incarnation == incarnation, "{token}");
                return Ok(Instant::now());
            }
        }
        anyhow::bail!("it does not")
    })
    .await
}

async fn last_look(api: &Api) -> anyhow::Result<String> {
    let text = api.get("/metrics").send().await?.expect(&[200])?.text();
    let line = text.lines().find(|line| line.starts_with(LOOKED));
    Ok(line.context("it has not looked")?.to_owned())
}

/// Waits until a leader has just looked into the store; gives when.
///
/// # Errors
/// It does not look in time.
pub async fn wait_look(cluster: &Cluster, leader: usize) -> anyhow::Result<Instant> {
    let before = last_look(&cluster.api(leader)).await?;
    wait_until("the leader looks", PATIENCE, || async {
        let now = last_look(&cluster.api(leader)).await?;
        ensure!(now != before, "not since {before}");
        Ok(Instant::now())
    })
    .await
}

/// Lays a way to the API of each of these nodes and lets the nodes name it as theirs, so that closing it hides them from all but the test.
///
/// # Errors
/// It cannot listen.
pub async fn ways_to_apis(cluster: &Cluster, nodes: &[usize]) -> anyhow::Result<Vec<Link>> {
    let mut ways = Vec::new();
    for node in nodes {
        let node = cluster.node(*node);
        let address = node.api_url.trim_start_matches("http://");
        let way = Link::lay("127.0.0.1:0".parse()?, address.parse::<SocketAddr>()?).await?;
        let advertised = format!("http://{}", way.address());
        node.set_env("CONFMAN_API_ADVERTISE", &advertised);
        ways.push(way);
    }
    Ok(ways)
}

/// Makes a node's way to the store that long, from its next start on and while what is given lives.
///
/// # Errors
/// It has no store.
pub async fn slow_store(cluster: &Cluster, node: usize, delay: Delay) -> anyhow::Result<Link> {
    let env = cluster.node(node).env();
    let endpoint = env.get("AWS_ENDPOINT_URL").context("no store")?;
    let address = endpoint.trim_start_matches("http://").parse()?;
    let way = Link::lay("127.0.0.1:0".parse()?, address).await?;
    way.set(delay);
    let endpoint = format!("http://{}", way.address());
    cluster.node(node).set_env("AWS_ENDPOINT_URL", &endpoint);
    Ok(way)
}
