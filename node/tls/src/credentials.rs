//! What a node speaks TLS with, from three files.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, InconsistentKeys, RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};

use crate::error::{FileError, FileErrors};
use crate::files::NamedFile;
use crate::judge::{self, Side, Window};

/// HTTP/2, which peers speak.
const ALPN_PEERS: &[u8] = b"h2";
/// What the API speaks.
const ALPN_API: [&[u8]; 2] = [b"http/1.1", b"http/1.0"];
/// Bytes of a fingerprint that are shown.
const FINGERPRINT_BYTES: usize = 8;

/// The files of a node, and what their contents must be good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFiles {
    /// The node's certificate and its intermediates.
    pub cert: NamedFile,
    /// Its private key.
    pub key: NamedFile,
    /// The authorities whose certificates count; with it peers speak TLS.
    pub ca: Option<NamedFile>,
    /// Whether clients of the API must show a certificate too.
    pub api_client_certs: bool,
    /// The host by which other nodes know this one; the certificate must name it.
    pub peer_host: Option<String>,
    /// The host that clients are sent to; when the certificate does not name it that is worth a notice.
    pub api_host: Option<String>,
}

/// The bytes of the files at one time. Two are equal when the files are.
#[derive(Clone)]
pub struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    ca: Option<Vec<u8>>,
    key_is_open: Option<String>,
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contents").finish_non_exhaustive()
    }
}

/// With which peers meet each other: both sides show a certificate.
#[derive(Debug, Clone)]
pub struct PeerConfigs {
    /// For those that connect to this node.
    pub server: Arc<ServerConfig>,
    /// For those that this node connects to.
    pub client: Arc<ClientConfig>,
}

/// What a node speaks TLS with: every part of it made of the same files at the same time.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// For the API's listener.
    pub api: Arc<ServerConfig>,
    /// For the peers, if there is an authority to know them by.
    pub peers: Option<PeerConfigs>,
    /// For requests to the API of another node.
    pub api_client: Option<Arc<ClientConfig>>,
    /// What of it may be told.
    pub portrait: Portrait,
}

/// What may be told of credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Portrait {
    /// The first bytes of the SHA-256 of the node's certificate, in hex.
    pub fingerprint: String,
    /// The DNS names that it bears.
    pub names: Vec<String>,
    /// When the first certificate of its chain expires, in seconds since 1970.
    pub not_after: u64,
    /// When the first authority that still counts expires.
    pub ca_not_after: Option<u64>,
    /// What an operator should know though it is allowed.
    pub notices: Vec<String>,
}

impl NodeFiles {
    /// The files as they are now.
    ///
    /// # Errors
    /// Each file that cannot be read.
    pub fn read(&self) -> Result<Contents, FileErrors> {
        let (cert, key) = (self.cert.read(), self.key.read());
        let ca = self.ca.as_ref().map(NamedFile::read).transpose();
        match (cert, key, ca) {
            (Ok(cert), Ok(key), Ok(ca)) => Ok(Contents {
                cert,
                key,
                ca,
                key_is_open: self.key.open_to_others(),
            }),
            (cert, key, ca) => {
                let errors = [cert.err(), key.err(), ca.err()];
                Err(FileErrors(errors.into_iter().flatten().collect()))
            }
        }
    }
}

impl Contents {
    /// Tells contents from each other.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut sum = Sha256::new();
        for part in [
            &self.cert,
            &self.key,
            self.ca.as_ref().unwrap_or(&Vec::new()),
        ] {
            sum.update((part.len() as u64).to_be_bytes());
            sum.update(part);
        }
        sum.finalize().into()
    }

    /// Makes credentials of the contents of `files`, if they will do at that time.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn judge(&self, files: &NodeFiles, now: SystemTime) -> Result<Credentials, FileErrors> {
        let provider = Arc::new(ring::default_provider());
        let mut errors = Vec::new();
        let own = keep(&mut errors, self.own(files, &provider, now));
        let ca = match (&files.ca, &self.ca) {
            (Some(file), Some(bytes)) => keep(&mut errors, authorities(file, bytes, now)),
            _ => None,
        };
        if let (Some(own), Some(ca), Some(file)) = (&own, &ca, &files.ca) {
            errors.extend(fits(files, file, own, ca, &provider, now));
        }
        let Some(own) = own.filter(|_| errors.is_empty()) else {
            return Err(FileErrors(errors));
        };
        self.assemble(files, own, ca, &provider).map_err(|error| {
            FileErrors(vec![files.cert.wrong(error, "issue the certificate anew")])
        })
    }

    fn own(
        &self,
        files: &NodeFiles,
        provider: &CryptoProvider,
        now: SystemTime,
    ) -> Result<Own, Vec<FileError>> {
        let chain = files.cert.certificates(&self.cert);
        let key = files.key.key(&self.key);
        let (chain, key) = match (chain, key) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
        };
        let windows: Result<Vec<Window>, FileError> = chain
            .iter()
            .map(|cert| judge::valid_now(&files.cert, cert, now))
            .collect();
        let windows = windows.map_err(|error| vec![error])?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| {
            vec![match error {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => files.key.wrong(
                    format!(
                        "the key does not belong to the certificate in {}",
                        files.cert.path.display()
                    ),
                    "put both files there as they were issued together",
                ),
                _ => files.key.wrong(
                    "it is no RSA, ECDSA or Ed25519 key that can be used",
                    "make an ECDSA key: `openssl ecparam -genkey -name prime256v1`",
                ),
            }]
        })?;
        let not_after = windows.iter().map(|window| window.not_after).min();
        Ok(Own {
            key: Arc::new(key),
            not_after: not_after.unwrap_or_default(),
        })
    }

    fn assemble(
        &self,
        files: &NodeFiles,
        own: Own,
        ca: Option<Authorities>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Credentials, String> {
        let told = |error: &dyn fmt::Display| error.to_string();
        let resolver = Arc::new(SingleCertAndKey::from(Arc::clone(&own.key)));
        let roots = ca.as_ref().map(|ca| Arc::clone(&ca.roots));
        let server = |clients: Option<&Arc<RootCertStore>>| -> Result<ServerConfig, String> {
            let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
                .with_safe_default_protocol_versions()
                .map_err(|e| told(&e))?;
            let builder = match clients {
                None => builder.with_no_client_auth(),
                Some(roots) => builder.with_client_cert_verifier(
                    WebPkiClientVerifier::builder_with_provider(
                        Arc::clone(roots),
                        Arc::clone(provider),
                    )
                    .build()
                    .map_err(|e| told(&e))?,
                ),
            };
            Ok(builder.with_cert_resolver(Arc::clone(&resolver) as _))
        };
        let client = |roots: &Arc<RootCertStore>| -> Result<ClientConfig, String> {
            Ok(ClientConfig::builder_with_provider(Arc::clone(provider))
                .with_safe_default_protocol_versions()
                .map_err(|e| told(&e))?
                .with_root_certificates(Arc::clone(roots))
                .with_client_cert_resolver(Arc::clone(&resolver) as _))
        };
        let mut api = server(roots.as_ref().filter(|_| files.api_client_certs))?;
        api.alpn_protocols = ALPN_API.map(<[u8]>::to_vec).to_vec();
        let (mut peers, mut api_client) = (None, None);
        if let Some(roots) = &roots {
            let (mut to_us, mut to_them) = (server(Some(roots))?, client(roots)?);
            to_us.alpn_protocols = vec![ALPN_PEERS.to_vec()];
            to_them.alpn_protocols = vec![ALPN_PEERS.to_vec()];
            peers = Some(PeerConfigs {
                server: Arc::new(to_us),
                client: Arc::new(to_them),
            });
            api_client = Some(Arc::new(client(roots)?));
        }
        Ok(Credentials {
            api: Arc::new(api),
            peers,
            api_client,
            portrait: self.portrait(files, &own, ca.as_ref()),
        })
    }

    fn portrait(&self, files: &NodeFiles, own: &Own, ca: Option<&Authorities>) -> Portrait {
        let leaf = own.key.cert.first();
        let mut notices: Vec<String> = self.key_is_open.iter().cloned().collect();
        notices.extend(ca.iter().flat_map(|ca| ca.notices.iter().cloned()));
        if let (Some(leaf), Some(host)) = (leaf, &files.api_host)
            && !judge::names_host(leaf, host)
        {
            notices.push(format!(
                "{} names {}, whose certificate does not name {host}: clients that are sent there will not trust it",
                files.cert.setting,
                files.cert.path.display()
            ));
        }
        Portrait {
            fingerprint: leaf.map(fingerprint).unwrap_or_default(),
            names: leaf.map(judge::dns_names).unwrap_or_default(),
            not_after: own.not_after,
            ca_not_after: ca.map(|ca| ca.not_after),
            notices,
        }
    }
}

/// The node's own certificate and key, belonging together.
struct Own {
    key: Arc<CertifiedKey>,
    not_after: u64,
}

/// The authorities that count.
struct Authorities {
    roots: Arc<RootCertStore>,
    not_after: u64,
    notices: Vec<String>,
}

fn authorities(
    file: &NamedFile,
    bytes: &[u8],
    now: SystemTime,
) -> Result<Authorities, Vec<FileError>> {
    let mut roots = RootCertStore::empty();
    let (mut errors, mut notices, mut not_after) = (Vec::new(), Vec::new(), u64::MAX);
    for cert in file.certificates(bytes).map_err(|error| vec![error])? {
        let window = match judge::readable(file, &cert) {
            Ok(window) => window,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        // rustls would go on trusting it: for it an authority has no end.
        if judge::seconds(now) > window.not_after {
            notices.push(format!(
                "{} names {}, in which the authority {} has expired at {}: it does not count any more",
                file.setting,
                file.path.display(),
                fingerprint(&cert),
                judge::rfc3339(window.not_after)
            ));
            continue;
        }
        not_after = not_after.min(window.not_after);
        if let Err(error) = roots.add(cert) {
            errors.push(file.wrong(
                format!("a certificate in it cannot be an authority: {error}"),
                "put the certificates of the authorities into it, and nothing else",
            ));
        }
    }
    if roots.is_empty() && errors.is_empty() {
        errors.push(file.wrong(
            "every authority in it has expired",
            "put the authority that counts now into it",
        ));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(Authorities {
        roots: Arc::new(roots),
        not_after,
        notices,
    })
}

/// Whether the other nodes, which trust the same authorities, will take this node's certificate.
fn fits(
    files: &NodeFiles,
    ca_file: &NamedFile,
    own: &Own,
    ca: &Authorities,
    provider: &CryptoProvider,
    now: SystemTime,
) -> Vec<FileError> {
    let chain: &[CertificateDer<'_>] = &own.key.cert;
    let mut errors = Vec::new();
    for side in [Side::Server, Side::Client] {
        let judged = judge::trusted(
            &files.cert,
            ca_file,
            chain,
            &ca.roots,
            provider,
            (side, now),
        );
        if let Err(error) = judged
            && !errors.contains(&error)
        {
            errors.push(error);
        }
    }
    if let (Some(host), Some(leaf)) = (&files.peer_host, chain.first())
        && !judge::names_host(leaf, host)
    {
        errors.push(files.cert.wrong(
            format!("the certificate does not name {host}, by which the other nodes know this one"),
            format!("issue it with {host} among its subject alternative names, or correct CONFMAN_PEER_ADVERTISE and CONFMAN_PEERS"),
        ));
    }
    errors
}

fn fingerprint(cert: &CertificateDer<'_>) -> String {
    hex::encode(&Sha256::digest(cert)[..FINGERPRINT_BYTES])
}

/// Takes the errors aside, so that the rest can be judged too.
fn keep<T>(errors: &mut Vec<FileError>, judged: Result<T, Vec<FileError>>) -> Option<T> {
    judged.map_err(|found| errors.extend(found)).ok()
}
