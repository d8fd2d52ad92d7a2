//! Every bound of the API, and what of it is shared between requests.
//!
//! Promises: the number of requests, of large bodies in memory and of uploads in flight is bounded whatever clients
//! do; who does not fit is told to come back, never queued without end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use super::failure::Failure;

/// Largest JSON body of a put, and largest value that is answered as JSON.
pub const JSON_BYTES_MAX: u64 = 16 << 20;
/// How long a large request waits for room before it is told to come back.
const ROOM_WITHIN: Duration = Duration::from_secs(5);
/// What an answer may take on its way, beyond the write that it is about.
const LEADER_ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// The unit of the memory budget.
const BUDGET_UNIT_BYTES: u64 = 1 << 20;

/// The bounds of one listener.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest value, as raw body.
    pub value_bytes_max: u64,
    /// Requests at once; more are answered 503.
    pub requests_max: usize,
    /// Connections at once; more wait to be accepted.
    pub connections_max: usize,
    /// Memory for JSON bodies and values above a few hundred KiB, all requests together.
    pub json_memory_bytes_max: u64,
    /// Uploads and downloads of staged values at once.
    pub transfers_max: usize,
    /// Header fields of a request.
    pub header_count_max: usize,
    /// Bytes of names and values of a request's headers, and of its target.
    pub header_bytes_max: usize,
    /// For the head of a request, and between requests of one connection.
    pub head_timeout: Duration,
    /// Between two pieces of a body.
    pub body_idle_timeout: Duration,
    /// After this long a body must have come, or a large value must have been taken, at [`Self::body_rate_min`].
    pub body_grace: Duration,
    /// Bytes a second.
    pub body_rate_min: u64,
    /// For a write to a client that takes nothing.
    pub write_stall_timeout: Duration,
    /// For what a client still sends after its answer.
    pub linger_timeout: Duration,
    /// For the confirmation of one write by its group.
    pub write_timeout: Duration,
    /// For requests in flight when the listener stops.
    pub drain_timeout: Duration,
}

impl Limits {
    /// The bounds of a node, with its largest value and how long its groups wait for a commit.
    pub fn new(value_bytes_max: u64, write_timeout: Duration) -> Self {
        Self {
            value_bytes_max,
            write_timeout,
            ..Self::default()
        }
    }

    /// How long one call goes on deleting before it says how far it came: with one more step it is answered before whoever
    /// waits for a write gives up.
    pub(crate) fn deleting_within(&self) -> Duration {
        self.write_timeout * 3 / 4
    }

    /// How long a node that forwards waits without a piece of the request going out or the answer coming in: longer than the
    /// leader waits for a write.
    pub(crate) fn leader_silence(&self) -> Duration {
        self.write_timeout + LEADER_ANSWERS_WITHIN
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            value_bytes_max: 100 << 20,
            requests_max: 1024,
            connections_max: 4096,
            json_memory_bytes_max: 64 << 20,
            transfers_max: 16,
            header_count_max: 100,
            header_bytes_max: 32 << 10,
            head_timeout: Duration::from_secs(30),
            body_idle_timeout: Duration::from_secs(15),
            body_grace: Duration::from_secs(30),
            body_rate_min: 16 << 10,
            write_stall_timeout: Duration::from_secs(60),
            linger_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// What requests share.
#[derive(Debug)]
pub(crate) struct Budgets {
    requests: Arc<Semaphore>,
    json: Arc<Semaphore>,
    json_units: u32,
    transfers: Arc<Semaphore>,
}

impl Budgets {
    pub(crate) fn new(limits: &Limits) -> Self {
        let json_units = units(limits.json_memory_bytes_max).max(1);
        Self {
            requests: Arc::new(Semaphore::new(limits.requests_max)),
            json: Arc::new(Semaphore::new(json_units as usize)),
            json_units,
            transfers: Arc::new(Semaphore::new(limits.transfers_max)),
        }
    }

    /// A place among the requests, or 503 at once.
    pub(crate) fn request(&self) -> Result<OwnedSemaphorePermit, Failure> {
        Arc::clone(&self.requests)
            .try_acquire_owned()
            .map_err(|_| Failure::busy("this node has as many requests in flight as it takes"))
    }

    /// Memory for `bytes` of JSON, waited for a bounded time.
    pub(crate) async fn json(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Failure> {
        let units = units(bytes).clamp(1, self.json_units);
        self.acquire(
            &self.json,
            units,
            "too many large JSON bodies are in flight",
        )
        .await
    }

    /// A place among the transfers, waited for a bounded time.
    pub(crate) async fn transfer(&self) -> Result<OwnedSemaphorePermit, Failure> {
        self.acquire(&self.transfers, 1, "too many large values are in flight")
            .await
    }

    async fn acquire(
        &self,
        semaphore: &Arc<Semaphore>,
        units: u32,
        detail: &'static str,
    ) -> Result<OwnedSemaphorePermit, Failure> {
        match tokio::time::timeout(ROOM_WITHIN, Arc::clone(semaphore).acquire_many_owned(units))
            .await
        {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(Failure::busy(detail)),
        }
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(BUDGET_UNIT_BYTES)).unwrap_or(u32::MAX)
}
