//! Namespaces: made by hand or with their first key, listed across groups, deleted with all below them.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::support::{Server, document, header, problem};

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
    let server = Server::start().await;
    // One command deletes a bounded number of keys, far below this.
    for batch in 0..4 {
        let items: Vec<Value> = (0..1000)
            .map(|i| json!({"op": "put", "namespace": "large", "key": format!("{batch}-{i}"), "value": i}))
            .collect();
        let put = server
            .post("/api/v1/batch")
            .json(&json!({ "items": items }));
        assert_eq!(put.send().await.unwrap().status(), StatusCode::OK);
    }
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
