//! Sending a request on to the leader, for clients that asked for it with `X-Confman-Forward`.
//!
//! Promises: only to the leader that the committed membership names, with the client's own key, once: the leader does
//! not forward again. Bodies are streamed. An answer that did not come says whether the write may yet happen.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use confman_client::wire::ProblemKind;
use confman_client::wire::header as names;
use futures::TryStreamExt as _;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::StatusCode;
use http::Uri;
use http::header;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::Api;
use super::backend::LeaderInfo;
use super::call::Call;
use super::failure::Answer;
use super::failure::Failure;
use crate::tls::Tls;
use crate::tls::connect::Connector;
use crate::tls::door::Listener;
use crate::traces::carry;
use crate::traces::spans;

/// For a connection to the leader.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often silence is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What goes from one connection to the next and no further.
const HOP_BY_HOP: &[HeaderName] = &[
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
    header::EXPECT,
];

/// Connections to other nodes' APIs.
pub(crate) type Forwarder = Client<Connector, Body>;

pub(crate) fn forwarder(tls: Option<Arc<Tls>>) -> Forwarder {
    Client::builder(TokioExecutor::new())
        .pool_idle_timeout(Duration::from_secs(15))
        .build(Connector::new(Listener::Api, tls, CONNECT_TIMEOUT))
}

/// Sends the whole call on, its body streamed, and answers what the leader answers.
pub(crate) async fn whole(api: &Arc<Api>, call: &mut Call, leader: &LeaderInfo) -> Answer {
    let target = call
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str())
        .to_owned();
    let headers = passed_on(call);
    let begun = Instant::now();
    let progress = Arc::new(AtomicU64::new(0));
    let body = match call.body.take() {
        Some(reader) if !reader.is_announced_empty() => {
            let progress = Arc::clone(&progress);
            let pieces = reader
                .into_stream(api.limits.value_bytes_max)
                .inspect_ok(move |_| {
                    progress.store(begun.elapsed().as_secs(), Ordering::Relaxed);
                });
            Body::from_stream(pieces)
        }
        _ => Body::empty(),
    };
    let request = request(leader, &target, call.method.clone(), headers, body)?;
    let response = send(api, request, leader, begun, &progress).await?;
    if response.status() == StatusCode::TEMPORARY_REDIRECT {
        return Err(moved());
    }
    Ok(response)
}

/// Sends a body of our own to `path` on the leader, as the caller; gives status and body of at most `bytes_max`.
pub(crate) async fn document(
    api: &Arc<Api>,
    call: &Call,
    leader: &LeaderInfo,
    path: &str,
    document: Vec<u8>,
    bytes_max: usize,
) -> Result<(StatusCode, Bytes), Failure> {
    let mut headers = passed_on(call);
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    let begun = Instant::now();
    let request = request(
        leader,
        path,
        call.method.clone(),
        headers,
        Body::from(document),
    )?;
    let response = send(api, request, leader, begun, &AtomicU64::new(0)).await?;
    let status = response.status();
    let read = axum::body::to_bytes(response.into_body(), bytes_max);
    match tokio::time::timeout(api.limits.leader_silence(), read).await {
        Ok(Ok(body)) => Ok((status, body)),
        Ok(Err(_)) | Err(_) => Err(unanswered(leader)),
    }
}

fn request(
    leader: &LeaderInfo,
    target: &str,
    method: Method,
    headers: HeaderMap,
    body: Body,
) -> Result<Request<Body>, Failure> {
    let uri: Uri = format!("{}{target}", leader.api_url.trim_end_matches('/'))
        .parse()
        .map_err(|e| Failure::internal(format!("API address of {}: {e}", leader.name)))?;
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}

fn passed_on(call: &Call) -> HeaderMap {
    let mut headers = call.headers.clone();
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    // The next node redirects instead of forwarding, so that no request goes round in circles.
    headers.remove(names::FORWARD);
    for (name, id) in [
        (names::REQUEST_ID, &call.request_id),
        (names::CORRELATION_ID, &call.correlation_id),
    ] {
        if let Ok(value) = HeaderValue::from_str(id) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    headers
}

async fn send(
    api: &Arc<Api>,
    mut request: Request<Body>,
    leader: &LeaderInfo,
    begun: Instant,
    progress: &AtomicU64,
) -> Result<Response, Failure> {
    let span = spans::forward(request.method(), request.uri(), &leader.name);
    carry::pass_on(&span, request.headers_mut());
    let answered = exchange(api, request, leader, begun, progress)
        .instrument(span.clone())
        .await;
    spans::forwarded(&span, answered.as_ref().ok().map(Response::status));
    answered
}

async fn exchange(
    api: &Arc<Api>,
    request: Request<Body>,
    leader: &LeaderInfo,
    begun: Instant,
    progress: &AtomicU64,
) -> Result<Response, Failure> {
    let answer = api.forwarder.request(request);
    tokio::pin!(answer);
    let answered = loop {
        match tokio::time::timeout(LOOK_EVERY, &mut answer).await {
            Ok(answered) => break answered,
            Err(_) => {
                let last = begun + Duration::from_secs(progress.load(Ordering::Relaxed));
                if last.elapsed() > api.limits.leader_silence() {
                    return Err(unanswered(leader));
                }
            }
        }
    };
    match answered {
        Ok(response) => {
            let mut response = response.map(Body::new);
            for name in HOP_BY_HOP {
                response.headers_mut().remove(name);
            }
            Ok(response)
        }
        Err(e) if e.is_connect() => Err(Failure::busy(format!(
            "{} leads and cannot be reached, nothing was written",
            leader.name
        ))),
        Err(_) => Err(unanswered(leader)),
    }
}

/// The leader that the request was sent to leads no more, and did nothing of it: one that had begun says so itself.
pub(crate) fn moved() -> Failure {
    Failure::busy("leadership moved while the request was forwarded, nothing was written")
        .hint("send it again")
}

fn unanswered(leader: &LeaderInfo) -> Failure {
    Failure::new(
        ProblemKind::WriteTimeout,
        format!(
            "the write was forwarded to {} and no answer came: it may yet happen",
            leader.name
        ),
    )
    .hint("read the entry, or send the same request again with the same Idempotency-Key")
}
