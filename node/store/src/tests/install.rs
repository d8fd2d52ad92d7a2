//! A state from a snapshot: the same as the one it was taken of, or none at all.

use std::path::Path;
use std::sync::Arc;

use confman_snapshot::model::{GroupId, Membership, NodeInfo, Position};
use confman_snapshot::{
    LocalFiles, RecordStream, SnapshotId, SnapshotReader, WriteOptions, write_snapshot,
};
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftStateMachine};

use super::kit::*;
use crate::convert;
use crate::install::{install_ordered, install_state};
use crate::snapshot::{Incoming, SnapshotHandle};
use crate::types::SnapshotMeta;

/// A replica with a few hundred records in it.
fn grown() -> Replica {
    let mut r = Replica::new();
    r.log.begin_if_empty();
    let commands = (0..200)
        .map(|n| command(r.clock_us, put("a/b", &format!("k{n}"), &"v".repeat(n))))
        .collect();
    r.batch(commands);
    for op in stage_all(1, &vec![5; 700_000]) {
        r.op(op);
    }
    r.op(put_staged("a", "big", 1, &vec![5; 700_000]));
    r
}

/// A snapshot file of what a replica has now, in small chunks.
fn write(r: &Replica, path: &Path) -> Position {
    let view = r.state.open_view(1).unwrap();
    let position = view.info.position;
    let id = SnapshotId::new(position, 1, 1);
    let options = WriteOptions {
        chunk_bytes: 64 << 10,
        ..WriteOptions::default()
    };
    write_snapshot(path, &id, &view.info, view.records, &options).unwrap();
    position
}

async fn stream(path: &Path) -> RecordStream {
    let source = Arc::new(LocalFiles::one("x", path));
    SnapshotReader::open(source, "x").await.unwrap().records(1)
}

fn meta(r: &Replica) -> SnapshotMeta {
    let stats = r.state.stats();
    SnapshotMeta {
        last_log_id: Some(convert::log_id(&stats.applied.unwrap())),
        last_membership: convert::stored_membership(&stats.membership).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i2_an_installed_state_equals_the_one_it_was_taken_of() {
    let source = grown();
    let file = source.dir.path().join("x.snap");
    write(&source, &file);
    let mut target = Replica::new();
    target.op(put("old", "k", "old"));
    let incoming = Incoming::new(stream(&file).await, None);
    let meta = meta(&source);
    target
        .machine
        .install_snapshot(&meta, SnapshotHandle::Incoming(incoming))
        .await
        .unwrap();
    assert_eq!(target.state.stats(), source.state.stats());
    assert_eq!(target.version("old", "k"), None);
    assert_eq!(
        target.state.count_records().unwrap(),
        source.state.count_records().unwrap()
    );
    target.assert_hash();
    assert_eq!(
        target.state.durable(),
        target.state.applied(),
        "an installed state is durable"
    );
    // It goes on from there, and both stay the same.
    let mut source = source;
    target.next = source.next;
    target.clock_us = source.clock_us;
    for r in [&mut source, &mut target] {
        r.op(put("a/b", "k7", "after"));
    }
    assert_eq!(
        target.state.stats().state_hash,
        source.state.stats().state_hash
    );
    let target = target.reopen();
    assert_eq!(
        target.state.stats().state_hash,
        source.state.stats().state_hash
    );
    assert_eq!(target.machine.shared().purged_index(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i9_a_damaged_snapshot_leaves_the_old_state_as_it_was() {
    let source = grown();
    let file = source.dir.path().join("x.snap");
    write(&source, &file);
    let whole = std::fs::read(&file).unwrap();
    let mut target = Replica::new();
    target.op(put("old", "k", "old"));
    let before = target.state.stats();
    // Somewhere in the chunks, past what is read first.
    for at in [whole.len() / 3, whole.len() / 2] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        let incoming = Incoming::new(stream(&file).await, None);
        let meta = meta(&source);
        let error = target
            .machine
            .install_snapshot(&meta, SnapshotHandle::Incoming(incoming))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
        assert_eq!(target.state.stats(), before);
        assert_eq!(target.version("old", "k"), Some(1));
        assert!(
            !target.machine.shared().paths.state_new().exists(),
            "half a state was left behind"
        );
    }
    let target = target.reopen();
    assert_eq!(target.state.stats(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_something_else_is_refused() {
    let source = grown();
    let file = source.dir.path().join("x.snap");
    write(&source, &file);
    let mut target = Replica::of(&GroupId::config(1));
    let incoming = Incoming::new(stream(&file).await, None);
    let error = target
        .machine
        .install_snapshot(&meta(&source), SnapshotHandle::Incoming(incoming))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the group of the snapshot is config/0, expected config/1"),
        "{error}"
    );
    let mut target = Replica::new();
    let mut other = meta(&source);
    other.last_log_id = Some(convert::log_id(&Position::new(3, 1, 9)));
    let incoming = Incoming::new(stream(&file).await, None);
    let error = target
        .machine
        .install_snapshot(&other, SnapshotHandle::Incoming(incoming))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("the position of the snapshot"),
        "{error}"
    );
    assert_eq!(target.state.applied(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_go_on_while_a_state_takes_the_place_of_another() {
    let source = grown();
    let file = source.dir.path().join("x.snap");
    write(&source, &file);
    let mut target = Replica::new();
    target.op(put("a/b", "k7", "before"));
    let old_view = target.state.open_view(1).unwrap();
    let state = target.state.clone();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let reader = std::thread::spawn(move || {
        let mut seen = std::collections::BTreeSet::new();
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            let head = state.get_entry("a/b", "k7").unwrap().unwrap().head.unwrap();
            seen.insert(head.size);
        }
        seen
    });
    for _ in 0..3 {
        let incoming = Incoming::new(stream(&file).await, None);
        target
            .machine
            .install_snapshot(&meta(&source), SnapshotHandle::Incoming(incoming))
            .await
            .unwrap();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let seen = reader.join().unwrap();
    assert!(seen.is_subset(&[6, 7].into()), "{seen:?}");
    // A view that was opened before reads the old state to its end.
    assert_eq!(old_view.info.position.index, 1);
    assert!(old_view.records.count() > 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offline_a_state_is_installed_with_a_log_that_goes_on_after_it() {
    let source = grown();
    let file = source.dir.path().join("x.snap");
    let position = write(&source, &file);
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(dir.path(), &GroupId::config(0));
    let membership: confman_snapshot::model::Membership = super::snapshots::membership().into();
    let record = super::snapshots::record_of(&source, 1);
    // What an earlier try left behind.
    std::fs::create_dir_all(paths.log_new()).unwrap();
    std::fs::write(paths.state_new(), "half").unwrap();
    let install = || async {
        install_state(
            &paths,
            stream(&file).await,
            position,
            membership.clone(),
            Some(&record),
        )
        .await
    };
    let report = install().await.unwrap();
    assert_eq!(report.position, position);
    assert_eq!(report.records, source.state.count_records().unwrap());
    assert_eq!(report.state_hash, source.state.stats().state_hash);
    assert!(
        install()
            .await
            .unwrap_err()
            .to_string()
            .contains("a state and a log")
    );

    let (mut log, mut machine, state) = open(dir.path()).unwrap();
    assert_eq!(state.stats().state_hash, source.state.stats().state_hash);
    assert_eq!(state.stats().membership, membership);
    let log_state = log.get_log_state().await.unwrap();
    assert_eq!(log_state.last_log_id, Some(convert::log_id(&position)));
    assert_eq!(
        log_state.last_purged_log_id,
        Some(convert::log_id(&position))
    );
    let vote = log.read_vote().await.unwrap().unwrap();
    assert_eq!(
        (vote.leader_id.term, vote.leader_id.node_id, vote.committed),
        (position.term, position.node, true)
    );
    let current = machine.get_current_snapshot().await.unwrap().unwrap();
    assert!(matches!(current.snapshot, SnapshotHandle::Recorded(found) if found == record));
    assert_eq!(current.meta.last_log_id, Some(convert::log_id(&position)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offline_a_damaged_snapshot_leaves_nothing() {
    let source = grown();
    let file = source.dir.path().join("x.snap");
    let position = write(&source, &file);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&file, bytes).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(dir.path(), &GroupId::config(0));
    let error = install_state(
        &paths,
        stream(&file).await,
        position,
        Default::default(),
        None,
    )
    .await
    .unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
    assert!(!paths.state().exists() && !paths.state_new().exists() && !paths.log().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c20_half_an_installation_is_gone_at_the_next_start() {
    let mut r = Replica::new();
    r.op(put("a", "k", "1"));
    let half = r.machine.shared().paths.state_new();
    std::fs::write(&half, "half a database").unwrap();
    let r = r.reopen();
    assert!(!half.exists());
    assert_eq!(r.version("a", "k"), Some(1));
}

/// For a node that begins a new life with others: it stands for election by itself, and nobody of the old life votes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i11_i13_an_ordered_state_equals_the_snapshot_and_has_the_new_members_and_an_open_vote() {
    let source = grown();
    let file = source.dir.path().join("x.snap");
    let position = write(&source, &file);
    let record = super::snapshots::record_of(&source, 1);
    let members = Membership {
        position: Some(position),
        voters: vec![[1001, 1002].into()],
        nodes: [1001, 1002]
            .into_iter()
            .map(|id| (id, NodeInfo::default()))
            .collect(),
    };
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(dir.path(), &GroupId::config(0));
    let records = stream(&file).await;
    install_ordered(&paths, records, &record, members.clone(), (1234, 1002))
        .await
        .unwrap();
    let (mut log, _machine, state) = open(dir.path()).unwrap();
    let vote = log.read_vote().await.unwrap().unwrap();
    assert_eq!((vote.leader_id.term, vote.leader_id.node_id), (1234, 1002));
    assert!(!vote.committed);
    assert_eq!(state.stats().membership, members);
    assert_eq!(state.stats().applied, Some(position));
    assert_eq!(state.stats().state_hash, source.state.stats().state_hash);
    // Its own entry came after it: the restored cluster has to record it anew.
    let origin = state.unrecorded_origin().unwrap();
    assert_eq!(origin.and_then(|o| o.membership), Some((&members).into()));
}
