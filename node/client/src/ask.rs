//! One call: attempts until there is an answer that counts, or until its time is over.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use reqwest::{
    Method, Response, StatusCode,
    header::{
        AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION,
        RETRY_AFTER,
    },
};
use secrecy::ExposeSecret;
use tokio::time::Instant;

use crate::{
    Client, ClientError, Endpoint, Upload,
    body::{Download, chain},
    course::{Course, Setback},
    handshake,
    silence::WATCHED_BYTES_MAX,
    wire::{Problem, ProblemKind, header},
};

/// The largest JSON answer that is taken: a full page of the largest inline values, with room.
const ANSWER_BYTES_MAX: usize = 512 << 20;
const PROBLEM_BYTES_MAX: usize = 64 << 10;
/// Slower than this a large value does not arrive in time.
const TRANSFER_BYTES_PER_SECOND_MIN: u64 = 1 << 20;

/// A question to the cluster.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    /// Encoded, with the query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) content_type: Option<&'static str>,
    pub(crate) upload: Upload,
    /// It changes something: without an answer the outcome is unknown.
    pub(crate) write: bool,
    /// It may be sent again when the answer was lost.
    pub(crate) repeatable: bool,
    /// First segment of the namespace, by which its leader is remembered.
    pub(crate) route: Option<String>,
    /// This node only, instead of any.
    pub(crate) only: Option<Endpoint>,
    pub(crate) attempt_max: Duration,
    pub(crate) total_max: Duration,
}

impl Ask {
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Result<Self, ClientError> {
        let value = HeaderValue::from_str(value).map_err(|_| ClientError::Header { what: name })?;
        self.headers.insert(HeaderName::from_static(name), value);
        Ok(self)
    }
}

/// An answer that counts: 2xx or 304.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) endpoint: Endpoint,
    pub(crate) body: Body,
}

#[derive(Debug)]
pub(crate) enum Body {
    Whole(Bytes),
    Stream(Download),
}

/// How the body of an answer is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    Whole,
    Stream,
}

/// A write whose outcome is unknown is sent again until so long after it was sent first: the cluster forgets the key under which it knows
/// it again some time later, and would apply it a second time.
pub const WRITE_RESENT_MAX: Duration = Duration::from_secs(13 * 60);

/// Whether the cluster may know a write no more by its key at `next`, when it was perhaps applied at `unconfirmed` first.
fn forgotten(unconfirmed: Option<Instant>, next: Instant) -> bool {
    unconfirmed.is_some_and(|since| next.saturating_duration_since(since) > WRITE_RESENT_MAX)
}

/// What one attempt puts up with.
#[derive(Debug, Clone, Copy)]
struct Patience {
    limit: Duration,
    /// For as long, even when the node does not say that it is alive: it cannot be asked twice, nobody else can be asked, or what is
    /// sent may fill the line.
    silence: bool,
}

/// How one attempt ended.
enum Ended {
    Answered(Box<Reply>),
    Refused(Problem),
    SetBack(Setback, String),
}

impl Client {
    /// Asks until an answer counts.
    pub(crate) async fn ask(&self, ask: &Ask, want: Want) -> Result<Reply, ClientError> {
        let started = Instant::now();
        let transfer = Duration::from_secs(ask.upload.len() / TRANSFER_BYTES_PER_SECOND_MIN);
        let mut deadline = started + ask.total_max + transfer;
        let homes = ask
            .only
            .clone()
            .map_or_else(|| self.trust.all(), |only| vec![only]);
        let start = ask
            .only
            .clone()
            .or_else(|| self.routes.get(ask.route.as_deref()));
        let mut course = Course::new(homes.clone(), start, self.first.clone());
        let mut unshaken: BTreeSet<Endpoint> = BTreeSet::new();
        let mut failures: BTreeMap<String, String> = BTreeMap::new();
        let mut maybe_done = false;
        // Since when this call may have been applied under its key, and whether a part of it was.
        let mut unconfirmed: Option<Instant> = None;
        let mut progressed = false;
        loop {
            let sent = Instant::now();
            let endpoint = course.current().clone();
            let limit = (ask.attempt_max + transfer)
                .min(deadline.saturating_duration_since(Instant::now()));
            let elsewhere = homes.iter().any(|home| *home != endpoint);
            let small = ask.upload.len() <= WATCHED_BYTES_MAX;
            let patience = Patience {
                limit,
                silence: !(ask.repeatable && elsewhere && small),
            };
            let setback = match self
                .attempt(ask, want, &endpoint, course.forward(), patience)
                .await?
            {
                Ended::Answered(reply) => {
                    if ask.write && !course.forward() {
                        self.routes.put(ask.route.as_deref(), &endpoint);
                    }
                    return Ok(*reply);
                }
                // Somebody else deleted the rest, between two attempts: all that was to go is gone.
                Ended::Refused(problem)
                    if progressed && problem.kind() == Some(ProblemKind::NotFound) =>
                {
                    return Ok(nothing_left(endpoint));
                }
                Ended::Refused(problem) if maybe_done && !decides(&problem) => {
                    failures.insert(endpoint.to_string(), problem.detail);
                    return Err(gave_up(ask, started, maybe_done, &failures));
                }
                Ended::Refused(problem) => {
                    return Err(ClientError::Problem {
                        endpoint: endpoint.to_string(),
                        problem: Box::new(problem),
                    });
                }
                Ended::SetBack(setback, why) => {
                    if handshake::hint(&why).is_some() {
                        unshaken.insert(endpoint.clone());
                    } else {
                        unshaken.remove(&endpoint);
                    }
                    failures.insert(endpoint.to_string(), why);
                    setback
                }
            };
            // Certificates do not change while one waits.
            if homes.iter().all(|home| unshaken.contains(home)) {
                return Err(gave_up(ask, started, maybe_done, &failures));
            }
            if setback == Setback::Progressed {
                (maybe_done, progressed) = (true, true);
                deadline = Instant::now() + ask.total_max;
                // The key stands for the last step alone, which may have been taken although nobody confirmed it.
                unconfirmed = Some(sent);
            }
            if !matches!(setback, Setback::Redirected { .. } | Setback::Progressed) {
                self.routes.forget(ask.route.as_deref(), &endpoint);
            }
            if setback == Setback::Lost {
                maybe_done |= ask.write;
                if !ask.repeatable {
                    return Err(gave_up(ask, started, maybe_done, &failures));
                }
                unconfirmed.get_or_insert(sent);
            }
            let pause = course.after(setback).mul_f64(rand::random_range(0.6..=1.0));
            let next = Instant::now() + pause;
            if next >= deadline || (ask.write && forgotten(unconfirmed, next)) {
                return Err(gave_up(ask, started, maybe_done, &failures));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Sends once. An error here ends the call.
    async fn attempt(
        &self,
        ask: &Ask,
        want: Want,
        endpoint: &Endpoint,
        forward: bool,
        patience: Patience,
    ) -> Result<Ended, ClientError> {
        let request = self.request(ask, endpoint, forward).await?;
        let limit = patience.limit;
        let until = Instant::now() + limit;
        let response = tokio::select! {
            biased;
            response = self.http.execute(request) => response,
            () = tokio::time::sleep_until(until) => {
                let why = format!("no answer within {:.1} s", limit.as_secs_f64());
                return Ok(Ended::SetBack(Setback::Lost, why));
            }
            why = self.silence(endpoint), if !patience.silence => {
                return Ok(Ended::SetBack(Setback::Lost, why));
            }
        };
        let response = match response {
            Ok(response) => response,
            Err(error) if error.is_connect() || handshake::never_read(&error) => {
                return Ok(Ended::SetBack(Setback::NotReached, chain(&error)));
            }
            Err(error) => return Ok(Ended::SetBack(Setback::Lost, chain(&error))),
        };
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(take_answer(response, want, endpoint, until).await);
        }
        if matches!(
            status,
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
        ) {
            let to = self.redirect_target(&response, endpoint).await?;
            let why = format!("sent on to {to}");
            return Ok(Ended::SetBack(Setback::Redirected { to }, why));
        }
        Ok(take_refusal(response, endpoint, until).await)
    }

    async fn request(
        &self,
        ask: &Ask,
        endpoint: &Endpoint,
        forward: bool,
    ) -> Result<reqwest::Request, ClientError> {
        let setup = |source| ClientError::Setup { source };
        let url = endpoint.url(&ask.path).map_err(|e| ClientError::Endpoint {
            text: format!("{endpoint}{}: {e}", ask.path),
            why: "it makes no URL with this path",
        })?;
        let mut request = self
            .http
            .request(ask.method.clone(), url)
            .headers(ask.headers.clone());
        if let Some(key) = &self.api_key {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()))
                .map_err(|_| ClientError::Header {
                    what: "the API key",
                })?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if let Some(id) = &self.correlation_id {
            request = request.header(header::CORRELATION_ID, id);
        }
        if forward {
            request = request.header(header::FORWARD, "true");
        }
        if let Some(content_type) = ask.content_type {
            request = request
                .header(CONTENT_TYPE, content_type)
                .header(CONTENT_LENGTH, ask.upload.len())
                .body(ask.upload.body().await?);
        }
        request.build().map_err(setup)
    }

    /// Where a 307 points, when it may be asked.
    async fn redirect_target(
        &self,
        response: &Response,
        from: &Endpoint,
    ) -> Result<Endpoint, ClientError> {
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let Some(to) = Endpoint::of_location(location) else {
            let why = format!(
                "a redirect to {:?}, which is no address of a node",
                shorten(location)
            );
            return Err(ClientError::Answer {
                endpoint: from.to_string(),
                why,
            });
        };
        if let Some(way) = self.trust.way_to(to.clone()) {
            return Ok(way);
        }
        // Whether it is a member is what the node says that has the key already.
        self.learn_members(from).await;
        let foreign = || ClientError::ForeignRedirect {
            from: from.to_string(),
            to: to.to_string(),
        };
        self.trust.way_to(to.clone()).ok_or_else(foreign)
    }
}

async fn take_answer(response: Response, want: Want, endpoint: &Endpoint, until: Instant) -> Ended {
    let (status, headers) = (response.status(), response.headers().clone());
    let download = Download::new(endpoint.clone(), response);
    let body = match want {
        Want::Stream => Body::Stream(download),
        Want::Whole => {
            // What has begun to arrive gets a little more than the rest of its time.
            let until = until + Duration::from_secs(1);
            match tokio::time::timeout_at(until, download.bytes(ANSWER_BYTES_MAX)).await {
                Ok(Ok(bytes)) => Body::Whole(bytes),
                Ok(Err(error)) => return Ended::SetBack(Setback::Lost, error.to_string()),
                Err(_) => {
                    return Ended::SetBack(
                        Setback::Lost,
                        "the answer did not end in time".to_owned(),
                    );
                }
            }
        }
    };
    Ended::Answered(Box::new(Reply {
        status,
        headers,
        endpoint: endpoint.clone(),
        body,
    }))
}

async fn take_refusal(response: Response, endpoint: &Endpoint, until: Instant) -> Ended {
    let status = response.status();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let download = Download::new(endpoint.clone(), response);
    let body = tokio::time::timeout_at(until, download.bytes(PROBLEM_BYTES_MAX)).await;
    let body = body.ok().and_then(Result::ok).unwrap_or_default();
    let problem =
        serde_json::from_slice::<Problem>(&body).unwrap_or_else(|_| foreign_problem(status, &body));
    match status {
        _ if problem.kind() == Some(ProblemKind::DeletedInPart) => {
            Ended::SetBack(Setback::Progressed, problem.detail)
        }
        // Asked again it would be built again, for as long as whoever asked is ready to wait for one.
        _ if problem.kind() == Some(ProblemKind::SnapshotFailed) => Ended::Refused(problem),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            Ended::SetBack(Setback::Busy { retry_after }, problem.detail)
        }
        StatusCode::GATEWAY_TIMEOUT | StatusCode::BAD_GATEWAY => {
            Ended::SetBack(Setback::Lost, problem.detail)
        }
        _ => Ended::Refused(problem),
    }
}

/// The answer to a deletion whose last part somebody else deleted.
fn nothing_left(endpoint: Endpoint) -> Reply {
    Reply {
        status: StatusCode::NO_CONTENT,
        headers: HeaderMap::new(),
        endpoint,
        body: Body::Whole(Bytes::new()),
    }
}

/// What stands in for the problem document of something that is not Confman.
fn foreign_problem(status: StatusCode, body: &[u8]) -> Problem {
    let text = String::from_utf8_lossy(body);
    let reason = status.canonical_reason().unwrap_or("no reason given");
    let first = text.lines().next().map(shorten).unwrap_or_default();
    Problem {
        problem_type: "about:blank".to_owned(),
        title: reason.to_owned(),
        status: status.as_u16(),
        detail: if first.is_empty() {
            reason.to_lowercase()
        } else {
            format!("{}: {first}", reason.to_lowercase())
        },
        code: None,
        instance: None,
        hint: None,
        field: None,
        current_version: None,
    }
}

/// After an attempt whose outcome is unknown only an answer out of replicated state says what became of the write.
fn decides(problem: &Problem) -> bool {
    matches!(
        problem.kind(),
        Some(
            ProblemKind::NotFound
                | ProblemKind::PreconditionFailed
                | ProblemKind::IdempotencyKeyReused
        )
    )
}

fn gave_up(
    ask: &Ask,
    started: Instant,
    maybe_done: bool,
    failures: &BTreeMap<String, String>,
) -> ClientError {
    let method = ask.method.to_string();
    let path = ask.path.clone();
    let seconds = started.elapsed().as_secs_f64();
    let last = failures
        .iter()
        .map(|(node, why)| format!("{node}: {why}"))
        .collect::<Vec<_>>()
        .join("; ");
    if maybe_done {
        ClientError::Unconfirmed {
            method,
            path,
            seconds,
            last,
        }
    } else {
        ClientError::Unreachable {
            method,
            path,
            seconds,
            last,
        }
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_write_is_sent_again_only_while_its_key_is_known() {
        let first = Instant::now();
        assert!(
            !forgotten(None, first + 2 * WRITE_RESENT_MAX),
            "it was never lost"
        );
        assert!(!forgotten(Some(first), first + WRITE_RESENT_MAX));
        let late = first + WRITE_RESENT_MAX + Duration::from_millis(1);
        assert!(forgotten(Some(first), late));
    }
}
