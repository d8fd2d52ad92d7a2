//! What operators' tools ask of one node.

use reqwest::StatusCode;
use serde_json::json;

use super::support::{Server, document, problem};

#[tokio::test(flavor = "multi_thread")]
async fn i2_a_state_hash_is_told_for_positions_that_the_replica_has_been_at() {
    let server = Server::start().await;
    server.set("app/a", json!(1)).await;
    let hash_at = |index: u64| {
        let asked = server.get(&format!("/api/v1/status/hash?group=config/0&index={index}"));
        async move {
            let response = asked.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            document(response).await
        }
    };
    let applied = server.node.state(0).applied().unwrap().index;
    let before = hash_at(applied).await;
    assert_eq!(before["index"], applied);
    assert_eq!(before["hash"].as_str().unwrap().len(), 64, "{before}");
    server.set("app/a", json!(2)).await;
    let after = hash_at(applied + 1).await;
    assert_ne!(before["hash"], after["hash"]);
    assert_eq!(hash_at(applied).await, before, "the past stays as it was");
    assert_eq!(hash_at(applied + 1000).await["hash"], json!(null));
}

#[tokio::test(flavor = "multi_thread")]
async fn i19_a_state_hash_that_is_asked_for_wrongly_names_what_is_wrong() {
    let server = Server::start().await;
    for (query, field) in [
        ("group=config/0", "index"),
        ("index=1", "group"),
        ("group=config/7&index=1", "group"),
        ("group=config/0&index=-1", "index"),
        ("group=config/0&index=99999999999999999999999", "index"),
    ] {
        let response = server
            .get(&format!("/api/v1/status/hash?{query}"))
            .send()
            .await
            .unwrap();
        let problem = problem(response, 400, "invalid-request").await;
        assert_eq!(problem["field"], field, "{query}");
    }
}
