//! The object store of a test cluster: an S3 server inside the test that can be stopped, started again and damaged.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
pub use confman_dev_s3::ConditionalWrites;
use confman_dev_s3::{RunningS3, S3Config};

use crate::ports::free_port;

const BUCKET: &str = "confman";
const PREFIX: &str = "test";
const ACCESS_KEY: &str = "test";
const SECRET_KEY: &str = "test-secret";

/// With what a store speaks https, and the file of the authority that it is known by.
#[derive(Clone)]
struct Tls {
    config: Arc<rustls::ServerConfig>,
    bundle: PathBuf,
}

/// An S3 server with its files in a directory of the test.
pub struct Store {
    root: PathBuf,
    address: SocketAddr,
    tls: Option<Tls>,
    conditional_writes: ConditionalWrites,
    running: Option<RunningS3>,
}

impl Store {
    /// Starts one.
    ///
    /// # Errors
    /// It cannot listen, or its directory cannot be made.
    pub async fn start(root: &Path) -> anyhow::Result<Self> {
        Self::start_with(root, ConditionalWrites::default()).await
    }

    /// Starts one that takes conditional writes in that way.
    ///
    /// # Errors
    /// It cannot listen, or its directory cannot be made.
    pub async fn start_with(
        root: &Path,
        conditional_writes: ConditionalWrites,
    ) -> anyhow::Result<Self> {
        Self::begin(root, None, conditional_writes).await
    }

    /// Starts one that speaks https, known by the authorities in `bundle`.
    ///
    /// # Errors
    /// It cannot listen, or its directory cannot be made.
    pub async fn start_tls(
        root: &Path,
        config: Arc<rustls::ServerConfig>,
        bundle: PathBuf,
    ) -> anyhow::Result<Self> {
        let tls = Some(Tls { config, bundle });
        Self::begin(root, tls, ConditionalWrites::default()).await
    }

    async fn begin(
        root: &Path,
        tls: Option<Tls>,
        conditional_writes: ConditionalWrites,
    ) -> anyhow::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut store = Self {
            root: root.to_owned(),
            address,
            tls,
            conditional_writes,
            running: None,
        };
        store.resume().await?;
        Ok(store)
    }

    /// Shows another certificate from now on.
    ///
    /// # Errors
    /// It cannot listen again, or speaks in the clear.
    pub async fn show(&mut self, config: Arc<rustls::ServerConfig>) -> anyhow::Result<()> {
        self.stop().await;
        self.tls.as_mut().context("a store in the clear")?.config = config;
        self.resume().await
    }

    /// Stops it: connections are refused until [`Store::resume`]. Its objects stay.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.shutdown().await;
        }
    }

    /// Starts it again at the same address.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        let config = S3Config {
            listen: self.address,
            root: self.root.clone(),
            access_key: ACCESS_KEY.to_owned(),
            secret_key: SECRET_KEY.to_owned(),
            bucket: BUCKET.to_owned(),
            conditional_writes: self.conditional_writes,
        };
        let running = match &self.tls {
            Some(tls) => confman_dev_s3::serve_tls(config, Arc::clone(&tls.config)).await,
            None => confman_dev_s3::serve(config).await,
        };
        self.running = Some(running.context("start the S3 server")?);
        Ok(())
    }

    /// What a node needs to know.
    #[must_use]
    pub fn env(&self) -> BTreeMap<String, String> {
        let (scheme, name, value) = match &self.tls {
            Some(tls) => ("https", "AWS_CA_BUNDLE", tls.bundle.display().to_string()),
            None => ("http", "AWS_ALLOW_HTTP", "true".to_owned()),
        };
        [
            (
                "CONFMAN_OBJECT_STORE_URL",
                format!("s3://{BUCKET}/{PREFIX}"),
            ),
            ("AWS_ENDPOINT_URL", format!("{scheme}://{}", self.address)),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            (name, value),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// The snapshot objects of a group, oldest first by name.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn snapshots(&self, group: &str) -> anyhow::Result<Vec<PathBuf>> {
        let dir = self
            .root
            .join(BUCKET)
            .join(PREFIX)
            .join("snapshots")
            .join(group);
        let mut found = Vec::new();
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(error).with_context(|| format!("list {}", dir.display())),
        };
        for entry in entries {
            let path = entry?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if name.ends_with(".snap") && !name.starts_with('.') {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    /// Every object under the prefix with its size, by name.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn objects(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        fn walk(root: &Path, dir: &Path, out: &mut BTreeMap<String, u64>) -> anyhow::Result<()> {
            for entry in std::fs::read_dir(dir)? {
                let path = entry?.path();
                let name = path.file_name().and_then(|name| name.to_str());
                if path.is_dir() {
                    walk(root, &path, out)?;
                } else if name.is_some_and(|name| !name.starts_with('.')) {
                    let relative = path.strip_prefix(root)?.display().to_string();
                    out.insert(relative, path.metadata()?.len());
                }
            }
            Ok(())
        }
        let root = self.root.join(BUCKET).join(PREFIX);
        let mut objects = BTreeMap::new();
        walk(&root, &root, &mut objects)?;
        Ok(objects)
    }

    /// The object of one snapshot.
    ///
    /// # Errors
    /// There is none of that id.
    pub fn snapshot(&self, group: &str, id: &str) -> anyhow::Result<PathBuf> {
        let found = self.snapshots(group)?;
        let object = found
            .iter()
            .find(|path| path.to_string_lossy().contains(id));
        object
            .cloned()
            .with_context(|| format!("no object of snapshot {id} among {found:?}"))
    }
}

/// Flips one bit in the middle of a file.
///
/// # Errors
/// It cannot be read or written, or is empty.
pub fn flip_bit(path: &Path) -> anyhow::Result<()> {
    let mut bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let middle = bytes.len() / 2;
    let Some(byte) = bytes.get_mut(middle) else {
        bail!("{} is empty", path.display())
    };
    *byte ^= 0x10;
    std::fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

/// Cuts a file to half its length.
///
/// # Errors
/// It cannot be cut.
pub fn truncate(path: &Path) -> anyhow::Result<()> {
    let file = std::fs::OpenOptions::new().write(true).open(path)?;
    let length = file.metadata()?.len();
    file.set_len(length / 2)
        .with_context(|| format!("truncate {}", path.display()))
}
