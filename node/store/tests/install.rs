//! A state that was swapped in while the log still ended before it: what a crash between the two leaves.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{One, group, options, put};
use confman_snapshot::{LocalFiles, SnapshotId, SnapshotReader, WriteOptions, write_snapshot};
use confman_store::types::SnapshotMeta;
use confman_store::{
    DataPaths, GroupStore, Incoming, LogStore, SnapshotHandle, StateHandle, StateMachine, convert,
};
use openraft::storage::RaftStateMachine;

/// openraft's tasks let go of the files a moment after it was shut down.
async fn reopen(dir: &Path) -> (LogStore, StateMachine, StateHandle) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match GroupStore::open(DataPaths::new(dir).group(&group()), options()) {
            Ok(parts) => return parts,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn filled(writes: u64) -> (tempfile::TempDir, One) {
    let dir = tempfile::tempdir().unwrap();
    let one = One::start(dir.path()).await;
    for n in 0..writes {
        one.write(put(&format!("k{n}"), b"value")).await;
    }
    (dir, one)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c20_after_a_crash_between_swap_and_purge_the_node_goes_on_with_the_new_state() {
    let (ahead_dir, ahead) = filled(60).await;
    let (dir, behind) = filled(5).await;
    let file = ahead_dir.path().join("x.snap");
    let view = ahead.state.open_view(1).unwrap();
    let (position, membership) = (view.info.position, view.info.membership.clone());
    let id = SnapshotId::new(position, 1, 1);
    write_snapshot(
        &file,
        &id,
        &view.info,
        view.records,
        &WriteOptions::default(),
    )
    .unwrap();
    let hash = ahead.state.stats().state_hash;

    behind.raft.shutdown().await.unwrap();
    drop(behind);
    {
        let (_log, mut machine, state) = reopen(dir.path()).await;
        let reader = SnapshotReader::open(Arc::new(LocalFiles::one("x", &file)), "x")
            .await
            .unwrap();
        let handle = SnapshotHandle::Incoming(Incoming::new(reader.records(1), None));
        let meta = SnapshotMeta {
            last_log_id: Some(convert::log_id(&position)),
            last_membership: convert::stored_membership(&membership).unwrap(),
        };
        machine.install_snapshot(&meta, handle).await.unwrap();
        assert_eq!(state.stats().state_hash, hash);
        // Here the process dies: the log was not purged.
    }
    let one = One::start(dir.path()).await;
    assert_eq!(one.log.stats().purged, Some(position));
    assert!(one.state.get_entry("app", "k59").unwrap().is_some());
    one.write(put("after", b"x")).await;
    let (_, kept, found) = one.state.rehash().unwrap();
    assert_eq!(kept, found);
}
