//! Nodes that take a request and say nothing, and nodes that only take their time.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use confman_client::{
    Client, ClientConfig, ClientError, Endpoint, ErrorKind, PutOptions, PutValue, Upload,
    wire::ValueType,
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};

/// Less than one attempt at a write may take: who waits it out has no time left for another.
const DEADLINE: Duration = Duration::from_secs(12);
/// Longer than a node may say nothing, were it not alive.
const SLOW: Duration = Duration::from_secs(5);

fn endpoint(listener: &TcpListener) -> Endpoint {
    let addr = listener.local_addr().unwrap();
    format!("http://{addr}").parse().unwrap()
}

/// As a stopped process: the kernel takes the connections, and nobody ever reads.
async fn stopped() -> (Endpoint, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (endpoint(&listener), listener)
}

/// A node that is alive, and answers all else after a while; and how often it was asked that.
async fn node(takes: Duration) -> (Endpoint, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = endpoint(&listener);
    let asked: Arc<AtomicUsize> = Arc::default();
    let count = asked.clone();
    let app = Router::new().fallback(move |request: Request| {
        let count = count.clone();
        async move {
            if request.uri().path() == "/health" {
                return StatusCode::OK.into_response();
            }
            count.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(takes).await;
            let name = request.headers().get("idempotency-key").unwrap();
            written(name.to_str().unwrap())
        }
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    (there, asked)
}

/// Answers with the write's name where an entry has its author.
fn written(name: &str) -> Response {
    let body = serde_json::json!({
        "namespace": "shop", "key": "tax", "type": "number", "version": 1, "size": 2, "valueHash": "00",
        "updatedAt": "2026-01-01T00:00:00.000000Z", "updatedBy": name,
        "createdAt": "2026-01-01T00:00:00.000000Z", "createdBy": "ci",
    });
    (StatusCode::CREATED, body.to_string()).into_response()
}

/// Puts, and answers with the name that the write had.
async fn put(endpoints: &[&Endpoint]) -> Result<String, ClientError> {
    let mut config = ClientConfig::new(endpoints.iter().map(|&e| e.clone()).collect());
    config.deadline = DEADLINE;
    let value = PutValue::Raw {
        upload: Upload::Bytes(Bytes::from_static(b"19")),
        value_type: ValueType::Number,
    };
    let client = Client::new(config).unwrap();
    let options = PutOptions::default();
    let put = client.put("shop", "tax", &value, &options).await?;
    Ok(put.value.head.updated_by)
}

async fn all_of(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_node_that_says_nothing_is_left_for_the_next_and_the_write_keeps_its_name() {
    let ((silent, listener), (good, asked)) = (stopped().await, node(Duration::ZERO).await);
    let name = put(&[&silent, &good]).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    // The process goes on: what it finds in its sockets is that write, which it may carry out, and the question.
    let (first, _) = listener.accept().await.unwrap();
    let (second, _) = listener.accept().await.unwrap();
    let (write, question) = (all_of(first).await, all_of(second).await);
    assert!(
        write.contains(&format!("idempotency-key: {name}\r\n")),
        "{write}"
    );
    assert!(question.starts_with("GET /health "), "{question}");
}

#[tokio::test]
async fn a_node_that_is_alive_is_given_the_time_that_it_takes() {
    let ((slow, of_slow), (other, of_other)) = (node(SLOW).await, node(Duration::ZERO).await);
    put(&[&slow, &other]).await.unwrap();
    let asked = [of_slow, of_other].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(asked, [1, 0]);
}

#[tokio::test]
async fn where_nobody_else_can_be_asked_a_silent_node_has_all_the_time_and_the_outcome_is_unknown()
{
    let (silent, listener) = stopped().await;
    let error = put(&[&silent]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
    assert!(
        error.to_string().contains("no answer within 12.0 s"),
        "{error}"
    );
    drop(listener);
}
