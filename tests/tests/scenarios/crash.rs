//! kill -9 at any moment, under load, with a history check at the end; and cold starts of everything.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use confman_tests::cluster::{CONFIG, Cluster, PATIENCE, Plan};
use confman_tests::history::Op;
use confman_tests::load::{Load, LoadPlan, NAMESPACE};
use confman_tests::random::Random;
use confman_tests::{agree, judge};
use serde_json::json;

/// Rounds of the kill loop; `CONFMAN_TEST_KILLS` asks for more.
const KILLS: usize = 12;

/// The values that the keys of a history have now, read linearizably.
pub(crate) async fn final_values(
    cluster: &Cluster,
    history: &[Op],
) -> anyhow::Result<BTreeMap<String, String>> {
    let leader = cluster.wait_leader(CONFIG).await?;
    judge::final_values(&cluster.api(leader), history).await
}

/// Everything that a history and a cluster at rest can be judged by.
pub(crate) async fn judge(cluster: &Cluster, history: &[Op]) -> anyhow::Result<()> {
    judge::judge(&agree::running(cluster), NAMESPACE, history).await
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_i3_kill_9_loops_under_load_lose_and_double_nothing() -> anyhow::Result<()> {
    let kills = std::env::var("CONFMAN_TEST_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(KILLS);
    // Snapshots and purges take part too.
    let cluster = Plan::new("kills")
        .env("CONFMAN_SNAPSHOT_LOG_THRESHOLD", "400")
        .env("CONFMAN_SNAPSHOT_LOG_MARGIN", "50")
        .start()
        .await?;
    let plan = LoadPlan::default();
    let mut random = Random::new(plan.seed);
    let load = Load::start(&cluster, &plan);
    load.wait_progress(30, PATIENCE).await?;
    for round in 0..kills {
        let victims: Vec<usize> = match random.below(10) {
            0 => vec![0, 1, 2],
            1 | 2 => {
                let spared = random.below(3);
                (0..3).filter(|index| *index != spared).collect()
            }
            3..=5 => vec![cluster.wait_leader(CONFIG).await?],
            _ => vec![random.below(3)],
        };
        eprintln!(
            "round {round}: kill {victims:?}, {} acknowledged",
            load.acknowledged()
        );
        for victim in &victims {
            cluster.node(*victim).kill()?;
        }
        if victims.len() == 1 {
            load.wait_progress(20, PATIENCE).await?;
        }
        // At another moment of the life of the others each time.
        tokio::time::sleep(Duration::from_millis(random.below(400) as u64)).await;
        cluster.start_all()?;
        // Sometimes killed again before it is ready.
        if !random.chance(25) {
            cluster.wait_all_ready().await?;
        }
        load.wait_progress(20, PATIENCE).await?;
    }
    cluster.wait_all_ready().await?;
    load.wait_progress(50, PATIENCE).await?;
    let history = load.stop().await?;
    eprintln!("{} operations", history.len());
    judge(&cluster, &history).await?;
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i1_i2_i3_a_cold_start_of_all_finds_everything() -> anyhow::Result<()> {
    let cluster = Plan::new("cold").start().await?;
    let load = Load::start(
        &cluster,
        &LoadPlan {
            writers: 4,
            readers: 1,
            ..LoadPlan::default()
        },
    );
    load.wait_progress(150, PATIENCE).await?;
    // All at once, in the middle of writing.
    cluster.kill_all()?;
    let history = load.stop().await?;
    // In another order than at first, one after the other.
    for index in [2, 0, 1] {
        cluster.node(index).start()?;
    }
    cluster.wait_all_ready().await?;
    judge(&cluster, &history).await?;

    // And gracefully, all together.
    let before = agree::state_hashes(&cluster, CONFIG).await?.1;
    for index in 0..3 {
        cluster.node(index).signal(rustix::process::Signal::TERM)?;
    }
    for index in 0..3 {
        let status = cluster
            .node(index)
            .wait_exit(Duration::from_secs(12))
            .await?;
        assert!(status.success(), "{status}");
    }
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    let after = agree::state_hashes(&cluster, CONFIG).await?.1;
    assert_eq!(before, after);
    judge(&cluster, &history).await?;
    cluster.finish()
}

/// The state hashes that the nodes show while they work must be equal wherever two show the same position.
#[tokio::test(flavor = "multi_thread")]
async fn i2_state_hashes_are_equal_at_every_position_seen_under_load() -> anyhow::Result<()> {
    let cluster = Plan::new("hashes").start().await?;
    let load = Load::start(
        &cluster,
        &LoadPlan {
            pause: Duration::from_millis(5),
            ..LoadPlan::default()
        },
    );
    let mut seen: BTreeMap<u64, (usize, String)> = BTreeMap::new();
    let mut compared = 0;
    let begin = Instant::now();
    while compared < 60 {
        anyhow::ensure!(
            begin.elapsed() < PATIENCE,
            "only {compared} positions were seen on two nodes"
        );
        for index in 0..3 {
            let status = cluster.group(index, CONFIG).await?;
            let place = status["stateHash"]["index"].as_u64().unwrap();
            let hash = status["stateHash"]["hash"].as_str().unwrap().to_owned();
            match seen.get(&place) {
                Some((other, known)) if *other != index => {
                    assert_eq!(*known, hash, "nodes {other} and {index} at {place}");
                    compared += 1;
                }
                _ => {
                    seen.insert(place, (index, hash));
                }
            }
        }
    }
    let history = load.stop().await?;
    judge(&cluster, &history).await?;
    cluster.finish()
}

/// A node that dies with its leader's connection open, again and again, before it is ready (FAULTS C23).
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn a_node_killed_again_and_again_while_it_starts_comes_back_at_last() -> anyhow::Result<()> {
    let cluster = Plan::new("crash-loop").start().await?;
    cluster.fill("app", "k", 2_000, "v").await?;
    let victim = cluster.follower(CONFIG).await?;
    for round in 0..10 {
        cluster.node(victim).kill()?;
        cluster.write("app/round", &json!(round)).await?;
        cluster.node(victim).start()?;
        tokio::time::sleep(Duration::from_millis(40 * round)).await;
    }
    cluster.wait_ready(victim).await?;
    agree::state_hashes(&cluster, CONFIG).await?;
    assert_eq!(
        cluster.read(victim, "app/round", "linearizable").await?,
        Some(json!(9))
    );
    cluster.finish()
}
