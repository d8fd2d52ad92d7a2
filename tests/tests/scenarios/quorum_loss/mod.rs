//! A quorum is gone: what the tool refuses, what it plans, and that the plan is what happens.

mod behind;
mod damaged;
mod five;
mod kit;
mod left_behind;
mod operators;
mod returning;
mod undo;

use std::path::Path;

use anyhow::Context as _;
use confman_tests::cluster::{CONFIG, PATIENCE, Plan};
use confman_tests::load::{Load, LoadPlan};
use serde_json::json;

use self::kit::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_refused_while_a_quorum_lives_or_could_and_made_when_it_is_gone()
-> anyhow::Result<()> {
    let cluster = Plan::new("refusals").start().await?;
    cluster.fill("app", "k", 300, "value").await?;
    let leader = cluster.wait_leader(CONFIG).await?;
    let others: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
    // All run.
    collect(&cluster, &[leader], "c1.json").await?.expect(0)?;
    let ran = plan(&cluster, "c1.json", &[], "p1.json").await?.expect(3)?;
    assert_eq!(refusal(&ran)?, "RECOVER_QUORUM_ALIVE", "{ran}");
    // None runs, two directories are there.
    cluster.kill_all()?;
    collect(&cluster, &[0, 1], "c2.json").await?.expect(0)?;
    let ran = plan(&cluster, "c2.json", &["node3"], "p2.json")
        .await?
        .expect(3)?;
    assert_eq!(refusal(&ran)?, "RECOVER_QUORUM_POSSIBLE", "{ran}");
    // One is there, and it is not said that the others are lost.
    lose(&cluster, &others)?;
    let seen = collect(&cluster, &[leader], "c3.json")
        .await?
        .expect(0)?
        .json()?;
    assert_eq!(seen["directories"][0]["findings"], json!([]), "{seen}");
    let ran = plan(&cluster, "c3.json", &[], "p3.json").await?.expect(3)?;
    assert_eq!(refusal(&ran)?, "RECOVER_TOO_FEW", "{ran}");
    assert!(
        !cluster.dir()?.join("p3.json").exists(),
        "a plan was written"
    );
    // Now it is.
    let names: Vec<String> = others
        .iter()
        .map(|i| cluster.node(*i).name.clone())
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let planned = plan(&cluster, "c3.json", &names, "p3.json")
        .await?
        .expect(0)?
        .json()?;
    assert_eq!(
        planned["survivor"]["info"]["name"],
        cluster.node(leader).name.as_str()
    );
    assert_eq!(planned["newIncarnation"], 2, "{planned}");
    assert_eq!(planned["groups"][0]["loss"]["lostProven"], 0, "{planned}");
    assert!(Path::new(&cluster.dir()?.join("p3.json")).exists());
    cluster.finish()
}

/// Three nodes, several shards, two disks gone under load.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i13_i15_one_of_three_goes_on_and_loses_no_more_than_the_plan_said() -> anyhow::Result<()> {
    let cluster = Plan::new("recover")
        .env("CONFMAN_SHARDS", "3")
        .start()
        .await?;
    cluster.fill("app", "k", 200, "value").await?;
    let writers = LoadPlan {
        readers: 0,
        ..LoadPlan::default()
    };
    let load = Load::start(&cluster, &writers);
    load.wait_progress(200, PATIENCE).await?;
    cluster.kill_all()?;
    let old = OldLife::of(load.stop().await?)?;
    cluster.node(0).wipe()?;
    cluster.node(1).wipe()?;
    let planned = planned(&cluster, &[2], "plan.json").await?;
    let groups = planned["groups"].as_array().context("no groups")?;
    assert_eq!(groups.len(), 4, "{planned}");
    assert!(
        groups.iter().all(|g| !g["loss"]["unknown"].is_null()),
        "two of three may have answered without the third: {planned}"
    );
    let applied = carry_out(&cluster, "apply", "plan.json", 2)
        .await?
        .expect(0)?
        .json()?;
    assert_eq!(applied["store"]["claimed"], true, "{applied}");
    // Again: nothing more is done.
    let again = carry_out(&cluster, "apply", "plan.json", 2)
        .await?
        .expect(0)?
        .json()?;
    assert_eq!(again["already"], true, "{again}");
    cluster.node(2).start()?;
    let token = first_write(&cluster, 2, "app/after").await?;
    assert!(token.term > 1_000, "{token}");

    let kept = judge_new_life(&cluster, &[2], &old, &planned).await?;
    assert!(kept.sure > 50, "almost nothing was judged: {kept:?}");
    let verified = cluster.drtool(["recover", "verify", "--json"]);
    let verified = verified.run().await?.expect(0)?.json()?;
    assert_eq!(verified["ok"], true, "{verified}");
    let recorded = &verified["recorded"];
    assert_eq!(recorded["planId"], planned["planId"], "{verified}");
    assert_eq!(recorded["digest"], planned["digest"], "{verified}");

    // It survives a restart, and does not begin again.
    cluster.node(2).kill()?;
    cluster.node(2).start()?;
    cluster.wait_ready(2).await?;
    let read = cluster.read(2, "app/after", "linearizable").await?;
    assert_eq!(read, Some(json!("first")));
    assert_eq!(cluster.status(2).await?["incarnation"], 2);
    cluster.finish()
}
