//! The listener: connections with limits on their number, their heads and their patience, and a clean end.
//!
//! Promises: a head that does not come in time or is too large ends its connection; when `stop` resolves no new
//! connection is taken, requests in flight are answered for a bounded time, and then everything is closed.
//!
//! Handshakes are the door's ([`crate::tls::door`]); a connection has its place among all while it shakes hands.
//!
//! Does not: speak HTTP/2.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::limits::Limits;
use super::patience::Patient;
use crate::grumble::Grumble;
use crate::tls::door::Door;

/// Headers that the parser takes, above what the API itself allows: there the answer is a problem document, beyond
/// this a bare 431.
const PARSER_HEADERS: usize = 256;
/// Bytes of a head that the parser takes, likewise.
const PARSER_HEAD_BYTES: usize = 128 << 10;
/// After `accept` failed, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` to those on `listener` whom the door lets in, until `stop` resolves and the requests in flight are answered.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    door: Door,
    stop: impl Future<Output = ()>,
) {
    let door = Arc::new(door);
    let stopping = CancellationToken::new();
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let mut connections = tokio::task::JoinSet::new();
    let grumble = Grumble::default();
    tokio::pin!(stop);
    loop {
        // A connection that has no place waits in the kernel's queue.
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, from, place) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                if let Some(kept_back) = grumble.may("accept", "failed", Instant::now()) {
                    tracing::warn!(kept_back, "accept a connection: {e}");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Small answers must not wait for the client's acknowledgement.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let (door, limits) = (Arc::clone(&door), limits.clone());
        let (watcher, stopping) = (graceful.watcher(), stopping.clone());
        connections.spawn(async move {
            let _place = place;
            let admitted = tokio::select! {
                admitted = door.admit(stream, from) => admitted,
                // Who is not in yet has no request in flight.
                () = stopping.cancelled() => None,
            };
            let Some(stream) = admitted else { return };
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
            if let Err(e) = watcher.watch(connection).await {
                tracing::debug!("connection ended: {e}");
            }
        });
    }
    stopping.cancel();
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
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, from) = listener.accept().await?;
    Ok((stream, from, place))
}
