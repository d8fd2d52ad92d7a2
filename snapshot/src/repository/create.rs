//! Objects that must not exist yet: created where the store honours conditions, confirmed by content everywhere.

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
        let path = self.path(object)?;
        let mut tries = self.tries("put", limits);
        // A store that ignores the condition must not lose what lies there.
        match self.present(object, ours).await? {
            Present::Ours => return Ok(()),
            Present::Other => return Err(self.conflict(object)),
            Present::Absent => {}
        }
        // One more fence, where the store does not refuse it.
        let mut mode = match self.conditions() {
            Conditions::Refused => PutMode::Overwrite,
            Conditions::Unknown | Conditions::Honoured | Conditions::Ignored => PutMode::Create,
        };
        loop {
            let store = self.inner.slot.get();
            let options = PutOptions {
                mode: mode.clone(),
                ..PutOptions::default()
            };
            let request = store.put_opts(&path, PutPayload::from_bytes(content.clone()), options);
            let conditional = matches!(mode, PutMode::Create);
            let answered = self.once_raw("put", object, tries.time(), request).await;
            if matches!(answered, Ok(Ok(_))) {
                measure_bytes("put", content.len() as u64);
            }
            let error = match answered {
                Ok(Ok(_)) if conditional => return Ok(()),
                Ok(Ok(_)) => match self.present(object, ours).await? {
                    Present::Ours => {
                        // It takes without a condition what it did not take with one, or was known for that.
                        self.inner.conditions.set(Conditions::Refused);
                        return Ok(());
                    }
                    Present::Other => return Err(self.conflict(object)),
                    Present::Absent => self.vanished(object),
                },
                Ok(Err(error)) => self.classify("put", object, &error),
                Err(error) => error,
            };
            let error = match error.kind {
                // It may be the condition that it does not take: the look above, and one afterwards, have to do.
                Kind::Configuration if conditional && error.hint.is_empty() => {
                    mode = PutMode::Overwrite;
                    continue;
                }
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
