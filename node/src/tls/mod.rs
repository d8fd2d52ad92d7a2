//! TLS of a node: for its API, and between nodes.
//!
//! - [`Tls`] holds the credentials in force; [`watch`] replaces them when the files change;
//! - [`door`] lets connections in: it looks at the first byte, shakes hands within bounds, and says why not;
//! - [`connect`] goes out to other nodes, and says what is in the way;
//! - `crate::grumble` keeps what repeats from filling the log.
//!
//! Promises
//! - without a certificate of the authority no byte of a peer is read as a message;
//! - handshakes are bounded in time and number; the oldest gives way, so that those who say nothing keep nobody out (I19);
//! - new files are in force for every handshake that begins after they were read; files that will not do change nothing,
//!   and are told;
//! - who speaks TLS to a node that does not, or the other way round, reads so in its log, and so does the node.
//!
//! Does not: end connections that were made under older files; judge certificates (`confman-tls` does).

pub mod connect;
pub mod door;
pub(crate) mod watch;

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use confman_config::{ClientCertificates, Settings, catalog};
use confman_tls::{Credentials, FileErrors, NamedFile, NodeFiles};

/// The credentials in force. New handshakes use those of their moment.
#[derive(Debug)]
pub struct Tls {
    files: NodeFiles,
    current: ArcSwap<Credentials>,
    digest: parking_lot::Mutex<[u8; 32]>,
}

impl Tls {
    /// Reads and judges the files.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn load(files: NodeFiles, now: SystemTime) -> Result<Arc<Self>, FileErrors> {
        let contents = files.read()?;
        let credentials = contents.judge(&files, now)?;
        Ok(Arc::new(Self {
            files,
            current: ArcSwap::from_pointee(credentials),
            digest: parking_lot::Mutex::new(contents.digest()),
        }))
    }

    /// The credentials of this moment.
    #[must_use]
    pub fn current(&self) -> Arc<Credentials> {
        self.current.load_full()
    }

    /// Whether peers speak TLS: only where there is an authority to know them by.
    pub(crate) fn peers_too(&self) -> bool {
        self.files.ca.is_some()
    }
}

/// The files that a node's settings name; none when it speaks in the clear.
#[must_use]
pub fn files_of(settings: &Settings) -> Option<NodeFiles> {
    let tls = settings.tls.as_ref()?;
    // The colons of an IPv6 address are in brackets.
    let host = |address: &str| match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => Some(host.to_owned()),
        _ => None,
    };
    let url = settings
        .api_advertise
        .split_once("://")
        .map(|(_, rest)| rest);
    Some(NodeFiles {
        cert: NamedFile::new(catalog::TLS_CERT_FILE.name, &tls.cert_file),
        key: NamedFile::new(catalog::TLS_KEY_FILE.name, &tls.key_file),
        ca: tls
            .ca_file
            .as_ref()
            .map(|path| NamedFile::new(catalog::TLS_CA_FILE.name, path)),
        api_client_certs: tls.api_client_certs == ClientCertificates::Required,
        // A cluster of one has no peers that could mind.
        peer_host: host(&settings.peer_advertise).filter(|_| settings.peers.len() > 1),
        // Without a port it is https's own.
        api_host: url.map(|rest| {
            host(rest)
                .filter(|h| !h.is_empty())
                .unwrap_or_else(|| rest.to_owned())
        }),
    })
}

/// What a node's settings make of TLS.
///
/// # Errors
/// All that is wrong with the files.
pub fn load(settings: &Settings) -> Result<Option<Arc<Tls>>, FileErrors> {
    files_of(settings)
        .map(|files| Tls::load(files, SystemTime::now()))
        .transpose()
}

/// Judges the files with which a node's settings have the object store spoken to. A certificate that does not count at this time is no
/// reason not to start: everything but the store goes on without it (I18), and a new one is taken when it is there.
///
/// # Errors
/// All that is wrong with them.
pub fn check_store(settings: &Settings, now: SystemTime) -> Result<(), FileErrors> {
    if !settings.snapshot.enabled {
        return Ok(());
    }
    match confman_snapshot::repository::store_files(&settings.store_tls).load(now) {
        Err(errors) if !errors.only_by_time() => Err(errors),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
