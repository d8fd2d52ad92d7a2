//! Where the bytes of a snapshot come from: a local file, the store, or a hand-made set in tests.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Kind, StoreError};

/// Objects that can be read by range. The name is relative to the store's prefix.
#[async_trait]
pub trait ChunkSource: Send + Sync + 'static {
    /// The size of an object in bytes.
    async fn size(&self, object: &str) -> Result<u64, StoreError>;

    /// Exactly these bytes of an object; fewer is an error, never a short answer.
    async fn read(&self, object: &str, range: Range<u64>) -> Result<Bytes, StoreError>;
}

/// Snapshot objects that lie in local files.
#[derive(Debug, Clone, Default)]
pub struct LocalFiles {
    files: BTreeMap<String, PathBuf>,
}

impl LocalFiles {
    /// One local file under the name that the reader will ask for.
    pub fn one(object: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self::default().with(object, path)
    }

    /// One more file, for manifests that refer to chunks in other objects.
    pub fn with(mut self, object: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        self.files.insert(object.into(), path.into());
        self
    }

    fn path(&self, operation: &'static str, object: &str) -> Result<PathBuf, StoreError> {
        self.files.get(object).cloned().ok_or_else(|| StoreError {
            kind: Kind::NotFound,
            operation,
            object: object.to_owned(),
            url: "local files".to_owned(),
            detail: "no such object".to_owned(),
            hint: String::new(),
        })
    }
}

#[async_trait]
impl ChunkSource for LocalFiles {
    async fn size(&self, object: &str) -> Result<u64, StoreError> {
        let path = self.path("size", object)?;
        let metadata = tokio::fs::metadata(&path)
            .await
            .map_err(|e| local_error("size", object, &path, &e))?;
        Ok(metadata.len())
    }

    async fn read(&self, object: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let path = self.path("read", object)?;
        let name = object.to_owned();
        let work = move || -> Result<Bytes, StoreError> {
            use std::io::{Read, Seek, SeekFrom};
            let error = |e: std::io::Error| local_error("read", &name, &path, &e);
            let mut file = std::fs::File::open(&path).map_err(error)?;
            let size = file.metadata().map_err(error)?.len();
            if range.start > range.end || range.end > size {
                return Err(StoreError {
                    kind: Kind::Damaged,
                    operation: "read",
                    object: name.clone(),
                    url: path.display().to_string(),
                    detail: format!(
                        "bytes {}..{} lie beyond its {size} bytes",
                        range.start, range.end
                    ),
                    hint: String::new(),
                });
            }
            file.seek(SeekFrom::Start(range.start)).map_err(error)?;
            // Cannot be larger than the file, which was just measured.
            let mut bytes = vec![0; (range.end - range.start) as usize];
            file.read_exact(&mut bytes).map_err(error)?;
            Ok(Bytes::from(bytes))
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| {
            Err(StoreError {
                kind: Kind::Bug,
                operation: "read",
                object: object.to_owned(),
                url: "local files".to_owned(),
                detail: e.to_string(),
                hint: String::new(),
            })
        })
    }
}

fn local_error(
    operation: &'static str,
    object: &str,
    path: &Path,
    error: &std::io::Error,
) -> StoreError {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => Kind::NotFound,
        std::io::ErrorKind::UnexpectedEof => Kind::Damaged,
        _ => Kind::Configuration,
    };
    StoreError {
        kind,
        operation,
        object: object.to_owned(),
        url: path.display().to_string(),
        detail: error.to_string(),
        hint: String::new(),
    }
}
