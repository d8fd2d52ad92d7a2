//! Writes and reads on nodes that do not lead, do not know who does, or do not hear back in time.

use std::sync::Arc;

use confman_node::api::access::NoKeys;
use confman_node::api::backend::{LeaderInfo, SnapshotRequestError};
use confman_node::api::limits::Limits;
use confman_snapshot::model::GroupId;
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::alone::{Behaviour, INCARNATION};
use super::support::{Server, client, document, header, leader_elsewhere, problem};

pub(crate) async fn pair() -> (Server, Server) {
    let leader = Server::start().await;
    let info = LeaderInfo {
        api_url: format!("{}/", leader.url),
        ..leader.as_leader()
    };
    let follower = Server::of(
        leader.node.twin("node2"),
        Arc::new(NoKeys),
        Limits::default(),
        None,
    )
    .await;
    follower.node.behave(&Behaviour::Follows(Some(info)));
    (leader, follower)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_redirects_to_the_same_path_and_query_of_the_leader() {
    let (leader, follower) = pair().await;
    for (method, path) in [
        (Method::PUT, "/api/v1/config/shop/a%2Fb"),
        (Method::DELETE, "/api/v1/config/shop/%C3%A4%20"),
        (Method::PUT, "/api/v1/namespaces/shop"),
        (Method::DELETE, "/api/v1/namespaces/shop"),
    ] {
        let refused = follower.request(method.clone(), path).send().await.unwrap();
        assert_eq!(
            header(&refused, "location"),
            format!("{}{path}", leader.url),
            "{method}"
        );
        let refused = problem(refused, 307, "not-leader").await;
        assert!(refused["detail"].as_str().unwrap().contains("node1"));
    }
    // A wrong request is refused where it is, not sent around.
    let wrong = follower
        .put("/api/v1/config/shop/k")
        .header("if-match", "v1")
        .body("x")
        .send()
        .await
        .unwrap();
    problem(wrong, 400, "invalid-request").await;
    // A client that follows redirects gets there.
    let client = client().build().unwrap();
    let put = client
        .put(format!("{}/api/v1/config/shop/k", follower.url))
        .body("x")
        .send()
        .await
        .unwrap();
    assert_eq!(put.status(), StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_a_large_upload_is_read_although_the_body_was_not_wanted() {
    let (leader, follower) = pair().await;
    for _ in 0..5 {
        let refused = follower
            .put("/api/v1/config/shop/big")
            .body(vec![7; 20 << 20])
            .send()
            .await
            .unwrap();
        assert_eq!(
            header(&refused, "location"),
            format!("{}/api/v1/config/shop/big", leader.url)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_with_an_unread_body_is_not_used_again() {
    let (leader, follower) = pair().await;
    let put =
        |server: &Server, body: &'static str| server.put("/api/v1/config/shop/k").body(body).send();
    for _ in 0..100 {
        // Each answer comes before the body was looked at: the next request must not follow on the same connection.
        let refused = put(&follower, "unread").await.expect("an answer");
        assert_eq!(refused.status(), StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(header(&refused, "connection"), "close");
    }
    for body in ["read", ""] {
        let taken = put(&leader, body).await.unwrap();
        assert_eq!(
            header(&taken, "connection"),
            "",
            "it can be used again: {body:?}"
        );
    }
    let read = leader.get("/api/v1/config/shop/k").send().await.unwrap();
    assert_eq!(header(&read, "connection"), "");
    let forwarded = follower
        .put("/api/v1/config/shop/k")
        .header("x-confman-forward", "true")
        .body("read by another")
        .send()
        .await
        .unwrap();
    assert_eq!(forwarded.status(), StatusCode::OK);
    assert_eq!(header(&forwarded, "connection"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_leader_writes_are_refused_and_say_when_to_come_back() {
    let server = Server::start().await;
    for behaviour in [Behaviour::Follows(None), Behaviour::Deposed(None)] {
        server.node.behave(&behaviour);
        let put = server
            .put("/api/v1/config/shop/k")
            .body("x")
            .send()
            .await
            .unwrap();
        assert_eq!(header(&put, "retry-after"), "1");
        problem(put, 503, "no-leader").await;
    }
    // A node that was deposed may still name itself: that is no place to be sent to.
    let itself = server.as_leader();
    server.node.behave(&Behaviour::Deposed(Some(itself)));
    problem(
        server
            .put("/api/v1/config/shop/k")
            .body("x")
            .send()
            .await
            .unwrap(),
        503,
        "no-leader",
    )
    .await;
    let other = leader_elsewhere(2, "http://127.0.0.1:9");
    server.node.behave(&Behaviour::Deposed(Some(other)));
    let moved = server
        .put("/api/v1/config/shop/k")
        .body("x")
        .send()
        .await
        .unwrap();
    assert_eq!(
        header(&moved, "location"),
        "http://127.0.0.1:9/api/v1/config/shop/k"
    );
    problem(moved, 307, "not-leader").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unconfirmed_write_says_that_it_may_yet_happen() {
    let server = Server::start().await;
    server.node.behave(&Behaviour::TooLate);
    let put = |body: Vec<u8>| {
        server
            .put("/api/v1/config/shop/k")
            .header("idempotency-key", "k")
            .body(body)
            .send()
    };
    let late = problem(put(b"x".to_vec()).await.unwrap(), 504, "write-timeout").await;
    assert!(late["detail"].as_str().unwrap().contains("may yet happen"));
    assert!(late["hint"].as_str().unwrap().contains("Idempotency-Key"));
    // An upload whose parts are not confirmed has certainly not happened.
    let upload = server
        .put("/api/v1/config/shop/large")
        .body(vec![0; 2 << 20])
        .send()
        .await
        .unwrap();
    let upload = problem(upload, 503, "unavailable").await;
    assert!(
        upload["detail"]
            .as_str()
            .unwrap()
            .contains("nothing was written")
    );
    // It did happen here, and the retry says so.
    server.node.behave(&Behaviour::Leads);
    let retried = put(b"x".to_vec()).await.unwrap();
    assert_eq!(
        (
            retried.status(),
            header(&retried, "idempotency-replayed").as_str()
        ),
        (StatusCode::CREATED, "true")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_keep_what_their_mode_promises() {
    let server = Server::start().await;
    let put = server
        .put("/api/v1/config/shop/k")
        .json(&json!({"value": 1}))
        .send()
        .await
        .unwrap();
    let token = header(&put, "x-confman-version");
    let read = |mode: &str, token: &str| {
        let request = server
            .get("/api/v1/config/shop/k")
            .header("x-confman-consistency", mode);
        if token.is_empty() {
            request.send()
        } else {
            request.header("x-confman-version", token).send()
        }
    };
    for (mode, token) in [
        ("linearizable", ""),
        ("eventual", ""),
        ("read-your-writes", token.as_str()),
        ("linearizable", &token),
    ] {
        let answer = read(mode, token).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{mode}");
        assert!(
            header(&answer, "x-confman-version").starts_with(&format!("{INCARNATION}.")),
            "{mode}"
        );
    }
    let future = format!("{INCARNATION}.1.99999");
    problem(
        read("read-your-writes", &future).await.unwrap(),
        504,
        "read-timeout",
    )
    .await;
    let old = problem(
        read("read-your-writes", "6.1.1").await.unwrap(),
        409,
        "old-incarnation",
    )
    .await;
    assert!(old["hint"].as_str().unwrap().contains("anew"));
    problem(
        read("read-your-writes", "").await.unwrap(),
        400,
        "invalid-request",
    )
    .await;
    problem(read("strong", "").await.unwrap(), 400, "invalid-request").await;
    server.node.behave(&Behaviour::NoReads);
    let refused = read("linearizable", "").await.unwrap();
    assert_eq!(header(&refused, "retry-after"), "1");
    problem(refused, 503, "no-leader").await;
    assert_eq!(
        read("eventual", "").await.unwrap().status(),
        StatusCode::OK,
        "eventual needs nobody"
    );
    for path in [
        "/api/v1/namespaces",
        "/api/v1/namespaces/shop",
        "/api/v1/config/shop/",
        "/api/v1/audit",
    ] {
        problem(server.get(path).send().await.unwrap(), 503, "no-leader").await;
        let eventual = server
            .get(path)
            .header("x-confman-consistency", "eventual")
            .send()
            .await
            .unwrap();
        assert_eq!(eventual.status(), StatusCode::OK, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_answered_when_it_is_there_or_says_why_not() {
    let server = Server::start().await;
    let made = server
        .post("/api/v1/admin/snapshots?group=config/0")
        .send()
        .await
        .unwrap();
    assert_eq!(made.status(), StatusCode::OK);
    let made = document(made).await;
    assert_eq!(made["items"][0]["group"], "config/0");
    assert_eq!(
        document(
            server
                .post("/api/v1/admin/snapshots")
                .json(&json!({}))
                .send()
                .await
                .unwrap()
        )
        .await["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let ordered = server
        .post("/api/v1/admin/snapshots?group=config/0&wait=false")
        .send()
        .await
        .unwrap();
    assert_eq!(ordered.status(), StatusCode::ACCEPTED);
    let ordered = document(ordered).await;
    assert_eq!(
        ordered["items"],
        json!([{"group": "config/0", "underWay": false}])
    );
    for (query, field) in [
        ("group=config/9", "group"),
        ("group=", "group"),
        ("groups=x", "groups"),
        ("wait=soon", "wait"),
    ] {
        let refused = server
            .post(&format!("/api/v1/admin/snapshots?{query}"))
            .send()
            .await
            .unwrap();
        assert_eq!(
            problem(refused, 400, "invalid-request").await["field"],
            field
        );
    }
    for (error, status, slug) in [
        (SnapshotRequestError::Disabled, 409, "invalid-request"),
        (SnapshotRequestError::NoLeader, 503, "no-leader"),
        (SnapshotRequestError::Timeout, 504, "write-timeout"),
        (
            SnapshotRequestError::Failed {
                group: GroupId::config(0),
                reason: "upload: refused".to_owned(),
            },
            503,
            "snapshot-failed",
        ),
    ] {
        *server.node.snapshot.lock() = Err(error);
        problem(
            server.post("/api/v1/admin/snapshots").send().await.unwrap(),
            status,
            slug,
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_listener_answers_what_it_has_taken() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let server = Server::start().await;
    let address = server.address().to_owned();
    let mut upload = tokio::net::TcpStream::connect(&address).await.unwrap();
    let head = "PUT /api/v1/config/shop/slow HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 20000\r\n\r\n";
    upload.write_all(head.as_bytes()).await.unwrap();
    // It is under way when the node asks for its body; the listener is told to stop then.
    let mut asked = [0; 25];
    upload.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    let stopped = tokio::spawn(server.stop());
    let begun = std::time::Instant::now();
    while tokio::net::TcpStream::connect(&address).await.is_ok() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(20));
        tokio::task::yield_now().await;
    }
    upload.write_all(&[1; 20_000]).await.unwrap();
    let mut answer = [0; 12];
    upload.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 201");
    drop(upload);
    stopped.await.unwrap();
    assert!(
        tokio::net::TcpStream::connect(address).await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_do_not_hold_up_a_stop() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let server = Server::start().await;
    // One has been used and stays open, one has never said anything; neither reacts to being closed.
    let mut used = tokio::net::TcpStream::connect(server.address())
        .await
        .unwrap();
    used.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    used.read_exact(&mut [0; 12]).await.unwrap();
    let fresh = tokio::net::TcpStream::connect(server.address())
        .await
        .unwrap();
    server.get("/health").send().await.unwrap();
    let begun = std::time::Instant::now();
    server.stop().await;
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    drop((used, fresh));
}
