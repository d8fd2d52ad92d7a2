//! What a failed handshake means: whether anything was sent, and what to do.

use std::error::Error;
use std::io;

/// What hyper says when the connection ended before it had written anything of the request.
const NOT_WRITTEN: &str = "connection was not ready";

/// Whether the request was surely not carried out: the node ended the handshake with an alert. With TLS 1.3 that comes when
/// the client believes that all is done and has sent its request, of which the node has read nothing.
pub(crate) fn never_read(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.to_string().ends_with(NOT_WRITTEN) {
            return true;
        }
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        let tls = error
            .downcast_ref::<rustls::Error>()
            .or_else(|| inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()));
        if let Some(rustls::Error::AlertReceived(alert)) = tls {
            use rustls::AlertDescription as A;
            return matches!(
                alert,
                A::CertificateRequired
                    | A::BadCertificate
                    | A::UnknownCA
                    | A::CertificateExpired
                    | A::CertificateUnknown
                    | A::UnsupportedCertificate
                    | A::NoCertificate
                    | A::AccessDenied
            );
        }
        cause = error.source();
    }
    false
}

/// What the user can do about an error whose text tells of a handshake.
pub(crate) fn hint(text: &str) -> Option<&'static str> {
    let hints = [
        (
            "CertificateRequired",
            "the nodes want to see a certificate: set CONFMAN_TLS_CLIENT_CERT_FILE and CONFMAN_TLS_CLIENT_KEY_FILE",
        ),
        (
            "received fatal alert: HandshakeFailure",
            "the nodes want to see a certificate, or speak no TLS that is known here: set CONFMAN_TLS_CLIENT_CERT_FILE and CONFMAN_TLS_CLIENT_KEY_FILE",
        ),
        (
            "received fatal alert",
            "the nodes do not take this client's certificate: CONFMAN_TLS_CLIENT_CERT_FILE must be of an authority that they trust",
        ),
        (
            "UnknownIssuer",
            "set CONFMAN_TLS_CLIENT_CA_FILE to the authority of the nodes' certificates",
        ),
        (
            "certificate not valid for name",
            "use a host in the URL that the node's certificate bears, or issue it with that host among its subject alternative names",
        ),
        (
            "certificate expired",
            "renew the nodes' certificates (`drtool runbook rotate-keys`), or set this machine's clock",
        ),
        (
            "corrupt message of type InvalidContentType",
            "the node does not speak TLS: use http:// in the URL",
        ),
    ];
    let found = hints.iter().find(|(mark, _)| text.contains(mark));
    found.map(|(_, hint)| *hint)
}
