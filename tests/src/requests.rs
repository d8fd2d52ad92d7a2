//! What a scenario asks of its cluster as an ordinary client: writes that find the leader, reads, snapshots.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use crate::cluster::{Cluster, PATIENCE};
use crate::http::{Answer, origin};
use crate::node::Node;
use crate::wait::wait_until;

const BATCH_ITEMS: usize = 500;
const ASK_AGAIN: Duration = Duration::from_millis(100);

impl Cluster {
    /// Writes one value through whoever leads, retrying for as long as an election may take. A retry is the same
    /// write: it carries an idempotency key.
    ///
    /// # Errors
    /// It is not acknowledged in time, or refused.
    pub async fn write(&self, path: &str, value: &Value) -> anyhow::Result<Answer> {
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        let idempotency = format!("{}-{number}", self.name);
        let path = format!("/api/v1/config/{path}");
        let body = json!({ "value": value });
        self.send_to_leader(
            &path,
            &idempotency,
            reqwest::Method::PUT,
            &body,
            &[200, 201],
        )
        .await
    }

    /// Writes many small values `{namespace}/{prefix}{n}` in batches.
    ///
    /// # Errors
    /// A batch is refused, or not answered in time.
    pub async fn fill(
        &self,
        namespace: &str,
        prefix: &str,
        count: usize,
        value: &str,
    ) -> anyhow::Result<()> {
        let item = |n: usize| {
            json!({ "op": "put", "namespace": namespace, "key": format!("{prefix}{n}"),
                    "value": format!("{value}-{n}") })
        };
        let mut left: Vec<usize> = (0..count).collect();
        let mut progress = Instant::now();
        while !left.is_empty() {
            let now = left.len().min(BATCH_ITEMS);
            let items: Vec<Value> = left[..now].iter().map(|n| item(*n)).collect();
            let number = self.writes.fetch_add(1, Ordering::Relaxed);
            let idempotency = format!("{}-{number}", self.name);
            let body = json!({ "items": items });
            let answer = self
                .send_to_leader(
                    "/api/v1/batch",
                    &idempotency,
                    reqwest::Method::POST,
                    &body,
                    &[200],
                )
                .await?;
            let answered = answer.json()?;
            let results = answered["items"]
                .as_array()
                .context("a batch answer without items")?;
            ensure!(results.len() == now, "{now} items, and {answered}");
            let mut again = Vec::new();
            for (n, result) in left.drain(..now).zip(results) {
                match result["status"].as_u64() {
                    Some(200 | 201) => progress = Instant::now(),
                    // Leadership moved meanwhile: it was not written, and is to be sent again.
                    Some(503) if progress.elapsed() < PATIENCE => again.push(n),
                    _ => bail!("an item of the batch was refused: {result}"),
                }
            }
            if !again.is_empty() {
                tokio::time::sleep(ASK_AGAIN).await;
            }
            left.splice(0..0, again);
        }
        Ok(())
    }

    async fn send_to_leader(
        &self,
        path: &str,
        idempotency: &str,
        method: reqwest::Method,
        body: &Value,
        wanted: &[u16],
    ) -> anyhow::Result<Answer> {
        let next = std::cell::Cell::new(0_usize);
        let target = std::cell::RefCell::new(None::<String>);
        wait_until(&format!("{method} {path}"), PATIENCE, || async {
            let api = match target.take() {
                Some(base) => self.api.at(&base),
                None => {
                    next.set(next.get() + 1);
                    let running: Vec<&Node> = self
                        .nodes()
                        .iter()
                        .filter(|node| node.pid().is_some())
                        .collect();
                    let node = running
                        .get(next.get() % running.len().max(1))
                        .context("no node runs")?;
                    self.api.at(&node.api_url)
                }
            };
            let answer = api
                .ask(method.clone(), path)
                .header("content-type", "application/json")
                .header("idempotency-key", idempotency)
                .timeout(Duration::from_secs(15))
                .body(body.to_string())
                .send()
                .await?;
            if answer.status == 307 {
                target.replace(Some(origin(
                    answer.header("location").context("307 without Location")?,
                )?));
            }
            answer.expect(wanted)
        })
        .await
    }

    /// Reads a value from one node; none if the key is absent.
    ///
    /// # Errors
    /// The node refuses, does not answer, or has no leader for too long.
    pub async fn read(
        &self,
        index: usize,
        path: &str,
        mode: &str,
    ) -> anyhow::Result<Option<Value>> {
        let answer = asked_again(PATIENCE, || {
            self.api(index)
                .get(&format!("/api/v1/config/{path}"))
                .consistency(mode)
                .send()
        })
        .await?;
        match answer.status {
            404 => Ok(None),
            _ => Ok(Some(answer.expect(&[200])?.json()?["value"].clone())),
        }
    }

    /// Asks for a snapshot of one group now; gives its item of the answer.
    ///
    /// # Errors
    /// It fails or does not end in time.
    pub async fn snapshot(&self, group: &str) -> anyhow::Result<Value> {
        self.snapshot_within(group, PATIENCE).await
    }

    /// [`Cluster::snapshot`] of a state so large that it takes longer.
    ///
    /// # Errors
    /// It fails or does not end within `bound`.
    pub async fn snapshot_within(&self, group: &str, bound: Duration) -> anyhow::Result<Value> {
        let leader = self.wait_leader(group).await?;
        let group_query = group.replace('/', "%2F");
        let path = format!("/api/v1/admin/snapshots?group={group_query}");
        let answer = asked_again(bound, || async {
            let ask = self.api(leader).post(&path, &json!({}));
            let answer = ask.timeout(bound).send().await?;
            if answer.status != 307 {
                return Ok(answer);
            }
            let base = origin(answer.header("location").context("307 without Location")?)?;
            let ask = self.api.at(&base).post(&path, &json!({}));
            ask.timeout(bound).send().await
        })
        .await?;
        let answered = answer.expect(&[200])?.json()?;
        answered["items"]
            .get(0)
            .cloned()
            .with_context(|| format!("no item in {answered}"))
    }
}

/// What is answered once it is another thing than 503: leadership may be moving, and a client asks again.
async fn asked_again<F>(bound: Duration, mut ask: impl FnMut() -> F) -> anyhow::Result<Answer>
where
    F: Future<Output = anyhow::Result<Answer>>,
{
    let begin = Instant::now();
    loop {
        let answer = ask().await?;
        if answer.status != 503 || begin.elapsed() > bound {
            return Ok(answer);
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}
