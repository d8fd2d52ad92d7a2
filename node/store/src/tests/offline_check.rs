//! Reading every record offline: a sound state has no findings, whatever was done to it, and each thing that is changed
//! behind its back is found under its name.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use confman_snapshot::model::GroupId;
use proptest::prelude::*;
use prost::Message;
use redb::{Database, TableDefinition};

use super::kit::*;
use super::purge::{append, copy_dir};
use super::snapshots::{record_of, verified};
use crate::command::*;
use crate::datadir::{Identity, IdentityState};
use crate::keys;
use crate::offline::{OfflineNode, RecordsReport, codes};
use crate::records::*;

const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

fn identity(node_id: u64) -> Identity {
    Identity {
        cluster_uuid: UUID.to_owned(),
        incarnation: 1,
        node_id,
        name: format!("node{node_id}"),
        shards: 2,
        members: Vec::new(),
        state: IdentityState::Initialized.into(),
        reason: String::new(),
        created_us: 1,
        lineage: String::new(),
        incarnation_floor: 0,
    }
}

fn check(dir: &Path) -> RecordsReport {
    let node = OfflineNode::open(dir).unwrap();
    let [group] = &node.groups[..] else {
        panic!("one group");
    };
    group.check_records(Some(&identity(1)), |_| {}).unwrap()
}

fn found(report: &RecordsReport) -> BTreeSet<&'static str> {
    report.findings.iter().map(|f| f.code).collect()
}

/// The directory of a replica as a kill would leave it.
fn image(r: &Replica) -> tempfile::TempDir {
    r.state.flush_durable().unwrap();
    let copy = tempfile::tempdir().unwrap();
    copy_dir(r.dir.path(), copy.path());
    copy
}

/// A replica with something of every kind.
fn busy() -> Replica {
    let mut r = Replica::new();
    r.log.begin_if_empty();
    r.op(put("a", "k", "v1"));
    r.op(put("a", "k", "v2"));
    r.op(put("a/b/c", "gone", "x"));
    r.op(delete("a/b/c", "gone"));
    r.op(put("a-b", "k", "v"));
    r.op(create("a/empty"));
    r.once("key", "print", put("a", "once", "v"));
    let large = vec![7; PART_BYTES + 3];
    stage_all(1, &large)
        .into_iter()
        .for_each(|op| drop(r.op(op)));
    r.op(put_staged("a", "large", 1, &large));
    stage_all(2, &large)
        .into_iter()
        .for_each(|op| drop(r.op(op)));
    let snapshot = record_of(&r, 1);
    r.op(verified(&snapshot));
    r
}

#[test]
fn a_sound_state_has_no_findings() {
    let r = busy();
    let report = check(image(&r).path());
    assert_eq!(report.findings, []);
    assert_eq!(report.records, r.state.count_records().unwrap());
    assert_eq!(report.hash, Some(r.state.stats().state_hash));
    assert_eq!(report.kinds["entry"], 4);
    assert_eq!(report.kinds["audit event"], 9);
}

/// One change behind the state's back.
type Change = fn(&mut redb::Table<'_, &'static [u8], &'static [u8]>);

fn change<M: Message + Default>(
    table: &mut redb::Table<'_, &'static [u8], &'static [u8]>,
    key: &[u8],
    change: impl FnOnce(&mut M),
) {
    use redb::ReadableTable as _;
    let bytes = table.get(key).unwrap().unwrap().value().to_vec();
    let mut record = M::decode(bytes.as_slice()).unwrap();
    change(&mut record);
    table
        .insert(key, record.encode_to_vec().as_slice())
        .unwrap();
}

fn planted(dir: &Path, group: &GroupId, plant: Change) -> RecordsReport {
    let copy = tempfile::tempdir().unwrap();
    copy_dir(dir, copy.path());
    let database = Database::open(paths(copy.path(), group).state()).unwrap();
    let tx = database.begin_write().unwrap();
    plant(&mut tx.open_table(RECORDS).unwrap());
    tx.commit().unwrap();
    drop(database);
    check(copy.path())
}

fn audit(index: u64) -> Vec<u8> {
    keys::audit(AuditRef { index, sub: 0 })
}

#[test]
fn what_is_changed_behind_the_back_of_a_state_is_found() {
    let dir = image(&busy());
    let cases: &[(&str, &str, Change)] = &[
        ("a value", codes::RECORD_DAMAGED, |t| {
            change::<EntryRecord>(t, &keys::entry("a", "k"), |e| {
                e.content = Some(StoredContent::Inline(Bytes::from_static(b"v9")));
            });
        }),
        ("no record", codes::RECORD_DAMAGED, |t| {
            drop(t.insert(keys::entry("a", "k").as_slice(), b"\xff".as_slice()));
        }),
        ("a name", codes::RECORD_DAMAGED, |t| {
            drop(t.insert(keys::namespace("a/../b").as_slice(), b"".as_slice()));
        }),
        ("a part", codes::RECORD_DAMAGED, |t| {
            drop(t.remove(keys::part(&upload_id(1), 1).as_slice()));
        }),
        ("a part of other bytes", codes::RECORD_DAMAGED, |t| {
            drop(t.insert(keys::part(&upload_id(1), 1).as_slice(), b"xyz".as_slice()));
        }),
        ("an orphan part", codes::RECORDS_DISAGREE, |t| {
            drop(t.insert(keys::part(&upload_id(9), 0).as_slice(), b"xyz".as_slice()));
        }),
        ("a kind", codes::RECORD_UNKNOWN, |t| {
            drop(t.insert(b"\x7fnew".as_slice(), b"".as_slice()));
        }),
        ("an entry less", codes::RECORDS_DISAGREE, |t| {
            drop(t.remove(keys::entry("a", "k").as_slice()));
        }),
        ("the only entry less", codes::RECORDS_DISAGREE, |t| {
            drop(t.remove(keys::entry("a-b", "k").as_slice()));
        }),
        ("a namespace less", codes::RECORDS_DISAGREE, |t| {
            drop(t.remove(keys::namespace("a/b").as_slice()));
        }),
        ("a namespace more", codes::RECORDS_DISAGREE, |t| {
            let record = NamespaceRecord::default().encode_to_vec();
            drop(t.insert(keys::namespace("a/b/d").as_slice(), record.as_slice()));
        }),
        ("deleted and there", codes::RECORDS_DISAGREE, |t| {
            let record = TombstoneRecord::default().encode_to_vec();
            drop(t.insert(keys::tombstone("a", "k").as_slice(), record.as_slice()));
        }),
        ("an event less", codes::AUDIT_BROKEN, |t| {
            drop(t.remove(audit(1).as_slice()));
        }),
        ("the index less", codes::AUDIT_BROKEN, |t| {
            let at = AuditRef { index: 1, sub: 0 };
            drop(t.remove(keys::audit_by_namespace("a", at).as_slice()));
        }),
        ("the index more", codes::AUDIT_BROKEN, |t| {
            let at = AuditRef { index: 900, sub: 0 };
            drop(t.insert(keys::audit_by_namespace("a", at).as_slice(), b"".as_slice()));
        }),
        ("the future", codes::AUDIT_BROKEN, |t| {
            let event = AuditRecord::default().encode_to_vec();
            drop(t.insert(audit(900).as_slice(), event.as_slice()));
        }),
        ("a term", codes::AUDIT_BROKEN, |t| {
            change::<AuditRecord>(t, &audit(2), |e| e.term = 1);
        }),
        ("a clock", codes::AUDIT_BROKEN, |t| {
            change::<AuditRecord>(t, &audit(2), |e| e.time_us = 1);
        }),
        ("an old value", codes::AUDIT_BROKEN, |t| {
            change::<AuditRecord>(t, &audit(2), |e| e.old_hash = Bytes::from_static(b"x"));
        }),
        ("a version", codes::AUDIT_BROKEN, |t| {
            change::<AuditRecord>(t, &audit(2), |e| e.version = 3);
        }),
        ("a chain", codes::AUDIT_BROKEN, |t| {
            change::<AuditRecord>(t, &audit(2), |e| e.previous = None);
        }),
        ("an idempotency key", codes::RECORDS_DISAGREE, |t| {
            drop(t.remove(keys::idempotency("ann", "key").as_slice()));
        }),
        ("the order of it", codes::RECORDS_DISAGREE, |t| {
            drop(t.remove(keys::idempotency_order(7).as_slice()));
        }),
        ("a snapshot", codes::SNAPSHOT_RECORD_DAMAGED, |t| {
            drop(t.insert(keys::snapshot("x").as_slice(), b"".as_slice()));
        }),
        ("a cluster", codes::IDENTITY_DISAGREES, |t| {
            let record = ClusterRecord {
                uuid: UUID.replace('6', "7"),
                incarnation: 1,
                shards: 2,
                ..ClusterRecord::default()
            };
            drop(t.insert(
                keys::cluster().as_slice(),
                record.encode_to_vec().as_slice(),
            ));
        }),
        ("a life", codes::IDENTITY_DISAGREES, |t| {
            let record = IncarnationRecord {
                incarnation: 2,
                ..IncarnationRecord::default()
            };
            drop(t.insert(
                keys::incarnation().as_slice(),
                record.encode_to_vec().as_slice(),
            ));
        }),
    ];
    for (what, code, plant) in cases {
        let report = planted(dir.path(), &GroupId::config(0), *plant);
        let codes = found(&report);
        assert!(codes.contains(code), "{what}: {:?}", report.findings);
        // Whatever else it is: the hash that was kept up is not that of these records.
        assert!(codes.contains(codes::STATE_HASH_MISMATCH), "{what}");
    }
}

#[test]
fn what_the_cluster_says_of_its_nodes_is_checked() {
    let group = GroupId::meta();
    let mut r = Replica::of(&group);
    r.log.begin_if_empty();
    let nodes = (1..=2)
        .map(|id| NodeRecord {
            id,
            name: format!("node{id}"),
            ..NodeRecord::default()
        })
        .collect();
    r.op(Op::Genesis(Genesis {
        cluster_uuid: UUID.to_owned(),
        incarnation: 1,
        shards: 2,
        nodes,
    }));
    let dir = image(&r);
    assert_eq!(check(dir.path()).findings, []);
    let cases: &[(&str, &str, Change)] = &[
        ("names", codes::RECORDS_DISAGREE, |t| {
            change::<NodeRecord>(t, &keys::node(2), |n| n.name = "node1".to_owned());
        }),
        ("ids", codes::RECORDS_DISAGREE, |t| {
            change::<ClusterRecord>(t, &keys::cluster(), |c| c.next_node_id = 2);
        }),
        ("own name", codes::IDENTITY_DISAGREES, |t| {
            change::<NodeRecord>(t, &keys::node(1), |n| n.name = "other".to_owned());
        }),
        ("shards", codes::IDENTITY_DISAGREES, |t| {
            change::<ClusterRecord>(t, &keys::cluster(), |c| c.shards = 9);
        }),
    ];
    for (what, code, plant) in cases {
        let report = planted(dir.path(), &group, *plant);
        assert!(
            found(&report).contains(code),
            "{what}: {:?}",
            report.findings
        );
    }
}

/// The log beside the state is another one: the state's own events say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_was_not_made_from_its_log_is_found() {
    let mut r = Replica::new();
    r.log.begin_if_empty();
    let mut entries = Vec::new();
    for (n, key) in ["a", "b", "c"].into_iter().enumerate() {
        entries.push(entry(
            1 + n as u64,
            command(n as i64 + 1, put("a", key, "v")),
        ));
    }
    append(&mut r.log, entries.clone()).await;
    r.machine.apply_now(entries).unwrap();
    let report = check(image(&r).path());
    assert_eq!((report.findings, report.entries_compared), (Vec::new(), 3));

    let mut other = Replica::new();
    other.log.begin_if_empty();
    let mut foreign = command(2, put("a", "b", "v"));
    foreign.actor = "bob".to_owned();
    let entries = vec![
        entry(1, command(1, put("a", "a", "v"))),
        entry(2, foreign),
        entry(3, command(3, put("a", "c", "v"))),
    ];
    append(&mut other.log, entries).await;
    let copy = image(&r);
    let group = paths(copy.path(), &GroupId::config(0));
    std::fs::remove_dir_all(group.log()).unwrap();
    copy_dir(
        &paths(other.dir.path(), &GroupId::config(0)).log(),
        &group.log(),
    );
    let report = check(copy.path());
    assert_eq!(found(&report), BTreeSet::from([codes::STATE_NOT_OF_LOG]));
    assert!(
        report.findings[0].what.contains("ann"),
        "{:?}",
        report.findings
    );
}

#[test]
fn pages_that_cannot_be_read_end_one_kind_and_not_the_check() {
    let mut r = Replica::new();
    r.log.begin_if_empty();
    for n in 0..300 {
        r.op(put("a", &format!("k{n}"), &"v".repeat(2000)));
    }
    // Closed in good order: one that was not is looked through when it is opened.
    let Replica {
        dir,
        machine,
        state,
        log,
        ..
    } = r;
    drop((machine, state, log));
    let file = paths(dir.path(), &GroupId::config(0)).state();
    let whole = std::fs::read(&file).unwrap();
    let (mut broken, mut went_on) = (0, 0);
    for page in 1..60usize {
        let mut bytes = whole.clone();
        let at = page * whole.len() / 60 / 4096 * 4096;
        // Where a leaf says where its records begin; its kind stays, which redb looks at when it opens the file.
        bytes[at + 4..at + 64].fill(0xa5);
        std::fs::write(&file, &bytes).unwrap();
        let node = OfflineNode::open(dir.path()).unwrap();
        let Some(report) = node.groups[0].check_records(None, |_| {}) else {
            continue;
        };
        if report.hash.is_none() {
            broken += 1;
            assert!(found(&report).contains(codes::STATE_DAMAGED), "page {page}");
            went_on += usize::from(report.kinds.len() > 2);
        }
    }
    assert!(broken > 0 && went_on > 0, "{went_on} of {broken}");
}

fn any_op() -> impl Strategy<Value = (u8, u8, u8, bool)> {
    (0..8u8, 0..6u8, 0..5u8, any::<bool>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_a_state_agrees_with_itself(ops in prop::collection::vec(any_op(), 1..60)) {
        const SPACES: [&str; 6] = ["a", "a/b", "a-b", "a/b/c", "a!", "z/y/x"];
        let mut r = Replica::new();
        r.log.begin_if_empty();
        let mut uploads = 0;
        for (n, (kind, space, key, keyed)) in ops.into_iter().enumerate() {
            let (space, key) = (SPACES[space as usize], format!("k{key}"));
            let op = match kind {
                0..=2 => put(space, &key, &format!("v{n}")),
                3 => delete(space, &key),
                4 => create(space),
                5 => drop_namespace(space),
                6 => {
                    uploads += 1;
                    stage(uploads, 0, &[uploads; 300])
                }
                _ => put_staged(space, &key, uploads, &[uploads; 300]),
            };
            // Garbage and abandoned uploads come due.
            if n % 9 == 8 {
                r.wait(3700 * SECOND);
            }
            if keyed {
                r.once(&format!("key{n}"), "print", op);
            } else {
                r.op(op);
            }
        }
        let report = check(image(&r).path());
        prop_assert_eq!(&report.findings, &[]);
        prop_assert_eq!(report.hash, Some(r.state.stats().state_hash));
    }

    #[test]
    fn i19_any_key_can_be_told_of(key in prop::collection::vec(any::<u8>(), 0..60), kind in 0..0x42u8) {
        drop(keys::describe(&key));
        drop(keys::describe(&[&[kind][..], &key].concat()));
    }
}

#[test]
fn keys_are_told_by_kind_and_name() {
    let at = AuditRef { index: 7, sub: 1 };
    let told = [
        (keys::facts(), "facts"),
        (keys::node(3), "node 3"),
        (keys::namespace("a/b"), "namespace a/b"),
        (keys::entry("a/b", "k"), "entry a/b/k"),
        (keys::tombstone("a", "k"), "tombstone a/k"),
        (keys::audit(at), "audit event 7.1"),
        (keys::audit_by_namespace("a/b", at), "audit index a/b 7.1"),
        (keys::idempotency("ann", "x"), "idempotency key ann/x"),
        (keys::snapshot("s"), "snapshot s"),
        (vec![0x7f, 1], "unknown 7f01"),
    ];
    for (key, text) in told {
        assert_eq!(keys::describe(&key), text);
    }
}
