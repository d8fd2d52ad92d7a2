//! What operators see of requests: metrics and the log. And what they must not see.

use std::io::Write;
use std::sync::{Arc, Mutex};

use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::json;

use super::alone::Behaviour;
use super::support::{Server, header};

#[derive(Clone, Default)]
struct Pages(Arc<Mutex<Vec<u8>>>);

impl Write for Pages {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs on one thread, so that what is set for the thread is set for the server.
fn on_one_thread(story: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(story);
}

#[test]
fn requests_are_counted_by_route_and_never_by_name() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        on_one_thread(async {
            let server = Server::start().await;
            server.set("shop/canary", json!(1)).await;
            server.set("shop/canary", json!(2)).await;
            for path in [
                "/api/v1/config/shop/canary",
                "/api/v1/config/shop/nothing",
                "/nowhere/canary",
            ] {
                server.get(path).send().await.unwrap();
            }
            let own = reqwest::Method::from_bytes(b"CANARY").unwrap();
            server
                .request(own, "/api/v1/config/shop/canary")
                .send()
                .await
                .unwrap();
        });
    });
    let text = handle.render();
    for line in [
        r#"confman_http_requests_total{route="/api/v1/config/{*path}",method="PUT",status="201"} 1"#,
        r#"confman_http_requests_total{route="/api/v1/config/{*path}",method="PUT",status="200"} 1"#,
        r#"confman_http_requests_total{route="/api/v1/config/{*path}",method="GET",status="200"} 1"#,
        r#"confman_http_requests_total{route="/api/v1/config/{*path}",method="GET",status="404"} 1"#,
        r#"confman_http_requests_total{route="none",method="GET",status="404"} 1"#,
        r#"confman_http_requests_total{route="none",method="other",status="405"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(
        text.contains(r#"confman_http_request_seconds_count{route="/api/v1/config/{*path}"} 4"#),
        "{text}"
    );
    assert!(!text.to_lowercase().contains("canary"), "{text}");
}

#[test]
fn the_log_follows_a_request_by_its_ids_and_tells_no_secret() {
    let pages = Pages::default();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("confman_node=trace")
        .with_ansi(false)
        .with_writer({
            let pages = pages.clone();
            move || pages.clone()
        })
        .finish();
    let mut request_ids = Vec::new();
    tracing::subscriber::with_default(subscriber, || {
        on_one_thread(async {
            let server = Server::with_keys().await;
            // Who logs first in this process decides whether anybody listens; other tests do not. Each line is
            // logged once, and then asked about again.
            server.set("warm/up", json!(1)).await;
            server.node.behave(&Behaviour::TooLate);
            server
                .put("/api/v1/config/warm/up")
                .body("x")
                .send()
                .await
                .unwrap();
            server.node.behave(&Behaviour::Leads);
            tracing::callsite::rebuild_interest_cache();
            let put = server
                .put("/api/v1/config/shop/line%0abreak")
                .header("x-correlation-id", "deploy-7")
                .json(&json!({"value": "canary-value"}))
                .send()
                .await
                .unwrap();
            assert_eq!(put.status(), 400);
            let put = server
                .put("/api/v1/config/shop/a%20b%E2%80%AE")
                .header("x-correlation-id", "deploy-8")
                .json(&json!({"value": "canary-value"}))
                .send()
                .await
                .unwrap();
            request_ids.push(header(&put, "x-request-id"));
            server
                .get("/api/v1/config/shop/a%20b?x=canary-query")
                .send()
                .await
                .unwrap();
            server
                .get("/api/v1/status")
                .bearer_auth("canary-key")
                .send()
                .await
                .unwrap();
            server.node.behave(&Behaviour::TooLate);
            let late = server
                .put("/api/v1/config/shop/k")
                .json(&json!({"value": "canary-value"}))
                .send()
                .await
                .unwrap();
            assert_eq!(late.status(), 504);
            request_ids.push(header(&late, "x-request-id"));
        });
    });
    let log = String::from_utf8(pages.0.lock().unwrap().clone()).unwrap();
    let ours: Vec<&str> = log.lines().collect();
    for id in request_ids
        .iter()
        .map(String::as_str)
        .chain(["deploy-7", "deploy-8"])
    {
        assert!(
            ours.iter().any(|line| line.contains(id)),
            "{id} is not in\n{log}"
        );
    }
    assert!(
        ours.iter()
            .any(|line| line.contains("DEBUG") && line.contains("the admin")),
        "with the actor\n{log}"
    );
    assert!(
        ours.iter()
            .any(|line| line.contains("WARN") && line.contains("status=504")),
        "a server error is a warning\n{log}"
    );
    assert!(
        !ours
            .iter()
            .any(|line| line.contains("WARN") && line.contains("status=400")),
        "a client's error is none\n{log}"
    );
    for secret in ["canary-value", "canary-query", "canary-key", "admin-key"] {
        assert!(
            !ours.iter().any(|line| line.contains(secret)),
            "{secret} is in\n{log}"
        );
    }
    assert!(
        log.contains("%0abreak") && !log.contains('\u{202e}'),
        "names stay encoded"
    );
}
