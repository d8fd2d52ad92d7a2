//! The client: its settings, and every question but those about entries (see `entries.rs`).

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use confman_tls::ClientTls;
use reqwest::{Method, header::HeaderMap};
use secrecy::SecretString;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    AuditFilter, ClientError, Endpoint, Page, ReadMode, Upload,
    ask::{Ask, Body, Reply, Want},
    names,
    routes::{Routes, fnv1a64, route_of},
    trust::Trust,
    wire::{
        AuditEvent, BatchRequest, BatchResult, ChangeAnswer, ChangeRequest, List, Members,
        NamespaceInfo, PeerReach, SnapshotItem, SnapshotOrder, StateHashAt, Status, VersionToken,
        header,
    },
};

pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(2);
/// A node answers a write within its own limit, by default of 10 s, and a read within 5 s.
const WRITE_ATTEMPT_MAX: Duration = Duration::from_secs(13);
/// Longer than the longest write timeout that a node can have, and short enough that a second attempt begins while the first is known
/// by its key.
const WRITE_ATTEMPT_LONGEST: Duration = Duration::from_secs(11 * 60);
/// What two attempts leave of a call's time for what is between them.
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(2);
const READ_ATTEMPT_MAX: Duration = Duration::from_secs(7);
pub(crate) const PROBE_MAX: Duration = Duration::from_secs(5);

/// What a client needs to know.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// The nodes to ask; at least one.
    pub endpoints: Vec<Endpoint>,
    /// Sent as `Authorization: Bearer`.
    pub api_key: Option<SecretString>,
    /// A call that moves no large value ends within this; where nodes have a longer write timeout than usual, twice that and
    /// some seconds.
    pub deadline: Duration,
    /// Sent as `X-Correlation-Id`.
    pub correlation_id: Option<String>,
    /// Whom it trusts with https, and what it shows.
    pub tls: ClientTls,
    /// Where a host of an endpoint is, whatever the name service says.
    pub resolve: Option<(String, SocketAddr)>,
}

impl ClientConfig {
    /// With no key, a deadline of 30 s, and the system's trust.
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        Self {
            endpoints,
            api_key: None,
            deadline: Duration::from_secs(30),
            correlation_id: None,
            tls: ClientTls::default(),
            resolve: None,
        }
    }
}

/// Asks a cluster. Cheap to clone; clones share connections and what they know of leaders.
#[derive(Clone)]
pub struct Client {
    pub(crate) http: reqwest::Client,
    pub(crate) api_key: Option<SecretString>,
    pub(crate) correlation_id: Option<String>,
    pub(crate) deadline: Duration,
    pub(crate) first: Endpoint,
    pub(crate) trust: Arc<Trust>,
    pub(crate) routes: Arc<Routes>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoints", &self.trust.given())
            .finish_non_exhaustive()
    }
}

/// An answer, with what its headers say.
#[derive(Debug, Clone)]
pub struct Answered<T> {
    /// The answer.
    pub value: T,
    /// The position that it reflects.
    pub token: Option<VersionToken>,
    /// Who answered.
    pub endpoint: Endpoint,
    /// The node's name for the request.
    pub request_id: Option<String>,
}

impl<T> Answered<T> {
    /// The same headers around something else.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Answered<U> {
        Answered {
            value: f(self.value),
            token: self.token,
            endpoint: self.endpoint,
            request_id: self.request_id,
        }
    }
}

impl Client {
    /// A client; connects only when asked.
    ///
    /// # Errors
    /// [`ClientError::Endpoint`] without an endpoint, [`ClientError::Setup`] when the HTTP client cannot be made.
    pub fn new(config: ClientConfig) -> Result<Self, ClientError> {
        let Some(first) = config.endpoints.first().cloned() else {
            return Err(ClientError::Endpoint {
                text: String::new(),
                why: "none is given",
            });
        };
        // Installed once per process; whoever was first has installed the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_MAX)
            .tcp_nodelay(true)
            .pool_max_idle_per_host(256)
            .user_agent(concat!("confman/", env!("CARGO_PKG_VERSION")));
        let setup = |source| ClientError::Setup { source };
        if let Some(roots) = config.tls.roots() {
            let roots: Result<Vec<_>, _> = roots
                .iter()
                .map(|root| reqwest::Certificate::from_der(root))
                .collect();
            http = http.tls_certs_only(roots.map_err(setup)?);
        } else if config.endpoints.iter().all(Endpoint::is_plain) {
            // An image without certificates can still ask over plain HTTP.
            http = http.tls_certs_only(Vec::new());
        }
        if let Some(pem) = config.tls.identity_pem() {
            http = http.identity(reqwest::Identity::from_pem(pem).map_err(setup)?);
        }
        if let Some((host, address)) = &config.resolve {
            http = http.resolve(host, *address);
        }
        Ok(Self {
            http: http.build().map_err(setup)?,
            api_key: config.api_key,
            correlation_id: config.correlation_id,
            deadline: config.deadline,
            first,
            trust: Arc::new(Trust::new(config.endpoints)),
            routes: Arc::default(),
        })
    }

    /// The endpoints that were given.
    pub fn endpoints(&self) -> &[Endpoint] {
        self.trust.given()
    }

    /// The endpoints that were given, and the members that nodes have named since.
    pub fn known_endpoints(&self) -> Vec<Endpoint> {
        self.trust.all()
    }

    /// One node's view; of any node, or of the given one.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&self, only: Option<&Endpoint>) -> Result<Answered<Status>, ClientError> {
        let mut ask = self.read_ask("/api/v1/status".to_owned());
        if let Some(only) = only {
            ask.only = Some(only.clone());
            ask.attempt_max = PROBE_MAX;
            ask.total_max = ask.total_max.min(PROBE_MAX);
        }
        let answered: Answered<Status> = self.json(&ask).await?;
        self.trust.learn(&answered.value);
        Ok(answered)
    }

    /// A replica's own state hash at a position of the recent past; of the given node.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn state_hash(
        &self,
        of: &Endpoint,
        group: &str,
        index: u64,
    ) -> Result<Answered<StateHashAt>, ClientError> {
        let mut query = Query::default();
        query.add("group", Some(group));
        query.add("index", Some(&index.to_string()));
        let mut ask = self.read_ask(format!("/api/v1/status/hash{query}"));
        ask.only = Some(of.clone());
        ask.attempt_max = PROBE_MAX;
        ask.total_max = ask.total_max.min(PROBE_MAX);
        self.json(&ask).await
    }

    /// Which other nodes a node reaches; of the given node.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn peers(&self, of: &Endpoint) -> Result<Answered<List<PeerReach>>, ClientError> {
        let mut ask = self.read_ask("/api/v1/status/peers".to_owned());
        ask.only = Some(of.clone());
        ask.attempt_max = PROBE_MAX;
        ask.total_max = ask.total_max.min(PROBE_MAX);
        self.json(&ask).await
    }

    /// Has one group, or all, snapshotted; answers when that is verified and recorded.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Unconfirmed`] when the answer was lost.
    pub async fn snapshot(
        &self,
        group: Option<&str>,
        wait_max: Duration,
    ) -> Result<Answered<List<SnapshotItem>>, ClientError> {
        let query = group
            .map(|group| format!("?group={}", names::encode(group)))
            .unwrap_or_default();
        let mut ask = self.write_ask(Method::POST, format!("/api/v1/admin/snapshots{query}"));
        ask.repeatable = false;
        ask.attempt_max = wait_max;
        ask.total_max = wait_max;
        self.json(&ask).await
    }

    /// Has one group, or all, snapshotted; answers as soon as somebody builds it.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Unconfirmed`] when the answer was lost.
    pub async fn order_snapshot(
        &self,
        group: Option<&str>,
    ) -> Result<Answered<List<SnapshotOrder>>, ClientError> {
        let mut query = Query::default();
        query.add("group", group);
        query.add("wait", Some("false"));
        let mut ask = self.write_ask(Method::POST, format!("/api/v1/admin/snapshots{query}"));
        ask.repeatable = false;
        self.json(&ask).await
    }

    /// Who is and shall be a member, as the leader of `__meta/0` knows it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn members(&self) -> Result<Answered<Members>, ClientError> {
        self.json(&self.read_ask("/api/v1/admin/members".to_owned()))
            .await
    }

    /// Begins a change of the membership. Sent twice with one id it is one change.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn change_members(
        &self,
        request: &ChangeRequest,
    ) -> Result<Answered<ChangeAnswer>, ClientError> {
        let mut ask = self.write_ask(Method::POST, "/api/v1/admin/members/changes".to_owned());
        ask.content_type = Some("application/json");
        ask.upload = Upload::Bytes(encode(request)?);
        self.json(&ask).await
    }

    /// Many small writes at once; each succeeds or is refused by itself.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn batch(
        &self,
        request: &BatchRequest,
    ) -> Result<Answered<BatchResult>, ClientError> {
        let mut ask = self.write_ask(Method::POST, "/api/v1/batch".to_owned());
        ask.route = request
            .items
            .first()
            .and_then(|item| route_of(&item.namespace));
        ask.content_type = Some("application/json");
        ask.upload = Upload::Bytes(encode(request)?);
        let answered: Answered<BatchResult> = self.json(&ask).await?;
        if answered.value.items.len() != request.items.len() {
            let (got, wanted) = (answered.value.items.len(), request.items.len());
            let why = format!("{got} results for a batch of {wanted}");
            return Err(ClientError::Answer {
                endpoint: answered.endpoint.to_string(),
                why,
            });
        }
        Ok(answered)
    }

    /// One page of the audit history, newest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn audit(
        &self,
        filter: &AuditFilter,
        page: &Page,
        mode: ReadMode,
    ) -> Result<Answered<List<AuditEvent>>, ClientError> {
        let mut query = Query::default();
        query.add("namespace", filter.namespace.as_deref());
        query.add("recursive", filter.recursive.then_some("true"));
        query.add("key", filter.key.as_deref());
        query.page(page);
        self.json(&self.with_mode(self.read_ask(format!("/api/v1/audit{query}")), mode)?)
            .await
    }

    /// One page of the namespaces: all, or those under a prefix.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list_namespaces(
        &self,
        prefix: Option<&str>,
        page: &Page,
        mode: ReadMode,
    ) -> Result<Answered<List<NamespaceInfo>>, ClientError> {
        let mut query = Query::default();
        query.add("prefix", prefix);
        query.page(page);
        self.json(&self.with_mode(self.read_ask(format!("/api/v1/namespaces{query}")), mode)?)
            .await
    }

    /// A namespace.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get_namespace(
        &self,
        path: &str,
        mode: ReadMode,
    ) -> Result<Answered<NamespaceInfo>, ClientError> {
        let path = format!("/api/v1/namespaces/{}", names::namespace_path(path)?);
        self.json(&self.with_mode(self.read_ask(path), mode)?).await
    }

    /// Makes a namespace; `true` when it was not there before.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create_namespace(
        &self,
        path: &str,
    ) -> Result<Answered<(NamespaceInfo, bool)>, ClientError> {
        let mut ask = self.write_ask(
            Method::PUT,
            format!("/api/v1/namespaces/{}", names::namespace_path(path)?),
        );
        ask.route = route_of(path);
        let reply = self.ask(&ask, Want::Whole).await?;
        let created = reply.status.as_u16() == 201;
        Ok(decode::<NamespaceInfo>(reply)?.map(|info| (info, created)))
    }

    /// Deletes a namespace and all that is below it: for as long as every attempt gets some of it deleted, however long that is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_namespace(&self, path: &str) -> Result<Answered<()>, ClientError> {
        let mut ask = self.write_ask(
            Method::DELETE,
            format!("/api/v1/namespaces/{}", names::namespace_path(path)?),
        );
        ask.route = route_of(path);
        Ok(answered(&self.ask(&ask, Want::Whole).await?, ()))
    }

    pub(crate) fn read_ask(&self, path: String) -> Ask {
        Ask {
            method: Method::GET,
            path,
            headers: HeaderMap::new(),
            content_type: None,
            upload: Upload::Bytes(Bytes::new()),
            write: false,
            repeatable: true,
            route: None,
            only: None,
            attempt_max: READ_ATTEMPT_MAX.min(self.deadline),
            total_max: self.deadline,
        }
    }

    /// With a name of its own, so that sending it twice is applying it once.
    pub(crate) fn write_ask(&self, method: Method, path: String) -> Ask {
        let mut ask = self.read_ask(path);
        ask.method = method;
        ask.write = true;
        ask.attempt_max = write_attempt_max(self.deadline);
        let key = hex::encode(rand::random::<[u8; 16]>());
        if let Ok(value) = key.parse() {
            ask.headers.insert(header::IDEMPOTENCY_KEY, value);
        }
        ask
    }

    pub(crate) fn with_mode(&self, ask: Ask, mode: ReadMode) -> Result<Ask, ClientError> {
        let ask = ask.header(header::CONSISTENCY, mode.as_str())?;
        match mode {
            ReadMode::ReadYourWrites(token) => ask.header(header::VERSION, &token.to_string()),
            ReadMode::Linearizable | ReadMode::Eventual => Ok(ask),
        }
    }

    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        ask: &Ask,
    ) -> Result<Answered<T>, ClientError> {
        decode(self.ask(ask, Want::Whole).await?)
    }

    /// Learns the members from a node that is trusted already. A failure leaves things as they are.
    pub(crate) async fn learn_members(&self, from: &Endpoint) {
        let mut ask = self.read_ask("/api/v1/status".to_owned());
        ask.only = Some(from.clone());
        ask.attempt_max = PROBE_MAX;
        ask.total_max = PROBE_MAX;
        // Boxed: asking may lead to a redirect, which leads here.
        if let Ok(answered) = Box::pin(self.json::<Status>(&ask)).await {
            self.trust.learn(&answered.value);
        }
    }

    /// Remembers who leads a namespace's group, so that a large value is not sent to a node that will not take it.
    pub(crate) async fn find_leader(&self, namespace: &str) {
        let Some(route) = route_of(namespace) else {
            return;
        };
        if self.routes.get(Some(&route)).is_some() {
            return;
        }
        let Ok(status) = Box::pin(self.status(None)).await else {
            return;
        };
        let groups: Vec<_> = status
            .value
            .groups
            .iter()
            .filter(|g| g.group.starts_with("config/"))
            .collect();
        let Some(shards) = u64::try_from(groups.len()).ok().filter(|&n| n > 0) else {
            return;
        };
        let wanted = format!("config/{}", fnv1a64(route.as_bytes()) % shards);
        let leader = groups
            .iter()
            .find(|g| g.group == wanted)
            .and_then(|g| g.leader.as_ref());
        if let Some(endpoint) = leader.and_then(|leader| leader.api_url.parse::<Endpoint>().ok())
            && self.trust.holds(&endpoint)
        {
            self.routes.put(Some(&route), &endpoint);
        }
    }
}

pub(crate) fn answered<T>(reply: &Reply, value: T) -> Answered<T> {
    let text = |name: &str| {
        reply
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    Answered {
        value,
        token: text(header::VERSION).and_then(|token| token.parse().ok()),
        endpoint: reply.endpoint.clone(),
        request_id: text(header::REQUEST_ID).map(str::to_owned),
    }
}

pub(crate) fn decode<T: DeserializeOwned>(reply: Reply) -> Result<Answered<T>, ClientError> {
    let bytes = match &reply.body {
        Body::Whole(bytes) => bytes.clone(),
        Body::Stream(_) => Bytes::new(),
    };
    let value = serde_json::from_slice(&bytes).map_err(|error| ClientError::Answer {
        endpoint: reply.endpoint.to_string(),
        why: format!("its JSON is not what was asked for: {error}"),
    })?;
    Ok(answered(&reply, value))
}

pub(crate) fn encode(value: &impl Serialize) -> Result<Bytes, ClientError> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|e| ClientError::Answer {
            endpoint: "this client".to_owned(),
            why: e.to_string(),
        })
}

/// How long one attempt at a write may take: with nodes whose limit is longer than usual, the caller's deadline is, and two
/// attempts fit into it.
fn write_attempt_max(deadline: Duration) -> Duration {
    let half = (deadline / 2).saturating_sub(BETWEEN_ATTEMPTS);
    half.clamp(WRITE_ATTEMPT_MAX, WRITE_ATTEMPT_LONGEST)
        .min(deadline)
}

/// A query string in the making.
#[derive(Debug, Default)]
pub(crate) struct Query(String);

impl Query {
    pub(crate) fn add(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.0.push(if self.0.is_empty() { '?' } else { '&' });
            self.0.push_str(name);
            self.0.push('=');
            self.0.push_str(&names::encode(value));
        }
    }

    pub(crate) fn page(&mut self, page: &Page) {
        self.add(
            "limit",
            page.limit.map(|limit| limit.to_string()).as_deref(),
        );
        self.add("cursor", page.cursor.as_deref());
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_attempts_at_a_write_fit_into_a_long_deadline() {
        for (deadline, attempt) in [(5, 5), (30, 13), (60, 28), (1_300, 648), (86_400, 660)] {
            let deadline = Duration::from_secs(deadline);
            assert_eq!(write_attempt_max(deadline), Duration::from_secs(attempt));
        }
        assert!(WRITE_ATTEMPT_LONGEST + BETWEEN_ATTEMPTS < crate::WRITE_RESENT_MAX);
    }
}
