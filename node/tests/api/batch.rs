//! Batches: each item as if it came alone, proposed together, sent to whom it belongs.

use std::collections::BTreeSet;
use std::sync::Arc;

use confman_node::api::access::NoKeys;
use confman_node::api::backend::LeaderInfo;
use confman_node::api::limits::Limits;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::alone::Behaviour;
use super::support::{Server, document, header, problem};

fn statuses(answer: &Value) -> Vec<u64> {
    answer["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["status"].as_u64().unwrap())
        .collect()
}

async fn post(server: &Server, body: &Value) -> Value {
    let response = server
        .post("/api/v1/batch")
        .json(body)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{response:?}");
    document(response).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_item_is_answered_as_it_would_be_alone() {
    let server = Server::with_keys().await;
    server.set("b/old", json!(1)).await;
    server.set("b/same", json!("x")).await;
    let body = json!({"items": [
        {"op": "put", "namespace": "b", "key": "new", "value": {"a": [1]}},
        {"op": "put", "namespace": "b", "key": "old", "value": 2},
        {"op": "put", "namespace": "b", "key": "same", "value": "x", "skipUnchanged": true},
        {"op": "put", "namespace": "b/raw", "key": "a/b", "valueBase64": "eyAiYSIgOiAxIH0K", "type": "json"},
        {"op": "delete", "namespace": "b", "key": "missing"},
        {"op": "put", "namespace": "b", "key": "..", "value": 1},
        {"op": "put", "namespace": "b", "key": "typed", "value": 1, "type": "boolean"},
        {"op": "put", "namespace": "b", "key": "bytes", "valueBase64": "!!"},
    ]});
    let response = server
        .post("/api/v1/batch")
        .json(&body)
        .send()
        .await
        .unwrap();
    assert!(
        !header(&response, "x-confman-version").is_empty(),
        "all in one group: a token"
    );
    let answer = document(response).await;
    assert_eq!(
        statuses(&answer),
        [201, 200, 200, 201, 404, 400, 400, 400],
        "{answer}"
    );
    let items = &answer["items"];
    assert_eq!(items[1]["version"], 2);
    assert_eq!(
        (&items[2]["unchanged"], &items[2]["version"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(items[4]["problem"]["type"], "urn:confman:problem:not-found");
    assert_eq!(items[5]["problem"]["field"], "items[5].key");
    assert_eq!(items[6]["problem"]["field"], "items[6].value");
    assert_eq!(items[7]["problem"]["field"], "items[7].valueBase64");
    let raw = server
        .get("/api/v1/config/b/raw/a%2Fb")
        .header("accept", "application/octet-stream")
        .send()
        .await
        .unwrap();
    assert_eq!(
        raw.text().await.unwrap(),
        "{ \"a\" : 1 }\n",
        "byte for byte"
    );
    let audit = document(
        server
            .get("/api/v1/audit?namespace=b&key=new")
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(audit["items"][0]["actor"], "the admin");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_sent_again_applies_nothing_twice() {
    let server = Server::start().await;
    let body = json!({"items": (0..100).map(|i| json!({
        "op": "put", "namespace": format!("n{}", i % 3), "key": format!("k{i}"), "value": i
    })).collect::<Vec<_>>()});
    let send = || {
        server
            .post("/api/v1/batch")
            .header("idempotency-key", "import-1")
            .json(&body)
            .send()
    };
    let first = document(send().await.unwrap()).await;
    assert_eq!(statuses(&first), [201; 100]);
    let second = document(send().await.unwrap()).await;
    assert_eq!(second, first);
    let read = document(server.get("/api/v1/config/n0/k3").send().await.unwrap()).await;
    assert_eq!(read["version"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_batches_write_nothing_and_name_the_field() {
    let server = Server::start().await;
    let good = json!({"op": "put", "namespace": "b", "key": "good", "value": 1});
    let with = |mut item: Value, name: &str, value: Value| {
        item[name] = value;
        item
    };
    let cases = [
        (json!([]), "body"),
        (json!({}), "items"),
        (json!({"items": 1}), "items"),
        (json!({"items": [], "atomic": true}), "atomic"),
        (json!({"items": [good, 7]}), "items[1]"),
        (
            json!({"items": [good, {"op": "put", "key": "k", "value": 1}]}),
            "items[1].namespace",
        ),
        (
            json!({"items": [good, with(good.clone(), "op", json!("patch"))]}),
            "items[1].op",
        ),
        (
            json!({"items": [good, with(good.clone(), "version", json!(3))]}),
            "items[1].version",
        ),
        (
            json!({"items": [good, with(good.clone(), "type", json!("text"))]}),
            "items[1].type",
        ),
        (
            json!({"items": [good, with(good.clone(), "key", json!(5))]}),
            "items[1].key",
        ),
        (json!({"items": [good, good]}), "items[1].key"),
        (
            json!({"items": [good, {"op": "delete", "namespace": "b", "key": "x", "value": 1}]}),
            "items[1].op",
        ),
        (
            json!({"items": [good, with(json!({"op": "put", "namespace": "b", "key": "x", "value": 1}), "idempotencyKey", json!("a b"))]}),
            "items[1].idempotencyKey",
        ),
    ];
    for (body, field) in cases {
        let refused = server
            .post("/api/v1/batch")
            .json(&body)
            .send()
            .await
            .unwrap();
        assert_eq!(
            problem(refused, 400, "invalid-request").await["field"],
            field,
            "{body}"
        );
    }
    let many: Vec<Value> = (0..1001)
        .map(|i| json!({"op": "delete", "namespace": "b", "key": format!("{i}")}))
        .collect();
    problem(
        server
            .post("/api/v1/batch")
            .json(&json!({"items": many}))
            .send()
            .await
            .unwrap(),
        413,
        "payload-too-large",
    )
    .await;
    let plain = server
        .post("/api/v1/batch")
        .body("{\"items\":[]}")
        .send()
        .await
        .unwrap();
    assert_eq!(
        problem(plain, 400, "invalid-request").await["field"],
        "content-type"
    );
    problem(
        server.get("/api/v1/config/b/good").send().await.unwrap(),
        404,
        "not-found",
    )
    .await;
    assert_eq!(
        post(&server, &json!({"items": []})).await["items"],
        json!([])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn values_above_the_inline_size_go_through_a_batch_as_well() {
    let server = Server::start().await;
    let text = "y".repeat(700 << 10);
    let items: Vec<Value> = (0..5)
        .map(|i| json!({"op": "put", "namespace": "b", "key": format!("big{i}"), "value": text}))
        .collect();
    let body = json!({"items": items});
    let send = || {
        server
            .post("/api/v1/batch")
            .header("idempotency-key", "big")
            .json(&body)
            .send()
    };
    let first = document(send().await.unwrap()).await;
    assert_eq!(statuses(&first), [201; 5]);
    assert_eq!(document(send().await.unwrap()).await, first);
    let read = document(server.get("/api/v1/config/b/big4").send().await.unwrap()).await;
    assert_eq!(read["value"], json!(text));
}

/// Two listeners on the same replicas; the second one looks like a follower of the first.
async fn pair(shards: u32) -> (Server, Server, LeaderInfo) {
    let leader = Server::with_shards(shards).await;
    let info = leader.as_leader();
    let follower = Server::of(
        leader.node.twin("node2"),
        Arc::new(NoKeys),
        Limits::default(),
        None,
    )
    .await;
    follower
        .node
        .behave(&Behaviour::Follows(Some(info.clone())));
    (leader, follower, info)
}

fn spread() -> Value {
    json!({"items": (0..24).map(|i| json!({
        "op": "put", "namespace": format!("top{i}"), "key": "k", "value": i
    })).collect::<Vec<_>>()})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_another_node_leads_is_redirected_or_forwarded_whole() {
    let (leader, follower, _) = pair(2).await;
    let refused = follower
        .post("/api/v1/batch")
        .json(&spread())
        .send()
        .await
        .unwrap();
    assert_eq!(
        header(&refused, "location"),
        format!("{}/api/v1/batch", leader.url)
    );
    problem(refused, 307, "not-leader").await;
    let forwarded = follower
        .post("/api/v1/batch")
        .header("x-confman-forward", "true")
        .json(&spread())
        .send()
        .await
        .unwrap();
    assert_eq!(statuses(&document(forwarded).await), [201; 24]);
}

#[tokio::test(flavor = "multi_thread")]
async fn items_of_groups_led_elsewhere_are_sent_there() {
    let (_leader, mixed, _) = pair(2).await;
    // This node leads the second group itself.
    mixed.node.behave_group(1, &Behaviour::Leads);
    let groups: BTreeSet<usize> = (0..24)
        .map(|i| mixed.node.group_of(&format!("top{i}")))
        .collect();
    assert_eq!(groups.len(), 2, "the names are spread over both groups");
    let send = || {
        mixed
            .post("/api/v1/batch")
            .header("idempotency-key", "spread")
            .json(&spread())
            .send()
    };
    let first = send().await.unwrap();
    assert_eq!(
        header(&first, "x-confman-version"),
        "",
        "two groups have no common token"
    );
    let first = document(first).await;
    assert_eq!(statuses(&first), [201; 24]);
    assert_eq!(
        document(send().await.unwrap()).await,
        first,
        "keys of items do not depend on who writes them"
    );

    // Leadership moves: the same batch now goes the other way round, and is still applied once.
    mixed.node.behave(&Behaviour::Leads);
    assert_eq!(document(send().await.unwrap()).await, first);
    for i in 0..24 {
        let read = document(
            mixed
                .get(&format!("/api/v1/config/top{i}/k"))
                .send()
                .await
                .unwrap(),
        )
        .await;
        assert_eq!((&read["value"], &read["version"]), (&json!(i), &json!(1)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn items_without_a_leader_say_so_and_others_are_written() {
    let server = Server::with_shards(2).await;
    server.node.behave_group(0, &Behaviour::Follows(None));
    let answer = post(&server, &spread()).await;
    for (i, item) in answer["items"].as_array().unwrap().iter().enumerate() {
        let expected = if server.node.group_of(&format!("top{i}")) == 0 {
            503
        } else {
            201
        };
        assert_eq!(item["status"], expected, "{item}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_nobody_leads_is_refused_as_a_whole() {
    let server = Server::with_shards(2).await;
    server.node.behave(&Behaviour::Follows(None));
    let refused = server
        .post("/api/v1/batch")
        .json(&spread())
        .send()
        .await
        .unwrap();
    assert_eq!(header(&refused, "retry-after"), "1");
    problem(refused, 503, "no-leader").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_point_at_each_other_do_not_loop() {
    let (first, second, _) = pair(2).await;
    let back = LeaderInfo {
        id: 2,
        name: "node2".to_owned(),
        ..second.as_leader()
    };
    first.node.behave(&Behaviour::Follows(Some(back)));
    let answer = second
        .post("/api/v1/batch")
        .header("x-confman-forward", "true")
        .json(&spread())
        .send()
        .await
        .unwrap();
    problem(answer, 503, "unavailable").await;
    let answer = second
        .put("/api/v1/config/a/b")
        .header("x-confman-forward", "true")
        .body("x")
        .send()
        .await
        .unwrap();
    problem(answer, 503, "unavailable").await;
}
