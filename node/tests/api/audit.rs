//! The audit history over HTTP: who, what, when, from what to what; complete across pages and groups.

use serde_json::{Value, json};

use super::support::{Server, document, problem};

async fn pages(server: &Server, query: &str, limit: usize) -> Vec<Value> {
    let mut events: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    for _ in 0..1000 {
        let path = format!("/api/v1/audit?{query}limit={limit}{cursor}");
        let page = document(server.get(&path).send().await.unwrap()).await;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= limit);
        events.extend(items.iter().cloned());
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return events,
        }
    }
    panic!("the history does not end");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_says_who_what_and_from_what_to_what() {
    let server = Server::with_keys().await;
    let put = server
        .put("/api/v1/config/shop/tax")
        .header("x-correlation-id", "deploy-7")
        .json(&json!({"value": 19}))
        .send()
        .await
        .unwrap();
    let request_id = put.headers()["x-request-id"].to_str().unwrap().to_owned();
    let hash = document(put).await["valueHash"].clone();
    server.set("shop/tax", json!("twenty")).await;
    server
        .delete("/api/v1/config/shop/tax")
        .send()
        .await
        .unwrap();

    let page = document(
        server
            .get("/api/v1/audit?namespace=shop&key=tax")
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(page["nextCursor"], Value::Null);
    let events = page["items"].as_array().unwrap();
    let actions: Vec<&str> = events
        .iter()
        .map(|e| e["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["delete", "put", "put"], "newest first");
    let first = &events[2];
    assert_eq!(first["actor"], "the admin");
    assert_eq!(first["namespace"], "shop");
    assert_eq!(first["key"], "tax");
    assert_eq!(first["version"], 1);
    assert_eq!(first["group"], "config/0");
    assert_eq!(first["requestId"], request_id);
    assert_eq!(first["correlationId"], "deploy-7");
    assert_eq!(first["oldValueHash"], Value::Null);
    assert_eq!(first["newValueHash"], hash);
    assert_eq!(first["newValue"], 19);
    assert_eq!(events[1]["oldValue"], 19);
    assert_eq!(events[1]["newValue"], "twenty");
    assert_eq!(events[0]["newValueHash"], Value::Null);
    let times: Vec<&str> = events.iter().map(|e| e["time"].as_str().unwrap()).collect();
    assert!(times.windows(2).all(|pair| pair[0] > pair[1]), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_actor_is_the_key_and_nothing_that_a_client_sends() {
    let server = Server::with_keys().await;
    for header in ["x-actor", "x-confman-actor", "x-forwarded-user", "from"] {
        let put = server
            .put("/api/v1/config/shop/tax")
            .header(header, "root")
            .json(&json!({"value": header}));
        assert!(put.send().await.unwrap().status().is_success());
    }
    let forged = server
        .put("/api/v1/config/shop/tax")
        .json(&json!({"value": 1, "actor": "root"}))
        .send()
        .await
        .unwrap();
    assert_eq!(
        problem(forged, 400, "invalid-request").await["field"],
        "actor"
    );
    let events = pages(&server, "namespace=shop&", 10).await;
    assert!(
        events.iter().all(|e| e["actor"] == "the admin"),
        "{events:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_join_to_the_whole_history_of_all_groups() {
    let server = Server::with_shards(3).await;
    for i in 0..40 {
        server
            .set(&format!("top{}/k{}", i % 7, i % 3), json!(i))
            .await;
    }
    let whole = pages(&server, "", 1000).await;
    let puts = whole.iter().filter(|e| e["action"] == "put").count();
    assert_eq!(puts, 40);
    let groups: std::collections::BTreeSet<&str> =
        whole.iter().map(|e| e["group"].as_str().unwrap()).collect();
    assert!(groups.len() > 1, "{groups:?}");
    let ids: std::collections::BTreeSet<&str> =
        whole.iter().map(|e| e["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), whole.len(), "each change once");
    assert!(
        whole
            .windows(2)
            .all(|pair| pair[0]["time"].as_str() >= pair[1]["time"].as_str()),
        "newest first"
    );
    for limit in [1, 3, 10] {
        assert_eq!(pages(&server, "", limit).await, whole, "limit {limit}");
    }
    let of_one = pages(&server, "namespace=top1&", 2).await;
    let expected: Vec<Value> = whole
        .iter()
        .filter(|e| e["namespace"] == "top1")
        .cloned()
        .collect();
    assert_eq!(of_one, expected);
    let of_key = pages(&server, "key=k1&", 2).await;
    let expected: Vec<Value> = whole.iter().filter(|e| e["key"] == "k1").cloned().collect();
    assert_eq!(of_key, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_between_pages_neither_repeats_nor_hides_a_change() {
    let server = Server::with_shards(3).await;
    for i in 0..12 {
        server.set(&format!("top{}/k", i % 4), json!(i)).await;
    }
    let before = pages(&server, "", 1000).await;
    let first = document(server.get("/api/v1/audit?limit=3").send().await.unwrap()).await;
    for i in 0..8 {
        server.set(&format!("top{}/k", i % 4), json!("late")).await;
    }
    let cursor = first["nextCursor"].as_str().unwrap();
    let rest = document(
        server
            .get(&format!("/api/v1/audit?limit=1000&cursor={cursor}"))
            .send()
            .await
            .unwrap(),
    )
    .await;
    let mut seen = first["items"].as_array().unwrap().clone();
    seen.extend(rest["items"].as_array().unwrap().iter().cloned());
    assert_eq!(seen, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_questions_are_named() {
    let server = Server::with_shards(2).await;
    server.set("a/k", json!(1)).await;
    server.set("a/k", json!(2)).await;
    let page = document(
        server
            .get("/api/v1/audit?namespace=a&limit=1")
            .send()
            .await
            .unwrap(),
    )
    .await;
    let foreign = page["nextCursor"].as_str().unwrap();
    for (query, field) in [
        ("limit=x".to_owned(), "limit"),
        ("from=1".to_owned(), "from"),
        ("recursive=true".to_owned(), "recursive"),
        ("recursive=1&namespace=a".to_owned(), "recursive"),
        ("cursor=abc".to_owned(), "cursor"),
        (format!("cursor={foreign}"), "cursor"),
        ("namespace=a&cursor=Y29uZmlnLzA9eC55".to_owned(), "cursor"),
    ] {
        let refused = problem(
            server
                .get(&format!("/api/v1/audit?{query}"))
                .send()
                .await
                .unwrap(),
            400,
            "invalid-request",
        )
        .await;
        assert_eq!(refused["field"], field, "{query}");
    }
    let name = server
        .get("/api/v1/audit?namespace=../etc")
        .send()
        .await
        .unwrap();
    assert_eq!(
        problem(name, 400, "invalid-name").await["field"],
        "namespace"
    );
}
