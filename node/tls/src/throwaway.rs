//! Authorities and certificates made on the spot, for clusters that nobody will miss: `confman dev --tls`, `confman cert init`, and
//! tests.
//!
//! The keys are as good as any. What makes them throw-away is that the authority is nobody's: its key is forgotten, or lies in a test.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

/// How long before now a certificate begins to count: the clocks of other machines may be behind.
const BEFORE: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// It could not be made; the only thing that the user of it can have got wrong is a name.
#[derive(Debug, thiserror::Error)]
#[error("make a certificate: {0}")]
pub struct MakeError(#[from] rcgen::Error);

/// An authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate to be; see [`Authority::issue`].
#[derive(Debug, Clone)]
pub struct Order<'a> {
    /// DNS names and IP addresses.
    pub names: &'a [&'a str],
    /// From when it counts.
    pub from: SystemTime,
    /// Until when.
    pub until: SystemTime,
    /// Whether it may be shown by a server.
    pub server: bool,
    /// Whether it may be shown by a client.
    pub client: bool,
}

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub cert: String,
    /// The private key.
    pub key: String,
}

impl<'a> Order<'a> {
    /// A node's, for these names, that counts for `days` from now.
    #[must_use]
    pub fn node(names: &'a [&'a str], now: SystemTime, days: u32) -> Self {
        Self {
            names,
            from: now - BEFORE,
            until: now + DAY * days,
            server: true,
            client: true,
        }
    }
}

impl Authority {
    /// A new one, with a key of its own, that counts for `days` from now.
    ///
    /// # Errors
    /// The key cannot be made.
    pub fn new(name: &str, now: SystemTime, days: u32) -> Result<Self, MakeError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = (now - BEFORE).into();
        params.not_after = (now + DAY * days).into();
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self { issuer })
    }

    /// Its certificate, PEM: what goes into `CONFMAN_TLS_CA_FILE`.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Issues a certificate.
    ///
    /// # Errors
    /// A name is none.
    pub fn issue(&self, order: &Order<'_>) -> Result<Issued, MakeError> {
        let names: Vec<String> = order.names.iter().map(|name| (*name).to_owned()).collect();
        let first = names.first().cloned().unwrap_or_default();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, first);
        params.not_before = order.from.into();
        params.not_after = order.until.into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if order.server {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        if order.client {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            cert: cert.pem(),
            key: key.serialize_pem(),
        })
    }
}
