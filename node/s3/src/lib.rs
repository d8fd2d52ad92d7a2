//! An S3 server of our own on loopback, for `confman dev` and for tests.
//!
//! It is `s3s-fs` (objects as files under a folder) with four things added: signatures are checked against one key
//! pair, `If-None-Match: *` answers 412 to all but one of any number of racing writers, a body that is not what its checksum says is
//! refused before it is written, and the bucket is there.
//!
//! Promises:
//! - listens on loopback only;
//! - a request without the right signature gets nothing;
//! - an object appears whole or not at all, and a conditional create has one winner;
//! - [`RunningS3::shutdown`] lets running requests end and is over in five seconds.
//!
//! Not here: durability against power loss (`s3s-fs` does not fsync), speed, anything that a production store has.

mod checksums;
mod honest;
mod locks;
mod together;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder as ConnectionBuilder;
use hyper_util::server::graceful::GracefulShutdown;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, rustls};

use crate::honest::HonestS3;

/// How long requests may go on after a shutdown began.
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);
/// How long a client may take to send the head of a request.
const HEADER_READ_MAX: Duration = Duration::from_secs(30);

/// What the server does with a write that says "only if nothing is there". Others than [`Self::Honoured`] are for tests: there are such
/// stores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ConditionalWrites {
    /// What it says, with one winner.
    #[default]
    Honoured,
    /// Takes the write and does not look.
    Ignored,
    /// Looks first and writes then, so that of several at once more than one wins. A create waits a moment for another, so that they
    /// do not miss each other.
    Racing,
    /// Refuses the header as an argument that it does not know: 400.
    Refused,
    /// Refuses the header as something that it has not: 501.
    NotImplemented,
}

/// What the server serves, and to whom.
#[derive(Clone)]
pub struct S3Config {
    /// Where to listen: a loopback address, port 0 for any free one.
    pub listen: SocketAddr,
    /// The folder that holds the objects; made if it is not there.
    pub root: PathBuf,
    /// The access key id that clients sign with.
    pub access_key: String,
    /// The secret that clients sign with.
    pub secret_key: String,
    /// The bucket; made if it is not there.
    pub bucket: String,
    /// How it takes conditional writes.
    pub conditional_writes: ConditionalWrites,
}

impl fmt::Debug for S3Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Config")
            .field("listen", &self.listen)
            .field("root", &self.root)
            .field("bucket", &self.bucket)
            .finish_non_exhaustive()
    }
}

/// The server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is reachable from other machines.
    #[error(
        "the S3 server of confman dev listens on loopback only, not on {0}\nhint: use 127.0.0.1 or [::1]"
    )]
    NotLoopback(SocketAddr),
    /// The bucket's name is not one, or would be another folder.
    #[error("bucket name {0:?} is not valid: expected 3 to 63 of a-z, 0-9, - and .")]
    Bucket(String),
    /// The port is taken, or the like.
    #[error("listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The folder cannot be used.
    #[error("use {path:?} for objects: {detail}")]
    Root {
        /// The folder.
        path: PathBuf,
        /// What went wrong.
        detail: String,
    },
}

/// A server that runs until it is shut down or dropped.
#[derive(Debug)]
pub struct RunningS3 {
    addr: SocketAddr,
    https: bool,
    config: S3Config,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl RunningS3 {
    /// The address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The URL that `AWS_ENDPOINT_URL` takes.
    pub fn endpoint(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}", self.addr)
    }

    /// The environment variables that make a client use this server.
    pub fn env(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", self.config.access_key.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.config.secret_key.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// Stops taking requests and waits for the running ones, five seconds at most.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        // The task bounds itself; an error means that it is over as well.
        let _ = (&mut self.task).await;
    }
}

impl Drop for RunningS3 {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts the server; it has answered nothing yet but listens when this returns.
pub async fn serve(config: S3Config) -> Result<RunningS3, ServeError> {
    serve_with(config, None).await
}

/// The same over https.
pub async fn serve_tls(
    config: S3Config,
    tls: Arc<rustls::ServerConfig>,
) -> Result<RunningS3, ServeError> {
    serve_with(config, Some(TlsAcceptor::from(tls))).await
}

async fn serve_with(config: S3Config, tls: Option<TlsAcceptor>) -> Result<RunningS3, ServeError> {
    if !config.listen.ip().is_loopback() {
        return Err(ServeError::NotLoopback(config.listen));
    }
    if !s3s::path::check_bucket_name(&config.bucket) {
        return Err(ServeError::Bucket(config.bucket));
    }
    let root = |detail: String| ServeError::Root {
        path: config.root.clone(),
        detail,
    };
    let bucket = config.root.join(&config.bucket);
    tokio::fs::create_dir_all(&bucket)
        .await
        .map_err(|e| root(e.to_string()))?;
    let files = s3s_fs::FileSystem::new(&config.root).map_err(|e| root(format!("{e:?}")))?;
    let mut builder = S3ServiceBuilder::new(HonestS3::new(files, config.conditional_writes));
    builder.set_auth(SimpleAuth::from_single(
        config.access_key.clone(),
        config.secret_key.clone(),
    ));
    let service = builder.build();

    let listen = |source| ServeError::Listen {
        addr: config.listen,
        source,
    };
    let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
    let addr = listener.local_addr().map_err(listen)?;
    let (stop, stopped) = watch::channel(false);
    let https = tls.is_some();
    let task = tokio::spawn(accept(listener, service, tls, stopped));
    Ok(RunningS3 {
        addr,
        https,
        config,
        stop,
        task,
    })
}

async fn accept(
    listener: TcpListener,
    service: S3Service,
    tls: Option<TlsAcceptor>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut server = ConnectionBuilder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_MAX);
    let graceful = GracefulShutdown::new();
    // Connections belong to this task: when it is aborted they end with it.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => break,
            Some(_) = connections.join_next() => continue,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                // Out of file descriptors, mostly: wait for some to come free.
                tracing::warn!(%error, "the S3 server cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Small answers must not wait for more to come.
        let _ = socket.set_nodelay(true);
        let Some(tls) = tls.clone() else {
            let connection = server.serve_connection(TokioIo::new(socket), service.clone());
            let connection = graceful.watch(connection.into_owned());
            connections.spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection to the S3 server ended");
                }
            });
            continue;
        };
        let (server, service, watcher) = (server.clone(), service.clone(), graceful.watcher());
        connections.spawn(async move {
            let shaken = tokio::time::timeout(HEADER_READ_MAX, tls.accept(socket)).await;
            let Ok(Ok(socket)) = shaken else {
                tracing::debug!("a handshake with the S3 server failed");
                return;
            };
            let connection = server.serve_connection(TokioIo::new(socket), service);
            if let Err(error) = watcher.watch(connection.into_owned()).await {
                tracing::debug!(%error, "a connection to the S3 server ended");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(SHUTDOWN_MAX, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("the S3 server cut off requests that did not end in time");
    }
}
