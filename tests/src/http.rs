//! One node's HTTP API as a scenario sees it: what was answered, unadorned.

use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value;

/// A version token: which life of the cluster, which term, which log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// Incarnation of the cluster.
    pub incarnation: u64,
    /// Raft term.
    pub term: u64,
    /// Log index in the group.
    pub index: u64,
}

impl std::str::FromStr for Token {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let parts: Vec<u64> = text.split('.').map(str::parse).collect::<Result<_, _>>()?;
        match parts[..] {
            [incarnation, term, index] => Ok(Self {
                incarnation,
                term,
                index,
            }),
            _ => bail!("version token {text} has {} parts", parts.len()),
        }
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.incarnation, self.term, self.index)
    }
}

/// What a node answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The version token of a write or read.
    ///
    /// # Errors
    /// There is none, or it is not one.
    pub fn token(&self) -> anyhow::Result<Token> {
        let text = self
            .header("x-confman-version")
            .context("the answer has no X-Confman-Version")?;
        text.parse()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// It is not JSON.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| {
            format!(
                "status {} with a body that is not JSON: {}",
                self.status,
                self.text()
            )
        })
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// This answer, if its status is one of those.
    ///
    /// # Errors
    /// It is another; says what the node answered.
    pub fn expect(self, statuses: &[u16]) -> anyhow::Result<Self> {
        if statuses.contains(&self.status) {
            return Ok(self);
        }
        bail!(
            "status {} instead of {statuses:?}: {}",
            self.status,
            self.text()
        )
    }
}

/// Speaks to one node.
#[derive(Debug, Clone)]
pub struct Api {
    client: reqwest::Client,
    base: String,
    key: String,
}

/// One request being put together.
#[derive(Debug)]
pub struct Ask {
    request: reqwest::RequestBuilder,
}

impl Api {
    /// For the node at `base`, as the holder of `key`. Follows no redirect.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(base: &str, key: &str) -> anyhow::Result<Self> {
        Self::trusting(base, key, None)
    }

    /// The same, trusting the authorities of that PEM and no others.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn trusting(base: &str, key: &str, authorities: Option<&[u8]>) -> anyhow::Result<Self> {
        Self::showing(base, key, authorities, None)
    }

    /// The same, showing the certificate in that PEM, which holds its key too.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn showing(
        base: &str,
        key: &str,
        authorities: Option<&[u8]>,
        certificate: Option<&[u8]>,
    ) -> anyhow::Result<Self> {
        // The HTTP client wants a TLS provider even for plain HTTP; whoever comes second finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(2))
            .timeout(Duration::from_secs(30));
        let client = match authorities {
            Some(pem) => client.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem)?),
            None => client,
        };
        let client = match certificate {
            Some(pem) => client.identity(reqwest::Identity::from_pem(pem)?),
            None => client,
        };
        let client = client.build().context("make an HTTP client")?;
        Ok(Self {
            client,
            base: base.to_owned(),
            key: key.to_owned(),
        })
    }

    /// The same client for another node.
    #[must_use]
    pub fn at(&self, base: &str) -> Self {
        Self {
            base: base.trim_end_matches('/').to_owned(),
            ..self.clone()
        }
    }

    /// The same node, with another key (or none).
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Self {
            key: key.to_owned(),
            ..self.clone()
        }
    }

    /// Where it speaks to.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A request; `path` begins with `/`.
    #[must_use]
    pub fn ask(&self, method: Method, path: &str) -> Ask {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if !self.key.is_empty() {
            request = request.bearer_auth(&self.key);
        }
        Ask { request }
    }

    /// GET.
    #[must_use]
    pub fn get(&self, path: &str) -> Ask {
        self.ask(Method::GET, path)
    }

    /// PUT of a JSON envelope with this value.
    #[must_use]
    pub fn put(&self, path: &str, value: &Value) -> Ask {
        let body = serde_json::json!({ "value": value }).to_string();
        self.ask(Method::PUT, path)
            .header("content-type", "application/json")
            .body(body)
    }

    /// DELETE.
    #[must_use]
    pub fn delete(&self, path: &str) -> Ask {
        self.ask(Method::DELETE, path)
    }

    /// POST with a JSON body.
    #[must_use]
    pub fn post(&self, path: &str, body: &Value) -> Ask {
        self.ask(Method::POST, path)
            .header("content-type", "application/json")
            .body(body.to_string())
    }

    /// GET, expecting 200 and JSON.
    ///
    /// # Errors
    /// Anything else.
    pub async fn get_json(&self, path: &str) -> anyhow::Result<Value> {
        self.get(path).send().await?.expect(&[200])?.json()
    }
}

impl Ask {
    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<reqwest::Body>) -> Self {
        self.request = self.request.body(body);
        self
    }

    /// Gives up after this long.
    #[must_use]
    pub fn timeout(mut self, bound: Duration) -> Self {
        self.request = self.request.timeout(bound);
        self
    }

    /// Reads with this consistency.
    #[must_use]
    pub fn consistency(self, mode: &str) -> Self {
        self.header("x-confman-consistency", mode)
    }

    /// Sends it once and reads the whole answer.
    ///
    /// # Errors
    /// No answer; whether the request arrived is then unknown, unless [`never_sent`] says that it did not.
    pub async fn send(self) -> anyhow::Result<Answer> {
        let response = self.request.send().await?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = response.bytes().await?.to_vec();
        Ok(Answer {
            status,
            headers,
            body,
        })
    }
}

/// Whether this error proves that the node never saw the request.
#[must_use]
pub fn never_sent(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<reqwest::Error>()
        .is_some_and(reqwest::Error::is_connect)
}

/// `scheme://host:port` of a `Location` header.
///
/// # Errors
/// It is not an absolute URL.
pub fn origin(location: &str) -> anyhow::Result<String> {
    let (scheme, rest) = location
        .split_once("://")
        .with_context(|| format!("Location {location} is not absolute"))?;
    let host = rest.split('/').next().unwrap_or_default();
    Ok(format!("{scheme}://{host}"))
}
