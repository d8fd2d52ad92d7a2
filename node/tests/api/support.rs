//! Keys, and a listener on loopback with the API of a node of one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use confman_node::api::access::{Identity, Keyring, NoKeys, Role};
use confman_node::api::backend::LeaderInfo;
use confman_node::api::forward::Forwarder;
use confman_node::api::forwarded::{self, Refused};
use confman_node::api::limits::Limits;
use confman_node::api::{router, serve};
use confman_node::tls::door::{Door, Listener};
use confman_snapshot::fnv1a64;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use secrecy::SecretString;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use crate::alone::{TestNode, WAIT, node};

/// Keys with names, for every role.
pub(crate) struct TestKeys(BTreeMap<String, Identity>);

impl TestKeys {
    /// `viewer-key` is that of "the viewer", and so on.
    pub(crate) fn of_all_roles() -> Arc<Self> {
        let roles = [
            ("viewer", Role::Viewer),
            ("editor", Role::Editor),
            ("publisher", Role::Publisher),
            ("admin", Role::Admin),
        ];
        Arc::new(Self(
            roles
                .into_iter()
                .map(|(name, role)| {
                    (
                        format!("{name}-key"),
                        Identity {
                            name: format!("the {name}"),
                            role,
                        },
                    )
                })
                .collect(),
        ))
    }
}

impl Keyring for TestKeys {
    fn is_open(&self) -> bool {
        false
    }

    fn authenticate(&self, key: &str) -> Option<Identity> {
        self.0.get(key).cloned()
    }
}

/// A listener with the API of a node.
/// What nodes show each other here.
const TOKEN: &str = "the token of the tests";
/// The life that the nodes here are of; their leaders are node 1.
const LIFE: &str = "a-cluster/1/a-lineage";

/// A leader that no other node has to reach.
pub(crate) fn leader_elsewhere(id: u64, api_url: &str) -> LeaderInfo {
    LeaderInfo {
        id,
        name: format!("node{id}"),
        api_url: api_url.to_owned(),
        peer_addr: "127.0.0.1:9".to_owned(),
    }
}

/// Serves `router` to other nodes, as a peer listener does, for as long as the runtime lives; gives the address.
pub(crate) async fn serve_peers(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(router.clone());
            tokio::spawn(
                http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    address
}

/// A node that clients and other nodes reach.
pub(crate) struct Server {
    pub(crate) url: String,
    /// Where other nodes send on what their clients want.
    pub(crate) peer_addr: String,
    pub(crate) node: Arc<TestNode>,
    client: reqwest::Client,
    key: Option<String>,
    stop: Option<oneshot::Sender<()>>,
    served: Option<tokio::task::JoinHandle<()>>,
    _dir: Option<Arc<tempfile::TempDir>>,
}

impl Server {
    /// One group, no keys, the usual limits.
    pub(crate) async fn start() -> Self {
        Self::with_shards(1).await
    }

    /// No keys, the usual limits.
    pub(crate) async fn with_shards(shards: u32) -> Self {
        let (node, dir) = node(shards).await;
        Self::of(
            node,
            Arc::new(NoKeys),
            Limits::default(),
            Some(Arc::new(dir)),
        )
        .await
    }

    /// One group, a key for every role; requests come as the admin.
    pub(crate) async fn with_keys() -> Self {
        let (node, dir) = node(1).await;
        let mut server = Self::of(
            node,
            TestKeys::of_all_roles(),
            Limits::default(),
            Some(Arc::new(dir)),
        )
        .await;
        server.key = Some("admin-key".to_owned());
        server
    }

    /// One group, no keys.
    pub(crate) async fn with_limits(limits: Limits) -> Self {
        let (node, dir) = node(1).await;
        Self::of(node, Arc::new(NoKeys), limits, Some(Arc::new(dir))).await
    }

    pub(crate) async fn of(
        node: Arc<TestNode>,
        keys: Arc<dyn Keyring>,
        limits: Limits,
        dir: Option<Arc<tempfile::TempDir>>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        // Ids count, so that a test can be run again.
        let next = AtomicU64::new(fnv1a64(url.as_bytes()) << 20);
        let ids = Arc::new(move || {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&next.fetch_add(1, Ordering::Relaxed).to_be_bytes());
            id
        });
        let token = SecretString::from(TOKEN);
        let forwarder = Forwarder::new(None, Some(&token), LIFE.to_owned());
        let routes = router(node.clone(), keys, limits.clone(), ids, forwarder);
        let own = forwarded::addressee(LIFE, 1);
        let admit = Arc::new(move |shown: forwarded::Shown<'_>| {
            if shown.token != Some(TOKEN.as_bytes()) {
                return Err(Refused::Token);
            }
            match shown.addressee == Some(own.as_bytes()) {
                true => Ok(()),
                false => Err(Refused::Addressee),
            }
        });
        let peer_addr =
            serve_peers(forwarded::door(routes.clone(), admit, &TaskTracker::new())).await;
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(serve::serve(
            listener,
            routes,
            limits,
            Door::new(Listener::Api, None),
            async {
                let _ = stopped.await;
            },
        ));
        let client = client()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(60))
            .build()
            .unwrap();
        Self {
            url,
            peer_addr,
            node,
            client,
            key: None,
            stop: Some(stop),
            served: Some(served),
            _dir: dir,
        }
    }

    /// As the leader that the committed membership names.
    pub(crate) fn as_leader(&self) -> LeaderInfo {
        LeaderInfo {
            id: 1,
            name: "node1".to_owned(),
            api_url: self.url.clone(),
            peer_addr: self.peer_addr.clone(),
        }
    }

    /// The address to connect to.
    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    pub(crate) fn put(&self, path: &str) -> RequestBuilder {
        self.request(Method::PUT, path)
    }

    pub(crate) fn delete(&self, path: &str) -> RequestBuilder {
        self.request(Method::DELETE, path)
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    /// Puts a JSON value and says the version.
    pub(crate) async fn set(&self, path: &str, value: Value) -> u64 {
        let body = serde_json::json!({ "value": value });
        let response = self
            .put(&format!("/api/v1/config/{path}"))
            .json(&body)
            .send()
            .await
            .unwrap();
        assert!(response.status().is_success(), "{response:?}");
        document(response).await["version"].as_u64().unwrap()
    }

    /// Stops the listener and waits until all requests are answered.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        tokio::time::timeout(WAIT, self.served.take().unwrap())
            .await
            .expect("stops in time")
            .unwrap();
    }
}

/// A client without proxies. It speaks no TLS here, but is built with it and wants a provider.
pub(crate) fn client() -> reqwest::ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy()
}

/// The JSON of an answer.
pub(crate) async fn document(response: Response) -> Value {
    let text = response.text().await.unwrap();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// A header of an answer, empty if absent.
pub(crate) fn header(response: &Response, name: &str) -> String {
    response
        .headers()
        .get(name)
        .map(|v| v.to_str().unwrap().to_owned())
        .unwrap_or_default()
}

/// Asserts that an answer is a problem of this kind, whole in all its parts, and gives it.
pub(crate) async fn problem(response: Response, status: u16, slug: &str) -> Value {
    assert_eq!(
        header(&response, "content-type"),
        "application/problem+json",
        "{response:?}"
    );
    let request_id = header(&response, "x-request-id");
    let seen = response.status();
    let problem = document(response).await;
    assert_eq!(seen, StatusCode::from_u16(status).unwrap(), "{problem}");
    assert_eq!(
        problem["type"],
        format!("urn:confman:problem:{slug}"),
        "{problem}"
    );
    assert_eq!(problem["status"], status);
    assert_eq!(problem["instance"], request_id);
    for name in ["title", "detail"] {
        assert!(
            problem[name].as_str().is_some_and(|text| !text.is_empty()),
            "{problem}"
        );
    }
    problem
}
