//! The log: what is durable, what a crash and what damage leave.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::StreamExt;
use openraft::storage::{RaftLogReader, RaftLogStorage};
use proptest::prelude::*;

use super::kit::*;
use super::purge::{append, copy_dir};
use crate::log::LogStore;
use crate::types::{Entry, Vote};

pub(super) fn lone(dir: &Path) -> LogStore {
    LogStore::open(dir, 1 << 20, None, "config/0".to_owned()).unwrap()
}

pub(super) fn entries(range: std::ops::RangeInclusive<u64>, size: usize) -> Vec<Entry> {
    range
        .map(|n| entry(n, command(n as i64, put("a", "k", &"x".repeat(size)))))
        .collect()
}

async fn all(log: &mut LogStore) -> Vec<u64> {
    log.try_get_log_entries(..)
        .await
        .unwrap()
        .iter()
        .map(|e| e.log_id.index)
        .collect()
}

pub(super) fn newest_chunk(dir: &Path) -> PathBuf {
    chunks(dir).pop().unwrap()
}

pub(super) fn chunks(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "wal"))
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn what_was_flushed_is_there_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = lone(dir.path());
    let vote = Vote::new(7, 2);
    log.save_vote(&vote).await.unwrap();
    append(&mut log, entries(1..=20, 10)).await;
    log.save_committed(Some(entries(18..=18, 0)[0].log_id))
        .await
        .unwrap();
    log.truncate_after(Some(entries(18..=18, 0)[0].log_id))
        .await
        .unwrap();
    let stats = log.stats();
    let crashed = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), crashed.path());
    let mut log = lone(crashed.path());
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    assert_eq!(all(&mut log).await, (1..=18).collect::<Vec<_>>());
    assert_eq!(log.read_committed().await.unwrap().unwrap().index, 18);
    assert_eq!(log.stats(), stats);
    append(&mut log, entries(19..=19, 10)).await;
    assert_eq!(log.stats().entries, 19);
}

#[tokio::test]
async fn reads_are_bounded_in_bytes_but_give_one_entry() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = lone(dir.path());
    // 100 entries of 256 KiB: more than the cache and more than one chunk file.
    for n in 1..=100 {
        append(&mut log, entries(n..=n, 256 * 1024)).await;
    }
    assert!(chunks(dir.path()).len() > 1);
    for start in [1, 50, 90, 100] {
        let got = log.limited_get_log_entries(start, 101).await.unwrap();
        assert_eq!(got[0].log_id.index, start);
        assert!(got.len() <= 16, "{} entries of 256 KiB at once", got.len());
        assert!(got.len() == 15 || got.last().unwrap().log_id.index == 100);
    }
    assert_eq!(all(&mut log).await.len(), 100);
    let mut seen = 0;
    let mut stream = std::pin::pin!(log.entries_stream(10..=95).await);
    while let Some(entry) = stream.next().await {
        seen += 1;
        assert_eq!(entry.unwrap().log_id.index, 9 + seen);
    }
    assert_eq!(seen, 86);
}

#[tokio::test]
async fn a_stream_ends_when_its_leader_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = lone(dir.path());
    let leader = Vote::new_committed(3, 1);
    log.save_vote(&leader).await.unwrap();
    for n in 1..=40 {
        append(&mut log, entries(n..=n, 256 * 1024)).await;
    }
    let mut reader = log.clone();
    let mut stream = std::pin::pin!(reader.leader_bounded_stream(leader.leader_id, 1..41).await);
    assert_eq!(stream.next().await.unwrap().unwrap().log_id.index, 1);
    log.save_vote(&Vote::new(4, 2)).await.unwrap();
    let rest: Vec<_> = stream.collect().await;
    assert!(
        rest.last().unwrap().is_err(),
        "the stream went on under another leader"
    );
    assert!(
        rest.len() < 39,
        "entries were read after the leader changed"
    );
}

#[tokio::test]
async fn bytes_and_entries_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = lone(dir.path());
    append(&mut log, entries(1..=10, 100)).await;
    let one = log.stats().bytes / 10;
    log.purge(entries(4..=4, 0)[0].log_id).await.unwrap();
    assert_eq!((log.stats().entries, log.stats().bytes), (6, 6 * one));
    log.truncate_after(Some(entries(8..=8, 0)[0].log_id))
        .await
        .unwrap();
    assert_eq!((log.stats().entries, log.stats().bytes), (4, 4 * one));
    assert_eq!(log.stats().last.unwrap().index, 8);
    log.purge(entries(20..=20, 0)[0].log_id).await.unwrap();
    assert_eq!((log.stats().entries, log.stats().bytes), (0, 0));
    append(&mut log, entries(21..=21, 100)).await;
    assert_eq!((log.stats().entries, log.stats().bytes), (1, one));
    drop(log);
    assert_eq!(lone(dir.path()).stats().bytes, one);
}

#[tokio::test]
async fn a_torn_last_record_is_cut_off_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = lone(dir.path());
    log.save_vote(&Vote::new(7, 2)).await.unwrap();
    append(&mut log, entries(1..=9, 50)).await;
    let before = std::fs::metadata(newest_chunk(dir.path())).unwrap().len();
    append(&mut log, entries(10..=10, 50)).await;
    drop(log);
    let file = newest_chunk(dir.path());
    let whole = std::fs::read(&file).unwrap();
    for cut in before + 1..whole.len() as u64 {
        let crashed = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), crashed.path());
        std::fs::write(newest_chunk(crashed.path()), &whole[..cut as usize]).unwrap();
        let mut log = lone(crashed.path());
        assert_eq!(
            all(&mut log).await,
            (1..=9).collect::<Vec<_>>(),
            "cut at {cut}"
        );
        append(&mut log, entries(10..=10, 50)).await;
        assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(7, 2)));
    }
}

/// A log with votes, entries, commits, a truncation and a purge.
pub(super) fn busy_log() -> (tempfile::TempDir, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut log = lone(dir.path());
        log.save_vote(&Vote::new(2, 1)).await.unwrap();
        append(&mut log, entries(1..=5, 20)).await;
        log.truncate_after(Some(entries(4..=4, 0)[0].log_id))
            .await
            .unwrap();
        append(&mut log, entries(5..=8, 20)).await;
        log.save_committed(Some(entries(6..=6, 0)[0].log_id))
            .await
            .unwrap();
        log.purge(entries(2..=2, 0)[0].log_id).await.unwrap();
        log.save_vote(&Vote::new_committed(3, 1)).await.unwrap();
        append(&mut log, entries(9..=9, 20)).await;
    });
    drop(runtime);
    let bytes = std::fs::read(newest_chunk(dir.path())).unwrap();
    (dir, bytes)
}

#[test]
fn d07_every_flipped_bit_in_the_log_is_refused_with_the_name_of_the_file() {
    let (dir, whole) = busy_log();
    let copy = tempfile::tempdir().unwrap();
    let file = copy
        .path()
        .join(newest_chunk(dir.path()).file_name().unwrap());
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&file, &bytes).unwrap();
        let error = match LogStore::open(copy.path(), 1 << 20, None, "config/0".to_owned()) {
            Err(error) => error.to_string(),
            Ok(log) => panic!(
                "a flipped bit in byte {at} was not noticed: {:?}",
                log.stats()
            ),
        };
        assert!(
            error.contains(".wal") && error.contains("is damaged") && error.contains("hint: "),
            "{at}: {error}"
        );
        assert_eq!(
            std::fs::read(&file).unwrap(),
            bytes,
            "byte {at}: the damaged file was touched"
        );
    }
}

#[test]
fn d07_damage_in_an_older_chunk_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut log = lone(dir.path());
        for n in 1..=80 {
            append(&mut log, entries(n..=n, 256 * 1024)).await;
        }
    });
    drop(runtime);
    let first = chunks(dir.path()).remove(0);
    let mut bytes = std::fs::read(&first).unwrap();
    let end = bytes.len();
    bytes.truncate(end - 5);
    std::fs::write(&first, &bytes).unwrap();
    let error = LogStore::open(dir.path(), 1 << 20, None, "config/0".to_owned())
        .unwrap_err()
        .to_string();
    assert!(error.contains("is damaged"), "{error}");
    assert_eq!(
        std::fs::metadata(&first).unwrap().len() as usize,
        end - 5,
        "the damaged file was touched"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i19_any_bytes_as_a_log_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let dir = tempfile::tempdir().unwrap();
        let (source, whole) = {
            let (source, whole) = busy_log();
            (newest_chunk(source.path()).file_name().unwrap().to_owned(), whole)
        };
        // Noise alone, and noise after a good log.
        for content in [bytes.clone(), [whole, bytes].concat()] {
            let sub = tempfile::tempdir_in(dir.path()).unwrap();
            std::fs::write(sub.path().join(&source), content).unwrap();
            match LogStore::open(sub.path(), 1 << 20, None, "config/0".to_owned()) {
                Ok(log) => prop_assert!(log.stats().entries <= 7),
                Err(error) => prop_assert!(error.to_string().contains("hint: "), "{}", error),
            }
        }
    }
}

#[tokio::test]
async fn an_entry_that_cannot_be_decoded_is_found_at_open() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = lone(dir.path());
    append(&mut log, entries(1..=2, 10)).await;
    let mut strange = command(3, put("a", "k", "v"));
    strange.op = None;
    append(&mut log, vec![entry(3, strange)]).await;
    drop(log);
    let error = LogStore::open(dir.path(), 1 << 20, None, "config/0".to_owned())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("entry 3") && error.contains("op is missing"),
        "{error}"
    );
}

#[tokio::test]
async fn an_entry_that_is_too_large_is_refused_before_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = lone(dir.path());
    let mut huge = command(1, put("a", "k", "v"));
    huge.fingerprint = Bytes::from(vec![0; crate::wire::ENTRY_BYTES_MAX]);
    let error = log
        .append(vec![entry(1, huge)], openraft::storage::IOFlushed::noop())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("the limit is"), "{error}");
    drop(log);
    assert_eq!(lone(dir.path()).stats().entries, 0);
}
