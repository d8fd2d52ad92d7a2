//! The old majority comes back: before, during, a second after and long after, with the store and without it. Never two
//! incarnations that accept writes; whoever is fenced keeps its data and says how to come back (I13).

use std::time::Duration;

use confman_tests::cluster::{CONFIG, Cluster, PATIENCE, Plan};
use confman_tests::wait::wait_until;
use serde_json::json;

use super::kit::*;

/// Without a store, so that only the nodes themselves can keep the lives apart.
pub(super) fn without_store(name: &str) -> Plan {
    Plan::new(name)
        .without_store()
        .env("CONFMAN_SNAPSHOT_ENABLED", "false")
}

/// Before apply: the others elect a leader, and the plan is refused.
#[tokio::test(flavor = "multi_thread")]
async fn m10_the_majority_is_back_before_apply_and_apply_is_refused() -> anyhow::Result<()> {
    let cluster = Plan::new("back-before").start().await?;
    cluster.fill("app", "k", 50, "value").await?;
    cluster.kill_all()?;
    take_away(&cluster, 0)?;
    take_away(&cluster, 1)?;
    planned(&cluster, &[2], "plan.json").await?;
    bring_back(&cluster, 0)?;
    bring_back(&cluster, 1)?;
    cluster.node(0).start()?;
    cluster.node(1).start()?;
    cluster.wait_leader(CONFIG).await?;
    let ran = carry_out(&cluster, "apply", "plan.json", 2)
        .await?
        .expect(3)?;
    assert_eq!(refusal(&ran)?, "RECOVER_QUORUM_ALIVE", "{ran}");
    // The third had been with them meanwhile: then the plan is stale, whoever runs.
    cluster.node(2).start()?;
    cluster.wait_all_ready().await?;
    cluster.write("app/meanwhile", &json!("v")).await?;
    cluster.kill_all()?;
    let ran = carry_out(&cluster, "apply", "plan.json", 2)
        .await?
        .expect(3)?;
    assert_eq!(refusal(&ran)?, "RECOVER_STALE", "{ran}");
    cluster.finish()
}

/// During: the plan is applied, the others come back and elect a leader, then the survivor starts. It holds itself back.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i13_the_majority_is_back_between_apply_and_start_and_the_new_life_does_not_begin()
-> anyhow::Result<()> {
    let cluster = without_store("back-during").start().await?;
    let old = OldLife::lived(&cluster).await?;
    cluster.kill_all()?;
    take_away(&cluster, 0)?;
    take_away(&cluster, 1)?;
    planned(&cluster, &[2], "plan.json").await?;
    carry_out(&cluster, "apply", "plan.json", 2)
        .await?
        .expect(0)?;
    bring_back(&cluster, 0)?;
    bring_back(&cluster, 1)?;
    cluster.node(0).start()?;
    cluster.node(1).start()?;
    wait_until("the old majority has a leader", PATIENCE, || async {
        let written = try_write(&cluster, 0, "old").await;
        let other = try_write(&cluster, 1, "old").await;
        anyhow::ensure!(written.or(other).is_some(), "no write yet");
        Ok(())
    })
    .await?;
    cluster.node(2).start()?;
    wait_until("the survivor holds itself back", PATIENCE, || async {
        let (status, text) = readiness(&cluster, 2).await?;
        anyhow::ensure!(
            status == 503 && text.contains("incarnation 1 lives"),
            "{text}"
        );
        Ok(())
    })
    .await?;
    keeps_writing(&cluster, &[0, 1, 2], 1, Duration::from_secs(4)).await?;
    // The recovery was a mistake, and is taken back: three again.
    cluster.node(2).kill()?;
    carry_out(&cluster, "undo", "plan.json", 2)
        .await?
        .expect(0)?;
    cluster.node(2).start()?;
    cluster.wait_all_ready().await?;
    first_write(&cluster, 1, "app/after").await?;
    old.goes_on(&cluster, &[0, 1, 2]).await?;
    cluster.finish()
}

/// A second after, and later: the new life has begun, the others come back one by one and together.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i13_the_majority_is_back_after_the_first_write_and_is_fenced() -> anyhow::Result<()> {
    for (name, store) in [("back-after", false), ("back-after-store", true)] {
        let plan = if store {
            Plan::new(name)
        } else {
            without_store(name)
        };
        let cluster = plan.start().await?;
        let old = OldLife::lived(&cluster).await?;
        cluster.kill_all()?;
        take_away(&cluster, 0)?;
        take_away(&cluster, 1)?;
        let plan = planned(&cluster, &[2], "plan.json").await?;
        carry_out(&cluster, "apply", "plan.json", 2)
            .await?
            .expect(0)?;
        cluster.node(2).start()?;
        first_write(&cluster, 2, "app/after").await?;
        bring_back(&cluster, 0)?;
        bring_back(&cluster, 1)?;
        cluster.node(0).start()?;
        cluster.node(1).start()?;
        keeps_writing(&cluster, &[0, 1, 2], 2, Duration::from_secs(5)).await?;
        wait_fenced(&cluster, 0).await?;
        wait_fenced(&cluster, 1).await?;
        // It is not forgotten: with the new life away they still serve nothing.
        cluster.node(2).kill()?;
        for node in [0, 1] {
            cluster.node(node).kill()?;
            cluster.node(node).start()?;
        }
        let written = only_incarnation_writes(&cluster, &[0, 1], 2, Duration::from_secs(5)).await?;
        assert_eq!(written, 0, "fenced nodes wrote");
        wait_fenced(&cluster, 0).await?;
        cluster.node(2).start()?;
        cluster.wait_ready(2).await?;
        judge_new_life(&cluster, &[2], &old, &plan).await?;
        cluster.finish()?;
    }
    Ok(())
}

/// The survivor is away when the old majority comes back: only the store can tell it, and does.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i13_the_store_fences_the_majority_when_nobody_of_the_new_life_is_there()
-> anyhow::Result<()> {
    let cluster = Plan::new("back-alone").start().await?;
    let old = OldLife::lived(&cluster).await?;
    cluster.kill_all()?;
    take_away(&cluster, 0)?;
    take_away(&cluster, 1)?;
    let plan = planned(&cluster, &[2], "plan.json").await?;
    carry_out(&cluster, "apply", "plan.json", 2)
        .await?
        .expect(0)?;
    cluster.node(2).start()?;
    first_write(&cluster, 2, "app/after").await?;
    cluster.node(2).kill()?;
    bring_back(&cluster, 0)?;
    bring_back(&cluster, 1)?;
    cluster.node(0).start()?;
    cluster.node(1).start()?;
    wait_fenced(&cluster, 0).await?;
    wait_fenced(&cluster, 1).await?;
    let written = only_incarnation_writes(&cluster, &[0, 1], 2, Duration::from_secs(3)).await?;
    assert_eq!(written, 0);
    cluster.node(2).start()?;
    cluster.wait_ready(2).await?;
    judge_new_life(&cluster, &[2], &old, &plan).await?;
    cluster.finish()
}

/// Processes that were frozen with all that they believed: a leader, its quorum, its term. Nobody can tell them while they
/// are; awake they learn it from the first message that reaches the new life, and stay away.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i13_a_majority_that_was_frozen_learns_that_its_time_is_over() -> anyhow::Result<()> {
    let cluster = without_store("frozen").start().await?;
    let old = OldLife::lived(&cluster).await?;
    let leader = cluster.wait_leader(CONFIG).await?;
    let survivor = (leader + 1) % 3;
    let others: Vec<usize> = (0..3).filter(|node| *node != survivor).collect();
    let leads = "confman_raft_is_leader{group=\"config/0\"}";
    assert_eq!(cluster.metrics(leader).await?.get(leads), Some(1.0));
    for node in &others {
        cluster.node(*node).pause()?;
    }
    cluster.node(survivor).kill()?;
    // They do not answer: for the operator they are gone.
    let collected = collect(&cluster, &[survivor], "c.json").await?.expect(0)?;
    let names: Vec<String> = others
        .iter()
        .map(|n| cluster.node(*n).name.clone())
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert!(
        collected.json()?["live"]
            .as_array()
            .is_some_and(|l| l.len() == 3)
    );
    let plan = plan(&cluster, "c.json", &names, "plan.json").await?;
    let plan = plan.expect(0)?.json()?;
    carry_out(&cluster, "apply", "plan.json", survivor)
        .await?
        .expect(0)?;
    cluster.node(survivor).start()?;
    cluster.wait_ready(survivor).await?;
    let token = try_write(&cluster, survivor, "after").await;
    assert_eq!(token.map(|t| t.incarnation), Some(2));
    for node in &others {
        cluster.node(*node).resume()?;
    }
    for node in &others {
        wait_fenced(&cluster, *node).await?;
        what_it_measured_is_taken_back(&cluster, *node).await?;
    }
    keeps_writing(&cluster, &[0, 1, 2], 2, Duration::from_secs(3)).await?;
    judge_new_life(&cluster, &[survivor], &old, &plan).await?;
    cluster.finish()
}

/// A node that is fenced while it serves says no more that there is a leader, or that it is one: alerts would believe it.
async fn what_it_measured_is_taken_back(cluster: &Cluster, node: usize) -> anyhow::Result<()> {
    let what = format!("{} takes back what it measured", cluster.node(node).name);
    wait_until(&what, PATIENCE, || async {
        let page = cluster.metrics(node).await?;
        for (series, value) in [("confman_fenced", 1.0), ("confman_serving", 0.0)] {
            anyhow::ensure!(page.get(series) == Some(value), "{series}: {page:?}");
        }
        for group in ["__meta/0", CONFIG] {
            for metric in ["raft_has_leader", "raft_is_leader", "ready"] {
                let series = format!("confman_{metric}{{group=\"{group}\"}}");
                anyhow::ensure!(page.get(&series) == Some(0.0), "{series}: {page:?}");
            }
            for metric in [
                "raft_failure_tolerance",
                "raft_committed_index",
                "raft_applied_index",
                "log_entries",
            ] {
                let series = format!("confman_{metric}{{group=\"{group}\"}}");
                let value = page.get(&series);
                anyhow::ensure!(value.is_some_and(f64::is_nan), "{series}: {page:?}");
            }
        }
        Ok(())
    })
    .await
}

/// A copy of the survivor's own old directory, as a virtual machine that is set back has it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i13_a_copy_of_the_old_directory_is_fenced() -> anyhow::Result<()> {
    let cluster = without_store("copied").start().await?;
    let old = OldLife::lived(&cluster).await?;
    cluster.kill_all()?;
    let image = cluster.dir()?.join("image");
    copy_dir(&cluster.node(2).data_dir, &image)?;
    cluster.node(0).wipe()?;
    cluster.node(1).wipe()?;
    let plan = planned(&cluster, &[2], "plan.json").await?;
    carry_out(&cluster, "apply", "plan.json", 2)
        .await?
        .expect(0)?;
    cluster.node(2).start()?;
    first_write(&cluster, 2, "app/after").await?;
    // It runs on another machine, under its old name, beside the living one.
    copy_dir(&image, &cluster.node(0).data_dir)?;
    cluster.node(0).set_env("CONFMAN_NODE_NAME", "node3");
    cluster.node(0).start()?;
    keeps_writing(&cluster, &[0, 2], 2, Duration::from_secs(4)).await?;
    wait_fenced(&cluster, 0).await?;
    // The machine itself is set back.
    cluster.node(2).kill()?;
    cluster.node(0).kill()?;
    let new = take_away(&cluster, 2)?;
    copy_dir(&image, &cluster.node(2).data_dir)?;
    // Somebody of the new life has to be there to say so: here the repaired directory, at another address.
    cluster.node(1).set_env("CONFMAN_NODE_NAME", "node3");
    copy_dir(&new, &cluster.node(1).data_dir)?;
    cluster.node(1).start()?;
    cluster.wait_ready(1).await?;
    cluster.node(2).start()?;
    wait_fenced(&cluster, 2).await?;
    only_incarnation_writes(&cluster, &[1, 2], 2, Duration::from_secs(2)).await?;
    judge_new_life(&cluster, &[1], &old, &plan).await?;
    cluster.finish()
}

/// Five nodes and two groups of configuration. Two go on; the other three, a quorum of the old life in every group, come back with all that they
/// had, and no store is there to tell them.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i13_three_of_five_come_back_with_several_groups_and_are_fenced() -> anyhow::Result<()> {
    let plan = Plan::new("back-five").nodes(5).env("CONFMAN_SHARDS", "2");
    let cluster = plan.start().await?;
    let old = OldLife::lived(&cluster).await?;
    cluster.kill_all()?;
    for node in [0, 1, 2] {
        take_away(&cluster, node)?;
    }
    let plan = planned(&cluster, &[3, 4], "plan.json").await?;
    let (survivor, other) = match plan["survivor"]["info"]["name"] == "node4" {
        true => (3, 4),
        false => (4, 3),
    };
    for node in [survivor, other] {
        carry_out(&cluster, "apply", "plan.json", node)
            .await?
            .expect(0)?;
    }
    cluster.node(survivor).start()?;
    first_write(&cluster, 2, "app/after").await?;
    cluster.node(other).start()?;
    cluster.wait_ready(other).await?;
    cluster.stop_store().await;
    for node in [0, 1, 2] {
        bring_back(&cluster, node)?;
        cluster.node(node).start()?;
    }
    let all = [0, 1, 2, 3, 4];
    keeps_writing(&cluster, &all, 2, Duration::from_secs(5)).await?;
    for node in [0, 1, 2] {
        wait_fenced(&cluster, node).await?;
    }
    cluster.resume_store().await?;
    judge_new_life(&cluster, &[survivor, other], &old, &plan).await?;
    cluster.finish()
}
