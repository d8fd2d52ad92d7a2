//! A quorum is gone: what the tool refuses, what it plans, and that the plan is what happens.

use std::path::Path;

use confman_tests::cluster::{CONFIG, Cluster, Plan};
use confman_tests::drtool::Ran;
use serde_json::json;

/// Loses the disks of these nodes, and stops the others.
fn lose(cluster: &Cluster, lost: &[usize]) -> anyhow::Result<()> {
    cluster.kill_all()?;
    lost.iter()
        .try_for_each(|index| cluster.node(*index).wipe())
}

/// Collects the directories of these nodes into a file of that name.
async fn collect(cluster: &Cluster, nodes: &[usize], out: &str) -> anyhow::Result<Ran> {
    let store = match cluster.store().await.as_ref() {
        Some(store) => store.env(),
        None => Default::default(),
    };
    let dirs = nodes.iter().map(|index| &cluster.node(*index).data_dir);
    cluster
        .drtool(["recover", "collect", "--force", "--json", "--out", out])
        .envs(store)
        .args(dirs)
        .run()
        .await
}

/// Plans from a collection, giving up these nodes.
async fn plan(cluster: &Cluster, from: &str, lost: &[&str], out: &str) -> anyhow::Result<Ran> {
    let given_up = lost.iter().flat_map(|name| ["--lost", name]);
    cluster
        .drtool(["recover", "plan", from, "--force", "--json", "--out", out])
        .args(given_up)
        .run()
        .await
}

/// The code of the refusal that a command ended with.
fn refusal(ran: &Ran) -> anyhow::Result<String> {
    let code = ran.json()?["error"]["code"].clone();
    Ok(code.as_str().unwrap_or_default().to_owned())
}

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
