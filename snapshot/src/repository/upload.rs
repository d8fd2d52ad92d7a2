//! Uploads of a local file: in one request while it is small, in parts of 8 MiB otherwise, so that memory stays bounded.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use object_store::path::Path as ObjectPath;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};

use super::Repository;
use super::call::measure_bytes;
use super::create::{Fingerprint, Present};
use crate::error::{SnapshotError, StoreError};

/// S3 takes 10,000 parts; some room is left.
const PARTS_MAX: u64 = 9_000;

impl Repository {
    /// Uploads a finished file as a new object; `tail_bytes` of its end are how it is known again. Gives its size.
    pub(super) async fn upload(
        &self,
        local: &Path,
        object: &str,
        tail_bytes: u64,
    ) -> Result<u64, SnapshotError> {
        let io = |source| SnapshotError::Io {
            operation: "read",
            path: local.to_owned(),
            source,
        };
        let size = tokio::fs::metadata(local).await.map_err(io)?.len();
        let tail = read_file(local, size.saturating_sub(tail_bytes), tail_bytes.min(size)).await?;
        let ours = Fingerprint { size, tail };
        if size <= self.inner.options.single_put_bytes_max {
            let content = read_file(local, 0, size).await?;
            self.create(object, content, &ours, self.transfer_limits())
                .await?;
        } else {
            self.upload_parts(local, object, &ours).await?;
        }
        Ok(size)
    }

    async fn upload_parts(
        &self,
        local: &Path,
        object: &str,
        ours: &Fingerprint,
    ) -> Result<(), SnapshotError> {
        // Completing an upload is not conditional: look first. Names hold a nonce, so nobody else writes this one.
        match self.present(object, ours).await? {
            Present::Ours => return Ok(()),
            Present::Other => return Err(self.conflict(object).into()),
            Present::Absent => {}
        }
        let path = self.path(object)?;
        // Only pauses and counts are taken from here: an upload as a whole may take hours.
        let mut limits = self.transfer_limits();
        limits.total = limits.total.saturating_mul(1000);
        let mut tries = self.tries("put", limits);
        loop {
            let error = match self.upload_once(local, &path, object, ours.size).await {
                Ok(()) => return Ok(()),
                Err(SnapshotError::Store(error)) => error,
                Err(error) => return Err(error),
            };
            // The answer to the completion may have been lost.
            if self.present_now(object, ours).await == Some(Present::Ours) {
                return Ok(());
            }
            tries.after(error).await?;
        }
    }

    async fn upload_once(
        &self,
        local: &Path,
        path: &ObjectPath,
        object: &str,
        size: u64,
    ) -> Result<(), SnapshotError> {
        let store: Arc<dyn ObjectStore> = self.inner.slot.get();
        let small = self.inner.options.small_try;
        let mut upload = self
            .once("put", object, small, store.put_multipart(path))
            .await?;
        let sent = self.send_parts(&mut *upload, local, object, size).await;
        let done = match sent {
            Ok(()) => {
                // A store may take its time to put a large object together.
                let time = self.inner.options.transfer_total;
                self.once("put", object, time, upload.complete())
                    .await
                    .map(|_| ())
                    .map_err(SnapshotError::from)
            }
            Err(error) => Err(error),
        };
        if done.is_err() {
            // Parts that stay behind cost money until the bucket's own rule removes them; not worth another error.
            if let Err(error) = self.once("put", object, small, upload.abort()).await {
                tracing::debug!(%error, "an upload that failed could not be aborted");
                metrics::counter!("confman_store_uploads_not_aborted_total").increment(1);
            }
        }
        done
    }

    async fn send_parts(
        &self,
        upload: &mut dyn MultipartUpload,
        local: &Path,
        object: &str,
        size: u64,
    ) -> Result<(), SnapshotError> {
        let options = &self.inner.options;
        let part_bytes = options.part_bytes.max(size.div_ceil(PARTS_MAX)).max(1);
        let mut under_way = FuturesUnordered::new();
        let mut offset = 0;
        while offset < size {
            if under_way.len() >= options.parts_in_flight.max(1) {
                under_way.next().await.unwrap_or(Ok(()))?;
            }
            let len = part_bytes.min(size - offset);
            let part = read_file(local, offset, len).await?;
            // Parts go in order of these calls, and are sent side by side.
            let sending = upload.put_part(PutPayload::from_bytes(part));
            under_way.push(async move {
                self.once("put", object, options.transfer_try, sending)
                    .await?;
                measure_bytes("put", len);
                Ok::<(), StoreError>(())
            });
            offset += len;
        }
        while let Some(sent) = under_way.next().await {
            sent?;
        }
        Ok(())
    }
}

/// Exactly `len` bytes of a local file.
async fn read_file(path: &Path, offset: u64, len: u64) -> Result<Bytes, SnapshotError> {
    let path: PathBuf = path.to_owned();
    let work = move || -> Result<Bytes, SnapshotError> {
        use std::io::{Read, Seek, SeekFrom};
        let io = |source| SnapshotError::Io {
            operation: "read",
            path: path.clone(),
            source,
        };
        let mut file = std::fs::File::open(&path).map_err(io)?;
        file.seek(SeekFrom::Start(offset)).map_err(io)?;
        let mut bytes = vec![0; len as usize];
        file.read_exact(&mut bytes).map_err(io)?;
        Ok(bytes.into())
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| SnapshotError::Internal(format!("read a file: {e}")))?
}
