//! What operators and their tools ask: health, metrics, status, a snapshot now.
//!
//! Promises: the open endpoints name no key, no value and no actor.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use confman_client::wire::Caller;
use confman_client::wire::List;
use confman_client::wire::ProblemKind;
use confman_client::wire::StateHashAt;
use confman_snapshot::model::GroupId;
use http::StatusCode;

use super::Api;
use super::backend::GroupBackend;
use super::backend::SnapshotRequestError;
use super::call;
use super::call::Call;
use super::failure::Answer;
use super::failure::Failure;
use super::query::Query;
use super::read;
use super::write;
use crate::telemetry::METRICS_TEXT;

/// `GET /health`: the process lives.
pub(crate) async fn health(api: &Arc<Api>, _call: &mut Call) -> Answer {
    call::json(
        StatusCode::OK,
        &serde_json::json!({ "status": "alive", "node": api.backend.node_name() }),
    )
}

/// `GET /health/ready`: it may be sent requests.
pub(crate) async fn ready(api: &Arc<Api>, _call: &mut Call) -> Answer {
    let readiness = api.backend.readiness().await;
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    call::json(status, &readiness)
}

/// `GET /metrics`: Prometheus text.
pub(crate) async fn metrics(api: &Arc<Api>, _call: &mut Call) -> Answer {
    let mut response = Response::new(Body::from(api.backend.metrics_text()));
    call::set(&mut response, "content-type", METRICS_TEXT);
    Ok(response)
}

/// `GET /api/v1/status`.
pub(crate) async fn status(api: &Arc<Api>, call: &mut Call) -> Answer {
    Query::parse(call.uri.query(), &[])?;
    let mut status = api.backend.status().await;
    status.caller = Some(Caller {
        name: call.identity.name.clone(),
        role: call.identity.role.word().to_owned(),
    });
    call::json(StatusCode::OK, &status)
}

/// `GET /api/v1/status/peers`: which other nodes this one reaches now.
pub(crate) async fn peers(api: &Arc<Api>, call: &mut Call) -> Answer {
    Query::parse(call.uri.query(), &[])?;
    call::json(StatusCode::OK, &List::complete(api.backend.peers().await))
}

/// `GET /api/v1/status/hash`: this replica's state hash at one of its recent positions.
pub(crate) async fn state_hash(api: &Arc<Api>, call: &mut Call) -> Answer {
    let query = Query::parse(call.uri.query(), &["group", "index"])?;
    let needed = |name: &'static str| {
        query
            .get(name)
            .ok_or_else(|| Failure::invalid(name, format!("{name} is missing")))
    };
    let id = known_group(api, needed("group")?)?;
    let index: u64 = needed("index")?
        .parse()
        .map_err(|_| Failure::invalid("index", "index is a log index"))?;
    let replica = groups(api)
        .into_iter()
        .find(|group| *group.id() == id)
        .ok_or_else(|| Failure::internal("a known group without a replica"))?;
    // Waits while a batch is applied.
    let hash = read::blocking(replica.state(), move |state| Ok(state.hash_at(index))).await?;
    call::json(
        StatusCode::OK,
        &StateHashAt {
            group: id.to_string(),
            index,
            hash: hash.map(|hash| hash.to_string()),
        },
    )
}

/// `POST /api/v1/admin/snapshots`: answers when the snapshots are verified and recorded; with `wait=false` as soon as somebody
/// builds them.
pub(crate) async fn snapshots(api: &Arc<Api>, call: &mut Call) -> Answer {
    let query = Query::parse(call.uri.query(), &["group", "wait"])?;
    let wait = match query.get("wait") {
        None | Some("true") => true,
        Some("false") => false,
        Some(_) => return Err(Failure::invalid("wait", "it is true or false")),
    };
    let group = query
        .get("group")
        .map(|text| known_group(api, text))
        .transpose()?;
    let body = call.body()?.collect(1024, &api.budgets).await?;
    if !matches!(body.bytes.trim_ascii(), b"" | b"{}") {
        return Err(Failure::invalid(
            "body",
            "a snapshot is asked for without a body",
        ));
    }
    if !wait {
        let orders = api.backend.order_snapshot(group).await;
        let orders = orders.map_err(snapshot_failure)?;
        return call::json(StatusCode::ACCEPTED, &List::complete(orders));
    }
    let items = api
        .backend
        .request_snapshot(group)
        .await
        .map_err(snapshot_failure)?;
    call::json(StatusCode::OK, &List::complete(items))
}

fn groups(api: &Api) -> Vec<Arc<dyn GroupBackend>> {
    let mut all = vec![api.backend.meta()];
    all.extend(api.backend.config_groups());
    all
}

fn known_group(api: &Api, text: &str) -> Result<GroupId, Failure> {
    groups(api)
        .iter()
        .map(|group| group.id())
        .find(|id| id.to_string() == text)
        .cloned()
        .ok_or_else(|| {
            Failure::invalid("group", "there is no such group")
                .hint("GET /api/v1/status lists the groups")
        })
}

fn snapshot_failure(error: SnapshotRequestError) -> Failure {
    match error {
        SnapshotRequestError::Disabled => {
            Failure::new(ProblemKind::InvalidRequest, "snapshots are disabled")
                .status(StatusCode::CONFLICT)
                .hint("start the nodes with CONFMAN_SNAPSHOT_ENABLED=true")
        }
        SnapshotRequestError::NoLeader => write::no_leader(),
        SnapshotRequestError::Timeout => Failure::new(
            ProblemKind::WriteTimeout,
            "the snapshot was not finished in time: it may yet be",
        )
        .hint("GET /api/v1/status shows the newest snapshot of each group"),
        SnapshotRequestError::Failed { group, reason } => Failure::new(
            ProblemKind::SnapshotFailed,
            format!("the snapshot of {group} failed: {reason}"),
        )
        .hint("mend that and ask again; nodes try by themselves too. `drtool doctor` looks at the store, GET /api/v1/status shows snapshotError, the builder's log says more"),
    }
}
