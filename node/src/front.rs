//! What the API listener answers before the node can: alive, not ready, and why.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tower::ServiceExt;

/// The router in force. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Front {
    state: Arc<State>,
}

struct State {
    node_name: String,
    reason: ArcSwap<String>,
    open: ArcSwap<Option<Router>>,
}

impl Front {
    pub(crate) fn new(node_name: &str) -> Self {
        let state = State {
            node_name: node_name.to_owned(),
            reason: ArcSwap::from_pointee("the node has no identity yet; see its log".to_owned()),
            open: ArcSwap::from_pointee(None),
        };
        Self {
            state: Arc::new(state),
        }
    }

    /// Answers with `router` from now on.
    pub(crate) fn open(&self, router: Router) {
        self.state.open.store(Arc::new(Some(router)));
    }

    /// Answers that the node is not ready, because of `reason`, from now on.
    pub(crate) fn say(&self, reason: String) {
        self.state.reason.store(Arc::new(reason));
        self.state.open.store(Arc::new(None));
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
