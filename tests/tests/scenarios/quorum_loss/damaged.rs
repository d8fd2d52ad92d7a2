//! What is left is not whole: a directory with a flipped byte begins no new life.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use confman_tests::cluster::Plan;
use serde_json::json;

use super::kit::*;

/// The largest file of a group's log.
fn log_file(data: &Path) -> anyhow::Result<PathBuf> {
    let mut folders = vec![data.join("groups")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for item in std::fs::read_dir(&folder)? {
            let path = item?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "wal") {
                files.push((path.metadata()?.len(), path));
            }
        }
    }
    files.sort();
    Ok(files.pop().context("no log")?.1)
}

/// Flips a bit in what was written there, `part` of the way to the last byte that is not zero.
fn flip(file: &Path, part: f64) -> anyhow::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(file)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let written = bytes.iter().rposition(|byte| *byte != 0).context("empty")?;
    let at = (written as f64 * part) as usize;
    file.seek(SeekFrom::Start(at as u64))?;
    file.write_all(&[bytes[at] ^ 1])?;
    Ok(())
}

/// One disk is gone, and of the two that are left one is not sound: it counts as lost, and only when the operator says so.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn a_survivor_with_a_flipped_byte_is_named_and_another_one_begins() -> anyhow::Result<()> {
    let cluster = Plan::new("damaged").start().await?;
    cluster.fill("app", "k", 200, "value").await?;
    let old = OldLife::lived(&cluster).await?;
    lose(&cluster, &[0])?;
    flip(&log_file(&cluster.node(1).data_dir)?, 0.5)?;
    let seen = collect(&cluster, &[1, 2], "c.json")
        .await?
        .expect(0)?
        .json()?;
    let findings = seen["directories"][0]["findings"].to_string();
    assert!(
        findings.contains("\"error\""),
        "the flipped byte was not found: {seen}"
    );
    let ran = plan(&cluster, "c.json", &["node1"], "p.json")
        .await?
        .expect(3)?;
    assert_eq!(refusal(&ran)?, "RECOVER_TOO_FEW", "{ran}");
    assert!(ran.stderr.contains("node2"), "{ran}");
    let planned = plan(&cluster, "c.json", &["node1", "node2"], "p.json").await?;
    let planned = planned.expect(0)?.json()?;
    assert_eq!(planned["survivor"]["info"]["name"], "node3", "{planned}");
    carry_out(&cluster, "apply", "p.json", 2).await?.expect(0)?;
    // The directory that is damaged is set aside like every other one, and comes back empty.
    carry_out(&cluster, "apply", "p.json", 1).await?.expect(0)?;
    cluster.node(2).start()?;
    first_write(&cluster, 2, "app/after").await?;
    assert_eq!(
        cluster.read(2, "app/k199", "linearizable").await?,
        Some(json!("value-199"))
    );
    cluster.node(1).start()?;
    cluster.wait_ready(1).await?;
    judge_new_life(&cluster, &[1, 2], &old, &planned).await?;
    cluster.finish()
}

/// Nothing that is left is sound: there is no plan, and the store is named.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_directories_alone_give_no_plan() -> anyhow::Result<()> {
    let cluster = Plan::new("all-damaged").start().await?;
    cluster.fill("app", "k", 200, "value").await?;
    lose(&cluster, &[0, 1])?;
    flip(&log_file(&cluster.node(2).data_dir)?, 0.5)?;
    collect(&cluster, &[2], "c.json").await?.expect(0)?;
    let ran = plan(&cluster, "c.json", &["node1", "node2", "node3"], "p.json")
        .await?
        .expect(3)?;
    assert_eq!(refusal(&ran)?, "RECOVER_SURVIVOR", "{ran}");
    assert!(ran.stderr.contains("drtool restore plan"), "{ran}");
    assert!(!cluster.dir()?.join("p.json").exists());
    cluster.finish()
}
