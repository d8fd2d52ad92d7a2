//! The server as anybody meets it: by plain HTTP, without a client's help.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use confman_dev_s3::{ConditionalWrites, S3Config, ServeError, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn config(root: &Path) -> S3Config {
    S3Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        root: root.join("objects"),
        access_key: "test-access-key".to_owned(),
        secret_key: "canary-secret-key".to_owned(),
        bucket: "bucket".to_owned(),
        conditional_writes: ConditionalWrites::default(),
    }
}

async fn ask(addr: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_request_without_a_signature_gets_nothing() {
    let root = tempfile::tempdir().unwrap();
    let server = serve(config(root.path())).await.unwrap();
    std::fs::write(root.path().join("objects/bucket/secret"), b"canary").unwrap();
    let auth = "Authorization: AWS4-HMAC-SHA256 Credential=test-access-key/20260101/us-east-1/s3/aws4_request, \
         SignedHeaders=host;x-amz-date, Signature=00\r\nx-amz-date: 20260101T000000Z\r\n";
    for auth in ["", auth] {
        for request in [
            "GET /bucket/secret",
            "GET /bucket?list-type=2",
            "PUT /bucket/new",
            "DELETE /bucket/secret",
        ] {
            let head = format!(
                "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n{auth}\r\n"
            );
            let answer = ask(server.addr(), &head).await;
            assert!(answer.starts_with("HTTP/1.1 4"), "{request}: {answer}");
            assert!(!answer.contains("canary"), "{request}: {answer}");
        }
    }
    let left: Vec<_> = std::fs::read_dir(root.path().join("objects/bucket"))
        .unwrap()
        .collect();
    assert_eq!(left.len(), 1);
    server.shutdown().await;
}

#[tokio::test]
async fn a_second_start_finds_the_bucket_and_its_objects() {
    let root = tempfile::tempdir().unwrap();
    serve(config(root.path())).await.unwrap().shutdown().await;
    std::fs::write(root.path().join("objects/bucket/kept"), b"x").unwrap();
    let server = serve(config(root.path())).await.unwrap();
    assert!(root.path().join("objects/bucket/kept").exists());
    assert_eq!(server.endpoint(), format!("http://{}", server.addr()));
    assert!(
        server
            .env()
            .iter()
            .any(|(name, value)| name == "AWS_ENDPOINT_URL" && *value == server.endpoint())
    );
}

#[tokio::test]
async fn what_other_machines_could_reach_is_refused() {
    let root = tempfile::tempdir().unwrap();
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let config = S3Config {
            listen: listen.parse().unwrap(),
            ..config(root.path())
        };
        assert!(
            matches!(serve(config).await, Err(ServeError::NotLoopback(_))),
            "{listen}"
        );
    }
    for bucket in ["..", "a/b", "", "UPPER"] {
        let config = S3Config {
            bucket: bucket.to_owned(),
            ..config(root.path())
        };
        assert!(
            matches!(serve(config).await, Err(ServeError::Bucket(_))),
            "{bucket}"
        );
    }
    assert!(!root.path().join("objects").exists());
    assert!(!format!("{:?}", config(root.path())).contains("canary"));
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_idle_clients_and_frees_the_port() {
    let root = tempfile::tempdir().unwrap();
    let server = serve(config(root.path())).await.unwrap();
    let addr = server.addr();
    // Connected, and silent; and one that has sent half a head.
    let _idle = TcpStream::connect(addr).await.unwrap();
    let mut half = TcpStream::connect(addr).await.unwrap();
    half.write_all(b"GET /bucket/x HTTP/1.1\r\nHost: ")
        .await
        .unwrap();
    let started = Instant::now();
    server.shutdown().await;
    assert!(
        started.elapsed() < Duration::from_secs(8),
        "{:?}",
        started.elapsed()
    );
    let again = S3Config {
        listen: addr,
        ..config(root.path())
    };
    serve(again).await.unwrap();
}
