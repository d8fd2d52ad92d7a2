//! The offline reader: it tells what is there, names what is wrong, and changes nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use confman_snapshot::model::{GroupId, Membership, NodeInfo, Position};
use openraft::storage::{RaftLogReader, RaftLogStorage};
use proptest::prelude::*;

use super::kit::*;
use super::log::{busy_log, chunks, entries, lone, newest_chunk};
use super::purge::{append, copy_dir};
use crate::datadir::{DataDir, Identity, IdentityState, MemberAtBirth};
use crate::log::LogStore;
use crate::offline::{OfflineGroup, OfflineNode, OfflineSeverity, codes};
use crate::types::{Entry, EntryPayload, Member, Vote};
use crate::{convert, wire};

/// Every file with its bytes, its time of change and its mode: what a reader must leave as it is.
fn image(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, i64, i64, u32)> {
    let mut all = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        let mut bytes = Vec::new();
        if metadata.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if metadata.is_file() {
            bytes = std::fs::read(&path).unwrap();
        }
        let times = (metadata.mtime(), metadata.mtime_nsec());
        all.insert(path, (bytes, times.0, times.1, metadata.mode()));
    }
    all
}

/// A log directory as the one of `config/0` in a data directory, with nothing else in it.
fn as_group(log: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy_dir(log, &paths(dir.path(), &GroupId::config(0)).log());
    dir
}

fn only_group(dir: &Path) -> OfflineGroup {
    let mut node = OfflineNode::open(dir).unwrap();
    assert_eq!(node.groups.len(), 1);
    node.groups.remove(0)
}

fn found(group: &OfflineGroup) -> Vec<&'static str> {
    group.findings.iter().map(|finding| finding.code).collect()
}

fn indexes(group: &OfflineGroup) -> Vec<u64> {
    group
        .entries(..)
        .map(|entry| entry.unwrap().0.index)
        .collect()
}

/// A node with an identity, all groups, a large value, a tombstone, a commit and a purge.
async fn busy_node(dir: &Path) {
    let data = DataDir::open(dir).unwrap();
    let info = NodeInfo {
        name: "node1".to_owned(),
        ..NodeInfo::default()
    };
    data.write_identity(&Identity {
        cluster_uuid: UUID.to_owned(),
        incarnation: 1,
        node_id: 1,
        name: "node1".to_owned(),
        shards: 1,
        members: vec![MemberAtBirth {
            id: 1,
            info: Some(info),
        }],
        state: IdentityState::Initialized.into(),
        reason: String::new(),
        created_us: 1,
        lineage: String::new(),
        incarnation_floor: 0,
    })
    .unwrap();
    for group in [GroupId::meta(), GroupId::config(0)] {
        let (mut log, machine, state) = open_group(dir, &group).unwrap();
        log.save_vote(&Vote::new_committed(3, 1)).await.unwrap();
        let mut all = vec![membership_entry(1, &[1, 2])];
        let operations = [
            put("a", "k", "v"),
            put("a", "gone", "v"),
            delete("a", "gone"),
            put("a", "k", "w"),
        ];
        for (n, op) in operations.into_iter().enumerate() {
            all.push(entry(2 + n as u64, command(n as i64 + 1, op)));
        }
        append(&mut log, all.clone()).await;
        log.save_committed(Some(all[4].log_id)).await.unwrap();
        machine.apply_now(all.clone()).unwrap();
        state.flush_durable().unwrap();
        log.purge(all[1].log_id).await.unwrap();
        append(&mut log, vec![membership_entry(6, &[1, 2, 3])]).await;
    }
}

fn membership_entry(index: u64, ids: &[u64]) -> Entry {
    let nodes: BTreeMap<u64, Member> = ids.iter().map(|id| (*id, Member::default())).collect();
    let membership = crate::types::RaftMembership::new(vec![ids.iter().copied().collect()], nodes);
    Entry {
        log_id: convert::log_id(&Position::new(3, 1, index)),
        payload: EntryPayload::Membership(membership.unwrap()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i16_the_offline_reader_tells_all_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    busy_node(dir.path()).await;
    let before = image(dir.path());
    let node = OfflineNode::open(dir.path()).unwrap();
    assert_eq!(node.identity.as_ref().unwrap().node_id, 1);
    assert_eq!(node.in_use, None);
    assert_eq!(
        node.all_findings().count(),
        0,
        "{:?}",
        node.all_findings().collect::<Vec<_>>()
    );
    assert_eq!(node.groups.len(), 2);
    for group in &node.groups {
        let at = |index| Some(Position::new(3, 1, index));
        assert_eq!(
            (group.purged, group.first, group.last),
            (at(2), at(3), at(6))
        );
        assert_eq!((group.committed, group.applied), (at(5), at(5)));
        let vote = group.vote.unwrap();
        assert_eq!((vote.term, vote.node, vote.committed), (3, 1, true));
        // In effect is the last one appended; applied is the one before.
        assert_eq!(group.membership.position, at(6));
        assert_eq!(group.membership.voters, [[1, 2, 3].into()]);
        let state = group.state.as_ref().unwrap();
        assert_eq!(state.membership().position, at(1));
        let (hash, records) = state.rehash().unwrap();
        assert_eq!(Some(hash), group.state_hash);
        assert!(records > 5);
        assert_eq!(indexes(group), [3, 4, 5, 6]);
        assert_eq!(group.entries(4..6).count(), 2);
        assert_eq!(group.entries(7..).count(), 0);
    }
    drop(node);
    assert_eq!(image(dir.path()), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i16_a_directory_without_any_right_to_write_is_read() {
    let dir = tempfile::tempdir().unwrap();
    busy_node(dir.path()).await;
    let set = |mode_dir: u32, mode_file: u32| {
        for path in image(dir.path()).into_keys() {
            let mode = if path.is_dir() { mode_dir } else { mode_file };
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    set(0o500, 0o400);
    let before = image(dir.path());
    let node = OfflineNode::open(dir.path()).unwrap();
    assert_eq!(node.all_findings().count(), 0);
    assert!(node.groups[0].state.as_ref().unwrap().rehash().is_ok());
    drop(node);
    let after = image(dir.path());
    set(0o700, 0o600);
    assert_eq!(after, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_runs_is_named() {
    let dir = tempfile::tempdir().unwrap();
    busy_node(dir.path()).await;
    let data = DataDir::open(dir.path()).unwrap();
    let node = OfflineNode::open(dir.path()).unwrap();
    let holder = node.in_use.unwrap().holder;
    assert_eq!(holder, format!("process {}", std::process::id()));
    assert_eq!(node.findings[0].code, codes::DIR_IN_USE);
    drop(data);
    // The reader has let go of it: the node can start.
    let node = OfflineNode::open(dir.path()).unwrap();
    assert_eq!(node.in_use, None);
    DataDir::open(dir.path()).unwrap();
    drop(node);
}

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

    #[test]
    fn the_reader_agrees_with_the_state(values in prop::collection::vec((0..12u8, 0..3u8, 0..900usize), 1..40)) {
        let mut r = Replica::new();
        r.log.begin_if_empty();
        for (n, (key, kind, size)) in values.into_iter().enumerate() {
            let key = format!("k{key}");
            drop(match kind {
                0 => r.op(delete("a", &key)),
                1 => r.op(create(&format!("a/n{size}"))),
                _ => r.op(put("a", &key, &"v".repeat(size))),
            });
            if n % 7 == 3 {
                r.state.flush_durable().unwrap();
            }
        }
        r.state.flush_durable().unwrap();
        // As a crash leaves it: the database was not closed.
        let crashed = tempfile::tempdir().unwrap();
        copy_dir(r.dir.path(), crashed.path());
        let before = image(crashed.path());
        let group = only_group(crashed.path());
        let state = group.state.as_ref().unwrap();
        prop_assert_eq!(state.applied(), r.state.applied());
        prop_assert_eq!(state.hash(), r.state.stats().state_hash);
        let (hash, count) = state.rehash().unwrap();
        prop_assert_eq!((hash, count), (state.hash(), r.state.count_records().unwrap()));
        for item in r.state.list_entries("a", None, 100).unwrap() {
            let key = crate::keys::entry("a", &item.key);
            prop_assert_eq!(state.record(&key).unwrap(), Some(item.record));
        }
        drop(group);
        prop_assert_eq!(image(crashed.path()), before);
    }
}

#[test]
fn d07_flipped_bits_in_the_state_are_told_and_nothing_panics() {
    let mut r = Replica::new();
    r.log.begin_if_empty();
    for n in 0..50 {
        r.op(put("a", &format!("k{n}"), &"v".repeat(2000)));
    }
    r.state.flush_durable().unwrap();
    let image_dir = tempfile::tempdir().unwrap();
    copy_dir(r.dir.path(), image_dir.path());
    let file = paths(image_dir.path(), &GroupId::config(0)).state();
    let whole = std::fs::read(&file).unwrap();
    let (mut told, mut differs) = (0, 0);
    for round in 0..160usize {
        // The first page is redb's own; the others at random.
        let at = if round < 40 {
            round * 8
        } else {
            (round * 7919 * 131) % whole.len()
        };
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (round % 8);
        std::fs::write(&file, &bytes).unwrap();
        let looked = catch_unwind(AssertUnwindSafe(|| {
            let group = only_group(image_dir.path());
            match group.state.as_ref().map(|state| state.rehash()) {
                None | Some(Err(_)) => (1, 0),
                Some(Ok((hash, _))) if Some(hash) != group.state_hash => (0, 1),
                Some(Ok(_)) => (0, 0),
            }
        }));
        let (t, d) = looked.expect("no panic leaves the reader");
        told += t;
        differs += d;
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "byte {at}");
    }
    assert!(differs > 20, "{differs} of {told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_belong_together_is_told() {
    let dir = tempfile::tempdir().unwrap();
    busy_node(dir.path()).await;
    let group = paths(dir.path(), &GroupId::config(0));
    let codes_of = |dir: &Path| {
        let node = OfflineNode::open(dir).unwrap();
        let mut all: Vec<_> = node.all_findings().map(|f| f.code).collect();
        all.sort_unstable();
        all
    };
    let changed = |change: &dyn Fn(&Path)| {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        change(copy.path());
        codes_of(copy.path())
    };
    let inside = |copy: &Path, path: &Path| copy.join(path.strip_prefix(dir.path()).unwrap());
    assert_eq!(codes_of(dir.path()), Vec::<&str>::new());
    assert_eq!(
        changed(&|copy| std::fs::remove_dir_all(inside(copy, &group.log())).unwrap()),
        [codes::VOTE_MISSING]
    );
    assert_eq!(
        changed(&|copy| std::fs::remove_file(inside(copy, &group.state())).unwrap()),
        [codes::STATE_MISSING]
    );
    assert_eq!(
        changed(&|copy| std::fs::remove_dir_all(inside(copy, group.dir())).unwrap()),
        [codes::GROUP_MISSING]
    );
    assert_eq!(
        changed(&|copy| std::fs::remove_file(copy.join("identity")).unwrap()),
        [codes::IDENTITY_MISSING]
    );
    assert_eq!(
        changed(&|copy| std::fs::write(copy.join("identity"), b"noise").unwrap()),
        [codes::IDENTITY_DAMAGED]
    );
    assert_eq!(
        changed(&|copy| {
            let meta = paths(copy, &GroupId::meta());
            std::fs::copy(meta.state(), paths(copy, &GroupId::config(0)).state()).unwrap();
        }),
        [codes::DIR_FOREIGN]
    );
    assert_eq!(
        changed(&|copy| {
            std::fs::write(copy.join("identity.new"), b"").unwrap();
            std::fs::write(copy.join("groups/readme"), b"").unwrap();
            std::os::unix::fs::symlink("/etc", copy.join("link")).unwrap();
            std::fs::write(inside(copy, &group.log()).join("core"), b"").unwrap();
        }),
        [
            codes::DIR_FOREIGN,
            codes::DIR_LEFTOVER,
            codes::DIR_UNKNOWN_FILE,
            codes::DIR_UNKNOWN_FILE
        ]
    );
    // Neither a link is followed nor a pipe waited for.
    assert_eq!(
        changed(&|copy| {
            let state = inside(copy, &group.state());
            std::fs::rename(&state, copy.join("tmp/state")).unwrap();
            std::os::unix::fs::symlink(copy.join("tmp/state"), &state).unwrap();
            let identity = copy.join("identity");
            std::fs::remove_file(&identity).unwrap();
            rustix::fs::mknodat(
                rustix::fs::CWD,
                &identity,
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::RUSR,
                0,
            )
            .unwrap();
        }),
        [codes::DIR_FOREIGN, codes::DIR_FOREIGN, codes::DIR_FOREIGN]
    );
    assert!(OfflineNode::open(&dir.path().join("nowhere")).is_err());
}
