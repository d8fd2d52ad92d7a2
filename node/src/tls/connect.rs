//! Going out to other nodes: their peer listeners, and their APIs when a request is forwarded.
//!
//! `https` in the address means a handshake with the credentials in force, `http` clear text. What stands in the way is
//! told here, where both sides' settings can be named: further up it is only a connection that failed.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::Service;

use super::Tls;
use super::door::{ALERT, HANDSHAKE_WITHIN, Listener, is_about_certificates};
use crate::grumble::Grumble;

/// Makes connections to one kind of listener of other nodes. Cheap to clone.
#[derive(Clone)]
pub struct Connector {
    to: Listener,
    tcp: HttpConnector,
    tls: Option<Arc<Tls>>,
    grumble: Arc<Grumble>,
}

impl Connector {
    /// To listeners of that kind, with the credentials in force.
    #[must_use]
    pub fn new(to: Listener, tls: Option<Arc<Tls>>, connect_timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(connect_timeout));
        Self {
            to,
            tcp,
            tls,
            grumble: Arc::default(),
        }
    }

    /// The scheme under which peers are reached.
    pub(crate) fn peer_scheme(&self) -> &'static str {
        if self.tls.as_ref().is_some_and(|tls| tls.peers_too()) {
            "https"
        } else {
            "http"
        }
    }

    /// The credentials of this moment for that kind of listener.
    fn config(&self) -> Option<Arc<ClientConfig>> {
        let current = self.tls.as_ref()?.current();
        match self.to {
            Listener::Peers => current
                .peers
                .as_ref()
                .map(|peers| Arc::clone(&peers.client)),
            Listener::Api => current.api_client.clone(),
        }
    }

    async fn shake(
        &self,
        stream: TcpStream,
        uri: &Uri,
        at: &str,
    ) -> io::Result<Box<TlsStream<TcpStream>>> {
        let config = self.config().ok_or_else(|| {
            io::Error::other(format!(
                "{at} is to be reached by https, and this node has no CONFMAN_TLS_CA_FILE to know it by"
            ))
        })?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let shaken = TlsConnector::from(config).connect(name, stream);
        match tokio::time::timeout(HANDSHAKE_WITHIN, shaken).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no handshake within {} s", HANDSHAKE_WITHIN.as_secs()),
            )),
        }
    }
}

/// What is wrong, as a stable word, and what to do; nothing for what is no matter of TLS.
fn diagnose(error: &io::Error) -> Option<(&'static str, &'static str)> {
    use rustls::{AlertDescription as A, CertificateError as C, Error as E};
    let not_tls = (
        "plain",
        "it does not speak TLS, and this node does: set CONFMAN_TLS_CERT_FILE, CONFMAN_TLS_KEY_FILE and CONFMAN_TLS_CA_FILE on every node",
    );
    let Some(tls) = error.get_ref().and_then(|e| e.downcast_ref::<E>()) else {
        // tokio-rustls's word for a connection that ends in the handshake.
        return (error.kind() == io::ErrorKind::UnexpectedEof).then_some(not_tls);
    };
    Some(match tls {
        E::AlertReceived(A::UnexpectedMessage) | E::InvalidMessage(_) => not_tls,
        E::AlertReceived(alert) if is_about_certificates(*alert) => (
            "refuses-us",
            "it does not take this node's certificate: have it issued by an authority in the other's CONFMAN_TLS_CA_FILE",
        ),
        E::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => (
            "other-name",
            "its certificate does not bear the host by which it is known in CONFMAN_PEERS: issue it with that among its subject alternative names",
        ),
        E::InvalidCertificate(
            C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. },
        ) => (
            "expired",
            "its certificate has expired or does not count yet: renew it there, or set this machine's clock",
        ),
        E::InvalidCertificate(_) => (
            "bad-certificate",
            "its certificate is of no authority in this node's CONFMAN_TLS_CA_FILE: all nodes share one",
        ),
        _ => ("failed", "see the other node's log"),
    })
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Outgoing>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_ready(cx).map_err(io::Error::other)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let at = uri.authority().map(ToString::to_string).unwrap_or_default();
        let tcp = self.tcp.call(uri.clone());
        let this = self.clone();
        Box::pin(async move {
            let stream = tcp
                .await
                .map_err(|error| io::Error::other(chain(&error)))?
                .into_inner();
            let told = Telling {
                grumble: Arc::clone(&this.grumble),
                peer: stream.peer_addr().ok(),
                at,
            };
            let way = if uri.scheme_str() == Some("https") {
                match this.shake(stream, &uri, &told.at).await {
                    Ok(stream) => Way::Tls(stream),
                    Err(error) => return Err(told.tell(error)),
                }
            } else {
                Way::Plain(stream)
            };
            Ok(TokioIo::new(Outgoing {
                way,
                told: Some(told),
            }))
        })
    }
}

/// The words of an error and of what caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Tells what is wrong with a connection, once in a while.
#[derive(Debug)]
struct Telling {
    grumble: Arc<Grumble>,
    peer: Option<SocketAddr>,
    at: String,
}

impl Telling {
    /// Logs it, and gives it back with its remedy for whoever asked.
    fn tell(&self, error: io::Error) -> io::Error {
        let Some((what, hint)) = diagnose(&error) else {
            return error;
        };
        if let Some(kept_back) = self.grumble.may(&self.at, what, Instant::now()) {
            let address = self.peer.map(|peer| peer.to_string());
            tracing::warn!(to = %self.at, address, result = what, kept_back, hint, "no TLS with another node: {error}");
        }
        io::Error::new(error.kind(), format!("{}: {error} ({hint})", self.at))
    }
}

/// A connection to another node.
#[derive(Debug)]
pub struct Outgoing {
    way: Way,
    /// Until something has been heard: a server judges a client's certificate when the client believes that all is done.
    told: Option<Telling>,
}

#[derive(Debug)]
enum Way {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Outgoing {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = match &mut this.way {
            Way::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Way::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        let Poll::Ready(read) = read else {
            return Poll::Pending;
        };
        let Some(told) = this.told.take() else {
            return Poll::Ready(read);
        };
        Poll::Ready(match (read, &this.way) {
            (Err(error), Way::Tls(_)) => Err(told.tell(error)),
            // No answer of HTTP begins like an alert.
            (Ok(()), Way::Plain(_)) if buffer.filled().get(before) == Some(&ALERT) => {
                let hint = "set CONFMAN_TLS_CERT_FILE, CONFMAN_TLS_KEY_FILE and CONFMAN_TLS_CA_FILE here too";
                let why = format!("{} speaks TLS, and this node does not", told.at);
                if let Some(kept_back) = told.grumble.may(&told.at, "speaks-tls", Instant::now()) {
                    tracing::warn!(to = %told.at, kept_back, hint, "{why}");
                }
                Err(io::Error::other(format!("{why} ({hint})")))
            }
            (read, _) => read,
        })
    }
}

impl AsyncWrite for Outgoing {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().way {
            Way::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Way::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().way {
            Way::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
            Way::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.way {
            Way::Plain(stream) => stream.is_write_vectored(),
            Way::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().way {
            Way::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Way::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().way {
            Way::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Way::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl Connection for Outgoing {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}
