//! The listener: connections with limits on their number, their heads and their patience, and a clean end.
//!
//! Promises: a head that does not come in time or is too large ends its connection; when `stop` resolves no new
//! connection is taken, requests in flight are answered for a bounded time, and then everything is closed.
//!
//! Does not: terminate TLS, speak HTTP/2.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::limits::Limits;
use super::patience::Patient;

/// Headers that the parser takes, above what the API itself allows: there the answer is a problem document, beyond
/// this a bare 431.
const PARSER_HEADERS: usize = 256;
/// Bytes of a head that the parser takes, likewise.
const PARSER_HEAD_BYTES: usize = 128 << 10;
/// After `accept` failed, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until `stop` resolves and the requests in flight are answered.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let mut connections = tokio::task::JoinSet::new();
    tokio::pin!(stop);
    loop {
        // A connection that has no place waits in the kernel's queue.
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::warn!("accept a connection: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Small answers must not wait for the client's acknowledgement.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head_timeout)
            .max_headers(PARSER_HEADERS)
            .max_buf_size(PARSER_HEAD_BYTES)
            .serve_connection(
                TokioIo::new(Patient::new(
                    stream,
                    limits.write_stall_timeout,
                    limits.linger_timeout,
                )),
                service,
            );
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            let _place = place;
            if let Err(e) = connection.await {
                tracing::debug!("connection ended: {e}");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.drain_timeout, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("closed connections with requests in flight");
    }
    connections.shutdown().await;
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}
