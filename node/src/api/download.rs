//! Large values on their way out: part by part, never whole in memory.
//!
//! Promises: `Content-Length` is the value's size; a part that is gone (the value was replaced more than a minute ago)
//! or unreadable breaks the connection, so that a short body is never taken for the value; a client that takes it too
//! slowly loses its place.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use bytes::BytesMut;
use confman_store::StateHandle;
use confman_store::records::BlobRef;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::Api;
use super::failure::Failure;
use super::read;
use crate::grumble::Pace;

struct Going {
    state: StateHandle,
    blob: BlobRef,
    next: u32,
    sent: u64,
    begun: Instant,
    grace: Duration,
    rate_min: u64,
    request_id: String,
    pace: Arc<Pace>,
    _place: OwnedSemaphorePermit,
}

impl Going {
    fn tell(&self, cause: &str) {
        broken_off(&self.pace, &self.request_id, self.next, cause);
    }
}

/// Tells the log. A disk that cannot be read, or a value that is replaced all the time, breaks off every download.
fn broken_off(pace: &Pace, request_id: &str, part: u32, cause: &str) {
    if let Some(kept_back) = pace.may(std::time::Instant::now()) {
        let kept_back = (kept_back > 0).then_some(kept_back);
        tracing::warn!(request_id, part, kept_back, cause, "download broken off");
    }
}

/// A body of the blob's parts; the place is given back when the body ends.
pub(crate) fn body(
    api: &Api,
    state: StateHandle,
    blob: BlobRef,
    request_id: String,
    place: OwnedSemaphorePermit,
) -> Body {
    let going = Going {
        state,
        blob,
        next: 0,
        sent: 0,
        begun: Instant::now(),
        grace: api.limits.body_grace,
        rate_min: api.limits.body_rate_min.max(1),
        request_id,
        pace: Arc::clone(&api.pace),
        _place: place,
    };
    Body::from_stream(futures::stream::try_unfold(going, |mut going| async move {
        if going.next >= going.blob.parts {
            return Ok(None);
        }
        if going.begun.elapsed() > going.grace + Duration::from_secs(going.sent / going.rate_min) {
            tracing::debug!(
                request_id = going.request_id,
                sent = going.sent,
                "download broken off: the client is too slow"
            );
            return Err(io::Error::other("the client is too slow"));
        }
        match part(&going.state, &going.blob, going.next).await {
            Ok(Some(bytes)) => {
                going.next += 1;
                going.sent += bytes.len() as u64;
                Ok(Some((bytes, going)))
            }
            Ok(None) => {
                going.tell("the value was replaced meanwhile");
                Err(io::Error::other("the value was replaced meanwhile"))
            }
            Err(failure) => {
                going.tell(failure.cause().unwrap_or_default());
                Err(io::Error::other("the value could not be read"))
            }
        }
    }))
}

/// The whole value in memory, for what has a bound; `None` when it was replaced meanwhile.
pub(crate) async fn collect(state: &StateHandle, blob: &BlobRef) -> Result<Option<Bytes>, Failure> {
    let mut whole = BytesMut::with_capacity(usize::try_from(blob.size).unwrap_or_default());
    for i in 0..blob.parts {
        let Some(bytes) = part(state, blob, i).await? else {
            return Ok(None);
        };
        whole.extend_from_slice(&bytes);
    }
    Ok(Some(whole.freeze()))
}

async fn part(state: &StateHandle, blob: &BlobRef, i: u32) -> Result<Option<Bytes>, Failure> {
    let blob = blob.clone();
    read::blocking(state, move |state| state.read_part(&blob, i)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::tests::logged;

    #[test]
    fn downloads_that_all_break_off_are_told_in_part() {
        let log = logged(|| {
            let pace = Pace::default();
            for n in 0..1000 {
                broken_off(&pace, &format!("request-{n}"), 3, "the value was replaced");
            }
        });
        assert!((20..100).contains(&log.lines().count()), "{log}");
        for part in ["request-0", "part=3", "the value was replaced"] {
            assert!(log.contains(part), "{part} is not in: {log}");
        }
    }
}
