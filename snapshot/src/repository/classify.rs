//! Their errors, sorted by what to do about them.

use std::error::Error as StdError;
use std::io::ErrorKind;

use object_store::client::{HttpError, HttpErrorKind};

use crate::error::Kind;

pub(super) const HINT_UNREACHABLE: &str =
    "check that the store runs and can be reached from here; everything else goes on without it";
const HINT_CREDENTIALS: &str = "check the store's credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or the like) and \
     what they may do: get, put, list and delete";
const HINT_NO_CREDENTIALS: &str = "no credentials are set, and the machine's metadata service, the last place to ask for them, gave none: \
     set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (GOOGLE_*, AZURE_* for the others)";
/// Where the metadata services of the clouds are asked for credentials when nothing else gives any.
const METADATA_SERVICES: [&str; 4] = [
    "169.254.169.254",
    "169.254.170.2",
    "fd00:ec2::254",
    "metadata.google.internal",
];
const HINT_CLOCK: &str =
    "set this machine's clock: the store refuses requests that are minutes off";
const HINT_BUCKET: &str = "make the bucket, or correct CONFMAN_OBJECT_STORE_URL";
const HINT_REGION: &str =
    "set AWS_REGION to the bucket's region, or AWS_ENDPOINT_URL to its server";
const HINT_DISK: &str = "free space, or allow access, where the store keeps its objects";
/// Also the mark of errors after which the authorities are read again.
pub(super) const HINT_CERTIFICATE: &str = "the store's certificate is not trusted here: name its authority's file in CONFMAN_TLS_STORE_CA_FILE (or, for s3, AWS_CA_BUNDLE), use the host \
     that the certificate bears in the endpoint (AWS_ENDPOINT_URL or the like), or have it renewed";
/// Also such a mark.
pub(super) const HINT_SHOWN: &str = "the store wants a certificate of its clients, or does not take the one that it was shown: name one of an authority that it trusts, \
     and its key, in CONFMAN_TLS_STORE_CERT_FILE and CONFMAN_TLS_STORE_KEY_FILE";
/// What a server ends a handshake with that does not take a client's certificate, or the lack of one; OpenSSL says the last of them below TLS 1.3.
const ALERTS: [&str; 9] = [
    "CertificateRequired",
    "BadCertificate",
    "UnsupportedCertificate",
    "CertificateRevoked",
    "CertificateExpired",
    "CertificateUnknown",
    "UnknownCA",
    "AccessDenied",
    "HandshakeFailure",
];
/// Longest text of an error that is passed on; a proxy may answer with a page.
const TEXT_BYTES_MAX: usize = 600;

/// The kind of an error, and what to do next.
pub(super) fn classify(error: &object_store::Error) -> (Kind, &'static str) {
    use object_store::Error as E;
    if asks_metadata(error) {
        return (Kind::Credentials, HINT_NO_CREDENTIALS);
    }
    let text = error.to_string();
    // What these servers answer stands in the body, whatever the status.
    if text.contains("NoSuchBucket") || text.contains("ContainerNotFound") {
        return (Kind::Configuration, HINT_BUCKET);
    }
    if text.contains("RequestTimeTooSkewed") {
        return (Kind::Credentials, HINT_CLOCK);
    }
    if [
        "ExpiredToken",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "InvalidToken",
    ]
    .iter()
    .any(|c| text.contains(c))
    {
        return (Kind::Credentials, HINT_CREDENTIALS);
    }
    // A 400 all the same: what was sent did not arrive whole, or not in time.
    if ["RequestTimeout", "BadDigest", "IncompleteBody"]
        .iter()
        .any(|c| text.contains(c))
    {
        return (Kind::Retry, "");
    }
    if [
        "PermanentRedirect",
        "AuthorizationHeaderMalformed",
        "without LOCATION",
    ]
    .iter()
    .any(|c| text.contains(c))
    {
        return (Kind::Configuration, HINT_REGION);
    }
    match error {
        E::NotFound { .. } => (Kind::NotFound, ""),
        E::AlreadyExists { .. } | E::Precondition { .. } | E::NotModified { .. } => {
            (Kind::Conflict, "")
        }
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
            (Kind::Credentials, HINT_CREDENTIALS)
        }
        E::InvalidPath { .. } => (Kind::Bug, ""),
        E::NotSupported { .. } | E::NotImplemented { .. } | E::UnknownConfigurationKey { .. } => {
            (Kind::Configuration, "")
        }
        E::JoinError { .. } => (Kind::Bug, ""),
        _ => generic(error, &text),
    }
}

fn generic(error: &object_store::Error, text: &str) -> (Kind, &'static str) {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(http) = current.downcast_ref::<HttpError>() {
            if says_certificate(http) {
                return (Kind::Configuration, HINT_CERTIFICATE);
            }
            if says_alert(http) {
                return (Kind::Configuration, HINT_SHOWN);
            }
            return match http.kind() {
                HttpErrorKind::Connect | HttpErrorKind::Timeout => (Kind::Wait, HINT_UNREACHABLE),
                _ => (Kind::Retry, ""),
            };
        }
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            return match io.kind() {
                ErrorKind::NotFound => (Kind::NotFound, ""),
                ErrorKind::PermissionDenied
                | ErrorKind::StorageFull
                | ErrorKind::QuotaExceeded
                | ErrorKind::ReadOnlyFilesystem => (Kind::Configuration, HINT_DISK),
                ErrorKind::UnexpectedEof => (Kind::Damaged, ""),
                _ => (Kind::Retry, ""),
            };
        }
        cause = current.source();
    }
    match status(text) {
        // Beyond the end of the object: it is shorter than what was written.
        Some(416) => (Kind::Damaged, ""),
        // What a server does not have now it will not have at the next try.
        Some(501) => (Kind::Configuration, ""),
        Some(507) => (Kind::Configuration, HINT_DISK),
        Some(301 | 302 | 307 | 308) => (Kind::Configuration, HINT_REGION),
        Some(400..=407 | 410..=428 | 430..=499) => (Kind::Configuration, ""),
        _ if text.contains("Out of range") || text.contains("beyond the end") => {
            (Kind::Damaged, "")
        }
        _ => (Kind::Retry, ""),
    }
}

/// Whether it was not the store that failed, but where its client looks for credentials.
fn asks_metadata(error: &object_store::Error) -> bool {
    let text = text(error);
    METADATA_SERVICES.iter().any(|service| {
        text.contains(&format!("://{service}/")) || text.contains(&format!("://[{service}]/"))
    })
}

/// Whether the handshake failed by the store's certificate: that does not pass by itself.
fn says_certificate(error: &dyn StdError) -> bool {
    says(error, |text| text.contains("invalid peer certificate"))
}

/// Whether it failed by ours.
fn says_alert(error: &dyn StdError) -> bool {
    says(error, |text| {
        let alert = text
            .split_once("received fatal alert: ")
            .map(|(_, alert)| alert);
        alert.is_some_and(|alert| ALERTS.iter().any(|known| alert.starts_with(known)))
    })
}

fn says(error: &dyn StdError, what: impl Fn(&str) -> bool) -> bool {
    let mut cause: Option<&dyn StdError> = Some(error);
    while let Some(current) = cause {
        if what(&current.to_string()) {
            return true;
        }
        cause = current.source();
    }
    false
}

/// The HTTP status in an error's text: the type that holds it is not public.
pub(super) fn status(text: &str) -> Option<u16> {
    let (_, after) = text.split_once("status code: ")?;
    after.get(..3)?.parse().ok()
}

/// What an error says, on one line and not for ever.
pub(super) fn text(error: &object_store::Error) -> String {
    let mut text: String = error
        .to_string()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    // What the system said stands at the end of the chain and not always in the head's text.
    let mut cause = error.source();
    let mut last = None;
    while let Some(current) = cause {
        last = Some(current.to_string());
        cause = current.source();
    }
    if let Some(last) = last.filter(|last| !text.contains(last.as_str())) {
        text = format!("{text}: {last}");
    }
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX)
            .rev()
            .find(|i| text.is_char_boundary(*i))
            .unwrap_or(0);
        text.truncate(end);
        text.push_str(" ...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic_error(text: &str) -> object_store::Error {
        object_store::Error::Generic {
            store: "S3",
            source: text.to_owned().into(),
        }
    }

    #[test]
    fn errors_are_sorted_by_remedy() {
        let cases = [
            (
                "Server returned non-2xx status code: 503 Service Unavailable: SlowDown",
                Kind::Retry,
            ),
            (
                "Server returned non-2xx status code: 429 Too Many Requests",
                Kind::Retry,
            ),
            (
                "Server returned non-2xx status code: 500 Internal Server Error",
                Kind::Retry,
            ),
            (
                "Server returned non-2xx status code: 400 Bad Request: <Code>ExpiredToken</Code>",
                Kind::Credentials,
            ),
            (
                "Server returned non-2xx status code: 400 Bad Request: <Code>RequestTimeout</Code>",
                Kind::Retry,
            ),
            (
                "Server returned non-2xx status code: 403: <Code>RequestTimeTooSkewed</Code>",
                Kind::Credentials,
            ),
            (
                "Server returned non-2xx status code: 404: <Code>NoSuchBucket</Code>",
                Kind::Configuration,
            ),
            (
                "Server returned non-2xx status code: 301: <Code>PermanentRedirect</Code>",
                Kind::Configuration,
            ),
            (
                "Server returned non-2xx status code: 416 Range Not Satisfiable: InvalidRange",
                Kind::Damaged,
            ),
            (
                "Server returned non-2xx status code: 507 Insufficient Storage",
                Kind::Configuration,
            ),
            (
                "Server returned non-2xx status code: 400 Bad Request: EntityTooLarge",
                Kind::Configuration,
            ),
            (
                "Server returned non-2xx status code: 501 Not Implemented: NotImplemented",
                Kind::Configuration,
            ),
            ("something nobody has seen before", Kind::Retry),
        ];
        for (text, kind) in cases {
            assert_eq!(classify(&generic_error(text)).0, kind, "{text}");
        }
        let connect = HttpError::new(HttpErrorKind::Connect, std::io::Error::other("refused"));
        let error = object_store::Error::Generic {
            store: "S3",
            source: Box::new(connect),
        };
        assert_eq!(classify(&error).0, Kind::Wait);
    }

    #[test]
    fn nobody_is_sent_to_look_for_a_store_that_was_never_asked() {
        let asked = |url: &str| {
            let text = format!("error sending request for url ({url})");
            let source = HttpError::new(HttpErrorKind::Connect, std::io::Error::other(text));
            let error = object_store::Error::Generic {
                store: "S3",
                source: Box::new(source),
            };
            classify(&error)
        };
        let metadata = "http://169.254.169.254/latest/api/token";
        assert_eq!(asked(metadata), (Kind::Credentials, HINT_NO_CREDENTIALS));
        let store = "http://10.0.0.9:9000/bucket";
        assert_eq!(asked(store), (Kind::Wait, HINT_UNREACHABLE));
    }

    #[test]
    fn x17_text_of_a_server_has_no_control_characters_and_an_end() {
        let hostile = format!("\x1b[31mred\nline {}", "x".repeat(10_000));
        let text = text(&generic_error(&hostile));
        assert!(
            text.len() < 700 && !text.contains(|c: char| c.is_control()),
            "{text}"
        );
    }
}
