//! A chunk source that counts what it reads and never waits longer than it was told.
//!
//! The repository has its own retries and deadlines; this is the outer fence that makes a restore's time
//! bounded whatever the store does, and the meter for the report. Progress is logged at most every few
//! seconds.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use confman_snapshot::error::{Kind, StoreError};
use confman_snapshot::source::ChunkSource;
use tokio::time::{Instant, timeout};

const LOG_EVERY: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct Watched {
    inner: Arc<dyn ChunkSource>,
    read_timeout: Duration,
    read_bytes: Arc<AtomicU64>,
    what: String,
    total_bytes: u64,
    started: Instant,
    logged_ms: AtomicU64,
}

impl Watched {
    /// `what` and `total_bytes` are for the progress line; `read_bytes` is counted up.
    pub(crate) fn new(
        inner: Arc<dyn ChunkSource>,
        read_timeout: Duration,
        read_bytes: Arc<AtomicU64>,
        what: String,
        total_bytes: u64,
    ) -> Self {
        let (started, logged_ms) = (Instant::now(), AtomicU64::new(0));
        Self {
            inner,
            read_timeout,
            read_bytes,
            what,
            total_bytes,
            started,
            logged_ms,
        }
    }

    fn too_slow(&self, operation: &'static str, object: &str) -> StoreError {
        StoreError {
            kind: Kind::Wait,
            operation,
            object: object.to_owned(),
            url: "the store".to_owned(),
            detail: format!("no answer within {:?}", self.read_timeout),
            hint: String::new(),
        }
    }

    fn count(&self, bytes: usize) {
        let sum = self.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        // Milliseconds of a restore fit.
        let now_ms = self.started.elapsed().as_millis() as u64;
        let before = self.logged_ms.load(Ordering::Relaxed);
        let due = now_ms.saturating_sub(before) >= LOG_EVERY.as_millis() as u64;
        let won = || {
            self.logged_ms
                .compare_exchange(before, now_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        };
        if due && won() {
            tracing::info!(
                bytes = sum,
                of_bytes = self.total_bytes,
                "restoring {}",
                self.what
            );
        }
    }
}

#[async_trait]
impl ChunkSource for Watched {
    async fn size(&self, object: &str) -> Result<u64, StoreError> {
        timeout(self.read_timeout, self.inner.size(object))
            .await
            .unwrap_or_else(|_| Err(self.too_slow("size", object)))
    }

    async fn read(&self, object: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let bytes = timeout(self.read_timeout, self.inner.read(object, range))
            .await
            .unwrap_or_else(|_| Err(self.too_slow("read", object)))?;
        self.count(bytes.len());
        Ok(bytes)
    }
}
