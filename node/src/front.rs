//! What the API listener answers before the node can: alive, not ready, and why.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::PrometheusHandle;
use tower::ServiceExt;

use crate::telemetry::METRICS_TEXT;

/// The router in force. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Front {
    state: Arc<State>,
}

struct State {
    node_name: String,
    reason: ArcSwap<String>,
    open: ArcSwap<Option<Router>>,
    prometheus: PrometheusHandle,
}

impl Front {
    pub(crate) fn new(node_name: &str, prometheus: PrometheusHandle) -> Self {
        metrics::gauge!("confman_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        metrics::gauge!("confman_serving").set(0.0);
        metrics::gauge!("confman_fenced").set(0.0);
        let state = State {
            node_name: node_name.to_owned(),
            reason: ArcSwap::from_pointee("the node has no identity yet; see its log".to_owned()),
            open: ArcSwap::from_pointee(None),
            prometheus,
        };
        Self {
            state: Arc::new(state),
        }
    }

    /// Answers with `router` from now on.
    pub(crate) fn open(&self, router: Router) {
        metrics::gauge!("confman_serving").set(1.0);
        self.state.open.store(Arc::new(Some(router)));
    }

    /// Answers that the node is not ready, because of `reason`, from now on.
    pub(crate) fn say(&self, reason: String) {
        self.state.reason.store(Arc::new(reason));
        metrics::gauge!("confman_serving").set(0.0);
        self.state.open.store(Arc::new(None));
    }

    /// As [`Front::say`], for a node whose time is over.
    pub(crate) fn fenced(&self, reason: &str) {
        metrics::gauge!("confman_fenced").set(1.0);
        self.say(format!("this node is fenced: {reason}"));
    }

    /// The router to serve.
    pub(crate) fn router(&self) -> Router {
        let state = Arc::clone(&self.state);
        Router::new().fallback(move |request: Request| {
            let state = Arc::clone(&state);
            async move {
                let open = state.open.load_full();
                match &*open {
                    Some(router) => match router.clone().oneshot(request).await {
                        Ok(response) => response,
                        Err(never) => match never {},
                    },
                    None => closed(&state, request.uri().path()),
                }
            }
        })
    }
}

fn closed(state: &State, path: &str) -> Response {
    // A node that does not serve is watched most closely.
    if path == "/metrics" {
        let kind = [(header::CONTENT_TYPE, METRICS_TEXT)];
        return (StatusCode::OK, kind, state.prometheus.render()).into_response();
    }
    let reason = state.reason.load_full();
    let (status, kind, body) = match path {
        "/health" => (
            StatusCode::OK,
            "application/json",
            serde_json::json!({"status": "alive", "node": state.node_name}),
        ),
        "/health/ready" => (
            StatusCode::SERVICE_UNAVAILABLE,
            "application/json",
            serde_json::json!({"ready": false, "node": null, "reason": *reason, "groups": []}),
        ),
        _ => (
            StatusCode::SERVICE_UNAVAILABLE,
            "application/problem+json",
            serde_json::json!({
                "type": "urn:confman:problem:unavailable", "title": "the node does not serve yet",
                "status": 503, "detail": *reason, "hint": "ask another node, or look at /health/ready and the node's log",
            }),
        ),
    };
    let headers = [(header::CONTENT_TYPE, kind), (header::RETRY_AFTER, "1")];
    (status, headers, Body::from(body.to_string())).into_response()
}
