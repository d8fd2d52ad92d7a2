//! A short look at what a store honours, which nodes take at their start.

use bytes::Bytes;
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::Serialize;

use crate::error::{Kind, StoreError};
use crate::paths;
use crate::repository::Repository;
use crate::source::ChunkSource;

/// What a probe of the store learned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Whether "create only if absent" is refused for an object that exists. Nothing depends on it.
    pub conditional_put: bool,
    /// Whether an object was listed as soon as it was put.
    pub list_after_put: bool,
    /// Whether deleting is allowed; snapshots stay for ever without it.
    pub delete: bool,
    /// Why deleting does not work.
    pub delete_error: Option<String>,
}

impl Repository {
    /// Puts, reads, lists and deletes an object of its own. An error says which of put, get and list does not work; that
    /// deleting does not is part of the answer.
    pub async fn probe_short(&self) -> Result<Probe, StoreError> {
        let nonce: u64 = rand::random();
        let object = paths::probe(nonce);
        let content = Bytes::from(format!("confman probe {nonce:016x}\n"));
        self.put_probe(&object, &content).await?;
        let learned = self.learn(&object, &content).await;
        let deleted = self.delete(&object).await;
        let (conditional_put, list_after_put) = learned?;
        let delete_error = deleted.err().map(|e| e.to_string());
        Ok(Probe {
            conditional_put,
            list_after_put,
            delete: delete_error.is_none(),
            delete_error,
        })
    }

    async fn put_probe(&self, object: &str, content: &Bytes) -> Result<(), StoreError> {
        let path = self.path(object)?;
        self.small("put", object, move |store| {
            let (path, payload) = (path.clone(), PutPayload::from_bytes(content.clone()));
            async move { store.put(&path, payload).await.map(|_| ()) }
        })
        .await
    }

    async fn learn(&self, object: &str, content: &Bytes) -> Result<(bool, bool), StoreError> {
        if self.read(object, 0..content.len() as u64).await? != content {
            return Err(self.error(
                Kind::Damaged,
                "get",
                object,
                "what came back is not what was put",
                "",
            ));
        }
        let path = self.path(object)?;
        let again = PutPayload::from_bytes(content.clone());
        let options = PutOptions {
            mode: PutMode::Create,
            ..PutOptions::default()
        };
        let store = self.inner.slot.get();
        let second = self
            .once(
                "put",
                object,
                self.inner.options.small_try,
                store.put_opts(&path, again, options),
            )
            .await;
        let mut listed = false;
        self.list(paths::PROBES, |found, _| listed |= found == object)
            .await?;
        Ok((second.is_err_and(|e| e.kind == Kind::Conflict), listed))
    }
}
