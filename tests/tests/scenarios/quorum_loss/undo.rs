//! A recovery that was a mistake is taken back, until its life has acknowledged anything.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use confman_tests::cluster::{CONFIG, Cluster, META, PATIENCE, Plan};
use confman_tests::members::changed;
use confman_tests::restore::{make_plan, planned as restored, run};
use confman_tests::wait::wait_until;
use serde_json::json;

use super::kit::*;

/// Until every group of the node says that its life has begun.
async fn wait_begun(cluster: &Cluster, node: usize) -> anyhow::Result<()> {
    cluster.wait_ready(node).await
}

/// Three nodes of which two were only away: the recovery of the third is taken back after it ran, and before anybody wrote.
#[tokio::test(flavor = "multi_thread")]
async fn i15_undo_before_the_first_write_gives_the_old_cluster_back() -> anyhow::Result<()> {
    let cluster = Plan::new("undo").start().await?;
    cluster.fill("app", "k", 100, "value").await?;
    let old = OldLife::lived(&cluster).await?;
    cluster.kill_all()?;
    take_away(&cluster, 0)?;
    take_away(&cluster, 1)?;
    let first = planned(&cluster, &[2], "plan.json").await?;
    assert_eq!(first["newIncarnation"], 2);
    carry_out(&cluster, "apply", "plan.json", 2)
        .await?
        .expect(0)?;
    cluster.node(2).start()?;
    wait_begun(&cluster, 2).await?;
    // A running node is not taken back under its own feet.
    let ran = carry_out(&cluster, "undo", "plan.json", 2)
        .await?
        .expect(3)?;
    assert_eq!(refusal(&ran)?, "RECOVER_RUNNING", "{ran}");
    cluster.node(2).kill()?;
    let undone = carry_out(&cluster, "undo", "plan.json", 2)
        .await?
        .expect(0)?
        .json()?;
    assert_eq!(undone["what"], "putBack", "{undone}");
    // The other machines are back: the old cluster goes on, all three, nothing lost, the store theirs.
    bring_back(&cluster, 0)?;
    bring_back(&cluster, 1)?;
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    let token = first_write(&cluster, 1, "app/after").await?;
    assert!(token.term < 1_000, "{token}");
    old.goes_on(&cluster, &[0, 1, 2]).await?;
    assert_eq!(
        cluster.read(2, "app/k99", "linearizable").await?,
        Some(json!("value-99"))
    );
    cluster.snapshot(CONFIG).await?;
    // The number is spent: the next recovery has another.
    cluster.kill_all()?;
    cluster.node(0).wipe()?;
    cluster.node(1).wipe()?;
    let second = planned(&cluster, &[2], "second.json").await?;
    assert_eq!(second["newIncarnation"], 3, "{second}");
    carry_out(&cluster, "apply", "second.json", 2)
        .await?
        .expect(0)?;
    cluster.node(2).start()?;
    first_write(&cluster, 3, "app/again").await?;
    judge_new_life(&cluster, &[2], &old, &second).await?;
    cluster.finish()
}

/// What a life does by itself when it begins takes nothing from the one before: a snapshot is due, and an old one is not retired for it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i15_undo_works_after_a_snapshot_of_the_new_life_and_finds_all_that_was_there()
-> anyhow::Result<()> {
    let cluster = Plan::new("undo-snapshot")
        .env("CONFMAN_SNAPSHOT_RETENTION_COUNT", "2")
        .env("CONFMAN_SNAPSHOT_DELETE_GRACE_SECS", "0")
        .start()
        .await?;
    for round in 0..2 {
        cluster
            .fill("app", &format!("k{round}-"), 20, "value")
            .await?;
        cluster.snapshot(CONFIG).await?;
    }
    cluster.snapshot(META).await?;
    let old = snapshots(&cluster).await?;
    assert_eq!(old.len(), 2, "{old:?}");
    lose(&cluster, &[0, 1])?;
    planned(&cluster, &[2], "plan.json").await?;
    carry_out(&cluster, "apply", "plan.json", 2)
        .await?
        .expect(0)?;
    cluster.node(2).start()?;
    wait_begun(&cluster, 2).await?;
    cluster.snapshot(CONFIG).await?;
    let more = snapshots(&cluster).await?;
    assert_eq!(more.len(), 3, "{more:?}");
    // Longer than between two looks at what is to be retired.
    let looks = Instant::now() + Duration::from_secs(12);
    wait_until("it has looked", PATIENCE, || async {
        let there = snapshots(&cluster).await?;
        anyhow::ensure!(
            old.is_subset(&there),
            "{old:?} are not all there: {there:?}"
        );
        anyhow::ensure!(Instant::now() > looks, "not yet");
        Ok(())
    })
    .await?;
    assert!(old.is_subset(&snapshots(&cluster).await?));
    cluster.node(2).kill()?;
    carry_out(&cluster, "undo", "plan.json", 2)
        .await?
        .expect(0)?;
    // What the undone life left in the store has the highest numbers of all, and is nobody's past.
    let args = ["snapshot", "show", "latest", "--group", CONFIG, "--json"];
    let latest = run(&cluster, &args, 0).await?.json()?;
    let is_old = |id: Option<&str>| id.is_some_and(|id| old.contains(id));
    assert!(is_old(latest["id"].as_str()), "{latest}");
    cluster.node(2).wipe()?;
    let (_, plan) = make_plan(&cluster, &[]).await?;
    let id = restored(&plan, CONFIG)?["snapshotId"].as_str();
    assert!(is_old(id), "{plan}");
    cluster.finish()
}

/// The ids of the snapshots of `config/0` in the store.
async fn snapshots(cluster: &Cluster) -> anyhow::Result<BTreeSet<String>> {
    let store = cluster
        .store()
        .await
        .as_ref()
        .map(|s| s.env())
        .unwrap_or_default();
    let listed = cluster
        .drtool(["snapshot", "list", "--group", CONFIG, "--json"])
        .envs(store);
    let listed = listed.run().await?.expect(0)?.json()?;
    let items = listed["items"].as_array().cloned().unwrap_or_default();
    Ok(items
        .iter()
        .filter_map(|item| item["id"].as_str().map(str::to_owned))
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn i15_undo_after_the_first_write_is_refused_and_says_so() -> anyhow::Result<()> {
    let cluster = Plan::new("spent").start().await?;
    cluster.fill("app", "k", 20, "value").await?;
    let old = OldLife::lived(&cluster).await?;
    lose(&cluster, &[0, 1])?;
    let plan = planned(&cluster, &[2], "plan.json").await?;
    carry_out(&cluster, "apply", "plan.json", 2)
        .await?
        .expect(0)?;
    cluster.node(2).start()?;
    first_write(&cluster, 2, "app/after").await?;
    cluster.node(2).kill()?;
    let ran = carry_out(&cluster, "undo", "plan.json", 2)
        .await?
        .expect(3)?;
    assert_eq!(refusal(&ran)?, "RECOVER_SPENT", "{ran}");
    assert!(
        ran.stderr.contains("app/after"),
        "it does not say what was written: {ran}"
    );
    cluster.node(2).start()?;
    cluster.wait_ready(2).await?;
    assert_eq!(
        cluster.read(2, "app/after", "linearizable").await?,
        Some(json!("first"))
    );
    judge_new_life(&cluster, &[2], &old, &plan).await?;
    cluster.finish()
}

/// The old nodes were back before the new life began, without a leader: they fenced themselves. Taking it back lets them go.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_fenced_themselves_for_a_recovery_that_was_undone_are_let_go()
-> anyhow::Result<()> {
    let cluster = Plan::new("unfence").start().await?;
    let old = OldLife::lived(&cluster).await?;
    cluster.kill_all()?;
    planned(&cluster, &[2], "plan.json").await?;
    carry_out(&cluster, "apply", "plan.json", 2)
        .await?
        .expect(0)?;
    // The store says that a newer life is there: whoever starts now is over.
    for node in [0, 1] {
        cluster.node(node).start()?;
        wait_until("it is fenced", PATIENCE, || async {
            let (status, text) = readiness(&cluster, node).await?;
            anyhow::ensure!(status == 503 && text.contains("fenced"), "{text}");
            Ok(())
        })
        .await?;
        assert!(cluster.node(node).has_data());
    }
    // Not before the recovery itself is taken back.
    cluster.node(0).kill()?;
    cluster.node(1).kill()?;
    let ran = carry_out(&cluster, "undo", "plan.json", 0)
        .await?
        .expect(3)?;
    assert_eq!(refusal(&ran)?, "RECOVER_NEWER_LIFE", "{ran}");
    // The store does not answer: the directory is as it was, and the claim is told to stand.
    cluster.stop_store().await;
    let ran = carry_out(&cluster, "undo", "plan.json", 2)
        .await?
        .expect(7)?;
    assert_eq!(refusal(&ran)?, "RECOVER_CLAIM_STANDS", "{ran}");
    cluster.resume_store().await?;
    carry_out(&cluster, "undo", "plan.json", 2)
        .await?
        .expect(0)?;
    for node in [0, 1] {
        let undone = carry_out(&cluster, "undo", "plan.json", node)
            .await?
            .expect(0)?
            .json()?;
        assert_eq!(undone["what"], "unfence", "{undone}");
    }
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    first_write(&cluster, 1, "app/after").await?;
    old.goes_on(&cluster, &[0, 1, 2]).await?;
    cluster.finish()
}

/// The store is away from the first step to the first write: nothing needs it, and what is claimed late is claimed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i18_a_recovery_needs_no_store() -> anyhow::Result<()> {
    let cluster = Plan::new("no-store").start().await?;
    let old = OldLife::lived(&cluster).await?;
    let demote = ["demote", "node2", "--yes", "--allow-less-tolerance"];
    changed(&cluster, &demote).await?;
    // Killed at once, its state may not know of that yet, and a plan goes by the state.
    cluster.node(2).stop(PATIENCE).await?;
    lose(&cluster, &[0, 1])?;
    cluster.stop_store().await;
    let plan = planned(&cluster, &[2], "plan.json").await?;
    let notes = plan["notes"].to_string();
    assert!(notes.contains("was not reached"), "{notes}");
    // Who was to learn comes back as a learner, and nobody else does.
    let learns: Vec<_> = [0, 1]
        .map(|at| &plan["expected"][at])
        .map(|e| (e["info"]["name"].clone(), e["learner"].clone()))
        .into();
    let wished = [
        (json!("node1"), json!(false)),
        (json!("node2"), json!(true)),
    ];
    assert_eq!(learns, wished, "{plan}");
    // It is done, but for the claim in the store that was named.
    let applied = carry_out(&cluster, "apply", "plan.json", 2)
        .await?
        .expect(7)?
        .json()?;
    assert_eq!(applied["store"]["claimed"], false, "{applied}");
    assert!(applied["store"]["error"].is_string(), "{applied}");
    assert_eq!(applied["store"]["code"], "RECOVER_NOT_CLAIMED", "{applied}");
    cluster.node(2).start()?;
    first_write(&cluster, 2, "app/after").await?;
    cluster.resume_store().await?;
    // The next snapshot claims the prefix for the new life.
    wait_until(
        "a snapshot in the new life",
        Duration::from_secs(90),
        || cluster.snapshot(CONFIG),
    )
    .await?;
    let store = cluster
        .store()
        .await
        .as_ref()
        .map(|s| s.env())
        .unwrap_or_default();
    let verify = cluster.drtool(["recover", "verify", "--json"]).envs(store);
    let verified = verify.run().await?.expect(0)?.json()?;
    let warned = verified["findings"].to_string();
    assert!(!warned.contains("not claimed"), "{verified}");
    judge_new_life(&cluster, &[2], &old, &plan).await?;
    cluster.finish()
}
