//! Nodes of the old life while another one is restored from the store: back between the order and the first start, back while empty nodes
//! restore themselves, back when the life has begun, or alive all the time and cut off. Never two incarnations that accept writes; whoever is
//! fenced keeps its data, and is a member again when the operator has set that aside (I13).

use std::time::Duration;

use anyhow::Context as _;
use confman_tests::cluster::{CONFIG, Cluster, META, PATIENCE, Plan, copy_dir};
use confman_tests::delay::Delay;
use confman_tests::lives::{OldLife, judge_new_life};
use confman_tests::old_majority::{
    Clients, bring_back, judge_apart, keeps_writing, only_incarnation_writes, readiness,
    slow_store, take_away, wait_fenced, wait_first_write, wait_look, ways_to_apis,
};
use confman_tests::restore::{
    apply, filled_by_clients, ids, lose_every_node, make_plan, restore, restores, tool, wait_spent,
};
use confman_tests::store::ConditionalWrites;
use confman_tests::wait::wait_until;
use serde_json::{Value, json};

/// How often two operators order at one moment.
const ROUNDS: usize = 6;

/// What a fenced node says to do: what it holds is set aside, and it starts anew. Its old contents are kept.
async fn rejoin(cluster: &Cluster, index: usize) -> anyhow::Result<()> {
    let node = cluster.node(index);
    node.kill()?;
    let set_aside = cluster.drtool(["set-aside", "--yes", "--json"]);
    let done = set_aside.arg(&node.data_dir).run().await?;
    let done = done.expect(0)?.json()?;
    let aside = done["aside"].as_str().context("nothing was set aside")?;
    node.start()?;
    cluster.wait_ready(index).await?;
    assert!(
        std::path::Path::new(aside).join("identity").exists(),
        "{aside}"
    );
    Ok(())
}

/// All end, the data of two is taken away and that of the first is gone: the order is in the store. Gives the plan.
async fn ordered_with_old_data_away(cluster: &Cluster) -> anyhow::Result<Value> {
    cluster.kill_all()?;
    for index in [1, 2] {
        take_away(cluster, index)?;
    }
    cluster.node(0).wipe()?;
    let (file, plan) = make_plan(cluster, &[]).await?;
    apply(cluster, &file, 0).await?;
    Ok(plan)
}

/// The order lies in the store and no new node has seen it: of the old ones first one comes, then a quorum. They come while an empty node
/// restores itself, too.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i13_old_nodes_that_are_back_between_the_order_and_the_restore_or_during_it_are_fenced()
-> anyhow::Result<()> {
    let (cluster, old) = filled_by_clients(Plan::new("back-ordered")).await?;
    let plan = ordered_with_old_data_away(&cluster).await?;
    for index in [1, 2] {
        bring_back(&cluster, index)?;
    }
    let image = cluster.dir()?.join("image");
    copy_dir(&cluster.node(1).data_dir, &image)?;
    cluster.node(1).start()?;
    wait_fenced(&cluster, 1).await?;
    cluster.node(2).start()?;
    let written = only_incarnation_writes(&cluster, &[1, 2], 2, Duration::from_secs(3)).await?;
    assert_eq!(written, 0, "fenced nodes wrote");
    wait_fenced(&cluster, 2).await?;
    cluster.node(1).kill()?;
    cluster.node(1).wipe()?;
    std::fs::rename(&image, &cluster.node(1).data_dir)?;

    // The first empty node is at it, slowly, when an old one comes as it was.
    let way = slow_store(&cluster, 0, Delay::millis(30, 0)).await?;
    cluster.node(0).start()?;
    cluster
        .node(0)
        .wait_log(&["the store has a restore order for"], PATIENCE)
        .await?;
    way.set(Delay::millis(400, 0));
    cluster.node(1).start()?;
    assert_eq!(restores(&cluster)?[0], 0, "it was too quick");
    wait_fenced(&cluster, 1).await?;
    way.set(Delay::default());
    // The other one is set aside, and is then a member that the order names.
    rejoin(&cluster, 2).await?;
    cluster.wait_ready(0).await?;
    wait_spent(&cluster, 2).await?;
    keeps_writing(&cluster, &[0, 1, 2], 2, Duration::from_secs(2)).await?;
    judge_new_life(&cluster, &[0, 2], &old, &plan).await?;
    // Nobody took its ordered id up, and the order is spent.
    rejoin(&cluster, 1).await?;
    assert_eq!(ids(&cluster).await?, [1001, 1004, 1003]);
    judge_new_life(&cluster, &[0, 1, 2], &old, &plan).await?;
    cluster.finish()
}

/// The old majority is back after the order, cannot see the store and elects a leader: the empty node sees that a quorum may live, and holds itself
/// back for as long. What they acknowledge meanwhile is what the operator gave up by saying that they are gone; they keep it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i13_a_restore_waits_while_an_old_majority_that_cannot_see_the_store_has_a_leader()
-> anyhow::Result<()> {
    let (cluster, old) = filled_by_clients(Plan::new("back-blind")).await?;
    let plan = ordered_with_old_data_away(&cluster).await?;
    let endpoint = cluster.node(1).env();
    let endpoint = endpoint.get("AWS_ENDPOINT_URL").context("no store")?;
    for index in [1, 2] {
        bring_back(&cluster, index)?;
        // Nobody listens there.
        cluster
            .node(index)
            .set_env("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
        cluster.node(index).start()?;
    }
    wait_first_write(&cluster, &[1, 2], 1).await?;
    cluster.node(0).start()?;
    wait_until("the empty node holds itself back", PATIENCE, || async {
        let (status, text) = readiness(&cluster, 0).await?;
        let waits = text.contains("of incarnation 1 still follows");
        anyhow::ensure!(status == 503 && waits, "{status}: {text}");
        Ok(())
    })
    .await?;
    keeps_writing(&cluster, &[0, 1, 2], 1, Duration::from_secs(4)).await?;
    assert_eq!(
        restores(&cluster)?[0],
        0,
        "it restored itself beside a quorum"
    );
    // They see it.
    for index in [1, 2] {
        cluster.node(index).kill()?;
        cluster.node(index).set_env("AWS_ENDPOINT_URL", endpoint);
        cluster.node(index).start()?;
        wait_fenced(&cluster, index).await?;
    }
    rejoin(&cluster, 2).await?;
    cluster.wait_ready(0).await?;
    wait_spent(&cluster, 2).await?;
    keeps_writing(&cluster, &[0, 1, 2], 2, Duration::from_secs(2)).await?;
    judge_new_life(&cluster, &[0, 2], &old, &plan).await?;
    cluster.finish()
}

/// The old majority lives, with clients and the store, and neither the operator nor the machines of the new life reach it. It looked just before
/// the order was there; the new life waits until it has looked again.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i13_a_living_majority_that_is_cut_off_while_a_restore_is_ordered_ends_before_it_begins()
-> anyhow::Result<()> {
    let machines = [3, 4, 5];
    let plan = Plan::new("cut-off-restore").links().spares(machines.len());
    // Longer than the new machines need to restore themselves: a life that began then would find the old one alive.
    let plan = plan.env("CONFMAN_STORE_FENCE_INTERVAL_MS", "12000");
    let cluster = plan.lay_out().await?;
    let ways = ways_to_apis(&cluster, &[0, 1, 2]).await?;
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    let old = OldLife::with_snapshots(&cluster, &[META, CONFIG]).await?;
    let leader = cluster.wait_leader(CONFIG).await?;
    let others = [leader, (leader + 1) % 3];
    cluster.node((leader + 2) % 3).kill()?;
    for (index, way) in ways.iter().enumerate() {
        cluster.close_to_newcomers(index)?;
        way.close();
    }
    // The operator has three machines, and nothing else can be reached from there.
    let members = machines.map(|index| {
        let node = cluster.node(index);
        format!("{}={},{}", node.name, node.api_url, node.peer_addr)
    });
    let here = machines.map(|index| cluster.node(index).api_url.clone());
    let operator = async |args: &[&str]| {
        let tool = tool(&cluster, args).await;
        let tool = tool.arg("--json").env("CONFMAN_ENDPOINTS", &here.join(","));
        tool.run().await?.expect(0)?.json()
    };
    let mut args = vec!["restore", "plan", "--out", "plan.json"];
    args.extend(members.iter().flat_map(|m| ["--member", m.as_str()]));
    let plan = operator(&args).await?;
    let clients = Clients::of(&cluster, &others);
    let looked = wait_look(&cluster, leader).await?;
    operator(&["restore", "apply", "plan.json", "--yes"]).await?;
    for index in machines {
        cluster.node(index).start()?;
    }
    wait_until("the new life says that it waits", PATIENCE, || async {
        let mut texts = Vec::new();
        for index in machines {
            let (status, text) = readiness(&cluster, index).await?;
            assert_eq!(status, 503, "{text}");
            texts.push(text);
        }
        let waits = texts.iter().any(|text| text.contains("it waits until"));
        anyhow::ensure!(waits, "{texts:?}");
        Ok(())
    })
    .await?;
    let first = wait_first_write(&cluster, &machines, 2).await?;
    // Both are asked side by side for a while.
    let all: Vec<usize> = others.into_iter().chain(machines).collect();
    keeps_writing(&cluster, &all, 2, Duration::from_secs(2)).await?;
    judge_apart(&clients.stop().await?, looked, first)?;
    for index in others {
        wait_fenced(&cluster, index).await?;
    }
    wait_spent(&cluster, 2).await?;
    judge_new_life(&cluster, &machines, &old, &plan).await?;
    cluster.finish()
}

/// The new life has begun. Of the old nodes one comes back, and then a quorum of them, also where only the new nodes can tell them; the new life
/// goes on, and they are members of it again when what they hold was set aside.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i13_old_nodes_that_come_back_are_fenced_and_are_members_again() -> anyhow::Result<()> {
    let (cluster, old) = filled_by_clients(Plan::new("old-nodes")).await?;
    cluster.write("app/lost", &json!("old")).await?;
    cluster.kill_all()?;
    let kept = |index: usize| cluster.node(index).data_dir.with_extension("kept");
    for index in [1, 2] {
        std::fs::rename(&cluster.node(index).data_dir, kept(index))?;
    }
    cluster.node(0).wipe()?;
    let plan = restore(&cluster, &[]).await?;
    wait_spent(&cluster, 2).await?;
    cluster.write("app/new", &json!("life")).await?;
    // In the place of two nodes of the new life, whose disks are kept: it has no quorum meanwhile.
    for index in [1, 2] {
        cluster.node(index).kill()?;
        take_away(&cluster, index)?;
        copy_dir(&kept(index), &cluster.node(index).data_dir)?;
    }
    // The first hears it from the store, the second from the one new node that is left.
    cluster.node(1).start()?;
    fenced(&cluster, 1).await?;
    cluster.stop_store().await;
    cluster.node(2).start()?;
    let written = only_incarnation_writes(&cluster, &[0, 1, 2], 2, Duration::from_secs(3)).await?;
    assert_eq!(written, 0, "two of three are fenced, and somebody wrote");
    fenced(&cluster, 2).await?;
    // Fenced for good: neither store nor peers are needed to remember it.
    cluster.node(0).kill()?;
    cluster.node(1).kill()?;
    cluster.node(1).start()?;
    fenced(&cluster, 1).await?;
    cluster.resume_store().await?;

    // Beside the living new life, one after the other: it goes on, and takes each in when the operator has set aside what it holds.
    cluster.node(0).start()?;
    cluster.node(2).kill()?;
    bring_back(&cluster, 2)?;
    cluster.node(2).start()?;
    for (index, new_id, others) in [(1, 1004, [0, 2]), (2, 1005, [0, 1])] {
        if index == 2 {
            cluster.node(2).kill()?;
            cluster.node(2).wipe()?;
            std::fs::rename(kept(2), &cluster.node(2).data_dir)?;
            cluster.node(2).start()?;
        }
        let lasts = Duration::from_secs(2);
        for other in others {
            cluster.wait_ready(other).await?;
        }
        keeps_writing(&cluster, &[0, 1, 2], 2, lasts).await?;
        fenced(&cluster, index).await?;
        judge_new_life(&cluster, &others, &old, &plan).await?;
        rejoin(&cluster, index).await?;
        assert_eq!(ids(&cluster).await?[index], new_id);
    }
    let read = cluster.read(1, "app/new", "linearizable").await?;
    assert_eq!(read, Some(json!("life")));
    assert_eq!(cluster.read(2, "app/lost", "linearizable").await?, None);
    judge_new_life(&cluster, &[0, 1, 2], &old, &plan).await?;
    cluster.finish()
}

/// And it answers nobody out of what it holds.
async fn fenced(cluster: &Cluster, index: usize) -> anyhow::Result<()> {
    wait_fenced(cluster, index).await?;
    for consistency in ["linearizable", "eventual"] {
        let read = cluster.api(index).get("/api/v1/config/app/lost");
        let read = read.consistency(consistency).send().await?;
        anyhow::ensure!(read.status == 503, "{consistency}: {}", read.status);
    }
    Ok(())
}

/// Two operators order at one moment, each by a plan of their own. Where the store keeps its word one of them is refused; where it lets several
/// win both may be told that it is done. Either way one order is carried out, by nodes that wait for one.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn m19_i13_of_two_restores_ordered_at_one_moment_one_is_carried_out() -> anyhow::Result<()> {
    for (name, conditional) in [
        ("orders", ConditionalWrites::Honoured),
        ("orders-racing", ConditionalWrites::Racing),
    ] {
        let plan = Plan::new(name).conditional_writes(conditional);
        let (cluster, old) = filled_by_clients(plan).await?;
        lose_every_node(&cluster)?;
        let plans = [
            make_plan(&cluster, &[]).await?,
            make_plan(&cluster, &[]).await?,
        ];
        let uuid = plans[0].1["cluster"]["uuid"].as_str().context("no uuid")?;
        let object = format!("s3/confman/test/cluster/0000000002-{uuid}.json");
        let object = cluster.dir()?.join(object);
        let files = [&plans[0].0, &plans[1].0].map(|file| file.display().to_string());
        for round in 0..ROUNDS {
            if round > 0 {
                std::fs::remove_file(&object)?;
            }
            if round + 1 == ROUNDS {
                cluster.start_all()?;
                for node in cluster.nodes() {
                    node.wait_log(&["no listed member has data"], PATIENCE)
                        .await?;
                }
            }
            let order = async |file: &str| {
                let args = ["restore", "apply", file, "--yes", "--json"];
                tool(&cluster, &args).await.run().await
            };
            let (a, b) = tokio::join!(order(&files[0]), order(&files[1]));
            let ran = [a?, b?];
            let done = ran.iter().filter(|ran| ran.code == 0).count();
            eprintln!("round {round}: {done} done");
            for ran in ran.iter().filter(|ran| ran.code != 0) {
                assert_eq!(ran.code, 3, "{ran}");
                assert_eq!(ran.json()?["error"]["code"], "PLAN_STALE", "{ran}");
            }
            match conditional {
                ConditionalWrites::Honoured => assert_eq!(done, 1, "{ran:?}"),
                _ => assert!(done > 0, "{ran:?}"),
            }
        }
        cluster.wait_all_ready().await?;
        assert_eq!(ids(&cluster).await?, [1001, 1002, 1003]);
        wait_spent(&cluster, 2).await?;
        let object: Value = serde_json::from_slice(&std::fs::read(object)?)?;
        let of_store = |plan: &&(_, Value)| plan.1["planId"] == object["order"]["planId"];
        let (_, plan) = plans.iter().find(of_store).context("somebody else's")?;
        judge_new_life(&cluster, &[0, 1, 2], &old, plan).await?;
        cluster.finish()?;
    }
    Ok(())
}
