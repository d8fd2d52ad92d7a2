//! `POST /api/v1/batch`: many small writes in one request.
//!
//! Promises: each item is a command of its own and is answered as it would be alone; all that this node leads is
//! proposed together; what others lead is sent to them, once. With an `Idempotency-Key` every item has a key derived
//! from it, so that a batch that is sent again applies nothing twice.
//!
//! Does not: make the batch atomic.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use confman_client::wire::BATCH_BYTES_MAX;
use confman_client::wire::BATCH_ITEMS_MAX;
use confman_client::wire::BatchItemResult;
use confman_client::wire::BatchResult;
use confman_client::wire::Problem;
use confman_client::wire::ProblemKind;
use confman_client::wire::ValueType;
use confman_snapshot::model::Position;
use confman_store::command::Answer as Applied;
use confman_store::command::Delete;
use confman_store::command::Op;
use confman_store::command::Put;
use futures::future::join_all;
use http::StatusCode;
use serde_json::value::RawValue;
use tracing::Instrument as _;
use tracing::Span;

use super::Api;
use super::backend::GroupBackend;
use super::backend::LeaderInfo;
use super::backend::ProposeError;
use super::call;
use super::call::Call;
use super::causes::Causes;
use super::content;
use super::content::Content;
use super::content::Members;
use super::failure::Answer;
use super::failure::Failure;
use super::forward;
use super::headers;
use super::names as rules;
use super::query::Query;
use super::render;
use super::upload::Sink;
use super::write;
use super::write::WriteHead;
use crate::traces::spans;

const PATH: &str = "/api/v1/batch";
const MEMBERS: &str = "op, namespace, key, value, valueBase64, type, skipUnchanged, idempotencyKey";

/// One item, taken apart.
struct Item<'t> {
    raw: &'t RawValue,
    namespace: String,
    key: String,
    idempotency_key: Option<String>,
    /// What to do, or why it cannot be done.
    action: Result<Action, Failure>,
}

enum Action {
    Put {
        content: Content,
        skip_unchanged: bool,
    },
    Delete,
}

/// What an item led to.
struct Done {
    result: BatchItemResult,
    position: Option<Position>,
}

/// `POST /api/v1/batch`.
pub(crate) async fn post(api: &Arc<Api>, call: &mut Call) -> Answer {
    Query::parse(call.uri.query(), &[])?;
    let head = WriteHead::read(call)?;
    head.refuse_conditions()?;
    if !headers::is_json(&call.headers)? {
        return Err(Failure::invalid(
            "content-type",
            "a batch is application/json",
        ));
    }
    let body = call
        .body()?
        .collect(BATCH_BYTES_MAX as u64, &api.budgets)
        .await?;
    let items = read_items(&body.bytes, head.idempotency_key.as_deref())?;

    let groups: Vec<Arc<dyn GroupBackend>> = items
        .iter()
        .map(|item| api.backend.route(&item.namespace))
        .collect();
    let places = place(api, &groups);
    if let Some(leader) = one_other_leader(&places) {
        return if head.forward {
            forward_all(api, call, &leader, &body.bytes).await
        } else {
            Err(write::not_leader(&call.uri, Some(leader)))
        };
    }

    if !places.is_empty() && places.iter().all(|place| matches!(place, Place::Nowhere)) {
        return Err(write::no_leader());
    }

    let here = |place: &Place| matches!(place, Place::Here);
    // One span for all of them: a thousand items are no thousand stories.
    let proposing = match places.iter().filter(|place| here(place)).count() {
        0 => Span::none(),
        items => spans::propose_batch(items),
    };
    let causes = Causes::default();
    let local = join_all(
        items
            .iter()
            .zip(&groups)
            .zip(&places)
            .enumerate()
            .filter(|(_, (_, place))| here(place))
            .map(|(i, ((item, group), _))| {
                let api = &*api;
                let (call, causes) = (&*call, &causes);
                async move { (i, write_item(api, call, group, item, causes).await) }
            }),
    )
    .instrument(proposing);
    let remote = join_all(by_leader(&places).into_values().map(|(leader, indices)| {
        let (api, call, items) = (&*api, &*call, &items);
        async move { send_items(api, call, &leader, items, indices).await }
    }));
    let (local, remote) = futures::join!(local, remote);
    causes.tell(&api.pace, &call.request_id, &call.correlation_id);

    let mut position: Option<Position> = None;
    let mut results: Vec<Option<BatchItemResult>> = vec![None; items.len()];
    for (i, done) in local {
        position = position.max(done.position);
        if let Some(slot) = results.get_mut(i) {
            *slot = Some(done.result);
        }
    }
    for (i, result) in remote.into_iter().flatten() {
        if let Some(slot) = results.get_mut(i) {
            *slot = Some(result);
        }
    }
    let results = results
        .into_iter()
        .map(|result| result.unwrap_or_else(|| failed(write::no_leader().into_problem())))
        .collect();
    let mut response = call::json(StatusCode::OK, &BatchResult { items: results })?;
    // A token is a position in one group.
    let one_group = groups.windows(2).all(|pair| match pair {
        [a, b] => a.id() == b.id(),
        _ => true,
    });
    if one_group {
        call::set_version(&mut response, api.backend.incarnation(), position.as_ref());
    }
    Ok(response)
}

fn read_items<'t>(body: &'t [u8], batch_key: Option<&str>) -> Result<Vec<Item<'t>>, Failure> {
    let mut members = Members::read("", content::json_text(body)?)?;
    let list = members.take("items");
    members.nothing_left("items")?;
    let list = list.ok_or_else(|| Failure::invalid("items", "items is missing"))?;
    let raw: Vec<&'t RawValue> = serde_json::from_str(list.get())
        .map_err(|_| Failure::invalid("items", "items is an array"))?;
    if raw.len() > BATCH_ITEMS_MAX {
        return Err(Failure::too_large(format!(
            "the batch has {} items, at most {BATCH_ITEMS_MAX} are allowed",
            raw.len()
        ))
        .field("items"));
    }
    let items = raw
        .into_iter()
        .enumerate()
        .map(|(i, raw)| read_item(i, raw, batch_key))
        .collect::<Result<Vec<_>, _>>()?;
    let mut seen: HashMap<(&str, &str), usize> = HashMap::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        if let Some(first) = seen.insert((&item.namespace, &item.key), i) {
            return Err(Failure::invalid(
                format!("items[{i}].key"),
                format!(
                    "items[{first}] and items[{i}] write the same key, and items have no order"
                ),
            ));
        }
    }
    Ok(items)
}

fn read_item<'t>(
    i: usize,
    raw: &'t RawValue,
    batch_key: Option<&str>,
) -> Result<Item<'t>, Failure> {
    let mut members = Members::read(&format!("items[{i}]."), raw.get())?;
    let op: String = members.require("op", "put or delete")?;
    let namespace: String = members.require("namespace", "a string")?;
    let key: String = members.require("key", "a string")?;
    let value = members.take("value");
    let base64: Option<String> = members.take_as("valueBase64", "a string")?;
    let value_type = members.value_type()?;
    let skip_unchanged: Option<bool> = members.take_as("skipUnchanged", "true or false")?;
    let own_key: Option<String> = members.take_as("idempotencyKey", "a string")?;
    members.nothing_left(MEMBERS)?;
    let field = |name: &str| members.field(name);
    let idempotency_key = match (own_key, batch_key) {
        (Some(own), _) => Some(headers::check_idempotency_key(
            &field("idempotencyKey"),
            &own,
        )?),
        (None, Some(batch)) => Some(format!("{batch}#{i}")),
        (None, None) => None,
    };
    let put = match op.as_str() {
        "put" => true,
        "delete" => false,
        _ => return Err(Failure::invalid(field("op"), "op is put or delete")),
    };
    if !put
        && (value.is_some() || base64.is_some() || value_type.is_some() || skip_unchanged.is_some())
    {
        return Err(Failure::invalid(
            field("op"),
            "a delete has neither value, type nor skipUnchanged",
        ));
    }
    let named = rules::check_namespace(&namespace)
        .and_then(|()| rules::check_key(&key))
        .map_err(|failure| failure.inside(&field("")));
    let action = named.and_then(|()| {
        if !put {
            return Ok(Action::Delete);
        }
        let content = match (value, base64) {
            (Some(value), None) => content::from_json(&field("value"), value, value_type)?,
            (None, Some(text)) => content::from_bytes(
                &field("valueBase64"),
                content::from_base64(&field("valueBase64"), &text)?,
                value_type.unwrap_or(ValueType::Binary),
            )?,
            _ => {
                return Err(Failure::invalid(
                    field("value"),
                    "a put has either value or valueBase64",
                ));
            }
        };
        Ok(Action::Put {
            content,
            skip_unchanged: skip_unchanged.unwrap_or_default(),
        })
    });
    Ok(Item {
        raw,
        namespace,
        key,
        idempotency_key,
        action,
    })
}

/// Who leads the group of an item.
enum Place {
    Here,
    There(LeaderInfo),
    Nowhere,
}

fn place(api: &Api, groups: &[Arc<dyn GroupBackend>]) -> Vec<Place> {
    groups
        .iter()
        .map(|group| {
            if group.is_leader() {
                return Place::Here;
            }
            match write::other_leader(api, group.leader()) {
                Some(leader) => Place::There(leader),
                None => Place::Nowhere,
            }
        })
        .collect()
}

/// The leader of all items, when it is one and not this node.
fn one_other_leader(places: &[Place]) -> Option<LeaderInfo> {
    let mut leaders = places.iter().map(|place| match place {
        Place::There(leader) => Some(leader),
        Place::Here | Place::Nowhere => None,
    });
    let first = leaders.next()??;
    leaders
        .all(|leader| leader == Some(first))
        .then(|| first.clone())
}

/// The items that others lead, by leader.
fn by_leader(places: &[Place]) -> BTreeMap<u64, (LeaderInfo, Vec<usize>)> {
    let mut leaders: BTreeMap<u64, (LeaderInfo, Vec<usize>)> = BTreeMap::new();
    for (i, place) in places.iter().enumerate() {
        if let Place::There(leader) = place {
            let (_, indices) = leaders
                .entry(leader.id)
                .or_insert_with(|| (leader.clone(), Vec::new()));
            indices.push(i);
        }
    }
    leaders
}

async fn write_item(
    api: &Arc<Api>,
    call: &Call,
    group: &Arc<dyn GroupBackend>,
    item: &Item<'_>,
    causes: &Causes,
) -> Done {
    match try_write_item(api, call, group, item).await {
        Ok(done) => done,
        Err(failure) => {
            causes.note(&failure);
            Done {
                result: failed(failure.into_problem()),
                position: None,
            }
        }
    }
}

async fn try_write_item(
    api: &Arc<Api>,
    call: &Call,
    group: &Arc<dyn GroupBackend>,
    item: &Item<'_>,
) -> Result<Done, Failure> {
    let (namespace, key) = (item.namespace.clone(), item.key.clone());
    let mut context = write::context(call);
    context.idempotency_key.clone_from(&item.idempotency_key);
    let (op, fingerprint) = match &item.action {
        Err(failure) => return Err(failure.again()),
        Ok(Action::Delete) => {
            let fingerprint =
                write::fingerprint(&[b"batch delete", namespace.as_bytes(), key.as_bytes()]);
            let op = Op::Delete(Delete {
                namespace,
                key,
                precondition: None,
            });
            (op, fingerprint)
        }
        Ok(Action::Put {
            content,
            skip_unchanged,
        }) => {
            let mut sink = Sink::new(api, &call.uri, group, context.clone());
            sink.push(&content.bytes).await?;
            let ready = sink.finish().await?;
            let fingerprint = write::fingerprint(&[
                b"batch put",
                namespace.as_bytes(),
                key.as_bytes(),
                content.value_type.as_str().as_bytes(),
                &[u8::from(*skip_unchanged)],
                &ready.hash,
            ]);
            let op = Op::Put(Put {
                namespace,
                key,
                value_type: render::stored_type(content.value_type),
                content: Some(ready.content),
                precondition: None,
                skip_unchanged: *skip_unchanged,
            });
            (op, fingerprint)
        }
    };
    if context.idempotency_key.is_some() {
        context.fingerprint = fingerprint;
    }
    let applied = match group.propose(context, op).await {
        Ok(applied) => applied,
        // Inside a batch there is no redirect to follow.
        Err(ProposeError::NotLeader { .. }) => {
            return Err(
                Failure::busy("leadership moved, this item was not written").hint("send it again")
            );
        }
        Err(error) => return Err(write::propose_failure(api, &call.uri, error)),
    };
    let (status, version, unchanged) = match &applied.outcome.answer {
        Some(Applied::Written(written)) => {
            let status = if written.created {
                StatusCode::CREATED
            } else {
                StatusCode::OK
            };
            let version = written.head.as_ref().map(|head| head.version);
            (status, version, written.unchanged)
        }
        Some(Applied::Deleted(deleted)) => (StatusCode::NO_CONTENT, Some(deleted.version), false),
        _ => return Err(write::unexpected(&applied.outcome)),
    };
    Ok(Done {
        result: BatchItemResult {
            status: status.as_u16(),
            version,
            unchanged,
            problem: None,
        },
        position: Some(applied.position),
    })
}

fn failed(problem: Problem) -> BatchItemResult {
    BatchItemResult {
        status: problem.status,
        version: None,
        unchanged: false,
        problem: Some(problem),
    }
}

/// Sends the whole batch on, as it came.
async fn forward_all(api: &Arc<Api>, call: &Call, leader: &LeaderInfo, body: &[u8]) -> Answer {
    let (status, body) =
        forward::document(api, call, leader, PATH, body.to_vec(), BATCH_BYTES_MAX).await?;
    if status == StatusCode::TEMPORARY_REDIRECT {
        return Err(forward::moved());
    }
    let mut response = axum::response::Response::new(axum::body::Body::from(body));
    *response.status_mut() = status;
    let kind = if status.is_success() {
        "application/json"
    } else {
        "application/problem+json"
    };
    call::set(&mut response, "content-type", kind);
    Ok(response)
}

/// Sends some items to the node that leads them.
async fn send_items(
    api: &Arc<Api>,
    call: &Call,
    leader: &LeaderInfo,
    items: &[Item<'_>],
    indices: Vec<usize>,
) -> Vec<(usize, BatchItemResult)> {
    match try_send_items(api, call, leader, items, &indices).await {
        Ok(results) => indices.into_iter().zip(results).collect(),
        Err(failure) => {
            let problem = failure.into_problem();
            indices
                .into_iter()
                .map(|i| (i, failed(problem.clone())))
                .collect()
        }
    }
}

async fn try_send_items(
    api: &Arc<Api>,
    call: &Call,
    leader: &LeaderInfo,
    items: &[Item<'_>],
    indices: &[usize],
) -> Result<Vec<BatchItemResult>, Failure> {
    let mut parts: Vec<String> = Vec::with_capacity(indices.len());
    for item in indices.iter().filter_map(|i| items.get(*i)) {
        parts.push(with_key(item)?);
    }
    let document = format!("{{\"items\":[{}]}}", parts.join(","));
    let (status, body) = forward::document(
        api,
        call,
        leader,
        PATH,
        document.into_bytes(),
        BATCH_BYTES_MAX,
    )
    .await?;
    if status == StatusCode::TEMPORARY_REDIRECT {
        return Err(forward::moved());
    }
    if !status.is_success() {
        let detail = match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => problem.detail,
            Err(_) => format!("status {status}"),
        };
        return Err(Failure::new(
            ProblemKind::Unavailable,
            format!("{} leads and refused the items: {detail}", leader.name),
        ));
    }
    let answer: BatchResult = serde_json::from_slice(&body).map_err(Failure::internal)?;
    if answer.items.len() != indices.len() {
        return Err(Failure::internal(format!(
            "{} answered {} items for {}",
            leader.name,
            answer.items.len(),
            indices.len()
        )));
    }
    Ok(answer.items)
}

/// The item as it came, with the key that it would have here: its number is another one there.
fn with_key(item: &Item<'_>) -> Result<String, Failure> {
    let text = item.raw.get().trim();
    let has_own = || {
        Members::read("", text).is_ok_and(|mut members| members.take("idempotencyKey").is_some())
    };
    match (&item.idempotency_key, text.strip_suffix('}')) {
        (Some(key), Some(open)) if !has_own() => {
            let key = serde_json::to_string(key).map_err(Failure::internal)?;
            Ok(format!("{open},\"idempotencyKey\":{key}}}"))
        }
        _ => Ok(text.to_owned()),
    }
}
