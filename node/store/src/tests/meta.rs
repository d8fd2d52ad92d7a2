//! Group `__meta/0`: birth, nodes, tasks.

use confman_snapshot::model::GroupId;

use super::kit::*;
use crate::command::*;
use crate::records::*;
use crate::state::AuditFilter;

fn genesis(uuid: &str) -> Op {
    let nodes = (1..=3)
        .map(|id| NodeRecord {
            id,
            name: format!("node{id}"),
            peer_addr: format!("h{id}:1"),
            ..NodeRecord::default()
        })
        .collect();
    Op::Genesis(Genesis {
        cluster_uuid: uuid.to_owned(),
        incarnation: 1,
        shards: 2,
        nodes,
    })
}

fn admit(name: &str, replaces: Option<u64>, nonce: &str) -> Op {
    Op::AdmitNode(AdmitNode {
        name: name.to_owned(),
        api_url: "http://h".to_owned(),
        peer_addr: "h:1".to_owned(),
        replaces,
        nonce: nonce.to_owned(),
    })
}

fn activate(id: u64) -> Op {
    Op::ActivateNode(ActivateNode { id })
}

fn states(r: &Replica) -> String {
    let nodes = r.state.nodes().unwrap();
    nodes
        .iter()
        .map(|n| format!("{}:{}:{:?}", n.id, n.name, n.state()))
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn i14_a_node_id_is_never_given_twice() {
    let mut r = Replica::of(&GroupId::meta());
    let mut story = String::new();
    let mut step = |r: &mut Replica, what: &str, op: Op| {
        let told = tell(&r.op(op));
        story.push_str(format!("{what}: {told} | {}", states(r)).trim_end());
        story.push('\n');
    };
    step(&mut r, "admit before birth", admit("node4", None, "n0"));
    step(&mut r, "birth", genesis(UUID));
    step(&mut r, "birth again", genesis(UUID));
    step(
        &mut r,
        "another birth",
        genesis("00000000-0000-0000-0000-000000000000"),
    );
    step(&mut r, "node2 is back empty", admit("node2", Some(2), "n1"));
    step(&mut r, "and asks again", admit("node2", Some(2), "n1"));
    step(&mut r, "empty once more", admit("node2", Some(2), "n2"));
    step(&mut r, "active", activate(5));
    step(&mut r, "active again", activate(5));
    step(&mut r, "the old one", activate(2));
    step(&mut r, "nobody", activate(9));
    step(&mut r, "replaces nobody", admit("x", Some(9), "n3"));
    step(&mut r, "no nonce", admit("x", None, ""));
    step(&mut r, "a new one", admit("node4", None, "n4"));
    insta::assert_snapshot!(story, @"
    admit before birth: refused NotFound: there is no cluster yet |
    birth: done | 1:node1:Active 2:node2:Active 3:node3:Active
    birth again: done | 1:node1:Active 2:node2:Active 3:node3:Active
    another birth: refused Conflict: the cluster 6f1c2f0a-58a5-4a7e-9d0a-3b1a2c4d5e6f is born already | 1:node1:Active 2:node2:Active 3:node3:Active
    node2 is back empty: node 4 | 1:node1:Active 2:node2:Active 3:node3:Active 4:node2:Joining
    and asks again: node 4 | 1:node1:Active 2:node2:Active 3:node3:Active 4:node2:Joining
    empty once more: node 5 | 1:node1:Active 2:node2:Active 3:node3:Active 4:node2:Joining 5:node2:Joining
    active: done | 1:node1:Active 2:node2:Retired 3:node3:Active 4:node2:Retired 5:node2:Active
    active again: done | 1:node1:Active 2:node2:Retired 3:node3:Active 4:node2:Retired 5:node2:Active
    the old one: refused Conflict: node 2 is retired, and its id is not used again | 1:node1:Active 2:node2:Retired 3:node3:Active 4:node2:Retired 5:node2:Active
    nobody: refused NotFound: there is no node 9 | 1:node1:Active 2:node2:Retired 3:node3:Active 4:node2:Retired 5:node2:Active
    replaces nobody: refused NotFound: there is no node 9 to replace | 1:node1:Active 2:node2:Retired 3:node3:Active 4:node2:Retired 5:node2:Active
    no nonce: refused Invalid: a node asks for an id with its name and a nonce | 1:node1:Active 2:node2:Retired 3:node3:Active 4:node2:Retired 5:node2:Active
    a new one: node 6 | 1:node1:Active 2:node2:Retired 3:node3:Active 4:node2:Retired 5:node2:Active 6:node4:Joining
    ");
    assert_eq!(r.state.cluster().unwrap().unwrap().next_node_id, 7);
    assert_eq!(r.state.node(4).unwrap().unwrap().replaces, Some(2));
    r.assert_hash();
}

#[test]
fn addresses_of_a_node_change() {
    let mut r = Replica::of(&GroupId::meta());
    r.op(genesis(UUID));
    let update = |id| {
        Op::UpdateNode(UpdateNode {
            id,
            api_url: "u".to_owned(),
            peer_addr: "p".to_owned(),
        })
    };
    r.op(update(1));
    r.op(update(1));
    assert!(r.op(update(9)).as_refused().is_some());
    let node = r.state.node(1).unwrap().unwrap();
    assert_eq!((node.api_url.as_str(), node.peer_addr.as_str()), ("u", "p"));
    let page = r
        .state
        .list_audit(&AuditFilter::default(), None, 100)
        .unwrap();
    let updates = page
        .items
        .iter()
        .filter(|e| e.record.action == "node.updated")
        .count();
    assert_eq!(updates, 1);
}

#[test]
fn a_group_has_one_snapshot_task_and_its_last_failure() {
    let mut r = Replica::of(&GroupId::meta());
    let assign = |id: &str, group: &str| {
        Op::AssignSnapshot(SnapshotTask {
            task_id: id.to_owned(),
            group: group.to_owned(),
            node: 1,
            ..Default::default()
        })
    };
    let finish = |id: &str, error: Option<&str>| {
        Op::FinishSnapshotTask(FinishSnapshotTask {
            task_id: id.to_owned(),
            error: error.map(str::to_owned),
        })
    };
    r.op(assign("t1", "config/0"));
    r.op(assign("t2", "config/1"));
    r.op(assign("t3", "config/0"));
    let ids = |r: &Replica| {
        r.state
            .snapshot_tasks()
            .unwrap()
            .into_iter()
            .map(|t| t.task_id)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&r), ["t3", "t2"]);
    assert!(
        r.op(finish("t1", None)).as_refused().is_some(),
        "a task that was replaced is not there any more"
    );
    r.op(finish("t3", Some("the store is away")));
    assert_eq!(ids(&r), ["t2"]);
    let failures = r.state.snapshot_failures().unwrap();
    assert_eq!(
        (failures.len(), failures[0].error.as_str()),
        (1, "the store is away")
    );
    r.op(assign("t4", "config/0"));
    r.op(finish("t4", None));
    assert!(r.state.snapshot_failures().unwrap().is_empty());
    r.assert_hash();
}

#[test]
fn commands_of_the_cluster_are_refused_elsewhere() {
    let mut r = Replica::new();
    for op in [genesis(UUID), admit("x", None, "n"), activate(1)] {
        assert_eq!(r.op(op).as_refused().unwrap().code(), RefusalCode::Invalid);
    }
    assert!(r.state.nodes().unwrap().is_empty());
}
