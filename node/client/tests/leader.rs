//! The client against small real servers: redirects, retries, lost answers, large values.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::{StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use confman_client::{
    Client, ClientConfig, ClientError, Endpoint, ErrorKind, Precondition, PutOptions, PutValue,
    ReadMode, Upload,
    wire::{Problem, ProblemKind, ValueType},
};
use secrecy::SecretString;

/// What a server saw.
#[derive(Debug, Clone)]
struct Seen {
    path: String,
    key: Option<String>,
    idempotency_key: Option<String>,
    forward: bool,
    body_bytes: usize,
}

#[derive(Clone)]
struct Server {
    endpoint: Endpoint,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// Serves with a function of the number of the request and of what was seen.
    async fn start(answer: impl Fn(usize, &Seen) -> Response + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint: Endpoint = format!("http://{}", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (log, answer) = (seen.clone(), Arc::new(answer));
        let app = Router::new().fallback(move |request: Request| {
            let (log, answer) = (log.clone(), answer.clone());
            async move {
                let mut seen = {
                    let header = |name: &str| {
                        request
                            .headers()
                            .get(name)
                            .map(|v| v.to_str().unwrap().to_owned())
                    };
                    Seen {
                        path: request.uri().to_string(),
                        key: header("authorization"),
                        idempotency_key: header("idempotency-key"),
                        forward: header("x-confman-forward").is_some(),
                        body_bytes: 0,
                    }
                };
                seen.body_bytes = to_bytes(request.into_body(), usize::MAX)
                    .await
                    .unwrap()
                    .len();
                let number = {
                    let mut log = log.lock().unwrap();
                    log.push(seen.clone());
                    log.len()
                };
                answer(number, &seen)
            }
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { endpoint, seen }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.seen()
            .iter()
            .filter(|seen| !seen.path.starts_with("/api/v1/status"))
            .count()
    }
}

/// An address where nobody listens, nor will: it is taken as long as the tests run.
async fn nobody() -> Endpoint {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let socket: &'static _ = Box::leak(Box::new(socket));
    format!("http://{}", socket.local_addr().unwrap())
        .parse()
        .unwrap()
}

fn client(endpoints: &[&Endpoint], deadline: Duration) -> Client {
    let mut config = ClientConfig::new(endpoints.iter().map(|&e| e.clone()).collect());
    config.api_key = Some(SecretString::from("sesame"));
    config.deadline = deadline;
    Client::new(config).unwrap()
}

const SHORT: Duration = Duration::from_millis(1500);
const LONG: Duration = Duration::from_secs(20);

fn head(version: u64) -> serde_json::Value {
    serde_json::json!({
        "namespace": "shop", "key": "tax", "type": "number", "version": version, "size": 2, "valueHash": "00",
        "updatedAt": "2026-01-01T00:00:00.000000Z", "updatedBy": "ci",
        "createdAt": "2026-01-01T00:00:00.000000Z", "createdBy": "ci",
    })
}

fn created() -> Response {
    (StatusCode::CREATED, head(1).to_string()).into_response()
}

fn sent_on(to: &Endpoint, seen: &Seen) -> Response {
    (
        StatusCode::TEMPORARY_REDIRECT,
        [(LOCATION, format!("{to}{}", seen.path))],
    )
        .into_response()
}

fn refusal(kind: ProblemKind) -> Response {
    let problem = Problem::new(kind, "as told").with_current_version(7);
    (
        StatusCode::from_u16(kind.status()).unwrap(),
        serde_json::to_string(&problem).unwrap(),
    )
        .into_response()
}

fn status_naming(leader: &Endpoint) -> Response {
    serde_json::json!({
        "clusterUuid": "u", "incarnation": 1, "node": {"id": 1, "name": "node1"}, "ready": true,
        "groups": [{
            "group": "config/0", "role": "follower", "term": 1,
            "leader": {"id": 2, "name": "node2", "apiUrl": leader.to_string()},
            "lastIndex": 1, "committedIndex": 1, "appliedIndex": 1, "purgedIndex": 0, "logEntries": 1, "logBytes": 1,
            "stateHash": {"index": 1, "hash": "00"}, "snapshot": null, "snapshotError": null, "restore": null,
            "members": [],
        }],
    })
    .to_string()
    .into_response()
}

async fn put(client: &Client) -> Result<u64, ClientError> {
    let value = PutValue::Raw {
        upload: Upload::Bytes(Bytes::from_static(b"19")),
        value_type: ValueType::Number,
    };
    client
        .put("shop", "tax", &value, &PutOptions::default())
        .await
        .map(|written| written.value.head.version)
}

#[tokio::test]
async fn a_redirect_to_a_given_endpoint_is_followed_with_the_key_and_remembered() {
    let leader = Server::start(|_, _| created()).await;
    let to = leader.endpoint.clone();
    let follower = Server::start(move |_, seen| sent_on(&to, seen)).await;
    let client = client(&[&follower.endpoint, &leader.endpoint], LONG);
    assert_eq!(put(&client).await.unwrap(), 1);
    assert_eq!(put(&client).await.unwrap(), 1);
    assert_eq!(
        follower.count(),
        1,
        "the second write goes to the leader at once"
    );
    let seen = leader.seen();
    assert_eq!(seen[0].key.as_deref(), Some("Bearer sesame"));
    assert_eq!(seen[0].path, "/api/v1/config/shop/tax");
    assert_eq!(seen[0].body_bytes, 2);
    assert_eq!(seen[0].idempotency_key, follower.seen()[0].idempotency_key);
    assert_ne!(seen[0].idempotency_key, seen[1].idempotency_key);
}

#[tokio::test]
async fn a_redirect_to_a_member_that_a_known_node_names_is_followed() {
    let leader = Server::start(|_, _| created()).await;
    let to = leader.endpoint.clone();
    let follower = Server::start(move |_, seen| match seen.path.as_str() {
        "/api/v1/status" => status_naming(&to),
        _ => sent_on(&to, seen),
    })
    .await;
    let client = client(&[&follower.endpoint], LONG);
    assert_eq!(put(&client).await.unwrap(), 1);
    assert_eq!(leader.seen()[0].key.as_deref(), Some("Bearer sesame"));
}

#[tokio::test]
async fn x15_neither_the_key_nor_the_value_goes_to_a_foreign_host() {
    let foreign = Server::start(|_, _| created()).await;
    let (to, other) = (foreign.endpoint.clone(), nobody().await);
    let follower = Server::start(move |_, seen| match seen.path.as_str() {
        "/api/v1/status" => status_naming(&other),
        _ => sent_on(&to, seen),
    })
    .await;
    let client = client(&[&follower.endpoint], LONG);
    let error = put(&client).await.unwrap_err();
    assert!(
        matches!(error, ClientError::ForeignRedirect { .. }),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(foreign.seen().is_empty(), "{:?}", foreign.seen());
}

#[tokio::test]
async fn nodes_that_redirect_in_circles_are_left_when_time_is_over() {
    let a = Server::start(|_, _| created()).await;
    drop(a);
    let listener_b = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let b: Endpoint = format!("http://{}", listener_b.local_addr().unwrap())
        .parse()
        .unwrap();
    let to_b = b.clone();
    let a = Server::start(move |_, seen| sent_on(&to_b, seen)).await;
    let to_a = a.endpoint.clone();
    let app = Router::new().fallback(move |request: Request| {
        let to = format!("{to_a}{}", request.uri());
        async move { (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, to)]) }
    });
    tokio::spawn(async move { axum::serve(listener_b, app).await });
    let started = Instant::now();
    let error = put(&client(&[&a.endpoint, &b], SHORT)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert!(started.elapsed() < SHORT + Duration::from_secs(1));
    assert!(a.count() < 40, "{} requests in {SHORT:?}", a.count());
}

#[tokio::test]
async fn a_node_without_leader_is_asked_again_with_the_same_idempotency_key() {
    let node = Server::start(|number, _| {
        if number < 3 {
            refusal(ProblemKind::NoLeader)
        } else {
            created()
        }
    })
    .await;
    assert_eq!(put(&client(&[&node.endpoint], LONG)).await.unwrap(), 1);
    let keys: std::collections::BTreeSet<_> = node
        .seen()
        .into_iter()
        .map(|seen| seen.idempotency_key)
        .collect();
    assert_eq!((node.count(), keys.len()), (3, 1));
    assert_eq!(keys.first().unwrap().as_ref().map(String::len), Some(32));
}

#[tokio::test]
async fn a_dead_node_is_passed_over() {
    let (dead, node) = (nobody().await, Server::start(|_, _| created()).await);
    let started = Instant::now();
    assert_eq!(
        put(&client(&[&dead, &node.endpoint], LONG)).await.unwrap(),
        1
    );
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn an_unreachable_leader_is_reached_through_the_node_that_named_it() {
    let leader = nobody().await;
    let to = leader.clone();
    let follower = Server::start(move |_, seen| match (seen.path.as_str(), seen.forward) {
        ("/api/v1/status", _) => status_naming(&to),
        (_, false) => sent_on(&to, seen),
        (_, true) => created(),
    })
    .await;
    assert_eq!(put(&client(&[&follower.endpoint], LONG)).await.unwrap(), 1);
}

/// A server that takes requests and closes the connection without a word, `times` times, then answers.
async fn mute(times: usize) -> (Endpoint, Arc<Mutex<Vec<String>>>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint: Endpoint = format!("http://{}", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let keys: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = keys.clone();
    tokio::spawn(async move {
        for number in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut text = String::new();
            while !text.ends_with("\r\n\r\n19") {
                let mut buffer = [0; 4096];
                let n = stream.read(&mut buffer).await.unwrap();
                if n == 0 {
                    break;
                }
                text.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
            }
            let key = text
                .lines()
                .find_map(|line| line.strip_prefix("idempotency-key: "))
                .unwrap()
                .to_owned();
            log.lock().unwrap().push(key);
            if number >= times {
                let body = head(1).to_string();
                let answer = format!(
                    "HTTP/1.1 201 Created\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    (endpoint, keys)
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_under_the_same_name() {
    let (endpoint, keys) = mute(2).await;
    assert_eq!(put(&client(&[&endpoint], LONG)).await.unwrap(), 1);
    let keys = keys.lock().unwrap().clone();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
}

#[tokio::test]
async fn a_write_without_an_answer_is_unknown_and_never_called_failed() {
    let (endpoint, _) = mute(usize::MAX).await;
    let error = put(&client(&[&endpoint], SHORT)).await.unwrap_err();
    assert!(matches!(error, ClientError::Unconfirmed { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unknown);
    assert!(error.to_string().contains("may yet happen"), "{error}");
}

#[tokio::test]
async fn a_deletion_goes_on_for_as_long_as_it_comes_on() {
    let node = Server::start(|number, _| {
        // Longer in all than the deadline, shorter each time.
        std::thread::sleep(SHORT / 3);
        match number {
            1..=5 => refusal(ProblemKind::DeletedInPart),
            _ => StatusCode::NO_CONTENT.into_response(),
        }
    })
    .await;
    let asked = client(&[&node.endpoint, &nobody().await], SHORT);
    asked.delete_namespace("large").await.unwrap();
    let keys: Vec<_> = node
        .seen()
        .into_iter()
        .map(|seen| seen.idempotency_key)
        .collect();
    assert_eq!(keys.len(), 6);
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");

    let node = Server::start(|number, _| match number {
        1 => refusal(ProblemKind::DeletedInPart),
        _ => refusal(ProblemKind::NoLeader),
    })
    .await;
    let asked = client(&[&node.endpoint], SHORT);
    let error = asked.delete_namespace("large").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
}

/// Of a deletion that was begun, that nothing is left is the end, and not that there was nothing.
#[tokio::test]
async fn a_deletion_whose_rest_somebody_else_deleted_is_done() {
    let node = Server::start(|number, _| match number {
        1 => refusal(ProblemKind::DeletedInPart),
        2 => refusal(ProblemKind::NoLeader),
        _ => refusal(ProblemKind::NotFound),
    })
    .await;
    let asked = client(&[&node.endpoint], LONG);
    asked.delete_namespace("large").await.unwrap();
    assert_eq!(node.seen().len(), 3);
    // Where none of it was deleted there was nothing.
    let node = Server::start(|_, _| refusal(ProblemKind::NotFound)).await;
    let asked = client(&[&node.endpoint], LONG);
    let error = asked.delete_namespace("large").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[tokio::test]
async fn a_write_that_was_never_sent_is_unreachable() {
    let error = put(&client(&[&nobody().await], SHORT)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
}

#[tokio::test]
async fn a_key_that_is_refused_after_a_lost_answer_decides_nothing() {
    let node = Server::start(|number, _| {
        if number == 1 {
            refusal(ProblemKind::WriteTimeout)
        } else {
            refusal(ProblemKind::Forbidden)
        }
    })
    .await;
    let error = put(&client(&[&node.endpoint], LONG)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
    let node = Server::start(|number, _| {
        if number == 1 {
            refusal(ProblemKind::WriteTimeout)
        } else {
            refusal(ProblemKind::PreconditionFailed)
        }
    })
    .await;
    let error = put(&client(&[&node.endpoint], LONG)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert_eq!(error.problem().unwrap().current_version, Some(7));
}

#[tokio::test]
async fn refusals_come_back_at_once_and_by_kind() {
    for (kind, expected) in [
        (ProblemKind::NotFound, ErrorKind::NotFound),
        (ProblemKind::PreconditionFailed, ErrorKind::Refused),
        (ProblemKind::Unauthorized, ErrorKind::Refused),
        (ProblemKind::InvalidName, ErrorKind::Usage),
        (ProblemKind::Internal, ErrorKind::Bug),
    ] {
        let node = Server::start(move |_, _| refusal(kind)).await;
        let client = client(&[&node.endpoint], LONG);
        let error = client
            .delete("shop", "tax", Precondition::VersionIs(3))
            .await
            .unwrap_err();
        assert_eq!((error.kind(), node.count()), (expected, 1), "{error}");
    }
}

#[tokio::test]
async fn what_is_not_confman_is_said_to_be_so() {
    let node = Server::start(|_, _| "<html>welcome</html>".into_response()).await;
    let error = client(&[&node.endpoint], LONG)
        .get("shop", "tax", ReadMode::Linearizable)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("not Confman's"), "{error}");
    let node =
        Server::start(|_, _| (StatusCode::NOT_FOUND, "<html>nothing here</html>").into_response())
            .await;
    let error = client(&[&node.endpoint], LONG)
        .get("shop", "tax", ReadMode::Linearizable)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("nothing here"), "{error}");
}

#[tokio::test]
async fn large_values_are_streamed_both_ways() {
    const BYTES: usize = 24 << 20;
    let node = Server::start(|_, seen| match seen.path.as_str() {
        "/api/v1/status" => refusal(ProblemKind::Internal),
        _ if seen.body_bytes > 0 => created(),
        _ => {
            let chunk = Bytes::from(vec![7u8; 1 << 20]);
            let stream =
                futures::stream::iter((0..24).map(move |_| Ok::<_, std::io::Error>(chunk.clone())));
            (
                [("etag", "\"v6\""), ("x-confman-type", "binary")],
                Body::from_stream(stream),
            )
                .into_response()
        }
    })
    .await;
    let client = client(&[&node.endpoint], LONG);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large");
    std::fs::write(&path, vec![9u8; BYTES]).unwrap();
    let value = PutValue::Raw {
        upload: Upload::file(&path).await.unwrap(),
        value_type: ValueType::Binary,
    };
    client
        .put("shop", "film", &value, &PutOptions::default())
        .await
        .unwrap();
    assert!(node.seen().iter().any(|seen| seen.body_bytes == BYTES));
    let mut raw = client
        .get_raw("shop", "film", ReadMode::Eventual)
        .await
        .unwrap()
        .value;
    assert_eq!(
        (raw.version, raw.value_type),
        (Some(6), Some(ValueType::Binary))
    );
    let mut received = 0;
    while let Some(chunk) = raw.body.next_chunk().await.unwrap() {
        assert!(chunk.iter().all(|&b| b == 7));
        received += chunk.len();
    }
    assert_eq!(received, BYTES);
}

#[tokio::test]
async fn a_download_that_breaks_off_is_an_error() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint: Endpoint = format!("http://{}", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc")
            .await
            .unwrap();
    });
    let raw = client(&[&endpoint], LONG)
        .get_raw("shop", "film", ReadMode::Eventual)
        .await
        .unwrap()
        .value;
    assert_eq!(raw.body.announced_bytes(), Some(100));
    let error = raw.body.bytes(1 << 20).await.unwrap_err();
    assert!(
        matches!(error, ClientError::BrokenOff { received: 3, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn an_entry_that_is_still_the_same_is_not_sent_again() {
    let node = Server::start(|_, _| StatusCode::NOT_MODIFIED.into_response()).await;
    let client = client(&[&node.endpoint], LONG);
    assert!(
        client
            .get_unless("shop", "tax", 6, ReadMode::Linearizable)
            .await
            .unwrap()
            .value
            .is_none()
    );
}
