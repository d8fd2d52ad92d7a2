//! Who may do what: every endpoint of the table with every role.

use std::collections::BTreeSet;

use confman_node::api::endpoints::ENDPOINTS;
use reqwest::Method;

use super::support::{Server, client, header, problem};

/// The least role that each endpoint takes, written down a second time on purpose. `-` is no key at all.
const EXPECTED: &[(&str, &str, &str)] = &[
    ("GET", "/health", "-"),
    ("GET", "/health/ready", "-"),
    ("GET", "/metrics", "-"),
    ("GET", "/api/v1/status", "viewer"),
    ("GET", "/api/v1/status/hash", "viewer"),
    ("GET", "/api/v1/status/peers", "viewer"),
    ("POST", "/api/v1/admin/snapshots", "admin"),
    ("GET", "/api/v1/admin/members", "admin"),
    ("POST", "/api/v1/admin/members/changes", "admin"),
    ("GET", "/api/v1/namespaces", "viewer"),
    ("GET", "/api/v1/namespaces/{*path}", "viewer"),
    ("PUT", "/api/v1/namespaces/{*path}", "editor"),
    ("DELETE", "/api/v1/namespaces/{*path}", "editor"),
    ("GET", "/api/v1/config/{*path}", "viewer"),
    ("PUT", "/api/v1/config/{*path}", "editor"),
    ("DELETE", "/api/v1/config/{*path}", "editor"),
    ("GET", "/api/v1/audit", "viewer"),
    ("POST", "/api/v1/batch", "editor"),
];

const ROLES: [&str; 5] = ["-", "viewer", "editor", "publisher", "admin"];

fn rank(role: &str) -> usize {
    ROLES.iter().position(|r| *r == role).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_asks_for_its_role() {
    let server = Server::with_keys().await;
    let table: BTreeSet<(&str, &str)> = ENDPOINTS
        .iter()
        .map(|e| (e.verb.as_str(), e.path))
        .collect();
    let expected: BTreeSet<(&str, &str)> = EXPECTED
        .iter()
        .map(|(verb, path, _)| (*verb, *path))
        .collect();
    assert_eq!(
        table, expected,
        "every endpoint has its role written down here"
    );

    let client = client().build().unwrap();
    for (verb, path, least) in EXPECTED {
        for role in ROLES {
            let path = path.replace("{*path}", "roles/thing");
            let request = client.request(
                Method::from_bytes(verb.as_bytes()).unwrap(),
                format!("{}{path}", server.url),
            );
            let request = match role {
                "-" => request,
                role => request.bearer_auth(format!("{role}-key")),
            };
            let response = request.send().await.unwrap();
            let status = response.status().as_u16();
            let what = format!("{verb} {path} as {role}: {status}");
            if rank(role) >= rank(least) {
                assert!(status != 401 && status != 403, "{what}");
                assert!(status < 500, "{what}");
            } else if role == "-" {
                assert_eq!(header(&response, "www-authenticate"), "Bearer", "{what}");
                problem(response, 401, "unauthorized").await;
            } else {
                problem(response, 403, "forbidden").await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_write_is_not_written() {
    let server = Server::with_keys().await;
    let client = client().build().unwrap();
    for key in [Some("viewer-key"), Some("no-key"), None] {
        let mut request = client
            .put(format!("{}/api/v1/config/secret/k", server.url))
            .body("x");
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        assert!(matches!(
            request.send().await.unwrap().status().as_u16(),
            401 | 403
        ));
    }
    problem(
        server.get("/api/v1/config/secret/k").send().await.unwrap(),
        404,
        "not-found",
    )
    .await;
    assert!(
        server
            .node
            .state(0)
            .get_namespace("secret")
            .unwrap()
            .is_none()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn i19_strange_credentials_are_all_the_same_401() {
    let server = Server::with_keys().await;
    let client = client().build().unwrap();
    let long = format!("Bearer {}", "x".repeat(20_000));
    let mut details = BTreeSet::new();
    for value in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer nobody",
        "Basic YWRtaW46YWRtaW4=",
        "admin-key",
        "Bearer admin-key2",
        "Bearer ADMIN-KEY",
        "Bearer admin-key,viewer-key",
        long.as_str(),
    ] {
        let response = client
            .get(format!("{}/api/v1/status", server.url))
            .header("authorization", value)
            .send()
            .await
            .unwrap();
        details.insert(problem(response, 401, "unauthorized").await["detail"].to_string());
    }
    let twice = client
        .get(format!("{}/api/v1/status", server.url))
        .header("authorization", "Bearer admin-key")
        .header("authorization", "Bearer viewer-key")
        .send()
        .await
        .unwrap();
    details.insert(problem(twice, 401, "unauthorized").await["detail"].to_string());
    assert_eq!(
        details.len(),
        1,
        "one answer, whatever is wrong: {details:?}"
    );
    // Unknown paths tell strangers nothing either.
    let nowhere = client
        .get(format!("{}/api/v1/nowhere", server.url))
        .send()
        .await
        .unwrap();
    problem(nowhere, 401, "unauthorized").await;
    let lower = client
        .get(format!("{}/api/v1/status", server.url))
        .header("authorization", "bearer admin-key");
    assert_eq!(
        lower.send().await.unwrap().status(),
        200,
        "the scheme has no case"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_open_endpoints_name_no_key_and_no_actor() {
    let server = Server::with_keys().await;
    server
        .set("canary/canary-key", serde_json::json!("canary-value"))
        .await;
    let client = client().build().unwrap();
    for path in ["/health", "/health/ready", "/metrics"] {
        let response = client
            .get(format!("{}{path}", server.url))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        let text = response.text().await.unwrap();
        assert!(
            !text.contains("canary") && !text.contains("the admin"),
            "{path}: {text}"
        );
    }
    *server.node.ready.lock() = false;
    let ready = client
        .get(format!("{}/health/ready", server.url))
        .send()
        .await
        .unwrap();
    assert_eq!(ready.status(), 503);
    assert!(
        ready.text().await.unwrap().contains("no leader"),
        "with the reason per group"
    );
    assert_eq!(
        client
            .get(format!("{}/health", server.url))
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
}
