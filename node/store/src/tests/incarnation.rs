//! A new life begins: what every group writes down, and what `__meta/0` does besides.

use confman_snapshot::SnapshotRecord;
use confman_snapshot::model::GroupId;

use super::kit::*;
use crate::command::*;
use crate::membership::ExpectedRecord;
use crate::records::*;
use crate::state::AuditFilter;

fn node(id: u64) -> NodeRecord {
    NodeRecord {
        id,
        name: format!("node{id}"),
        peer_addr: format!("h{id}:1"),
        ..NodeRecord::default()
    }
}

fn genesis() -> Op {
    Op::Genesis(Genesis {
        cluster_uuid: UUID.to_owned(),
        incarnation: 1,
        shards: 1,
        nodes: (1..=3).map(node).collect(),
    })
}

fn begin(incarnation: u64, plan: &str) -> BeginIncarnation {
    let expected = |id: u64| ExpectedRecord {
        name: format!("node{id}"),
        peer_addr: format!("h{id}:1"),
        ..ExpectedRecord::default()
    };
    BeginIncarnation {
        cluster_uuid: UUID.to_owned(),
        incarnation,
        kind: IncarnationKind::QuorumLoss.into(),
        plan_id: plan.to_owned(),
        lineage: plan.to_owned(),
        operator: "ann@desk".to_owned(),
        summary: r#"{"lost":[]}"#.to_owned(),
        nodes: vec![node(2)],
        expected: vec![expected(1), expected(3)],
        survivor_id: 2,
        versions_from: versions_of_life_from(incarnation),
    }
}

fn states(r: &Replica) -> String {
    let nodes = r.state.nodes().unwrap();
    nodes
        .iter()
        .map(|n| format!("{}:{:?}", n.name, n.state()))
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn i13_a_new_incarnation_is_written_down_once_and_retires_all_others() {
    let mut r = Replica::of(&GroupId::meta());
    let mut story = String::new();
    let mut step = |r: &mut Replica, what: &str, op: Op| {
        let told = tell(&r.op(op));
        story.push_str(format!("{what}: {told} | {}", states(r)).trim_end());
        story.push('\n');
    };
    step(&mut r, "before birth", Op::BeginIncarnation(begin(2, "a")));
    step(&mut r, "birth", genesis());
    step(&mut r, "not above 1", Op::BeginIncarnation(begin(1, "a")));
    let mut long = begin(2, "a");
    long.summary = "x".repeat(AUDIT_VALUE_MAX + 1);
    step(&mut r, "too much to say", Op::BeginIncarnation(long));
    let mut foreign = begin(2, "a");
    foreign.cluster_uuid = "00000000-0000-0000-0000-000000000000".to_owned();
    step(&mut r, "another cluster's", Op::BeginIncarnation(foreign));
    step(&mut r, "begins", Op::BeginIncarnation(begin(2, "a")));
    step(&mut r, "again", Op::BeginIncarnation(begin(2, "a")));
    step(&mut r, "another plan", Op::BeginIncarnation(begin(2, "b")));
    step(&mut r, "the next", Op::BeginIncarnation(begin(4, "c")));
    step(&mut r, "an older", Op::BeginIncarnation(begin(3, "d")));
    insta::assert_snapshot!(story);
    let cluster = r.state.cluster().unwrap().unwrap();
    assert_eq!(cluster.incarnation, 4);
    assert_eq!(cluster.next_node_id, 4, "no id is given twice (I14)");
    let record = r.state.incarnation().unwrap().unwrap();
    assert_eq!((record.incarnation, record.lineage.as_str()), (4, "c"));
    let audit = r
        .state
        .list_audit(&AuditFilter::default(), None, 100)
        .unwrap();
    let recovered: Vec<_> = audit
        .items
        .iter()
        .filter(|e| e.record.action == "cluster.recovered")
        .collect();
    assert_eq!(recovered.len(), 2, "one event a life (I15)");
    let event = &recovered[1].record;
    assert_eq!((event.key.as_str(), event.version), ("a", 2));
    let value = event.new_value.as_ref().unwrap();
    assert_eq!(value.bytes.as_ref(), br#"{"lost":[]}"#);
}

/// A client may hold "v3" of what was lost: neither must it be told that this is what is there, nor may it overwrite by it.
#[test]
fn i15_no_version_of_a_new_life_is_one_that_a_lost_write_may_have_had() {
    const JUMP: u64 = 1_000_000_000;
    let mut r = Replica::new();
    r.op(put("app", "k", "1"));
    r.op(put("app", "k", "2"));
    r.op(put("app", "gone", "1"));
    r.op(delete("app", "gone"));
    r.op(Op::BeginIncarnation(begin(2, "a")));
    assert_eq!(
        r.version("app", "k"),
        Some(2),
        "what is there stays as it is"
    );
    r.op(put("app", "k", "3"));
    r.op(put("app", "new", "1"));
    r.op(put("app", "gone", "2"));
    for (key, version) in [("k", JUMP + 1), ("new", JUMP + 1), ("gone", JUMP + 1)] {
        assert_eq!(r.version("app", key), Some(version), "{key}");
    }
    r.op(put("app", "k", "4"));
    assert_eq!(r.version("app", "k"), Some(JUMP + 2));
    // A life whose number was skipped is one that somebody may have begun.
    r.op(Op::BeginIncarnation(begin(4, "c")));
    r.op(put("app", "k", "5"));
    assert_eq!(r.version("app", "k"), Some(3 * JUMP + 1));
}

#[test]
fn i13_every_group_writes_it_down_and_only_meta_touches_nodes() {
    let mut r = Replica::new();
    let answer = r.op(Op::BeginIncarnation(begin(2, "a")));
    assert_eq!(tell(&answer), "done");
    assert_eq!(r.state.incarnation().unwrap().unwrap().incarnation, 2);
    assert!(r.state.nodes().unwrap().is_empty());
}

/// A copy is another cluster: it has its own name, none of the other's nodes, and nothing of the other's store is its to retire.
#[test]
fn i13_a_copy_leaves_the_cluster_that_it_was_made_from() {
    const OWN: &str = "00000000-0000-4000-8000-00000000c0b7";
    let mut r = Replica::of(&GroupId::meta());
    assert_eq!(tell(&r.op(genesis())), "done");
    let of_config = super::snapshots::record_of(&r, 1);
    let object = confman_snapshot::paths::snapshot(&GroupId::meta(), &of_config.id);
    r.op(Op::SnapshotVerified(SnapshotVerified {
        record: Some(SnapshotRecord {
            group: GroupId::meta(),
            object,
            ..of_config
        }),
        membership: Some(super::snapshots::membership()),
    }));
    assert!(r.state.stats().last_snapshot.is_some());
    let copy = |uuid: &str| BeginIncarnation {
        cluster_uuid: uuid.to_owned(),
        kind: IncarnationKind::Copy.into(),
        nodes: vec![node(1001)],
        expected: Vec::new(),
        ..begin(2, "c")
    };
    assert!(tell(&r.op(Op::BeginIncarnation(copy(UUID)))).contains("this is cluster"));
    assert_eq!(states(&r), "node1:Active node2:Active node3:Active");
    assert_eq!(tell(&r.op(Op::BeginIncarnation(copy(OWN)))), "done");
    assert_eq!(
        states(&r),
        "node1001:Active",
        "nobody else is asked anything"
    );
    let cluster = r.state.cluster().unwrap().unwrap();
    assert_eq!((cluster.uuid.as_str(), cluster.incarnation), (OWN, 2));
    assert_eq!(cluster.next_node_id, 1002, "no id is given twice (I14)");
    assert_eq!(
        r.state.stats().last_snapshot,
        None,
        "its own store protects nothing yet"
    );
    assert!(r.state.snapshots().unwrap().is_empty());
    assert_eq!(
        tell(&r.op(Op::BeginIncarnation(copy(OWN)))),
        "done",
        "again"
    );
    // From now on it is what it says it is.
    assert!(tell(&r.op(Op::BeginIncarnation(begin(3, "d")))).contains("this is cluster"));
    let audit = r
        .state
        .list_audit(&AuditFilter::default(), None, 100)
        .unwrap();
    let copied = audit
        .items
        .iter()
        .filter(|e| e.record.action == "cluster.copied");
    assert_eq!(copied.count(), 1);
}

/// What became of a snapshot in an older life is not the new one's failure.
#[test]
fn a_new_life_forgets_who_was_to_build_which_snapshot() {
    let mut r = Replica::of(&GroupId::meta());
    r.op(genesis());
    let task = |id: &str| SnapshotTask {
        task_id: id.to_owned(),
        group: "config/0".to_owned(),
        node: 3,
        ..SnapshotTask::default()
    };
    r.op(Op::AssignSnapshot(task("a")));
    r.op(Op::FinishSnapshotTask(FinishSnapshotTask {
        task_id: "a".to_owned(),
        error: Some("build: node id 3 does not answer any more".to_owned()),
    }));
    r.op(Op::AssignSnapshot(task("b")));
    assert_eq!(r.state.snapshot_failures().unwrap().len(), 1);
    assert_eq!(r.state.snapshot_tasks().unwrap().len(), 1);
    assert_eq!(tell(&r.op(Op::BeginIncarnation(begin(2, "a")))), "done");
    assert!(r.state.snapshot_failures().unwrap().is_empty());
    assert!(r.state.snapshot_tasks().unwrap().is_empty());
}
