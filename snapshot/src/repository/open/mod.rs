//! From a URL and the environment to a store.

mod altered;
mod local;
mod tls;

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{HttpConnector, ReqwestConnector};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, ClientConfigKey, ClientOptions, RetryConfig};
use url::Url;

use self::altered::AlteringConnector;
use self::local::{file, memory};
pub use self::tls::store_files;
use self::tls::{CA_BUNDLE, LoopbackConnector, StoreTls};
use super::call::StoreSlot;
use super::settings::{Chosen, choose};
use super::{Repository, RepositoryOptions, classify};
use crate::error::{Kind, StoreError};

const DATA: &str = "{data}";
const EXPECTED: &str = "expected file:///folder, file://{data}/folder, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or \
     memory://name";
/// Variables that name an endpoint, the first of which counts.
const ENDPOINTS_S3: [&str; 3] = ["aws_endpoint_url_s3", "aws_endpoint_url", "aws_endpoint"];
const ENDPOINTS_GCS: [&str; 1] = ["google_base_url"];
const ENDPOINTS_AZURE: [&str; 2] = ["azure_storage_endpoint", "azure_endpoint"];
const CONNECT_MAX: Duration = Duration::from_secs(3);
type Env = BTreeMap<String, String>;

/// A store that was built, before anything was asked of it.
struct Built {
    store: Arc<dyn ObjectStore>,
    prefix: String,
    url: String,
    chosen: Chosen,
}

/// What opening does to the folder of a `file://` store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Folder {
    /// Makes it, and removes what killed uploads left.
    Make,
    /// Leaves it as it is.
    MustExist,
}

pub(super) async fn open(
    url: &str,
    data_dir: &Path,
    env: Env,
    options: RepositoryOptions,
    folder: Folder,
) -> Result<Repository, StoreError> {
    let (scheme, _) = url
        .split_once("://")
        .ok_or_else(|| wrong("", format!("not a URL: {EXPECTED}")))?;
    match scheme {
        "file" => file(url, data_dir, options, folder).await,
        "memory" => memory(url, options),
        "s3" | "s3a" => remote(url, env, options, s3),
        "gs" => remote(url, env, options, gcs),
        "az" | "azure" | "abfs" | "abfss" => remote(url, env, options, azure),
        _ => Err(wrong("", format!("unknown scheme {scheme:?}: {EXPECTED}"))),
    }
}

/// A mistake in the URL or the variables.
fn wrong(url: &str, detail: impl Into<String>) -> StoreError {
    StoreError {
        kind: Kind::Configuration,
        operation: "open",
        object: String::new(),
        url: url.to_owned(),
        detail: detail.into(),
        hint: "correct CONFMAN_OBJECT_STORE_URL or the store's own variables".to_owned(),
    }
}

type Build = fn(&str, &Env, &RepositoryOptions) -> Result<Built, StoreError>;

fn remote(
    url: &str,
    env: Env,
    options: RepositoryOptions,
    build: Build,
) -> Result<Repository, StoreError> {
    tls::install_provider();
    check_remote_url(url)?;
    // Looked at before they are read: what changes meanwhile is found later.
    let watch = tls::watch(&options.tls);
    let built = build(url, &env, &options)?;
    let reopen = {
        let (url, options) = (url.to_owned(), options.clone());
        Box::new(move || build(&url, &env, &options).map(|built| built.store))
    };
    let slot = StoreSlot::reopening(built.store, reopen, watch);
    let secrets = built.chosen.secrets();
    Ok(Repository::assemble(
        slot,
        &built.prefix,
        &built.url,
        secrets,
        built.chosen.settings,
        options,
    ))
}

fn check_remote_url(url: &str) -> Result<(), StoreError> {
    // The URL is not shown in these errors: it may hold the very secret that is wrong in it.
    let parsed = Url::parse(url).map_err(|e| wrong("", format!("{e}: {EXPECTED}")))?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(wrong(
            "",
            "the URL holds a user or password; credentials go in the store's own variables",
        ));
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(wrong(
            "",
            "the URL has a ? or # part; settings go in the store's own variables",
        ));
    }
    if parsed.host_str().is_none_or(str::is_empty) {
        return Err(wrong(url, "the URL names no bucket"));
    }
    Ok(())
}

fn split_bucket(url: &str) -> (String, String) {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    (bucket.to_owned(), prefix.trim_matches('/').to_owned())
}

fn retry_config() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(2),
        base: 2.,
    };
    // Few tries at this level: they all use the same signature and credentials; ours above do not.
    RetryConfig {
        backoff,
        max_retries: 2,
        retry_timeout: Duration::from_secs(20),
    }
}

fn client_options(options: &RepositoryOptions) -> ClientOptions {
    ClientOptions::new()
        .with_connect_timeout(CONNECT_MAX)
        .with_timeout(options.transfer_try)
}

/// The variables of a family, each parsed by the store's own key type.
fn variables<K: FromStr>(family: &str, url: &str, env: &Env) -> Result<Chosen, StoreError> {
    // The URL says which bucket; a variable must not silently say another.
    let bucket = |name: &str| {
        ["bucket", "bucket_name", "container_name"]
            .iter()
            .any(|b| name.ends_with(b))
    };
    choose(family, env, |name| {
        name == CA_BUNDLE || name.parse::<K>().is_ok() && !bucket(name)
    })
    .map_err(|e| wrong(url, e))
}

/// What the builder of a store says is wrong, without the secrets that it may quote.
fn refused(url: &str, chosen: &Chosen, error: &object_store::Error) -> StoreError {
    wrong(url, chosen.secrets().redact(&classify::text(error)))
}

fn s3(url: &str, env: &Env, options: &RepositoryOptions) -> Result<Built, StoreError> {
    let chosen = variables::<AmazonS3ConfigKey>("AWS_", url, env)?;
    let (bucket, prefix) = split_bucket(url);
    let shown = format!("s3://{bucket}/{prefix}")
        .trim_end_matches('/')
        .to_owned();
    let tls = StoreTls::load(options, &chosen, &shown)?;
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&bucket)
        .with_retry(retry_config())
        .with_client_options(tls.options(client_options(options), &shown)?)
        // Not every server knows the bulk delete.
        .with_config(AmazonS3ConfigKey::DisableBulkDelete, "true");
    for (name, value) in &chosen.values {
        if let Ok(key) = name.parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    let way = way("aws", &ENDPOINTS_S3, &chosen, &shown)?;
    tls.check(&way, &shown)?;
    for key in way.client_keys() {
        builder = builder.with_config(AmazonS3ConfigKey::Client(key), "true");
    }
    builder = if way == Way::Loopback {
        connect_by(LoopbackConnector(options.transfer_try), builder, options)
    } else if let Some(connector) = tls.connector() {
        connect_by(connector, builder, options)
    } else {
        connect_by(ReqwestConnector::default(), builder, options)
    };
    let store = builder.build().map_err(|e| refused(&shown, &chosen, &e))?;
    Ok(Built {
        store: Arc::new(store),
        prefix,
        url: shown,
        chosen,
    })
}

fn connect_by(
    connector: impl HttpConnector,
    builder: AmazonS3Builder,
    options: &RepositoryOptions,
) -> AmazonS3Builder {
    if options.alter_bodies {
        builder.with_http_connector(AlteringConnector(connector))
    } else {
        builder.with_http_connector(connector)
    }
}

fn gcs(url: &str, env: &Env, options: &RepositoryOptions) -> Result<Built, StoreError> {
    let chosen = variables::<GoogleConfigKey>("GOOGLE_", url, env)?;
    let (bucket, prefix) = split_bucket(url);
    let shown = format!("gs://{bucket}/{prefix}")
        .trim_end_matches('/')
        .to_owned();
    let tls = StoreTls::load(options, &chosen, &shown)?;
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&bucket)
        .with_retry(retry_config())
        .with_client_options(tls.options(client_options(options), &shown)?);
    for (name, value) in &chosen.values {
        if let Ok(key) = name.parse::<GoogleConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    let way = way("google", &ENDPOINTS_GCS, &chosen, &shown)?;
    tls.check(&way, &shown)?;
    for key in way.client_keys() {
        builder = builder.with_config(GoogleConfigKey::Client(key), "true");
    }
    if way == Way::Loopback {
        builder = builder.with_http_connector(LoopbackConnector(options.transfer_try));
    } else if let Some(connector) = tls.connector() {
        builder = builder.with_http_connector(connector);
    }
    let store = builder.build().map_err(|e| refused(&shown, &chosen, &e))?;
    Ok(Built {
        store: Arc::new(store),
        prefix,
        url: shown,
        chosen,
    })
}

fn azure(url: &str, env: &Env, options: &RepositoryOptions) -> Result<Built, StoreError> {
    let chosen = variables::<AzureConfigKey>("AZURE_", url, env)?;
    let (container, prefix) = split_bucket(url);
    let shown = format!("az://{container}/{prefix}")
        .trim_end_matches('/')
        .to_owned();
    let tls = StoreTls::load(options, &chosen, &shown)?;
    let mut builder = MicrosoftAzureBuilder::new()
        .with_container_name(&container)
        .with_retry(retry_config())
        .with_client_options(tls.options(client_options(options), &shown)?);
    for (name, value) in &chosen.values {
        if let Ok(key) = name.parse::<AzureConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    let way = way("azure", &ENDPOINTS_AZURE, &chosen, &shown)?;
    tls.check(&way, &shown)?;
    for key in way.client_keys() {
        builder = builder.with_config(AzureConfigKey::Client(key), "true");
    }
    if way == Way::Loopback {
        builder = builder.with_http_connector(LoopbackConnector(options.transfer_try));
    } else if let Some(connector) = tls.connector() {
        builder = builder.with_http_connector(connector);
    }
    let store = builder.build().map_err(|e| refused(&shown, &chosen, &e))?;
    Ok(Built {
        store: Arc::new(store),
        prefix,
        url: shown,
        chosen,
    })
}

/// How requests get to a store.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// Over TLS.
    Tls,
    /// In the clear, on this machine.
    Loopback,
    /// In the clear, because the operator says so.
    Plain,
}

impl Way {
    /// What the client must be allowed, or spared.
    fn client_keys(&self) -> Vec<ClientConfigKey> {
        match self {
            Self::Tls => vec![],
            Self::Loopback => vec![ClientConfigKey::AllowHttp],
            Self::Plain => vec![
                ClientConfigKey::AllowHttp,
                ClientConfigKey::NoSystemCertificates,
            ],
        }
    }
}

/// The way to the endpoint that one of these variables of a family names; the clouds' own endpoints speak TLS.
fn way(family: &str, endpoints: &[&str], chosen: &Chosen, url: &str) -> Result<Way, StoreError> {
    let Some(endpoint) = endpoints.iter().find_map(|name| chosen.get(name)) else {
        return Ok(Way::Tls);
    };
    let allowed = chosen
        .get(&format!("{family}_allow_http"))
        .is_some_and(|v| v.eq_ignore_ascii_case("true"));
    match plain_http(endpoint).map_err(|e| wrong(url, e))? {
        Plain::No => Ok(Way::Tls),
        Plain::Loopback => Ok(Way::Loopback),
        Plain::Elsewhere if allowed => Ok(Way::Plain),
        Plain::Elsewhere => {
            let detail = format!(
                "the endpoint is http and not on this machine: secrets and data would be readable on the way. Use https, or say \
                 {}_ALLOW_HTTP=true",
                family.to_ascii_uppercase()
            );
            Err(wrong(url, detail))
        }
    }
}

/// Whether an endpoint speaks without TLS, and where.
#[derive(Debug, PartialEq, Eq)]
enum Plain {
    No,
    Loopback,
    Elsewhere,
}

fn plain_http(endpoint: &str) -> Result<Plain, String> {
    let parsed = Url::parse(endpoint).map_err(|e| format!("the endpoint is not a URL: {e}"))?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("the endpoint holds a user or password".to_owned());
    }
    let loopback = match parsed.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match parsed.scheme() {
        "https" => Ok(Plain::No),
        "http" if loopback => Ok(Plain::Loopback),
        "http" => Ok(Plain::Elsewhere),
        other => Err(format!(
            "the endpoint has the scheme {other:?}, expected http or https"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Env {
        pairs
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect()
    }

    async fn try_open(url: &str, pairs: &[(&str, &str)]) -> Result<Repository, StoreError> {
        open(
            url,
            Path::new("/nowhere"),
            env(pairs),
            RepositoryOptions::default(),
            Folder::Make,
        )
        .await
    }

    #[tokio::test]
    async fn wrong_urls_are_configuration_errors_with_what_was_expected() {
        for url in [
            "",
            "objects",
            "ftp://host/x",
            "file://objects",
            "file:///a/{data}",
            "s3://",
            "s3:///prefix",
        ] {
            let error = try_open(url, &[]).await.unwrap_err();
            assert_eq!(error.kind, Kind::Configuration, "{url}: {error}");
            assert!(!error.hint.is_empty());
        }
    }

    #[tokio::test]
    async fn x18_no_error_about_a_url_or_an_endpoint_holds_its_secret() {
        let endpoint = ("AWS_ENDPOINT_URL", "http://user:canary@127.0.0.1:1");
        let plain = ("AWS_ENDPOINT_URL", "http://store.example");
        let secret = ("AWS_SECRET_ACCESS_KEY", "canary-secret");
        for (url, pairs) in [
            ("s3://user:canary@bucket/x", vec![]),
            ("s3://bucket/x?token=canary", vec![]),
            ("s3://bucket/x", vec![endpoint]),
            ("s3://bucket/x", vec![plain, secret]),
            (
                "s3://bucket/x",
                vec![("AWS_ALLOW_HTTP", "canary-secret"), secret],
            ),
        ] {
            let error = try_open(url, &pairs).await.unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
        }
    }

    #[tokio::test]
    async fn an_endpoint_in_the_clear_is_refused_by_every_cloud_unless_it_is_here_or_allowed() {
        let gs = ("GOOGLE_SKIP_SIGNATURE", "true");
        let az = ("AZURE_STORAGE_ACCOUNT_NAME", "account");
        for (url, endpoint, allow, more) in [
            (
                "s3://bucket/x",
                "AWS_ENDPOINT_URL",
                "AWS_ALLOW_HTTP",
                ("AWS_REGION", "eu"),
            ),
            ("gs://bucket/x", "GOOGLE_BASE_URL", "GOOGLE_ALLOW_HTTP", gs),
            (
                "az://bucket/x",
                "AZURE_STORAGE_ENDPOINT",
                "AZURE_ALLOW_HTTP",
                az,
            ),
        ] {
            let away = (endpoint, "http://store.example:9000");
            let error = try_open(url, &[away, more]).await.unwrap_err();
            assert_eq!(error.kind, Kind::Configuration, "{error}");
            let remedy = format!("Use https, or say {allow}=true");
            assert!(error.detail.contains(&remedy), "{error}");
            try_open(url, &[away, more, (allow, "true")]).await.unwrap();
            try_open(url, &[(endpoint, "http://127.0.0.1:9000"), more])
                .await
                .unwrap();
            try_open(url, &[(endpoint, "https://store.example"), more])
                .await
                .unwrap();
        }
    }

    #[tokio::test]
    async fn s3_opens_with_the_given_variables_and_says_which_count() {
        let pairs = [
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
            ("AWS_ACCESS_KEY_ID", "canary-id"),
            ("AWS_SECRET_ACCESS_KEY", "canary-secret"),
            ("AWS_BUCKET", "another"),
            ("AWS_PROFILE", "p"),
            ("CONFMAN_X", "y"),
        ];
        let repository = try_open("s3://bucket/a/b/", &pairs).await.unwrap();
        assert_eq!(repository.url(), "s3://bucket/a/b");
        assert_eq!(repository.settings().ignored, ["AWS_BUCKET", "AWS_PROFILE"]);
        assert!(!format!("{:?} {repository:?}", repository.settings()).contains("canary"));
        try_open(
            "s3://bucket",
            &[
                ("AWS_ENDPOINT_URL", "http://store.example"),
                ("AWS_ALLOW_HTTP", "true"),
            ],
        )
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn i16_who_only_looks_makes_no_folder() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("objects");
        let url = format!("file://{}", missing.display());
        let error = Repository::open_existing(&url, dir.path(), [])
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::NotFound, "{error}");
        assert!(!missing.exists());
        std::fs::create_dir(&missing).unwrap();
        let found = Repository::open_existing(&url, dir.path(), [])
            .await
            .unwrap();
        assert!(found.list_clusters().await.unwrap().is_empty());
        assert_eq!(std::fs::read_dir(&missing).unwrap().count(), 0);
    }
}
