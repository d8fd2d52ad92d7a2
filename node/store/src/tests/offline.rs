//! The offline reader: it tells what is there, names what is wrong, and changes nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use confman_snapshot::model::{GroupId, NodeInfo, Position};
use openraft::storage::RaftLogStorage;
use proptest::prelude::*;

use super::kit::*;
use super::purge::{append, copy_dir};
use crate::convert;
use crate::datadir::{DataDir, Identity, IdentityState, MemberAtBirth};
use crate::offline::{OfflineGroup, OfflineNode, codes};
use crate::types::{Entry, EntryPayload, Member, Vote};

/// Every file with its bytes, its time of change and its mode: what a reader must leave as it is.
pub(super) fn image(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, i64, i64, u32)> {
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
pub(super) fn as_group(log: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy_dir(log, &paths(dir.path(), &GroupId::config(0)).log());
    dir
}

pub(super) fn only_group(dir: &Path) -> OfflineGroup {
    let mut node = OfflineNode::open(dir).unwrap();
    assert_eq!(node.groups.len(), 1);
    node.groups.remove(0)
}

pub(super) fn found(group: &OfflineGroup) -> Vec<&'static str> {
    group.findings.iter().map(|finding| finding.code).collect()
}

pub(super) fn indexes(group: &OfflineGroup) -> Vec<u64> {
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

pub(super) fn membership_entry(index: u64, ids: &[u64]) -> Entry {
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

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
