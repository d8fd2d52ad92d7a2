//! Entries: `/api/v1/config/{namespace}/{key}`, and the list of a namespace's keys at `/api/v1/config/{namespace}/`.
//!
//! Promises: a put is answered by what apply said of it; raw bytes come back as they were put; an entry tag names one
//! version for ever, because versions are never used twice.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use confman_client::wire::Entry;
use confman_client::wire::List;
use confman_client::wire::ProblemKind;
use confman_client::wire::ValueType;
use confman_client::wire::etag;
use confman_client::wire::header as names;
use confman_store::StateHandle;
use confman_store::command::Answer as Applied;
use confman_store::command::Delete;
use confman_store::command::Op;
use confman_store::command::Put;
use confman_store::records::EntryRecord;
use confman_store::records::StoredContent;
use http::HeaderValue;
use http::StatusCode;
use http::header;

use super::Api;
use super::backend::GroupBackend;
use super::call;
use super::call::Call;
use super::content;
use super::content::Checker;
use super::download;
use super::failure::Answer;
use super::failure::Failure;
use super::headers;
use super::headers::Representation;
use super::limits::JSON_BYTES_MAX;
use super::names as rules;
use super::names::ConfigPath;
use super::query::Query;
use super::read;
use super::render;
use super::upload::Ready;
use super::upload::Sink;
use super::write;
use super::write::WriteHead;

const PREFIX: &str = "/api/v1/config/";
/// Entries read in one go of a list: each may bring a value of 256 KiB.
const LIST_STEP: usize = 16;
/// Bytes of values in one page of a list.
const LIST_VALUES_BYTES_MAX: usize = 4 << 20;
/// How often a value that is replaced while it is read is read again.
const REREADS_MAX: usize = 3;

/// `GET`: one entry, or a list of them.
pub(crate) async fn get(api: &Arc<Api>, call: &mut Call) -> Answer {
    match rules::config_path(call.rest(PREFIX))? {
        ConfigPath::List { namespace } => list(api, call, &namespace).await,
        ConfigPath::Entry { namespace, key } => get_entry(api, call, &namespace, &key).await,
    }
}

/// `PUT`: creates or changes an entry.
pub(crate) async fn put(api: &Arc<Api>, call: &mut Call) -> Answer {
    let (namespace, key) = entry_path(call)?;
    let head = WriteHead::read(call)?;
    let enveloped = headers::is_json(&call.headers)?;
    let raw_type = headers::value_type(&call.headers)?;
    if enveloped && call.headers.contains_key(names::TYPE) {
        return Err(Failure::invalid(names::TYPE, "the type of a JSON body stands in the body")
            .hint("to store a JSON file as it is, send another content type, for example application/octet-stream"));
    }
    let group = api.backend.route(&namespace);
    if let Some(response) = write::elsewhere(api, call, &group, head.forward).await? {
        return Ok(response);
    }
    let (value_type, ready) = if enveloped {
        receive_envelope(api, call, &group).await?
    } else {
        (raw_type, receive_raw(api, call, &group, raw_type).await?)
    };
    let mut context = write::context(call);
    if let Some(key_of_request) = &head.idempotency_key {
        context.idempotency_key = Some(key_of_request.clone());
        context.fingerprint = write::fingerprint(&[
            b"PUT",
            namespace.as_bytes(),
            key.as_bytes(),
            value_type.as_str().as_bytes(),
            head.condition.tag().as_bytes(),
            &[u8::from(head.skip_unchanged)],
            &ready.hash,
        ]);
    }
    let op = Op::Put(Put {
        namespace: namespace.clone(),
        key: key.clone(),
        value_type: render::stored_type(value_type),
        content: Some(ready.content),
        precondition: head.precondition(),
        skip_unchanged: head.skip_unchanged,
    });
    let applied = write::propose(api, &call.uri, &group, context, op).await?;
    let Some(Applied::Written(written)) = &applied.outcome.answer else {
        return Err(write::unexpected(&applied.outcome));
    };
    let stored = written.head.clone().unwrap_or_default();
    let status = if written.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let mut response = call::json(status, &render::entry_head(&namespace, &key, &stored))?;
    call::set(&mut response, "etag", &etag(stored.version));
    if written.unchanged {
        call::set(&mut response, names::UNCHANGED, "true");
    }
    write::mark(api, &mut response, &applied);
    Ok(response)
}

/// `DELETE`: removes an entry; its version is never used again.
pub(crate) async fn delete(api: &Arc<Api>, call: &mut Call) -> Answer {
    let (namespace, key) = entry_path(call)?;
    let head = WriteHead::read(call)?;
    if head.condition == headers::WriteCondition::Absent {
        return Err(Failure::invalid(
            "if-none-match",
            "what does not exist cannot be deleted",
        ));
    }
    let group = api.backend.route(&namespace);
    if let Some(response) = write::elsewhere(api, call, &group, head.forward).await? {
        return Ok(response);
    }
    let mut context = write::context(call);
    if let Some(key_of_request) = &head.idempotency_key {
        context.idempotency_key = Some(key_of_request.clone());
        context.fingerprint = write::fingerprint(&[
            b"DELETE",
            namespace.as_bytes(),
            key.as_bytes(),
            head.condition.tag().as_bytes(),
        ]);
    }
    let op = Op::Delete(Delete {
        namespace,
        key,
        precondition: head.precondition(),
    });
    let applied = write::propose(api, &call.uri, &group, context, op).await?;
    let Some(Applied::Deleted(_)) = &applied.outcome.answer else {
        return Err(write::unexpected(&applied.outcome));
    };
    let mut response = call::empty(StatusCode::NO_CONTENT);
    write::mark(api, &mut response, &applied);
    Ok(response)
}

/// The entry that a write is about.
fn entry_path(call: &Call) -> Result<(String, String), Failure> {
    Query::parse(call.uri.query(), &[])?;
    match rules::config_path(call.rest(PREFIX))? {
        ConfigPath::Entry { namespace, key } => Ok((namespace, key)),
        ConfigPath::List { .. } => Err(Failure::new(
            ProblemKind::InvalidName,
            "the path names no key",
        )
        .field("key")
        .hint("whole namespaces are made and deleted under /api/v1/namespaces/")),
    }
}

async fn receive_envelope(
    api: &Arc<Api>,
    call: &mut Call,
    group: &Arc<dyn GroupBackend>,
) -> Result<(ValueType, Ready), Failure> {
    let json_max = JSON_BYTES_MAX.min(api.limits.value_bytes_max.saturating_mul(2));
    let body = call.body()?.collect(json_max, &api.budgets).await.map_err(|failure| {
        if failure.is_too_large() {
            failure.hint("send large values as they are, with a content type other than application/json and X-Confman-Type")
        } else {
            failure
        }
    })?;
    let content = content::from_envelope(&body.bytes)?;
    if content.bytes.len() as u64 > api.limits.value_bytes_max {
        return Err(value_too_large(api));
    }
    let mut sink = Sink::new(api, &call.uri, group, write::context(call));
    sink.push(&content.bytes).await?;
    Ok((content.value_type, sink.finish().await?))
}

async fn receive_raw(
    api: &Arc<Api>,
    call: &mut Call,
    group: &Arc<dyn GroupBackend>,
    value_type: ValueType,
) -> Result<Ready, Failure> {
    let bytes_max = api.limits.value_bytes_max;
    let uri = call.uri.clone();
    let mut sink = Sink::new(api, &uri, group, write::context(call));
    let mut checker = Checker::new(value_type);
    let body = call.body()?;
    loop {
        // Parts are confirmed while the next ones come in.
        tokio::select! {
            biased;
            staged = sink.progress(), if sink.in_flight() => staged?,
            piece = body.next(bytes_max) => match piece.map_err(with_limit_hint)? {
                Some(piece) => {
                    checker.push(&piece)?;
                    sink.push(&piece).await?;
                }
                None => break,
            },
        }
    }
    checker.finish()?;
    sink.finish().await
}

fn with_limit_hint(failure: Failure) -> Failure {
    if failure.is_too_large() {
        failure.hint("CONFMAN_VALUE_MAX_BYTES of the nodes sets the largest value")
    } else {
        failure
    }
}

fn value_too_large(api: &Api) -> Failure {
    Failure::too_large(format!(
        "a value has at most {} bytes",
        api.limits.value_bytes_max
    ))
}

async fn get_entry(api: &Arc<Api>, call: &Call, namespace: &str, key: &str) -> Answer {
    Query::parse(call.uri.query(), &[])?;
    let group = api.backend.route(namespace);
    read::barrier(api, &call.headers, &group).await?;
    let state = group.state();
    let mut rereads = 0;
    let mut response = loop {
        let position = state.applied();
        let Some(record) = state.get_entry(namespace, key).map_err(Failure::internal)? else {
            return Err(no_entry(namespace, key));
        };
        let answered = if headers::match_fails(&call.headers, version(&record))? {
            return Err(Failure::new(
                ProblemKind::PreconditionFailed,
                "the entry has another version",
            )
            .current_version(Some(version(&record))));
        } else if headers::not_modified(&call.headers, version(&record))? {
            Some(call::empty(StatusCode::NOT_MODIFIED))
        } else {
            match headers::representation(&call.headers) {
                Representation::Raw => Some(raw_entry(api, call, state, &record).await?),
                Representation::Any if !fits_json(&record) => {
                    Some(raw_entry(api, call, state, &record).await?)
                }
                Representation::Json | Representation::Any => {
                    json_entry(api, state, namespace, key, &record).await?
                }
            }
        };
        if let Some(mut response) = answered {
            call::set(&mut response, "etag", &etag(version(&record)));
            call::set_version(&mut response, api.backend.incarnation(), position.as_ref());
            break response;
        }
        rereads += 1;
        if rereads > REREADS_MAX {
            return Err(Failure::busy(
                "the value is replaced faster than it can be read",
            ));
        }
    };
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
        .headers_mut()
        .insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

fn version(record: &EntryRecord) -> u64 {
    record.head.as_ref().map_or(0, |head| head.version)
}

fn no_entry(namespace: &str, key: &str) -> Failure {
    Failure::new(
        ProblemKind::NotFound,
        format!("there is no key {key:?} in namespace {namespace:?}"),
    )
}

async fn raw_entry(api: &Api, call: &Call, state: &StateHandle, record: &EntryRecord) -> Answer {
    let head = record.head.clone().unwrap_or_default();
    let body = match &record.content {
        Some(StoredContent::Inline(bytes)) => Body::from(bytes.clone()),
        Some(StoredContent::Blob(blob)) => {
            let place = api.budgets.transfer().await?;
            download::body(
                api,
                state.clone(),
                blob.clone(),
                call.request_id.clone(),
                place,
            )
        }
        None => Body::empty(),
    };
    let mut response = Response::new(body);
    call::set(&mut response, "content-type", "application/octet-stream");
    call::set(&mut response, "content-length", &head.size.to_string());
    call::set(
        &mut response,
        names::TYPE,
        render::value_type(head.value_type).as_str(),
    );
    Ok(response)
}

fn fits_json(record: &EntryRecord) -> bool {
    record
        .head
        .as_ref()
        .is_none_or(|head| head.size <= JSON_BYTES_MAX)
}

/// `None` when the value was replaced while it was read.
async fn json_entry(
    api: &Api,
    state: &StateHandle,
    namespace: &str,
    key: &str,
    record: &EntryRecord,
) -> Result<Option<Response>, Failure> {
    let stored = record.head.clone().unwrap_or_default();
    if !fits_json(record) {
        return Err(Failure::new(
            ProblemKind::InvalidRequest,
            format!(
                "the value has {} bytes, JSON answers hold at most {JSON_BYTES_MAX}",
                stored.size
            ),
        )
        .status(StatusCode::NOT_ACCEPTABLE)
        .field("accept")
        .hint("send Accept: application/octet-stream"));
    }
    let head = render::entry_head(namespace, key, &stored);
    let (bytes, _memory) = match &record.content {
        Some(StoredContent::Inline(bytes)) => (bytes.clone(), None),
        Some(StoredContent::Blob(blob)) => {
            let memory = api.budgets.json(blob.size).await?;
            match download::collect(state, blob).await? {
                Some(bytes) => (bytes, Some(memory)),
                None => return Ok(None),
            }
        }
        None => (Bytes::new(), None),
    };
    call::json(StatusCode::OK, &render::entry(head, &bytes)?).map(Some)
}

async fn list(api: &Arc<Api>, call: &Call, namespace: &str) -> Answer {
    let query = Query::parse(call.uri.query(), &["limit", "cursor", "values"])?;
    let limit = query.limit()?;
    let values = query.flag("values")?;
    let after = query.cursor()?;
    let group = api.backend.route(namespace);
    read::barrier(api, &call.headers, &group).await?;
    let position = group.state().applied();
    let page = {
        let namespace = namespace.to_owned();
        read::blocking(group.state(), move |state| {
            let known = state.get_namespace(&namespace)?.is_some();
            let page = if known {
                Some(page(state, &namespace, after, limit, values)?)
            } else {
                None
            };
            Ok(page)
        })
        .await?
    };
    let Some(page) = page else {
        return Err(super::namespaces::no_namespace(namespace));
    };
    let mut entries = Vec::with_capacity(page.entries.len());
    for (key, record) in &page.entries {
        let head = render::entry_head(namespace, key, &record.head.clone().unwrap_or_default());
        entries.push(match &record.content {
            Some(StoredContent::Inline(bytes)) if values => render::entry(head, bytes)?,
            _ => Entry { head, value: None },
        });
    }
    let next_cursor = match page.entries.last() {
        Some((key, _)) if page.more => Some(super::query::cursor(key)),
        _ => None,
    };
    let mut response = call::json(
        StatusCode::OK,
        &List {
            items: entries,
            next_cursor,
        },
    )?;
    call::set_version(&mut response, api.backend.incarnation(), position.as_ref());
    Ok(response)
}

struct Page {
    entries: Vec<(String, EntryRecord)>,
    more: bool,
}

/// A page of entries, read in steps so that values that nobody asked for are dropped early.
fn page(
    state: &StateHandle,
    namespace: &str,
    mut after: Option<String>,
    limit: usize,
    values: bool,
) -> Result<Page, confman_store::StoreError> {
    let mut entries: Vec<(String, EntryRecord)> = Vec::new();
    let mut bytes = 0;
    loop {
        // One more than is wanted says whether there is more.
        let wanted = (limit + 1 - entries.len()).min(LIST_STEP);
        let step = state.list_entries(namespace, after.as_deref(), wanted)?;
        let last_step = step.len() < wanted;
        for item in step {
            if entries.len() >= limit || bytes >= LIST_VALUES_BYTES_MAX {
                return Ok(Page {
                    entries,
                    more: true,
                });
            }
            let mut record = item.record;
            match &record.content {
                Some(StoredContent::Inline(value)) if values => bytes += value.len(),
                _ => record.content = None,
            }
            after = Some(item.key.clone());
            entries.push((item.key, record));
        }
        if last_step {
            return Ok(Page {
                entries,
                more: false,
            });
        }
    }
}
