//! The membership over HTTP: what is read of a request, and who answers it.

use std::collections::BTreeSet;

use confman_client::wire::GroupMembers;
use confman_node::api::backend::MembershipView;
use confman_store::command::{Genesis, Op};
use confman_store::records::NodeRecord;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::alone::Behaviour;
use super::support::{Server, document, header, leader_elsewhere, problem};

const CHANGES: &str = "/api/v1/admin/members/changes";

/// A cluster of three of which `up` answer, as the one replica here is told.
async fn server(up: &[u64]) -> Server {
    let server = Server::start().await;
    let nodes = (1..=3)
        .map(|id| NodeRecord {
            id,
            name: format!("node{id}"),
            peer_addr: format!("n{id}:6101"),
            ..NodeRecord::default()
        })
        .collect();
    let genesis = Genesis {
        cluster_uuid: "uuid".to_owned(),
        incarnation: 1,
        shards: 1,
        nodes,
    };
    server.node.propose_meta(Op::Genesis(genesis)).await;
    *server.node.members.lock() = MembershipView {
        cluster_uuid: "uuid".to_owned(),
        incarnation: 1,
        groups: vec![GroupMembers {
            group: "__meta/0".to_owned(),
            leader: Some(1),
            voters: vec![1, 2, 3],
            learners: Vec::new(),
            joint: false,
        }],
        up: up.iter().copied().collect::<BTreeSet<_>>(),
    };
    server
}

async fn registry(server: &Server) -> String {
    let members = server.get("/api/v1/admin/members").send().await.unwrap();
    assert_eq!(members.status(), StatusCode::OK);
    document(members).await["registry"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn ask(id: &str, registry: &str, intent: Value) -> Value {
    json!({"id": id, "registry": registry, "allowLessTolerance": true, "intent": intent})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_begun_once_and_only_against_the_registry_it_was_planned_on() {
    let server = server(&[1, 2, 3]).await;
    let seen = registry(&server).await;
    let demote = |id: &str, name: &str| ask(id, &seen, json!({"kind": "demote", "name": name}));
    let begun = server
        .post(CHANGES)
        .json(&demote("c1", "node3"))
        .send()
        .await
        .unwrap();
    assert_eq!(begun.status(), StatusCode::ACCEPTED);
    let begun = document(begun).await;
    assert_eq!(begun["change"]["words"], "demote node3");
    assert_eq!(begun["change"]["nodeId"], 3);
    // The same request again, and the same intent of somebody else, are the same change.
    for id in ["c1", "c2"] {
        let again = server
            .post(CHANGES)
            .json(&demote(id, "node3"))
            .send()
            .await
            .unwrap();
        assert_eq!(again.status(), StatusCode::ACCEPTED);
        assert_eq!(document(again).await["change"], begun["change"]);
    }
    let other = server
        .post(CHANGES)
        .json(&demote("c3", "node2"))
        .send()
        .await
        .unwrap();
    let refused = problem(other, 409, "refused").await;
    assert_eq!(refused["code"], "CHANGE_RUNNING");
    // The change back takes its place, but not on what was seen before.
    let back = json!({"kind": "promote", "name": "node3"});
    let stale = server
        .post(CHANGES)
        .json(&ask("c4", &seen, back.clone()))
        .send()
        .await
        .unwrap();
    problem(stale, 409, "membership-changed").await;
    let fresh = registry(&server).await;
    let begun = server
        .post(CHANGES)
        .json(&ask("c4", &fresh, back))
        .send()
        .await
        .unwrap();
    assert_eq!(begun.status(), StatusCode::ACCEPTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_commit_is_refused_by_the_node_whatever_a_tool_would_say() {
    let server = server(&[1, 2]).await;
    let seen = registry(&server).await;
    let intent = json!({"kind": "remove", "name": "node2"});
    let refused = server
        .post(CHANGES)
        .json(&ask("c1", &seen, intent))
        .send()
        .await
        .unwrap();
    let refused = problem(refused, 409, "refused").await;
    assert_eq!(refused["code"], "RESULT_HAS_NO_QUORUM");
    // Who is down may go.
    let intent = json!({"kind": "demote", "name": "node3"});
    let begun = server
        .post(CHANGES)
        .json(&ask("c1", &seen, intent))
        .send()
        .await
        .unwrap();
    assert_eq!(begun.status(), StatusCode::ACCEPTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn less_tolerance_is_refused_unless_it_is_asked_for() {
    let server = server(&[1, 2, 3]).await;
    let seen = registry(&server).await;
    let mut demote = ask("c1", &seen, json!({"kind": "demote", "name": "node2"}));
    demote["allowLessTolerance"] = json!(false);
    let refused = server.post(CHANGES).json(&demote).send().await.unwrap();
    let refused = problem(refused, 409, "refused").await;
    assert_eq!(refused["code"], "LESS_TOLERANCE");
    assert!(
        refused["hint"]
            .as_str()
            .unwrap()
            .contains("--allow-less-tolerance")
    );
    assert_eq!(registry(&server).await, seen, "nothing was begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_than_the_leader_sends_on() {
    let server = server(&[1]).await;
    server
        .node
        .behave(&Behaviour::Follows(Some(leader_elsewhere(
            2,
            "http://127.0.0.1:1",
        ))));
    let asked = server.get("/api/v1/admin/members").send().await.unwrap();
    assert_eq!(
        header(&asked, "location"),
        "http://127.0.0.1:1/api/v1/admin/members"
    );
    problem(asked, 307, "not-leader").await;
    let intent = json!({"kind": "demote", "name": "node2"});
    let asked = server
        .post(CHANGES)
        .json(&ask("c", "1", intent))
        .send()
        .await
        .unwrap();
    problem(asked, 307, "not-leader").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i19_a_wrong_change_is_refused_and_named() {
    let server = server(&[1, 2, 3]).await;
    let good = json!({"kind": "demote", "name": "node2"});
    for (body, field) in [
        ("", "body"),
        ("{}", "body"),
        ("[]", "body"),
        ("{\"id\":\"a\",\"id\":\"b\"}", "body"),
        (
            &ask("c", "1", json!({"kind": "explode", "name": "x"})).to_string(),
            "body",
        ),
        (
            &ask("c", "1", json!({"kind": "add", "name": "x"})).to_string(),
            "body",
        ),
        (
            &ask("c", "1", json!({"kind": "demote", "name": "x", "y": 1})).to_string(),
            "body",
        ),
        (&ask("", "1", good.clone()).to_string(), "id"),
        (&ask("no id", "1", good.clone()).to_string(), "id"),
        (&ask(&"i".repeat(65), "1", good.clone()).to_string(), "id"),
        (&ask("c", "zz", good.clone()).to_string(), "registry"),
        (&ask("c", "0", good).to_string(), "registry"),
    ] {
        let answer = server
            .post(CHANGES)
            .header("content-type", "application/json")
            .body(body.to_owned())
            .send()
            .await
            .unwrap();
        let problem = problem(answer, 400, "invalid-request").await;
        assert_eq!(problem["field"], field, "{body}");
    }
    let large = server
        .post(CHANGES)
        .json(&json!({"id": "x".repeat(20_000)}))
        .send()
        .await
        .unwrap();
    problem(large, 413, "payload-too-large").await;
}
