//! Clients that write and read while a scenario does its worst, and remember what they were told.
//!
//! Half of the writes carry an idempotency key and are repeated until something definite comes back, as a careful
//! client does; the other half are sent once, so that their outcome may stay unknown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::history::{Act, Op, Outcome, Recorder};
use crate::http::{Answer, Api, never_sent, origin};
use crate::random::Random;

const ATTEMPT_WAIT: Duration = Duration::from_secs(6);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);
/// How often a careful client repeats: longer than any election and restart.
const REPEATS_MAX: usize = 400;
const HOPS_MAX: usize = 4;
/// Operations before the clients move on to other keys, which keeps each key's history checkable.
const OPS_PER_KEY: u64 = 90;

/// What the clients do.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// Clients that write.
    pub writers: usize,
    /// Clients that read, linearizably, from any node.
    pub readers: usize,
    /// Keys in use at a time.
    pub keys: usize,
    /// Percentage of writes that delete.
    pub deletes_percent: usize,
    /// Pause of a client between two operations.
    pub pause: Duration,
    /// Seed of every choice.
    pub seed: u64,
    /// Where their keys are: one for each load of a cluster that is judged for itself.
    pub namespace: String,
}

impl Default for LoadPlan {
    fn default() -> Self {
        Self {
            writers: 5,
            readers: 3,
            keys: 6,
            deletes_percent: 10,
            pause: Duration::ZERO,
            seed: Random::seed(),
            namespace: NAMESPACE.to_owned(),
        }
    }
}

/// Running clients.
pub struct Load {
    recorder: Recorder,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Clone)]
struct Client {
    api: Api,
    endpoints: Vec<String>,
    plan: LoadPlan,
    recorder: Recorder,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    random: Random,
    name: String,
    /// Who answered last; asked first next time.
    favourite: Option<String>,
}

/// The namespace that the clients use unless told otherwise.
pub const NAMESPACE: &str = "load";

enum Attempt {
    Answered(Answer),
    /// Certainly not done.
    NotSent,
    /// Perhaps done.
    NoAnswer,
}

impl Load {
    /// Starts the clients.
    #[must_use]
    pub fn start(cluster: &Cluster, plan: &LoadPlan) -> Self {
        Self::start_at(&cluster.api(0), &cluster.endpoints(), plan)
    }

    /// Starts the clients of the nodes at these URLs, as the holder of this API's key.
    #[must_use]
    pub fn start_at(api: &Api, endpoints: &[String], plan: &LoadPlan) -> Self {
        eprintln!("load: seed {}", plan.seed);
        let recorder = Recorder::default();
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU64::new(0));
        let client = |name: String, number: usize| Client {
            api: api.clone(),
            endpoints: endpoints.to_vec(),
            plan: plan.clone(),
            recorder: recorder.clone(),
            stop: stop.clone(),
            count: count.clone(),
            random: Random::new(plan.seed.wrapping_add(number as u64 * 7_919)),
            name,
            favourite: None,
        };
        // Names are part of idempotency keys: those of two loads of one cluster must differ.
        let named = |kind: char, n: usize| format!("{}-{kind}{n}", plan.namespace);
        let writers = (0..plan.writers).map(|n| tokio::spawn(client(named('w', n), n).write_all()));
        let readers =
            (0..plan.readers).map(|n| tokio::spawn(client(named('r', n), 1000 + n).read_all()));
        let tasks = writers.chain(readers).collect();
        Self {
            recorder,
            stop,
            tasks,
        }
    }

    /// How many writes were acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.recorder.acknowledged()
    }

    /// Waits until that many more writes are acknowledged: the cluster is alive.
    ///
    /// # Errors
    /// They are not within `bound`.
    pub async fn wait_progress(&self, more: usize, bound: Duration) -> anyhow::Result<()> {
        let wanted = self.acknowledged() + more;
        crate::wait::wait_until(
            &format!("{more} more acknowledged writes"),
            bound,
            || async {
                let now = self.acknowledged();
                anyhow::ensure!(now >= wanted, "{now} of {wanted}");
                Ok(())
            },
        )
        .await
    }

    /// Ends the clients and gives what they saw.
    ///
    /// # Errors
    /// A client has panicked.
    pub async fn stop(self) -> anyhow::Result<Vec<Op>> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.context("a client of the load has panicked")?;
        }
        Ok(self.recorder.ops())
    }
}

impl Client {
    async fn write_all(mut self) {
        let mut number = 0;
        while !self.stop.load(Ordering::Relaxed) {
            number += 1;
            let id = format!("{}-{number}", self.name);
            let act = if self.random.chance(self.plan.deletes_percent) {
                Act::Delete
            } else {
                Act::Put(format!("value of {id}"))
            };
            self.write(id, act).await;
            tokio::time::sleep(self.plan.pause).await;
        }
    }

    async fn read_all(mut self) {
        let mut number = 0;
        while !self.stop.load(Ordering::Relaxed) {
            number += 1;
            let id = format!("{}-{number}", self.name);
            self.read(id).await;
            tokio::time::sleep(self.plan.pause).await;
        }
    }

    /// A key of those in use now; all clients move on together.
    fn key(&mut self) -> String {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let keys = self.plan.keys.max(1);
        let era = count / (OPS_PER_KEY * keys as u64);
        let key = self.random.below(keys);
        format!("{}/e{era}-{key}", self.plan.namespace)
    }

    async fn write(&mut self, id: String, act: Act) {
        let key = self.key();
        let careful = self.random.chance(50);
        let call = self.recorder.now();
        let mut outcome = Outcome::Unknown;
        for _ in 0..REPEATS_MAX {
            outcome = self.write_once(&id, &key, &act, careful).await;
            let definite = outcome != Outcome::Unknown && outcome != Outcome::Refused;
            if definite || !careful {
                break;
            }
            tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
        }
        if outcome == Outcome::Refused {
            // A careful write may have been attempted before it was refused.
            if careful {
                outcome = Outcome::Unknown;
            }
            tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
        }
        let end = self.recorder.now();
        self.recorder.record(Op {
            id,
            key,
            act,
            call,
            end,
            outcome,
        });
    }

    async fn write_once(&mut self, id: &str, key: &str, act: &Act, careful: bool) -> Outcome {
        let path = format!("/api/v1/config/{key}");
        let (method, body) = match act {
            Act::Put(value) => (Method::PUT, Some(json!({ "value": value }).to_string())),
            Act::Delete | Act::Read => (Method::DELETE, None),
        };
        let idempotency = careful.then_some(id);
        match self
            .send(method, &path, body.as_deref(), id, idempotency)
            .await
        {
            Attempt::NotSent => Outcome::Refused,
            Attempt::NoAnswer => Outcome::Unknown,
            Attempt::Answered(answer) => match answer.status {
                200 | 201 | 204 => done(&answer),
                404 if *act == Act::Delete => Outcome::Saw(None),
                // 504 says itself that it may yet happen; 500 says nothing at all.
                504 | 500 => Outcome::Unknown,
                _ => Outcome::Refused,
            },
        }
    }

    async fn read(&mut self, id: String) {
        let key = self.key();
        let call = self.recorder.now();
        let base = self.any();
        self.favourite = Some(base);
        let attempt = self
            .send(
                Method::GET,
                &format!("/api/v1/config/{key}"),
                None,
                &id,
                None,
            )
            .await;
        let end = self.recorder.now();
        let value = match attempt {
            Attempt::Answered(answer) if answer.status == 404 => None,
            Attempt::Answered(answer) if answer.status == 200 => {
                // A body that is no JSON is seen as what it is: a value that nobody wrote.
                let text = answer
                    .json()
                    .ok()
                    .and_then(|body| body["value"].as_str().map(str::to_owned));
                Some(text.unwrap_or_else(|| answer.text()))
            }
            _ => {
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                return;
            }
        };
        self.recorder.record(Op {
            id,
            key,
            act: Act::Read,
            call,
            end,
            outcome: Outcome::Saw(value),
        });
    }

    fn any(&mut self) -> String {
        let place = self.random.below(self.endpoints.len());
        self.endpoints[place].clone()
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&str>,
        id: &str,
        idempotency: Option<&str>,
    ) -> Attempt {
        let mut base = match self.favourite.take() {
            Some(base) => base,
            None => self.any(),
        };
        for _ in 0..HOPS_MAX {
            let mut ask = self
                .api
                .at(&base)
                .ask(method.clone(), path)
                .header("x-correlation-id", id);
            ask = ask.timeout(ATTEMPT_WAIT);
            if let Some(key) = idempotency {
                ask = ask.header("idempotency-key", key);
            }
            if let Some(body) = body {
                ask = ask
                    .header("content-type", "application/json")
                    .body(body.to_owned());
            }
            match ask.send().await {
                Err(error) if never_sent(&error) => return Attempt::NotSent,
                Err(_) => return Attempt::NoAnswer,
                Ok(answer) if answer.status == 307 => {
                    // A redirect says that nothing was done here.
                    match answer.header("location").map(origin) {
                        Some(Ok(next)) => base = next,
                        _ => return Attempt::NotSent,
                    }
                }
                Ok(answer) => {
                    if answer.status < 500 {
                        self.favourite = Some(base);
                    }
                    return Attempt::Answered(answer);
                }
            }
        }
        Attempt::NotSent
    }
}

fn done(answer: &Answer) -> Outcome {
    let version = answer.json().ok().and_then(|body| body["version"].as_u64());
    match answer.token() {
        Ok(token) => Outcome::Done { token, version },
        // Acknowledged without a token: counted as unknown here would hide a fault, so it is made to fail the check.
        Err(_) => Outcome::Done {
            token: crate::http::Token {
                incarnation: 0,
                term: 0,
                index: 0,
            },
            version,
        },
    }
}
