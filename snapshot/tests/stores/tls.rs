//! Stores over TLS: an authority of one's own, and a store that lets in only who shows a certificate, by every scheme that goes over
//! https.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use confman_config::ClientTlsSettings;
use confman_snapshot::repository::RepositoryOptions;
use confman_snapshot::{Kind, Repository, StoreError};
use confman_tls::throwaway::{Authority, Issued, Order};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const CA: &str = "CONFMAN_TLS_STORE_CA_FILE";
const CERT: &str = "CONFMAN_TLS_STORE_CERT_FILE";
const KEY: &str = "CONFMAN_TLS_STORE_KEY_FILE";
const SCHEMES: [&str; 3] = ["s3", "gs", "az"];

/// A server that answers every request with an empty listing, to who shows a certificate that it takes.
struct Guarded {
    address: std::net::SocketAddr,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    own: Issued,
    dir: tempfile::TempDir,
}

fn authority(name: &str) -> Authority {
    Authority::new(name, SystemTime::now(), 30).unwrap()
}

fn issued(by: &Authority) -> Issued {
    by.issue(&Order::node(&["127.0.0.1"], SystemTime::now(), 30))
        .unwrap()
}

fn demanding(own: &Issued, clients: &Authority) -> Arc<ServerConfig> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(clients.pem().as_bytes()).unwrap();
    roots.add(root).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let chain = vec![CertificateDer::from_pem_slice(own.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key);
    Arc::new(config.unwrap())
}

async fn answer(socket: tokio::net::TcpStream, config: Arc<ServerConfig>) -> std::io::Result<()> {
    let mut stream = TlsAcceptor::from(config).accept(socket).await?;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let body = if String::from_utf8_lossy(&request).contains("comp=list") {
        "<EnumerationResults><Blobs></Blobs></EnumerationResults>"
    } else {
        "<ListBucketResult></ListBucketResult>"
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).await?;
    stream.shutdown().await
}

impl Guarded {
    /// Its own certificate is of `own`, and it takes those of `clients`.
    async fn start(own: &Authority, clients: &Authority) -> Self {
        let own = issued(own);
        let config = Arc::new(Mutex::new(demanding(&own, clients)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let current = Arc::clone(&config);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let config = current.lock().unwrap().clone();
                // One that was turned away has its error on the other side.
                tokio::spawn(answer(socket, config));
            }
        });
        Self {
            address,
            config,
            own,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// Takes those of another authority from now on, and no others.
    fn take(&self, clients: &Authority) {
        *self.config.lock().unwrap() = demanding(&self.own, clients);
    }

    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn show(&self, issued: &Issued) -> (PathBuf, PathBuf) {
        (
            self.put("client.pem", &issued.cert),
            self.put("client-key.pem", &issued.key),
        )
    }

    async fn open(&self, scheme: &str, tls: ClientTlsSettings) -> Result<Repository, StoreError> {
        let endpoint = format!("https://{}", self.address);
        open_at(scheme, &endpoint, tls).await
    }
}

async fn open_at(
    scheme: &str,
    endpoint: &str,
    tls: ClientTlsSettings,
) -> Result<Repository, StoreError> {
    let env: &[(&str, &str)] = match scheme {
        "s3" => &[
            ("AWS_ENDPOINT_URL", endpoint),
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "canary-secret"),
            ("AWS_REGION", "eu"),
        ],
        "gs" => &[
            ("GOOGLE_BASE_URL", endpoint),
            ("GOOGLE_SKIP_SIGNATURE", "true"),
        ],
        _ => &[
            ("AZURE_STORAGE_ENDPOINT", endpoint),
            ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
            ("AZURE_SKIP_SIGNATURE", "true"),
        ],
    };
    let env = env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    let options = RepositoryOptions {
        tries: 1,
        tls,
        ..RepositoryOptions::default()
    };
    let url = format!("{scheme}://bucket/prefix");
    Repository::open_with(&url, std::path::Path::new("/nowhere"), env, options).await
}

#[tokio::test]
async fn every_https_store_takes_an_authority_of_ones_own_and_is_shown_a_certificate() {
    let (servers, clients) = (authority("servers"), authority("clients"));
    let guarded = Guarded::start(&servers, &clients).await;
    let ca = guarded.put("ca.pem", &servers.pem());
    let identity = guarded.show(&issued(&clients));
    for scheme in SCHEMES {
        let stranger = guarded.open(scheme, ClientTlsSettings::default()).await;
        let error = stranger.unwrap().ping().await.unwrap_err();
        assert_eq!(error.kind, Kind::Configuration, "{scheme}: {error}");
        assert!(error.hint.contains(CA), "{scheme}: {error}");

        let mut tls = ClientTlsSettings {
            ca_file: Some(ca.clone()),
            identity: None,
        };
        let nameless = guarded.open(scheme, tls.clone()).await.unwrap();
        let error = nameless.ping().await.unwrap_err();
        assert_eq!(error.kind, Kind::Configuration, "{scheme}: {error}");
        let said = error.hint.contains(CERT) && error.hint.contains(KEY);
        assert!(said, "{scheme}: {error}");

        tls.identity = Some(identity.clone());
        let shown = guarded.open(scheme, tls).await.unwrap();
        shown
            .ping()
            .await
            .unwrap_or_else(|e| panic!("{scheme}: {e}"));
    }
}

#[tokio::test]
async fn a_certificate_that_changed_on_disk_is_shown_without_opening_the_store_again() {
    let (servers, old, new) = (authority("servers"), authority("old"), authority("new"));
    let guarded = Guarded::start(&servers, &old).await;
    let tls = ClientTlsSettings {
        ca_file: Some(guarded.put("ca.pem", &servers.pem())),
        identity: Some(guarded.show(&issued(&old))),
    };
    let mut opened = Vec::new();
    for scheme in SCHEMES {
        opened.push(guarded.open(scheme, tls.clone()).await.unwrap());
    }
    for repository in &opened {
        repository.ping().await.unwrap();
    }
    guarded.take(&new);
    for repository in &opened {
        let error = repository.ping().await.unwrap_err();
        assert!(error.hint.contains(CERT), "{error}");
    }
    guarded.show(&issued(&new));
    for repository in &opened {
        repository.ping().await.unwrap();
    }
}

#[tokio::test]
async fn i20_files_that_will_not_do_are_named_with_their_setting_and_what_to_do() {
    let (servers, clients) = (authority("servers"), authority("clients"));
    let guarded = Guarded::start(&servers, &clients).await;
    let right = issued(&clients);
    let (cert, key) = guarded.show(&right);
    let other_key = guarded.put("other-key.pem", &issued(&clients).key);
    let text = guarded.put("text.pem", "no PEM at all");
    let missing = guarded.dir.path().join("missing.pem");
    let identity = |cert: &PathBuf, key: &PathBuf| ClientTlsSettings {
        ca_file: None,
        identity: Some((cert.clone(), key.clone())),
    };
    let trusting = |ca: &PathBuf| ClientTlsSettings {
        ca_file: Some(ca.clone()),
        identity: None,
    };
    let cases = [
        (identity(&text, &key), CERT, "BEGIN CERTIFICATE"),
        (identity(&cert, &text), KEY, "BEGIN PRIVATE KEY"),
        (identity(&missing, &key), CERT, "put the file there"),
        (
            identity(&cert, &other_key),
            KEY,
            "as they were issued together",
        ),
        (trusting(&text), CA, "BEGIN CERTIFICATE"),
        (trusting(&missing), CA, "put the file there"),
    ];
    let secrets: Vec<&str> = right.key.lines().skip(1).take(1).collect();
    for scheme in SCHEMES {
        for (tls, setting, remedy) in &cases {
            let error = guarded.open(scheme, tls.clone()).await.unwrap_err();
            assert_eq!(error.kind, Kind::Configuration, "{error}");
            assert!(error.detail.contains(setting), "{scheme}: {error}");
            assert!(error.hint.contains(remedy), "{scheme}: {error}");
            let told = format!("{error} {error:?}");
            assert!(!secrets.iter().any(|s| told.contains(s)), "{told}");
        }
        let error = open_at(scheme, "http://127.0.0.1:9", identity(&cert, &key)).await;
        let error = error.unwrap_err();
        assert!(error.detail.contains(CERT), "{error}");
        assert!(error.hint.contains("https"), "{error}");
    }
}
