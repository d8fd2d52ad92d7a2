//! `drtool store probe` as a program: its exit codes, what it leaves behind when it is stopped, what it sweeps.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use confman_tests::cluster::PATIENCE;
use confman_tests::drtool::Drtool;
use confman_tests::wait::wait_until;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::bare_store;

/// The objects of probes in the folder of the S3 server.
fn probes(root: &Path) -> Vec<PathBuf> {
    let folder = root.join("s3/confman/test/probe");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    // The server keeps files of its own beside objects, which begin with a dot.
    let is_object = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| !name.starts_with('.'))
    };
    entries
        .map(|entry| entry.path())
        .filter(is_object)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: .ci/verify runs it"]
async fn a_store_is_probed_and_nothing_is_left_behind() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let store = bare_store(dir.path()).await?;
    let probe = |args: &[&str]| {
        let all = [&["store", "probe", "--big", "9", "--rounds", "2"], args].concat();
        Drtool::new(all).envs(store.env())
    };
    let report = probe(&["--json"]).run().await?.expect(0)?.json()?;
    ensure!(
        report["suitability"]
            .as_str()
            .is_some_and(|s| s.starts_with("suitable")),
        "{report}"
    );
    assert_eq!(report["leftBehind"], json!([]));
    assert_eq!(
        report["checks"].as_array().map(Vec::len),
        Some(17),
        "{report}"
    );
    assert_eq!(probes(dir.path()), Vec::<PathBuf>::new());
    let table = probe(&["s3://confman/elsewhere"]).run().await?.expect(0)?;
    ensure!(
        table.stdout.contains("create-race")
            && table.stdout.contains("s3://confman/elsewhere: suitable"),
        "{table}"
    );
    probe(&[])
        .env("AWS_SECRET_ACCESS_KEY", "wrong")
        .run()
        .await?
        .expect(3)?;

    // What a killed one left hours ago is swept; what is younger may be at work, and is left alone.
    let folder = dir.path().join("s3/confman/test/probe");
    std::fs::create_dir_all(&folder)?;
    for (name, hours) in [
        ("0123456789abcdef-big", 2),
        ("fedcba9876543210-big", 0),
        ("notes", 9),
    ] {
        let file = std::fs::File::create(folder.join(name))?;
        file.set_modified(SystemTime::now() - Duration::from_secs(hours * 3600))?;
    }
    let report = probe(&["--json"]).run().await?.expect(0)?.json()?;
    assert_eq!(report["swept"], 1, "{report}");
    let mut left: Vec<_> = probes(dir.path())
        .iter()
        .filter_map(|p| p.file_name().map(ToOwned::to_owned))
        .collect();
    left.sort();
    assert_eq!(left, ["fedcba9876543210-big", "notes"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn i17_a_probe_that_is_stopped_deletes_its_objects_first() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let store = bare_store(dir.path()).await?;
    // Rounds without end, so that it is stopped in the middle.
    let probe = Drtool::new([
        "store", "probe", "--big", "0", "--rounds", "10000", "--json",
    ])
    .envs(store.env());
    let child = probe.spawn()?;
    wait_until("the probe is at work", PATIENCE, || async {
        ensure!(probes(dir.path()).len() > 5, "{:?}", probes(dir.path()));
        Ok(())
    })
    .await?;
    let pid = i32::try_from(child.id().context("it has ended")?)?;
    kill_process(Pid::from_raw(pid).context("pid")?, Signal::TERM)?;
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await??;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(
        (&report["suitability"], &report["leftBehind"]),
        (&json!("unknown"), &json!([]))
    );
    assert_eq!(probes(dir.path()), Vec::<PathBuf>::new());
    Ok(())
}
