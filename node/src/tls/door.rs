//! Who comes in: the first byte tells TLS from clear text, then hands are shaken within a bounded time.
//!
//! A handshake begins with the byte 0x16, and no HTTP does. So who speaks the wrong way gets an end that it understands,
//! instead of waiting for a time limit, and the log says what is wrong on which side.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls::{AlertDescription, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Tls;
use crate::grumble::Grumble;

/// How long a handshake may take, from the connection to its last byte.
pub const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// Handshakes at once of one listener; the oldest gives way to the next.
pub const HANDSHAKES_MAX: usize = 512;
/// The first byte of a TLS record that begins a handshake.
pub(super) const HANDSHAKE: u8 = 0x16;
/// The first byte of a TLS record that is an alert.
pub(super) const ALERT: u8 = 0x15;
/// A fatal alert, `unexpected_message`, in the clear: who understands TLS understands that this is not spoken here.
const NOT_HERE: [u8; 7] = [ALERT, 3, 3, 0, 2, 2, 10];
/// How long and how much of what a turned away client still sends is heard, so that it can read why.
const HEARD_OUT: Duration = Duration::from_millis(500);
const HEARD_BYTES_MAX: u64 = 64 << 10;
/// After `accept` failed, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Which of the two listeners it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// Clients.
    Api,
    /// Other nodes.
    Peers,
}

impl Listener {
    fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Peers => "peers",
        }
    }
}

/// How an arrival ended that was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turned {
    /// It was gone before it said anything; a port scan, or a health check by connecting.
    Silent,
    /// It speaks in the clear, and TLS is spoken here.
    Plain,
    /// It speaks TLS, and here nobody does.
    SpeaksTls,
    /// It showed no certificate.
    NoCertificate,
    /// It showed one that does not count.
    BadCertificate,
    /// It does not take this node's certificate.
    RefusesUs,
    /// It took too long.
    Timeout,
    /// It was the oldest of too many.
    GaveWay,
    /// Anything else.
    Failed,
}

impl Turned {
    /// As metrics know it.
    fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Plain => "plain",
            Self::SpeaksTls => "speaks-tls",
            Self::NoCertificate => "no-certificate",
            Self::BadCertificate => "bad-certificate",
            Self::RefusesUs => "refuses-us",
            Self::Timeout => "timeout",
            Self::GaveWay => "gave-way",
            Self::Failed => "failed",
        }
    }

    fn of(error: &io::Error) -> Self {
        match error
            .get_ref()
            .and_then(|e| e.downcast_ref::<rustls::Error>())
        {
            Some(rustls::Error::NoCertificatesPresented) => Self::NoCertificate,
            Some(rustls::Error::InvalidCertificate(_)) => Self::BadCertificate,
            Some(rustls::Error::AlertReceived(alert)) if is_about_certificates(*alert) => {
                Self::RefusesUs
            }
            _ => Self::Failed,
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::Plain => {
                "CONFMAN_TLS_CERT_FILE is set here and not there: set it on every node, and use https:// in clients"
            }
            Self::SpeaksTls => {
                "CONFMAN_TLS_CERT_FILE is set there and not here, or CONFMAN_TLS_CA_FILE is not: set both on every node"
            }
            Self::NoCertificate => {
                "nodes show theirs when CONFMAN_TLS_CERT_FILE is set, clients when CONFMAN_TLS_CLIENT_CERT_FILE is"
            }
            Self::BadCertificate => {
                "have it issued by an authority in CONFMAN_TLS_CA_FILE of this node, which all nodes share"
            }
            Self::RefusesUs => {
                "let it trust the authority of this node's certificate, and connect by a name that the certificate bears"
            }
            Self::Silent | Self::Timeout | Self::GaveWay | Self::Failed => "",
        }
    }
}

/// Whether an alert says that a certificate was not taken, or is missing.
pub(super) fn is_about_certificates(alert: AlertDescription) -> bool {
    use AlertDescription as A;
    matches!(
        alert,
        A::NoCertificate
            | A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            | A::AccessDenied
            | A::CertificateRequired
    )
}

/// A connection that was let in.
#[derive(Debug)]
pub enum Io {
    /// In the clear.
    Plain(TcpStream),
    /// After a handshake.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Lets connections of one listener in.
#[derive(Debug)]
pub struct Door {
    listener: Listener,
    tls: Option<Arc<Tls>>,
    grumble: Grumble,
    under_way: Mutex<UnderWay>,
    within: Duration,
}

impl Door {
    /// A door that shakes hands with the credentials in force; without them it lets in what speaks in the clear.
    #[must_use]
    pub fn new(listener: Listener, tls: Option<Arc<Tls>>) -> Self {
        Self::bounded(listener, tls, HANDSHAKE_WITHIN, HANDSHAKES_MAX)
    }

    /// The same with other bounds.
    #[must_use]
    pub fn bounded(
        listener: Listener,
        tls: Option<Arc<Tls>>,
        within: Duration,
        max: usize,
    ) -> Self {
        let tls = tls.filter(|tls| listener == Listener::Api || tls.peers_too());
        Self {
            listener,
            tls,
            grumble: Grumble::default(),
            under_way: Mutex::new(UnderWay::new(max)),
            within,
        }
    }

    /// Whether a connection has to wait for its first byte here.
    pub(crate) fn looks(&self) -> bool {
        // HTTP in the clear has its own time limit for a head, and an answer for what is none.
        self.tls.is_some() || self.listener == Listener::Peers
    }

    /// Shakes hands; nothing when it does not come in.
    pub async fn admit(&self, stream: TcpStream, from: SocketAddr) -> Option<Io> {
        if !self.looks() {
            return Some(Io::Plain(stream));
        }
        let gives_way = self.under_way.lock().add();
        let admitted = tokio::select! {
            admitted = tokio::time::timeout(self.within, self.shake(stream)) => admitted,
            _ = gives_way => Ok(Err((Turned::GaveWay, "too many handshakes are under way".to_owned()))),
        };
        let (turned, why) = match admitted {
            Ok(Ok(io)) => {
                if matches!(io, Io::Tls(_)) {
                    self.count("ok");
                }
                return Some(io);
            }
            Ok(Err(turned)) => turned,
            Err(_) => (
                Turned::Timeout,
                format!("no handshake within {} s", self.within.as_secs()),
            ),
        };
        self.count(turned.name());
        self.tell(from.ip(), turned, &why);
        None
    }

    fn count(&self, result: &'static str) {
        metrics::counter!("confman_tls_handshakes_total", "listener" => self.listener.name(), "result" => result)
            .increment(1);
    }

    fn tell(&self, from: IpAddr, turned: Turned, why: &str) {
        let listener = self.listener.name();
        if turned == Turned::Silent {
            tracing::debug!(%from, listener, "a connection said nothing");
            return;
        }
        let Some(kept_back) = self
            .grumble
            .may(&from.to_string(), turned.name(), Instant::now())
        else {
            return;
        };
        let hint = turned.remedy();
        tracing::warn!(%from, listener, result = turned.name(), kept_back, hint, "a connection was turned away: {why}");
    }

    async fn shake(&self, stream: TcpStream) -> Result<Io, (Turned, String)> {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(1..) => {}
            Ok(0) => return Err((Turned::Silent, String::new())),
            Err(error) => return Err((Turned::Silent, error.to_string())),
        }
        let tls = self.tls.as_ref().and_then(|tls| self.config(tls));
        match (tls, first[0] == HANDSHAKE) {
            (None, false) => Ok(Io::Plain(stream)),
            (None, true) => {
                send_away(stream, &NOT_HERE).await;
                Err((
                    Turned::SpeaksTls,
                    "it speaks TLS, and this node does not".to_owned(),
                ))
            }
            (Some(_), false) => {
                let answer = match self.listener {
                    Listener::Api => https_only(),
                    Listener::Peers => NOT_HERE.to_vec(),
                };
                send_away(stream, &answer).await;
                Err((
                    Turned::Plain,
                    "it does not speak TLS, and this node does".to_owned(),
                ))
            }
            (Some(config), true) => {
                match TlsAcceptor::from(config)
                    .accept(stream)
                    .into_fallible()
                    .await
                {
                    Ok(stream) => Ok(Io::Tls(Box::new(stream))),
                    Err((error, stream)) => {
                        // The alert is sent; what the client sent behind its handshake must not drown it in a reset.
                        send_away(stream, &[]).await;
                        Err((Turned::of(&error), error.to_string()))
                    }
                }
            }
        }
    }

    /// The credentials of this moment.
    fn config(&self, tls: &Tls) -> Option<Arc<ServerConfig>> {
        let current = tls.current();
        match self.listener {
            Listener::Api => Some(Arc::clone(&current.api)),
            Listener::Peers => current
                .peers
                .as_ref()
                .map(|peers| Arc::clone(&peers.server)),
        }
    }
}

/// What a client gets that speaks HTTP where https is spoken.
fn https_only() -> Vec<u8> {
    let body = serde_json::json!({
        "type": "urn:confman:problem:invalid-request", "title": "this port speaks https", "status": 400,
        "detail": "the request came in the clear, and this node speaks TLS",
        "hint": "use https:// in the URL, and trust the cluster's authority (CONFMAN_TLS_CLIENT_CA_FILE)",
    })
    .to_string();
    format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Says why, and hears the other side out: a close with unread bytes resets the connection, and the answer is lost.
async fn send_away(mut stream: TcpStream, answer: &[u8]) {
    let said = async {
        stream.write_all(answer).await?;
        stream.shutdown().await?;
        let mut rest = stream.take(HEARD_BYTES_MAX);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // It is turned away whether it listens or not.
    let _ = tokio::time::timeout(HEARD_OUT, said).await;
}

/// Handshakes under way, of which only so many may be: when there are more, the oldest gives way. Honest ones take
/// milliseconds, so those who only keep a place go first.
#[derive(Debug)]
struct UnderWay {
    max: usize,
    /// Closed when the handshake is over; dropped when it is to give way.
    each: VecDeque<oneshot::Sender<()>>,
}

impl UnderWay {
    fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            each: VecDeque::new(),
        }
    }

    /// One more: it is under way while what is returned is held, and gives way when that resolves.
    fn add(&mut self) -> oneshot::Receiver<()> {
        if self.each.len() >= self.max {
            self.each.retain(|handshake| !handshake.is_closed());
        }
        if self.each.len() >= self.max {
            self.each.pop_front();
        }
        let (handshake, gives_way) = oneshot::channel();
        self.each.push_back(handshake);
        gives_way
    }
}

/// The connections that a listener lets in. It closes when the receiver is dropped.
pub(crate) fn arrivals(listener: TcpListener, door: Arc<Door>) -> mpsc::Receiver<io::Result<Io>> {
    let (let_in, arrivals) = mpsc::channel(16);
    tokio::spawn(async move {
        // Dropped with this task, they end with it.
        let mut handshakes = tokio::task::JoinSet::new();
        let grumble = Grumble::default();
        loop {
            let accepted = tokio::select! {
                () = let_in.closed() => return,
                Some(_) = handshakes.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Without file descriptors it fails at every turn.
                    if let Some(kept_back) = grumble.may("accept", "failed", Instant::now()) {
                        tracing::warn!(kept_back, "accept a peer's connection: {error}");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // A heartbeat must not wait for more to come.
            let _ = stream.set_nodelay(true);
            let (door, let_in) = (Arc::clone(&door), let_in.clone());
            handshakes.spawn(async move {
                if let Some(io) = door.admit(stream, from).await {
                    // Nobody listens any more when it fails.
                    let _ = let_in.send(Ok(io)).await;
                }
            });
        }
    });
    arrivals
}

impl tonic::transport::server::Connected for Io {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
