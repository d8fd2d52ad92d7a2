//! Clients that take too long, too much or too many places: each is bounded, and the node goes on for the others.

use std::time::{Duration, Instant};

use confman_node::api::access::NoKeys;
use confman_node::api::limits::Limits;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::alone::Behaviour;
use super::raw::{SOON, exchange, request, status};
use super::support::{Server, document, problem};

#[tokio::test(flavor = "multi_thread")]
async fn i19_slow_clients_are_ended() {
    let limits = Limits {
        head_timeout: Duration::from_millis(400),
        body_idle_timeout: Duration::from_millis(400),
        body_grace: Duration::from_millis(800),
        body_rate_min: 1 << 20,
        linger_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let server = Server::with_limits(limits).await;
    let begun = Instant::now();
    let head = exchange(
        server.address(),
        b"GET /health HTTP/1.1\r\nhost: x\r\nx-slow: ",
    )
    .await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{head}");

    let begun = Instant::now();
    let body = request(
        "PUT /api/v1/config/ns/key",
        "content-length: 1000\r\n",
        "only a little",
    );
    let answer = exchange(server.address(), &body).await;
    assert_eq!(status(&answer), 408, "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(8));

    // The idle limit alone, without the least rate.
    let patient = Limits {
        body_idle_timeout: Duration::from_millis(400),
        body_grace: Duration::from_secs(600),
        linger_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let idle = Server::with_limits(patient).await;
    let begun = Instant::now();
    let answer = exchange(idle.address(), &body).await;
    assert_eq!(status(&answer), 408, "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(8));

    // Never idle, and yet too slow: a byte each 50 ms.
    let begun = Instant::now();
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream
        .write_all(&request(
            "PUT /api/v1/config/ns/key",
            "content-length: 1000\r\n",
            "",
        ))
        .await
        .unwrap();
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if stream.write_all(b"x").await.is_err() {
            break;
        }
    }
    let mut answer = [0; 12];
    let read = stream.read_exact(&mut answer).await;
    assert!(read.is_err() || answer == *b"HTTP/1.1 408", "{answer:?}");
    assert!(
        begun.elapsed() < Duration::from_secs(6),
        "{:?}",
        begun.elapsed()
    );
    problem(
        server.get("/api/v1/config/ns/key").send().await.unwrap(),
        404,
        "not-found",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i19_a_reader_that_is_too_slow_loses_its_place() {
    let limits = Limits {
        transfers_max: 1,
        body_grace: Duration::from_millis(300),
        body_rate_min: 1 << 30,
        write_stall_timeout: Duration::from_millis(500),
        linger_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let server = Server::with_limits(Limits {
        body_grace: Duration::from_secs(60),
        ..limits.clone()
    })
    .await;
    assert_eq!(
        server
            .put("/api/v1/config/ns/big")
            .body(vec![1; 40 << 20])
            .send()
            .await
            .unwrap()
            .status(),
        201
    );
    let strict = Server::of(
        server.node.twin("node1"),
        std::sync::Arc::new(NoKeys),
        limits,
        None,
    )
    .await;
    let raw = request(
        "GET /api/v1/config/ns/big",
        "accept: application/octet-stream\r\n",
        "",
    );
    let mut stuck = TcpStream::connect(strict.address()).await.unwrap();
    stuck.write_all(&raw).await.unwrap();
    // It asks, and reads nothing: its place is given to the next.
    let begun = Instant::now();
    loop {
        let next = strict
            .get("/api/v1/config/ns/big")
            .header("accept", "application/octet-stream")
            .send()
            .await
            .unwrap();
        if next.status() == 200 {
            break;
        }
        assert_eq!(next.status(), 503);
        assert!(begun.elapsed() < SOON, "the place is given back");
    }
    // What it gets when it reads at last is visibly not the whole.
    let mut got = Vec::new();
    let _ = tokio::time::timeout(SOON, stuck.read_to_end(&mut got)).await;
    assert!(got.len() < 40 << 20, "{}", got.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_to_be_asked_is_refused_before_it_sends() {
    let server = Server::start().await;
    server.node.behave(&Behaviour::Follows(None));
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let head = "PUT /api/v1/config/ns/key HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 50000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(SOON, stream.read_exact(&mut answer))
        .await
        .expect("at once")
        .unwrap();
    assert_eq!(
        &answer, b"HTTP/1.1 503",
        "not 100: nothing of the body is wanted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn i19_too_many_at_once_are_told_to_come_back() {
    let limits = Limits {
        requests_max: 2,
        ..Limits::default()
    };
    let server = Server::with_limits(limits).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream
            .write_all(&request(
                "PUT /api/v1/config/ns/key",
                "content-length: 10\r\n",
                "half ",
            ))
            .await
            .unwrap();
        held.push(stream);
    }
    let begun = Instant::now();
    let refused = loop {
        let response = server.get("/api/v1/namespaces").send().await.unwrap();
        if response.status() == 503 {
            break response;
        }
        assert!(begun.elapsed() < SOON, "both places are taken by now");
    };
    assert_eq!(refused.headers()["retry-after"], "1");
    problem(refused, 503, "unavailable").await;
    assert_eq!(
        server.get("/health").send().await.unwrap().status(),
        200,
        "a full node still says that it lives"
    );
    for stream in &mut held {
        stream.write_all(b"whole").await.unwrap();
    }
    drop(held);
    let begun = Instant::now();
    while server
        .get("/api/v1/namespaces")
        .send()
        .await
        .unwrap()
        .status()
        != 200
    {
        assert!(begun.elapsed() < SOON, "the places are given back");
    }
}

/// Asks over a connection that stays open, and reads the answer to its end.
async fn get_health(stream: &mut TcpStream) {
    let ask = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(ask).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        let mut byte = [0; 1];
        stream.read_exact(&mut byte).await.unwrap();
        answer.extend_from_slice(&byte);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn i19_connections_have_a_limit_and_are_given_back() {
    let limits = Limits {
        connections_max: 3,
        ..Limits::default()
    };
    let server = Server::with_limits(limits).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        get_health(&mut stream).await;
        held.push(stream);
    }
    let waiting = tokio::spawn({
        let address = server.address().to_owned();
        async move { exchange(&address, &request("GET /health", "", "")).await }
    });
    // Many others are answered after it came, and it is not.
    let first = held.first_mut().unwrap();
    for _ in 0..200 {
        get_health(first).await;
    }
    assert!(!waiting.is_finished(), "the fourth waits");
    held.pop();
    assert_eq!(status(&waiting.await.unwrap()), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn i19_a_body_beyond_the_largest_value_is_refused_at_its_edge() {
    let limits = Limits {
        value_bytes_max: 1 << 20,
        ..Limits::default()
    };
    let server = Server::with_limits(limits).await;
    let put = |body: reqwest::Body| server.put("/api/v1/config/ns/key").body(body).send();
    assert_eq!(put(vec![1; 1 << 20].into()).await.unwrap().status(), 201);
    problem(
        put(vec![1; (1 << 20) + 1].into()).await.unwrap(),
        413,
        "payload-too-large",
    )
    .await;
    // Without an announced length it shows only on the way.
    let pieces = futures::stream::iter((0..80).map(|_| Ok::<_, std::io::Error>(vec![2; 16 << 10])));
    let chunked = put(reqwest::Body::wrap_stream(pieces)).await.unwrap();
    problem(chunked, 413, "payload-too-large").await;
    let enveloped = server
        .put("/api/v1/config/ns/key")
        .json(&json!({"value": "x".repeat((1 << 20) + 1)}))
        .send()
        .await
        .unwrap();
    problem(enveloped, 413, "payload-too-large").await;
    let read: Value = document(server.get("/api/v1/config/ns/key").send().await.unwrap()).await;
    assert_eq!(read["version"], 1, "nothing but the first was written");
}
