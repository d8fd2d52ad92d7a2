//! Stores on this machine: a folder, and memory.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use url::Url;

use super::{DATA, Folder, wrong};
use crate::error::{Kind, StoreError};
use crate::repository::call::StoreSlot;
use crate::repository::settings::{Secrets, StoreSettings};
use crate::repository::{Repository, RepositoryOptions};

/// An unfinished upload of a `file://` store that is older than this belongs to nobody any more.
const STAGED_AGE_MAX: Duration = Duration::from_secs(3600);

pub(super) async fn file(
    url: &str,
    data_dir: &Path,
    options: RepositoryOptions,
    folder: Folder,
) -> Result<Repository, StoreError> {
    let dir = file_path(url, data_dir)?;
    let shown = Url::from_file_path(&dir).map_or_else(|()| url.to_owned(), String::from);
    if folder == Folder::MustExist && !tokio::fs::metadata(&dir).await.is_ok_and(|m| m.is_dir()) {
        return Err(StoreError {
            kind: Kind::NotFound,
            ..wrong(&shown, "there is no such folder")
        });
    }
    let made = {
        let dir = dir.clone();
        tokio::task::spawn_blocking(move || -> Result<LocalFileSystem, String> {
            if folder == Folder::Make {
                make_dir(&dir).map_err(|e| e.to_string())?;
                sweep_staged(&dir);
            }
            Ok(LocalFileSystem::new_with_prefix(&dir)
                .map_err(|e| e.to_string())?
                .with_fsync(true))
        })
        .await
    };
    let store = made
        .map_err(|e| wrong(&shown, e.to_string()))?
        .map_err(|e| wrong(&shown, e))?;
    let (secrets, settings) = (Secrets::default(), StoreSettings::default());
    Ok(Repository::assemble(
        StoreSlot::fixed(Arc::new(store)),
        "",
        &shown,
        secrets,
        settings,
        options,
    ))
}

fn file_path(url: &str, data_dir: &Path) -> Result<PathBuf, StoreError> {
    let rest = url.strip_prefix("file://").unwrap_or_default();
    if let Some(inside) = rest.strip_prefix(DATA) {
        let data = std::path::absolute(data_dir).map_err(|e| wrong(url, e.to_string()))?;
        return Ok(data.join(inside.trim_start_matches('/')));
    }
    if rest.contains(DATA) {
        return Err(wrong(url, "{data} may only stand at the start of the path"));
    }
    if !rest.starts_with('/') {
        return Err(wrong(
            url,
            "a file:// URL has three slashes and an absolute path",
        ));
    }
    let parsed = Url::parse(url).map_err(|e| wrong(url, e.to_string()))?;
    parsed
        .to_file_path()
        .map_err(|()| wrong(url, "it names no absolute path"))
}

fn make_dir(dir: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// Removes what killed uploads left in the folders of snapshots: `{id}.snap#{number}`. What cannot be removed stays: it is in
/// nobody's way.
fn sweep_staged(dir: &Path) {
    let folders = |dir: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            .map(|e| e.path())
            .collect()
    };
    let partitions = folders(&dir.join(crate::paths::SNAPSHOTS))
        .into_iter()
        .flat_map(|topic| folders(&topic));
    for entry in partitions.flat_map(|p| std::fs::read_dir(p).into_iter().flatten().flatten()) {
        let name = entry.file_name();
        let staged = name
            .to_str()
            .and_then(|n| n.rsplit_once(".snap#"))
            .is_some_and(|(id, number)| {
                id.parse::<crate::SnapshotId>().is_ok()
                    && !number.is_empty()
                    && number.bytes().all(|b| b.is_ascii_digit())
            });
        let age = entry
            .metadata()
            .and_then(|m| m.modified())
            .ok()
            .and_then(|m| SystemTime::now().duration_since(m).ok());
        if staged && age.is_some_and(|age| age > STAGED_AGE_MAX) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Stores in memory, by name, for as long as the process lives.
static MEMORY: LazyLock<Mutex<HashMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);

pub(super) fn memory(url: &str, options: RepositoryOptions) -> Result<Repository, StoreError> {
    let rest = url.strip_prefix("memory://").unwrap_or_default();
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let store = {
        let mut stores = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
        stores.entry(name.to_owned()).or_default().clone()
    };
    let (secrets, settings) = (Secrets::default(), StoreSettings::default());
    Ok(Repository::assemble(
        StoreSlot::fixed(store),
        prefix,
        url,
        secrets,
        settings,
        options,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_stands_for_the_data_directory() {
        let path = |url| file_path(url, Path::new("/srv/with space%"));
        assert_eq!(
            path("file://{data}/objects").unwrap(),
            Path::new("/srv/with space%/objects")
        );
        assert_eq!(path("file:///var/a%20b").unwrap(), Path::new("/var/a b"));
    }

    #[test]
    fn c09_only_old_unfinished_uploads_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("snapshots/config/0");
        std::fs::create_dir_all(&folder).unwrap();
        let id = crate::SnapshotId {
            index: 7,
            incarnation: 1,
            term: 2,
            nonce: 3,
        };
        let old = SystemTime::now() - STAGED_AGE_MAX * 2;
        let names = [
            format!("{id}.snap"),
            format!("{id}.snap#1"),
            "x.snap#1".to_owned(),
            format!("{id}.snap#1x"),
        ];
        for name in &names {
            let file = std::fs::File::create(folder.join(name)).unwrap();
            file.set_modified(old).unwrap();
        }
        std::fs::write(folder.join(format!("{id}.snap#2")), b"young").unwrap();
        sweep_staged(dir.path());
        let left = |name: &str| folder.join(name).exists();
        assert!(!left(&names[1]));
        assert!(
            left(&names[0]) && left(&names[2]) && left(&names[3]) && left(&format!("{id}.snap#2"))
        );
    }
}
