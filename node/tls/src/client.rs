//! Whom a client trusts, and what it shows.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

use crate::error::{FileError, FileErrors};
use crate::files::NamedFile;
use crate::judge;

/// The files of a client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// The only authorities that are trusted; the system's without it.
    pub ca: Option<NamedFile>,
    /// The client's certificate and its key.
    pub identity: Option<(NamedFile, NamedFile)>,
}

/// What a client speaks TLS with. The default trusts whom the system trusts, and shows nothing.
#[derive(Clone, Default)]
pub struct ClientTls {
    roots: Option<Arc<[CertificateDer<'static>]>>,
    /// Certificate and key as one PEM.
    identity: Option<Arc<[u8]>>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls")
            .field("own_roots", &self.roots.is_some())
            .field("shows_certificate", &self.identity.is_some())
            .finish()
    }
}

impl ClientFiles {
    /// Reads and judges them.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn load(&self, now: SystemTime) -> Result<ClientTls, FileErrors> {
        let mut errors = Vec::new();
        let mut tls = ClientTls::default();
        if let Some(file) = &self.ca {
            match file.read().and_then(|bytes| file.certificates(&bytes)) {
                Ok(roots) => tls.roots = Some(roots.into()),
                Err(error) => errors.push(error),
            }
        }
        if let Some((cert, key)) = &self.identity {
            match identity(cert, key, now) {
                Ok(pem) => tls.identity = Some(pem.into()),
                Err(found) => errors.extend(found),
            }
        }
        if errors.is_empty() {
            Ok(tls)
        } else {
            Err(FileErrors(errors))
        }
    }
}

impl ClientTls {
    /// The only authorities that are trusted; the system's when there are none.
    #[must_use]
    pub fn roots(&self) -> Option<&[CertificateDer<'static>]> {
        self.roots.as_deref()
    }

    /// The certificate that is shown, and its key, as one PEM.
    #[must_use]
    pub fn identity_pem(&self) -> Option<&[u8]> {
        self.identity.as_deref()
    }
}

fn identity(cert: &NamedFile, key: &NamedFile, now: SystemTime) -> Result<Vec<u8>, Vec<FileError>> {
    let (cert_pem, key_pem) = match (cert.read(), key.read()) {
        (Ok(cert), Ok(key)) => (cert, key),
        (cert, key) => return Err(cert.err().into_iter().chain(key.err()).collect()),
    };
    let (chain, parsed) = match (cert.certificates(&cert_pem), key.key(&key_pem)) {
        (Ok(chain), Ok(parsed)) => (chain, parsed),
        (chain, parsed) => return Err(chain.err().into_iter().chain(parsed.err()).collect()),
    };
    if let Some(leaf) = chain.first() {
        judge::valid_now(cert, leaf, now).map_err(|error| vec![error])?;
    }
    CertifiedKey::from_der(chain, parsed, &ring::default_provider()).map_err(|_| {
        vec![key.wrong(
            format!("the key does not belong to the certificate in {}, or is of no kind that can be used", cert.path.display()),
            "put both files there as they were issued together",
        )]
    })?;
    Ok([&cert_pem[..], b"\n", &key_pem[..]].concat())
}
