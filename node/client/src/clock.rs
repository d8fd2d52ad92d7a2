//! What time it is elsewhere, by the `Date` header that every HTTP server sends.

use std::time::Duration;

use reqwest::header::DATE;

use crate::{ClientError, Endpoint, wire::Time};

/// The step of a `Date` header, in microseconds.
pub const DATE_STEP_US: i64 = 1_000_000;

/// The time that an HTTP server says it is, cut off to whole seconds ([`DATE_STEP_US`]). Sends no key, reads no body and asks
/// for nothing that could change anything; any answer will do.
///
/// # Errors
/// No answer `within` that time, or one without a date.
pub async fn date_of(server: &Endpoint, within: Duration) -> Result<Time, ClientError> {
    let unreachable = |last: String| ClientError::Unreachable {
        method: "HEAD".to_owned(),
        path: "/".to_owned(),
        seconds: within.as_secs_f64(),
        last,
    };
    let no_date = |why: String| ClientError::Answer {
        endpoint: server.to_string(),
        why,
    };
    let url = server
        .url("/")
        .map_err(|error| no_date(error.to_string()))?;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut http = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(within);
    if server.is_plain() {
        http = http.tls_certs_only(Vec::new());
    }
    let http = http
        .build()
        .map_err(|source| ClientError::Setup { source })?;
    let answer = http
        .head(url)
        .send()
        .await
        .map_err(|error| unreachable(crate::body::chain(&error)))?;
    let text = answer
        .headers()
        .get(DATE)
        .and_then(|value| value.to_str().ok())
        .ok_or_else(|| no_date("it has no Date header".to_owned()))?;
    let stamp = jiff::fmt::rfc2822::parse(text)
        .map_err(|error| no_date(format!("its Date header is no date: {error}")))?;
    Ok(Time::from_us(stamp.timestamp().as_microsecond()))
}
