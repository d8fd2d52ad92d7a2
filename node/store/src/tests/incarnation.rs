//! A new life begins: what every group writes down, and what `__meta/0` does besides.

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

#[test]
fn i13_every_group_writes_it_down_and_only_meta_touches_nodes() {
    let mut r = Replica::new();
    let answer = r.op(Op::BeginIncarnation(begin(2, "a")));
    assert_eq!(tell(&answer), "done");
    assert_eq!(r.state.incarnation().unwrap().unwrap().incarnation, 2);
    assert!(r.state.nodes().unwrap().is_empty());
}
