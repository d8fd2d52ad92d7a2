//! What the load goes to: Confman, or etcd through its v3 JSON gateway. Both through the same HTTP library and loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use confman_client::wire::{ValueType, VersionToken};
use confman_client::{Client, ErrorKind, PutOptions, PutValue, ReadMode, Upload, parse_endpoints};
use parking_lot::Mutex;
use serde_json::json;

use super::super::failure::Failure;
use super::Consistency;

/// Something that keeps keys.
#[derive(Clone)]
pub(super) enum Target {
    Confman(Confman),
    Etcd(Etcd),
}

#[derive(Clone)]
pub(super) struct Confman {
    pub(super) client: Client,
    pub(super) namespaces: Arc<[String]>,
    pub(super) consistency: Consistency,
    /// The newest write's token, for reads of one's own writes.
    pub(super) token: Arc<Mutex<Option<VersionToken>>>,
}

#[derive(Clone)]
pub(super) struct Etcd {
    http: reqwest::Client,
    urls: Arc<[String]>,
    next: Arc<AtomicUsize>,
    prefix: Arc<str>,
    serializable: bool,
}

impl Etcd {
    /// `urls` as in `--target etcd=...`.
    pub(super) fn new(
        urls: &str,
        prefix: &str,
        consistency: Consistency,
        timeout: Duration,
    ) -> Result<Self, Failure> {
        let serializable = match consistency {
            Consistency::Linearizable => false,
            Consistency::Eventual => true,
            Consistency::ReadYourWrites => {
                return Err(Failure::usage("etcd has no reads of one's own writes")
                    .with_hint("--consistency eventual"));
            }
        };
        let urls: Vec<_> = parse_endpoints(urls)?
            .iter()
            .map(ToString::to_string)
            .collect();
        let http = reqwest::Client::builder()
            .no_proxy()
            .tcp_nodelay(true)
            .pool_max_idle_per_host(256)
            .tls_certs_only(Vec::new())
            .timeout(timeout)
            .build()
            .map_err(|e| Failure::new(ErrorKind::Bug, format!("set up the HTTP client: {e}")))?;
        let next = Arc::new(AtomicUsize::new(0));
        Ok(Self {
            http,
            urls: urls.into(),
            next,
            prefix: prefix.into(),
            serializable,
        })
    }

    async fn post(&self, path: &str, body: serde_json::Value) -> Result<serde_json::Value, String> {
        let url = &self.urls[self.next.fetch_add(1, Ordering::Relaxed) % self.urls.len()];
        let sent = self
            .http
            .post(format!("{url}{path}"))
            .json(&body)
            .send()
            .await
            .map_err(|e| short(&e))?;
        let status = sent.status();
        let answer: serde_json::Value = sent.json().await.map_err(|e| short(&e))?;
        if status.is_success() {
            Ok(answer)
        } else {
            Err(format!("status {status}: {}", answer["error"]))
        }
    }

    fn key(&self, number: u64) -> String {
        BASE64.encode(format!("{}/{}", self.prefix, key(number)))
    }
}

impl Target {
    /// Writes one key; the error is a short text, by which errors are counted.
    pub(super) async fn write(&self, number: u64, value: Bytes) -> Result<(), String> {
        match self {
            Self::Confman(confman) => {
                let value = PutValue::Raw {
                    upload: Upload::Bytes(value),
                    value_type: ValueType::String,
                };
                let namespace = confman.namespace(number);
                let put = confman
                    .client
                    .put(namespace, &key(number), &value, &PutOptions::default())
                    .await;
                let token = put.map_err(|e| kind_of(&e))?.token;
                if let (Consistency::ReadYourWrites, Some(token)) = (confman.consistency, token) {
                    let mut newest = confman.token.lock();
                    *newest = (*newest).max(Some(token));
                }
                Ok(())
            }
            Self::Etcd(etcd) => {
                let body = json!({"key": etcd.key(number), "value": BASE64.encode(&value)});
                etcd.post("/v3/kv/put", body).await.map(|_| ())
            }
        }
    }

    /// Reads one key and checks that a value came.
    pub(super) async fn read(&self, number: u64) -> Result<(), String> {
        match self {
            Self::Confman(confman) => {
                let mode = match (confman.consistency, *confman.token.lock()) {
                    (Consistency::Eventual, _) => ReadMode::Eventual,
                    (Consistency::ReadYourWrites, Some(token)) => ReadMode::ReadYourWrites(token),
                    (Consistency::Linearizable | Consistency::ReadYourWrites, _) => {
                        ReadMode::Linearizable
                    }
                };
                let answered = confman
                    .client
                    .get_raw(confman.namespace(number), &key(number), mode)
                    .await;
                let body = answered.map_err(|e| kind_of(&e))?.value.body;
                body.bytes(usize::MAX)
                    .await
                    .map(|_| ())
                    .map_err(|e| kind_of(&e))
            }
            Self::Etcd(etcd) => {
                let body = json!({"key": etcd.key(number), "serializable": etcd.serializable});
                let answer = etcd.post("/v3/kv/range", body).await?;
                answer["kvs"][0]["value"]
                    .as_str()
                    .map(|_| ())
                    .ok_or_else(|| "not found".to_owned())
            }
        }
    }
}

impl Confman {
    fn namespace(&self, number: u64) -> &str {
        &self.namespaces[(number % self.namespaces.len() as u64) as usize]
    }
}

fn key(number: u64) -> String {
    format!("key-{number:08}")
}

/// Short, so that the same trouble is counted as the same.
fn kind_of(error: &confman_client::ClientError) -> String {
    match error.problem() {
        Some(problem) => problem.problem_type.clone(),
        None => format!("{:?}", error.kind()).to_lowercase(),
    }
}

fn short(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        "timeout".to_owned()
    } else if error.is_connect() {
        "no connection".to_owned()
    } else {
        "transfer failed".to_owned()
    }
}
