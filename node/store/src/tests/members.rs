//! Group `__meta/0`: expected names, wishes, and one change at a time.

use confman_snapshot::model::GroupId;

use super::kit::*;
use crate::command::*;
use crate::membership::*;
use crate::records::*;
use crate::state::AuditFilter;

fn born() -> Replica {
    let mut r = Replica::of(&GroupId::meta());
    let nodes = (1..=3)
        .map(|id| NodeRecord {
            id,
            name: format!("node{id}"),
            peer_addr: format!("h{id}:1"),
            ..NodeRecord::default()
        })
        .collect();
    r.op(Op::Genesis(Genesis {
        cluster_uuid: UUID.to_owned(),
        incarnation: 1,
        shards: 1,
        nodes,
    }));
    r
}

fn change(id: &str, kind: ChangeKind, name: &str, node_id: u64) -> ChangeRecord {
    ChangeRecord {
        id: id.to_owned(),
        kind: kind.into(),
        name: name.to_owned(),
        node_id,
        ..ChangeRecord::default()
    }
}

fn expected(name: &str) -> ExpectedRecord {
    ExpectedRecord {
        name: name.to_owned(),
        peer_addr: format!("{name}:1"),
        ..ExpectedRecord::default()
    }
}

fn expect(record: ExpectedRecord, change: Option<ChangeRecord>) -> Op {
    Op::ExpectNode(ExpectNode {
        record: Some(record),
        change,
        registry: 0,
    })
}

fn add(id: &str, name: &str) -> Op {
    expect(expected(name), Some(change(id, ChangeKind::Add, name, 0)))
}

fn forget(name: &str) -> Op {
    Op::ForgetNode(ForgetNode {
        name: name.to_owned(),
        registry: 0,
    })
}

fn begin(change: ChangeRecord) -> Op {
    Op::BeginChange(BeginChange {
        change: Some(change),
        registry: 0,
    })
}

fn end(id: &str) -> Op {
    Op::EndChange(EndChange {
        id: id.to_owned(),
        error: None,
    })
}

fn admit(name: &str, replaces: Option<u64>, nonce: &str) -> Op {
    Op::AdmitNode(AdmitNode {
        name: name.to_owned(),
        api_url: format!("http://{name}"),
        peer_addr: format!("{name}:1"),
        replaces,
        nonce: nonce.to_owned(),
    })
}

/// The registry in one line.
fn told(r: &Replica) -> String {
    let registry = r.state.registry().unwrap();
    let nodes = registry
        .nodes
        .iter()
        .map(|n| format!("{}:{}:{:?}:{:?}", n.id, n.name, n.state(), n.wish()));
    let expected = registry.expected.iter().map(|e| format!("?{}", e.name));
    let change = registry.change.iter().map(|c| {
        let state = match (c.is_running(), c.error.as_str()) {
            (true, _) => "runs".to_owned(),
            (false, "") => "done".to_owned(),
            (false, why) => format!("stopped: {why}"),
        };
        format!("| {} (id {}) {state}", c.words(), c.node_id)
    });
    nodes
        .chain(expected)
        .chain(change)
        .collect::<Vec<_>>()
        .join(" ")
}

fn story(r: &mut Replica, steps: Vec<(&str, Op)>) -> String {
    let mut story = String::new();
    for (what, op) in steps {
        let outcome = tell(&r.op(op));
        story.push_str(&format!("{what}: {outcome}\n    {}\n", told(r)));
    }
    story
}

fn actions(r: &Replica) -> Vec<String> {
    let page = r
        .state
        .list_audit(&AuditFilter::default(), None, 100)
        .unwrap();
    let mut actions: Vec<String> = page
        .items
        .iter()
        .map(|e| format!("{} {}", e.record.action, e.record.key))
        .collect();
    actions.reverse();
    actions.retain(|a| !a.starts_with("cluster.") && !a.starts_with("node.admitted node1"));
    actions
}

#[test]
fn m01_a_node_is_expected_admitted_and_active_and_the_change_knows_its_id() {
    let mut r = born();
    let steps = vec![
        ("add", add("c1", "node4")),
        ("the same request again", add("c1", "node4")),
        ("another change", add("c2", "node5")),
        ("it comes", admit("node4", None, "n4")),
        ("and asks again", admit("node4", None, "n4")),
        ("it votes", Op::ActivateNode(ActivateNode { id: 4 })),
        ("done", end("c1")),
        ("done again", end("c1")),
        ("a name that is taken", add("c3", "node4")),
        (
            "an address that is taken",
            expect(
                ExpectedRecord {
                    peer_addr: "h1:1".to_owned(),
                    ..expected("node6")
                },
                None,
            ),
        ),
        ("without a name", expect(expected(""), None)),
    ];
    insta::assert_snapshot!(story(&mut r, steps));
    assert!(
        actions(&r).ends_with(
            &[
                "member.add node4",
                "node.expected node4",
                "node.admitted node4",
                "node.activated node4",
                "member.done node4",
            ]
            .map(str::to_owned)
        ),
        "{:?}",
        actions(&r)
    );
    r.assert_hash();
}

#[test]
fn m04_one_change_at_a_time_and_only_against_the_registry_it_was_planned_on() {
    let mut r = born();
    let seen = r.state.registry().unwrap().fingerprint();
    let guarded = |id: &str, kind, name: &str, node_id| {
        Op::BeginChange(BeginChange {
            change: Some(change(id, kind, name, node_id)),
            registry: seen,
        })
    };
    let steps = vec![
        ("demote", guarded("c1", ChangeKind::Demote, "node2", 2)),
        (
            "planned on what was before",
            guarded("c2", ChangeKind::Demote, "node2", 2),
        ),
        (
            "another node",
            begin(change("c3", ChangeKind::Remove, "node3", 3)),
        ),
        (
            "the same node: called off",
            begin(change("c4", ChangeKind::Promote, "node2", 2)),
        ),
        ("the first one is over", end("c1")),
        ("done", end("c4")),
        (
            "an id that is not the name's",
            begin(change("c5", ChangeKind::Promote, "node2", 3)),
        ),
        ("no id", begin(change("", ChangeKind::Promote, "node2", 2))),
        (
            "an add without a name to expect",
            begin(change("c6", ChangeKind::Add, "node2", 2)),
        ),
    ];
    insta::assert_snapshot!(story(&mut r, steps));
    r.assert_hash();
}

#[test]
fn m05_the_last_voter_stays() {
    let mut r = born();
    for (id, name) in [(1, "node1"), (2, "node2")] {
        assert!(
            r.op(begin(change(name, ChangeKind::Remove, name, id)))
                .as_refused()
                .is_none()
        );
        r.op(end(name));
    }
    for kind in [ChangeKind::Remove, ChangeKind::Demote] {
        let refused = r.op(begin(change("last", kind, "node3", 3)));
        assert_eq!(
            refused.as_refused().unwrap().code(),
            RefusalCode::Conflict,
            "{kind:?}"
        );
    }
}

#[test]
fn m06_a_removed_node_is_retired_with_its_index_and_comes_back_only_when_it_is_expected() {
    let mut r = born();
    let steps = vec![
        (
            "remove",
            begin(change("c1", ChangeKind::Remove, "node3", 3)),
        ),
        ("it loses its disk meanwhile", admit("node3", Some(3), "nx")),
        ("gone", end("c1")),
        (
            "promote what is gone",
            begin(change("c2", ChangeKind::Promote, "node3", 3)),
        ),
        ("expected again", add("c3", "node3")),
        ("and back", admit("node3", None, "n4")),
        ("active", Op::ActivateNode(ActivateNode { id: 4 })),
        ("done", end("c3")),
    ];
    insta::assert_snapshot!(story(&mut r, steps));
    let gone = r.state.node(3).unwrap().unwrap();
    assert!(gone.retired_index > 0);
    r.assert_hash();
}

#[test]
fn an_add_is_called_off_by_forgetting_the_name_or_removing_the_node() {
    let mut r = born();
    let steps = vec![
        ("add", add("c1", "node4")),
        ("forget", forget("node4")),
        ("forget again", forget("node4")),
        ("add", add("c2", "node4")),
        ("it comes", admit("node4", None, "n4")),
        (
            "remove",
            begin(change("c3", ChangeKind::Remove, "node4", 4)),
        ),
        (
            "it is not activated",
            Op::ActivateNode(ActivateNode { id: 4 }),
        ),
        ("gone", end("c3")),
    ];
    insta::assert_snapshot!(story(&mut r, steps));
    r.assert_hash();
}

#[test]
fn a_replacement_takes_a_new_name_or_a_learner_and_a_lost_disk_keeps_the_wish() {
    let mut r = born();
    let replace = |id: &str, name: &str, node_id: u64, old: u64| ChangeRecord {
        old_name: format!("node{old}"),
        old_id: old,
        ..change(id, ChangeKind::Replace, name, node_id)
    };
    let by_new = expect(
        ExpectedRecord {
            replaces: Some(3),
            ..expected("node4")
        },
        Some(replace("c1", "node4", 0, 3)),
    );
    let learner = expect(
        ExpectedRecord {
            learner_only: true,
            ..expected("node5")
        },
        Some(change("c2", ChangeKind::Add, "node5", 0)),
    );
    let steps = vec![
        ("replace 3 by a new one", by_new),
        ("it comes", admit("node4", None, "n4")),
        ("active", Op::ActivateNode(ActivateNode { id: 4 })),
        ("done", end("c1")),
        ("add a learner", learner),
        ("it comes", admit("node5", None, "n5")),
        ("active", Op::ActivateNode(ActivateNode { id: 5 })),
        ("done", end("c2")),
        ("its disk is lost", admit("node5", Some(5), "n6")),
        ("active", Op::ActivateNode(ActivateNode { id: 6 })),
        ("replace 2 by it", begin(replace("c3", "node5", 6, 2))),
        ("replace itself", begin(replace("c4", "node5", 6, 6))),
        ("done", end("c3")),
    ];
    insta::assert_snapshot!(story(&mut r, steps));
    r.assert_hash();
}

#[test]
fn the_fingerprint_follows_everything_that_is_said_about_members() {
    let mut r = born();
    let mut seen = std::collections::BTreeSet::new();
    let mut fresh = |r: &Replica| seen.insert(r.state.registry().unwrap().fingerprint());
    assert!(fresh(&r));
    for op in [
        add("c1", "node4"),
        admit("node4", None, "n4"),
        Op::UpdateNode(UpdateNode {
            id: 4,
            api_url: "u".to_owned(),
            peer_addr: "p".to_owned(),
        }),
        Op::ActivateNode(ActivateNode { id: 4 }),
        end("c1"),
        begin(change("c2", ChangeKind::Demote, "node4", 4)),
    ] {
        let told = tell(&r.op(op.clone()));
        assert!(fresh(&r), "{}: {told}", op.name());
    }
}
