//! Namespaces: made by hand or with their first key, listed across groups, deleted with all below them.

use std::time::Duration;

use confman_node::api::limits::Limits;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::alone::Behaviour;
use super::support::{Server, document, header, leader_elsewhere, problem};

async fn with_write_timeout(write_timeout: Duration) -> Server {
    Server::with_limits(Limits {
        write_timeout,
        ..Limits::default()
    })
    .await
}

/// Puts so many thousand keys into the namespace `large`.
async fn fill(server: &Server, thousands: usize) {
    for batch in 0..thousands {
        let items: Vec<Value> = (0..1000)
            .map(|i| json!({"op": "put", "namespace": "large", "key": format!("{batch}-{i}"), "value": i}))
            .collect();
        let put = server
            .post("/api/v1/batch")
            .json(&json!({ "items": items }));
        assert_eq!(put.send().await.unwrap().status(), StatusCode::OK);
    }
}

fn names(page: &Value) -> Vec<&str> {
    page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["namespace"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_made_once_and_counts_what_it_holds() {
    let server = Server::with_keys().await;
    let made = server
        .put("/api/v1/namespaces/shop/eu")
        .send()
        .await
        .unwrap();
    assert_eq!(made.status(), StatusCode::CREATED);
    assert!(!header(&made, "x-confman-version").is_empty());
    let made = document(made).await;
    assert_eq!(
        (&made["namespace"], &made["createdBy"]),
        (&json!("shop/eu"), &json!("the admin"))
    );
    let again = server
        .put("/api/v1/namespaces/shop/eu/")
        .json(&json!({}))
        .send()
        .await
        .unwrap();
    assert_eq!(again.status(), StatusCode::OK);
    assert_eq!(document(again).await["createdAt"], made["createdAt"]);

    server.set("shop/eu/tax", json!(1)).await;
    server.set("shop/eu/de/tax", json!(1)).await;
    let info = document(
        server
            .get("/api/v1/namespaces/shop/eu")
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!((&info["keys"], &info["children"]), (&json!(1), &json!(1)));
    let above = document(server.get("/api/v1/namespaces/shop").send().await.unwrap()).await;
    assert_eq!(
        (&above["keys"], &above["children"]),
        (&json!(0), &json!(1)),
        "those above are made with it"
    );
    problem(
        server
            .get("/api/v1/namespaces/shop/us")
            .send()
            .await
            .unwrap(),
        404,
        "not-found",
    )
    .await;
    let bodied = server
        .put("/api/v1/namespaces/x")
        .json(&json!({"createdBy": "root"}))
        .send()
        .await
        .unwrap();
    problem(bodied, 400, "invalid-request").await;
    let conditional = server
        .put("/api/v1/namespaces/x")
        .header("if-match", "*")
        .send()
        .await
        .unwrap();
    problem(conditional, 400, "invalid-request").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_one_over_all_groups() {
    let server = Server::with_shards(3).await;
    let mut expected = Vec::new();
    for top in ["a", "a-b", "b", "c", "d", "e", "f", "g"] {
        server.set(&format!("{top}/below/key"), json!(1)).await;
        expected.extend([top.to_owned(), format!("{top}/below")]);
    }
    expected.sort();
    let groups: std::collections::BTreeSet<usize> =
        expected.iter().map(|n| server.node.group_of(n)).collect();
    assert!(groups.len() > 1, "the names are spread over groups");
    for limit in [1, 5, 16, 100] {
        let mut seen: Vec<String> = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/api/v1/namespaces?limit={limit}{cursor}");
            let page = document(server.get(&path).send().await.unwrap()).await;
            seen.extend(names(&page).into_iter().map(str::to_owned));
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
            assert!(seen.len() <= expected.len());
        }
        assert_eq!(seen, expected, "limit {limit}");
    }
    let below = document(
        server
            .get("/api/v1/namespaces?prefix=a")
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(names(&below), ["a", "a/below"]);
    let paged = document(
        server
            .get("/api/v1/namespaces?prefix=a&limit=1")
            .send()
            .await
            .unwrap(),
    )
    .await;
    let next = paged["nextCursor"].as_str().unwrap();
    let rest = document(
        server
            .get(&format!("/api/v1/namespaces?prefix=a&cursor={next}"))
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(names(&rest), ["a/below"]);
    let wrong = server
        .get("/api/v1/namespaces?prefix=a//b")
        .send()
        .await
        .unwrap();
    assert_eq!(problem(wrong, 400, "invalid-name").await["field"], "prefix");
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_large_namespace_takes_several_commands_and_one_key() {
    let server = with_write_timeout(Duration::from_secs(60)).await;
    // One command deletes a bounded number of keys, far below this.
    fill(&server, 4).await;
    let before = server.node.state(0).applied().unwrap().index;
    for (round, keys) in [(0, "4000"), (1, "")] {
        let deleted = server
            .delete("/api/v1/namespaces/large")
            .header("idempotency-key", "del")
            .send()
            .await
            .unwrap();
        assert_eq!(deleted.status(), StatusCode::NO_CONTENT, "round {round}");
        assert_eq!(
            header(&deleted, "x-confman-deleted-keys"),
            keys,
            "round {round}"
        );
    }
    let commands = server.node.state(0).applied().unwrap().index - before;
    assert!(commands > 2, "it took several commands, not {commands}");
    problem(
        server.get("/api/v1/namespaces/large").send().await.unwrap(),
        404,
        "not-found",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_is_cut_off_says_that_it_was_begun() {
    let server = with_write_timeout(Duration::from_secs(60)).await;
    fill(&server, 3).await;
    let delete = || server.delete("/api/v1/namespaces/large").send();
    let next = leader_elsewhere(2, "http://127.0.0.1:9");
    // Nothing of it is done: it may be said, and sent elsewhere.
    server.node.behave(&Behaviour::LeadsFor(0, None));
    let refused = problem(delete().await.unwrap(), 503, "no-leader").await;
    assert!(refused["detail"].as_str().unwrap().contains("nothing was"));
    server
        .node
        .behave(&Behaviour::LeadsFor(0, Some(next.clone())));
    problem(delete().await.unwrap(), 307, "not-leader").await;
    // A thousand keys are gone: neither "nothing was written" nor a redirect, which a node that forwards would take for it.
    for (leader, why) in [(None, "no leader"), (Some(next), "node2 leads")] {
        server.node.behave(&Behaviour::LeadsFor(1, leader));
        let answer = delete().await.unwrap();
        assert_eq!(header(&answer, "retry-after"), "1");
        let refused = problem(answer, 503, "deleted-in-part").await;
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains("1000 keys"), "{detail}");
        assert!(detail.contains(why), "{detail}");
        assert!(!detail.contains("nothing was"), "{detail}");
        assert!(refused["hint"].as_str().unwrap().contains("send it again"));
    }
    server.node.behave(&Behaviour::Leads);
    let rest = delete().await.unwrap();
    assert_eq!(rest.status(), StatusCode::NO_CONTENT);
    assert_eq!(header(&rest, "x-confman-deleted-keys"), "1000");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_call_deletes_for_a_bounded_time_and_says_that_there_is_more() {
    let server = with_write_timeout(Duration::ZERO).await;
    fill(&server, 2).await;
    let delete = || {
        server
            .delete("/api/v1/namespaces/large")
            .header("idempotency-key", "del")
            .send()
    };
    for _ in 0..2 {
        let refused = problem(delete().await.unwrap(), 503, "deleted-in-part").await;
        let detail = refused["detail"].as_str().unwrap();
        assert!(
            detail.contains("1000 keys") && detail.contains("there is more"),
            "{detail}"
        );
    }
    let done = delete().await.unwrap();
    assert_eq!(done.status(), StatusCode::NO_CONTENT);
    assert_eq!(header(&done, "x-confman-deleted-keys"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_namespace_audits_every_key_that_goes_with_it() {
    let server = Server::with_keys().await;
    for i in 0..25 {
        server.set(&format!("shop/eu/k{i}"), json!(i)).await;
        server.set(&format!("shop/eu/de/k{i}"), json!(i)).await;
    }
    server.set("shop/us/tax", json!(1)).await;
    let deleted = server
        .delete("/api/v1/namespaces/shop/eu")
        .header("idempotency-key", "del")
        .header("x-correlation-id", "cleanup")
        .send()
        .await
        .unwrap();
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    assert_eq!(header(&deleted, "x-confman-deleted-keys"), "50");
    let again = server
        .delete("/api/v1/namespaces/shop/eu")
        .header("idempotency-key", "del")
        .send()
        .await
        .unwrap();
    assert_eq!(
        again.status(),
        StatusCode::NO_CONTENT,
        "a retry answers as the first did"
    );
    problem(
        server
            .delete("/api/v1/namespaces/shop/eu")
            .send()
            .await
            .unwrap(),
        404,
        "not-found",
    )
    .await;
    problem(
        server
            .get("/api/v1/config/shop/eu/k1")
            .send()
            .await
            .unwrap(),
        404,
        "not-found",
    )
    .await;
    problem(
        server
            .get("/api/v1/config/shop/eu/de/")
            .send()
            .await
            .unwrap(),
        404,
        "not-found",
    )
    .await;
    assert_eq!(
        document(
            server
                .get("/api/v1/config/shop/us/tax")
                .send()
                .await
                .unwrap()
        )
        .await["value"],
        1
    );

    let path = "/api/v1/audit?namespace=shop/eu&recursive=true&limit=1000";
    let page = document(server.get(path).send().await.unwrap()).await;
    let events = page["items"].as_array().unwrap();
    let deletes: Vec<&Value> = events.iter().filter(|e| e["action"] == "delete").collect();
    assert_eq!(deletes.len(), 50);
    assert!(
        deletes
            .iter()
            .all(|e| e["actor"] == "the admin" && e["correlationId"] == "cleanup")
    );
    assert!(
        events
            .iter()
            .any(|e| e["action"] == "namespace.delete" && e["namespace"] == "shop/eu")
    );
}
