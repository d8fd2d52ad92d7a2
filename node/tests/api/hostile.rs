//! Requests as nobody should send them, byte by byte over a socket: each gets a clear refusal, soon.

use std::time::{Duration, Instant};

use confman_node::api::access::NoKeys;
use confman_node::api::limits::Limits;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::{Behaviour, Server, document, problem};

/// No refusal takes longer.
const SOON: Duration = Duration::from_secs(20);

/// Sends bytes and reads until the other side has answered and closed, or has nothing to say.
async fn exchange(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The other side may close before it has read all of it.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    let read = async {
        loop {
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => break,
                Ok(n) => answer.extend_from_slice(&piece[..n]),
            }
        }
    };
    let _ = tokio::time::timeout(SOON, read).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    answer
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0)
}

/// A request that ends its connection.
fn request(line: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n{body}").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn i19_hostile_requests_get_a_clear_refusal_in_bounded_time() {
    let limits = Limits {
        head_timeout: Duration::from_secs(1),
        ..Limits::default()
    };
    let server = Server::with_limits(limits).await;
    let many_headers: String = (0..120).map(|i| format!("x-h{i}: v\r\n")).collect();
    let countless_headers: String = (0..100_000).map(|i| format!("x-h{i}: v\r\n")).collect();
    let big_headers: String = (0..50)
        .map(|i| format!("x-h{i}: {}\r\n", "v".repeat(1000)))
        .collect();
    let long_path = format!("GET /api/v1/config/{}", "a".repeat(40_000));
    let endless_path = format!("GET /{}", "a".repeat(1_000_000));
    let long_key = format!("GET /api/v1/config/ns/{}", "k".repeat(1025));
    let many_parameters = format!("GET /api/v1/namespaces?{}", "limit=1&".repeat(2000));
    let put = "PUT /api/v1/config/ns/key";
    let json_type = "content-type: application/json\r\n";
    let json = |body: &str| {
        (
            format!("{json_type}content-length: {}\r\n", body.len()),
            body.to_owned(),
        )
    };
    let deep = json(&format!("{{\"value\":{}", "[".repeat(1_000_000)));
    let closed = json(&format!(
        "{{\"value\":{}1{}}}",
        "[".repeat(5000),
        "]".repeat(5000)
    ));
    let repeated = json(r#"{"value":1,"value":2}"#);
    let inside = json(r#"{"value":{"a":[{"b":1,"b":2}]}}"#);
    let nan = json(r#"{"value":NaN}"#);
    let forged = json(r#"{"value":1,"version":99}"#);
    let surrogate = json(r#"{"value":"\ud800"}"#);

    // What is sent, the status, and the problem or field that the answer must name.
    let cases: Vec<(&str, Vec<u8>, &[u16], &str)> = vec![
        (
            "120 headers",
            request("GET /api/v1/status", &many_headers, ""),
            &[431],
            "headers-too-large",
        ),
        (
            "100,000 headers",
            request("GET /api/v1/status", &countless_headers, ""),
            &[431],
            "",
        ),
        (
            "50 KB of headers",
            request("GET /api/v1/status", &big_headers, ""),
            &[431],
            "headers-too-large",
        ),
        (
            "a path of 40 KB",
            request(&long_path, "", ""),
            &[414],
            "path",
        ),
        (
            "a path of 1 MB",
            request(&endless_path, "", ""),
            &[414, 431],
            "",
        ),
        (
            "a key of 1 KB",
            request(&long_key, "", ""),
            &[400],
            "invalid-name",
        ),
        (
            "2000 parameters",
            request(&many_parameters, "", ""),
            &[400],
            "limit",
        ),
        (
            "half a percent sign",
            request("GET /api/v1/config/ns/%f", "", ""),
            &[400],
            "invalid-name",
        ),
        (
            "no hex",
            request("GET /api/v1/config/ns/%zz", "", ""),
            &[400],
            "invalid-name",
        ),
        (
            "no UTF-8",
            request("GET /api/v1/config/ns/%ff%fe", "", ""),
            &[400],
            "invalid-name",
        ),
        (
            "a zero byte",
            request("GET /api/v1/config/ns/%00", "", ""),
            &[400],
            "invalid-name",
        ),
        (
            "an escape sequence",
            request("GET /api/v1/config/ns/%1b%5b31m", "", ""),
            &[400],
            "invalid-name",
        ),
        (
            "a way out",
            request("GET /api/v1/config/../../etc/passwd", "", ""),
            &[400],
            "invalid-name",
        ),
        (
            "a hidden way out",
            request("GET /api/v1/config/ns/%2e%2e%2f%2e%2e%2fetc", "", ""),
            &[400],
            "invalid-name",
        ),
        (
            "an encoded slash in a namespace",
            request("GET /api/v1/config/a%2fb/key", "", ""),
            &[400],
            "invalid-name",
        ),
        (
            "a namespace of nothing",
            request("GET /api/v1/config//key", "", ""),
            &[400],
            "invalid-name",
        ),
        (
            "no namespace",
            request("GET /api/v1/config/key", "", ""),
            &[400],
            "invalid-name",
        ),
        (
            "an unknown parameter",
            request("GET /api/v1/config/ns/key?raw=1", "", ""),
            &[400],
            "raw",
        ),
        (
            "a method of its own",
            request("FROB /api/v1/config/ns/key", "", ""),
            &[405],
            "method-not-allowed",
        ),
        (
            "a method override",
            request(
                "POST /api/v1/config/ns/key",
                "x-http-method-override: DELETE\r\ncontent-length: 0\r\n",
                "",
            ),
            &[405],
            "method-not-allowed",
        ),
        (
            "a path of nobody",
            request("GET /api/v2/config/ns/key", "", ""),
            &[404],
            "not-found",
        ),
        (
            "a whole URL as target",
            request("GET http://evil.example/api/v1/config/ns/none", "", ""),
            &[404],
            "not-found",
        ),
        (
            "a body of a terabyte",
            request(put, "content-length: 1099511627776\r\n", ""),
            &[413],
            "payload-too-large",
        ),
        (
            "a JSON body of 1 GB",
            request(
                put,
                &format!("{json_type}content-length: 1073741824\r\n"),
                "{\"value\":\"x",
            ),
            &[413],
            "content type other than application/json",
        ),
        (
            "a length that is no number",
            request(put, "content-length: abc\r\n", ""),
            &[400],
            "",
        ),
        (
            "a negative length",
            request(put, "content-length: -1\r\n", ""),
            &[400],
            "",
        ),
        (
            "two lengths",
            request(put, "content-length: 3\r\ncontent-length: 5\r\n", "abcde"),
            &[400],
            "",
        ),
        (
            "an unknown transfer coding",
            request(put, "transfer-encoding: gzip\r\n", "x"),
            &[400],
            "",
        ),
        (
            "a broken chunk",
            request(
                put,
                "transfer-encoding: chunked\r\n",
                "zz\r\nabc\r\n0\r\n\r\n",
            ),
            &[400],
            "body",
        ),
        (
            "a chunk of 2^64 bytes",
            request(
                put,
                "transfer-encoding: chunked\r\n",
                "ffffffffffffffffff\r\nabc",
            ),
            &[400],
            "body",
        ),
        (
            "depth without end",
            request(put, &deep.0, &deep.1),
            &[400],
            "nested deeper",
        ),
        (
            "depth that closes",
            request(put, &closed.0, &closed.1),
            &[400],
            "nested deeper",
        ),
        (
            "a repeated member",
            request(put, &repeated.0, &repeated.1),
            &[400],
            "repeated",
        ),
        (
            "a repeated member within",
            request(put, &inside.0, &inside.1),
            &[400],
            "repeated",
        ),
        ("not a number", request(put, &nan.0, &nan.1), &[400], "body"),
        (
            "a version from outside",
            request(put, &forged.0, &forged.1),
            &[400],
            "version",
        ),
        (
            "half a character",
            request(put, &surrogate.0, &surrogate.1),
            &[400],
            "value",
        ),
        (
            "a type of nobody",
            request(put, "x-confman-type: text\r\ncontent-length: 1\r\n", "x"),
            &[400],
            "x-confman-type",
        ),
        (
            "a compressed body",
            request(put, "content-encoding: gzip\r\ncontent-length: 1\r\n", "x"),
            &[415],
            "content-encoding",
        ),
        (
            "a part of a body",
            request(
                put,
                "content-range: bytes 0-0/9\r\ncontent-length: 1\r\n",
                "x",
            ),
            &[400],
            "content-range",
        ),
        (
            "two types",
            request(
                put,
                "x-confman-type: json\r\ncontent-type: application/json\r\ncontent-length: 11\r\n",
                "{\"value\":1}",
            ),
            &[400],
            "x-confman-type",
        ),
        (
            "a type that does not fit",
            request(put, "x-confman-type: number\r\ncontent-length: 1\r\n", "x"),
            &[400],
            "body",
        ),
        (
            "a condition that is none",
            request(put, "if-match: v1\r\ncontent-length: 1\r\n", "x"),
            &[400],
            "if-match",
        ),
        (
            "a switch that is none",
            request(
                put,
                "x-confman-skip-unchanged: maybe\r\ncontent-length: 1\r\n",
                "x",
            ),
            &[400],
            "x-confman-skip-unchanged",
        ),
        (
            "a key that is none",
            request(put, "idempotency-key: a b\r\ncontent-length: 1\r\n", "x"),
            &[400],
            "idempotency-key",
        ),
        (
            "no HTTP",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03hello".to_vec(),
            &[400, 0],
            "",
        ),
        (
            "an older HTTP",
            b"GET /health HTTP/0.9\r\n\r\n".to_vec(),
            &[400, 505, 0],
            "",
        ),
        (
            "a newer HTTP",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            &[400, 505, 0],
            "",
        ),
        ("nothing", b"\r\n\r\n\r\n".to_vec(), &[400, 0], ""),
    ];
    for (what, bytes, expected, named) in cases {
        let begun = Instant::now();
        let answer = exchange(server.address(), &bytes).await;
        let took = begun.elapsed();
        assert!(took < SOON, "{what} took {took:?}: {answer}");
        assert!(
            expected.contains(&status(&answer)),
            "{what}: expected {expected:?}, got {answer}"
        );
        assert!(
            answer.contains(named),
            "{what}: {named:?} is not in {answer}"
        );
        assert!(!answer.contains('\u{1b}'), "{what}: an escape came back");
        if !named.is_empty() {
            assert!(
                answer.contains("application/problem+json"),
                "{what}: {answer}"
            );
        }
    }
    problem(
        server.get("/api/v1/config/ns/key").send().await.unwrap(),
        404,
        "not-found",
    )
    .await;
    assert_eq!(
        server.get("/health").send().await.unwrap().status(),
        200,
        "and the node lives"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn i19_a_smuggled_request_is_not_answered() {
    let server = Server::start().await;
    let smuggled = "GET /api/v1/config/ns/smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    for headers in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding : chunked\r\n",
    ] {
        let bytes = format!(
            "PUT /api/v1/config/ns/front HTTP/1.1\r\nhost: x\r\n{headers}\r\n0\r\n\r\n{smuggled}"
        );
        let answer = exchange(server.address(), bytes.as_bytes()).await;
        let answers = answer.matches("HTTP/1.1 ").count();
        // Either the front request is refused and the connection ends, or its length is beyond doubt (chunked wins,
        // as RFC 9112 says) and what follows is a request of its own, from the same client.
        assert!(
            answers <= 1 || answer.contains("smuggled"),
            "{headers}: {answer}"
        );
        if answers > 1 {
            assert!(
                headers.contains("transfer-encoding: chunked\r\n"),
                "{headers}: {answer}"
            );
        }
    }
}

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
        stream
            .write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        held.push(stream);
    }
    let waiting = tokio::spawn({
        let address = server.address().to_owned();
        async move { exchange(&address, &request("GET /health", "", "")).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn numbers_beyond_64_bits_keep_their_digits() {
    let server = Server::start().await;
    let big = "184467440737095516150000000000000000001.000000000000000000000000010e+400";
    let put = server
        .put("/api/v1/config/ns/big")
        .header("content-type", "application/json")
        .body(format!("{{\"value\":{big}}}"));
    assert_eq!(put.send().await.unwrap().status(), 201);
    let text = server
        .get("/api/v1/config/ns/big")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(text.contains(big), "{text}");
}
