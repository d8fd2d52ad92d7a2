//! Time limits and retries around every request, and what is measured of each.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, RwLock, TryLockError};
use std::time::Duration;

use object_store::ObjectStore;
use tokio::time::Instant;

use super::watch::{Seen, Watch};
use super::{Repository, classify};
use crate::error::{Kind, StoreError};

type Reopen = Box<dyn Fn() -> Result<Arc<dyn ObjectStore>, StoreError> + Send + Sync>;

/// The store, and how to make it anew with credentials and certificates read again.
pub(super) struct StoreSlot {
    store: RwLock<Arc<dyn ObjectStore>>,
    reopen: Option<Reopen>,
    watch: Option<Mutex<Watch>>,
}

impl fmt::Debug for StoreSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreSlot").finish_non_exhaustive()
    }
}

impl StoreSlot {
    pub(super) fn fixed(store: Arc<dyn ObjectStore>) -> Self {
        Self {
            store: RwLock::new(store),
            reopen: None,
            watch: None,
        }
    }

    pub(super) fn reopening(
        store: Arc<dyn ObjectStore>,
        reopen: Reopen,
        watch: Option<Watch>,
    ) -> Self {
        Self {
            store: RwLock::new(store),
            reopen: Some(reopen),
            watch: watch.map(Mutex::new),
        }
    }

    /// The store, made anew if the files with which it is spoken to have changed. A request that is under way goes on with the one that
    /// it has.
    pub(super) fn get(&self) -> Arc<dyn ObjectStore> {
        self.look();
        self.store
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn look(&self) {
        let (Some(watch), Some(reopen)) = (&self.watch, &self.reopen) else {
            return;
        };
        let mut watch = match watch.try_lock() {
            Ok(watch) => watch,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Somebody is at it; nobody waits for that.
            Err(TryLockError::WouldBlock) => return,
        };
        let Seen::Changed(seen) = watch.look(Instant::now()) else {
            return;
        };
        match reopen() {
            Ok(fresh) => {
                watch.took(seen);
                self.replace(fresh);
                tracing::info!("the TLS files of the object store have changed and are in force");
            }
            Err(error) => {
                if watch.refused(seen) {
                    tracing::warn!(
                        "the TLS files of the object store have changed and will not do, those of before stay in force: {error}"
                    );
                }
            }
        }
    }

    fn replace(&self, fresh: Arc<dyn ObjectStore>) {
        *self.store.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    /// Makes the store anew; false if there is no way to.
    fn refresh(&self) -> bool {
        let Some(Ok(fresh)) = self.reopen.as_ref().map(|reopen| reopen()) else {
            return false;
        };
        self.replace(fresh);
        true
    }
}

/// How long one try and the whole call may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) one_try: Duration,
    pub(super) total: Duration,
}

/// Decides about the next try of one call.
pub(super) struct Tries<'a> {
    repository: &'a Repository,
    operation: &'static str,
    deadline: Instant,
    one_try: Duration,
    left: usize,
    pause: Duration,
    refreshed: bool,
}

impl<'a> Tries<'a> {
    /// How long the next try may take.
    pub(super) fn time(&self) -> Duration {
        self.one_try
            .min(self.deadline.saturating_duration_since(Instant::now()))
    }

    /// Waits before another try, or gives the error back because there will be none.
    pub(super) async fn after(&mut self, error: StoreError) -> Result<(), StoreError> {
        let operation = self.operation;
        self.left = self.left.saturating_sub(1);
        let by_certificate =
            [classify::HINT_CERTIFICATE, classify::HINT_SHOWN].contains(&error.hint.as_str());
        if (error.kind == Kind::Credentials || by_certificate) && !self.refreshed {
            self.refreshed = true;
            if self.repository.inner.slot.refresh() {
                return Ok(());
            }
        }
        if self.left == 0 || !error.kind.is_transient() {
            return Err(error);
        }
        // Between half the pause and one and a half of it, so that many callers do not come back together.
        let pause = self.pause.mul_f64(0.5 + rand::random::<f64>());
        self.pause *= 2;
        if Instant::now() + pause >= self.deadline {
            return Err(error);
        }
        metrics::counter!("confman_store_retries_total", "operation" => operation).increment(1);
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

impl Repository {
    /// A small request: the whole answer is a few kilobytes.
    pub(super) async fn small<T, F, W>(
        &self,
        operation: &'static str,
        object: &str,
        request: F,
    ) -> Result<T, StoreError>
    where
        F: Fn(Arc<dyn ObjectStore>) -> W,
        W: Future<Output = object_store::Result<T>>,
    {
        self.call(operation, object, self.small_limits(), request)
            .await
    }

    /// A transfer of a chunk or a part.
    pub(super) async fn transfer<T, F, W>(
        &self,
        operation: &'static str,
        object: &str,
        request: F,
    ) -> Result<T, StoreError>
    where
        F: Fn(Arc<dyn ObjectStore>) -> W,
        W: Future<Output = object_store::Result<T>>,
    {
        self.call(operation, object, self.transfer_limits(), request)
            .await
    }

    pub(super) fn small_limits(&self) -> Limits {
        Limits {
            one_try: self.inner.options.small_try,
            total: self.inner.options.small_total,
        }
    }

    pub(super) fn transfer_limits(&self) -> Limits {
        Limits {
            one_try: self.inner.options.transfer_try,
            total: self.inner.options.transfer_total,
        }
    }

    pub(super) fn tries(&self, operation: &'static str, limits: Limits) -> Tries<'_> {
        Tries {
            repository: self,
            operation,
            deadline: Instant::now() + limits.total,
            one_try: limits.one_try,
            left: self.inner.options.tries.max(1),
            pause: self.inner.options.backoff,
            refreshed: false,
        }
    }

    async fn call<T, F, W>(
        &self,
        operation: &'static str,
        object: &str,
        limits: Limits,
        request: F,
    ) -> Result<T, StoreError>
    where
        F: Fn(Arc<dyn ObjectStore>) -> W,
        W: Future<Output = object_store::Result<T>>,
    {
        let mut tries = self.tries(operation, limits);
        loop {
            match self
                .once(
                    operation,
                    object,
                    tries.time(),
                    request(self.inner.slot.get()),
                )
                .await
            {
                Ok(answer) => return Ok(answer),
                Err(error) => tries.after(error).await?,
            }
        }
    }

    /// One request within `time`, its error in our words.
    pub(super) async fn once<T>(
        &self,
        operation: &'static str,
        object: &str,
        time: Duration,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, StoreError> {
        self.once_raw(operation, object, time, request)
            .await?
            .map_err(|e| self.classify(operation, object, &e))
    }

    /// One request within `time`, measured; the inner error is still the store's own.
    pub(super) async fn once_raw<T>(
        &self,
        operation: &'static str,
        object: &str,
        time: Duration,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<object_store::Result<T>, StoreError> {
        let answered = self.within(operation, object, time, request).await;
        let failure = match &answered {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(classify::classify(error).0),
            Err(error) => Some(error.kind),
        };
        measure(operation, failure);
        answered
    }

    /// A request, or a part of one, within `time`. Not measured.
    pub(super) async fn within<T>(
        &self,
        operation: &'static str,
        object: &str,
        time: Duration,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<object_store::Result<T>, StoreError> {
        tokio::time::timeout(time, request).await.map_err(|_| {
            let detail = format!("no answer within {:.1} s", time.as_secs_f64());
            self.error(
                Kind::Wait,
                operation,
                object,
                detail,
                classify::HINT_UNREACHABLE,
            )
        })
    }

    pub(super) fn classify(
        &self,
        operation: &'static str,
        object: &str,
        error: &object_store::Error,
    ) -> StoreError {
        let (kind, hint) = classify::classify(error);
        self.error(kind, operation, object, classify::text(error), hint)
    }
}

/// What requests are called in metrics and errors.
pub const OPERATIONS: [&str; 5] = ["delete", "get", "head", "list", "put"];

/// Counts a request by its answer. That an object is not there, or is there already, is an answer that is asked for in the
/// ordinary course of things (before each upload, at each look for a pin), and no error of the store.
pub(super) fn measure(operation: &'static str, failure: Option<Kind>) {
    let result = failure.map_or("ok", Kind::name);
    metrics::counter!("confman_store_requests_total", "operation" => operation, "result" => result)
        .increment(1);
    if let Some(kind) = failure.filter(|kind| !matches!(kind, Kind::NotFound | Kind::Conflict)) {
        metrics::counter!("confman_store_errors_total", "operation" => operation, "kind" => kind.name())
            .increment(1);
    }
}

/// Counts bytes of objects that came or went.
pub(super) fn measure_bytes(operation: &'static str, bytes: u64) {
    metrics::counter!("confman_store_bytes_total", "operation" => operation).increment(bytes);
}
