//! Request bodies: read piece by piece, never longer than allowed, never slower than allowed.
//!
//! Promises: a body ends in bounded time (an idle limit, and a least rate after a grace) and bounded memory (the
//! caller names the limit; what exceeds a few hundred KiB draws on the shared budget).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::body::BodyDataStream;
use axum::body::HttpBody as _;
use bytes::Bytes;
use bytes::BytesMut;
use futures::StreamExt as _;

use http::HeaderMap;
use http::StatusCode;
use http::header;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::failure::Failure;
use super::limits::Budgets;
use super::limits::Limits;

/// What is read without drawing on the budget.
const FREE_BYTES: u64 = 256 << 10;

/// A body that has not been read to its end.
pub(crate) struct BodyReader {
    /// Never locked, only reached through `get_mut`: the mutex makes the reader shareable between threads, which
    /// handlers that hold a `&Call` across an await need.
    stream: Mutex<Pin<Box<BodyDataStream>>>,
    /// What the client announced.
    pub(crate) announced: Option<u64>,
    received: u64,
    polled: bool,
    ended: bool,
    /// Set when the body has been read to its end: only then can the connection be used again.
    complete: Arc<AtomicBool>,
    begun: Instant,
    limits: Limits,
}

impl BodyReader {
    pub(crate) fn new(headers: &HeaderMap, body: Body, limits: &Limits) -> Self {
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse().ok());
        let ended = body.is_end_stream();
        Self {
            stream: Mutex::new(Box::pin(body.into_data_stream())),
            announced,
            received: 0,
            polled: false,
            ended,
            complete: Arc::new(AtomicBool::new(ended)),
            begun: Instant::now(),
            limits: limits.clone(),
        }
    }

    /// Says later whether the body has been read to its end, whoever reads it.
    pub(crate) fn completeness(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.complete)
    }

    /// The next piece, `None` at the end. Cancel-safe: a piece is either returned or still to come.
    pub(crate) async fn next(&mut self, bytes_max: u64) -> Result<Option<Bytes>, Failure> {
        self.check_announced(bytes_max)?;
        if !self.polled {
            self.polled = true;
            self.begun = Instant::now();
        }
        if self.ended {
            return Ok(None);
        }
        let piece =
            match tokio::time::timeout_at(self.deadline(), self.stream.get_mut().next()).await {
                Err(_) => {
                    // What has not come by now is not waited for again.
                    self.ended = true;
                    return Err(too_slow());
                }
                Ok(None) => {
                    self.ended = true;
                    self.complete.store(true, Ordering::Relaxed);
                    return Ok(None);
                }
                Ok(Some(Err(e))) => {
                    self.ended = true;
                    return Err(Failure::invalid(
                        "body",
                        format!("the body could not be read: {e}"),
                    ));
                }
                Ok(Some(Ok(piece))) => piece,
            };
        self.received = self.received.saturating_add(piece.len() as u64);
        if self.received > bytes_max {
            return Err(too_large(bytes_max));
        }
        if self.announced == Some(self.received) {
            // Whoever passes the body on stops here, and does not ask for the end.
            self.complete.store(true, Ordering::Relaxed);
        }
        Ok(Some(piece))
    }

    /// The whole body, at most `bytes_max`.
    pub(crate) async fn collect(
        &mut self,
        bytes_max: u64,
        budgets: &Budgets,
    ) -> Result<Collected, Failure> {
        let mut permit = None;
        if let Some(announced) = self.announced
            && announced > FREE_BYTES
            && announced <= bytes_max
        {
            permit = Some(budgets.json(announced).await?);
        }
        let mut bytes = BytesMut::new();
        while let Some(piece) = self.next(bytes_max).await? {
            if permit.is_none() && (bytes.len() + piece.len()) as u64 > FREE_BYTES {
                permit = Some(budgets.json(bytes_max).await?);
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Collected {
            bytes: bytes.freeze(),
            _permit: permit,
        })
    }

    /// Refuses what is announced to be longer than `bytes_max`.
    pub(crate) fn check_announced(&self, bytes_max: u64) -> Result<(), Failure> {
        match self.announced {
            Some(announced) if announced > bytes_max => Err(too_large(bytes_max)),
            _ => Ok(()),
        }
    }

    /// Whether there was a body at all, as far as the head says.
    pub(crate) fn is_announced_empty(&self) -> bool {
        self.announced == Some(0)
    }

    /// The body for somebody else to read, with the limits on top.
    pub(crate) fn into_stream(
        self,
        bytes_max: u64,
    ) -> impl futures::Stream<Item = Result<Bytes, Failure>> + Send {
        futures::stream::try_unfold(self, move |mut reader| async move {
            let piece = reader.next(bytes_max).await?;
            Ok(piece.map(|piece| (piece, reader)))
        })
    }

    /// When the next piece must have come.
    fn deadline(&self) -> Instant {
        let idle = Instant::now() + self.limits.body_idle_timeout;
        let seconds = self.received / self.limits.body_rate_min.max(1);
        let rate = self.begun + self.limits.body_grace + std::time::Duration::from_secs(seconds);
        idle.min(rate)
    }
}

/// A body in memory, with its share of the budget.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) bytes: Bytes,
    _permit: Option<tokio::sync::OwnedSemaphorePermit>,
}

fn too_large(bytes_max: u64) -> Failure {
    Failure::too_large(format!("the body has more than {bytes_max} bytes"))
}

fn too_slow() -> Failure {
    Failure::invalid("body", "the body did not come in time").status(StatusCode::REQUEST_TIMEOUT)
}
