//! An answer that is not a success: a problem document plus the headers that go with it.
//!
//! The types, statuses and titles stand in `confman_client::wire::ProblemKind`; here they become responses.
//! Whoever makes a [`Failure`] returns it; `call.rs` alone logs it.

use axum::body::Body;
use axum::response::Response;
use confman_client::wire::Problem;
use confman_client::wire::ProblemKind;
use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;
use http::header;

/// What a handler answers.
pub(crate) type Answer = Result<Response, Failure>;

/// A problem on its way to the client.
#[derive(Debug)]
pub(crate) struct Failure(Box<Inner>);

#[derive(Debug)]
struct Inner {
    problem: Problem,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// What only the log may say (paths, errors of the disk).
    cause: Option<String>,
}

impl Failure {
    /// A problem of `kind`.
    pub(crate) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            problem: Problem::new(kind, detail),
            headers: Vec::new(),
            cause: None,
        }))
    }

    /// A request that is not valid, with the field, header or parameter that is wrong.
    pub(crate) fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(ProblemKind::InvalidRequest, detail).field(field)
    }

    /// A defect or a failing disk: the client learns that it happened, the log learns what.
    pub(crate) fn internal(cause: impl std::fmt::Display) -> Self {
        let mut failure = Self::new(ProblemKind::Internal, "the node could not do this")
            .hint("the node's log has the cause under this request id");
        failure.0.cause = Some(cause.to_string());
        failure
    }

    /// The node cannot do this now, the client may try again.
    pub(crate) fn busy(detail: impl Into<String>) -> Self {
        Self::new(ProblemKind::Unavailable, detail).retry_after(1)
    }

    /// The body exceeds what this place takes.
    pub(crate) fn too_large(detail: impl Into<String>) -> Self {
        Self::new(ProblemKind::PayloadTooLarge, detail)
    }

    #[must_use]
    pub(crate) fn field(mut self, field: impl Into<String>) -> Self {
        self.0.problem.field = Some(field.into());
        self
    }

    /// With the stable name of this refusal.
    #[must_use]
    pub(crate) fn code(mut self, code: &str) -> Self {
        self.0.problem.code = Some(code.to_owned());
        self
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.problem.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub(crate) fn current_version(mut self, version: Option<u64>) -> Self {
        self.0.problem.current_version = version;
        self
    }

    /// As found inside something: the field's name gets a prefix.
    #[must_use]
    pub(crate) fn inside(mut self, prefix: &str) -> Self {
        if let Some(field) = &mut self.0.problem.field {
            field.insert_str(0, prefix);
        }
        self
    }

    /// The same problem, for a place that only has it by reference.
    pub(crate) fn again(&self) -> Self {
        Self(Box::new(Inner {
            problem: self.0.problem.clone(),
            headers: self.0.headers.clone(),
            cause: self.0.cause.clone(),
        }))
    }

    /// With a status that is finer than the kind's own.
    #[must_use]
    pub(crate) fn status(mut self, status: StatusCode) -> Self {
        self.0.problem.status = status.as_u16();
        self
    }

    #[must_use]
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Self {
        // A value that is no header is left out: the problem itself matters more.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers.push((name, value));
        }
        self
    }

    #[must_use]
    pub(crate) fn retry_after(self, seconds: u32) -> Self {
        self.header(header::RETRY_AFTER, &seconds.to_string())
    }

    /// The document, for places that carry problems inside an answer.
    pub(crate) fn into_problem(self) -> Problem {
        self.0.problem
    }

    /// What the log shall say beyond the problem's detail.
    pub(crate) fn cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    /// Whether the body was too large.
    pub(crate) fn is_too_large(&self) -> bool {
        self.0.problem.kind() == Some(ProblemKind::PayloadTooLarge)
    }

    /// The problem's detail.
    pub(crate) fn detail(&self) -> &str {
        &self.0.problem.detail
    }

    /// The response, with the request id as the problem's instance.
    pub(crate) fn into_response(self, request_id: &str) -> Response {
        let Inner {
            mut problem,
            headers,
            cause: _,
        } = *self.0;
        problem.instance = Some(request_id.to_owned());
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        for (name, value) in headers {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
