//! What a group knows of its snapshots, and what a replica shows to openraft.

use confman_snapshot::model::{GroupId, Membership, MembershipMessage, NodeInfo, Position};
use confman_snapshot::{SnapshotId, SnapshotRecord};
use openraft::RaftSnapshotBuilder;
use openraft::storage::{RaftLogStorage, RaftStateMachine};

use super::kit::*;
use crate::command::*;
use crate::convert;
use crate::error::StoreError;
use crate::snapshot::SnapshotHandle;

/// The record of a snapshot of what `r` has applied now.
pub(super) fn record_of(r: &Replica, nonce: u32) -> SnapshotRecord {
    let view = r.state.open_view(0).unwrap();
    let id = SnapshotId::new(view.info.position, 1, nonce);
    SnapshotRecord {
        id,
        group: GroupId::config(0),
        cluster_uuid: UUID.to_owned(),
        incarnation: 1,
        position: view.info.position,
        object: confman_snapshot::paths::snapshot(&GroupId::config(0), &id),
        object_bytes: 1,
        manifest_blake3: vec![0; 32],
        state_hash: view.info.state_hash.digest().to_vec(),
        records: 1,
        raw_bytes: 1,
        created_us: 1,
        codec: 0,
        builder_node: 1,
        took_us: 1,
    }
}

pub(super) fn membership() -> MembershipMessage {
    let membership = Membership {
        position: Some(Position::new(1, 1, 1)),
        voters: vec![[1, 2].into()],
        nodes: [(1, NodeInfo::default()), (2, NodeInfo::default())].into(),
    };
    membership.into()
}

pub(super) fn verified(record: &SnapshotRecord) -> Op {
    Op::SnapshotVerified(SnapshotVerified {
        record: Some(record.clone()),
        membership: Some(membership()),
    })
}

fn ids(records: &[&SnapshotRecord]) -> SnapshotIds {
    SnapshotIds {
        ids: records.iter().map(|r| r.id.to_string()).collect(),
    }
}

/// However many snapshots were forgotten since, a change below them is still one.
#[test]
fn what_users_changed_since_the_last_snapshot_is_known_exactly() {
    let changed = |r: &Replica| r.state.changed_since_snapshot().unwrap();
    let mut r = Replica::new();
    assert!(changed(&r), "nothing is recorded");
    r.op(put("a", "k", "1"));
    let old: Vec<_> = (0..25).map(|nonce| record_of(&r, nonce)).collect();
    for record in &old {
        r.op(verified(record));
    }
    let newest = record_of(&r, 99);
    r.op(verified(&newest));
    assert!(!changed(&r), "only snapshots were recorded since");
    r.op(put_if("a", "k", "x", Some(Precondition::version_is(7))));
    r.op(delete("a", "missing"));
    assert!(!changed(&r), "two refusals");

    r.op(put("a", "k", "2"));
    assert!(changed(&r));
    let old: Vec<_> = old.iter().collect();
    r.op(Op::SnapshotsMarked(ids(&old)));
    r.op(Op::SnapshotsDeleted(ids(&old)));
    let page = r.state.list_audit(&Default::default(), None, 25).unwrap();
    let hidden = page
        .items
        .iter()
        .all(|e| e.record.action == "snapshot.deleted");
    assert!(hidden, "the put is the 26th from the end");
    assert!(changed(&r));
    let after = record_of(&r, 100);
    r.op(verified(&after));
    assert!(!changed(&r));
}

#[test]
fn the_oldest_change_that_no_snapshot_holds_is_known_by_its_time() {
    let since = |r: &Replica| r.state.unprotected_since_us().unwrap();
    let changed = |r: &Replica| r.state.changed_since_snapshot().unwrap();
    let mut r = Replica::new();
    assert_eq!(since(&r), None, "nothing has ever been written");
    r.op(put("a", "k", "1"));
    let first = r.state.last_time_us();
    r.op(put("a", "k", "2"));
    assert_eq!(since(&r), Some(first), "no snapshot holds the first");

    let record = record_of(&r, 7);
    r.op(put("a", "k", "3"));
    let third = r.state.last_time_us();
    r.op(put("a", "k", "4"));
    r.op(verified(&record));
    assert_eq!(since(&r), Some(third), "made while the snapshot was");
    let record = record_of(&r, 8);
    r.op(verified(&record));
    // What snapshots write of themselves, and a refusal.
    r.op(delete("a", "missing"));
    assert_eq!((since(&r), changed(&r)), (None, false));
    r.op(delete("a", "k"));
    let last = r.state.last_time_us();
    r.op(put("a", "other", "5"));
    assert_eq!((since(&r), changed(&r)), (Some(last), true));
    r.assert_hash();
}

#[test]
fn snapshots_are_recorded_marked_and_forgotten() {
    let mut r = Replica::new();
    r.op(put("a", "k", "1"));
    r.op(put("a", "k", "2"));
    let first = record_of(&r, 7);
    r.op(put("a", "k", "3"));
    assert!(r.state.stats().bytes_since_snapshot > 0);
    assert_eq!(r.state.stats().entries_since_snapshot, 3);
    assert_eq!(tell(&r.op(verified(&first))), "recorded");
    assert_eq!(tell(&r.op(verified(&first))), "recorded");
    let stats = r.state.stats();
    assert_eq!(stats.last_snapshot.as_ref(), Some(&first));
    assert_eq!(
        stats.entries_since_snapshot, 3,
        "what came after its position counts"
    );
    let second = record_of(&r, 3);
    r.op(verified(&second));
    assert_eq!(
        r.state
            .snapshots()
            .unwrap()
            .iter()
            .map(|s| s.record.id)
            .collect::<Vec<_>>(),
        [second.id, first.id]
    );

    let outcome = r.op(Op::SnapshotsDeleted(ids(&[&first])));
    assert_eq!(outcome.as_refused().unwrap().code(), RefusalCode::Conflict);
    r.op(Op::SnapshotsMarked(ids(&[&first])));
    assert!(r.state.snapshots().unwrap()[1].marked_us.is_some());
    r.op(Op::SnapshotsDeleted(ids(&[&first])));
    r.op(Op::SnapshotsDeleted(ids(&[&first])));
    assert_eq!(r.state.snapshots().unwrap().len(), 1);
    let page = r.state.list_audit(&Default::default(), None, 100).unwrap();
    let actions: Vec<&str> = page
        .items
        .iter()
        .map(|e| e.record.action.as_str())
        .collect();
    assert_eq!(
        actions,
        [
            "snapshot.deleted",
            "snapshot.verified",
            "snapshot.verified",
            "put",
            "put",
            "put"
        ]
    );
    // The newest that is not marked is the last.
    r.op(Op::SnapshotsMarked(ids(&[&second])));
    assert_eq!(r.state.stats().last_snapshot, None);
    r.assert_hash();
}

#[test]
fn records_that_cannot_be_are_refused() {
    let mut r = Replica::new();
    r.op(put("a", "k", "1"));
    let good = record_of(&r, 1);
    let strange = [
        SnapshotRecord {
            group: GroupId::config(1),
            ..good.clone()
        },
        SnapshotRecord {
            object: "elsewhere".to_owned(),
            ..good.clone()
        },
        SnapshotRecord {
            state_hash: vec![],
            ..good.clone()
        },
        SnapshotRecord {
            position: Position::new(3, 1, 99),
            id: SnapshotId {
                index: 99,
                ..good.id
            },
            ..good.clone()
        },
    ];
    for record in strange {
        assert_eq!(
            r.op(verified(&record)).as_refused().unwrap().code(),
            RefusalCode::Invalid,
            "{record:?}"
        );
    }
    let bare = Op::SnapshotVerified(SnapshotVerified {
        record: Some(good),
        membership: None,
    });
    assert!(r.op(bare).as_refused().is_some());
    assert!(r.state.snapshots().unwrap().is_empty());
}

#[test]
fn i2_a_replica_that_differed_is_refused_at_every_start_until_it_is_set_aside() {
    let mut r = Replica::new();
    r.op(put("a", "k", "1"));
    let group = GroupId::config(0);
    let bad = SnapshotRecord {
        state_hash: vec![9; 32],
        ..record_of(&r, 1)
    };
    let found = r.state.hash_at(1).unwrap();
    let entries = vec![entry(r.next, command(1, verified(&bad)))];
    r.machine.apply_now(entries).unwrap_err();
    r.log.begin_if_empty();
    let Replica {
        dir,
        machine,
        state,
        log,
        ..
    } = r;
    drop((machine, state, log));
    let files = paths(dir.path(), &group);
    let finding = crate::diverged::read(&files).unwrap().unwrap();
    assert_eq!(
        (finding.index, finding.snapshot.as_str()),
        (1, bad.id.to_string().as_str())
    );
    for _ in 0..2 {
        let error = open_group(dir.path(), &group).unwrap_err();
        assert!(matches!(error, StoreError::Diverged(_)), "{error}");
        let text = error.to_string();
        for word in [
            found.to_string(),
            "09".repeat(32),
            bad.id.to_string(),
            "hint: ".to_owned(),
        ] {
            assert!(text.contains(&word), "{word} is not in: {text}");
        }
    }
    // A finding that cannot be read is a finding all the same.
    let mut bytes = std::fs::read(files.diverged()).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(files.diverged(), bytes).unwrap();
    let error = open_group(dir.path(), &group).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[test]
fn i2_a_replica_that_differs_from_the_recorded_state_stops_and_says_so() {
    let mut r = Replica::new();
    r.op(put("a", "k", "1"));
    let good = record_of(&r, 1);
    let bad = SnapshotRecord {
        state_hash: vec![9; 32],
        ..good.clone()
    };
    // In the same batch as the position that it is about, and later.
    for between in [0, 5] {
        for _ in 0..between {
            r.op(put("a", "k", "2"));
        }
        let entries = vec![entry(r.next, command(1, verified(&bad)))];
        let before = r.state.stats();
        let error = r.machine.apply_now(entries).unwrap_err();
        assert!(
            matches!(&error, StoreError::StateMismatch(m) if m.index == 1),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .contains("state hash mismatch in config/0 at index 1"),
            "{error}"
        );
        assert_eq!(r.state.stats(), before, "nothing of the entry is applied");
    }
    // The right one is fine, and one that is older than what the replica remembers is believed.
    r.op(verified(&good));
    std::fs::remove_file(paths(r.dir.path(), &GroupId::config(0)).diverged()).unwrap();
    let mut r = r.reopen();
    let unknown = SnapshotRecord {
        id: SnapshotId {
            nonce: 5,
            ..good.id
        },
        ..bad
    };
    let unknown = SnapshotRecord {
        object: confman_snapshot::paths::snapshot(&GroupId::config(0), &unknown.id),
        ..unknown
    };
    assert_eq!(tell(&r.op(verified(&unknown))), "recorded");
}

#[tokio::test]
async fn the_recorded_snapshot_is_shown_to_openraft_as_its_own() {
    let mut r = Replica::new();
    r.op(put("a", "k", "1"));
    let record = record_of(&r, 1);
    assert!(r.machine.get_current_snapshot().await.unwrap().is_none());
    r.op(verified(&record));
    for _ in 0..2 {
        let current = r.machine.get_current_snapshot().await.unwrap().unwrap();
        assert_eq!(
            current.meta.last_log_id,
            Some(convert::log_id(&record.position))
        );
        assert_eq!(
            convert::membership(&current.meta.last_membership),
            membership().into()
        );
        assert!(matches!(&current.snapshot, SnapshotHandle::Recorded(found) if *found == record));
        let built = r
            .machine
            .get_snapshot_builder()
            .await
            .build_snapshot()
            .await
            .unwrap();
        assert_eq!(built.meta, current.meta);
        r = r.reopen();
    }
}

#[tokio::test]
async fn a_local_snapshot_is_built_when_it_is_preferred_and_deleted_with_its_last_handle() {
    let mut r = Replica::new();
    r.op(put("a", "k", "1"));
    let record = record_of(&r, 1);
    r.op(verified(&record));
    r.machine.control().prefer_local(true);
    let built = r
        .machine
        .get_snapshot_builder()
        .await
        .build_snapshot()
        .await
        .unwrap();
    let SnapshotHandle::Local(local) = &built.snapshot else {
        panic!("{:?}", built.snapshot)
    };
    let path = local.path().to_owned();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), local.file_bytes());
    assert_eq!(built.meta.last_log_id.unwrap().index, 2);
    assert_eq!(local.manifest().state_digest(), r.state.stats().state_hash);
    let current = r.machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.meta, built.meta);
    drop((current, built));
    assert!(path.exists(), "the replica still shows it");
    r.machine.control().prefer_local(false);
    let built = r
        .machine
        .get_snapshot_builder()
        .await
        .build_snapshot()
        .await
        .unwrap();
    assert!(matches!(built.snapshot, SnapshotHandle::Recorded(_)));
    assert!(!path.exists());
}

#[tokio::test]
async fn a_recorded_snapshot_behind_the_purged_log_is_not_shown() {
    let mut r = Replica::new();
    r.op(put("a", "k", "1"));
    let record = record_of(&r, 1);
    r.op(verified(&record));
    r.op(put("a", "k", "2"));
    // As after an installation from a peer: the log begins later than the newest recorded snapshot reaches.
    let purged = r.state.applied().unwrap();
    r.log.purge(convert::log_id(&purged)).await.unwrap();
    let current = r.machine.get_current_snapshot().await.unwrap().unwrap();
    assert!(matches!(current.snapshot, SnapshotHandle::Local(_)));
    assert_eq!(current.meta.last_log_id, Some(convert::log_id(&purged)));
}
