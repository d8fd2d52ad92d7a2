//! The membership changes under load: one command per intent, safe to kill, refused when it would weaken the cluster.

use std::collections::BTreeSet;

use anyhow::Context as _;
use confman_tests::cluster::{CONFIG, Cluster, META, PATIENCE, Plan};
use confman_tests::drtool::Ran;
use confman_tests::load::{Load, LoadPlan};
use confman_tests::members::{changed, member, members, named, node, voters, wait_expected};
use confman_tests::wait::wait_until;
use confman_tests::{agree, audit};
use serde_json::{Value, json};

use crate::crash::judge;

/// Two shards, so that a change has several groups to go through; snapshots and purges take part.
fn plan(name: &str) -> Plan {
    Plan::new(name)
        .env("CONFMAN_SHARDS", "2")
        .env("CONFMAN_SNAPSHOT_LOG_THRESHOLD", "400")
        .env("CONFMAN_SNAPSHOT_LOG_MARGIN", "50")
}

const GROUPS: [&str; 3] = [META, CONFIG, "config/1"];

fn load_plan() -> LoadPlan {
    LoadPlan {
        writers: 3,
        readers: 2,
        ..LoadPlan::default()
    }
}

/// Has the spare machine at `index` taken in, as a voter.
async fn add(cluster: &Cluster, index: usize) -> anyhow::Result<Ran> {
    let node = cluster.node(index);
    let adding = member(cluster, &["add", &node.name, &node.peer_addr]);
    let (ran, started) = tokio::join!(adding.run(), async {
        // Whenever it is started: it waits for its name to be expected, or is waited for.
        wait_expected(cluster, &node.name).await?;
        node.start()
    });
    started?;
    let ran = ran?.expect(0)?;
    cluster.wait_ready(index).await?;
    Ok(ran)
}

/// The removed node ends by itself and says why.
async fn ends(cluster: &Cluster, index: usize) -> anyhow::Result<String> {
    let node = cluster.node(index);
    let status = node.wait_exit(PATIENCE).await?;
    anyhow::ensure!(!status.success(), "{} ended with success", node.name);
    node.wait_log(&["stopped by itself", &node.name], PATIENCE)
        .await
}

/// The node came back with its old disk: it serves nothing, and says why and how it may come back.
async fn fenced(cluster: &Cluster, index: usize, why: &str) -> anyhow::Result<()> {
    let node = cluster.node(index);
    let hint = format!("drtool member add {} {}", node.name, node.peer_addr);
    wait_until(&format!("{} is fenced", node.name), PATIENCE, || async {
        let ready = cluster.api(index).get("/health/ready").send().await?;
        anyhow::ensure!(ready.status == 503, "{}", ready.status);
        for words in ["this node is fenced", why, &hint] {
            anyhow::ensure!(ready.text().contains(words), "{}", ready.text());
        }
        Ok(())
    })
    .await
}

/// The leader knows that the node is down.
async fn missed(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    wait_until(&format!("the leader misses {name}"), PATIENCE, || async {
        let told = members(cluster).await?;
        let up = &node(&told, name).context("it is no member")?["up"];
        anyhow::ensure!(*up == false, "{told}");
        Ok(())
    })
    .await
}

async fn agree_everywhere(cluster: &Cluster) -> anyhow::Result<()> {
    for group in GROUPS {
        agree::state_hashes(cluster, group).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i1_i14_three_grow_to_five_and_shrink_to_three_under_load_and_nothing_is_lost()
-> anyhow::Result<()> {
    let cluster = plan("grow").spares(2).start().await?;
    let load = Load::start(&cluster, &load_plan());
    load.wait_progress(50, PATIENCE).await?;

    let ran = add(&cluster, 3).await?;
    assert!(ran.stderr.contains("tolerance  1 -> 1"), "{ran}");
    assert_eq!(voters(&members(&cluster).await?)?.len(), 4);
    load.wait_progress(50, PATIENCE).await?;
    let ran = add(&cluster, 4).await?;
    assert!(ran.stderr.contains("tolerance  1 -> 2"), "{ran}");
    load.wait_progress(50, PATIENCE).await?;
    // It counts: two may go now.
    cluster.node(0).kill()?;
    cluster.node(1).kill()?;
    load.wait_progress(20, PATIENCE).await?;
    cluster.start_all()?;
    cluster.wait_all_ready().await?;

    // The leader of one group goes, then that of the next: both are among those that are removed.
    let mut gone = Vec::new();
    for group in [META, CONFIG] {
        let leader = cluster.wait_leader(group).await?;
        let name = cluster.node(leader).name.clone();
        let less = ["--allow-less-tolerance", "--yes"];
        let ran = changed(&cluster, &[&["remove", &name][..], &less].concat()).await?;
        assert!(ran.stderr.contains("hands over what it leads"), "{ran}");
        let said = ends(&cluster, leader).await?;
        assert!(said.contains("was removed at index"), "{said}");
        gone.push(name);
        load.wait_progress(30, PATIENCE).await?;
    }
    let told = members(&cluster).await?;
    let left = voters(&told)?;
    assert_eq!(left.len(), 3, "{told}");
    for name in &gone {
        assert!(!left.contains(name), "{told}");
        assert_eq!(node(&told, name).unwrap()["state"], "retired", "{told}");
    }
    let history = load.stop().await?;
    judge(&cluster, &history).await?;
    agree_everywhere(&cluster).await?;
    let audited = audit::events(&cluster.api(cluster.wait_leader(META).await?), None).await?;
    for (action, times) in [("member.add", 2), ("member.remove", 2), ("member.done", 4)] {
        let found = audited.iter().filter(|e| e["action"] == action).count();
        assert_eq!(found, times, "{action}");
    }
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn a_node_is_replaced_by_a_new_machine_demoted_promoted_and_led_by() -> anyhow::Result<()> {
    let cluster = plan("replace").spares(1).start().await?;
    let load = Load::start(&cluster, &load_plan());
    load.wait_progress(50, PATIENCE).await?;

    // The machine of node2 is dead; another one takes its place under another name.
    cluster.node(1).kill()?;
    missed(&cluster, "node2").await?;
    let new = cluster.node(3);
    let replacing = member(
        &cluster,
        &["replace", "node2", "node4", &new.peer_addr, "--yes"],
    );
    let (ran, started) = tokio::join!(replacing.run(), async {
        wait_expected(&cluster, "node4").await?;
        new.start()
    });
    started?;
    let ran = ran?.expect(0)?;
    assert!(ran.stderr.contains("tolerance  0 -> 1"), "{ran}");
    cluster.wait_ready(3).await?;
    let told = members(&cluster).await?;
    assert_eq!(voters(&told)?, named(&["node1", "node3", "node4"]));
    assert_eq!(node(&told, "node2").unwrap()["state"], "retired");

    // The dead machine is switched on again: refused, and told how to come back.
    cluster.node(1).start()?;
    fenced(&cluster, 1, "was replaced by node4").await?;
    load.wait_progress(30, PATIENCE).await?;
    cluster.node(1).kill()?;

    let ran = member(&cluster, &["demote", "node4", "--yes"])
        .run()
        .await?
        .expect(3)?;
    assert!(ran.stderr.contains("error[LESS_TOLERANCE]"), "{ran}");
    let demote = ["demote", "node4", "--yes", "--allow-less-tolerance"];
    changed(&cluster, &demote).await?;
    assert_eq!(
        voters(&members(&cluster).await?)?,
        named(&["node1", "node3"])
    );
    // A learner that shall be one is ready, and follows.
    cluster.wait_ready(3).await?;
    load.wait_progress(30, PATIENCE).await?;
    agree::audits(&cluster, Some("none")).await?;
    changed(&cluster, &["promote", "node4"]).await?;
    let ran = changed(&cluster, &["promote", "node4"]).await?;
    assert!(ran.stderr.contains("nothing to do"), "{ran}");

    for name in ["node4", "node1", "node3"] {
        changed(&cluster, &["transfer-leader", name]).await?;
        let told = members(&cluster).await?;
        let id = &node(&told, name).unwrap()["id"];
        let led = told["groups"].as_array().unwrap();
        assert!(led.iter().all(|g| g["leader"] == *id), "{told}");
    }
    let history = load.stop().await?;
    judge(&cluster, &history).await?;
    agree_everywhere(&cluster).await?;
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i14_an_id_is_never_given_twice_whatever_becomes_of_its_node() -> anyhow::Result<()> {
    let cluster = plan("ids").spares(1).start().await?;
    cluster.fill("app", "k", 300, "value").await?;
    let mut ids = BTreeSet::from([1, 2, 3]);
    for round in 0..2 {
        add(&cluster, 3).await?;
        let id = cluster.status(3).await?["node"]["id"].as_u64().unwrap();
        assert!(ids.insert(id), "round {round}: id {id} was used before");
        changed(&cluster, &["remove", "node4", "--yes"]).await?;
        ends(&cluster, 3).await?;

        // It comes back with its old disk: fenced by what the others say, and the cluster goes on.
        cluster.node(3).start()?;
        fenced(&cluster, 3, "was removed at index").await?;
        cluster.node(3).kill()?;
        // It comes back empty and uninvited: refused.
        cluster.node(3).wipe()?;
        cluster.node(3).start()?;
        let status = cluster.node(3).wait_exit(PATIENCE).await?;
        assert!(!status.success());
        let log = cluster.node(3).log_text()?;
        assert!(log.contains("no node called \"node4\" any more"), "{log}");
        cluster.node(3).wipe()?;
    }
    let told = members(&cluster).await?;
    assert_eq!(voters(&told)?, named(&["node1", "node2", "node3"]));
    // A lost disk of a member takes the next id, above those of the removed.
    cluster.node(2).kill()?;
    cluster.node(2).wipe()?;
    cluster.node(2).start()?;
    cluster.wait_ready(2).await?;
    let id = cluster.status(2).await?["node"]["id"].as_u64().unwrap();
    assert!(ids.insert(id) && id > 5, "{id} of {ids:?}");
    agree_everywhere(&cluster).await?;
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn what_would_weaken_the_cluster_is_refused_and_nothing_has_changed() -> anyhow::Result<()> {
    let cluster = plan("refused").spares(1).start().await?;
    let before = members(&cluster).await?["registry"].clone();
    let refused = async |args: &[&str], exit: i32, code: &str| -> anyhow::Result<()> {
        let ran = member(&cluster, args).run().await?.expect(exit)?;
        anyhow::ensure!(ran.stderr.contains(&format!("error[{code}]")), "{ran}");
        anyhow::ensure!(ran.stderr.contains("hint:"), "{ran}");
        Ok(())
    };
    refused(&["remove", "node3", "--yes"], 3, "LESS_TOLERANCE").await?;
    refused(&["remove", "node9", "--yes"], 4, "MEMBER_UNKNOWN").await?;
    refused(&["add", "node4", "nowhere"], 2, "BAD_ADDRESS").await?;
    refused(&["add", "node2", "127.0.0.1:1"], 3, "MEMBER_EXISTS").await?;
    refused(&["replace", "node2", "node4"], 2, "ADDRESS_NEEDED").await?;
    // What takes away needs consent, and there is no terminal here.
    refused(
        &["remove", "node3", "--allow-less-tolerance"],
        2,
        "CONSENT_NEEDED",
    )
    .await?;
    let ran = member(
        &cluster,
        &[
            "remove",
            "node3",
            "--allow-less-tolerance",
            "--plan",
            "--json",
        ],
    )
    .run()
    .await?
    .expect(0)?;
    assert_eq!(
        ran.json()?["plan"]["groups"][0]["tolerance"],
        json!([1, 0]),
        "{ran}"
    );

    // With one node down nothing else may go; with two nothing can be changed at all.
    cluster.node(2).kill()?;
    missed(&cluster, "node3").await?;
    refused(
        &["remove", "node2", "--yes", "--allow-less-tolerance"],
        3,
        "RESULT_HAS_NO_QUORUM",
    )
    .await?;
    refused(&["transfer-leader", "node3"], 3, "MEMBER_DOWN").await?;
    // The tool says it, and the node does: the API takes no such request either.
    let leader = cluster.wait_leader(META).await?;
    let told = members(&cluster).await?;
    assert_eq!(told["registry"], before, "nothing was begun");
    let ask = async |registry: &Value, intent: Value| {
        let body = json!({"id": "by-hand", "registry": registry, "allowLessTolerance": true, "intent": intent});
        let path = "/api/v1/admin/members/changes";
        cluster.api(leader).post(path, &body).send().await
    };
    let answer = ask(&before, json!({"kind": "remove", "name": "node2"})).await?;
    assert_eq!(answer.status, 409);
    assert_eq!(answer.json()?["code"], "RESULT_HAS_NO_QUORUM");
    let answer = ask(&json!("1234"), json!({"kind": "remove", "name": "node3"})).await?;
    assert_eq!(answer.status, 409, "planned on another registry");
    assert_eq!(
        answer.json()?["type"],
        "urn:confman:problem:membership-changed"
    );
    assert_eq!(members(&cluster).await?["registry"], before);

    cluster.node(if leader == 0 { 1 } else { 0 }).kill()?;
    let ran = member(&cluster, &["remove", "node3", "--yes", "--timeout", "5"])
        .run()
        .await?
        .expect(6)?;
    assert!(ran.stderr.contains("hint:"), "{ran}");
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    agree_everywhere(&cluster).await?;
    cluster.finish()
}

/// One change at a time, whoever asks; and a change that waits can be called off.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_operators_at_once_one_is_refused() -> anyhow::Result<()> {
    let cluster = plan("two").nodes(5).start().await?;
    let one = member(
        &cluster,
        &["remove", "node4", "--yes", "--allow-less-tolerance"],
    );
    let other = member(
        &cluster,
        &["remove", "node5", "--yes", "--allow-less-tolerance"],
    );
    let (one, other) = tokio::join!(one.run(), other.run());
    let (one, other) = (one?, other?);
    let codes = [one.code, other.code];
    // Whoever was slow enough to plan after the other's end has done it as well.
    assert!(
        codes == [0, 3] || codes == [3, 0] || codes == [0, 0],
        "{one} {other}"
    );
    for ran in [&one, &other].into_iter().filter(|ran| ran.code == 3) {
        assert!(
            ran.stderr.contains("MEMBERSHIP_CHANGED") || ran.stderr.contains("CHANGE_RUNNING"),
            "{ran}"
        );
    }
    let left = voters(&members(&cluster).await?)?;
    assert_eq!(left.len(), 5 - codes.iter().filter(|c| **c == 0).count());

    // An add waits for a machine that does not come; nothing else goes on beside it, and it is called off.
    let ran = member(
        &cluster,
        &["add", "node9", "127.0.0.1:1", "--no-wait", "--json"],
    )
    .run()
    .await?
    .expect(0)?;
    assert_eq!(ran.json()?["outcome"], "begun");
    let ran = member(&cluster, &["demote", "node1", "--yes"])
        .run()
        .await?
        .expect(3)?;
    assert!(ran.stderr.contains("error[CHANGE_RUNNING]"), "{ran}");
    let ran = member(&cluster, &["add", "node9", "127.0.0.1:1", "--within", "1"])
        .run()
        .await?
        .expect(7)?;
    assert!(ran.stderr.contains("error[CHANGE_GOES_ON]"), "{ran}");
    member(&cluster, &["remove", "node9", "--yes"])
        .run()
        .await?
        .expect(0)?;
    let told = members(&cluster).await?;
    assert_eq!(told["expected"], json!([]));
    assert_ne!(told["change"]["endedAt"], Value::Null, "{told}");
    cluster.finish()
}
