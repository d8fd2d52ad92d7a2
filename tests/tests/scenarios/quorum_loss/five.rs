//! Five nodes of which three are gone for ever. What is left is found in several places: a directory, a file that was made on
//! another machine, a node that still runs.

use std::collections::BTreeSet;

use anyhow::Context as _;
use confman_tests::agree;
use confman_tests::cluster::{CONFIG, META, PATIENCE, Plan};
use confman_tests::history::{Op, Outcome};
use confman_tests::load::{Load, LoadPlan};
use confman_tests::members::{members, voters};
use confman_tests::restore::ids;
use serde_json::Value;

use super::kit::*;
use crate::crash::judge;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i13_i14_i15_two_of_five_go_on_and_the_other_survivor_rejoins_under_a_new_id()
-> anyhow::Result<()> {
    let cluster = Plan::new("recover-five")
        .nodes(5)
        .env("CONFMAN_SHARDS", "2")
        .start()
        .await?;
    let writers = LoadPlan {
        readers: 0,
        ..LoadPlan::default()
    };
    let load = Load::start(&cluster, &writers);
    load.wait_progress(200, PATIENCE).await?;
    cluster.kill_all()?;
    let history = load.stop().await?;
    for index in [0, 1, 2] {
        cluster.node(index).wipe()?;
    }
    let lost = ["node1", "node2", "node3"];

    // node5 runs, without a leader. What it says of itself is not its directory, and its directory may change.
    cluster.node(4).start()?;
    confman_tests::wait::wait_until("node5 answers", PATIENCE, || cluster.status(4)).await?;
    let of_node4 = &cluster.node(3).data_dir;
    let of_node5 = &cluster.node(4).data_dir;
    let collect = async |args: &[&str], dirs: &[&std::path::PathBuf]| {
        let command = cluster
            .drtool(["recover", "collect", "--json", "--no-store"])
            .args(args)
            .args(dirs);
        command.run().await?.expect(0)
    };
    let live = ["--endpoints", &cluster.node(4).api_url];
    let ran = collect(&[&live[..], &["-o", "one.json"]].concat(), &[of_node4]).await?;
    let seen = ran.json()?;
    assert_eq!(
        seen["directories"].as_array().map(Vec::len),
        Some(1),
        "{seen}"
    );
    assert!(
        seen.to_string().contains(&cluster.node(4).api_url),
        "{seen}"
    );
    let ran = plan(&cluster, "one.json", &lost, "p.json")
        .await?
        .expect(3)?;
    assert_eq!(refusal(&ran)?, "RECOVER_RUNNING", "{ran}");
    assert!(ran.stderr.contains("node5"), "{ran}");
    collect(&["-o", "running.json"], &[of_node4, of_node5]).await?;
    let ran = plan(&cluster, "running.json", &lost, "p.json")
        .await?
        .expect(3)?;
    assert_eq!(refusal(&ran)?, "RECOVER_RUNNING", "{ran}");

    // Stopped, its directory joins what was collected before.
    cluster.node(4).kill()?;
    let merged = collect(&["--merge", "one.json", "-o", "all.json"], &[of_node5]).await?;
    let merged = merged.json()?;
    assert_eq!(
        merged["directories"].as_array().map(Vec::len),
        Some(2),
        "{merged}"
    );
    let planned = plan(&cluster, "all.json", &lost, "plan.json")
        .await?
        .expect(0)?
        .json()?;
    let survivor = planned["survivor"]["info"]["name"]
        .as_str()
        .context("a survivor")?;
    let other = if survivor == "node4" {
        "node5"
    } else {
        "node4"
    };
    assert_eq!(planned["others"][0]["name"], other, "{planned}");
    let place = |name: &str| if name == "node4" { 3 } else { 4 };
    // A group that only the other has to its end is taken from there.
    let from = format!("{other}={}", cluster.node(place(other)).data_dir.display());
    let applied = cluster
        .drtool([
            "recover",
            "apply",
            "--yes",
            "--json",
            "--no-store",
            "--plan",
            "plan.json",
        ])
        .args(["--from", &from])
        .arg(&cluster.node(place(survivor)).data_dir)
        .run()
        .await?
        .expect(0)?
        .json()?;
    assert_eq!(applied["role"], "survivor", "{applied}");
    let applied = carry_out(&cluster, "apply", "plan.json", place(other)).await?;
    assert_eq!(applied.expect(0)?.json()?["role"], "setAside");

    // The survivor alone is the new life; then the other survivor comes, and the machines whose disks are gone.
    cluster.node(place(survivor)).start()?;
    first_write(&cluster, 2, "app/after").await?;
    cluster.node(place(other)).start()?;
    cluster.wait_ready(place(other)).await?;
    for index in [0, 1, 2] {
        cluster.node(index).start()?;
    }
    cluster.wait_all_ready().await?;
    let now: BTreeSet<u64> = ids(&cluster).await?.into_iter().collect();
    assert_eq!(now.len(), 5);
    assert!(
        now.iter().all(|id| *id > 5),
        "an id of the old life: {now:?}"
    );
    confman_tests::wait::wait_until("five vote in every group", PATIENCE, || async {
        let told = members(&cluster).await?;
        anyhow::ensure!(voters(&told)?.len() == 5, "{told}");
        Ok(())
    })
    .await?;

    // Nothing acknowledged is lost beyond what the plan announced.
    let events = agree::audits(&cluster, Some("load")).await?;
    let group = &events.first().context("no events")?["group"];
    let forgiven: Vec<Op> = forgive(&history, &planned, group)?;
    let sure = |op: &&Op| matches!(op.outcome, Outcome::Done { .. });
    assert!(
        forgiven.iter().filter(sure).count() > 50,
        "almost nothing was judged"
    );
    judge(&cluster, &forgiven).await?;
    for group in [META, CONFIG, "config/1"] {
        agree::state_hashes(&cluster, group).await?;
    }
    let verified: Value = cluster
        .drtool(["recover", "verify", "--json"])
        .run()
        .await?
        .expect(0)?
        .json()?;
    assert_eq!(verified["ok"], true, "{verified}");
    // What was set aside is all there.
    let aside = cluster.node(place(other)).data_dir.join("aside");
    assert!(
        aside
            .join(planned["planId"].as_str().context("planId")?)
            .is_dir()
    );
    cluster.finish()
}
