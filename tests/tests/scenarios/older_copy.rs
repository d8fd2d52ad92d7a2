//! A data directory that is put back from an older copy (D08): the node would vote again in terms that it voted in, and be
//! counted on for entries that it acknowledged and does not have. The others remember, and it is refused.

use std::time::{Duration, SystemTime};

use confman_tests::cluster::{CONFIG, Cluster, PATIENCE, Plan, copy_dir};
use confman_tests::wait::wait_until;
use serde_json::json;

const EXIT_BOUND: Duration = Duration::from_secs(20);

fn plan(name: &str) -> Plan {
    // What a node hears of the others' promises is told at this level.
    Plan::new(name).env(
        "CONFMAN_LOG",
        "info,confman_node::peer::acquaintance=debug,openraft=warn,raft_log=warn",
    )
}

/// Kills a node, copies its directory, starts it again, and has the cluster go on, with the node in it.
async fn go_on_after_a_copy(cluster: &Cluster, victim: usize) -> anyhow::Result<u64> {
    cluster.write("app/k", &json!("before")).await?;
    cluster.node(victim).kill()?;
    copy_dir(&cluster.node(victim).data_dir, &copy_of(cluster, victim)?)?;
    cluster.node(victim).start()?;
    cluster.wait_ready(victim).await?;
    let mut last = 0;
    for round in 0..5 {
        last = cluster.write("app/k", &json!(round)).await?.token()?.index;
    }
    wait_until("the node has applied it", PATIENCE, || async {
        let group = cluster.group(victim, CONFIG).await?;
        anyhow::ensure!(group["appliedIndex"].as_u64() >= Some(last), "{group}");
        Ok(())
    })
    .await?;
    // An acknowledgement that nobody heard binds nobody: where another leads, it has heard this one.
    let leader = cluster.wait_leader(CONFIG).await?;
    if leader != victim {
        let name = &cluster.node(victim).name;
        wait_until("the leader has heard that it has it", PATIENCE, || async {
            let group = cluster.group(leader, CONFIG).await?;
            let members = group["members"].as_array().into_iter().flatten();
            let mut matched = members.filter(|member| member["name"] == name.as_str());
            let matched = matched.next().and_then(|m| m["matchedIndex"].as_u64());
            anyhow::ensure!(matched >= Some(last), "{group}");
            Ok(())
        })
        .await?;
    }
    Ok(last)
}

fn copy_of(cluster: &Cluster, index: usize) -> anyhow::Result<std::path::PathBuf> {
    Ok(cluster.dir()?.join(format!("older-{index}")))
}

/// Puts the older copy in the place of the directory.
fn put_back(cluster: &Cluster, victim: usize) -> anyhow::Result<()> {
    cluster.node(victim).wipe()?;
    copy_dir(&copy_of(cluster, victim)?, &cluster.node(victim).data_dir)
}

async fn refused(cluster: &Cluster, victim: usize) -> anyhow::Result<()> {
    cluster.node(victim).start()?;
    let status = cluster.node(victim).wait_exit(EXIT_BOUND).await?;
    assert!(!status.success(), "{status}");
    let log = cluster.node(victim).log_text()?;
    for words in [
        "is older than what the node promised",
        "hint:",
        "run `drtool set-aside` on this data directory",
    ] {
        assert!(log.contains(words), "it does not say {words:?}: {log}");
    }
    Ok(())
}

/// Waits until one node was told by another what that one holds, up to an entry of `config/0`.
async fn wait_told(
    cluster: &Cluster,
    listener: usize,
    teller: usize,
    entry: u64,
) -> anyhow::Result<()> {
    let id = cluster.status(teller).await?["node"]["id"].to_string();
    wait_until("the others were told", PATIENCE, || async {
        let log = cluster.node(listener).log_text()?;
        let told = log.lines().any(|line| {
            let field = |name: &str| {
                let rest = line.split_once(&format!(" {name}="))?.1;
                rest.split_whitespace()
                    .next()
                    .map(|word| word.trim_matches('"').to_owned())
            };
            line.contains("told what it holds")
                && field("node_id").as_ref() == Some(&id)
                && field("group").as_deref() == Some(CONFIG)
                && field("end").and_then(|end| end.parse::<u64>().ok()) > Some(entry)
        });
        anyhow::ensure!(told, "not yet");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn d08_an_older_copy_of_a_followers_directory_is_refused_and_kept() -> anyhow::Result<()> {
    let cluster = plan("older-follower").start().await?;
    let victim = cluster.follower(CONFIG).await?;
    go_on_after_a_copy(&cluster, victim).await?;
    cluster.node(victim).kill()?;
    put_back(&cluster, victim)?;
    let identity = cluster.node(victim).data_dir.join("identity");
    let before = std::fs::read(&identity)?;
    refused(&cluster, victim).await?;
    // Again: it is not let in for asking twice, and its directory is kept.
    refused(&cluster, victim).await?;
    assert_eq!(
        before,
        std::fs::read(&identity)?,
        "the evidence was changed"
    );
    cluster.write("app/k", &json!("without it")).await?;
    // What the hint says helps.
    std::fs::rename(
        &cluster.node(victim).data_dir,
        cluster.dir()?.join("set-aside"),
    )?;
    cluster.node(victim).start()?;
    cluster.wait_ready(victim).await?;
    cluster.finish()
}

/// The leader of old is the one that is put back: it never told anybody what it acknowledged, but for its own accounts.
#[tokio::test(flavor = "multi_thread")]
async fn d08_an_older_copy_of_the_leaders_directory_is_refused() -> anyhow::Result<()> {
    let cluster = plan("older-leader").start().await?;
    let victim = cluster.wait_leader(CONFIG).await?;
    let last = go_on_after_a_copy(&cluster, victim).await?;
    for listener in (0..3).filter(|index| *index != victim) {
        wait_told(&cluster, listener, victim, last).await?;
    }
    cluster.node(victim).kill()?;
    put_back(&cluster, victim)?;
    refused(&cluster, victim).await?;
    cluster.write("app/k", &json!("without it")).await?;
    cluster.finish()
}

/// The leader that it acknowledged to has forgotten: the other follower was told, and remembers.
#[tokio::test(flavor = "multi_thread")]
async fn d08_one_peer_that_remembers_is_enough() -> anyhow::Result<()> {
    let cluster = plan("older-told").start().await?;
    let victim = cluster.follower(CONFIG).await?;
    let last = go_on_after_a_copy(&cluster, victim).await?;
    let leader = cluster.wait_leader(CONFIG).await?;
    let listener = (0..3)
        .find(|index| *index != victim && *index != leader)
        .ok_or_else(|| anyhow::anyhow!("three nodes"))?;
    wait_told(&cluster, listener, victim, last).await?;
    cluster.node(victim).kill()?;
    cluster.node(leader).kill()?;
    cluster.node(leader).start()?;
    cluster.wait_ready(leader).await?;
    put_back(&cluster, victim)?;
    refused(&cluster, victim).await?;
    cluster.finish()
}

/// It cannot ask anybody when it starts: it is told when it meets one of them, and the leader never counts on it.
#[tokio::test(flavor = "multi_thread")]
async fn d08_an_older_copy_that_starts_alone_is_refused_when_the_others_are_there()
-> anyhow::Result<()> {
    let cluster = plan("older-alone").start().await?;
    let victim = cluster.follower(CONFIG).await?;
    go_on_after_a_copy(&cluster, victim).await?;
    cluster.node(victim).kill()?;
    put_back(&cluster, victim)?;
    for index in (0..3).filter(|index| *index != victim) {
        cluster.node(index).pause()?;
    }
    cluster.node(victim).start()?;
    cluster
        .node(victim)
        .wait_log(&["serving", "node_id"], PATIENCE)
        .await?;
    for index in (0..3).filter(|index| *index != victim) {
        cluster.node(index).resume()?;
    }
    let status = cluster.node(victim).wait_exit(PATIENCE).await?;
    assert!(!status.success(), "{status}");
    let log = cluster.node(victim).log_text()?;
    assert!(
        log.contains("is older than what the node promised"),
        "{log}"
    );
    cluster.write("app/k", &json!("without it")).await?;
    cluster.finish()
}

/// Waits until what others have promised to these nodes by now is on their disks.
async fn wait_kept(cluster: &Cluster, nodes: &[usize]) -> anyhow::Result<()> {
    let since = SystemTime::now();
    cluster.write("app/k", &json!("and on")).await?;
    for index in nodes {
        let file = cluster.node(*index).data_dir.join("promises");
        wait_until("what was promised is on the disk", PATIENCE, || async {
            let written = std::fs::metadata(&file)?.modified()?;
            anyhow::ensure!(written > since, "not since");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Every process has been ended since, with kill -9, as by a power cut: what was promised is remembered on the disks of the others.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn d08_an_older_copy_is_refused_when_every_node_was_restarted_since() -> anyhow::Result<()> {
    let cluster = plan("older-forgotten").start().await?;
    let victim = cluster.follower(CONFIG).await?;
    go_on_after_a_copy(&cluster, victim).await?;
    let others: Vec<usize> = (0..3).filter(|index| *index != victim).collect();
    wait_kept(&cluster, &others).await?;
    cluster.kill_all()?;
    put_back(&cluster, victim)?;
    for index in &others {
        cluster.node(*index).start()?;
    }
    for index in &others {
        cluster.wait_ready(*index).await?;
    }
    refused(&cluster, victim).await?;
    cluster.write("app/k", &json!("without it")).await?;
    cluster.finish()
}

/// A process that goes on tells what its directory held when it started, which is less than it has promised since: who remembers that from
/// before its own restart does not take it for a copy.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn d08_who_went_on_while_another_was_restarted_is_no_copy() -> anyhow::Result<()> {
    let cluster = plan("older-went-on").start().await?;
    for index in 0..3 {
        wait_kept(&cluster, &[index]).await?;
        cluster.node(index).kill()?;
        cluster.node(index).start()?;
        cluster.wait_ready(index).await?;
    }
    cluster.write("app/k", &json!("all of them")).await?;
    for node in cluster.nodes() {
        let log = node.log_text()?;
        assert!(!log.contains("is not let in"), "{log}");
    }
    cluster.finish()
}
