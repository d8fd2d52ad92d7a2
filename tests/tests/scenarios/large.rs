//! As much as a value may be, and a tree whose import dies half way.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use confman_tests::audit;
use confman_tests::cluster::{CONFIG, Cluster, META, PATIENCE, Plan};
use confman_tests::http::Answer;
use confman_tests::random::Random;
use confman_tests::wait::wait_until;
use reqwest::Method;

/// The largest value that nodes take by default.
const LARGEST: usize = 100 << 20;
/// What a program without optimisation takes for that on a busy machine.
const LONG: Duration = Duration::from_secs(300);
const PATH: &str = "/api/v1/config/files/largest.bin";
const OCTETS: &str = "application/octet-stream";

async fn get(cluster: &Cluster, index: usize, consistency: &str) -> anyhow::Result<Answer> {
    let ask = cluster.api(index).get(PATH).header("accept", OCTETS);
    ask.consistency(consistency).timeout(LONG).send().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn the_largest_value_goes_through_a_follower_and_comes_back_to_a_node_without_a_disk()
-> anyhow::Result<()> {
    // Purged close behind the snapshot, so that the value comes from the store and not from the log.
    let plan = Plan::new("largest").env("CONFMAN_SNAPSHOT_LOG_MARGIN", "10");
    let cluster = plan.start().await?;
    let bytes = Random::new(11).bytes(LARGEST);
    let leader = cluster.wait_leader(CONFIG).await?;
    let mut followers = (0..3).filter(|index| *index != leader);
    let (through, other) = (followers.next().unwrap(), followers.next().unwrap());
    // Where leadership moves meanwhile it is sent again, and written once.
    let put = wait_until("it is written", LONG, || async {
        cluster
            .api(through)
            .ask(Method::PUT, PATH)
            .header("content-type", OCTETS)
            .header("x-confman-forward", "true")
            .header("idempotency-key", "largest")
            .body(bytes.clone())
            .timeout(LONG)
            .send()
            .await?
            .expect(&[201])
    })
    .await?;
    assert_eq!(put.json()?["size"], LARGEST);
    let got = get(&cluster, other, "linearizable").await?.expect(&[200])?;
    ensure!(got.body == bytes, "node {other} gives other bytes");
    // One byte more is refused, and nothing of it stays.
    let more = [&bytes[..], b"!"].concat();
    let refused = cluster
        .api(leader)
        .ask(Method::PUT, PATH)
        .header("content-type", OCTETS)
        .header("x-confman-forward", "true")
        .body(more)
        .timeout(LONG)
        .send()
        .await?;
    assert_eq!(refused.status, 413, "{}", refused.text());

    for group in [META, CONFIG] {
        cluster.snapshot_within(group, LONG).await?;
    }
    cluster.node(through).kill()?;
    cluster.node(through).wipe()?;
    cluster.node(through).start()?;
    wait_until("the node has it again", LONG, || async {
        let got = get(&cluster, through, "eventual").await?.expect(&[200])?;
        assert!(got.body == bytes, "node {through} gives other bytes");
        Ok(())
    })
    .await?;
    cluster.wait_all_ready().await?;
    cluster.finish()
}

/// Small files go in batches, large ones by themselves in parts.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn an_import_that_died_half_way_is_run_again_and_every_file_is_there_once()
-> anyhow::Result<()> {
    const SMALL: usize = 1_500;
    const LARGE: usize = 12;
    let cluster = Plan::new("half-import").start().await?;
    let tree = cluster.dir()?.join("tree");
    let mut files = Vec::new();
    for number in 0..SMALL + LARGE {
        let bytes = match number % (SMALL / LARGE) {
            0 if number < SMALL => 700_000,
            _ => 300,
        };
        let dir = tree.join(format!("d{}", number % 7));
        std::fs::create_dir_all(&dir)?;
        let file = dir.join(format!("f{number}"));
        std::fs::write(&file, Random::new(number as u64).bytes(bytes))?;
        files.push(format!("tree/d{}/f{number}", number % 7));
    }
    let root = tree.to_str().context("path is not text")?;
    let import = ["import", root, "--into", "tree"];
    let puts = async || -> anyhow::Result<Vec<String>> {
        let leader = cluster.wait_leader(CONFIG).await?;
        let events = audit::events(&cluster.api(leader), Some("tree")).await?;
        let text = |event: &serde_json::Value, name: &str| {
            event[name].as_str().unwrap_or_default().to_owned()
        };
        let puts = events.iter().filter(|event| event["action"] == "put");
        Ok(puts
            .map(|event| format!("{}/{}", text(event, "namespace"), text(event, "key")))
            .collect())
    };
    let mut child = cluster
        .confman_command(&import)?
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let begun = wait_until("the import is well under way", PATIENCE, || async {
        let there = puts().await?.len();
        ensure!(there >= SMALL / 8, "{there} have come");
        Ok(())
    })
    .await;
    // SIGKILL, whatever came of the wait.
    child.kill()?;
    child.wait()?;
    begun?;
    let half = puts().await?.len();
    ensure!(half < files.len(), "it was done before it was killed");
    eprintln!("killed after {half} of {}", files.len());

    let ran = cluster.confman(&import)?;
    ensure!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    let mut there = puts().await?;
    there.sort_unstable();
    files.sort_unstable();
    // Each written once: what was there already got no second version.
    assert_eq!(there, files);
    for file in &files {
        let entry = cluster.api(0).get(&format!("/api/v1/config/{file}"));
        let entry = entry
            .header("accept", OCTETS)
            .send()
            .await?
            .expect(&[200])?;
        let version = entry.header("etag").context("no etag")?;
        assert_eq!(version, "\"v1\"", "{file}");
        let name = file.strip_prefix("tree/").context("a name")?;
        assert!(entry.body == std::fs::read(tree.join(name))?, "{file}");
    }
    cluster.finish()
}
