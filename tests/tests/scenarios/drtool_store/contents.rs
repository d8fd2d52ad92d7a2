//! What is inside a snapshot, without a node: single values, whole exports, differences, copies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use confman_tests::cluster::{CONFIG, Cluster, META, Plan};
use confman_tests::store::flip_bit;
use serde_json::{Value, json};

use super::{items, object, tool};

/// Bytes that no codec makes smaller; a multiplicative generator, the same in every run.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        out.extend_from_slice(&(state >> 16).to_le_bytes()[..4]);
    }
    out.truncate(bytes);
    out
}

fn confman(cluster: &Cluster, args: &[&str]) -> anyhow::Result<String> {
    let output = cluster.confman(args)?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "confman {args:?}: {said}");
    Ok(said)
}

/// Puts a file's bytes; gives the file.
fn put_file(cluster: &Cluster, path: &str, bytes: &[u8]) -> anyhow::Result<PathBuf> {
    let file = cluster.dir()?.join(path.replace('/', "-"));
    std::fs::write(&file, bytes)?;
    confman(
        cluster,
        &["put", path, "--file", file.to_str().context("path")?],
    )?;
    Ok(file)
}

async fn snapshot(cluster: &Cluster) -> anyhow::Result<String> {
    let taken = cluster.snapshot(CONFIG).await?;
    Ok(taken["id"].as_str().context("no id")?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn one_value_is_read_out_of_a_large_object_with_few_bytes() -> anyhow::Result<()> {
    let cluster = Plan::new("tool-get").nodes(1).start().await?;
    cluster.write("app/name", &json!("first")).await?;
    cluster
        .write("app/limits", &json!({"b": [1, 2.5], "a": null}))
        .await?;
    cluster.write("app/gone", &json!(1)).await?;
    let older = snapshot(&cluster).await?;
    cluster
        .write("app/name", &json!("second\u{1b}[31m"))
        .await?;
    confman(&cluster, &["delete", "app/gone"])?;
    // Values in parts, in several chunks: 24 MiB that do not compress.
    let large = noise(3 << 20, 7);
    put_file(&cluster, "big/v0", &large)?;
    for n in 1..8 {
        put_file(&cluster, &format!("big/v{n}"), &noise(3 << 20, 7 + n))?;
    }
    let newest = snapshot(&cluster).await?;
    cluster.kill_all()?;

    let got = tool(&cluster, &["get", "app/name", "--json"])
        .await?
        .expect(0)?
        .json()?;
    assert_eq!(
        (&got["value"], &got["version"]),
        (&json!("second\u{1b}[31m"), &json!(2))
    );
    assert_eq!(got["snapshot"]["id"], newest.as_str());
    let (read, whole) = (got["bytesRead"].as_u64(), got["objectBytes"].as_u64());
    let (read, whole) = (read.context("bytesRead")?, whole.context("objectBytes")?);
    ensure!(whole > 24 << 20, "{whole} bytes are no large object");
    ensure!(
        read * 3 < whole,
        "{read} of {whole} bytes were read for one value"
    );

    // Byte for byte, to a file and to a pipe.
    let file = cluster.dir()?.join("out");
    let to = file.to_str().context("path")?;
    tool(&cluster, &["get", "big/v0", "--output", to])
        .await?
        .expect(0)?;
    ensure!(
        std::fs::read(&file)? == large,
        "the value in parts is another one"
    );
    let limits = tool(&cluster, &["get", "app/limits"]).await?.expect(0)?;
    assert_eq!(limits.stdout, r#"{"a":null,"b":[1,2.5]}"#);

    let before = tool(&cluster, &["get", "app/gone", "--snapshot", &older])
        .await?
        .expect(0)?;
    assert_eq!(before.stdout, "1");
    let gone = tool(&cluster, &["get", "app/gone", "--json"])
        .await?
        .expect(4)?;
    assert_eq!(gone.json()?["error"]["code"], "ENTRY_NOT_FOUND");
    ensure!(
        gone.stderr.contains("had been deleted") && gone.stderr.contains("version 1"),
        "{gone}"
    );
    tool(&cluster, &["get", "app/never"]).await?.expect(4)?;
    tool(&cluster, &["get", "app"]).await?.expect(2)?;
    cluster.finish()
}

fn tree(root: &Path) -> anyhow::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                found.insert(path.strip_prefix(root)?.to_owned(), std::fs::read(&path)?);
            }
        }
    }
    Ok(found)
}

/// All items of a list, page by page.
async fn all(cluster: &Cluster, path: &str) -> anyhow::Result<Vec<Value>> {
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = cluster
            .api(0)
            .get_json(&format!("{path}limit=1000{cursor}"))
            .await?;
        found.extend(items(&page)?.iter().cloned());
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(found),
        }
    }
}

fn by_id(events: &[Value]) -> BTreeMap<String, Value> {
    let id = |event: &Value| event["id"].as_str().unwrap_or_default().to_owned();
    events
        .iter()
        .map(|event| (id(event), event.clone()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn i11_an_export_holds_what_the_cluster_held() -> anyhow::Result<()> {
    let cluster = Plan::new("tool-export")
        .nodes(1)
        .env("CONFMAN_SHARDS", "2")
        .start()
        .await?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    confman(
        &cluster,
        &[
            "import",
            source.to_str().context("path")?,
            "--into",
            "code/rust",
        ],
    )?;
    cluster.fill("web", "k", 300, "value").await?;
    put_file(&cluster, "web/large.bin", &noise(1 << 20, 3))?;
    confman(&cluster, &["delete", "web/k7"])?;
    // A group's snapshots are events in its own history: count what was there when the last of them was taken.
    for group in [META, CONFIG, "config/1"] {
        cluster.snapshot(group).await?;
    }
    let events = all(&cluster, "/api/v1/audit?").await?;
    let keys = all(&cluster, "/api/v1/config/web/?").await?;
    let namespaces = all(&cluster, "/api/v1/namespaces?").await?;
    cluster.kill_all()?;

    let document = tool(
        &cluster,
        &["export", "--snapshot", "latest", "--format", "json"],
    )
    .await?;
    let document = document.expect(0)?.json()?;
    let list = |name: &str| {
        document[name]
            .as_array()
            .with_context(|| format!("no {name}"))
    };
    assert_eq!(list("snapshots")?.len(), 3);
    assert_eq!(
        document["index"],
        Value::Null,
        "two groups stand at two positions"
    );
    let web: Vec<&Value> = list("configs")?
        .iter()
        .filter(|c| c["namespace"] == "web")
        .collect();
    assert_eq!(web.len(), 300, "300 and a large one, less a deleted one");
    for key in &keys {
        let same = web.iter().find(|found| found["key"] == key["key"]);
        let found = same.with_context(|| format!("{} is not in the export", key["key"]))?;
        for field in [
            "version",
            "valueHash",
            "type",
            "updatedAt",
            "updatedBy",
            "createdAt",
            "size",
        ] {
            assert_eq!(found[field], key[field], "{field} of {}", key["key"]);
        }
        assert!(!found["value"].is_null());
    }
    assert_eq!(list("namespaces")?.len(), namespaces.len());
    let exported = by_id(list("auditEvents")?);
    let live = by_id(&events);
    ensure!(exported.len() > 300, "{} events", exported.len());
    for (id, event) in &exported {
        assert_eq!(Some(event), live.get(id), "event {id}");
    }
    let only_snapshots = |event: &&Value| {
        event["action"]
            .as_str()
            .is_some_and(|a| a.starts_with("snapshot."))
    };
    let missing: Vec<&Value> = live
        .iter()
        .filter(|(id, _)| !exported.contains_key(*id))
        .map(|(_, e)| e)
        .collect();
    assert_eq!(
        missing
            .iter()
            .copied()
            .filter(|e| !only_snapshots(e))
            .count(),
        0,
        "{missing:?}"
    );
    assert_eq!(document["counts"]["configs"], list("configs")?.len());

    // The tree goes into another cluster, and is the same there.
    let dir = cluster.dir()?.join("tree");
    let to = dir.to_str().context("path")?;
    let args = [
        "export",
        "--snapshot",
        "latest",
        "--format",
        "dir",
        "--to",
        to,
        "--json",
    ];
    let report = tool(&cluster, &args).await?.expect(0)?.json()?;
    assert_eq!(
        (&report["proven"], &report["notWritten"]),
        (&json!(true), &json!(0))
    );
    assert_eq!(report["files"], document["counts"]["configs"]);
    assert_eq!(tree(&dir.join("code/rust"))?, tree(&source)?);
    let again = tool(&cluster, &args).await?.expect(2)?;
    ensure!(again.stderr.contains("not empty"), "{again}");
    let other = Plan::new("tool-import").nodes(1).start().await?;
    for name in ["code", "web"] {
        let from = dir.join(name);
        confman(
            &other,
            &["import", from.to_str().context("path")?, "--into", name],
        )?;
    }
    let back = other.dir()?.join("back");
    confman(&other, &["export", back.to_str().context("path")?])?;
    ensure!(
        tree(&dir)? == tree(&back)?,
        "the other cluster holds something else"
    );
    other.finish()?;
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn i9_an_export_of_a_damaged_snapshot_is_not_taken_for_a_whole_one() -> anyhow::Result<()> {
    let cluster = Plan::new("tool-unproven").nodes(1).start().await?;
    cluster.fill("app", "k", 400, "value").await?;
    // A key that is no file name.
    cluster.write("app/a%2Fb", &json!("x")).await?;
    let id = snapshot(&cluster).await?;
    cluster.kill_all()?;
    let dir = cluster.dir()?.join("tree");
    let to = dir.to_str().context("path")?;
    let export = [
        "export",
        "--snapshot",
        "latest",
        "--group",
        CONFIG,
        "--format",
    ];
    let partly = tool(&cluster, &[&export[..], &["dir", "--to", to]].concat())
        .await?
        .expect(7)?;
    ensure!(partly.stderr.contains("NOT WRITTEN app/a/b"), "{partly}");

    flip_bit(&object(&cluster, &id).await?)?;
    let json = tool(&cluster, &[&export[..], &["json"]].concat())
        .await?
        .expect(5)?;
    assert_eq!(json.stdout, "", "half a document");
    let file = cluster.dir()?.join("export.json");
    let to_file = ["json", "--to", file.to_str().context("path")?];
    tool(&cluster, &[&export[..], &to_file].concat())
        .await?
        .expect(5)?;
    ensure!(!file.exists(), "a file of half a document");
    let unproven = ["dir", "--to", to, "--overwrite"];
    let unproven = tool(&cluster, &[&export[..], &unproven].concat())
        .await?
        .expect(5)?;
    ensure!(unproven.stdout.contains("NOT PROVEN"), "{unproven}");
    let copy = cluster.dir()?.join("copy");
    let fetch = [
        "snapshot",
        "fetch",
        "latest",
        "--to",
        copy.to_str().context("path")?,
    ];
    tool(&cluster, &fetch).await?.expect(5)?;
    assert_eq!(tree(&copy)?, BTreeMap::new(), "a damaged copy was kept");
    cluster.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_snapshots_are_compared_and_one_is_fetched() -> anyhow::Result<()> {
    let cluster = Plan::new("tool-diff").nodes(1).start().await?;
    cluster.fill("app", "k", 200, "value").await?;
    let a = snapshot(&cluster).await?;
    cluster.write("app/k7", &json!("other")).await?;
    cluster.write("new/place", &json!(1)).await?;
    confman(&cluster, &["delete", "app/k9"])?;
    let b = snapshot(&cluster).await?;
    cluster.kill_all()?;

    let diff = tool(&cluster, &["snapshot", "diff", &a, &b, "--json"])
        .await?
        .expect(0)?
        .json()?;
    let mut changes: Vec<String> = items(&diff)?
        .iter()
        .map(|c| format!("{} {}/{}", c["how"], c["namespace"], c["key"]).replace('"', ""))
        .collect();
    changes.sort();
    let expected = [
        "added new/null",
        "added new/place",
        "changed app/k7",
        "removed app/k9",
    ];
    assert_eq!(changes, expected, "{diff}");
    assert_eq!(diff["sameState"], false);
    let same = tool(&cluster, &["snapshot", "diff", &a, &a, "--json"])
        .await?
        .expect(0)?
        .json()?;
    assert_eq!(
        (&same["sameState"], &same["chunksRead"]),
        (&json!(true), &json!(0)),
        "{same}"
    );
    let text = tool(&cluster, &["snapshot", "diff", &b, &a])
        .await?
        .expect(0)?;
    ensure!(text.stdout.contains("+ app/k9 none -> v1"), "{text}");
    ensure!(text.stdout.contains("~ app/k7 v2 -> v1"), "{text}");

    let copy = cluster.dir()?.join("copy");
    let folder = copy.to_str().context("path")?;
    for _ in 0..2 {
        let fetch = tool(&cluster, &["snapshot", "fetch", &a, "--to", folder])
            .await?
            .expect(0)?;
        ensure!(fetch.stdout.contains("proven"), "{fetch}");
    }
    assert_eq!(tree(&copy)?.len(), 1, "one object and nothing beside it");
    let url = format!("file://{folder}");
    let verify = [
        "snapshot",
        "verify",
        "--all",
        "--read-data",
        "--store",
        &url,
        "--json",
    ];
    let verified = tool(&cluster, &verify).await?.expect(0)?.json()?;
    assert_eq!(items(&verified)?.len(), 1, "{verified}");
    cluster.finish()
}
