//! The only node that is left had fallen behind: the store knows of acknowledged writes that its directory does not have.

use anyhow::Context as _;
use confman_tests::agree;
use confman_tests::cluster::{CONFIG, Cluster, META, Plan};
use confman_tests::restore::{planned as restored, restore, snapshot_all};
use serde_json::{Value, json};

use super::kit::*;

/// What a refused plan says against one group.
fn against<'a>(document: &'a Value, group: &str) -> anyhow::Result<&'a Value> {
    let refusals = document["error"]["refusals"].as_array();
    let is_of_group = |refusal: &&Value| {
        let words = refusal["message"].as_str().unwrap_or_default();
        words.starts_with(&format!("{group}: "))
    };
    let found = refusals.and_then(|all| all.iter().find(is_of_group));
    found.with_context(|| format!("nothing against {group} in {document}"))
}

/// A node that leads no group: its end costs nobody an election.
async fn follower_of_all(cluster: &Cluster) -> anyhow::Result<usize> {
    let leaders = [
        cluster.wait_leader(META).await?,
        cluster.wait_leader(CONFIG).await?,
    ];
    (0..cluster.nodes().len())
        .find(|node| !leaders.contains(node))
        .context("everybody leads")
}

/// Two of three go on without it, are acknowledged, and are lost for good. A plan from it alone would lose those writes, and is refused
/// with what is missing; the way that the refusal names brings every one back that was in the snapshots.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn m15_what_only_the_store_has_is_not_given_up_unasked_and_comes_back_the_way_that_is_told()
-> anyhow::Result<()> {
    let cluster = Plan::new("behind-the-store").start().await?;
    cluster.fill("app", "k", 100, "value").await?;
    agree::state_hashes(&cluster, CONFIG).await?;
    let laggard = follower_of_all(&cluster).await?;
    cluster.node(laggard).kill()?;
    cluster.fill("app", "late", 100, "value").await?;
    cluster.write("app/last", &json!("acknowledged")).await?;
    let history = agree::audits(&cluster, Some("app")).await?;
    let (live_index, live_hash) = agree::state_hashes(&cluster, CONFIG).await?;
    snapshot_all(&cluster, &[META, CONFIG]).await?;
    let lost: Vec<usize> = (0..3).filter(|node| *node != laggard).collect();
    lose(&cluster, &lost)?;

    let seen = collect(&cluster, &[laggard], "c.json").await?.expect(0)?;
    let seen = seen.json()?;
    let names = lost.iter().map(|node| cluster.node(*node).name.clone());
    let names: Vec<String> = names.collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let ran = plan(&cluster, "c.json", &names, "p.json")
        .await?
        .expect(3)?;
    assert_eq!(refusal(&ran)?, "RECOVER_BEHIND", "{ran}");
    assert!(!cluster.dir()?.join("p.json").exists(), "a plan: {ran}");
    let document = ran.json()?;
    let told = against(&document, CONFIG)?;
    let hint = told["hint"].as_str().unwrap_or_default();
    assert!(hint.contains("`drtool restore plan`"), "{told}");
    assert!(hint.contains("gives up nothing of"), "{told}");

    // What it says is missing is what is missing.
    let groups = seen["directories"][0]["groups"].as_array();
    let of_config = |group: &&Value| group["group"] == CONFIG;
    let there = groups.and_then(|groups| groups.iter().find(of_config));
    let ends = there.context("no facts")?["last"]["index"].as_u64();
    let missing = live_index - ends.context("an empty log")?;
    assert!(missing > 0, "it was not behind: {seen}");
    let words = told["message"].as_str().unwrap_or_default();
    // Unless the two had another election, of which it cannot know.
    let exactly = words.contains(&format!("lacks {missing} entr"));
    assert!(exactly || words.contains(": up to "), "{missing}: {words}");

    // The way that it tells.
    take_away(&cluster, laggard)?;
    let order = restore(&cluster, &[]).await?;
    let account = restored(&order, CONFIG)?;
    assert_eq!(account["index"], live_index, "{order}");
    assert_eq!(account["stateHash"], json!(live_hash), "{order}");
    agree::state_hashes(&cluster, CONFIG).await?;
    agree::state_hashes(&cluster, META).await?;
    let read = cluster.read(laggard, "app/last", "linearizable").await?;
    assert_eq!(read, Some(json!("acknowledged")));
    for n in 0..100 {
        let key = format!("app/late{n}");
        let read = cluster.read(laggard, &key, "linearizable").await?;
        assert_eq!(read, Some(json!(format!("value-{n}"))), "{key}");
    }
    assert_eq!(agree::audits(&cluster, Some("app")).await?, history);
    cluster.write("app/after", &json!("goes on")).await?;

    // What it had is of a life that is over.
    cluster.node(laggard).kill()?;
    bring_back(&cluster, laggard)?;
    cluster.node(laggard).start()?;
    wait_fenced(&cluster, laggard).await?;
    cluster.finish()
}
