//! Large values on their way in: cut into parts, proposed with a small window, hashed while they come.
//!
//! Promises: memory of an upload is a few parts, whatever its size; parts are proposed in order; nothing is visible
//! until the put that names the upload. An upload that ends early leaves parts that apply collects later.

use std::sync::Arc;

use bytes::Bytes;
use bytes::BytesMut;
use confman_snapshot::ValueHasher;
use confman_store::command::Content;
use confman_store::command::INLINE_MAX;
use confman_store::command::Op;
use confman_store::command::PART_BYTES;
use confman_store::command::StagePart;
use confman_store::command::Staged;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use tokio::sync::OwnedSemaphorePermit;

use super::Api;
use super::backend::Applied;
use super::backend::GroupBackend;
use super::backend::ProposeError;
use super::backend::WriteContext;
use super::failure::Failure;
use super::write;

/// Parts proposed and not yet applied.
const WINDOW_PARTS: usize = 4;

/// A value that is there, inline or staged, ready to be put.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) content: Content,
    /// BLAKE3 of the whole value.
    pub(crate) hash: [u8; 32],
}

/// Takes a value piece by piece; up to [`INLINE_MAX`] it stays in memory, above that it is staged.
pub(crate) struct Sink<'a> {
    api: &'a Arc<Api>,
    uri: &'a http::Uri,
    group: &'a Arc<dyn GroupBackend>,
    context: WriteContext,
    buffer: BytesMut,
    hasher: ValueHasher,
    size: u64,
    upload: Option<Upload>,
}

struct Upload {
    id: Bytes,
    next_seq: u32,
    pending: FuturesOrdered<BoxFuture<'static, Result<Applied, ProposeError>>>,
    _place: OwnedSemaphorePermit,
}

impl<'a> Sink<'a> {
    pub(crate) fn new(
        api: &'a Arc<Api>,
        uri: &'a http::Uri,
        group: &'a Arc<dyn GroupBackend>,
        context: WriteContext,
    ) -> Self {
        Self {
            api,
            uri,
            group,
            // Parts are not deduplicated: only the put that commits them is.
            context: WriteContext {
                idempotency_key: None,
                fingerprint: Bytes::new(),
                ..context
            },
            buffer: BytesMut::new(),
            hasher: ValueHasher::new(),
            size: 0,
            upload: None,
        }
    }

    /// Whether [`Self::progress`] has something to wait for.
    pub(crate) fn in_flight(&self) -> bool {
        self.upload
            .as_ref()
            .is_some_and(|upload| !upload.pending.is_empty())
    }

    /// Waits for one part to be applied; for ever when none is in flight. Cancel-safe.
    pub(crate) async fn progress(&mut self) -> Result<(), Failure> {
        let next = match &mut self.upload {
            Some(upload) => upload.pending.next().await,
            None => None,
        };
        match next {
            None => std::future::pending().await,
            Some(staged) => self.check(staged),
        }
    }

    /// Takes the next piece.
    pub(crate) async fn push(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.hasher.update(piece);
        self.size = self.size.saturating_add(piece.len() as u64);
        self.buffer.extend_from_slice(piece);
        if self.upload.is_none() && self.buffer.len() > INLINE_MAX {
            self.upload = Some(Upload {
                id: Bytes::copy_from_slice(&self.api.new_upload_id()),
                next_seq: 0,
                pending: FuturesOrdered::new(),
                _place: self.api.budgets.transfer().await?,
            });
        }
        while self.upload.is_some() && self.buffer.len() >= PART_BYTES {
            let part = self.buffer.split_to(PART_BYTES).freeze();
            self.stage(part).await?;
        }
        Ok(())
    }

    /// The value as content for a put, once all parts are applied.
    pub(crate) async fn finish(mut self) -> Result<Ready, Failure> {
        let hash = self.hasher.finish();
        if self.upload.is_some() && !self.buffer.is_empty() {
            let part = std::mem::take(&mut self.buffer).freeze();
            self.stage(part).await?;
        }
        while self.in_flight() {
            self.progress().await?;
        }
        let content = match &self.upload {
            None => Content::Inline(self.buffer.freeze()),
            Some(upload) => Content::Staged(Staged {
                upload_id: upload.id.clone(),
                size: self.size,
                hash: Bytes::copy_from_slice(&hash),
            }),
        };
        Ok(Ready { content, hash })
    }

    async fn stage(&mut self, part: Bytes) -> Result<(), Failure> {
        while self
            .upload
            .as_ref()
            .is_some_and(|upload| upload.pending.len() >= WINDOW_PARTS)
        {
            self.progress().await?;
        }
        let Some(upload) = &mut self.upload else {
            return Err(Failure::internal("a part without an upload"));
        };
        let op = Op::StagePart(StagePart {
            upload_id: upload.id.clone(),
            seq: upload.next_seq,
            bytes: part,
        });
        upload.next_seq += 1;
        let group = Arc::clone(self.group);
        let context = self.context.clone();
        upload
            .pending
            .push_back(Box::pin(async move { group.propose(context, op).await }));
        Ok(())
    }

    fn check(&self, staged: Result<Applied, ProposeError>) -> Result<(), Failure> {
        match staged {
            Ok(applied) => match applied.outcome.as_refused() {
                None => Ok(()),
                Some(refused) => Err(write::refused(refused)),
            },
            // A part that may yet be applied changes nothing that anybody sees.
            Err(ProposeError::Timeout) => Err(Failure::busy(
                "the upload was not confirmed in time, nothing was written",
            )
            .hint("send the request again")),
            Err(error) => Err(write::propose_failure(self.api, self.uri, error)),
        }
    }
}
