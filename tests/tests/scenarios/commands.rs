//! The commands that a user types, against real nodes: get and put, import and export.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context as _, ensure};
use confman_tests::cluster::Plan;
use serde_json::Value;

/// How a program ended, with all that it said.
pub(crate) fn said(output: &Output) -> String {
    let both = [output.stdout.clone(), output.stderr.clone()].concat();
    format!("{}: {}", output.status, String::from_utf8_lossy(&both))
}

/// What a program printed that must succeed.
pub(crate) fn good(output: Output) -> anyhow::Result<String> {
    ensure!(output.status.success(), "{}", said(&output));
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn put_get_list_delete_audit_and_status_follow_the_leader() -> anyhow::Result<()> {
    let cluster = Plan::new("commands").start().await?;
    good(cluster.confman(&["put", "web/frontend/greeting", "hello"])?)?;
    let got = good(cluster.confman(&["get", "web/frontend/greeting", "--json"])?)?;
    let entry: Value = serde_json::from_str(&got).with_context(|| got.clone())?;
    assert_eq!(entry["value"], "hello");
    assert_eq!(entry["version"], 1);
    assert_eq!(entry["updatedBy"], "tester");
    let list: Value = serde_json::from_str(&good(cluster.confman(&[
        "list",
        "web/frontend",
        "--json",
    ])?)?)?;
    assert_eq!(list["items"][0]["key"], "greeting");
    let status: Value = serde_json::from_str(&good(cluster.confman(&["status", "--json"])?)?)?;
    assert!(status.to_string().contains("config/0"), "{status}");
    good(cluster.confman(&["delete", "web/frontend/greeting"])?)?;
    let gone = cluster.confman(&["get", "web/frontend/greeting"])?;
    assert!(!gone.status.success());
    let audit: Value = serde_json::from_str(&good(cluster.confman(&[
        "audit",
        "web/frontend",
        "--json",
    ])?)?)?;
    assert_eq!(audit["items"][0]["action"], "delete");
    cluster.finish()
}

/// This repository itself goes in and comes out byte for byte; a second import changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_tree_is_imported_and_exported_byte_for_byte() -> anyhow::Result<()> {
    let cluster = Plan::new("import").start().await?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let source_text = source.to_str().context("path is not text")?;
    good(cluster.confman(&["import", source_text, "--into", "code"])?)?;
    let again = cluster.confman(&["import", source_text, "--into", "code", "--json"])?;
    good(again)?;
    let out = cluster.dir()?.join("out");
    good(cluster.confman(&["export", out.to_str().context("path")?, "--from", "code"])?)?;
    assert_eq!(tree(&source)?, tree(&out)?);
    let entry = cluster
        .api(0)
        .get_json("/api/v1/config/code/lib.rs")
        .await?;
    assert_eq!(entry["version"], 1, "the second import made new versions");
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
