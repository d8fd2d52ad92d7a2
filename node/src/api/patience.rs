//! A socket with manners: it does not wait for ever for a reader, and it hears a talker out before it hangs up.
//!
//! Promises: a write that makes no progress for the given time ends the connection; after the last answer the
//! connection is closed for writing at once, and what the client still sends is read and dropped for a bounded time,
//! because a close with unread bytes resets the connection and the client would never see the answer.
//!
//! Does not: limit reads of requests; that is done in `serve.rs` (heads) and `body.rs` (bodies).

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::time::Instant;
use tokio::time::Sleep;

/// How long a closing connection may be silent.
const QUIET_MAX: Duration = Duration::from_millis(500);

/// A stream with a limit on how long a write may be stuck, and with a lingering close.
pub(crate) struct Patient<S> {
    stream: S,
    limit: Duration,
    linger: Duration,
    stuck: Option<Pin<Box<Sleep>>>,
    lingering: Option<Linger>,
}

/// How long a close still listens.
struct Linger {
    /// To a client that goes on sending.
    longest: Pin<Box<Sleep>>,
    /// To one that sends nothing, so that idle connections do not hold up a stop.
    quiet: Pin<Box<Sleep>>,
}

impl<S> Patient<S> {
    /// Writes may be stuck for `limit`; closing takes at most `linger`.
    pub(crate) fn new(stream: S, limit: Duration, linger: Duration) -> Self {
        Self {
            stream,
            limit,
            linger,
            stuck: None,
            lingering: None,
        }
    }

    /// Passes on what a write answered, unless it has been stuck for too long.
    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let limit = self.limit;
        let stuck = self
            .stuck
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        match stuck.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client does not read what it asked for",
            ))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            let shut = Pin::new(&mut this.stream).poll_shutdown(cx);
            match this.judge(cx, shut) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
        }
        let longest = this.linger;
        let linger = this.lingering.get_or_insert_with(|| Linger {
            longest: Box::pin(tokio::time::sleep(longest)),
            quiet: Box::pin(tokio::time::sleep(QUIET_MAX)),
        });
        let mut scratch = [0; 16 << 10];
        // A talker is given way to others after some pieces.
        for _ in 0..16 {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut this.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    linger.quiet.as_mut().reset(Instant::now() + QUIET_MAX);
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    let over = linger.longest.as_mut().poll(cx).is_ready()
                        || linger.quiet.as_mut().poll(cx).is_ready();
                    return if over {
                        Poll::Ready(Ok(()))
                    } else {
                        Poll::Pending
                    };
                }
            }
        }
        if linger.longest.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn i19_a_reader_that_takes_nothing_is_left_in_time() {
        let (ours, _theirs) = tokio::io::duplex(8);
        let mut patient = Patient::new(ours, Duration::from_millis(50), Duration::ZERO);
        let stuck = patient.write_all(b"more than the pipe holds");
        let stuck = tokio::time::timeout(Duration::from_secs(10), stuck)
            .await
            .expect("in time");
        assert_eq!(
            stuck.expect_err("nobody reads").kind(),
            io::ErrorKind::TimedOut
        );
    }

    #[tokio::test]
    async fn a_reader_that_goes_on_is_waited_for() {
        let (ours, mut theirs) = tokio::io::duplex(8);
        let limit = Duration::from_secs(1);
        let reader = tokio::spawn(async move {
            let mut got = Vec::new();
            let mut piece = [0; 8];
            while let Ok(n) = theirs.read(&mut piece).await
                && n > 0
            {
                got.extend_from_slice(&piece[..n]);
                tokio::time::sleep(limit / 10).await;
            }
            got
        });
        // Each wait is a tenth of the limit, all of them together are longer than it.
        let mut patient = Patient::new(ours, limit, Duration::ZERO);
        patient
            .write_all(&[7; 120])
            .await
            .expect("each wait is short enough");
        drop(patient);
        assert_eq!(reader.await.unwrap(), [7; 120]);
    }

    #[tokio::test]
    async fn a_talker_is_heard_out_for_a_bounded_time() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 10);
        let mut patient = Patient::new(ours, Duration::from_secs(10), Duration::from_secs(10));
        patient.write_all(b"enough").await.unwrap();
        let closing = tokio::spawn(async move { patient.shutdown().await });
        theirs
            .write_all(&[7; 100_000])
            .await
            .expect("all of it is taken");
        let mut answer = String::new();
        theirs.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "enough");
        drop(theirs);
        closing.await.unwrap().unwrap();

        // One that never stops is left.
        let (ours, mut theirs) = tokio::io::duplex(1 << 10);
        let talking =
            tokio::spawn(async move { while theirs.write_all(&[7; 512]).await.is_ok() {} });
        let mut patient = Patient::new(ours, Duration::from_secs(10), Duration::from_millis(50));
        tokio::time::timeout(Duration::from_secs(10), patient.shutdown())
            .await
            .expect("in time")
            .unwrap();
        drop(patient);
        talking.await.unwrap();
    }
}
