//! What clients have a follower send on: where it goes, as whom, and what its client is told.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use confman_node::api::access::NoKeys;
use confman_node::api::backend::LeaderInfo;
use confman_node::api::limits::Limits;
use futures::stream;
use reqwest::{Body, Method, StatusCode};
use serde_json::json;

use super::alone::Behaviour;
use super::leadership::pair;
use super::support::{Server, TestKeys, document, header, problem, serve_peers};

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_forwards_when_asked_and_gives_the_leaders_answer() {
    let (leader, follower) = pair().await;
    let forward = |method: Method, path: &str| {
        follower
            .request(method, path)
            .header("x-confman-forward", "true")
            .header("x-correlation-id", "c-1")
    };
    let path = "/api/v1/config/shop/a%2Fb";
    let put = forward(Method::PUT, path)
        .json(&json!({"value": 5}))
        .send()
        .await
        .unwrap();
    assert_eq!(put.status(), StatusCode::CREATED);
    assert_eq!(header(&put, "etag"), "\"v1\"");
    assert_eq!(header(&put, "x-correlation-id"), "c-1");
    assert!(!header(&put, "x-confman-version").is_empty());
    assert_eq!(document(put).await["key"], "a/b");
    let stale = forward(Method::PUT, path)
        .header("if-match", "\"v9\"")
        .json(&json!({"value": 6}))
        .send()
        .await
        .unwrap();
    problem(stale, 412, "precondition-failed").await;
    let large = vec![3; 3 << 20];
    let put = forward(Method::PUT, "/api/v1/config/shop/large")
        .body(large.clone())
        .send()
        .await
        .unwrap();
    assert_eq!(put.status(), StatusCode::CREATED);
    let read = leader
        .get("/api/v1/config/shop/large")
        .header("accept", "application/octet-stream")
        .send()
        .await
        .unwrap();
    assert!(read.bytes().await.unwrap() == large);
    assert_eq!(
        forward(Method::DELETE, path).send().await.unwrap().status(),
        StatusCode::NO_CONTENT
    );
    let audit = document(
        leader
            .get("/api/v1/audit?namespace=shop&key=a/b")
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(
        audit["items"][0]["correlationId"], "c-1",
        "the ids go with it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forwarded_request_carries_the_clients_key_and_no_other_right() {
    let leader = Server::with_keys().await;
    let info = leader.as_leader();
    let follower = Server::of(
        leader.node.twin("node2"),
        TestKeys::of_all_roles(),
        Limits::default(),
        None,
    )
    .await;
    follower.node.behave(&Behaviour::Follows(Some(info)));
    let put = |key: &str| {
        follower
            .put("/api/v1/config/shop/k")
            .bearer_auth(key)
            .header("x-confman-forward", "true")
            .body("x")
            .send()
    };
    assert_eq!(
        put("editor-key").await.unwrap().status(),
        StatusCode::CREATED
    );
    assert_eq!(
        put("viewer-key").await.unwrap().status(),
        StatusCode::FORBIDDEN
    );
    let entry = document(leader.get("/api/v1/config/shop/k").send().await.unwrap()).await;
    assert_eq!(entry["updatedBy"], "the editor");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_cannot_be_reached_is_no_lost_write() {
    let (leader, follower) = pair().await;
    follower.node.behave(&Behaviour::Follows(Some(LeaderInfo {
        // Nobody listens there, and no other test is given that port.
        peer_addr: "127.0.0.1:1".to_owned(),
        ..leader.as_leader()
    })));
    let put = follower
        .put("/api/v1/config/shop/k")
        .header("x-confman-forward", "true")
        .body("x")
        .send()
        .await
        .unwrap();
    assert_eq!(header(&put, "retry-after"), "1");
    let refused = problem(put, 503, "unavailable").await;
    assert!(
        refused["detail"]
            .as_str()
            .unwrap()
            .contains("nothing was written")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_breaks_off_leaves_it_open_whether_the_write_happens() {
    let (leader, follower) = pair().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer_addr = listener.local_addr().unwrap().to_string();
    let breaking = tokio::spawn(async move {
        use tokio::io::AsyncReadExt as _;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 64];
            let _ = stream.read(&mut head).await;
        }
    });
    follower.node.behave(&Behaviour::Follows(Some(LeaderInfo {
        peer_addr,
        ..leader.as_leader()
    })));
    let put = follower
        .put("/api/v1/config/shop/k")
        .header("x-confman-forward", "true")
        .body("x")
        .send()
        .await
        .unwrap();
    let refused = problem(put, 504, "write-timeout").await;
    assert!(
        refused["detail"]
            .as_str()
            .unwrap()
            .contains("may yet happen")
    );
    breaking.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_forwards_waits_as_long_as_a_leader_may_take_for_a_write() {
    let leader = Server::start().await;
    // Takes what comes and says nothing for five seconds.
    let slow = Router::new().fallback(|| async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        (StatusCode::NO_CONTENT, [("x-confman-answered", "true")])
    });
    let info = LeaderInfo {
        peer_addr: serve_peers(slow).await,
        ..leader.as_leader()
    };
    for (write_timeout_ms, status) in [(10, 504), (30_000, 204)] {
        let limits = Limits {
            write_timeout: Duration::from_millis(write_timeout_ms),
            ..Limits::default()
        };
        let follower = Server::of(leader.node.twin("node2"), Arc::new(NoKeys), limits, None).await;
        follower
            .node
            .behave(&Behaviour::Follows(Some(info.clone())));
        let answer = follower
            .delete("/api/v1/namespaces/large")
            .header("x-confman-forward", "true")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), status, "{write_timeout_ms} ms");
    }
}

/// Clients reach the API where no other node does: a port that a container publishes, a proxy.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_on_goes_where_nodes_reach_each_other() {
    let (leader, follower) = pair().await;
    follower.node.behave(&Behaviour::Follows(Some(LeaderInfo {
        api_url: "http://127.0.0.1:9".to_owned(),
        ..leader.as_leader()
    })));
    let put = follower
        .put("/api/v1/config/shop/k")
        .header("x-confman-forward", "true")
        .body("x")
        .send()
        .await
        .unwrap();
    assert_eq!(put.status(), StatusCode::CREATED);
}

/// An address was reused, or the leader has another life by now: it writes nothing, and the client is told.
#[tokio::test(flavor = "multi_thread")]
async fn i13_what_is_sent_on_to_another_node_or_life_is_not_written_there() {
    let (leader, follower) = pair().await;
    follower.node.behave(&Behaviour::Follows(Some(LeaderInfo {
        id: 7,
        ..leader.as_leader()
    })));
    let put = follower
        .put("/api/v1/config/shop/k")
        .header("x-confman-forward", "true")
        // A client's own word for it counts for nothing.
        .header("x-confman-addressee", "a-cluster/1/a-lineage/1")
        .body("x")
        .send()
        .await
        .unwrap();
    let refused = problem(put, 503, "unavailable").await;
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("another life"), "{detail}");
    assert!(detail.contains("nothing was written"), "{detail}");
    let read = leader.get("/api/v1/config/shop/k").send().await.unwrap();
    assert_eq!(read.status(), StatusCode::NOT_FOUND);
}

/// The client is at fault and can mend it: "it may yet happen" would have it wait and try again.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_or_too_slow_is_refused_as_by_the_leader() {
    let leader = Server::start().await;
    let limits = Limits {
        value_bytes_max: 1 << 20,
        body_idle_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let follower = Server::of(leader.node.twin("node2"), Arc::new(NoKeys), limits, None).await;
    follower
        .node
        .behave(&Behaviour::Follows(Some(leader.as_leader())));
    let put = |body: Body| {
        follower
            .put("/api/v1/config/shop/k")
            .header("x-confman-forward", "true")
            .body(body)
            .send()
    };
    let announced = put(vec![0; (1 << 20) + 1].into()).await.unwrap();
    problem(announced, 413, "payload-too-large").await;
    let pieces = (0..40).map(|_| Ok::<_, std::io::Error>(vec![0; 64 << 10]));
    let streamed = put(Body::wrap_stream(stream::iter(pieces))).await.unwrap();
    problem(streamed, 413, "payload-too-large").await;
    let stops = stream::once(async { Ok::<_, std::io::Error>("a") });
    let stops = futures::StreamExt::chain(stops, stream::pending());
    let slow = put(Body::wrap_stream(stops)).await.unwrap();
    problem(slow, 408, "invalid-request").await;
    let read = leader.get("/api/v1/config/shop/k").send().await.unwrap();
    assert_eq!(read.status(), StatusCode::NOT_FOUND, "nothing of it");
}

/// A version that knows nothing of this answers every path that it does not know with a success, as gRPC does: that is no write.
#[tokio::test(flavor = "multi_thread")]
async fn i1_a_leader_that_does_not_know_what_is_sent_on_has_written_nothing() {
    let (leader, follower) = pair().await;
    let older = Router::new().fallback(|| async {
        let grpc = [("content-type", "application/grpc"), ("grpc-status", "12")];
        (StatusCode::OK, grpc)
    });
    follower.node.behave(&Behaviour::Follows(Some(LeaderInfo {
        peer_addr: serve_peers(older).await,
        ..leader.as_leader()
    })));
    for method in [Method::PUT, Method::DELETE] {
        let sent = follower
            .request(method, "/api/v1/config/shop/k")
            .header("x-confman-forward", "true")
            .send()
            .await
            .unwrap();
        let refused = problem(sent, 503, "unavailable").await;
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains("version"), "{detail}");
        assert!(detail.contains("nothing was written"), "{detail}");
    }
}

/// Any content type but the envelope's is a value's own.
#[tokio::test(flavor = "multi_thread")]
async fn i1_a_value_of_the_content_type_of_grpc_is_written() {
    let (leader, follower) = pair().await;
    let put = follower
        .put("/api/v1/config/shop/k")
        .header("x-confman-forward", "true")
        .header("content-type", "application/grpc+proto")
        .body("x")
        .send()
        .await
        .unwrap();
    assert_eq!(put.status(), StatusCode::CREATED);
    assert_eq!(header(&put, "x-confman-answered"), "");
    let read = leader.get("/api/v1/config/shop/k").send().await.unwrap();
    assert_eq!(read.status(), StatusCode::OK);
}
