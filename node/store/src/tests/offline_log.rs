//! The offline reader over a damaged log: what it tells is what the log itself would say.

use std::path::Path;

use confman_snapshot::model::{GroupId, Membership, Position};
use openraft::storage::{RaftLogReader, RaftLogStorage};
use proptest::prelude::*;

use super::kit::*;
use super::log::{busy_log, chunks, entries, lone, newest_chunk};
use super::offline::{as_group, found, indexes, membership_entry, only_group};
use super::purge::{append, copy_dir};
use crate::log::LogStore;
use crate::offline::{OfflineSeverity, codes};
use crate::types::{Entry, EntryPayload, Vote};
use crate::{convert, wire};

#[test]
fn d07_every_flipped_bit_in_the_log_is_a_finding() {
    let (log, whole) = busy_log();
    let dir = as_group(log.path());
    let sound = only_group(dir.path());
    assert_eq!(found(&sound), [codes::STATE_MISSING]);
    assert_eq!(indexes(&sound), (3..=9).collect::<Vec<_>>());
    let file = newest_chunk(&paths(dir.path(), &GroupId::config(0)).log());
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&file, &bytes).unwrap();
        let group = only_group(dir.path());
        let damage = group
            .findings
            .iter()
            .find(|f| f.code == codes::LOG_DAMAGED)
            .unwrap_or_else(|| panic!("byte {at} is not told of: {:?}", group.findings));
        assert_eq!(damage.severity, OfflineSeverity::Error);
        assert!(damage.path == file && damage.offset.unwrap() <= at as u64);
        assert_eq!(group.torn_tail, None, "byte {at}");
        // What is given is what was written, whatever is missing.
        for entry in group.entries(..).flatten() {
            assert!(entry.0.index <= 9 && entry.0.term == 3);
        }
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
    }
}

#[test]
fn d07_reading_goes_on_behind_a_record_with_a_wrong_checksum() {
    let (log, whole) = busy_log();
    let dir = as_group(log.path());
    let file = newest_chunk(&paths(dir.path(), &GroupId::config(0)).log());
    // A byte in the value of entry 7: every value is twenty x.
    let places: Vec<usize> = (0..whole.len() - 20)
        .filter(|at| whole[*at..*at + 20].iter().all(|b| *b == b'x'))
        .collect();
    let at = places[7];
    let mut bytes = whole.clone();
    bytes[at] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let group = only_group(dir.path());
    let entries: Vec<Result<u64, String>> = group
        .entries(..)
        .map(|e| e.map(|e| e.0.index).map_err(|e| e.to_string()))
        .collect();
    let good: Vec<u64> = entries.iter().flatten().copied().collect();
    assert_eq!(good.len(), 6, "{entries:?}");
    assert_eq!(good.last(), Some(&9));
    assert_eq!(entries.iter().filter(|e| e.is_err()).count(), 1);
    let codes = found(&group);
    for code in [codes::LOG_DAMAGED, codes::LOG_HOLE, codes::LOG_ORDER] {
        assert!(codes.contains(&code), "{codes:?}");
    }
}

/// Whether the log, asked on a copy, calls itself damaged.
fn refused_by_the_log(log: &Path) -> bool {
    let copy = tempfile::tempdir().unwrap();
    copy_dir(log, copy.path());
    LogStore::open(copy.path(), 1 << 20, None, "config/0".to_owned()).is_err()
}

/// What the log itself finds in a copy: the reader must see the same.
async fn agree(dir: &Path) -> Result<(), TestCaseError> {
    let group = only_group(dir);
    let copy = tempfile::tempdir().unwrap();
    copy_dir(&group.paths.log(), copy.path());
    let before: u64 = chunks(copy.path())
        .iter()
        .map(|c| std::fs::metadata(c).unwrap().len())
        .sum();
    let mut log = LogStore::open(copy.path(), 1 << 20, None, "config/0".to_owned()).unwrap();
    let stats = log.stats();
    prop_assert_eq!(group.purged, stats.purged);
    prop_assert_eq!(group.last, stats.last);
    prop_assert_eq!(group.log.as_ref().unwrap().entries_count(), stats.entries);
    let vote = log.read_vote().await.unwrap();
    prop_assert_eq!(group.vote, vote.as_ref().map(wire::WireVote::from));
    let committed = log.read_committed().await.unwrap();
    prop_assert_eq!(group.committed, committed.as_ref().map(convert::position));
    let expected: Vec<Entry> = log.try_get_log_entries(..).await.unwrap();
    let mut found = Vec::new();
    for entry in group.entries(..) {
        let (position, payload) = entry.unwrap();
        found.push(Entry {
            log_id: convert::log_id(&position),
            payload: payload.into_raft().unwrap(),
        });
    }
    prop_assert_eq!(&found, &expected);
    prop_assert_eq!(
        group.first,
        found.first().map(|e| convert::position(&e.log_id))
    );
    let memberships = found.iter().filter_map(|entry| match &entry.payload {
        EntryPayload::Membership(m) => Some(convert::membership_message(
            Some(convert::position(&entry.log_id)),
            m,
        )),
        _ => None,
    });
    match memberships.last().map(Membership::from) {
        Some(last) => prop_assert_eq!(group.membership, last),
        // What was purged is still in the file, and the reader knows it; the log itself leaves that to the state.
        None => {
            let at = group.membership.position.map(|position| position.index);
            let purged = group.purged.map(|purged| purged.index);
            prop_assert!(at <= purged, "{at:?} {purged:?}");
        }
    }
    drop(log);
    let after: u64 = chunks(copy.path())
        .iter()
        .map(|c| std::fs::metadata(c).unwrap().len())
        .sum();
    let torn = group.torn_tail.map_or(0, |tail| tail.bytes);
    // A file without a whole first record is removed, and a new one begun with a checkpoint.
    if torn == 0 && before > 0 {
        prop_assert_eq!(after, before);
    }
    let errors: Vec<_> = group
        .findings
        .iter()
        // Only the log is there, and its tests do not vote before they append.
        .filter(|f| ![codes::STATE_MISSING, codes::VOTE_BEHIND_LOG].contains(&f.code))
        .filter(|f| f.severity == OfflineSeverity::Error)
        .collect();
    prop_assert!(errors.is_empty(), "{:?}", errors);
    Ok(())
}

/// Each cut waits for the disk: side by side they wait together.
const CUTTERS: usize = 8;

#[test]
fn d08_a_torn_tail_is_told_and_left() {
    let (length, torn) = std::thread::scope(|scope| {
        let cutters: Vec<_> = (0..CUTTERS)
            .map(|nth| scope.spawn(move || cut_every(CUTTERS, nth)))
            .collect();
        let ended = cutters.into_iter().map(|cutter| cutter.join().unwrap());
        ended.fold((0, 0), |(_, torn), (length, more)| (length, torn + more))
    });
    assert!(torn > length);
}

/// Cuts the log at every place that is `nth` of so many; gives its length and how many of the tails were told to be torn.
fn cut_every(step: usize, nth: usize) -> (usize, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (log, whole) = busy_log();
    let dir = as_group(log.path());
    let file = newest_chunk(&paths(dir.path(), &GroupId::config(0)).log());
    let mut torn = 0;
    for cut in (nth..=whole.len()).step_by(step) {
        // Cut short, and cut short with zeros to its length: both are what a crash leaves.
        for zeros in [0, whole.len() - cut] {
            let bytes = [&whole[..cut], &vec![0; zeros]].concat();
            std::fs::write(&file, &bytes).unwrap();
            let group = only_group(dir.path());
            if refused_by_the_log(&group.paths.log()) {
                // Half a record and then zeros may be damage as well: neither takes it for a torn tail.
                assert!(zeros > 0 && cut > 0, "cut at {cut}");
                assert!(
                    found(&group).contains(&codes::LOG_DAMAGED),
                    "cut at {cut}: {:?}",
                    group.findings
                );
                continue;
            }
            runtime.block_on(agree(dir.path())).unwrap();
            if let Some(tail) = &group.torn_tail {
                torn += 1;
                assert_eq!(tail.path, file);
                assert_eq!(tail.offset + tail.bytes, bytes.len() as u64);
                let finding = group
                    .findings
                    .iter()
                    .find(|f| f.code == codes::LOG_TORN_TAIL);
                assert_eq!(finding.unwrap().severity, OfflineSeverity::Warning);
            }
            assert_eq!(std::fs::read(&file).unwrap(), bytes, "cut at {cut}");
        }
    }
    (whole.len(), torn)
}

#[tokio::test]
async fn damage_in_an_older_file_is_not_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let log_dir = paths(dir.path(), &GroupId::config(0)).log();
    let mut log = lone(&log_dir);
    for n in 1..=80 {
        append(&mut log, entries(n..=n, 256 * 1024)).await;
    }
    drop(log);
    assert_eq!(
        indexes(&only_group(dir.path())),
        (1..=80).collect::<Vec<_>>()
    );
    assert_eq!(only_group(dir.path()).entries(30..=70).count(), 41);
    agree(dir.path()).await.unwrap();
    let first = chunks(&log_dir).remove(0);
    let bytes = std::fs::read(&first).unwrap();
    std::fs::write(&first, &bytes[..bytes.len() - 5]).unwrap();
    let group = only_group(dir.path());
    assert_eq!(group.torn_tail, None);
    assert!(found(&group).contains(&codes::LOG_DAMAGED));
    // What the newer files have is there.
    assert_eq!(group.last.unwrap().index, 80);
    let read: Vec<u64> = group.entries(..).flatten().map(|e| e.0.index).collect();
    assert!(
        read.contains(&1) && read.contains(&80) && read.len() == 79,
        "{read:?}"
    );
    // And a file that is gone is a hole.
    std::fs::remove_file(&first).unwrap();
    let group = only_group(dir.path());
    assert!(
        found(&group).contains(&codes::LOG_HOLE),
        "{:?}",
        group.findings
    );
}

#[derive(Debug, Clone)]
enum Step {
    Append(u8, u16),
    Membership(u8),
    Cut(u8),
    Purge(u8),
    Vote(u8),
    Commit(u8),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..6u8, 0..400u16).prop_map(|(n, size)| Step::Append(n, size)),
        1 => (1..5u8).prop_map(Step::Membership),
        1 => any::<u8>().prop_map(Step::Cut),
        1 => any::<u8>().prop_map(Step::Purge),
        1 => (0..3u8).prop_map(Step::Vote),
        1 => any::<u8>().prop_map(Step::Commit),
        1 => Just(Step::Reopen),
    ]
}

async fn run(dir: &Path, steps: Vec<Step>) {
    let mut log = lone(dir);
    let (mut last, mut committed, mut purged, mut term) = (0u64, 0u64, 0u64, 3u64);
    log.save_vote(&Vote::new_committed(term, 1)).await.unwrap();
    let id = |index: u64| convert::log_id(&Position::new(3, 1, index));
    for step in steps {
        match step {
            Step::Append(count, size) => {
                append(
                    &mut log,
                    entries(last + 1..=last + u64::from(count), size.into()),
                )
                .await;
                last += u64::from(count);
            }
            Step::Membership(n) => {
                last += 1;
                let ids: Vec<u64> = (1..=n.into()).collect();
                append(&mut log, vec![membership_entry(last, &ids)]).await;
            }
            Step::Cut(at) => {
                let keep =
                    committed.max(purged) + u64::from(at) % (last - committed.max(purged) + 1);
                if keep > 0 {
                    log.truncate_after(Some(id(keep))).await.unwrap();
                    last = keep;
                }
            }
            Step::Purge(at) if last > 0 => {
                purged = purged.max(u64::from(at) % (last + 1));
                if purged > 0 {
                    log.purge(id(purged)).await.unwrap();
                }
            }
            Step::Vote(more) => {
                term += u64::from(more);
                log.save_vote(&Vote::new_committed(term, 1)).await.unwrap();
            }
            Step::Commit(at) if last > 0 => {
                committed = committed.max(u64::from(at) % (last + 1));
                if committed > 0 {
                    log.save_committed(Some(id(committed))).await.unwrap();
                }
            }
            Step::Reopen => {
                drop(log);
                log = lone(dir);
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_reader_agrees_with_the_log(steps in prop::collection::vec(step(), 0..30), cut in 0..200usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let log_dir = paths(dir.path(), &GroupId::config(0)).log();
        runtime.block_on(run(&log_dir, steps));
        runtime.block_on(agree(dir.path()))?;
        let file = newest_chunk(&log_dir);
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..bytes.len().saturating_sub(cut)]).unwrap();
        // A commit that reached the disk before the entries it speaks of did is not possible: the file is one stream.
        runtime.block_on(agree(dir.path()))?;
    }

    #[test]
    fn i19_any_bytes_as_a_log_are_read_or_told(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (source, whole) = busy_log();
        let dir = as_group(source.path());
        let file = newest_chunk(&paths(dir.path(), &GroupId::config(0)).log());
        for content in [bytes.clone(), [whole, bytes].concat()] {
            std::fs::write(&file, content).unwrap();
            let group = only_group(dir.path());
            prop_assert!(group.entries(..).count() <= 7);
        }
    }
}
