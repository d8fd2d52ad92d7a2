//! Two processes under one node id (I14): a data directory that was copied, a name that was given twice. The newcomer is
//! refused with the finding, the node goes on; and a restart, however quick, is never taken for a second process.

use std::time::{Duration, Instant};

use confman_tests::cluster::{CONFIG, Cluster, META, PATIENCE, Plan};
use confman_tests::load::{Load, LoadPlan};
use confman_tests::node::Node;
use confman_tests::wait::wait_until;
use serde_json::json;

const EXIT_BOUND: Duration = Duration::from_secs(20);

/// It ends by itself, and says that its node is alive elsewhere and what to do.
async fn refused(second: &Node, words: &[&str]) -> anyhow::Result<()> {
    let status = second.wait_exit(EXIT_BOUND).await?;
    assert!(!status.success(), "{status}");
    let log = second.log_text()?;
    for word in words.iter().copied().chain(["hint:"]) {
        assert!(log.contains(word), "it does not say {word:?}: {log}");
    }
    Ok(())
}

fn never_said(cluster: &Cluster, words: &str) -> anyhow::Result<()> {
    for node in cluster.nodes() {
        let log = node.log_text()?;
        assert!(!log.contains(words), "{} says {words:?}: {log}", node.name);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i14_a_copied_directory_is_refused_while_its_node_lives() -> anyhow::Result<()> {
    let cluster = Plan::new("copied-dir").start().await?;
    cluster.write("app/k", &json!("before")).await?;
    let victim = cluster.follower(CONFIG).await?;
    cluster.node(victim).kill()?;
    let second = cluster.second(victim, true)?;
    cluster.node(victim).start()?;
    cluster.wait_ready(victim).await?;
    let pid = cluster.node(victim).pid();

    second.start()?;
    refused(&second, &["is alive at", &cluster.node(victim).peer_addr]).await?;
    // Once more: nothing was written down that would let it in.
    second.start()?;
    refused(&second, &["is alive at"]).await?;

    assert_eq!(cluster.node(victim).pid(), pid);
    cluster.wait_all_ready().await?;
    cluster.write("app/k", &json!("after")).await?;
    never_said(&cluster, "has taken the place")?;
    cluster.finish()
}

/// The node does not answer when its copy starts, and comes back to find its place taken: one of the two ends.
#[tokio::test(flavor = "multi_thread")]
async fn i14_a_node_that_wakes_up_to_find_its_copy_running_ends() -> anyhow::Result<()> {
    let cluster = Plan::new("woken").start().await?;
    cluster.write("app/k", &json!("before")).await?;
    let victim = cluster.follower(CONFIG).await?;
    cluster.node(victim).kill()?;
    let second = cluster.second(victim, true)?;
    cluster.node(victim).start()?;
    cluster.wait_ready(victim).await?;
    cluster.node(victim).pause()?;

    second.start()?;
    let api = cluster.api(victim).at(&second.api_url);
    wait_until("the copy is ready", PATIENCE, || async {
        let ready = api.get("/health/ready").timeout(Duration::from_secs(2));
        ready.send().await?.expect(&[200])?;
        Ok(())
    })
    .await?;
    cluster.write("app/k", &json!("while it slept")).await?;

    cluster.node(victim).resume()?;
    refused(cluster.node(victim), &["has taken the place"]).await?;
    // The one that took its place goes on.
    let marked = cluster.write("app/k", &json!("after")).await?.token()?;
    wait_until("the copy has applied it", PATIENCE, || async {
        let status = api.get("/api/v1/status").send().await?.json()?;
        let applied = status["groups"].as_array().and_then(|groups| {
            let group = groups.iter().find(|group| group["group"] == CONFIG)?;
            group["appliedIndex"].as_u64()
        });
        anyhow::ensure!(applied >= Some(marked.index), "{status}");
        Ok(())
    })
    .await?;
    second.kill()?;
    cluster.finish()
}

/// The second machine has the same settings: the name of the first leads to the first.
#[tokio::test(flavor = "multi_thread")]
async fn i14_a_copy_that_finds_its_own_address_answered_is_refused() -> anyhow::Result<()> {
    let cluster = Plan::new("same-settings").nodes(1).start().await?;
    cluster.write("app/k", &json!("before")).await?;
    cluster.node(0).kill()?;
    let second = cluster.second(0, true)?;
    cluster.node(0).start()?;
    cluster.wait_ready(0).await?;
    let port = second.peer_addr.rsplit(':').next().unwrap_or_default();
    second.set_env("CONFMAN_PEER_LISTEN", &format!("127.0.0.2:{port}"));
    second.set_env("CONFMAN_PEER_ADVERTISE", &cluster.node(0).peer_addr);
    second.start()?;
    refused(&second, &["is alive at", &cluster.node(0).peer_addr]).await?;
    cluster.write("app/k", &json!("after")).await?;
    cluster.finish()
}

/// A machine that is not there: connections are taken and nothing is ever answered.
struct BlackHole {
    url: String,
    _held: tokio::task::JoinHandle<()>,
}

impl BlackHole {
    async fn open() -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let held = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.push(stream);
            }
        });
        Ok(Self { url, _held: held })
    }
}

impl Drop for BlackHole {
    fn drop(&mut self) {
        self._held.abort();
    }
}

/// A node that lost its disk is restoring: it has its new id and does not run yet. A second process under its name must
/// not be taken in in its place.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i14_a_node_that_is_restoring_keeps_its_name() -> anyhow::Result<()> {
    let cluster = Plan::new("restoring").start().await?;
    cluster.write("app/k", &json!("v")).await?;
    cluster.snapshot(CONFIG).await?;
    let victim = cluster.follower(META).await?;
    cluster.node(victim).kill()?;
    cluster.node(victim).wipe()?;
    let hole = BlackHole::open().await?;
    let good = cluster.node(victim).env()["AWS_ENDPOINT_URL"].clone();
    cluster.node(victim).set_env("AWS_ENDPOINT_URL", &hole.url);
    cluster.node(victim).start()?;
    cluster
        .node(victim)
        .wait_log(&["admitted under a new node id"], PATIENCE)
        .await?;
    let second = cluster.second(victim, false)?;
    second.set_env("AWS_ENDPOINT_URL", &good);
    second.start()?;
    refused(&second, &["is alive at"]).await?;
    assert!(
        !second.log_text()?.contains("admitted under a new node id"),
        "the second one was taken in"
    );
    // The first one is told of the store again, and comes back.
    cluster.node(victim).kill()?;
    cluster.node(victim).set_env("AWS_ENDPOINT_URL", &good);
    cluster.node(victim).start()?;
    cluster.wait_ready(victim).await?;
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn a_restart_is_never_taken_for_a_second_process() -> anyhow::Result<()> {
    let cluster = Plan::new("quick-restarts").start().await?;
    let load = Load::start(
        &cluster,
        &LoadPlan {
            writers: 2,
            readers: 1,
            ..LoadPlan::default()
        },
    );
    load.wait_progress(20, PATIENCE).await?;
    let begin = Instant::now();
    for round in 0..12 {
        let node = cluster.node(round % 3);
        node.kill()?;
        node.start()?;
        cluster.wait_ready(round % 3).await?;
    }
    // All of them at once, and one that is killed while it starts.
    cluster.kill_all()?;
    cluster.start_all()?;
    cluster.node(0).kill()?;
    cluster.node(0).start()?;
    cluster.wait_all_ready().await?;
    eprintln!("restarts took {:?}", begin.elapsed());
    load.wait_progress(20, PATIENCE).await?;
    load.stop().await?;
    never_said(&cluster, "is alive at")?;
    never_said(&cluster, "has taken the place")?;
    cluster.finish()
}
