//! Doors and connectors on real sockets.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use confman_tls::throwaway::{Authority, Issued, Order};
use confman_tls::{NamedFile, NodeFiles};
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;

use super::Tls;
use super::connect::{Connector, Outgoing};
use super::door::{Door, Io, Listener};
use super::watch::Look;

const BOUND: Duration = Duration::from_secs(20);

fn now() -> SystemTime {
    SystemTime::now()
}

fn authority(name: &str) -> Authority {
    Authority::new(name, now(), 30).unwrap()
}

fn issue(authority: &Authority, names: &[&str]) -> Issued {
    authority.issue(&Order::node(names, now(), 10)).unwrap()
}

fn write(dir: &Path, ca: &str, issued: &Issued) -> NodeFiles {
    let file = |setting, name: &str, text: &str| {
        std::fs::write(dir.join(name), text).unwrap();
        NamedFile::new(setting, dir.join(name))
    };
    NodeFiles {
        cert: file("CONFMAN_TLS_CERT_FILE", "cert.pem", &issued.cert),
        key: file("CONFMAN_TLS_KEY_FILE", "key.pem", &issued.key),
        ca: Some(file("CONFMAN_TLS_CA_FILE", "ca.pem", ca)),
        api_client_certs: false,
        peer_host: None,
        api_host: None,
    }
}

/// The TLS of a node that is known as 127.0.0.1, and its directory.
fn node(authority: &Authority) -> (Arc<Tls>, tempfile::TempDir) {
    named(authority, &["127.0.0.1"])
}

fn named(authority: &Authority, names: &[&str]) -> (Arc<Tls>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let files = write(dir.path(), &authority.pem(), &issue(authority, names));
    (Tls::load(files, now()).unwrap(), dir)
}

/// A listener whose door echoes to whom it lets in; tells how many that were.
struct Echo {
    addr: SocketAddr,
    let_in: Arc<std::sync::atomic::AtomicUsize>,
}

impl Echo {
    async fn start(door: Door) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let let_in = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (door, count) = (Arc::new(door), Arc::clone(&let_in));
        tokio::spawn(async move {
            loop {
                let (stream, from) = listener.accept().await.unwrap();
                let (door, count) = (Arc::clone(&door), Arc::clone(&count));
                tokio::spawn(async move {
                    let Some(io) = door.admit(stream, from).await else {
                        return;
                    };
                    count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    let (mut read, mut write) = tokio::io::split(io);
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        Self { addr, let_in }
    }

    async fn peers(tls: Option<&Arc<Tls>>) -> Self {
        Self::start(Door::new(Listener::Peers, tls.cloned())).await
    }

    fn let_in(&self) -> usize {
        self.let_in.load(std::sync::atomic::Ordering::SeqCst)
    }
}

async fn connect(tls: Option<&Arc<Tls>>, uri: String) -> std::io::Result<TokioIo<Outgoing>> {
    let connector = Connector::new(Listener::Peers, tls.cloned(), Duration::from_secs(2));
    tokio::time::timeout(BOUND, connector.oneshot(uri.parse::<Uri>().unwrap()))
        .await
        .expect("in time")
}

/// Says something and hears it back; the error otherwise.
async fn echoes(io: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut io = io;
    let talk = async {
        io.write_all(b"hello").await?;
        let mut heard = [0; 5];
        io.read_exact(&mut heard).await?;
        assert_eq!(&heard, b"hello");
        Ok(())
    };
    tokio::time::timeout(BOUND, talk).await.expect("in time")
}

async fn reaches(tls: Option<&Arc<Tls>>, uri: String) -> Result<(), String> {
    let io = connect(tls, uri).await.map_err(|e| e.to_string())?;
    echoes(io.into_inner()).await.map_err(|e| e.to_string())
}

#[tokio::test]
async fn peers_of_one_authority_hear_each_other() {
    let authority = authority("one");
    let ((here, _a), (there, _b)) = (node(&authority), node(&authority));
    let echo = Echo::peers(Some(&there)).await;
    reaches(Some(&here), format!("https://{}", echo.addr))
        .await
        .unwrap();
    // In the clear on both sides too.
    let echo = Echo::peers(None).await;
    reaches(None, format!("http://{}", echo.addr))
        .await
        .unwrap();
}

/// A client with a certificate that no node would load.
fn client(roots: &Authority, shown: Option<&Issued>) -> tokio_rustls::TlsConnector {
    let mut store = rustls::RootCertStore::empty();
    store
        .add(CertificateDer::from_pem_slice(roots.pem().as_bytes()).unwrap())
        .unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(store);
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(issued) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(issued.cert.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config).into()
}

#[tokio::test]
async fn a_peer_without_the_right_certificate_gets_nothing() {
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let (tls, _dir) = node(&ours);
    let echo = Echo::peers(Some(&tls)).await;
    let expired = Order {
        until: now() - Duration::from_secs(60),
        ..Order::node(&["127.0.0.1"], now(), 1)
    };
    let server_only = Order {
        client: false,
        ..Order::node(&["127.0.0.1"], now(), 1)
    };
    let cases = [
        ("no certificate", None, "CertificateRequired"),
        (
            "another authority",
            Some(issue(&theirs, &["127.0.0.1"])),
            "UnknownCA",
        ),
        (
            "expired",
            Some(ours.issue(&expired).unwrap()),
            "CertificateExpired",
        ),
        (
            "no client's",
            Some(ours.issue(&server_only).unwrap()),
            "alert",
        ),
    ];
    for (case, shown, alert) in cases {
        let stream = TcpStream::connect(echo.addr).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let talked = match client(&ours, shown.as_ref()).connect(name, stream).await {
            Ok(stream) => echoes(stream).await,
            Err(error) => Err(error),
        };
        let error = talked.expect_err(case).to_string();
        assert!(error.contains(alert), "{case}: {error}");
    }
    assert_eq!(echo.let_in(), 0);
}

#[tokio::test]
async fn a_node_that_is_not_who_it_should_be_hears_nothing() {
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let (here, _a) = node(&ours);
    let (other_name, _b) = named(&ours, &["node7.example"]);
    let echo = Echo::peers(Some(&other_name)).await;
    let error = reaches(Some(&here), format!("https://{}", echo.addr))
        .await
        .unwrap_err();
    assert!(
        error.contains("CONFMAN_PEERS") && error.contains("subject alternative names"),
        "{error}"
    );
    assert_eq!(echo.let_in(), 0);

    let (strange, _c) = node(&theirs);
    let echo = Echo::peers(Some(&strange)).await;
    let error = reaches(Some(&here), format!("https://{}", echo.addr))
        .await
        .unwrap_err();
    assert!(
        error.contains("UnknownIssuer") && error.contains("CONFMAN_TLS_CA_FILE"),
        "{error}"
    );
    assert_eq!(echo.let_in(), 0);
}

#[tokio::test]
async fn who_speaks_the_wrong_way_reads_so_on_both_sides() {
    let authority = authority("one");
    let (tls, _dir) = node(&authority);
    let speaks_tls = Echo::peers(Some(&tls)).await;
    let error = reaches(None, format!("http://{}", speaks_tls.addr))
        .await
        .unwrap_err();
    assert!(
        error.contains("speaks TLS, and this node does not"),
        "{error}"
    );
    assert_eq!(speaks_tls.let_in(), 0);

    let plain = Echo::peers(None).await;
    let error = reaches(Some(&tls), format!("https://{}", plain.addr))
        .await
        .unwrap_err();
    assert!(error.contains("does not speak TLS"), "{error}");
    assert_eq!(plain.let_in(), 0);

    // A client of the API gets an answer that it can show.
    let api = Echo::start(Door::new(Listener::Api, Some(tls))).await;
    let mut stream = TcpStream::connect(api.addr).await.unwrap();
    stream
        .write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    tokio::time::timeout(BOUND, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"),
        "{answer}"
    );
    assert_eq!(api.let_in(), 0);
}

#[tokio::test]
async fn i19_who_says_nothing_is_left_in_time_and_keeps_nobody_out() {
    let authority = authority("one");
    let (tls, _dir) = node(&authority);
    // Time limit: half a handshake is as good as none.
    let door = Door::bounded(
        Listener::Peers,
        Some(Arc::clone(&tls)),
        Duration::from_millis(200),
        512,
    );
    let echo = Echo::start(door).await;
    for begun in [&b""[..], &[0x16], &[0x16, 3, 1, 2, 0, 1]] {
        let mut stream = TcpStream::connect(echo.addr).await.unwrap();
        stream.write_all(begun).await.unwrap();
        let mut rest = Vec::new();
        // An end or a reset: both say that it is over.
        let ended = tokio::time::timeout(BOUND, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok() && rest.is_empty(), "{begun:?}");
    }
    // Number: those who keep a place give way, and an honest one comes in.
    let door = Door::bounded(
        Listener::Peers,
        Some(Arc::clone(&tls)),
        Duration::from_secs(600),
        4,
    );
    let echo = Echo::start(door).await;
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(TcpStream::connect(echo.addr).await.unwrap());
    }
    reaches(Some(&tls), format!("https://{}", echo.addr))
        .await
        .unwrap();
    let mut oldest = idle.remove(0);
    let ended = tokio::time::timeout(BOUND, oldest.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_ok(), "the oldest gave way");
    // Those that are in have no place among the handshakes.
    for _ in 0..10 {
        reaches(Some(&tls), format!("https://{}", echo.addr))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn new_files_are_in_force_for_new_connections_and_old_ones_go_on() {
    let (old, new) = (authority("old"), authority("new"));
    let (server, dir) = node(&old);
    let (client, _b) = node(&old);
    let echo = Echo::peers(Some(&server)).await;
    let uri = || format!("https://{}", echo.addr);
    let living = connect(Some(&client), uri()).await.unwrap();
    let mut living = living.into_inner();
    echoes(&mut living).await.unwrap();

    assert!(matches!(server.look(now()), Look::Same));
    // Both authorities, then a certificate of the new one.
    let both = format!("{}{}", old.pem(), new.pem());
    write(dir.path(), &both, &issue(&new, &["127.0.0.1"]));
    assert!(matches!(server.look(now()), Look::Taken(_)));
    assert!(matches!(server.look(now()), Look::Same));
    echoes(&mut living).await.unwrap();
    let error = reaches(Some(&client), uri()).await.unwrap_err();
    assert!(
        error.contains("UnknownIssuer"),
        "the new chain is shown: {error}"
    );
    let (renewed, _c) = node(&new);
    // The renewed node is taken, and it takes the server.
    reaches(Some(&renewed), uri()).await.unwrap();
    echoes(&mut living).await.unwrap();
}

#[tokio::test]
async fn files_that_will_not_do_change_nothing() {
    let authority = authority("one");
    let (server, dir) = node(&authority);
    let (client, _b) = node(&authority);
    let echo = Echo::peers(Some(&server)).await;
    let good = issue(&authority, &["127.0.0.1"]);
    let other = issue(&authority, &["127.0.0.1"]);
    let bad = Issued {
        cert: good.cert.clone(),
        key: other.key,
    };
    write(dir.path(), &authority.pem(), &bad);
    for _ in 0..2 {
        let Look::Refused(_, errors) = server.look(now()) else {
            panic!("a key that does not belong to the certificate was taken");
        };
        assert!(
            errors.on_one_line().contains("CONFMAN_TLS_KEY_FILE"),
            "{errors}"
        );
        reaches(Some(&client), format!("https://{}", echo.addr))
            .await
            .unwrap();
    }
    std::fs::remove_file(dir.path().join("cert.pem")).unwrap();
    assert!(matches!(server.look(now()), Look::Refused(None, _)));
    reaches(Some(&client), format!("https://{}", echo.addr))
        .await
        .unwrap();
    // What comes good is taken.
    write(dir.path(), &authority.pem(), &good);
    assert!(matches!(server.look(now()), Look::Taken(_)));
    reaches(Some(&client), format!("https://{}", echo.addr))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_api_wants_a_certificate_only_where_it_is_told_to() {
    let authority = authority("one");
    for required in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut files = write(
            dir.path(),
            &authority.pem(),
            &issue(&authority, &["127.0.0.1"]),
        );
        files.api_client_certs = required;
        let echo = Echo::start(Door::new(
            Listener::Api,
            Some(Tls::load(files, now()).unwrap()),
        ))
        .await;
        for shown in [None, Some(issue(&authority, &["somebody"]))] {
            let stream = TcpStream::connect(echo.addr).await.unwrap();
            let mut config =
                rustls::ClientConfig::clone(client(&authority, shown.as_ref()).config());
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let name = ServerName::try_from("127.0.0.1").unwrap();
            let talked = match connector.connect(name, stream).await {
                Ok(stream) => echoes(stream).await,
                Err(error) => Err(error),
            };
            assert_eq!(talked.is_ok(), !required || shown.is_some(), "{talked:?}");
        }
    }
}

#[test]
fn io_is_what_a_server_takes() {
    fn taken<
        T: tonic::transport::server::Connected + AsyncRead + AsyncWrite + Unpin + Send + 'static,
    >() {
    }
    taken::<Io>();
}
