//! What happens around every request: ids, limits, who asks, the answer's common headers, metrics, the log line.
//!
//! Promises: [`answer`] is the only way from a request to a response, so that nothing can be added that skips
//! authentication, ids or metrics; a failure is logged here and nowhere else, without the values of entries and with
//! the path still percent-encoded, so that no name can write into a terminal.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use confman_client::wire::ProblemKind;
use confman_client::wire::VersionToken;
use confman_client::wire::header as names;
use confman_snapshot::model::Position;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::Uri;
use http::header;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument as _;
use tracing::Span;

use super::Api;
use super::access::Access;
use super::access::Identity;
use super::body::BodyReader;
use super::endpoints::Endpoint;
use super::failure::Failure;
use super::headers::sane_id;
use crate::grumble::Pace;
use crate::traces::carry;
use crate::traces::spans;

/// One request, as handlers see it.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) identity: Identity,
    pub(crate) request_id: String,
    pub(crate) correlation_id: String,
    /// Until somebody takes it to forward it.
    pub(crate) body: Option<BodyReader>,
}

impl Call {
    /// The path after a prefix that the route guarantees, still encoded.
    pub(crate) fn rest<'c>(&'c self, prefix: &str) -> &'c str {
        self.uri.path().strip_prefix(prefix).unwrap_or_default()
    }

    /// The body, which a handler reads at most once.
    pub(crate) fn body(&mut self) -> Result<&mut BodyReader, Failure> {
        self.body
            .as_mut()
            .ok_or_else(|| Failure::internal("the body was taken before"))
    }
}

/// Answers one request.
pub(crate) async fn answer(
    api: Arc<Api>,
    endpoint: &'static Endpoint,
    request: Request,
) -> Response {
    let begun = Instant::now();
    let (head, body) = request.into_parts();
    let method = head.method.clone();
    let path = head.uri.path().to_owned();
    let request_id = sane_id(&head.headers, names::REQUEST_ID).unwrap_or_else(|| api.new_id());
    let correlation_id =
        sane_id(&head.headers, names::CORRELATION_ID).unwrap_or_else(|| api.new_id());
    let body = BodyReader::new(&head.headers, body, &api.limits);
    let complete = body.completeness();
    let mut call = Call {
        body: Some(body),
        method: head.method,
        uri: head.uri,
        headers: head.headers,
        identity: Identity::anonymous(),
        request_id: request_id.clone(),
        correlation_id: correlation_id.clone(),
    };

    let admitted = enter(&api, endpoint, &mut call);
    let span = span(endpoint, &call);
    if admitted.is_ok() {
        // Strangers do not decide which traces are kept.
        carry::adopt(&span, &call.headers);
    }
    let answered = async {
        let _place = admitted?;
        (endpoint.handler)(&api, &mut call).await
    }
    .instrument(span.clone())
    .await;

    let (mut response, failure) = match answered {
        Ok(response) => (response, None),
        Err(failure) => {
            let text = match failure.cause() {
                Some(cause) => format!("{}: {cause}", failure.detail()),
                None => failure.detail().to_owned(),
            };
            (failure.into_response(&request_id), Some(text))
        }
    };
    let status = response.status();
    common_headers(response.headers_mut(), &request_id, &correlation_id);
    if !complete.load(Ordering::Relaxed) {
        // What is left of the body is not read: said beforehand, so that no client sends another request after it.
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    spans::answered(&span, status, &call.identity.name);
    record(endpoint.path, &method, status, begun);
    let line = Line {
        method: &method,
        path: &path,
        status,
        actor: &call.identity.name,
        request_id: &request_id,
        correlation_id: &correlation_id,
        millis: begun.elapsed().as_secs_f64() * 1000.0,
        trace_id: carry::trace_id(&span),
    };
    line.log(failure.as_deref(), &api.pace);
    response
}

/// A place among the requests and the caller's identity, before anything of the body is read.
fn enter(
    api: &Api,
    endpoint: &Endpoint,
    call: &mut Call,
) -> Result<Option<OwnedSemaphorePermit>, Failure> {
    // A node that is full still says that it lives.
    let place = match endpoint.access {
        Access::Open => None,
        _ => Some(api.budgets.request()?),
    };
    check_head(api, call)?;
    call.identity = admit(api, endpoint.access, &call.headers)?;
    Ok(place)
}

/// What is traced of the call: nothing of what is asked every few seconds by whoever watches.
fn span(endpoint: &Endpoint, call: &Call) -> Span {
    if endpoint.access == Access::Open {
        return Span::none();
    }
    spans::request(&spans::Asked {
        method: &call.method,
        route: endpoint.path,
        uri: &call.uri,
        request_id: &call.request_id,
        correlation_id: &call.correlation_id,
    })
}

fn check_head(api: &Api, call: &Call) -> Result<(), Failure> {
    let limits = &api.limits;
    if call.headers.len() > limits.header_count_max {
        return Err(headers_too_large(format!(
            "the request has more than {} headers",
            limits.header_count_max
        )));
    }
    let target = call
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if target > limits.header_bytes_max {
        return Err(Failure::invalid("path", "the path and query are too long")
            .status(StatusCode::URI_TOO_LONG));
    }
    let bytes: usize = call
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if bytes > limits.header_bytes_max {
        return Err(headers_too_large(format!(
            "the headers have more than {} bytes",
            limits.header_bytes_max
        )));
    }
    Ok(())
}

fn headers_too_large(detail: String) -> Failure {
    Failure::new(ProblemKind::HeadersTooLarge, detail)
}

/// Who asks, if that is enough for `access`.
fn admit(api: &Api, access: Access, headers: &HeaderMap) -> Result<Identity, Failure> {
    if access == Access::Open || api.keys.is_open() {
        return Ok(Identity::anonymous());
    }
    // One answer whatever is wrong: it tells nobody which keys exist.
    let identity = bearer(headers)
        .and_then(|key| api.keys.authenticate(key))
        .ok_or_else(|| {
            Failure::new(ProblemKind::Unauthorized, "this needs a valid API key")
                .hint("send Authorization: Bearer KEY; keys are made by confman key create")
                .header(header::WWW_AUTHENTICATE, "Bearer")
        })?;
    if access.admits(identity.role) {
        Ok(identity)
    } else {
        Err(Failure::new(
            ProblemKind::Forbidden,
            format!("this needs the role {} or one above it", access.least()),
        ))
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

fn common_headers(headers: &mut HeaderMap, request_id: &str, correlation_id: &str) {
    for (name, text) in [
        (names::REQUEST_ID, request_id),
        (names::CORRELATION_ID, correlation_id),
    ] {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
}

/// Measures an answer.
pub(crate) fn record(route: &'static str, method: &Method, status: StatusCode, begun: Instant) {
    // Methods are open-ended: what no route takes is one series.
    let method = match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        _ => "other",
    };
    metrics::counter!(
        "confman_http_requests_total",
        "route" => route, "method" => method, "status" => status.as_str().to_owned()
    )
    .increment(1);
    metrics::histogram!("confman_http_request_seconds", "route" => route)
        .record(begun.elapsed().as_secs_f64());
}

struct Line<'a> {
    method: &'a Method,
    path: &'a str,
    status: StatusCode,
    actor: &'a str,
    request_id: &'a str,
    correlation_id: &'a str,
    millis: f64,
    /// Where the request is traced, and the trace kept.
    trace_id: Option<String>,
}

impl Line<'_> {
    fn log(&self, failure: Option<&str>, pace: &Pace) {
        let Self {
            method,
            path,
            actor,
            request_id,
            correlation_id,
            millis,
            trace_id,
            ..
        } = self;
        let trace_id = trace_id.as_deref();
        let status = self.status.as_u16();
        // A probe of a node that is not ready yet is an answer, no fault.
        let failed = self.status.is_server_error() && !path.starts_with("/health");
        // Beyond the pace it is told to those who want every request.
        let told = if failed {
            pace.may(Instant::now())
        } else {
            None
        };
        if let Some(kept_back) = told {
            let kept_back = (kept_back > 0).then_some(kept_back);
            let detail = failure.unwrap_or_default();
            tracing::warn!(
                %method, path, status, actor, request_id, correlation_id, trace_id, millis, kept_back, detail, "request failed"
            );
        } else {
            tracing::debug!(%method, path, status, actor, request_id, correlation_id, trace_id, millis, "request");
        }
    }
}

/// A JSON answer.
pub(crate) fn json(
    status: StatusCode,
    document: &impl serde::Serialize,
) -> Result<Response, Failure> {
    let body = serde_json::to_vec(document).map_err(Failure::internal)?;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    Ok(response)
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Sets a header whose value we made; what is no header value is left out.
pub(crate) fn set(response: &mut Response, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response
            .headers_mut()
            .insert(HeaderName::from_static(name), value);
    }
}

/// Says which position of the group the answer reflects.
pub(crate) fn set_version(response: &mut Response, incarnation: u64, position: Option<&Position>) {
    if let Some(position) = position {
        let token = VersionToken {
            incarnation,
            term: position.term,
            index: position.index,
        };
        set(response, names::VERSION, &token.to_string());
    }
}
