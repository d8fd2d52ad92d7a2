//! The only node that is left had fallen behind: the store knows of acknowledged writes that its directory does not have.

use anyhow::Context as _;
use confman_tests::agree;
use confman_tests::cluster::{CONFIG, Cluster, META, PATIENCE, Plan};
use confman_tests::load::{Load, LoadPlan};
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

/// A cluster of which one node is left: two of three went on without it, were acknowledged, and are lost for good.
struct Behind {
    cluster: Cluster,
    /// The node that is left.
    laggard: usize,
    /// The names of the others.
    lost: Vec<String>,
    old: OldLife,
    /// What `config/0` had come to in its newest snapshot.
    live: (u64, String),
    /// The audit history of `app` then.
    history: Vec<Value>,
}

impl Behind {
    async fn new(name: &str) -> anyhow::Result<Self> {
        let cluster = Plan::new(name).start().await?;
        cluster.fill("app", "k", 100, "value").await?;
        let writers = LoadPlan {
            readers: 0,
            ..LoadPlan::default()
        };
        let load = Load::start(&cluster, &writers);
        load.wait_progress(40, PATIENCE).await?;
        let laggard = follower_of_all(&cluster).await?;
        cluster.node(laggard).kill()?;
        load.wait_progress(40, PATIENCE).await?;
        let old = OldLife::of(load.stop().await?)?;
        cluster.fill("app", "late", 100, "value").await?;
        cluster.write("app/last", &json!("acknowledged")).await?;
        let history = agree::audits(&cluster, Some("app")).await?;
        let live = agree::state_hashes(&cluster, CONFIG).await?;
        snapshot_all(&cluster, &[META, CONFIG]).await?;
        let lost: Vec<usize> = (0..3).filter(|node| *node != laggard).collect();
        lose(&cluster, &lost)?;
        let lost = lost.iter().map(|node| cluster.node(*node).name.clone());
        Ok(Self {
            lost: lost.collect(),
            cluster,
            laggard,
            old,
            live,
            history,
        })
    }

    fn lost(&self) -> Vec<&str> {
        self.lost.iter().map(String::as_str).collect()
    }

    /// Collects what is left; gives where the log of `config/0` ends there.
    async fn collected(&self) -> anyhow::Result<u64> {
        let seen = collect(&self.cluster, &[self.laggard], "c.json").await?;
        let seen = seen.expect(0)?.json()?;
        let groups = seen["directories"][0]["groups"].as_array();
        let of_config = |group: &&Value| group["group"] == CONFIG;
        let there = groups.and_then(|groups| groups.iter().find(of_config));
        let ends = there.context("no facts")?["last"]["index"].as_u64();
        let ends = ends.context("an empty log")?;
        assert!(ends < self.live.0, "it was not behind: {seen}");
        Ok(ends)
    }

    /// What a plan from it alone is refused with.
    async fn refused(&self) -> anyhow::Result<Value> {
        let ran = plan(&self.cluster, "c.json", &self.lost(), "p.json").await?;
        let ran = ran.expect(3)?;
        assert_eq!(refusal(&ran)?, "RECOVER_BEHIND", "{ran}");
        assert!(
            !self.cluster.dir()?.join("p.json").exists(),
            "a plan: {ran}"
        );
        ran.json()
    }
}

/// A plan from it alone would lose those writes, and is refused with what is missing; the way that the refusal names brings every one back
/// that was in the snapshots.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn m15_what_only_the_store_has_is_not_given_up_unasked_and_comes_back_the_way_that_is_told()
-> anyhow::Result<()> {
    let behind = Behind::new("behind-the-store").await?;
    let (cluster, laggard) = (&behind.cluster, behind.laggard);
    let ends = behind.collected().await?;
    let document = behind.refused().await?;
    let told = against(&document, CONFIG)?;
    let hint = told["hint"].as_str().unwrap_or_default();
    assert!(hint.contains("`drtool restore plan`"), "{told}");
    assert!(hint.contains("gives up nothing of"), "{told}");

    // What it says is missing is what is missing.
    let missing = behind.live.0 - ends;
    let words = told["message"].as_str().unwrap_or_default();
    // Unless the two had another election, of which it cannot know.
    let exactly = words.contains(&format!("lacks {missing} entr"));
    assert!(exactly || words.contains(": up to "), "{missing}: {words}");

    // The way that it tells.
    take_away(cluster, laggard)?;
    let order = restore(cluster, &[]).await?;
    let account = restored(&order, CONFIG)?;
    assert_eq!(account["index"], behind.live.0, "{order}");
    assert_eq!(account["stateHash"], json!(behind.live.1), "{order}");
    let kept = judge_new_life(cluster, &[0, 1, 2], &behind.old, &order).await?;
    assert_eq!((kept.gone, kept.unknown), (0, 0));
    let read = cluster.read(laggard, "app/last", "linearizable").await?;
    assert_eq!(read, Some(json!("acknowledged")));
    for n in 0..100 {
        let key = format!("app/late{n}");
        let read = cluster.read(laggard, &key, "linearizable").await?;
        assert_eq!(read, Some(json!(format!("value-{n}"))), "{key}");
    }
    let history = agree::audits(cluster, Some("app")).await?;
    assert_eq!(history, behind.history);
    cluster.write("app/after", &json!("goes on")).await?;

    // What it had is of a life that is over.
    cluster.node(laggard).kill()?;
    bring_back(cluster, laggard)?;
    cluster.node(laggard).start()?;
    wait_fenced(cluster, laggard).await?;
    behind.cluster.finish()
}

/// The operator goes on without them all the same: what was announced is gone and nothing else is, and the history says so for good.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i15_m15_what_was_given_up_by_name_is_gone_and_nothing_else() -> anyhow::Result<()> {
    let behind = Behind::new("given-up").await?;
    let (cluster, laggard) = (&behind.cluster, behind.laggard);
    let ends = behind.collected().await?;
    let refused = behind.refused().await?;
    let groups: Vec<&str> = [META, CONFIG]
        .into_iter()
        .filter(|group| against(&refused, group).is_ok())
        .collect();
    let planned = plan_losing(cluster, "c.json", &behind.lost(), &groups, "p.json").await?;
    let planned = planned.expect(0)?.json()?;
    let account = restored(&planned, CONFIG)?;
    assert_eq!(account["last"]["index"], ends, "{planned}");
    let loss = &account["loss"];
    assert_eq!(loss["proven"]["position"]["index"], behind.live.0, "{loss}");
    if loss["lostAtMost"].is_null() {
        assert_eq!(loss["lostProven"], behind.live.0 - ends, "{loss}");
    }
    carry_out(cluster, "apply", "p.json", laggard)
        .await?
        .expect(0)?;
    cluster.node(laggard).start()?;
    first_write(cluster, 2, "app/after").await?;

    let kept = judge_new_life(cluster, &[laggard], &behind.old, &planned).await?;
    assert!(kept.gone >= 30, "what it never heard is there: {kept:?}");
    assert!(kept.sure + kept.unknown >= 30, "{kept:?}");
    for n in 0..100 {
        let (had, late) = (format!("app/k{n}"), format!("app/late{n}"));
        let read = cluster.read(laggard, &had, "linearizable").await?;
        assert_eq!(read, Some(json!(format!("value-{n}"))), "{had}");
        let read = cluster.read(laggard, &late, "linearizable").await?;
        assert_eq!(read, None, "{late}");
    }
    let read = cluster.read(laggard, "app/last", "linearizable").await?;
    assert_eq!(read, None);
    // Empty machines come, and have what it has; the snapshots of the old life are nobody's past any more.
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    judge_new_life(cluster, &[0, 1, 2], &behind.old, &planned).await?;
    let (now, _) = agree::state_hashes(cluster, CONFIG).await?;
    assert!(now > ends, "{now}");
    behind.cluster.finish()
}
