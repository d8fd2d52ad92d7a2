//! Builds that fail or are dropped before the store is asked.

use std::path::Path;
use std::time::Duration;

use confman_snapshot::build::{Phase, build_and_upload};
use confman_snapshot::testing::{Op, view};
use confman_snapshot::{Kind, SnapshotError, StoreError, paths};

use super::{Bench, CHUNK_BYTES, group};
use crate::place::Place;

#[tokio::test]
async fn i2_a_replica_that_drifted_uploads_nothing() {
    let bench = Bench::at(&Place::memory());
    let mut drifted = view(&group(), 10, 20, 500);
    drifted
        .info
        .state_hash
        .add(b"a record", b"that is not there");
    let error = build_and_upload(
        drifted,
        &bench.repository,
        &bench.options(CHUNK_BYTES),
        |_| {},
    )
    .await
    .unwrap_err();
    assert!(
        matches!(error.source, SnapshotError::StateHash { index: 10, .. }),
        "{error}"
    );
    assert_eq!(error.phase, Phase::Build);
    assert_eq!(bench.store.calls(Op::Put), 0);
    assert!(is_empty(&bench.dir.path().join("tmp")));
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).map_or(true, |mut dir| dir.next().is_none())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c06_a_build_that_nobody_waits_for_ends_and_leaves_nothing() {
    let bench = Bench::at(&Place::memory());
    let mut endless = view(&group(), 10, 1, 500);
    let (produced, seen) = tokio::sync::watch::channel(0_u64);
    // Ends only because nobody waits for it.
    endless.records = Box::new((0_u64..).map(move |i| {
        produced.send_replace(i);
        Ok((i.to_be_bytes().to_vec().into(), vec![0; 1000].into()))
    }));
    let (repository, options) = (bench.repository.clone(), bench.options(CHUNK_BYTES));
    let task =
        tokio::spawn(async move { build_and_upload(endless, &repository, &options, |_| {}).await });
    let mut seen = seen;
    seen.wait_for(|i| *i > 1000).await.unwrap();
    assert!(!is_empty(&bench.dir.path().join("tmp")));
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    // The writing thread drops its sender when it ends.
    let ended = async { while seen.changed().await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(20), ended)
        .await
        .unwrap();
    for _ in 0..1000 {
        if is_empty(&bench.dir.path().join("tmp")) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the temporary file was left behind");
}

#[test]
fn errors_name_object_and_store_and_what_to_do() {
    let error = StoreError {
        kind: Kind::Wait,
        operation: "get",
        object: paths::snapshots(&group()),
        url: "s3://bucket".to_owned(),
        detail: "no answer within 8.0 s".to_owned(),
        hint: "wait".to_owned(),
    };
    assert_eq!(
        error.to_string(),
        "get \"snapshots/config/0\" in s3://bucket: no answer within 8.0 s\nhint: wait"
    );
}
