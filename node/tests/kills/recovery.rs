//! kill -9 of the one that is left of three at every place at which its new life begins.

use anyhow::{Context as _, ensure};
use confman_tests::agree;
use confman_tests::cluster::{CONFIG, Cluster, META, PATIENCE, Plan};
use confman_tests::drtool::Ran;
use confman_tests::wait::wait_until;
use serde_json::json;

use super::kit::{DIR, Points, revived};

/// In the order in which it comes by. It leads every group, so each place must be passed: the claim goes to the store and its answer is
/// lost, the life has begun in one group and in no other, it has begun in all and the start does not know it yet.
const PLACES: [&str; 6] = [
    "life::before-claim",
    "life::after-claim",
    "life::before-begin",
    "life::after-begin",
    "life::before-forget",
    "life::after-forget",
];
const GROUPS: [&str; 4] = [META, CONFIG, "config/1", "config/2"];

/// One step of the recovery, with the directory of the first node.
async fn recover(cluster: &Cluster, args: &[&str]) -> anyhow::Result<Ran> {
    cluster
        .drtool([&["recover"], args, &["--json"]].concat())
        .run()
        .await?
        .expect(0)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i13_i17_kill_9_at_every_place_where_a_recovered_life_begins_comes_to_the_same_end()
-> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let points = Points::new(dir.path())?;
    let cluster = Plan::new("life-kills")
        .env("CONFMAN_SHARDS", "3")
        .env(DIR, &points.dir().display().to_string())
        .start()
        .await?;
    for tree in ["app", "web", "data", "more"] {
        cluster.fill(tree, "k", 20, "value").await?;
    }
    for group in GROUPS {
        agree::state_hashes(&cluster, group).await?;
    }
    let before = agree::audits(&cluster, Some("app")).await?;
    cluster.kill_all()?;
    for index in [1, 2] {
        cluster.node(index).wipe()?;
    }

    let survivor = cluster.node(0);
    let directory = survivor
        .data_dir
        .to_str()
        .context("a path that is no text")?;
    recover(&cluster, &["collect", "--out", "c.json", directory]).await?;
    let lost = ["--lost", "node2", "--lost", "node3"];
    let plan = ["plan", "c.json", "--out", "plan.json"];
    recover(&cluster, &[&plan[..], &lost].concat()).await?;
    // It is not told of the store: so it is the node that claims the life there.
    let apply = ["apply", "--yes", "--plan", "plan.json", directory];
    let applied = recover(&cluster, &apply).await?.json()?;
    ensure!(applied["store"]["claimed"] != true, "{applied}");
    let pending = survivor.data_dir.join("incarnation");
    ensure!(pending.exists(), "nothing is to be begun");

    points.arm(&PLACES)?;
    survivor.start()?;
    let work = async {
        let passed = tokio::time::timeout(PATIENCE * 2, points.passed()).await;
        passed.context("a place is not come by")??;
        cluster.wait_ready(0).await
    };
    let done = revived(&cluster, &[0], work).await;
    let left = points.left()?;
    let ((), deaths) = done.with_context(|| format!("still armed: {left:?}"))?;
    ensure!(deaths == PLACES.len(), "{deaths} deaths");
    ensure!(!pending.exists(), "it is still to be begun");

    // The same end as without a death: begun once in each group, history whole, and the machines that lost their disks come back.
    let recovered = wait_until("every group tells of it", PATIENCE, || async {
        let mut events = agree::audits(&cluster, None).await?;
        events.retain(|e| e["action"] == "cluster.recovered");
        ensure!(events.len() >= GROUPS.len(), "{events:?}");
        Ok(events)
    })
    .await?;
    let mut begun: Vec<_> = recovered
        .iter()
        .filter_map(|e| e["group"].as_str())
        .collect();
    begun.sort_unstable();
    assert_eq!(begun, GROUPS, "{recovered:?}");
    assert_eq!(agree::audits(&cluster, Some("app")).await?, before);
    let token = cluster.write("app/after", &json!("first")).await?.token()?;
    assert_eq!(token.incarnation, 2, "{token}");
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    for group in GROUPS {
        agree::state_hashes(&cluster, group).await?;
    }
    assert_eq!(
        cluster.read(1, "app/k7", "linearizable").await?,
        Some(json!("value-7"))
    );
    cluster.finish()
}

/// A state is made durable less often than the log, and what is not known to be committed is applied only when there is a leader: when the
/// groups lead, the registry may know of nobody yet. Those of the older life are waited for all the same.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i13_a_life_whose_registry_is_behind_its_log_waits_for_the_older_one() -> anyhow::Result<()>
{
    let cluster = Plan::new("slow-registry").start().await?;
    cluster.fill("app", "k", 20, "value").await?;
    cluster.kill_all()?;
    let survivor = cluster.node(0);
    let directory = survivor
        .data_dir
        .to_str()
        .context("a path that is no text")?;
    recover(&cluster, &["collect", "--out", "c.json", directory]).await?;
    let lost = ["--lost", "node2", "--lost", "node3"];
    let plan = ["plan", "c.json", "--out", "plan.json"];
    recover(&cluster, &[&plan[..], &lost].concat()).await?;
    let apply = ["apply", "--yes", "--plan", "plan.json", directory];
    recover(&cluster, &apply).await?;
    let behind = "store::no-committed=return;store::apply-meta=sleep(1500)";
    survivor.set_env("FAILPOINTS", behind);
    let before = survivor.log_text()?.len();
    survivor.start()?;
    cluster.wait_ready(0).await?;
    let log = survivor.log_text()?.split_off(before);
    let waits = log.find("it waits until").context("it waited for nobody")?;
    let begins = log
        .find("a new incarnation has begun")
        .context("it has not begun")?;
    ensure!(waits < begins, "it began before it waited: {log}");
    cluster.finish()
}
