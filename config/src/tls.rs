//! TLS: which files a node and a client use, and what must hold between the settings that name them.
//!
//! Only the settings are judged here. What is in the files is judged where they are read (`confman-tls`).

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::catalog::{self as declared, Setting};
use crate::kinds::FilePath;
use crate::reader::Reader;
use crate::rules::together;
use crate::settings::Peer;

/// Where a node's certificate, key and authority are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// The node's certificate and its intermediates, PEM.
    pub cert_file: PathBuf,
    /// The private key of that certificate, PEM.
    pub key_file: PathBuf,
    /// The authorities whose certificates count, PEM; none only where nobody shows one to this node.
    pub ca_file: Option<PathBuf>,
    /// Whether clients of the API show a certificate too.
    pub api_client_certs: ClientCertificates,
}

/// Whether clients of the API show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked for one.
    None,
    /// Who shows none of the authority is not let in.
    Required,
}

/// Whom a client trusts, and what it shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientTlsSettings {
    /// Authorities that count, PEM. For the API no others do, the system's only without it; for the store they are beside the system's.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate and its key, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// The TLS settings of a node as they were read, some of them perhaps missing.
pub(crate) struct Given {
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
    clients: Option<ClientCertificates>,
}

impl Given {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            cert: reader.read(&declared::TLS_CERT_FILE),
            key: reader.read(&declared::TLS_KEY_FILE),
            ca: reader.read(&declared::TLS_CA_FILE),
            clients: reader.read(&declared::TLS_API_CLIENT_CERTS),
        }
    }

    /// Whether the API speaks https, or is meant to.
    pub(crate) fn is_wanted(&self) -> bool {
        self.cert.is_some()
    }

    /// What must hold between these settings and those that say where the node is.
    pub(crate) fn check(
        &self,
        reader: &mut Reader<'_>,
        api_advertise: Option<&str>,
        peer_listen: Option<SocketAddr>,
        peers: &[Peer],
    ) {
        let ca = declared::TLS_CA_FILE.name;
        pair(reader, &declared::TLS_CERT_FILE, &declared::TLS_KEY_FILE);
        // One that is given and wrong has its own error.
        let given = reader.is_given(&declared::TLS_CERT_FILE);
        if !given && !reader.is_given(&declared::TLS_KEY_FILE) {
            self.check_without_certificate(reader);
        } else if !reader.is_given(&declared::TLS_CA_FILE) {
            self.check_without_authority(reader, peer_listen, peers);
        }
        if let Some(url) = api_advertise
            && given == self.is_wanted()
        {
            scheme(reader, url, given);
        }
        let required = self.clients == Some(ClientCertificates::Required);
        if required && given && !reader.is_given(&declared::TLS_CA_FILE) {
            let clients = declared::TLS_API_CLIENT_CERTS.name;
            reader.refuse(together(
                &[clients, ca],
                format!("{clients} is required and {ca} is not set: no client's certificate could be judged"),
                format!("set {ca} to the authority that signs the clients' certificates, or unset {clients}"),
            ));
        }
    }

    fn check_without_certificate(&self, reader: &mut Reader<'_>) {
        let (cert, key) = (declared::TLS_CERT_FILE.name, declared::TLS_KEY_FILE.name);
        let required = self.clients == Some(ClientCertificates::Required);
        for (name, idle) in [
            (declared::TLS_CA_FILE.name, self.ca.is_some()),
            (declared::TLS_API_CLIENT_CERTS.name, required),
        ] {
            if idle {
                reader.refuse(together(
                    &[name, cert],
                    format!("{name} is set and {cert} is not: without a certificate of its own the node speaks no TLS"),
                    format!("set {cert} and {key}, or unset {name}"),
                ));
            }
        }
    }

    fn check_without_authority(
        &self,
        reader: &mut Reader<'_>,
        peer_listen: Option<SocketAddr>,
        peers: &[Peer],
    ) {
        let (cert, ca) = (declared::TLS_CERT_FILE.name, declared::TLS_CA_FILE.name);
        let hint = format!("set {ca} to the authority that signs the certificates of all nodes");
        if peers.len() > 1 {
            let peers_name = declared::PEERS.name;
            reader.refuse(together(
                &[ca, peers_name],
                format!(
                    "{cert} is set, {peers_name} lists {} nodes and {ca} is not set: nodes show each other certificates of one authority",
                    peers.len()
                ),
                hint,
            ));
        } else if let Some(listen) = peer_listen
            && !listen.ip().is_loopback()
        {
            let listen_name = declared::PEER_LISTEN.name;
            reader.refuse(together(
                &[ca, listen_name],
                format!("{cert} is set, {listen_name} is {listen} and {ca} is not set: without it peers connect in the clear, over loopback only"),
                format!("{hint}, or listen on 127.0.0.1"),
            ));
        }
    }

    /// The settings of a node that speaks TLS.
    pub(crate) fn settings(self) -> Option<TlsSettings> {
        Some(TlsSettings {
            cert_file: self.cert?,
            key_file: self.key?,
            ca_file: self.ca,
            api_client_certs: self.clients?,
        })
    }
}

impl ClientTlsSettings {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Self {
        let ca_file = reader.read(&declared::TLS_CLIENT_CA_FILE);
        let cert = reader.read(&declared::TLS_CLIENT_CERT_FILE);
        let key = reader.read(&declared::TLS_CLIENT_KEY_FILE);
        pair(
            reader,
            &declared::TLS_CLIENT_CERT_FILE,
            &declared::TLS_CLIENT_KEY_FILE,
        );
        Self {
            ca_file,
            identity: cert.zip(key),
        }
    }

    /// What the object store is spoken to with.
    pub(crate) fn read_for_store(reader: &mut Reader<'_>) -> Self {
        let ca_file = reader.read(&declared::TLS_STORE_CA_FILE);
        let cert = reader.read(&declared::TLS_STORE_CERT_FILE);
        let key = reader.read(&declared::TLS_STORE_KEY_FILE);
        pair(
            reader,
            &declared::TLS_STORE_CERT_FILE,
            &declared::TLS_STORE_KEY_FILE,
        );
        Self {
            ca_file,
            identity: cert.zip(key),
        }
    }

    /// Whether any file is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ca_file.is_none() && self.identity.is_none()
    }

    /// Refuses what has no effect: a store that is a folder or memory shows no certificate and asks for none.
    pub(crate) fn check_store(&self, reader: &mut Reader<'_>, url: Option<&str>) {
        let Some(url) = url.filter(|url| url.starts_with("file:") || url.starts_with("memory:"))
        else {
            return;
        };
        let (store, ca, cert) = (
            declared::OBJECT_STORE_URL.name,
            declared::TLS_STORE_CA_FILE.name,
            declared::TLS_STORE_CERT_FILE.name,
        );
        for (name, idle) in [
            (ca, self.ca_file.is_some()),
            (cert, self.identity.is_some()),
        ] {
            if idle {
                reader.refuse(together(
                    &[name, store],
                    format!(
                        "{name} is set and {store} is {url}: there is no connection to speak TLS on"
                    ),
                    format!("set {store} to the store that is meant, or unset {name}"),
                ));
            }
        }
    }
}

/// A certificate is of no use without its key, nor the key without the certificate.
fn pair(reader: &mut Reader<'_>, cert: &Setting<FilePath>, key: &Setting<FilePath>) {
    let (set, missing) = match (reader.is_given(cert), reader.is_given(key)) {
        (true, false) => (cert.name, key.name),
        (false, true) => (key.name, cert.name),
        _ => return,
    };
    reader.refuse(together(
        &[set, missing],
        format!("{set} is set and {missing} is not: a certificate and its key go together"),
        format!("set {missing} too, or unset {set}"),
    ));
}

/// Clients are sent to a URL that the node answers.
fn scheme(reader: &mut Reader<'_>, url: &str, tls: bool) {
    let (name, cert) = (declared::API_ADVERTISE.name, declared::TLS_CERT_FILE.name);
    let (is_https, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return,
    };
    if is_https == tls {
        return;
    }
    let (why, hint) = if tls {
        (
            format!("{name} is {url} and {cert} is set: the API speaks https only"),
            format!("set {name} to https://{rest}"),
        )
    } else {
        (
            format!("{name} is {url} and {cert} is not set: the API speaks http only"),
            format!(
                "set {cert} and {}, or set {name} to http://{rest}",
                declared::TLS_KEY_FILE.name
            ),
        )
    };
    reader.refuse(together(&[name, cert], why, hint));
}
