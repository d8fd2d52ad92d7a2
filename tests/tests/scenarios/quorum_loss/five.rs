//! Five nodes of which three are gone for ever. What is left is found in several places: a directory, a file that was made on
//! another machine, a node that still runs.

use std::collections::BTreeSet;

use anyhow::Context as _;
use confman_tests::agree;
use confman_tests::cluster::{CONFIG, PATIENCE, Plan};
use confman_tests::delay::Delay;
use confman_tests::load::{Load, LoadPlan};
use confman_tests::members::{changed, members, voters};
use confman_tests::restore::ids;
use confman_tests::wait::wait_until;
use serde_json::{Value, json};

use super::kit::*;

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
    let old = OldLife::of(load.stop().await?)?;
    for index in [0, 1, 2] {
        cluster.node(index).wipe()?;
    }
    let lost = ["node1", "node2", "node3"];

    // node5 runs, without a leader. What it says of itself is not its directory, and its directory may change.
    cluster.node(4).start()?;
    wait_until("node5 answers", PATIENCE, || cluster.status(4)).await?;
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
    wait_until("five vote in every group", PATIENCE, || async {
        let told = members(&cluster).await?;
        anyhow::ensure!(voters(&told)?.len() == 5, "{told}");
        Ok(())
    })
    .await?;

    let kept = judge_new_life(&cluster, &[0, 1, 2, 3, 4], &old, &planned).await?;
    assert!(kept.sure > 50, "almost nothing was judged: {kept:?}");
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

/// One group of configuration ends later in one directory, the other in the other: the cluster goes on with the end of both.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i15_a_group_that_ends_later_in_the_other_directory_is_taken_from_there()
-> anyhow::Result<()> {
    let plan = Plan::new("two-ends").nodes(5).links();
    let cluster = plan.env("CONFMAN_SHARDS", "2").start().await?;
    let old = OldLife::lived(&cluster).await?;
    // A tree of each group, by what the history says of its first write.
    let mut trees: Vec<Option<String>> = vec![None, None];
    for tree in ["a", "b", "c", "d", "e", "f"] {
        cluster.fill(tree, "k", 1, "value").await?;
        let events = agree::audits(&cluster, Some(tree)).await?;
        let group = events.first().context("no events")?["group"].clone();
        trees[usize::from(group != CONFIG)] = Some(tree.to_owned());
    }
    let groups = [CONFIG, "config/1"];
    let trees: Vec<String> = trees
        .into_iter()
        .collect::<Option<_>>()
        .context("one group")?;
    // Different nodes lead them.
    let first = cluster.wait_leader(groups[0]).await?;
    let second = (first + 1) % 5;
    let to = cluster.node(second).name.clone();
    let transfer = [
        "transfer-leader",
        "--yes",
        "--group",
        groups[1],
        to.as_str(),
    ];
    changed(&cluster, &transfer).await?;
    assert_eq!(cluster.wait_leader(groups[0]).await?, first);
    let leaders = [first, cluster.wait_leader(groups[1]).await?];
    assert_ne!(leaders[0], leaders[1]);

    // What each of them is asked now reaches nobody else, and nobody is told that it was done.
    let ends = async |at: usize| {
        let there = cluster.group(leaders[at], groups[at]).await?;
        there["lastIndex"].as_u64().context("no lastIndex")
    };
    for node in 0..5 {
        cluster.delay(node, Delay::millis(60_000, 0))?;
    }
    let mut before = Vec::new();
    for at in [0, 1] {
        before.push(ends(at).await?);
        let path = format!("/api/v1/config/{}/tail", trees[at]);
        let api = cluster.api(leaders[at]);
        tokio::spawn(async move { api.put(&path, &json!("kept")).send().await });
    }
    for at in [0, 1] {
        wait_until("its leader has it in the log", PATIENCE, || async {
            let now = ends(at).await?;
            anyhow::ensure!(now > before[at], "{now}");
            Ok(())
        })
        .await?;
    }
    let lost: Vec<usize> = (0..5).filter(|node| !leaders.contains(node)).collect();
    lose(&cluster, &lost)?;
    for node in 0..5 {
        cluster.delay(node, Delay::default())?;
    }

    let planned = planned(&cluster, &leaders, "plan.json").await?;
    let survivor = planned["survivor"]["info"]["name"].clone();
    let (survivor, other) = match survivor == cluster.node(first).name.as_str() {
        true => (first, second),
        false => (second, first),
    };
    let given = if other == first { groups[0] } else { groups[1] };
    let gives = planned["others"][0]["gives"].as_array().context("gives")?;
    assert!(gives.contains(&json!(given)), "{planned}");
    // It was copied from its own machine; where it was seen it is not.
    let copied = take_away(&cluster, other)?;
    let ran = carry_out(&cluster, "apply", "plan.json", survivor).await?;
    let ran = ran.expect(3)?;
    assert_eq!(refusal(&ran)?, "RECOVER_SOURCE", "{ran}");
    let from = format!("{}={}", cluster.node(other).name, copied.display());
    let store = cluster.store().await.as_ref().map(|store| store.env());
    let apply = ["recover", "apply", "--yes", "--json", "--plan", "plan.json"];
    let apply = cluster.drtool(apply).args(["--from", &from]);
    let apply = apply.arg(&cluster.node(survivor).data_dir);
    apply
        .envs(store.unwrap_or_default())
        .run()
        .await?
        .expect(0)?;
    cluster.node(survivor).start()?;
    first_write(&cluster, 2, "app/after").await?;
    for tree in &trees {
        let read = cluster
            .read(survivor, &format!("{tree}/tail"), "linearizable")
            .await?;
        assert_eq!(read, Some(json!("kept")), "the tail of {tree}");
    }
    judge_new_life(&cluster, &[survivor], &old, &planned).await?;
    cluster.finish()
}
