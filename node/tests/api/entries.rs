//! One entry at a time: its life, its types, its conditions, its retries, its lists.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::alone::INCARNATION;
use super::support::{Server, document, header, problem};

const TAX: &str = "/api/v1/config/shop/eu/tax";

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_lives_changes_and_dies() {
    let server = Server::with_keys().await;
    let made = server
        .put(TAX)
        .json(&json!({"value": 19}))
        .send()
        .await
        .unwrap();
    assert_eq!(made.status(), StatusCode::CREATED);
    assert_eq!(header(&made, "etag"), "\"v1\"");
    let token = header(&made, "x-confman-version");
    assert!(token.starts_with(&format!("{INCARNATION}.")), "{token}");
    let made = document(made).await;
    assert_eq!(made["namespace"], "shop/eu");
    assert_eq!(made["key"], "tax");
    assert_eq!(made["type"], "number");
    assert_eq!(made["version"], 1);
    assert_eq!(made["updatedBy"], "the admin");
    assert_eq!(made["createdAt"], made["updatedAt"]);
    assert_eq!(
        made.get("value"),
        None,
        "a write answers the entry less its value"
    );

    let changed = server
        .put(TAX)
        .json(&json!({"value": 20}))
        .send()
        .await
        .unwrap();
    assert_eq!(changed.status(), StatusCode::OK);
    assert_eq!(header(&changed, "etag"), "\"v2\"");

    let read = server.get(TAX).send().await.unwrap();
    assert_eq!(read.status(), StatusCode::OK);
    assert_eq!(header(&read, "etag"), "\"v2\"");
    assert_eq!(header(&read, "content-type"), "application/json");
    let read = document(read).await;
    assert_eq!(read["value"], 20);
    assert_eq!(read["version"], 2);
    assert_eq!(read["size"], 2);
    assert_eq!(read["valueHash"].as_str().unwrap().len(), 64);
    assert_eq!(read["createdAt"], made["createdAt"]);
    assert!(read["updatedAt"].as_str().unwrap() > made["updatedAt"].as_str().unwrap());

    let head = server.request(Method::HEAD, TAX).send().await.unwrap();
    assert_eq!(
        (head.status(), header(&head, "etag").as_str()),
        (StatusCode::OK, "\"v2\"")
    );

    let gone = server.delete(TAX).send().await.unwrap();
    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
    assert!(!header(&gone, "x-confman-version").is_empty());
    problem(server.get(TAX).send().await.unwrap(), 404, "not-found").await;
    problem(server.delete(TAX).send().await.unwrap(), 404, "not-found").await;

    let again = server.set("shop/eu/tax", json!(21)).await;
    assert!(again > 2, "a version is never used twice, got {again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_comes_back_as_it_was_put() {
    let server = Server::start().await;
    let envelopes = [
        (r#"{"value":"zw\u00f6lf\n"}"#, "string", r#""zwölf\n""#),
        (r#"{"value":1.10}"#, "number", "1.10"),
        (
            r#"{"value":123456789012345678901234567890}"#,
            "number",
            "123456789012345678901234567890",
        ),
        (r#"{"value":true}"#, "boolean", "true"),
        (r#"{"value":null}"#, "json", "null"),
        (
            r#"{"value":{"b": 1.0, "a": [ ]}}"#,
            "json",
            r#"{"b":1.0,"a":[]}"#,
        ),
        (r#"{"value":"AP8=","type":"binary"}"#, "binary", r#""AP8=""#),
    ];
    for (i, (body, value_type, value)) in envelopes.into_iter().enumerate() {
        let path = format!("/api/v1/config/types/json{i}");
        let put = server
            .put(&path)
            .header("content-type", "application/json; charset=utf-8")
            .body(body);
        assert_eq!(
            put.send().await.unwrap().status(),
            StatusCode::CREATED,
            "{body}"
        );
        let text = server
            .get(&path)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        assert!(
            text.contains(&format!("\"value\":{value}")),
            "{body}: {text}"
        );
        assert!(
            text.contains(&format!("\"type\":\"{value_type}\"")),
            "{body}: {text}"
        );
    }
    let raw: [(&str, &[u8]); 6] = [
        ("binary", b"\x00\xff\r\n"),
        ("string", "zwölf".as_bytes()),
        ("json", b"{ \"a\" : 1,\n \"b\":[] }\n"),
        ("number", b"1.50\n"),
        ("boolean", b"false"),
        ("binary", b""),
    ];
    for (i, (value_type, bytes)) in raw.into_iter().enumerate() {
        let path = format!("/api/v1/config/types/raw{i}");
        let put = server
            .put(&path)
            .header("content-type", "text/plain")
            .header("x-confman-type", value_type);
        assert_eq!(
            put.body(bytes).send().await.unwrap().status(),
            StatusCode::CREATED,
            "{value_type}"
        );
        let read = server
            .get(&path)
            .header("accept", "application/octet-stream")
            .send()
            .await
            .unwrap();
        assert_eq!(header(&read, "x-confman-type"), value_type);
        assert_eq!(header(&read, "content-length"), bytes.len().to_string());
        assert_eq!(header(&read, "content-type"), "application/octet-stream");
        assert_eq!(
            read.bytes().await.unwrap(),
            bytes,
            "{value_type} comes back byte for byte"
        );
        let read = document(server.get(&path).send().await.unwrap()).await;
        assert_eq!(read["type"], value_type);
        assert!(
            read.get("value").is_some(),
            "every type can be read as JSON"
        );
    }
    let unmarked = server
        .put("/api/v1/config/types/unmarked")
        .body("x")
        .send()
        .await
        .unwrap();
    assert_eq!(document(unmarked).await["type"], "binary");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slash_in_a_key_is_part_of_the_key() {
    let server = Server::start().await;
    server.set("shop/a%2Fb", json!(1)).await;
    server.set("shop/a/b", json!(2)).await;
    let slashed = document(
        server
            .get("/api/v1/config/shop/a%2fb")
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(
        (&slashed["namespace"], &slashed["key"], &slashed["value"]),
        (&json!("shop"), &json!("a/b"), &json!(1))
    );
    let nested = document(server.get("/api/v1/config/shop/a/b").send().await.unwrap()).await;
    assert_eq!(
        (&nested["namespace"], &nested["value"]),
        (&json!("shop/a"), &json!(2))
    );
    server.set("shop/100%25%20%C3%A4%2B", json!(3)).await;
    let listed = document(server.get("/api/v1/config/shop/").send().await.unwrap()).await;
    let keys: Vec<&str> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["key"].as_str().unwrap())
        .collect();
    assert_eq!(keys, ["100% ä+", "a/b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_compare_and_set() {
    let server = Server::start().await;
    let put = |name: &'static str, tag: &'static str| {
        server
            .put(TAX)
            .header(name, tag)
            .json(&json!({"value": name}))
            .send()
    };
    let missing = problem(
        put("if-match", "\"v1\"").await.unwrap(),
        412,
        "precondition-failed",
    )
    .await;
    assert_eq!(missing["currentVersion"], 0);
    problem(
        put("if-match", "*").await.unwrap(),
        412,
        "precondition-failed",
    )
    .await;
    assert_eq!(
        put("if-none-match", "*").await.unwrap().status(),
        StatusCode::CREATED
    );
    let exists = problem(
        put("if-none-match", "*").await.unwrap(),
        412,
        "precondition-failed",
    )
    .await;
    assert_eq!(exists["currentVersion"], 1);
    assert_eq!(
        put("if-match", "\"v1\"").await.unwrap().status(),
        StatusCode::OK
    );
    let stale = problem(
        put("if-match", "\"v1\"").await.unwrap(),
        412,
        "precondition-failed",
    )
    .await;
    assert_eq!(stale["currentVersion"], 2);
    assert_eq!(put("if-match", "*").await.unwrap().status(), StatusCode::OK);

    let unchanged = server
        .get(TAX)
        .header("if-none-match", "\"v3\"")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (unchanged.status(), header(&unchanged, "etag").as_str()),
        (StatusCode::NOT_MODIFIED, "\"v3\"")
    );
    assert!(unchanged.bytes().await.unwrap().is_empty());
    let newer = server
        .get(TAX)
        .header("if-none-match", "\"v2\"")
        .send()
        .await
        .unwrap();
    assert_eq!(newer.status(), StatusCode::OK);
    let other = server
        .get(TAX)
        .header("if-match", "\"v2\"")
        .send()
        .await
        .unwrap();
    assert_eq!(
        problem(other, 412, "precondition-failed").await["currentVersion"],
        3
    );

    let stale = server
        .delete(TAX)
        .header("if-match", "\"v2\"")
        .send()
        .await
        .unwrap();
    assert_eq!(
        problem(stale, 412, "precondition-failed").await["currentVersion"],
        3
    );
    let gone = server
        .delete(TAX)
        .header("if-match", "\"v3\"")
        .send()
        .await
        .unwrap();
    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_racing_compare_and_sets_one_wins() {
    let server = Server::start().await;
    server.set("race/counter", json!(0)).await;
    let racers = (0..20).map(|i| {
        server
            .put("/api/v1/config/race/counter")
            .header("if-match", "\"v1\"")
            .json(&json!({ "value": i }))
            .send()
    });
    let mut won = 0;
    for answer in futures::future::join_all(racers).await {
        match answer.unwrap().status() {
            StatusCode::OK => won += 1,
            status => assert_eq!(status, StatusCode::PRECONDITION_FAILED),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_with_an_idempotency_key_is_applied_once_and_answers_as_it_did() {
    let server = Server::with_keys().await;
    let put = |value: i32, key: &'static str| {
        server
            .put(TAX)
            .header("idempotency-key", key)
            .json(&json!({ "value": value }))
            .send()
    };
    let first = put(1, "k1").await.unwrap();
    let first_token = header(&first, "x-confman-version");
    assert_eq!(first.status(), StatusCode::CREATED);
    assert_eq!(header(&first, "idempotency-replayed"), "");
    let first = document(first).await;
    assert_eq!(put(2, "k2").await.unwrap().status(), StatusCode::OK);

    let retried = put(1, "k1").await.unwrap();
    assert_eq!(retried.status(), StatusCode::CREATED, "answers as it did");
    assert_eq!(header(&retried, "x-confman-version"), first_token);
    assert_eq!(header(&retried, "idempotency-replayed"), "true");
    assert_eq!(document(retried).await, first);
    assert_eq!(
        document(server.get(TAX).send().await.unwrap()).await["value"],
        2,
        "applied once"
    );

    // The same key for anything else is refused: another value, type, condition, method, path.
    let reused = problem(put(3, "k1").await.unwrap(), 422, "idempotency-key-reused").await;
    assert_eq!(reused["field"], "idempotency-key");
    let with =
        |method: Method, path: &str| server.request(method, path).header("idempotency-key", "k1");
    let others = [
        with(Method::PUT, TAX)
            .header("if-match", "*")
            .json(&json!({"value": 1})),
        with(Method::PUT, TAX).json(&json!({"value": 1, "type": "json"})),
        with(Method::PUT, "/api/v1/config/shop/eu/other").json(&json!({"value": 1})),
        with(Method::PUT, TAX)
            .header("x-confman-skip-unchanged", "true")
            .json(&json!({"value": 1})),
        with(Method::DELETE, TAX),
        with(Method::DELETE, "/api/v1/namespaces/shop"),
        with(Method::PUT, "/api/v1/namespaces/shop/eu"),
    ];
    for request in others {
        problem(request.send().await.unwrap(), 422, "idempotency-key-reused").await;
    }
    let read = document(server.get(TAX).send().await.unwrap()).await;
    assert_eq!((&read["value"], &read["version"]), (&json!(2), &json!(2)));

    let gone = server
        .delete(TAX)
        .header("idempotency-key", "d1")
        .send()
        .await
        .unwrap();
    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
    let again = server
        .delete(TAX)
        .header("idempotency-key", "d1")
        .send()
        .await
        .unwrap();
    assert_eq!(
        again.status(),
        StatusCode::NO_CONTENT,
        "a retried delete is no 404"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unchanged_values_make_no_version_when_asked() {
    let server = Server::start().await;
    let put = |body: &'static str, value_type: &'static str| {
        server
            .put(TAX)
            .header("content-type", "text/plain")
            .header("x-confman-type", value_type)
            .header("x-confman-skip-unchanged", "true")
            .body(body)
            .send()
    };
    let made = put("7", "string").await.unwrap();
    assert_eq!(
        (made.status(), header(&made, "x-confman-unchanged").as_str()),
        (StatusCode::CREATED, "")
    );
    let same = put("7", "string").await.unwrap();
    assert_eq!(
        (same.status(), header(&same, "x-confman-unchanged").as_str()),
        (StatusCode::OK, "true")
    );
    assert_eq!(header(&same, "etag"), "\"v1\"");
    let retyped = put("7", "number").await.unwrap();
    assert_eq!(header(&retyped, "etag"), "\"v2\"");
    let other = put("8", "number").await.unwrap();
    assert_eq!(
        (
            header(&other, "etag").as_str(),
            header(&other, "x-confman-unchanged").as_str()
        ),
        ("\"v3\"", "")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_pages_through_all_keys_in_order() {
    let server = Server::start().await;
    let mut expected: Vec<String> = (0..57).map(|i| format!("key {i}%/ä")).collect();
    expected.sort();
    for key in &expected {
        let encoded: String = key.bytes().map(|b| format!("%{b:02x}")).collect();
        server
            .set(&format!("many/keys/{encoded}"), json!(key))
            .await;
    }
    server.set("many/keys/below/x", json!(1)).await;
    for limit in [1, 7, 57, 58, 1000] {
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/api/v1/config/many/keys/?limit={limit}{cursor}");
            let page = document(server.get(&path).send().await.unwrap()).await;
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= limit);
            assert!(items.iter().all(|item| item.get("value").is_none()));
            seen.extend(
                items
                    .iter()
                    .map(|item| item["key"].as_str().unwrap().to_owned()),
            );
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
            assert!(seen.len() <= expected.len(), "the list does not end");
        }
        assert_eq!(seen, expected, "limit {limit}");
    }
    let page = document(
        server
            .get("/api/v1/config/many/keys/?values=true&limit=2")
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(page["items"][0]["value"], json!(expected[0]));
    problem(
        server.get("/api/v1/config/nowhere/").send().await.unwrap(),
        404,
        "not-found",
    )
    .await;
    for (query, field) in [
        ("limit=0", "limit"),
        ("cursor=%21", "cursor"),
        ("page=2", "page"),
        ("values=1", "values"),
    ] {
        let path = format!("/api/v1/config/many/keys/?{query}");
        let refused = problem(
            server.get(&path).send().await.unwrap(),
            400,
            "invalid-request",
        )
        .await;
        assert_eq!(refused["field"], field);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_with_large_values_ends_early_and_goes_on() {
    let server = Server::start().await;
    let text = "x".repeat(200 << 10);
    for i in 0..30 {
        let put = server
            .put(&format!("/api/v1/config/big/{i:02}"))
            .header("x-confman-type", "string");
        assert!(
            put.body(text.clone())
                .send()
                .await
                .unwrap()
                .status()
                .is_success()
        );
    }
    let mut seen = 0;
    let mut cursor = String::new();
    let mut pages = 0;
    loop {
        let path = format!("/api/v1/config/big/?limit=1000&values=true{cursor}");
        let body = server
            .get(&path)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        assert!(body.len() < 6 << 20, "a page of {} bytes", body.len());
        let page: Value = serde_json::from_str(&body).unwrap();
        seen += page["items"].as_array().unwrap().len();
        pages += 1;
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, 30);
    assert!(pages > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_made_or_taken_and_echoed() {
    let server = Server::start().await;
    let made = server.get("/api/v1/namespaces").send().await.unwrap();
    assert_eq!(header(&made, "x-request-id").len(), 32);
    assert_eq!(header(&made, "x-correlation-id").len(), 32);
    let other = server.get("/api/v1/namespaces").send().await.unwrap();
    assert_ne!(
        header(&made, "x-request-id"),
        header(&other, "x-request-id")
    );
    let taken = server
        .get("/nowhere")
        .header("x-correlation-id", "deploy-7")
        .send()
        .await
        .unwrap();
    assert_eq!(
        header(&taken, "x-correlation-id"),
        "deploy-7",
        "on errors as well"
    );
    let insane = server
        .get("/health")
        .header("x-correlation-id", "a b\tc")
        .send()
        .await
        .unwrap();
    assert_eq!(header(&insane, "x-correlation-id").len(), 32);
    assert_eq!(header(&insane, "x-content-type-options"), "nosniff");
}
