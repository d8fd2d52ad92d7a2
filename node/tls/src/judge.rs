//! Whether a certificate is what a handshake will take: asked of the very code that will judge there.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::error::FileError;
use crate::files::NamedFile;

/// From when until when a certificate counts, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
}

/// Reads when a certificate counts: before the first and after the last moment of time, the judge says what it missed.
fn window(cert: &CertificateDer<'_>) -> Result<Window, webpki::Error> {
    let cert = EndEntityCert::try_from(cert)?;
    let judged_at = |seconds| {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        cert.verify_for_usage(&[], &[], &[], time, KeyUsage::server_auth(), None, None)
            .err()
    };
    let not_before = match judged_at(0) {
        Some(webpki::Error::CertNotValidYet { not_before, .. }) => not_before.as_secs(),
        Some(
            error @ (webpki::Error::BadDer
            | webpki::Error::BadDerTime
            | webpki::Error::InvalidCertValidity),
        ) => {
            return Err(error);
        }
        _ => 0,
    };
    let not_after = match judged_at(u64::MAX) {
        Some(webpki::Error::CertExpired { not_after, .. }) => not_after.as_secs(),
        _ => u64::MAX,
    };
    Ok(Window {
        not_before,
        not_after,
    })
}

/// Seconds since 1970 as RFC 3339; a certificate may name a time that no calendar has.
#[must_use]
pub fn rfc3339(seconds: u64) -> String {
    let time = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(|| "the end of time".to_owned(), |time| time.to_string())
}

pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// When the certificate counts, if it does now.
pub(crate) fn valid_now(
    file: &NamedFile,
    cert: &CertificateDer<'_>,
    now: SystemTime,
) -> Result<Window, FileError> {
    let window = readable(file, cert)?;
    let now = seconds(now);
    if now < window.not_before {
        let why = format!(
            "the certificate counts from {}, and it is {}",
            rfc3339(window.not_before),
            rfc3339(now)
        );
        return Err(file.untimely(why, "wait until then, or set this machine's clock"));
    }
    if now > window.not_after {
        let why = format!(
            "the certificate expired at {}, and it is {}",
            rfc3339(window.not_after),
            rfc3339(now)
        );
        return Err(file.untimely(
            why,
            "have a new one issued and put it there, or set this machine's clock",
        ));
    }
    Ok(window)
}

pub(crate) fn readable(file: &NamedFile, cert: &CertificateDer<'_>) -> Result<Window, FileError> {
    window(cert).map_err(|error| {
        file.wrong(
            format!("the certificate cannot be read: {error:?}"),
            "issue it as X.509 version 3, with subject alternative names",
        )
    })
}

/// What a certificate is shown as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Server,
    Client,
}

/// Whether who trusts `roots` takes this chain.
pub(crate) fn trusted(
    file: &NamedFile,
    ca: &NamedFile,
    chain: &[CertificateDer<'_>],
    roots: &RootCertStore,
    provider: &CryptoProvider,
    (side, now): (Side, SystemTime),
) -> Result<(), FileError> {
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Ok(());
    };
    let leaf = EndEntityCert::try_from(leaf)
        .map_err(|e| file.wrong(format!("the certificate cannot be read: {e:?}"), ""))?;
    let usage = match side {
        Side::Server => KeyUsage::server_auth(),
        Side::Client => KeyUsage::client_auth(),
    };
    let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds(now)));
    let judged = leaf.verify_for_usage(
        provider.signature_verification_algorithms.all,
        &roots.roots,
        intermediates,
        time,
        usage,
        None,
        None,
    );
    let Err(error) = judged else { return Ok(()) };
    let role = match side {
        Side::Server => "serverAuth",
        Side::Client => "clientAuth",
    };
    Err(match error {
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => file.wrong(
            format!(
                "no authority in {} ({}) has signed the certificate",
                ca.path.display(),
                ca.setting
            ),
            "put the authority into that file, and the intermediate certificates behind the node's own in this one",
        ),
        webpki::Error::RequiredEkuNotFoundContext(_) => file.wrong(
            format!("its extended key usage lacks {role}"),
            "nodes are servers and clients of each other: issue it with serverAuth and clientAuth",
        ),
        webpki::Error::CaUsedAsEndEntity => file.wrong(
            "it is the certificate of an authority and not of a node",
            "issue a certificate for the node with that authority",
        ),
        other => file.wrong(
            format!("the others would not take it: {other:?}"),
            "issue it anew",
        ),
    })
}

/// Whether the certificate names that host (a name, or an address) among its subject alternative names.
pub(crate) fn names_host(cert: &CertificateDer<'_>, host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let Ok(name) = ServerName::try_from(bare) else {
        return false;
    };
    EndEntityCert::try_from(cert)
        .is_ok_and(|cert| cert.verify_is_valid_for_subject_name(&name).is_ok())
}

/// The DNS names in it.
pub(crate) fn dns_names(cert: &CertificateDer<'_>) -> Vec<String> {
    EndEntityCert::try_from(cert)
        .map(|cert| cert.valid_dns_names().map(str::to_owned).collect())
        .unwrap_or_default()
}
