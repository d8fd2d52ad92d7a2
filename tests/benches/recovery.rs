//! How long the two bad days take, by phase: a lost quorum, and every node lost.
//!
//! `cargo bench -p confman-tests --bench recovery -- --entries 1000000`
//!
//! Three nodes with a state of that many values of 256 bytes. First two of them are killed and lose their disks, and the
//! third begins a new life: collect, plan, apply, start, first acknowledged write. Then all three lose their disks and
//! come back from the store: plan, apply, state installed, groups open, leaders elected, first acknowledged write. Tool time is the operator's commands
//! alone. It prints one JSON document, with how busy the machine was.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use confman_tests::agree;
use confman_tests::argument::argument;
use confman_tests::binary;
use confman_tests::cluster::{CONFIG, Cluster, META, Plan};
use confman_tests::drtool::{Drtool, Ran};
use confman_tests::node::Node;
use confman_tests::wait::wait_until;
use serde_json::{Map, Value, json};

const VALUE_BYTES: usize = 256;
/// What a node logs when the state of every group is installed, and when its groups run.
const RESTORED: &str = "restored from the store as the order says";
const SERVING: &str = ": serving";
const LONG: Duration = Duration::from_secs(900);

/// Phases, in the order in which they were.
#[derive(Default)]
struct Phases {
    seconds: Map<String, Value>,
    tool: f64,
    all: f64,
}

impl Phases {
    async fn time<T>(
        &mut self,
        phase: &str,
        is_tool: bool,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let begin = Instant::now();
        let done = work.await.with_context(|| format!("phase {phase}"))?;
        let seconds = begin.elapsed().as_secs_f64();
        eprintln!("{phase}: {seconds:.2} s");
        self.seconds.insert(phase.to_owned(), json!(round(seconds)));
        self.all += seconds;
        if is_tool {
            self.tool += seconds;
        }
        Ok(done)
    }

    fn document(self, more: Value) -> Value {
        let mut document = json!({
            "seconds": self.seconds, "toolSeconds": round(self.tool), "totalSeconds": round(self.all),
        });
        if let (Some(to), Value::Object(more)) = (document.as_object_mut(), more) {
            to.extend(more);
        }
        document
    }
}

fn round(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// Processes that wanted a processor, on average over the last minute.
fn load() -> Value {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|first| first.parse::<f64>().ok())
        .map_or(Value::Null, |load| json!(load))
}

async fn tool(cluster: &Cluster, args: &[&str]) -> anyhow::Result<Drtool> {
    let store = cluster.store().await;
    let env = store.as_ref().context("a store")?.env();
    Ok(cluster.drtool(args).envs(env))
}

async fn run(command: Drtool) -> anyhow::Result<Ran> {
    command.run().await?.expect(0)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let entries = argument("--entries", 100_000)?;
    binary::confman_rebuilt()?;
    binary::drtool_rebuilt()?;
    let load_before = load();
    let cluster = Plan::new("recovery")
        // Snapshots on demand only, so that the log is as long as what was written.
        .env("CONFMAN_SNAPSHOT_LOG_THRESHOLD", "1000000000")
        .env("CONFMAN_SNAPSHOT_BYTES_THRESHOLD", "1099511627776")
        .env("CONFMAN_SNAPSHOT_TIME_THRESHOLD_SECS", "31536000")
        // As users have it, not as other tests do: the new life waits for three of them while the lost nodes are silent.
        .env("CONFMAN_STORE_FENCE_INTERVAL_MS", "5000")
        .env("CONFMAN_HEARTBEAT_MS", "250")
        .env("CONFMAN_ELECTION_TIMEOUT_MIN_MS", "1500")
        .env("CONFMAN_ELECTION_TIMEOUT_MAX_MS", "3000")
        .start()
        .await?;
    let begin = Instant::now();
    for (place, from) in (0..entries).step_by(10_000).enumerate() {
        let count = 10_000.min(entries - from);
        let value = "v".repeat(VALUE_BYTES - 8);
        cluster
            .fill(&format!("small/n{place}"), "k", count, &value)
            .await?;
        if place % 10 == 0 {
            eprintln!("{from} of {entries} entries");
        }
    }
    let fill_seconds = begin.elapsed().as_secs_f64();
    agree::state_hashes(&cluster, CONFIG).await?;
    let quorum_loss = quorum_loss(&cluster).await?;
    let restore = restore(&cluster, entries).await?;
    let document = json!({
        "entries": entries, "valueBytes": VALUE_BYTES, "fillSeconds": round(fill_seconds),
        "processors": std::thread::available_parallelism()?.get(),
        "loadBefore": load_before, "loadAfter": load(),
        "quorumLoss": quorum_loss, "restore": restore,
    });
    println!("{document:#}");
    cluster.finish()
}

/// Two of three are killed and their disks are gone.
async fn quorum_loss(cluster: &Cluster) -> anyhow::Result<Value> {
    cluster.kill_all()?;
    cluster.node(1).wipe()?;
    cluster.node(2).wipe()?;
    let node = cluster.node(0);
    let directory = node.data_dir.to_str().context("a path that is no text")?;
    let mut phases = Phases::default();
    phases
        .time("collect", true, async {
            let args = ["recover", "collect", "--out", "collection.json", directory];
            run(tool(cluster, &args).await?).await
        })
        .await?;
    phases
        .time("plan", true, async {
            let args = ["recover", "plan", "collection.json", "--out", "plan.json"];
            let lost = ["--lost", "node2", "--lost", "node3"];
            run(tool(cluster, &[&args[..], &lost].concat()).await?).await
        })
        .await?;
    let applied = phases
        .time("apply", true, async {
            let args = ["recover", "apply", "--yes", "--json", "--plan", "plan.json"];
            run(tool(cluster, &[&args[..], &[directory]].concat()).await?).await
        })
        .await?
        .json()?;
    phases
        .time("startToFirstWrite", false, async {
            node.start()?;
            first_write(cluster, 2).await
        })
        .await?;
    Ok(phases.document(json!({ "copied": applied["copied"], "applySeconds": applied["seconds"] })))
}

/// Every node is killed and its disk is gone; the store has a snapshot of each group.
async fn restore(cluster: &Cluster, entries: usize) -> anyhow::Result<Value> {
    let groups = [META, CONFIG];
    // The others come back as members of the new life first: a restore is of the members that the snapshots know, three here.
    cluster.start_all()?;
    wait_until("three nodes are ready", LONG, || all_ready(cluster)).await?;
    let mut bytes = 0;
    let begin = Instant::now();
    for group in groups {
        let taken = cluster.snapshot_within(group, LONG).await?;
        bytes += taken["bytes"].as_u64().unwrap_or_default();
    }
    let snapshot_seconds = begin.elapsed().as_secs_f64();
    cluster.kill_all()?;
    cluster.nodes().iter().try_for_each(|node| node.wipe())?;

    let mut phases = Phases::default();
    let plan = phases
        .time("plan", true, async {
            run(tool(cluster, &["restore", "plan", "--json"]).await?).await
        })
        .await?
        .json()?;
    let id = plan["planId"].as_str().context("a plan without planId")?;
    let file = cluster.dir()?.join(format!("restore-plan-{id}.json"));
    phases
        .time("apply", true, async {
            let file = file.to_str().context("a path that is no text")?;
            run(tool(cluster, &["restore", "apply", file, "--yes"]).await?).await
        })
        .await?;
    // Fetching, proving and installing are one stream and have one time; each next phase begins with the slowest node.
    let (restored, serving) = (Said::new(cluster, RESTORED)?, Said::new(cluster, SERVING)?);
    phases
        .time("startToRestored", false, async {
            cluster.start_all()?;
            restored.by_all(cluster).await
        })
        .await?;
    phases
        .time("restoredToOpen", false, serving.by_all(cluster))
        .await?;
    phases
        .time("openToReady", false, async {
            wait_until("three nodes are ready", LONG, || all_ready(cluster)).await
        })
        .await?;
    phases
        .time("readyToFirstWrite", false, first_write(cluster, 3))
        .await?;
    let (_, hash) = agree::state_hashes(cluster, CONFIG).await?;
    ensure!(!hash.is_empty(), "no state hash");
    let mut nodes = Map::new();
    for (index, node) in cluster.nodes().iter().enumerate() {
        let mut of_node = Map::new();
        for group in groups {
            let restore = cluster.group(index, group).await?["restore"].clone();
            of_node.insert(group.to_owned(), restore["seconds"].clone());
        }
        nodes.insert(node.name.clone(), Value::Object(of_node));
    }
    let last = format!(
        "small/n{}/k{}",
        (entries - 1) / 10_000,
        (entries - 1) % 10_000
    );
    ensure!(
        cluster.read(0, &last, "linearizable").await?.is_some(),
        "{last} is gone"
    );
    Ok(phases.document(json!({
        "snapshotSeconds": round(snapshot_seconds), "snapshotBytes": bytes, "restoreSecondsOfNodes": nodes,
    })))
}

/// Words that a node logs at every start, and how often each had before.
struct Said {
    words: &'static str,
    before: Vec<usize>,
}

impl Said {
    fn new(cluster: &Cluster, words: &'static str) -> anyhow::Result<Self> {
        let before = Self::counts(cluster, words)?;
        Ok(Self { words, before })
    }

    fn counts(cluster: &Cluster, words: &str) -> anyhow::Result<Vec<usize>> {
        let of = |node: &Node| Ok(node.log_text()?.matches(words).count());
        cluster.nodes().iter().map(of).collect()
    }

    /// Until every node has said it once more.
    async fn by_all(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let what = format!("every node says {:?}", self.words);
        wait_until(&what, LONG, || async {
            let now = Self::counts(cluster, self.words)?;
            ensure!(
                now.iter()
                    .zip(&self.before)
                    .all(|(now, before)| now > before),
                "{now:?}"
            );
            Ok(())
        })
        .await
    }
}

async fn all_ready(cluster: &Cluster) -> anyhow::Result<()> {
    for index in 0..cluster.nodes().len() {
        let ready = cluster.api(index).get("/health/ready").send().await?;
        ready.expect(&[200])?;
    }
    Ok(())
}

/// Until a write of that life is acknowledged.
async fn first_write(cluster: &Cluster, incarnation: u64) -> anyhow::Result<()> {
    let path = "/api/v1/config/bench/first";
    wait_until("the first write is acknowledged", LONG, || async {
        for node in cluster.nodes().iter().filter(|n| n.pid().is_some()) {
            let api = cluster.api(0).at(&node.api_url);
            let answer = api
                .put(path, &json!("first"))
                .timeout(Duration::from_secs(10))
                .send()
                .await;
            if let Ok(answer) = answer
                && answer.status < 300
            {
                let token = answer.token()?;
                ensure!(token.incarnation == incarnation, "{token}");
                return Ok(());
            }
        }
        anyhow::bail!("no node takes it")
    })
    .await
}
