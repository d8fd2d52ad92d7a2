//! Servers that lie: an export must not trust a name, and must not take damaged bytes for good ones.

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::support::confman_at;

/// Serves one namespace with one key; the bytes hash to whatever `hash` claims.
fn serve(namespace: &'static str, key: &'static str, hash: String) -> String {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(format!("http://{}", listener.local_addr().unwrap()))
                .unwrap();
            let app = Router::new().fallback(move |request: Request| {
                let hash = hash.clone();
                async move { answer(&request, namespace, key, &hash) }
            });
            axum::serve(listener, app).await.unwrap();
        });
    });
    told.recv().unwrap()
}

fn answer(request: &Request, namespace: &str, key: &str, hash: &str) -> Response {
    let time = "2026-01-01T00:00:00.000000Z";
    let path = request.uri().path();
    if path == "/api/v1/namespaces" {
        let item = json!({"namespace": namespace, "createdAt": time, "createdBy": "x"});
        return json!({"items": [item], "nextCursor": null})
            .to_string()
            .into_response();
    }
    if path.ends_with('/') {
        let item = json!({"namespace": namespace, "key": key, "type": "string", "version": 1, "size": 4,
            "valueHash": hash, "updatedAt": time, "updatedBy": "x", "createdAt": time, "createdBy": "x"});
        return json!({"items": [item], "nextCursor": null})
            .to_string()
            .into_response();
    }
    ([("etag", "\"v1\""), ("x-confman-type", "string")], "evil").into_response()
}

/// The true hash of what the server sends.
fn true_hash() -> String {
    confman_snapshot::value_hash(b"evil")
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn a_server_that_tells_the_truth_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let ended = confman_at(
        &serve("a", "k", true_hash()),
        &["export", out.to_str().unwrap()],
    );
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(std::fs::read(out.join("a/k")).unwrap(), b"evil");
}

#[test]
fn x03_names_that_lead_out_of_the_directory_are_refused() {
    for (namespace, key) in [
        ("a", "../../escaped"),
        ("a", ".."),
        ("a", "x/../../../escaped"),
        ("..", "escaped"),
        ("a/../..", "escaped"),
        ("/tmp", "escaped"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("one/two/out");
        let url = serve(namespace, key, true_hash());
        let ended = confman_at(&url, &["export", out.to_str().unwrap(), "--timeout", "5"]);
        assert_ne!(ended.code, 0, "{namespace:?} {key:?} {ended:?}");
        let files: Vec<_> = walkdir::WalkDir::new(dir.path())
            .into_iter()
            .map(Result::unwrap)
            .filter(|entry| entry.file_type().is_file())
            .collect();
        assert!(files.is_empty(), "{namespace:?} {key:?}: {files:?}");
        assert!(!std::path::Path::new("/tmp/escaped").exists());
    }
}

#[test]
fn bytes_that_are_not_what_their_hash_says_get_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let wrong = "00".repeat(32);
    let ended = confman_at(
        &serve("a", "k", wrong),
        &["export", out.to_str().unwrap(), "--json"],
    );
    assert_eq!(ended.code, 5, "{ended:?}");
    assert_eq!(ended.json()["failures"][0]["damaged"], true);
    assert!(!out.join("a/k").exists());
    assert_eq!(
        std::fs::read_dir(out.join("a")).unwrap().count(),
        0,
        "nothing is left behind"
    );
}

#[test]
fn x17_what_a_server_sends_cannot_steer_the_terminal() {
    let url = serve("a\u{1b}[2J", "k\u{1b}]0;owned\u{7}", true_hash());
    for args in [&["list", "-r"][..], &["namespace", "list"]] {
        let ended = confman_at(&url, args);
        assert!(!ended.stdout.contains(&0x1b), "{args:?} {ended:?}");
        assert!(!ended.stderr.contains('\u{1b}'), "{args:?} {ended:?}");
    }
}
