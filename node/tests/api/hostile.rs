//! Requests as nobody should send them, byte by byte over a socket: each gets a clear refusal, soon.

use std::time::{Duration, Instant};

use confman_node::api::limits::Limits;

use super::raw::{SOON, exchange, request, status};
use super::support::{Server, problem};

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
