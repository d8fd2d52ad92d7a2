//! The commands of `drtool` that need only the bucket: real nodes fill it, and are gone when it is read.

mod contents;
mod probe;
mod retention;

use std::path::Path;

use anyhow::{Context as _, ensure};
use confman_tests::cluster::{CONFIG, Cluster, META, Plan};
use confman_tests::drtool::{Drtool, Ran};
use confman_tests::store::{Store, flip_bit, truncate};
use serde_json::Value;

/// A cluster of one that has taken three snapshots of `config/0` and one of `__meta/0`, and is dead; and their ids,
/// oldest first.
async fn dead_cluster(name: &str) -> anyhow::Result<(Cluster, Vec<String>)> {
    let cluster = Plan::new(name).nodes(1).start().await?;
    let mut ids = Vec::new();
    for round in 0..3 {
        cluster
            .fill("app/web", &format!("k{round}-"), 400, "value")
            .await?;
        let taken = cluster.snapshot(CONFIG).await?;
        ids.push(taken["id"].as_str().context("no id")?.to_owned());
    }
    cluster.snapshot(META).await?;
    cluster.kill_all()?;
    Ok((cluster, ids))
}

/// `drtool` with the store of the cluster in its environment and no node to ask.
async fn tool(cluster: &Cluster, args: &[&str]) -> anyhow::Result<Ran> {
    let store = cluster.store().await;
    let env = store.as_ref().context("no store")?.env();
    Drtool::new(args).envs(env).run().await
}

fn items(document: &Value) -> anyhow::Result<&Vec<Value>> {
    document["items"]
        .as_array()
        .with_context(|| format!("no items in {document}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_listed_shown_and_proven_without_a_node() -> anyhow::Result<()> {
    let (cluster, ids) = dead_cluster("tool-list").await?;
    let list = tool(&cluster, &["snapshot", "list", "--json"]).await?;
    let list = list.expect(0)?.json()?;
    assert_eq!(list["clusters"][0]["incarnation"], 1, "{list}");
    let of_config: Vec<&Value> = items(&list)?
        .iter()
        .filter(|item| item["group"] == CONFIG)
        .collect();
    let shown: Vec<&str> = of_config.iter().filter_map(|i| i["id"].as_str()).collect();
    let newest_first: Vec<&str> = ids.iter().rev().map(String::as_str).collect();
    assert_eq!(shown, newest_first);
    let standings: Vec<&Value> = of_config.iter().map(|item| &item["standing"]).collect();
    assert_eq!(standings, ["newest", "recorded", "recorded"]);
    let meta = tool(&cluster, &["snapshot", "list", "--group", META, "--json"]).await?;
    assert_eq!(items(&meta.expect(0)?.json()?)?.len(), 1);

    let show = tool(&cluster, &["snapshot", "show", "latest", "--json"]).await?;
    let show = show.expect(0)?.json()?;
    assert_eq!(show["id"], ids[2].as_str());
    assert!(show["records"].as_u64() > Some(1_200), "{show}");
    // By its index, as people type it.
    let index = of_config[1]["manifest"]["index"].to_string();
    let by_index = tool(&cluster, &["snapshot", "show", &index])
        .await?
        .expect(0)?;
    assert!(by_index.stdout.contains(&ids[1]), "{by_index}");
    assert!(
        by_index.stdout.contains("recorded by the group"),
        "{by_index}"
    );
    tool(&cluster, &["snapshot", "show", "0000000"])
        .await?
        .expect(2)?;
    tool(&cluster, &["snapshot", "show", "99999999"])
        .await?
        .expect(4)?;

    for depth in [&[][..], &["--read-data"], &["--sample", "10%"]] {
        let args = [&["snapshot", "verify", "--all", "--json"], depth].concat();
        let verified = tool(&cluster, &args).await?.expect(0)?.json()?;
        assert_eq!(verified["good"], true, "{verified}");
        assert_eq!(items(&verified)?.len(), 4, "{verified}");
        assert_eq!(verified["findings"], Value::Array(vec![]));
    }
    cluster.finish()
}

/// The path of an object in the folder of the S3 server.
async fn object(cluster: &Cluster, id: &str) -> anyhow::Result<std::path::PathBuf> {
    let store = cluster.store().await;
    store.as_ref().context("no store")?.snapshot(CONFIG, id)
}

/// The codes of the errors that `verify` found, and the text of them all.
fn errors(document: &Value) -> anyhow::Result<(Vec<&str>, String)> {
    let findings = document["findings"].as_array().context("no findings")?;
    let errors: Vec<&Value> = findings
        .iter()
        .filter(|f| f["severity"] == "error")
        .collect();
    let codes = errors.iter().filter_map(|f| f["code"].as_str()).collect();
    let text = errors.iter().map(ToString::to_string).collect();
    Ok((codes, text))
}

#[tokio::test(flavor = "multi_thread")]
async fn i9_a_flipped_cut_missing_or_swapped_object_is_named() -> anyhow::Result<()> {
    let (cluster, ids) = dead_cluster("tool-damage").await?;
    let middle = object(&cluster, &ids[1]).await?;
    let whole = std::fs::read(&middle)?;

    flip_bit(&middle)?;
    // Structure alone cannot see it, and says that it did not look.
    let shallow = tool(&cluster, &["snapshot", "verify", "--all"])
        .await?
        .expect(0)?;
    assert!(shallow.stdout.contains("structure only"), "{shallow}");
    for depth in [&["--read-data"][..], &["--sample", "100%"]] {
        let args = [&["snapshot", "verify", "--all", "--json"], depth].concat();
        let found = tool(&cluster, &args).await?.expect(5)?.json()?;
        let (codes, text) = errors(&found)?;
        assert_eq!(codes, ["SNAPSHOT_DAMAGED"], "{found}");
        assert!(text.contains(&ids[1]) && !text.contains(&ids[0]), "{text}");
        let bad: Vec<&Value> = items(&found)?
            .iter()
            .filter(|i| i["good"] == false)
            .collect();
        assert_eq!(bad.len(), 1, "the others are not blamed: {found}");
    }

    // Another snapshot's bytes under this name.
    std::fs::copy(object(&cluster, &ids[0]).await?, &middle)?;
    let found = tool(&cluster, &["snapshot", "verify", &ids[1], "--json"]).await?;
    let found = found.expect(5)?.json()?;
    assert_eq!(errors(&found)?.0, ["SNAPSHOT_REPLACED"], "{found}");

    // The newest is cut off: it is named, and what the one before it knows still counts.
    std::fs::write(&middle, &whole)?;
    truncate(&object(&cluster, &ids[2]).await?)?;
    let newest = tool(
        &cluster,
        &["snapshot", "verify", "--group", CONFIG, "--json"],
    )
    .await?;
    let (codes, text) = {
        let found = newest.expect(5)?.json()?;
        let (codes, text) = errors(&found)?;
        (codes.join(","), text)
    };
    assert_eq!(codes, "SNAPSHOT_DAMAGED");
    assert!(text.contains(&ids[2]), "{text}");
    let list = tool(&cluster, &["snapshot", "list", "--group", CONFIG])
        .await?
        .expect(0)?;
    assert!(list.stdout.contains("CANNOT BE READ"), "{list}");
    let show = tool(&cluster, &["snapshot", "show", "latest", "--json"])
        .await?
        .expect(5)?;
    assert_eq!(show.json()?["error"]["code"], "SNAPSHOT_DAMAGED", "{show}");

    // The oldest is gone, although the middle one has it in its records.
    std::fs::remove_file(object(&cluster, &ids[0]).await?)?;
    let found = tool(&cluster, &["snapshot", "verify", "--all", "--json"]).await?;
    let found = found.expect(5)?.json()?;
    let (codes, text) = errors(&found)?;
    assert_eq!(codes, ["SNAPSHOT_DAMAGED", "SNAPSHOT_MISSING"], "{found}");
    assert!(text.contains(&ids[0]), "{text}");
    // A cluster that keeps one generation would have retired it.
    let found = tool(
        &cluster,
        &["snapshot", "verify", "--all", "--keep", "1", "--json"],
    )
    .await?;
    let found = found.expect(5)?.json()?;
    assert_eq!(errors(&found)?.0, ["SNAPSHOT_DAMAGED"], "{found}");
    cluster.finish()
}

/// A store without a cluster, for what can be wrong about a store.
async fn bare_store(dir: &Path) -> anyhow::Result<Store> {
    Store::start(&dir.join("s3")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_wrong_is_told_by_remedy() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut store = bare_store(dir.path()).await?;
    let list = || Drtool::new(["snapshot", "list", "--json"]).envs(store.env());

    let empty = list().run().await?.expect(0)?.json()?;
    assert_eq!(
        (&empty["items"], &empty["clusters"]),
        (&Value::Array(vec![]), &Value::Array(vec![]))
    );
    let verify = Drtool::new(["snapshot", "verify", "--all"]).envs(store.env());
    let nothing = verify.run().await?.expect(4)?;
    assert!(nothing.stderr.contains("nothing was verified"), "{nothing}");
    let latest = Drtool::new(["snapshot", "show", "latest"]).envs(store.env());
    latest.run().await?.expect(4)?;

    let code = |ran: &Ran| -> anyhow::Result<Value> { Ok(ran.json()?["error"]["code"].clone()) };
    let wrong_key = list()
        .env("AWS_SECRET_ACCESS_KEY", "not-the-secret")
        .run()
        .await?
        .expect(3)?;
    assert_eq!(code(&wrong_key)?, "STORE_CREDENTIALS", "{wrong_key}");
    ensure!(
        !wrong_key.to_string().contains("not-the-secret"),
        "{wrong_key}"
    );
    let wrong_bucket = list()
        .arg("--store")
        .arg("s3://no-such-bucket/x")
        .run()
        .await?
        .expect(2)?;
    assert_eq!(
        code(&wrong_bucket)?,
        "STORE_CONFIGURATION",
        "{wrong_bucket}"
    );
    let no_folder = list()
        .arg("--store")
        .arg("file:///no/such/folder")
        .run()
        .await?
        .expect(4)?;
    assert_eq!(code(&no_folder)?, "STORE_NOT_FOUND", "{no_folder}");
    let env = store.env();
    store.stop().await;
    let down = Drtool::new(["snapshot", "list", "--json"])
        .envs(env)
        .run()
        .await?
        .expect(6)?;
    assert_eq!(code(&down)?, "STORE_UNREACHABLE", "{down}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn o22_objects_of_others_are_counted_and_left_alone() -> anyhow::Result<()> {
    let (cluster, ids) = dead_cluster("tool-foreign").await?;
    let folder = object(&cluster, &ids[0]).await?;
    let folder = folder.parent().context("no folder")?.to_owned();
    let foreign = ["README.txt", "1-1-1-1.snap", "00000000000000000001.snap"];
    for name in foreign {
        std::fs::write(folder.join(name), "not ours")?;
    }
    let list = tool(&cluster, &["snapshot", "list", "--json"])
        .await?
        .expect(0)?
        .json()?;
    assert_eq!(list["foreignObjects"], 3, "{list}");
    assert_eq!(items(&list)?.len(), 4, "{list}");
    tool(&cluster, &["snapshot", "verify", "--all", "--read-data"])
        .await?
        .expect(0)?;
    for name in foreign {
        assert_eq!(std::fs::read_to_string(folder.join(name))?, "not ours");
    }
    cluster.finish()
}
