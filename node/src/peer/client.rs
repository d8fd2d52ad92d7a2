//! Channels to other nodes: one per address and purpose, connected lazily, with keepalive, so that
//! a black hole is noticed; every call has a deadline.
//!
//! Raft traffic, heartbeats and snapshots have channels of their own: a large transfer never sits
//! in front of a heartbeat on the same connection (promise I5).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::tls::Tls;
use crate::tls::connect::Connector;
use crate::tls::door::Listener;

use super::proto::{HelloReply, HelloRequest, peer_client::PeerClient};
use super::{MESSAGE_BYTES_MAX, TOKEN_KEY};

/// How long a connection to a node may take, handshake included.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// A client stub with the token attached.
pub(crate) type Stub = PeerClient<InterceptedService<Channel, TokenInterceptor>>;

/// What a channel is for; each purpose has its own connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// Log replication and votes.
    Raft,
    /// Heartbeats, which nothing may delay.
    Heartbeat,
    /// Snapshot transfer.
    Snapshot,
    /// Hello, join, read index, proposals.
    Control,
}

/// Adds the peer token to every request.
#[derive(Clone)]
pub(crate) struct TokenInterceptor {
    token: Option<MetadataValue<Ascii>>,
}

impl Interceptor for TokenInterceptor {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.token {
            request.metadata_mut().insert(TOKEN_KEY, token.clone());
        }
        Ok(request)
    }
}

/// All channels of this process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Channels {
    token: TokenInterceptor,
    connector: Connector,
    open: Arc<Mutex<HashMap<(String, Purpose), Channel>>>,
}

/// The peer token holds characters that no header can carry.
#[derive(Debug, thiserror::Error)]
#[error(
    "CONFMAN_CLUSTER_TOKEN holds characters that a header cannot carry\nhint: use letters, digits and punctuation only"
)]
pub(crate) struct BadToken;

/// A peer address that is no `host:port`.
#[derive(Debug, thiserror::Error)]
#[error("peer address `{addr}` is not host:port")]
pub(crate) struct BadAddress {
    addr: String,
}

impl Channels {
    /// Channels that present `token`, over TLS where this node speaks it with peers.
    pub(crate) fn new(
        token: Option<&SecretString>,
        tls: Option<Arc<Tls>>,
    ) -> Result<Self, BadToken> {
        let token = match token {
            Some(t) => {
                let mut value: MetadataValue<Ascii> =
                    t.expose_secret().parse().map_err(|_| BadToken)?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        Ok(Self {
            token: TokenInterceptor { token },
            connector: Connector::new(Listener::Peers, tls, CONNECT_WITHIN),
            open: Arc::default(),
        })
    }

    /// A stub for `addr`; connects when first used, and again after a failure.
    pub(crate) fn stub(&self, addr: &str, purpose: Purpose) -> Result<Stub, BadAddress> {
        let mut open = self.open.lock();
        let channel = match open.get(&(addr.to_owned(), purpose)) {
            Some(channel) => channel.clone(),
            None => {
                let scheme = self.connector.peer_scheme();
                let endpoint = Endpoint::from_shared(format!("{scheme}://{addr}"))
                    .map_err(|_| BadAddress {
                        addr: addr.to_owned(),
                    })?
                    .connect_timeout(CONNECT_WITHIN)
                    .tcp_nodelay(true)
                    .http2_keep_alive_interval(Duration::from_secs(2))
                    .keep_alive_timeout(Duration::from_secs(3))
                    .keep_alive_while_idle(true)
                    .initial_stream_window_size(8 * 1024 * 1024)
                    .initial_connection_window_size(16 * 1024 * 1024);
                let channel = endpoint.connect_with_connector_lazy(self.connector.clone());
                open.insert((addr.to_owned(), purpose), channel.clone());
                channel
            }
        };
        Ok(PeerClient::with_interceptor(channel, self.token.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }
}

/// A request that fails after `deadline` on both sides.
pub(crate) fn with_deadline<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// What is waited for an answer to Hello.
const HELLO_WITHIN: Duration = Duration::from_secs(1);

/// Asks one address who is there.
pub(crate) async fn hello(
    channels: &Channels,
    addr: &str,
    ask: HelloRequest,
) -> Result<HelloReply, String> {
    let mut stub = channels
        .stub(addr, Purpose::Control)
        .map_err(|e| e.to_string())?;
    let asked =
        tokio::time::timeout(HELLO_WITHIN, stub.hello(with_deadline(ask, HELLO_WITHIN))).await;
    match asked {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err(format!("no answer within {HELLO_WITHIN:?}")),
    }
}
