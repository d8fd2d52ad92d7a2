//! Which variables of the object store are in force.
//!
//! They are not ours: the store reads them, and silently ignores a name it does not know. So they are
//! listed, and the ones that S3 ignores are said to be ignored.

use std::ffi::OsString;

use serde::Serialize;

use crate::errors::printable;
use crate::kinds::NOT_SHOWN;

/// A variable meant for the object store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreVariable {
    /// Its name.
    pub name: String,
    /// Its value where it is known to be no secret, else that it is set.
    pub value: String,
    /// Whether the store takes notice of it.
    pub used: bool,
}

/// Prefixes of the three kinds of store.
const PREFIXES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

/// The store reads these names after `AWS_` (`object_store` 0.14, `AmazonS3ConfigKey` and
/// `ClientConfigKey`), and `CA_BUNDLE`, which confman-snapshot reads for it; `true` where the value is no secret. One that is missing here is only listed as not used.
const AWS: [(&str, bool); 49] = [
    ("ACCESS_KEY_ID", true),
    ("SECRET_ACCESS_KEY", false),
    ("SESSION_TOKEN", false),
    ("TOKEN", false),
    ("REGION", true),
    ("DEFAULT_REGION", true),
    ("BUCKET", true),
    ("BUCKET_NAME", true),
    ("ENDPOINT", true),
    ("ENDPOINT_URL", true),
    ("ENDPOINT_URL_S3", true),
    ("ENDPOINT_URL_STS", true),
    ("VIRTUAL_HOSTED_STYLE_REQUEST", true),
    ("S3_EXPRESS", true),
    ("IMDSV1_FALLBACK", true),
    ("METADATA_ENDPOINT", true),
    ("UNSIGNED_PAYLOAD", true),
    ("CA_BUNDLE", true),
    ("CHECKSUM_ALGORITHM", true),
    ("CONTAINER_CREDENTIALS_RELATIVE_URI", true),
    ("CONTAINER_CREDENTIALS_FULL_URI", true),
    ("CONTAINER_AUTHORIZATION_TOKEN_FILE", true),
    ("WEB_IDENTITY_TOKEN_FILE", true),
    ("ROLE_ARN", true),
    ("ROLE_SESSION_NAME", true),
    ("SKIP_SIGNATURE", true),
    ("COPY_IF_NOT_EXISTS", true),
    ("CONDITIONAL_PUT", true),
    ("DISABLE_TAGGING", true),
    ("DISABLE_BULK_DELETE", true),
    ("REQUEST_PAYER", true),
    ("SERVER_SIDE_ENCRYPTION", true),
    ("SSE_KMS_KEY_ID", true),
    ("SSE_BUCKET_KEY_ENABLED", true),
    ("SSE_CUSTOMER_KEY_BASE64", false),
    ("ALLOW_HTTP", true),
    ("ALLOW_INVALID_CERTIFICATES", true),
    ("DISABLE_SYSTEM_CERTIFICATES", true),
    ("CONNECT_TIMEOUT", true),
    ("DEFAULT_CONTENT_TYPE", true),
    ("HTTP1_ONLY", true),
    ("HTTP2_ONLY", true),
    ("POOL_IDLE_TIMEOUT", true),
    ("POOL_MAX_IDLE_PER_HOST", true),
    ("PROXY_URL", true),
    ("PROXY_CA_CERTIFICATE", true),
    ("RANDOMIZE_ADDRESSES", true),
    ("TIMEOUT", true),
    ("USER_AGENT", true),
];

/// Values of the other two kinds of store that are no secret.
const OTHERS_SHOWN: [&str; 8] = [
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_TENANT_ID",
    "AZURE_CLIENT_ID",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_FEDERATED_TOKEN_FILE",
];

/// The variables of the object store in `env`, by name. A value is shown only where it is known to be no secret.
#[must_use]
pub fn store_environment(
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Vec<StoreVariable> {
    let mut found: Vec<StoreVariable> = env
        .into_iter()
        .filter_map(|(name, value)| {
            let name = name.to_string_lossy().into_owned();
            PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix))
                .then(|| describe(name, &value))
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn describe(name: String, value: &OsString) -> StoreVariable {
    let (used, plain) = match name.strip_prefix("AWS_") {
        Some(rest) => AWS
            .iter()
            .find(|(known, _)| *known == rest)
            .map_or((false, false), |(_, plain)| (true, *plain)),
        None => (true, OTHERS_SHOWN.contains(&name.as_str())),
    };
    let value = match value.to_str() {
        // A URL may carry a password even here.
        Some(text) if plain && !text.contains('@') => printable(text),
        // The store passes over what is not text.
        None => {
            return StoreVariable {
                name: printable(&name),
                value: NOT_SHOWN.to_owned(),
                used: false,
            };
        }
        Some(_) => NOT_SHOWN.to_owned(),
    };
    StoreVariable {
        name: printable(&name),
        value,
        used,
    }
}
