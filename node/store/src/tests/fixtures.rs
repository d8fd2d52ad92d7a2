//! What version 1 wrote is read for ever, and its commands make the records that they made then.
//!
//! The files are written once, by running these tests with `CONFMAN_STORE_WRITE_FIXTURES` set, and never again: a new
//! version gets a directory of its own.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use confman_snapshot::Digest;
use confman_snapshot::model::{GroupId, NodeInfo, Position};
use confman_snapshot::{SnapshotId, SnapshotRecord};
use openraft::storage::{RaftLogReader, RaftLogStorage};

use super::kit::*;
use super::purge::{append, copy_dir};
use super::snapshots::membership;
use crate::command::*;
use crate::datadir::{DataDir, Identity, IdentityState, MemberAtBirth};
use crate::log::LogStore;
use crate::membership::*;
use crate::records::*;
use crate::types::{Entry, EntryPayload, Vote};
use crate::wire;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1")
}

/// The content of a fixture, written first when that is asked for.
fn fixture(name: &str, made: &str) -> String {
    let path = fixtures().join(name);
    if std::env::var_os("CONFMAN_STORE_WRITE_FIXTURES").is_some() {
        std::fs::create_dir_all(fixtures()).unwrap();
        std::fs::write(&path, made).unwrap();
    }
    std::fs::read_to_string(path).unwrap()
}

fn snapshot_record(group: &GroupId) -> SnapshotRecord {
    let position = Position::new(3, 1, 2);
    let id = SnapshotId::new(position, 1, 0xabcd);
    SnapshotRecord {
        id,
        group: group.clone(),
        cluster_uuid: UUID.to_owned(),
        incarnation: 1,
        position,
        object: confman_snapshot::paths::snapshot(group, &id),
        object_bytes: 1234,
        manifest_blake3: vec![1; 32],
        // What this story has made by then: a replica compares.
        state_hash: hex::decode("31299af0d85785c5e3d0a2300b3353ebbcc10cdc2c6381743084e5fe560b709e")
            .unwrap(),
        records: 10,
        raw_bytes: 999,
        created_us: 5,
        codec: 2,
        builder_node: 2,
        took_us: 77,
    }
}

/// Every kind of command, with every field in use somewhere.
fn config_story() -> Vec<Op> {
    let record = snapshot_record(&GroupId::config(0));
    let ids = SnapshotIds {
        ids: vec![record.id.to_string()],
    };
    let Op::Put(mut skipped) = put("app/db", "url", "two") else {
        unreachable!()
    };
    skipped.skip_unchanged = true;
    skipped.value_type = ValueType::Json.into();
    let Op::Delete(mut careful) = delete("app/db", "url") else {
        unreachable!()
    };
    careful.precondition = Some(Precondition::version_is(2));
    vec![
        put("app/db", "url", "one"),
        put_if("app/db", "url", "two", Some(Precondition::exists())),
        Op::Put(skipped),
        put_if("app/db", "user", "me", Some(Precondition::absent())),
        Op::Delete(careful),
        create("other"),
        stage(1, 0, b"a staged value"),
        put_staged("other", "big", 1, b"a staged value"),
        stage(2, 0, b"never committed"),
        verified_op(record),
        Op::SnapshotsMarked(ids),
        drop_namespace("app"),
    ]
}

fn verified_op(record: SnapshotRecord) -> Op {
    Op::SnapshotVerified(SnapshotVerified {
        record: Some(record),
        membership: Some(membership()),
    })
}

fn meta_story() -> Vec<Op> {
    let node = |id: u64| NodeRecord {
        id,
        name: format!("node{id}"),
        peer_addr: format!("h{id}:1"),
        ..Default::default()
    };
    let task = SnapshotTask {
        task_id: "t1".to_owned(),
        group: "config/0".to_owned(),
        node: 2,
        requested_us: 5,
        deadline_us: 6,
        reason: "entries".to_owned(),
    };
    let admit = AdmitNode {
        name: "node2".to_owned(),
        api_url: "http://h2:1".to_owned(),
        peer_addr: "h2:1".to_owned(),
        replaces: Some(2),
        nonce: "n".to_owned(),
    };
    vec![
        Op::Genesis(Genesis {
            cluster_uuid: UUID.to_owned(),
            incarnation: 1,
            shards: 2,
            nodes: vec![node(1), node(2)],
        }),
        Op::AdmitNode(admit),
        Op::ActivateNode(ActivateNode { id: 3 }),
        Op::UpdateNode(UpdateNode {
            id: 1,
            api_url: "http://h9".to_owned(),
            peer_addr: "h9:1".to_owned(),
        }),
        Op::AssignSnapshot(SnapshotTask {
            task_id: "t0".to_owned(),
            group: "config/1".to_owned(),
            ..task.clone()
        }),
        Op::AssignSnapshot(task),
        Op::FinishSnapshotTask(FinishSnapshotTask {
            task_id: "t1".to_owned(),
            error: Some("away".to_owned()),
        }),
    ]
}

/// Wishes about members, beside the commands of [`meta_story`].
fn members_story() -> Vec<Op> {
    let change = |id: &str, kind: ChangeKind, name: &str, node_id: u64| ChangeRecord {
        id: id.to_owned(),
        kind: kind.into(),
        name: name.to_owned(),
        node_id,
        ..Default::default()
    };
    let expect = |name: &str, change: Option<ChangeRecord>| {
        Op::ExpectNode(ExpectNode {
            record: Some(ExpectedRecord {
                name: name.to_owned(),
                peer_addr: format!("{name}:1"),
                api_url: format!("http://{name}"),
                learner_only: true,
                ..Default::default()
            }),
            change,
            registry: 0,
        })
    };
    let begin = |change| {
        Op::BeginChange(BeginChange {
            change: Some(change),
            registry: 0,
        })
    };
    let end = |id: &str, error: Option<&str>| {
        Op::EndChange(EndChange {
            id: id.to_owned(),
            error: error.map(str::to_owned),
        })
    };
    let replace = ChangeRecord {
        old_name: "node1".to_owned(),
        old_id: 1,
        ..change("c4", ChangeKind::Replace, "node3", 3)
    };
    let transfer = ChangeRecord {
        group: "config/0".to_owned(),
        ..change("c5", ChangeKind::Transfer, "node2", 2)
    };
    let mut story: Vec<Op> = meta_story().into_iter().take(1).collect();
    story.extend([
        expect("stranger", None),
        Op::ForgetNode(ForgetNode {
            name: "stranger".to_owned(),
            registry: 0,
        }),
        expect("node3", Some(change("c1", ChangeKind::Add, "node3", 0))),
        Op::AdmitNode(AdmitNode {
            name: "node3".to_owned(),
            api_url: "http://node3".to_owned(),
            peer_addr: "node3:1".to_owned(),
            replaces: None,
            nonce: "n3".to_owned(),
        }),
        Op::ActivateNode(ActivateNode { id: 3 }),
        end("c1", None),
        begin(change("c2", ChangeKind::Promote, "node3", 3)),
        begin(change("c3", ChangeKind::Demote, "node3", 3)),
        end("c3", None),
        begin(replace),
        end("c4", None),
        begin(transfer),
        end("c5", Some("not in time")),
        begin(change("c6", ChangeKind::Remove, "node2", 2)),
    ]);
    story
}

fn entries_of(story: Vec<Op>) -> Vec<Entry> {
    let mut now = 1_700_000_000 * SECOND;
    story
        .into_iter()
        .enumerate()
        .map(|(n, op)| {
            now += SECOND;
            let mut command = command(now, op);
            if n % 2 == 0 {
                command.idempotency_key = format!("i{n}");
                command.fingerprint = Bytes::from_static(b"fingerprint");
            }
            entry(n as u64 + 1, command)
        })
        .collect()
}

#[test]
fn commands_of_version_1_are_read_and_do_what_they_did() {
    for (name, group, story) in [
        ("config", GroupId::config(0), config_story()),
        ("meta", GroupId::meta(), meta_story()),
        ("members", GroupId::meta(), members_story()),
    ] {
        let entries = entries_of(story);
        let mut lines = String::new();
        for entry in &entries {
            writeln!(lines, "{}", hex::encode(wire::encode_entry(entry.clone()))).unwrap();
        }
        let written = fixture(&format!("{name}.entries"), &lines);
        let read: Vec<Entry> = written
            .lines()
            .map(|l| wire::decode_entry(hex::decode(l).unwrap().into()).unwrap())
            .collect();
        assert_eq!(read, entries, "entries are read as other ones");

        let r = Replica::of(&group);
        r.machine.apply_now(read).unwrap();
        let mut lines = format!("{}\n", r.state.stats().state_hash);
        for record in r.state.open_view(1).unwrap().records {
            let (key, value) = record.unwrap();
            writeln!(lines, "{} {}", hex::encode(key), hex::encode(value)).unwrap();
        }
        let written = fixture(&format!("{name}.records"), &lines);
        for (now, then) in lines.lines().zip(written.lines()) {
            assert_eq!(
                now, then,
                "{name}: a replica of version 1 would have another state"
            );
        }
        assert_eq!(lines, written);
    }
}

fn identity() -> Identity {
    let info = NodeInfo {
        name: "node1".to_owned(),
        api_url: "http://h1:1".to_owned(),
        peer_addr: "h1:2".to_owned(),
    };
    Identity {
        cluster_uuid: UUID.to_owned(),
        incarnation: 3,
        node_id: 4,
        name: "node1".to_owned(),
        shards: 2,
        members: vec![MemberAtBirth {
            id: 1,
            info: Some(info),
        }],
        state: IdentityState::Fenced.into(),
        reason: "a newer life".to_owned(),
        created_us: 17,
        lineage: String::new(),
        incarnation_floor: 0,
    }
}

#[test]
fn a_finding_of_version_1_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let files = paths(dir.path(), &GroupId::config(0));
    std::fs::create_dir_all(files.dir()).unwrap();
    let mismatch = crate::error::StateMismatch {
        group: GroupId::config(0),
        index: 7,
        found: crate::apply::Remembered::Whole(Digest::from_slice(&[1; 32]).unwrap()),
        recorded: Digest::from_slice(&[2; 32]).unwrap(),
        snapshot: snapshot_record(&GroupId::config(0)).id.to_string(),
    };
    crate::diverged::write(&files, &mismatch).unwrap();
    let made = hex::encode(std::fs::read(files.diverged()).unwrap());
    let kept = fixture("diverged.hex", &made);
    std::fs::write(files.diverged(), hex::decode(kept.trim()).unwrap()).unwrap();
    let finding = crate::diverged::read(&files).unwrap().unwrap();
    assert_eq!(finding.group, "config/0");
    assert_eq!(finding.index, 7);
    assert_eq!(
        (finding.found, finding.recorded),
        (vec![1; 32], vec![2; 32])
    );
    assert_eq!(finding.snapshot, mismatch.snapshot);
    assert!(finding.time_us > 0);
}

#[test]
fn an_identity_of_version_1_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::open(dir.path()).unwrap();
    data.write_identity(&identity()).unwrap();
    let made = hex::encode(std::fs::read(data.paths().identity()).unwrap());
    let written = fixture("identity.hex", &made);
    std::fs::write(data.paths().identity(), hex::decode(written).unwrap()).unwrap();
    assert_eq!(data.read_identity().unwrap(), Some(identity()));
}

#[test]
fn a_claim_of_version_1_is_read_and_is_set_aside_with_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::open(dir.path()).unwrap();
    let claim = crate::datadir::Claim {
        plan_id: "6a1e1f0a-0000-4000-8000-000000000000".to_owned(),
        nonce: "abc".to_owned(),
    };
    assert_eq!(data.read_claim().unwrap(), None);
    data.write_claim(&claim).unwrap();
    let made = hex::encode(std::fs::read(data.paths().claim()).unwrap());
    let written = fixture("claim.hex", &made);
    std::fs::write(data.paths().claim(), hex::decode(written).unwrap()).unwrap();
    assert_eq!(data.read_claim().unwrap(), Some(claim));
    data.set_aside("another order", 1).unwrap();
    assert_eq!(data.read_claim().unwrap(), None);
}

#[test]
fn promises_of_version_1_are_read_and_damage_is_told() {
    use crate::promises::{self, GroupPromise, NodePromises, Promises};
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::open(dir.path()).unwrap();
    let kept = Promises {
        cluster_uuid: UUID.to_owned(),
        incarnation: 2,
        lineage: "plan".to_owned(),
        nodes: vec![NodePromises {
            id: 3,
            boot: u64::MAX,
            groups: vec![GroupPromise {
                group: "config/0".to_owned(),
                voted: 5,
                acked_term: 4,
                acked_end: 10,
                kept_end: 8,
            }],
        }],
    };
    assert_eq!(promises::read(data.paths()).unwrap(), None);
    promises::write(data.paths(), &kept).unwrap();
    let path = data.paths().promises();
    let made = hex::encode(std::fs::read(&path).unwrap());
    let mut written = hex::decode(fixture("promises.hex", &made)).unwrap();
    std::fs::write(&path, &written).unwrap();
    assert_eq!(promises::read(data.paths()).unwrap(), Some(kept));
    *written.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &written).unwrap();
    assert!(promises::read(data.paths()).is_err());
    data.set_aside("why", 1).unwrap();
    assert_eq!(promises::read(data.paths()).unwrap(), None);
}

#[tokio::test]
async fn a_log_of_version_1_is_read() {
    let kept = fixtures().join("log");
    let vote = Vote::new_committed(3, 1);
    let mut entries = entries_of(config_story());
    entries[1].payload = EntryPayload::Blank;
    let message = membership();
    entries[2].payload =
        EntryPayload::Membership(crate::convert::raft_membership(message).unwrap());
    if std::env::var_os("CONFMAN_STORE_WRITE_FIXTURES").is_some() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogStore::open(dir.path(), 1 << 20, None, "config/0".to_owned()).unwrap();
        log.save_vote(&Vote::new(2, 2)).await.unwrap();
        append(&mut log, entries.clone()).await;
        log.truncate_after(Some(entries[8].log_id)).await.unwrap();
        append(&mut log, entries[9..].to_vec()).await;
        log.save_committed(Some(entries[5].log_id)).await.unwrap();
        log.purge(entries[0].log_id).await.unwrap();
        log.save_vote(&vote).await.unwrap();
        drop(log);
        std::fs::remove_file(dir.path().join("LOCK")).unwrap();
        copy_dir(dir.path(), &kept);
    }
    let dir = tempfile::tempdir().unwrap();
    copy_dir(&kept, dir.path());
    let mut log = LogStore::open(dir.path(), 1 << 20, None, "config/0".to_owned()).unwrap();
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    assert_eq!(log.read_committed().await.unwrap(), Some(entries[5].log_id));
    assert_eq!(
        log.get_log_state().await.unwrap().last_purged_log_id,
        Some(entries[0].log_id)
    );
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), entries[1..]);
}
