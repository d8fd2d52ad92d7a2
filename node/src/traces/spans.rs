//! The spans of this package: names and fields, declared once.
//!
//! Fields have OpenTelemetry's names (semantic conventions) where there are any, and begin with `confman.` elsewhere. What is
//! known later is recorded by the functions below. Never a field for a value, a key's content, a header or an error's text.

use confman_snapshot::model::{GroupId, Position};
use confman_store::records::SnapshotTask;
use http::{Method, StatusCode, Uri};
use tracing::field::Empty;
use tracing::{Instrument as _, Span, info_span};

/// Characters of a path that are shown.
const PATH_CHARS_MAX: usize = 256;
/// The name of [`propose`], by which a write within it is known.
const PROPOSE: &str = "propose";

/// The peer protocol, as gRPC names it.
const PEER_SERVICE: &str = "confman.peer.v1.Peer";

/// A request of a client, and who it says that it is.
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a Method,
    pub(crate) route: &'static str,
    pub(crate) uri: &'a Uri,
    pub(crate) request_id: &'a str,
    pub(crate) correlation_id: &'a str,
}

/// From a request's head to its answer's.
pub(crate) fn request(asked: &Asked<'_>) -> Span {
    let method = standard_method(asked.method);
    // What no route takes has none, and paths are too many for names.
    let route = asked.route.starts_with('/').then_some(asked.route);
    info_span!(
        "request",
        otel.name = %SpanName(method, route),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        url.path = cut(asked.uri.path()),
        error.type = Empty,
        enduser.id = Empty,
        confman.request_id = asked.request_id,
        confman.correlation_id = asked.correlation_id,
    )
}

/// How the request ended, and under whose key.
pub(crate) fn answered(span: &Span, status: StatusCode, actor: &str) {
    if !actor.is_empty() {
        span.record("enduser.id", actor);
    }
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        failed(span, status.as_str());
    }
}

/// A request that is sent on to the leader for a client.
pub(crate) fn forward(method: &Method, to: &Uri, leader: &str) -> Span {
    let method = standard_method(method);
    info_span!(
        "forward",
        otel.name = method,
        otel.kind = "client",
        otel.status_code = Empty,
        http.request.method = method,
        http.response.status_code = Empty,
        server.address = to.host(),
        server.port = to.port_u16().map(i64::from),
        url.path = cut(to.path()),
        error.type = Empty,
        confman.leader = leader,
    )
}

/// What the leader answered, or that it did not.
pub(crate) fn forwarded(span: &Span, status: Option<StatusCode>) {
    match status {
        Some(status) => {
            span.record("http.response.status_code", i64::from(status.as_u16()));
            // For a client that is an error, for a server it is not.
            if status.is_client_error() || status.is_server_error() {
                failed(span, status.as_str());
            }
        }
        None => failed(span, "no-answer"),
    }
}

/// A call to another node, where it is part of something that is traced.
pub(crate) fn peer_call(method: &'static str, node: &str) -> Span {
    if Span::current().is_none() {
        return Span::none();
    }
    info_span!(
        "peer call",
        otel.name = %format_args!("{PEER_SERVICE}/{method}"),
        otel.kind = "client",
        otel.status_code = Empty,
        rpc.system = "grpc",
        rpc.service = PEER_SERVICE,
        rpc.method = method,
        rpc.grpc.status_code = Empty,
        error.type = Empty,
        confman.peer = node,
    )
}

/// A call of another node.
pub(crate) fn peer_request(method: &'static str) -> Span {
    info_span!(
        "peer request",
        otel.name = %format_args!("{PEER_SERVICE}/{method}"),
        otel.kind = "server",
        otel.status_code = Empty,
        rpc.system = "grpc",
        rpc.service = PEER_SERVICE,
        rpc.method = method,
        rpc.grpc.status_code = Empty,
        error.type = Empty,
    )
}

/// How a call between nodes ended.
pub(crate) fn peer_answered<T>(span: &Span, answer: &Result<T, tonic::Status>) {
    let code = answer
        .as_ref()
        .map_or_else(tonic::Status::code, |_| tonic::Code::Ok);
    span.record("rpc.grpc.status_code", code as i32);
    if code != tonic::Code::Ok {
        failed(span, code.description());
    }
}

/// A command on its way through the group, from its proposal to its outcome. Only within something that is traced, and once: a
/// batch has one for all of its items.
pub(crate) fn propose(group: &GroupId) -> Span {
    let current = Span::current();
    let within = current.metadata().map(tracing::Metadata::name);
    if within.is_none_or(|name| name == PROPOSE) {
        return Span::none();
    }
    info_span!(
        PROPOSE,
        otel.status_code = Empty,
        confman.group = %group,
        confman.index = Empty,
        confman.term = Empty,
        error.type = Empty,
    )
}

/// The items of a batch that this node leads, on their way together.
pub(crate) fn propose_batch(items: usize) -> Span {
    info_span!(PROPOSE, confman.batch.items = number(items as u64))
}

/// Where in the log the command stands, or why it has no outcome.
pub(crate) fn proposed(span: &Span, at: Result<&Position, &'static str>) {
    match at {
        Ok(position) => {
            span.record("confman.index", number(position.index));
            span.record("confman.term", number(position.term));
        }
        Err(why) => failed(span, why),
    }
}

/// From the leader's log to a majority's: appended, sent, acknowledged, committed.
pub(crate) fn replicate() -> Span {
    info_span!("replicate")
}

/// From the commit to the outcome that apply gave.
pub(crate) fn apply() -> Span {
    info_span!("apply")
}

/// A snapshot, from its assignment to this node to its record; its phases are within it.
pub(crate) fn snapshot(task: &SnapshotTask) -> Span {
    info_span!(
        "snapshot",
        otel.status_code = Empty,
        confman.group = task.group,
        confman.snapshot.task_id = task.task_id,
        confman.snapshot.reason = task.reason,
        confman.snapshot.id = Empty,
        confman.snapshot.bytes = Empty,
        confman.index = Empty,
        error.type = Empty,
    )
}

/// The record of a verified snapshot, until the group has it.
pub(crate) fn record() -> Span {
    info_span!(
        "record",
        otel.name = "snapshot.record",
        otel.status_code = Empty,
        error.type = Empty,
    )
}

/// A replica's log, purged behind a snapshot.
pub(crate) fn purge(group: &GroupId, index: u64) -> Span {
    info_span!(
        "purge",
        otel.name = "log.purge",
        otel.status_code = Empty,
        error.type = Empty,
        confman.group = %group,
        confman.index = number(index),
    )
}

/// A step of retention over so many snapshots.
pub(crate) fn retention(step: &'static str, group: &GroupId, snapshots: usize) -> Span {
    info_span!(
        "retention",
        otel.name = %format_args!("retention.{step}"),
        otel.status_code = Empty,
        error.type = Empty,
        confman.group = %group,
        confman.snapshots = number(snapshots as u64),
    )
}

/// Runs it within the span, which is marked when it fails.
pub(crate) async fn within<T, E>(
    span: Span,
    kind: impl FnOnce(&E) -> &'static str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let done = work.instrument(span.clone()).await;
    if let Err(error) = &done {
        failed(&span, kind(error));
    }
    done
}

/// Marks a span as failed, with a kind of error of which there are few.
pub(crate) fn failed(span: &Span, kind: &str) {
    span.record("otel.status_code", "ERROR");
    span.record("error.type", kind);
}

/// OpenTelemetry's numbers have a sign; one without would leave as text.
pub(crate) fn number(of: u64) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}

/// The methods that there are names for.
fn standard_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    }
}

fn cut(path: &str) -> &str {
    let end = path.char_indices().nth(PATH_CHARS_MAX);
    end.map_or(path, |(end, _)| &path[..end])
}

/// Method and route.
struct SpanName(&'static str, Option<&'static str>);

impl std::fmt::Display for SpanName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0, self.1) {
            ("_OTHER", None) => f.write_str("HTTP"),
            (method, None) => f.write_str(method),
            (method, Some(route)) => write!(f, "{method} {route}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::level_filters::LevelFilter;
    use tracing::span::{Id, Record};
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

    use super::*;

    /// What spans are told after they were made.
    #[derive(Clone, Default)]
    struct Recorded(Arc<Mutex<Vec<(String, String)>>>);

    impl<S: tracing::Subscriber> Layer<S> for Recorded {
        fn on_record(&self, _: &Id, values: &Record<'_>, _: Context<'_, S>) {
            values.record(&mut self.clone());
        }
    }

    impl Visit for Recorded {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            let value = format!("{value:?}");
            self.0
                .lock()
                .unwrap()
                .push((field.name().to_owned(), value.replace('"', "")));
        }
    }

    #[tokio::test]
    async fn what_fails_in_the_background_is_marked_with_a_kind() {
        let recorded = Recorded::default();
        // With a filter, as every layer of ours: without one, what is enabled here would count for other threads too.
        let layer = recorded.clone().with_filter(LevelFilter::INFO);
        let subscriber = tracing_subscriber::registry().with(layer);
        let _held = tracing::subscriber::set_default(subscriber);
        tracing::callsite::rebuild_interest_cache();
        let group = GroupId::config(0);
        for span in [
            purge(&group, 7),
            retention("delete", &group, 2),
            retention("mark", &group, 2),
            record(),
        ] {
            let well: Result<(), ()> = within(span.clone(), |()| "no kind", async { Ok(()) }).await;
            well.unwrap();
            assert_eq!(*recorded.0.lock().unwrap(), []);
            let failed: Result<(), u8> = within(span, |_| "wait", async { Err(1) }).await;
            failed.unwrap_err();
            let told = std::mem::take(&mut *recorded.0.lock().unwrap());
            let expected = [("otel.status_code", "ERROR"), ("error.type", "wait")];
            assert_eq!(told, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        }
    }
}
