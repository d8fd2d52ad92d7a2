//! TLS with a store: whose certificates count, and what a store is shown that asks for one.
//!
//! The library below takes authorities and no certificate of a client. So where there is one, requests go through a client of our own,
//! which does with the library's options what its own client does.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use confman_config::{ClientTlsSettings, catalog};
use confman_tls::{ClientFiles, ClientTls, FileErrors, NamedFile};
use object_store::client::{Certificate, HttpClient, HttpConnector};
use object_store::{ClientConfigKey, ClientOptions};

use super::{CONNECT_MAX, Way, wrong};
use crate::error::StoreError;
use crate::repository::RepositoryOptions;
use crate::repository::settings::Chosen;
use crate::repository::watch::Watch;

/// Names a file of authorities that are trusted beside the system's, as the AWS tools have it. The library below does not
/// know it.
pub(super) const CA_BUNDLE: &str = "aws_ca_bundle";
const USER_AGENT: &str = concat!("confman/", env!("CARGO_PKG_VERSION"));

/// The process has one TLS provider, ring; whoever comes first installs it.
pub(super) fn install_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error says that somebody else was quicker: there is only one provider in this program.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// The files with which these settings have a store spoken to, as they are judged whenever a store is opened.
pub fn store_files(settings: &ClientTlsSettings) -> ClientFiles {
    let named = |setting: &'static str, path: &PathBuf| NamedFile::new(setting, path);
    let identity = settings.identity.as_ref().map(|(cert, key)| {
        (
            named(catalog::TLS_STORE_CERT_FILE.name, cert),
            named(catalog::TLS_STORE_KEY_FILE.name, key),
        )
    });
    ClientFiles {
        ca: settings
            .ca_file
            .as_ref()
            .map(|path| named(catalog::TLS_STORE_CA_FILE.name, path)),
        identity,
    }
}

/// Looks at those files now and then; none where there are none.
pub(super) fn watch(settings: &ClientTlsSettings) -> Option<Watch> {
    let identity = settings.identity.iter();
    let files: Vec<PathBuf> = settings
        .ca_file
        .iter()
        .chain(identity.flat_map(|(cert, key)| [cert, key]))
        .cloned()
        .collect();
    (!files.is_empty()).then(|| Watch::new(files))
}

/// What a store is spoken to with over TLS, read from the files as they are now.
pub(super) struct StoreTls {
    own: ClientTls,
    /// The authorities of `AWS_CA_BUNDLE`.
    bundle: ClientTls,
    /// The first of our settings that is set.
    named: Option<&'static str>,
}

impl StoreTls {
    /// Reads and judges the files that the settings name, and `AWS_CA_BUNDLE` where the store is of that family.
    pub(super) fn load(
        options: &RepositoryOptions,
        chosen: &Chosen,
        url: &str,
    ) -> Result<Self, StoreError> {
        let now = SystemTime::now();
        let files = store_files(&options.tls);
        let bundle = ClientFiles {
            ca: chosen
                .get(CA_BUNDLE)
                .map(|path| NamedFile::new("AWS_CA_BUNDLE", Path::new(path))),
            identity: None,
        };
        let identity = files.identity.as_ref().map(|(cert, _)| cert.setting);
        let named = identity.or(files.ca.as_ref().map(|ca| ca.setting));
        let load = |files: &ClientFiles| files.load(now).map_err(|errors| refused(url, &errors));
        Ok(Self {
            own: load(&files)?,
            bundle: load(&bundle)?,
            named,
        })
    }

    /// Refuses settings that a connection in the clear would pass over in silence.
    pub(super) fn check(&self, way: &Way, url: &str) -> Result<(), StoreError> {
        let Some(named) = self.named.filter(|_| *way != Way::Tls) else {
            return Ok(());
        };
        Err(StoreError {
            hint: format!("use https in the endpoint, or unset {named}"),
            ..wrong(
                url,
                format!("{named} is set, and the endpoint is http: nobody speaks TLS there"),
            )
        })
    }

    /// Trusts the authorities too, beside the system's.
    pub(super) fn options(
        &self,
        mut options: ClientOptions,
        url: &str,
    ) -> Result<ClientOptions, StoreError> {
        for root in self.roots() {
            let root = Certificate::from_der(root).map_err(|e| wrong(url, e.to_string()))?;
            options = options.with_root_certificate(root);
        }
        Ok(options)
    }

    /// The client that shows a certificate, where there is one to show.
    pub(super) fn connector(self) -> Option<ShowingConnector> {
        self.own
            .identity_pem()
            .is_some()
            .then_some(ShowingConnector(self))
    }

    fn roots(&self) -> impl Iterator<Item = &[u8]> {
        let all = [&self.own, &self.bundle].into_iter();
        all.flat_map(|tls| tls.roots().unwrap_or_default())
            .map(AsRef::as_ref)
    }
}

fn refused(url: &str, errors: &FileErrors) -> StoreError {
    let each: Vec<String> = errors.all().iter().map(ToString::to_string).collect();
    let hint = errors.all().first().map(|error| error.hint.clone());
    StoreError {
        hint: hint.unwrap_or_default(),
        ..wrong(url, each.join("; "))
    }
}

/// Connects to a server on this machine: no proxy, whatever the environment says, and no certificates to load.
#[derive(Debug)]
pub(super) struct LoopbackConnector(pub(super) Duration);

impl HttpConnector for LoopbackConnector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = reqwest::ClientBuilder::new()
            .no_proxy()
            .tls_certs_only(std::iter::empty())
            .connect_timeout(CONNECT_MAX)
            .timeout(self.0)
            .build()
            .map_err(failed)?;
        Ok(HttpClient::new(client))
    }
}

/// Connects and shows a certificate to who asks for one.
///
/// Of the library's options it keeps all but `randomize_addresses`, for which the library has a resolver of its own: the addresses of a
/// name are tried in the order that the system gives.
pub(super) struct ShowingConnector(StoreTls);

impl fmt::Debug for ShowingConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShowingConnector")
    }
}

impl HttpConnector for ShowingConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        use ClientConfigKey as Key;
        let given = Given(options);
        let mut client = reqwest::ClientBuilder::new()
            .user_agent(given.text(&Key::UserAgent).unwrap_or(USER_AGENT.to_owned()))
            .https_only(!given.flag(&Key::AllowHttp)?);
        let mut roots = Vec::new();
        for root in self.0.roots() {
            roots.push(reqwest::Certificate::from_der(root).map_err(failed)?);
        }
        if let Some(pem) = given.text(&Key::ProxyCaCertificate) {
            roots.push(reqwest::Certificate::from_pem(pem.as_bytes()).map_err(failed)?);
        }
        client = if given.flag(&Key::NoSystemCertificates)? {
            client.tls_certs_only(roots)
        } else {
            client.tls_certs_merge(roots)
        };
        if let Some(pem) = self.0.own.identity_pem() {
            client = client.identity(reqwest::Identity::from_pem(pem).map_err(failed)?);
        }
        if given.flag(&Key::AllowInvalidCertificates)? {
            client = client.tls_danger_accept_invalid_certs(true);
        }
        if let Some(url) = given.text(&Key::ProxyUrl) {
            let excludes = given.text(&Key::ProxyExcludes);
            let excludes = excludes.and_then(|hosts| reqwest::NoProxy::from_string(&hosts));
            let proxy = reqwest::Proxy::all(url).map_err(failed)?;
            client = client.proxy(proxy.no_proxy(excludes));
        }
        client = given.timing(client)?;
        client = given.protocol(client)?;
        Ok(HttpClient::new(client.build().map_err(failed)?))
    }
}

/// The options that were given to the library, read back from it.
struct Given<'a>(&'a ClientOptions);

impl Given<'_> {
    fn text(&self, key: &ClientConfigKey) -> Option<String> {
        self.0.get_config_value(key)
    }

    fn flag(&self, key: &ClientConfigKey) -> object_store::Result<bool> {
        let text = self.text(key).unwrap_or_default().to_ascii_lowercase();
        match text.as_str() {
            "1" | "true" | "on" | "yes" | "y" => Ok(true),
            "" | "0" | "false" | "off" | "no" | "n" => Ok(false),
            _ => Err(failed(format!(
                "{} is neither true nor false",
                key.as_ref()
            ))),
        }
    }

    fn number<T: FromStr>(&self, key: &ClientConfigKey) -> object_store::Result<Option<T>> {
        let read = |text: String| {
            text.parse()
                .map_err(|_| failed(format!("{} is no number", key.as_ref())))
        };
        self.text(key).map(read).transpose()
    }

    fn time(&self, key: &ClientConfigKey) -> object_store::Result<Option<Duration>> {
        let read = |text: String| {
            let span: Option<jiff::SignedDuration> = text.parse().ok();
            span.and_then(|span| Duration::try_from(span).ok())
                .ok_or_else(|| failed(format!("{} is no time such as 30s", key.as_ref())))
        };
        self.text(key).map(read).transpose()
    }

    fn timing(
        &self,
        mut client: reqwest::ClientBuilder,
    ) -> object_store::Result<reqwest::ClientBuilder> {
        use ClientConfigKey as Key;
        if let Some(time) = self.time(&Key::ConnectTimeout)? {
            client = client.connect_timeout(time);
        }
        if let Some(time) = self.time(&Key::Timeout)? {
            client = client.timeout(time);
        }
        if let Some(time) = self.time(&Key::ReadTimeout)? {
            client = client.read_timeout(time);
        }
        if let Some(time) = self.time(&Key::PoolIdleTimeout)? {
            client = client.pool_idle_timeout(time);
        }
        if let Some(most) = self.number(&Key::PoolMaxIdlePerHost)? {
            client = client.pool_max_idle_per_host(most);
        }
        Ok(client)
    }

    fn protocol(
        &self,
        mut client: reqwest::ClientBuilder,
    ) -> object_store::Result<reqwest::ClientBuilder> {
        use ClientConfigKey as Key;
        if self.flag(&Key::Http1Only)? {
            client = client.http1_only();
        }
        if self.flag(&Key::Http2Only)? {
            client = client.http2_prior_knowledge();
        }
        if let Some(time) = self.time(&Key::Http2KeepAliveInterval)? {
            client = client.http2_keep_alive_interval(time);
        }
        if let Some(time) = self.time(&Key::Http2KeepAliveTimeout)? {
            client = client.http2_keep_alive_timeout(time);
        }
        if self.flag(&Key::Http2KeepAliveWhileIdle)? {
            client = client.http2_keep_alive_while_idle(true);
        }
        if let Some(bytes) = self.number::<u32>(&Key::Http2MaxFrameSize)? {
            client = client.http2_max_frame_size(bytes);
        }
        Ok(client)
    }
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> object_store::Error {
    object_store::Error::Generic {
        store: "HTTP client",
        source: error.into(),
    }
}
