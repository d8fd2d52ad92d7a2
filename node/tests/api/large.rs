//! Large values: in parts, byte for byte, in bounded memory.

use futures::StreamExt as _;
use reqwest::{Body, StatusCode};
use serde_json::json;

use super::support::{Server, document, header, problem};

/// Bytes that no codec and no offset error leaves as they are.
fn noise(len: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn values_around_every_border_come_back_byte_for_byte() {
    let server = Server::start().await;
    const INLINE: usize = 256 << 10;
    const PART: usize = 512 << 10;
    let sizes = [
        1,
        INLINE - 1,
        INLINE,
        INLINE + 1,
        PART - 1,
        PART,
        PART + 1,
        2 * PART,
        3 * PART + 7,
        9 << 20,
    ];
    let all = noise(9 << 20);
    for size in sizes {
        let bytes = &all[..size];
        let put = server
            .put("/api/v1/config/large/file")
            .body(bytes.to_vec())
            .send()
            .await
            .unwrap();
        assert!(put.status().is_success(), "{size}: {put:?}");
        let head = document(put).await;
        assert_eq!(head["size"], size);
        assert_eq!(
            head["valueHash"],
            hex::encode(confman_snapshot::value_hash(bytes))
        );
        let get = server
            .get("/api/v1/config/large/file")
            .header("accept", "application/octet-stream")
            .send()
            .await
            .unwrap();
        assert_eq!(header(&get, "content-length"), size.to_string());
        assert!(get.bytes().await.unwrap() == bytes, "{size}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_upload_of_unknown_length_is_staged_as_it_comes() {
    let server = Server::start().await;
    let bytes = noise(5 << 20);
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> =
        bytes.chunks(10_007).map(|c| Ok(c.to_vec())).collect();
    let body = Body::wrap_stream(futures::stream::iter(pieces));
    let put = server
        .put("/api/v1/config/large/chunked")
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(put.status(), StatusCode::CREATED);
    let get = server
        .get("/api/v1/config/large/chunked")
        .header("accept", "application/octet-stream")
        .send()
        .await
        .unwrap();
    assert!(get.bytes().await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_can_be_read_as_json_up_to_a_bound() {
    let server = Server::start().await;
    let text = "ä".repeat(600 << 10);
    let put = server
        .put("/api/v1/config/large/text")
        .header("x-confman-type", "string")
        .body(text.clone());
    assert_eq!(put.send().await.unwrap().status(), StatusCode::CREATED);
    let read = document(
        server
            .get("/api/v1/config/large/text")
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(read["value"], json!(text));
    let put = server
        .put("/api/v1/config/large/text")
        .json(&json!({ "value": text }))
        .send()
        .await
        .unwrap();
    assert_eq!(put.status(), StatusCode::OK, "through the envelope as well");

    assert!(
        server
            .put("/api/v1/config/large/raw")
            .body(noise(17 << 20))
            .send()
            .await
            .unwrap()
            .status()
            .is_success()
    );
    // Whoever does not say what he takes gets what there is, and is told what it is.
    let whole = server.get("/api/v1/config/large/raw").send().await.unwrap();
    assert_eq!(whole.status(), StatusCode::OK);
    assert_eq!(header(&whole, "content-type"), "application/octet-stream");
    assert_eq!(whole.bytes().await.unwrap().len(), 17 << 20);
    let refused = server
        .get("/api/v1/config/large/raw")
        .header("accept", "application/json")
        .send()
        .await
        .unwrap();
    let refused = problem(refused, 406, "invalid-request").await;
    assert!(
        refused["hint"]
            .as_str()
            .unwrap()
            .contains("application/octet-stream")
    );
    let listed = document(
        server
            .get("/api/v1/config/large/?values=true")
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert!(
        listed["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|item| item.get("value").is_none()),
        "not inline, not listed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_or_broken_upload_writes_nothing() {
    let server = Server::start().await;
    let mut text = "[\"".to_owned() + &"x".repeat(3 << 20);
    let unfinished = server
        .put("/api/v1/config/large/json")
        .header("x-confman-type", "json")
        .body(text.clone());
    problem(unfinished.send().await.unwrap(), 400, "invalid-request").await;
    text.push_str("\"]");
    let whole = server
        .put("/api/v1/config/large/json")
        .header("x-confman-type", "json")
        .body(text);
    assert_eq!(whole.send().await.unwrap().status(), StatusCode::CREATED);

    // The client goes away in the middle.
    let pieces = futures::stream::iter(
        noise(2 << 20)
            .chunks(64 << 10)
            .map(|c| Ok(c.to_vec()))
            .collect::<Vec<_>>(),
    )
    .chain(futures::stream::iter([Err(std::io::Error::other("gone"))]));
    let broken = server
        .put("/api/v1/config/large/broken")
        .body(Body::wrap_stream(pieces))
        .send()
        .await;
    assert!(broken.is_err());
    problem(
        server
            .get("/api/v1/config/large/broken")
            .send()
            .await
            .unwrap(),
        404,
        "not-found",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_large_upload_is_applied_once() {
    let server = Server::start().await;
    let bytes = noise(2 << 20);
    let put = |bytes: Vec<u8>| {
        server
            .put("/api/v1/config/large/once")
            .header("idempotency-key", "upload-1")
            .body(bytes)
            .send()
    };
    let first = document(put(bytes.clone()).await.unwrap()).await;
    let again = put(bytes.clone()).await.unwrap();
    assert_eq!(header(&again, "idempotency-replayed"), "true");
    assert_eq!(document(again).await, first);
    let mut other = bytes;
    other[1_500_000] ^= 1;
    problem(put(other).await.unwrap(), 422, "idempotency-key-reused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_the_old_value_is_not_disturbed_by_a_new_one() {
    let server = Server::start().await;
    let old = noise(6 << 20);
    assert!(
        server
            .put("/api/v1/config/large/v")
            .body(old.clone())
            .send()
            .await
            .unwrap()
            .status()
            .is_success()
    );
    let mut reading = server
        .get("/api/v1/config/large/v")
        .header("accept", "application/octet-stream")
        .send()
        .await
        .unwrap();
    let mut got = reading.chunk().await.unwrap().unwrap().to_vec();
    assert!(
        server
            .put("/api/v1/config/large/v")
            .body("new")
            .send()
            .await
            .unwrap()
            .status()
            .is_success()
    );
    while let Some(piece) = reading.chunk().await.unwrap() {
        got.extend_from_slice(&piece);
    }
    assert!(got == old);
}
