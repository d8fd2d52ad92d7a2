//! Namespaces: `/api/v1/namespaces` and one of them at `/api/v1/namespaces/{path}`.
//!
//! Promises: deleting a namespace deletes all below it and audits every key; one call deletes for a bounded time, and says so
//! when there is more; a deletion that is cut off says that it was begun, and is gone on with by sending it again.

use std::sync::Arc;

use confman_client::wire::List;
use confman_client::wire::ProblemKind;
use confman_store::NamespaceItem;
use confman_store::command::Answer as Applied;
use confman_store::command::CreateNamespace;
use confman_store::command::DeleteNamespace;
use confman_store::command::NamespaceDeleted;
use confman_store::command::Op;
use confman_store::command::RefusalCode;
use http::StatusCode;
use tokio::time::Instant;

use super::Api;
use super::backend::ProposeError;
use super::call;
use super::call::Call;
use super::failure::Answer;
use super::failure::Failure;
use super::names as rules;
use super::query;
use super::query::Query;
use super::read;
use super::render;
use super::write;
use super::write::WriteHead;

const PREFIX: &str = "/api/v1/namespaces/";
/// Says how many keys went with a namespace.
const DELETED_KEYS: &str = "x-confman-deleted-keys";

/// `GET /api/v1/namespaces`: all of them, or with `prefix` one and those below it.
pub(crate) async fn list(api: &Arc<Api>, call: &mut Call) -> Answer {
    let query = Query::parse(call.uri.query(), &["limit", "cursor", "prefix"])?;
    let limit = query.limit()?;
    let after = query.cursor()?;
    let prefix = query
        .get("prefix")
        .map(|prefix| prefix.trim_end_matches('/').to_owned());
    let groups = match &prefix {
        Some(prefix) => {
            rules::check_namespace(prefix).map_err(|failure| failure.field("prefix"))?;
            vec![api.backend.route(prefix)]
        }
        None => api.backend.config_groups(),
    };
    read::barrier_all(api, &call.headers, &groups).await?;
    let position = match groups.as_slice() {
        [group] => group.state().applied(),
        _ => None,
    };
    let mut found: Vec<NamespaceItem> = Vec::new();
    for group in &groups {
        let (prefix, after) = (prefix.clone(), after.clone());
        let part = read::blocking(group.state(), move |state| {
            state.list_namespaces(prefix.as_deref(), after.as_deref(), limit + 1)
        });
        found.extend(part.await?);
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    let more = found.len() > limit;
    found.truncate(limit);
    let next_cursor = found
        .last()
        .filter(|_| more)
        .map(|item| query::cursor(&item.path));
    let items = found
        .iter()
        .map(|item| render::namespace(&item.path, &item.record, false))
        .collect();
    let mut response = call::json(StatusCode::OK, &List { items, next_cursor })?;
    call::set_version(&mut response, api.backend.incarnation(), position.as_ref());
    Ok(response)
}

/// `GET /api/v1/namespaces/{path}`.
pub(crate) async fn get(api: &Arc<Api>, call: &mut Call) -> Answer {
    let path = path(call)?;
    let group = api.backend.route(&path);
    read::barrier(api, &call.headers, &group).await?;
    let position = group.state().applied();
    let record = group
        .state()
        .get_namespace(&path)
        .map_err(Failure::internal)?;
    let Some(record) = record else {
        return Err(no_namespace(&path));
    };
    let mut response = call::json(StatusCode::OK, &render::namespace(&path, &record, true))?;
    call::set_version(&mut response, api.backend.incarnation(), position.as_ref());
    Ok(response)
}

/// `PUT /api/v1/namespaces/{path}`: makes it and those above it.
pub(crate) async fn put(api: &Arc<Api>, call: &mut Call) -> Answer {
    let path = path(call)?;
    let head = WriteHead::read(call)?;
    head.refuse_conditions()?;
    let group = api.backend.route(&path);
    if let Some(response) = write::elsewhere(api, call, &group, head.forward).await? {
        return Ok(response);
    }
    let body = call.body()?.collect(1024, &api.budgets).await?;
    if !matches!(body.bytes.trim_ascii(), b"" | b"{}") {
        return Err(Failure::invalid(
            "body",
            "a namespace is made without a body",
        ));
    }
    let mut context = write::context(call);
    if let Some(key) = &head.idempotency_key {
        context.idempotency_key = Some(key.clone());
        context.fingerprint = write::fingerprint(&[b"PUT namespace", path.as_bytes()]);
    }
    let op = Op::CreateNamespace(CreateNamespace { path: path.clone() });
    let applied = write::propose(api, &call.uri, &group, context, op).await?;
    let Some(Applied::NamespaceCreated(created)) = &applied.outcome.answer else {
        return Err(write::unexpected(&applied.outcome));
    };
    let status = if created.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let record = created.record.clone().unwrap_or_default();
    let mut response = call::json(status, &render::namespace(&path, &record, true))?;
    write::mark(api, &mut response, &applied);
    Ok(response)
}

/// `DELETE /api/v1/namespaces/{path}`: with all below it, in as many commands as it takes.
pub(crate) async fn delete(api: &Arc<Api>, call: &mut Call) -> Answer {
    let path = path(call)?;
    let head = WriteHead::read(call)?;
    head.refuse_conditions()?;
    let group = api.backend.route(&path);
    if let Some(response) = write::elsewhere(api, call, &group, head.forward).await? {
        return Ok(response);
    }
    let fingerprint = write::fingerprint(&[b"DELETE namespace", path.as_bytes()]);
    let begun = Instant::now();
    let mut keys: u64 = 0;
    let mut steps: u64 = 0;
    loop {
        let mut context = write::context(call);
        if let Some(key) = &head.idempotency_key {
            // One key for all of them: only the last command, which leaves nothing, is remembered under it.
            context.idempotency_key = Some(key.clone());
            context.fingerprint = fingerprint.clone();
        }
        let op = Op::DeleteNamespace(DeleteNamespace { path: path.clone() });
        let applied = match group.propose(context, op).await {
            Ok(applied) => applied,
            Err(error) if steps == 0 => return Err(write::propose_failure(api, &call.uri, error)),
            Err(error) => return Err(in_part(&path, keys, &stopped(&error))),
        };
        let deleted = match &applied.outcome.answer {
            Some(Applied::NamespaceDeleted(deleted)) => deleted.clone(),
            // Somebody else deleted the rest.
            Some(Applied::Refused(refused))
                if steps > 0 && refused.code() == RefusalCode::NotFound =>
            {
                NamespaceDeleted::default()
            }
            _ => return Err(write::unexpected(&applied.outcome)),
        };
        keys = keys.saturating_add(deleted.keys);
        steps += 1;
        if !deleted.more {
            let mut response = call::empty(StatusCode::NO_CONTENT);
            // A retry is told that all is gone, and does not know any more how much that was.
            if applied.outcome.replayed_from.is_none() {
                call::set(&mut response, DELETED_KEYS, &keys.to_string());
            }
            write::mark(api, &mut response, &applied);
            return Ok(response);
        }
        if begun.elapsed() >= api.limits.deleting_within() {
            return Err(in_part(&path, keys, "there is more"));
        }
    }
}

/// Why a deletion that was begun did not go on.
fn stopped(error: &ProposeError) -> String {
    match error {
        ProposeError::NotLeader { leader: None } => "the group has no leader now".to_owned(),
        ProposeError::NotLeader {
            leader: Some(leader),
        } => format!("{} leads the group now", leader.name),
        ProposeError::Timeout => "its last step was not confirmed".to_owned(),
        ProposeError::Unavailable(why) => why.clone(),
    }
}

/// What was deleted is gone: neither "nothing was written" nor a redirect, which says as much, will do.
fn in_part(path: &str, keys: u64, why: &str) -> Failure {
    Failure::new(
        ProblemKind::DeletedInPart,
        format!("{keys} keys of {path:?} were deleted by this request, and not all: {why}"),
    )
    .hint("send it again: it goes on where it was")
    .retry_after(1)
}

/// The namespace that a call is about; a slash at its end does not matter.
fn path(call: &Call) -> Result<String, Failure> {
    Query::parse(call.uri.query(), &[])?;
    let raw = call.rest(PREFIX);
    rules::namespace_path(raw.strip_suffix('/').unwrap_or(raw))
}

pub(crate) fn no_namespace(path: &str) -> Failure {
    Failure::new(
        ProblemKind::NotFound,
        format!("there is no namespace {path:?}"),
    )
}
