//! Sending a request on to the leader, for clients that asked for it with `X-Confman-Forward`.
//!
//! Promises: only to the leader that the committed membership names, with the client's own key, once: the leader does
//! not forward again. Bodies are streamed. An answer that did not come says whether the write may yet happen.
//!
//! It goes to the leader's peer listener ([`super::forwarded`]), by the address at which nodes reach each other: the API's is
//! where clients reach it, which in front of a proxy or a container's published port is nowhere that another node can go.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::body::HttpBody as _;
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
use hyper_util::rt::TokioTimer;
use parking_lot::Mutex;
use secrecy::ExposeSecret as _;
use secrecy::SecretString;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::Api;
use super::backend::LeaderInfo;
use super::call::Call;
use super::failure::Answer;
use super::failure::Failure;
use super::forwarded;
use crate::peer::CODE_KEY;
use crate::peer::TOKEN_KEY;
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

/// Connections to other nodes for what clients want sent on, apart from those that Raft has.
pub struct Forwarder {
    client: Client<Connector, Body>,
    /// For large bodies: those of one connection share what it may have in flight, and a small one would wait for the large ones.
    bulk: Client<Connector, Body>,
    scheme: &'static str,
    token: Option<HeaderValue>,
    life: String,
}

impl Forwarder {
    /// For a node of that life of its cluster ([`super::forwarded::life`]), which shows others its token, and its certificate where
    /// nodes have any.
    #[must_use]
    pub fn new(tls: Option<Arc<Tls>>, token: Option<&SecretString>, life: String) -> Self {
        let connector = Connector::new(Listener::Peers, tls, CONNECT_TIMEOUT);
        let token = token.and_then(|token| {
            let mut value = HeaderValue::from_str(token.expose_secret()).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        let scheme = connector.peer_scheme();
        // HTTP/2, which that listener speaks: a body that is refused early ends with the refusal, and not with the connection.
        let client = || {
            Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(Duration::from_secs(15))
                .http2_only(true)
                .http2_keep_alive_interval(Duration::from_secs(2))
                .http2_keep_alive_timeout(Duration::from_secs(3))
                .http2_initial_stream_window_size(1 << 20)
                .build(connector.clone())
        };
        Self {
            client: client(),
            bulk: client(),
            scheme,
            token,
            life,
        }
    }
}

/// Why the client's body was not passed on to its end: what went to the leader is then no answer to the client.
type BodyRefusal = Arc<Mutex<Option<Failure>>>;

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
    let refused = BodyRefusal::default();
    let body = match call.body.take() {
        Some(reader) if !reader.is_announced_empty() => {
            let bytes_max = api.limits.value_bytes_max;
            reader.check_announced(bytes_max)?;
            let (progress, refused) = (Arc::clone(&progress), Arc::clone(&refused));
            let pieces = reader
                .into_stream(bytes_max)
                .inspect_ok(move |_| {
                    progress.store(begun.elapsed().as_secs(), Ordering::Relaxed);
                })
                .map_err(move |failure| {
                    let error = std::io::Error::other(failure.detail().to_owned());
                    *refused.lock() = Some(failure);
                    error
                });
            Body::from_stream(pieces)
        }
        _ => Body::empty(),
    };
    let request = request(api, leader, &target, call.method.clone(), headers, body)?;
    let sent = send(api, request, leader, begun, &progress).await;
    // The leader got no more than a part of it, and writes nothing of a body that did not end.
    if let Some(failure) = refused.lock().take() {
        return Err(failure);
    }
    let response = sent?;
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
        api,
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
    api: &Api,
    leader: &LeaderInfo,
    target: &str,
    method: Method,
    mut headers: HeaderMap,
    body: Body,
) -> Result<Request<Body>, Failure> {
    let Forwarder {
        scheme,
        token,
        life,
        ..
    } = &api.forwarder;
    let uri: Uri = format!("{scheme}://{}{target}", leader.peer_addr)
        .parse()
        .map_err(|e| Failure::internal(format!("peer address of {}: {e}", leader.name)))?;
    let addressee = forwarded::addressee(life, leader.id);
    let addressee = HeaderValue::from_str(&addressee).map_err(Failure::internal)?;
    headers.insert(forwarded::ADDRESSEE, addressee);
    headers.remove(TOKEN_KEY);
    if let Some(token) = token {
        headers.insert(TOKEN_KEY, token.clone());
    }
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
    let client = match is_large(request.body()) {
        true => &api.forwarder.bulk,
        false => &api.forwarder.client,
    };
    let answer = client.request(request);
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
        Ok(response) if !response.headers().contains_key(forwarded::ANSWERED) => {
            // Not the API's answer, but that of a node of an older version, or of one that did not let it in.
            Err(not_taken(leader, response.headers().get(CODE_KEY)))
        }
        Ok(response) => {
            let mut response = response.map(Body::new);
            for name in HOP_BY_HOP {
                response.headers_mut().remove(name);
            }
            response.headers_mut().remove(forwarded::ANSWERED);
            Ok(response)
        }
        Err(e) if e.is_connect() => Err(Failure::busy(format!(
            "{} leads and cannot be reached, nothing was written",
            leader.name
        ))),
        Err(_) => Err(unanswered(leader)),
    }
}

/// What the other node said by its code, or by having none.
fn not_taken(leader: &LeaderInfo, code: Option<&HeaderValue>) -> Failure {
    let why = match code.and_then(|code| forwarded::Refused::of_code(code.as_bytes())) {
        Some(forwarded::Refused::Token) => {
            "it does not take this node's CONFMAN_CLUSTER_TOKEN, which is the same on all nodes"
        }
        Some(forwarded::Refused::Addressee) => {
            "at its address is another node, or this one in another life of the cluster"
        }
        None => "it is of a version that knows no forwarding between nodes",
    };
    Failure::busy(format!(
        "{} leads and did not take what this node sent on, nothing was written: {why}",
        leader.name
    ))
    .hint(
        "send it to the leader itself, where Location of the answer without X-Confman-Forward says",
    )
}

/// Whether it is a large body, or one that does not say how long it is.
fn is_large(body: &Body) -> bool {
    body.size_hint().upper().is_none_or(|bytes| bytes > 1 << 20)
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
