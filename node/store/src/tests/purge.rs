//! I4: the log is not purged beyond what the state holds durably.

use std::path::Path;

use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::type_config::TypeConfigExt;

use super::kit::*;
use crate::convert;
use crate::log::LogStore;
use crate::types::{Entry, TypeConfig};

pub(super) async fn append(log: &mut LogStore, entries: Vec<Entry>) {
    let (tx, rx) = TypeConfig::oneshot();
    log.append(entries, IOFlushed::signal(tx)).await.unwrap();
    rx.await.unwrap().unwrap();
}

/// The files as a crash of the process would leave them.
pub(super) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for item in std::fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let target = to.join(item.file_name());
        if item.file_type().unwrap().is_dir() {
            copy_dir(&item.path(), &target);
        } else {
            std::fs::copy(item.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i4_purge_makes_the_state_durable_first() {
    let mut r = Replica::new();
    r.log
        .save_vote(&openraft::Vote::new_committed(3, 1))
        .await
        .unwrap();
    let commands = (0..50)
        .map(|n| command(r.clock_us, put("a", &format!("k{n}"), "v")))
        .collect();
    let entries = r.entries(commands);
    append(&mut r.log, entries.clone()).await;
    r.machine.apply_now(entries.clone()).unwrap();
    r.log.purge(entries[39].log_id).await.unwrap();
    assert!(r.state.durable().unwrap().index >= 40);
    assert_eq!(r.log.stats().purged.unwrap().index, 40);
    assert_eq!(r.log.stats().entries, 10);

    // What a crash right now leaves opens, and has at least what is gone from the log.
    let crashed = tempfile::tempdir().unwrap();
    copy_dir(r.dir.path(), crashed.path());
    let (mut log, _machine, state) = open(crashed.path()).unwrap();
    let applied = state.applied().unwrap().index;
    assert!(
        applied >= 40,
        "applied {applied} is less than what is purged"
    );
    let tail = log.try_get_log_entries(applied + 1..).await.unwrap();
    assert_eq!(
        tail.len() as u64,
        50 - applied,
        "the log does not go on where the state ends"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i4_purge_beyond_what_is_applied_is_refused() {
    let mut r = Replica::new();
    let commands = (0..10)
        .map(|n| command(r.clock_us, put("a", &format!("k{n}"), "v")))
        .collect();
    let entries = r.entries(commands);
    append(&mut r.log, entries.clone()).await;
    r.machine.apply_now(entries[..5].to_vec()).unwrap();
    let error = r.log.purge(entries[5].log_id).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("purge config/0 up to 6: its state is durable only up to Some(5)"),
        "{error}"
    );
    assert_eq!(
        r.log.stats().entries,
        10,
        "something was purged all the same"
    );
    r.log.purge(entries[4].log_id).await.unwrap();
    assert_eq!(r.log.stats().entries, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_begins_after_the_state_ends_is_refused() {
    let mut r = Replica::new();
    r.log
        .save_vote(&openraft::Vote::new_committed(3, 1))
        .await
        .unwrap();
    r.op(put("a", "k", "1"));
    let crashed = tempfile::tempdir().unwrap();
    r.state.flush_durable().unwrap();
    copy_dir(r.dir.path(), crashed.path());
    let paths = paths(crashed.path(), r.state.group());
    let mut log = LogStore::open(&paths.log(), 1 << 20, None, "config/0".to_owned()).unwrap();
    let later = confman_snapshot::model::Position::new(3, 1, 9);
    log.purge(convert::log_id(&later)).await.unwrap();
    drop(log);
    let error = open(crashed.path()).unwrap_err().to_string();
    assert!(error.contains("the log begins after entry 9"), "{error}");
    assert!(error.contains("hint: "), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i14_a_state_whose_log_lost_its_votes_is_refused() {
    let mut r = Replica::new();
    r.op(put("a", "k", "1"));
    r.state.flush_durable().unwrap();
    let crashed = tempfile::tempdir().unwrap();
    copy_dir(r.dir.path(), crashed.path());
    std::fs::remove_dir_all(paths(crashed.path(), r.state.group()).log()).unwrap();
    let error = open(crashed.path()).unwrap_err().to_string();
    assert!(error.contains("has never seen a vote"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_becomes_durable_by_itself() {
    let mut r = Replica::new();
    r.op(put("a", "k", "1"));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while r.state.durable() != r.state.applied() {
        assert!(
            std::time::Instant::now() < deadline,
            "the state was not made durable"
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
