//! The object store under one prefix, in domain words.
//!
//! Promises:
//! - every call ends: each try and the whole call have a time limit, retries are few and spread by chance;
//! - an own write that succeeded while its answer was lost is recognised, by content, and never written twice nor
//!   taken for somebody else's;
//! - nothing is overwritten: an object is created where none is, and correctness never depends on the store honouring
//!   conditions;
//! - names that are not ours are ignored, counted, and never deleted;
//! - errors say what to do ([`crate::Kind`]) and never hold a secret.
//!
//! Not here: what to keep or delete (`retention`), when to build (`trigger`), the format (`format`).
//!
//! Rooms: `open` (URL to store), `settings` (which variables are in force), `call` (time limits, retries),
//! `classify` (their errors to ours), `create` (objects that must not exist yet), `upload` (large objects), `watch` (files that changed),
//! `snapshots`, `notes` (pins and marks beside them), `cluster` (who owns the prefix), `order` (what empty nodes restore), `taken` (which of its ids have been taken up), `reports`, `probe`.

mod call;
mod classify;
mod cluster;
mod create;
mod notes;
mod open;
mod order;
mod probe;
mod reports;
mod settings;
mod snapshots;
mod taken;
mod upload;
mod watch;

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use confman_config::ClientTlsSettings;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::error::{Kind, StoreError};
use crate::source::ChunkSource;

pub use call::OPERATIONS;
pub use cluster::{Begun, Claim, ClusterObject};
pub use notes::Note;
pub use open::store_files;
pub use order::{OrderDone, OrderError, OrderMember, RestoreOrder};
pub use probe::{
    Check, Conditions, Latency, LongProbe, Probe, ProbePlan, ProbeReport, Suitability, Verdict,
};
pub use reports::{DrillVerdict, ListedReport, Report};
pub use settings::{SettingInForce, StoreSettings};
pub use snapshots::{Inventory, Listed, Listing, Uploaded, Verified};
pub use taken::{MemberTaken, Taken};

use call::StoreSlot;
use settings::Secrets;

/// Largest range that one read asks for: a chunk, or a manifest.
const READ_BYTES_MAX: u64 = crate::format::limits::MANIFEST_BYTES_MAX;

/// How the names end under which [`RepositoryOptions::alter_bodies`] alters.
const ALTERED_SUFFIX: &str = "-altered";

/// Time limits and sizes of a repository, and how it speaks TLS. The defaults suit stores near and far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryOptions {
    /// How often one thing is tried.
    pub tries: usize,
    /// Pause before the second try; doubled for each further one, and spread by chance.
    pub backoff: Duration,
    /// Longest that one try of a small request may take.
    pub small_try: Duration,
    /// Longest that a small request may take with all its tries.
    pub small_total: Duration,
    /// Longest that one try of a transfer (a chunk, a part) may take.
    pub transfer_try: Duration,
    /// Longest that a transfer may take with all its tries.
    pub transfer_total: Duration,
    /// Longest that a listing may take.
    pub list_total: Duration,
    /// Objects of up to this size go in one request, larger ones in parts.
    pub single_put_bytes_max: u64,
    /// The size of a part; larger where an object would have too many.
    pub part_bytes: u64,
    /// Parts under way at a time.
    pub parts_in_flight: usize,
    /// Chunks that a verification reads ahead.
    pub verify_prefetch: usize,
    /// Whose certificate an https store may show, and what it is shown; files that change are read again.
    pub tls: ClientTlsSettings,
    /// For a probe of an S3 store: a body under a name that ends in `-altered` becomes another one on its way, after its checksum was
    /// written into the header. Only a store that compares the two finds out; with `AWS_UNSIGNED_PAYLOAD` not even the signature does.
    pub alter_bodies: bool,
}

impl Default for RepositoryOptions {
    fn default() -> Self {
        Self {
            tries: 3,
            backoff: Duration::from_millis(200),
            small_try: Duration::from_secs(8),
            small_total: Duration::from_secs(20),
            transfer_try: Duration::from_secs(60),
            transfer_total: Duration::from_secs(180),
            list_total: Duration::from_secs(60),
            single_put_bytes_max: 16 << 20,
            part_bytes: 8 << 20,
            parts_in_flight: 2,
            verify_prefetch: 2,
            tls: ClientTlsSettings::default(),
            alter_bodies: false,
        }
    }
}

/// The store under one prefix. Cheap to clone.
#[derive(Clone)]
pub struct Repository {
    inner: Arc<Inner>,
}

struct Inner {
    slot: StoreSlot,
    prefix: String,
    url: String,
    secrets: Secrets,
    settings: StoreSettings,
    options: RepositoryOptions,
    /// What a probe found.
    conditions: probe::Known,
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository")
            .field("url", &self.inner.url)
            .finish_non_exhaustive()
    }
}

impl Repository {
    /// Opens a store by URL: `file://`, `s3://`, `gs://`, `az://` or `memory://`. `{data}` in a `file://` URL stands for
    /// `data_dir`. `env` gives the variables of the store's own kind (`AWS_*`, `GOOGLE_*`, `AZURE_*`); all others in it are
    /// left alone. Nothing is asked of the store yet, save that the folder of a `file://` store is made.
    pub async fn open(
        url: &str,
        data_dir: &Path,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, StoreError> {
        Self::open_with(url, data_dir, env, RepositoryOptions::default()).await
    }

    /// [`Repository::open`] with other limits.
    pub async fn open_with(
        url: &str,
        data_dir: &Path,
        env: impl IntoIterator<Item = (String, String)>,
        options: RepositoryOptions,
    ) -> Result<Self, StoreError> {
        let env = env.into_iter().collect();
        open::open(url, data_dir, env, options, open::Folder::Make).await
    }

    /// [`Repository::open`] for who looks at a store that is there: the folder of a `file://` store is neither made nor
    /// swept, and one that is not there is [`Kind::NotFound`].
    pub async fn open_existing(
        url: &str,
        data_dir: &Path,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, StoreError> {
        Self::open_existing_with(url, data_dir, env, RepositoryOptions::default()).await
    }

    /// [`Repository::open_existing`] with other limits.
    pub async fn open_existing_with(
        url: &str,
        data_dir: &Path,
        env: impl IntoIterator<Item = (String, String)>,
        options: RepositoryOptions,
    ) -> Result<Self, StoreError> {
        let env = env.into_iter().collect();
        open::open(url, data_dir, env, options, open::Folder::MustExist).await
    }

    /// A repository over a store that somebody else made, such as one that fails on purpose.
    pub fn over(
        store: Arc<dyn ObjectStore>,
        prefix: &str,
        url: &str,
        options: RepositoryOptions,
    ) -> Self {
        Self::assemble(
            StoreSlot::fixed(store),
            prefix,
            url,
            Secrets::default(),
            StoreSettings::default(),
            options,
        )
    }

    fn assemble(
        slot: StoreSlot,
        prefix: &str,
        url: &str,
        secrets: Secrets,
        settings: StoreSettings,
        options: RepositoryOptions,
    ) -> Self {
        let prefix = prefix.trim_matches('/').to_owned();
        Self {
            inner: Arc::new(Inner {
                slot,
                prefix,
                url: url.to_owned(),
                secrets,
                settings,
                options,
                conditions: probe::Known::default(),
            }),
        }
    }

    /// The store's URL, without secrets.
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// Which of the store's own variables are in force, and which are not known and have no effect.
    pub fn settings(&self) -> &StoreSettings {
        &self.inner.settings
    }

    /// The limits.
    pub fn options(&self) -> &RepositoryOptions {
        &self.inner.options
    }

    /// Whether the store answers at all: a short listing.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let path = self.path(crate::paths::CLUSTERS)?;
        self.small("list", crate::paths::CLUSTERS, move |store| {
            let path = path.clone();
            async move { store.list_with_delimiter(Some(&path)).await.map(|_| ()) }
        })
        .await
    }

    /// The error of a read that went beyond the end, if that is what it did: stores say it in many ways.
    async fn too_short(&self, object: &str, end: u64) -> Option<StoreError> {
        let size = tokio::time::timeout(self.inner.options.small_try, self.size(object))
            .await
            .ok()?
            .ok()?;
        let detail = format!("it has {size} bytes, and should have {end} or more");
        (size < end).then(|| self.error(Kind::Damaged, "get", object, detail, ""))
    }

    /// The full path of an object that is named relative to the prefix.
    fn path(&self, object: &str) -> Result<ObjectPath, StoreError> {
        let full = if self.inner.prefix.is_empty() {
            object.to_owned()
        } else {
            format!("{}/{object}", self.inner.prefix)
        };
        ObjectPath::parse(&full)
            .map_err(|e| self.error(Kind::Bug, "name", object, e.to_string(), ""))
    }

    /// The name relative to the prefix of what a listing shows.
    fn relative<'a>(&self, location: &'a ObjectPath) -> Option<&'a str> {
        let full = location.as_ref();
        if self.inner.prefix.is_empty() {
            return Some(full);
        }
        full.strip_prefix(self.inner.prefix.as_str())?
            .strip_prefix('/')
    }

    fn error(
        &self,
        kind: Kind,
        operation: &'static str,
        object: &str,
        detail: impl AsRef<str>,
        hint: &str,
    ) -> StoreError {
        StoreError {
            kind,
            operation,
            object: object.to_owned(),
            url: self.inner.url.clone(),
            detail: self.inner.secrets.redact(detail.as_ref()),
            hint: hint.to_owned(),
        }
    }
}

#[async_trait]
impl ChunkSource for Repository {
    async fn size(&self, object: &str) -> Result<u64, StoreError> {
        let path = self.path(object)?;
        self.small("head", object, move |store| {
            let path = path.clone();
            async move { store.head(&path).await.map(|meta| meta.size) }
        })
        .await
    }

    async fn read(&self, object: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let wanted = range.end.saturating_sub(range.start);
        if wanted == 0 {
            return Ok(Bytes::new());
        }
        if wanted > READ_BYTES_MAX {
            let detail = format!("{wanted} bytes at once are more than {READ_BYTES_MAX}");
            return Err(self.error(Kind::Bug, "get", object, detail, ""));
        }
        let path = self.path(object)?;
        let mut wrong = String::new();
        for _ in 0..self.inner.options.tries.max(1) {
            let (path, range) = (path.clone(), range.clone());
            let got = self
                .transfer("get", object, |store| {
                    let (path, range) = (path.clone(), range.clone());
                    async move { store.get_range(&path, range).await }
                })
                .await;
            if let Ok(bytes) = &got {
                call::measure_bytes("get", bytes.len() as u64);
            }
            match got {
                Ok(bytes) if bytes.len() as u64 == wanted => return Ok(bytes),
                // Cut short on the way, or there is no more: ask again.
                Ok(bytes) => wrong = format!("{} bytes came instead of {wanted}", bytes.len()),
                Err(error) => match self.too_short(object, range.end).await {
                    Some(short) => return Err(short),
                    // Beyond the end of an object that is long enough: another one's answer.
                    None if error.kind == Kind::Damaged => wrong = error.detail,
                    None => return Err(error),
                },
            }
        }
        Err(self.error(Kind::Damaged, "get", object, wrong, ""))
    }
}
