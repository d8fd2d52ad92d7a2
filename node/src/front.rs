//! What the API listener answers before the node can: alive, not ready, and why.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use confman_client::wire::{NodeRef, Readiness};
use confman_store::Identity;
use metrics_exporter_prometheus::PrometheusHandle;
use tower::ServiceExt;

use crate::api::call;
use crate::telemetry::METRICS_TEXT;

/// The router in force. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Front {
    state: Arc<State>,
}

struct State {
    node_name: String,
    reason: ArcSwap<String>,
    /// Who the node is by its data, and of which cluster, as long as its life is not over.
    owner: ArcSwap<Option<(NodeRef, String)>>,
    open: ArcSwap<Option<Router>>,
    prometheus: PrometheusHandle,
}

impl Front {
    pub(crate) fn new(node_name: &str, prometheus: PrometheusHandle) -> Self {
        metrics::gauge!("confman_build_info", "version" => confman_cli::VERSION).set(1.0);
        metrics::gauge!("confman_serving").set(0.0);
        metrics::gauge!("confman_fenced").set(0.0);
        let state = State {
            node_name: node_name.to_owned(),
            reason: ArcSwap::from_pointee("the node has no identity yet; see its log".to_owned()),
            owner: ArcSwap::from_pointee(None),
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

    /// Says who the node is by its data, from now on: a tool that looks for survivors must not take it for gone while it opens
    /// them, which may take long.
    pub(crate) fn owned_by(&self, identity: &Identity) {
        let owner = NodeRef {
            id: identity.node_id,
            name: identity.name.clone(),
        };
        let cluster_uuid = identity.cluster_uuid.clone();
        self.state
            .owner
            .store(Arc::new(Some((owner, cluster_uuid))));
    }

    /// As [`Front::say`], for a node whose time is over.
    pub(crate) fn fenced(&self, reason: &str) {
        self.state.owner.store(Arc::new(None));
        metrics::gauge!("confman_fenced").set(1.0);
        self.say(format!("this node is fenced: {reason}"));
    }

    /// As [`Front::say`], for a node whose state of `group` differs from the recorded one.
    pub(crate) fn diverged(&self, group: &str, reason: &str) {
        self.state.owner.store(Arc::new(None));
        metrics::gauge!("confman_diverged", "group" => group.to_owned()).set(1.0);
        self.say(format!("this node serves nothing: {reason}"));
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
                    None => measured(&state, &request),
                }
            }
        })
    }
}

/// What the closed front answers is counted with what the API answers.
fn measured(state: &State, request: &Request) -> Response {
    let begun = Instant::now();
    let path = request.uri().path();
    let response = closed(state, path);
    // Paths are open-ended: what cannot be answered now is one series.
    let route = OPEN.iter().find(|open| **open == path);
    let route = route.copied().unwrap_or("(closed)");
    call::record(route, request.method(), response.status(), begun);
    response
}

/// What is answered whatever the node waits for.
const OPEN: [&str; 3] = ["/health", "/health/ready", "/metrics"];

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
            serde_json::json!(readiness(state, &reason)),
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

fn readiness(state: &State, reason: &str) -> Readiness {
    let owner = state.owner.load_full();
    let (node, cluster_uuid) = Option::clone(&owner).unzip();
    Readiness {
        ready: false,
        node,
        cluster_uuid,
        reason: Some(reason.to_owned()),
        groups: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    async fn ready(front: &Front) -> Readiness {
        let request = Request::get("/health/ready").body(Body::empty()).unwrap();
        let response = front.router().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let body = axum::body::to_bytes(response.into_body(), 1 << 16).await;
        serde_json::from_slice(&body.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_node_that_opens_its_data_says_who_it_is_until_its_time_is_over() {
        let handle = PrometheusBuilder::new().build_recorder().handle();
        let front = Front::new("node2", handle);
        assert_eq!(ready(&front).await.node, None);
        front.owned_by(&Identity {
            node_id: 7,
            name: "node2".to_owned(),
            cluster_uuid: "9364".to_owned(),
            ..Identity::default()
        });
        front.say("it opens its groups".to_owned());
        let said = ready(&front).await;
        assert_eq!(
            said.node.map(|n| (n.id, n.name)),
            Some((7, "node2".to_owned()))
        );
        assert_eq!(said.cluster_uuid.as_deref(), Some("9364"));
        assert_eq!(said.reason.as_deref(), Some("it opens its groups"));
        front.fenced("a newer life is there");
        assert_eq!(ready(&front).await.node, None);
    }
}
