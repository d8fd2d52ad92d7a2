//! Objects that must not exist yet: created where the store honours conditions, confirmed by content everywhere.

use std::time::Duration;

use bytes::Bytes;
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::call::{Limits, measure_bytes};
use super::{Conditions, Repository};
use crate::error::{Kind, StoreError};
use crate::source::ChunkSource;

/// How the end of an object tells whether it is ours: its size and its last bytes. A snapshot ends with its footer, which
/// holds the hash of the manifest, which holds the hash of every chunk.
#[derive(Debug, Clone)]
pub(super) struct Fingerprint {
    pub(super) size: u64,
    pub(super) tail: Bytes,
}

/// What lies where an object of ours should go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Present {
    Absent,
    Ours,
    Other,
}

/// How an object is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Only where nothing lies: one more fence.
    Create,
    /// The same, after an answer that may have been about the condition.
    CreateAgain,
    /// Whatever lies there, right after a look that saw nothing.
    Replace,
}

impl Way {
    fn of(known: Conditions) -> Self {
        match known {
            Conditions::Refused => Self::Replace,
            Conditions::Unknown
            | Conditions::Honoured
            | Conditions::Ignored
            | Conditions::Racing => Self::Create,
        }
    }

    fn mode(self) -> PutMode {
        match self {
            Self::Create | Self::CreateAgain => PutMode::Create,
            Self::Replace => PutMode::Overwrite,
        }
    }

    /// The way to go on at once after an error that may be about the condition; none where it is not. Stores answer 400 to much that
    /// passes, so each is asked again first. The fence is taken down only by one that names the condition or says the same
    /// twice, and never where it is known to hold.
    fn after(self, error: &StoreError, known: Conditions) -> Option<Self> {
        let doubtful = error.kind == Kind::Configuration && error.hint.is_empty();
        match self {
            _ if !doubtful => None,
            Self::Replace => None,
            Self::Create if !names_condition(error) => Some(Self::CreateAgain),
            Self::Create | Self::CreateAgain => {
                (known != Conditions::Honoured).then_some(Self::Replace)
            }
        }
    }
}

/// Whether an error says that it is the condition that the store does not take, or does not have.
pub(super) fn names_condition(error: &StoreError) -> bool {
    let said = error.detail.to_lowercase();
    [
        "if-none-match",
        "condition",
        "implemented",
        "not supported",
        "status code: 501",
    ]
    .iter()
    .any(|words| said.contains(words))
}

impl Repository {
    /// What lies at this name now.
    pub(super) async fn present(
        &self,
        object: &str,
        ours: &Fingerprint,
    ) -> Result<Present, StoreError> {
        let size = match self.size(object).await {
            Ok(size) => size,
            Err(error) if error.kind == Kind::NotFound => return Ok(Present::Absent),
            Err(error) => return Err(error),
        };
        if size != ours.size {
            return Ok(Present::Other);
        }
        let tail = self
            .read(object, size - ours.tail.len() as u64..size)
            .await?;
        Ok(if tail == ours.tail {
            Present::Ours
        } else {
            Present::Other
        })
    }

    /// Creates an object in one request. An own earlier try that went through counts as done.
    pub(super) async fn create(
        &self,
        object: &str,
        content: Bytes,
        ours: &Fingerprint,
        limits: Limits,
    ) -> Result<(), StoreError> {
        let mut tries = self.tries("put", limits);
        let mut way = Way::of(self.conditions());
        let mut looked = false;
        loop {
            // A store that may ignore the condition, or is asked without one, must not lose what came between two tries.
            let is_fenced = way != Way::Replace && self.conditions() == Conditions::Honoured;
            if !looked || !is_fenced {
                match self.present(object, ours).await? {
                    Present::Ours => return Ok(()),
                    Present::Other => return Err(self.conflict(object)),
                    Present::Absent => looked = true,
                }
            }
            let put = self.put_once(object, &content, way, tries.time()).await;
            let error = match put {
                Ok(()) if way != Way::Replace => return Ok(()),
                Ok(()) => match self.present(object, ours).await? {
                    Present::Ours => {
                        // It takes without a condition what it did not take with one, or was known for that.
                        self.inner.conditions.set(Conditions::Refused);
                        return Ok(());
                    }
                    Present::Other => return Err(self.conflict(object)),
                    Present::Absent => self.vanished(object),
                },
                Err(error) => error,
            };
            if let Some(next) = way.after(&error, self.conditions()) {
                way = next;
                continue;
            }
            let error = match error.kind {
                // Either an own try whose answer was lost, or somebody else, or (409) two requests at a time.
                Kind::Conflict => match self.present(object, ours).await? {
                    Present::Ours => return Ok(()),
                    Present::Other => return Err(self.conflict(object)),
                    Present::Absent => StoreError {
                        kind: Kind::Retry,
                        ..error
                    },
                },
                _ => error,
            };
            if let Err(last) = tries.after(error).await {
                // The last try may have gone through although its answer did not come.
                return match self.present_now(object, ours).await {
                    Some(Present::Ours) => Ok(()),
                    _ => Err(last),
                };
            }
        }
    }

    async fn put_once(
        &self,
        object: &str,
        content: &Bytes,
        way: Way,
        time: Duration,
    ) -> Result<(), StoreError> {
        let path = self.path(object)?;
        let store = self.inner.slot.get();
        let options = PutOptions {
            mode: way.mode(),
            ..PutOptions::default()
        };
        let request = store.put_opts(&path, PutPayload::from_bytes(content.clone()), options);
        self.once("put", object, time, request).await?;
        measure_bytes("put", content.len() as u64);
        Ok(())
    }

    /// [`Repository::present`] when the store has just failed: one more look, no error of its own.
    pub(super) async fn present_now(&self, object: &str, ours: &Fingerprint) -> Option<Present> {
        let look = self.present(object, ours);
        tokio::time::timeout(self.inner.options.small_try, look)
            .await
            .ok()?
            .ok()
    }

    /// An object that was put and is not there.
    fn vanished(&self, object: &str) -> StoreError {
        let detail = "it was put, and is not there";
        self.error(Kind::Retry, "put", object, detail, "")
    }

    pub(super) fn conflict(&self, object: &str) -> StoreError {
        self.error(
            Kind::Conflict,
            "put",
            object,
            "another object lies there already; it was left as it is",
            "two clusters may use one prefix: give each its own in CONFMAN_OBJECT_STORE_URL",
        )
    }

    /// A whole small object, or what is wrong with it.
    pub(super) async fn read_small(
        &self,
        object: &str,
        bytes_max: u64,
    ) -> Result<Bytes, StoreError> {
        let size = self.size(object).await?;
        if size > bytes_max {
            let detail =
                format!("{size} bytes are more than the {bytes_max} that such an object may have");
            return Err(self.error(Kind::Damaged, "get", object, detail, ""));
        }
        self.read(object, 0..size).await
    }

    /// Deletes an object; one that is not there is deleted.
    pub(super) async fn delete(&self, object: &str) -> Result<(), StoreError> {
        let path = self.path(object)?;
        let deleted = self
            .small("delete", object, move |store| {
                let path = path.clone();
                async move { store.delete(&path).await }
            })
            .await;
        match deleted {
            Err(error) if error.kind == Kind::NotFound => Ok(()),
            other => other,
        }
    }
}
