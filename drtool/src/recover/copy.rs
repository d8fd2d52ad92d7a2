//! A group's log and state, copied so that the original cannot be harmed by whatever runs on the copy.
//!
//! What is cheap and safe is shared: a log file that is closed is never written again, only removed, so a second name for
//! it does; the state is written in place, so it is cloned where the file system can, and copied where it cannot.

use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use confman_cli::failure::Failure;
use confman_store::GroupPaths;

use crate::codes;

/// The newest files of a log are copied: the last is written to, and a crash may have left an empty one after it.
const OPEN_FILES: usize = 2;
/// The ending of a log's files.
const LOG_FILE: &str = "wal";

/// What it took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Copied {
    /// Bytes that were copied.
    pub(super) copied_bytes: u64,
    /// Bytes that are shared with the original.
    pub(super) shared_bytes: u64,
}

impl std::ops::AddAssign for Copied {
    fn add_assign(&mut self, other: Self) {
        self.copied_bytes += other.copied_bytes;
        self.shared_bytes += other.shared_bytes;
    }
}

/// Makes a directory that only its owner may look into.
pub(super) fn make_dir(dir: &Path) -> Result<(), Failure> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| codes::local("create", dir, &e))
}

/// Makes the entries of a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), Failure> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| codes::local("sync", dir, &e))
}

/// How many bytes [`group`] would really write into a directory below `root`. Writes nothing that has a name.
pub(super) fn needed(from: &GroupPaths, root: &Path) -> Result<u64, Failure> {
    let files = log_files(&from.log())?;
    let closed = files.len().saturating_sub(OPEN_FILES);
    let mut needed = 0;
    for (number, file) in files.iter().enumerate() {
        // A second name costs nothing, and can be given on one file system only.
        if number >= closed || device(file)? != device(root)? {
            needed += size(file)?;
        }
    }
    for file in [from.state(), from.restored()] {
        if std::fs::symlink_metadata(&file).is_ok_and(|m| m.is_file()) && !can_clone(&file, root) {
            needed += size(&file)?;
        }
    }
    Ok(needed)
}

fn device(path: &Path) -> Result<u64, Failure> {
    let metadata = std::fs::metadata(path).map_err(|e| codes::local("look at", path, &e))?;
    Ok(metadata.dev())
}

/// Whether the file system shares blocks: tried with a file that has no name, and is gone with its descriptor.
fn can_clone(file: &Path, root: &Path) -> bool {
    use rustix::fs::{Mode, OFlags};
    let Ok(source) = File::open(file) else {
        return false;
    };
    let nameless = rustix::fs::open(
        root,
        OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC,
        Mode::RUSR | Mode::WUSR,
    );
    nameless.is_ok_and(|target| rustix::fs::ioctl_ficlone(&target, &source).is_ok())
}

/// Copies log, state and the account of its restore; durable when this returns.
pub(super) fn group(from: &GroupPaths, to: &GroupPaths) -> Result<Copied, Failure> {
    let mut done = Copied::default();
    make_dir(&to.log())?;
    let files = log_files(&from.log())?;
    let closed = files.len().saturating_sub(OPEN_FILES);
    for (number, file) in files.iter().enumerate() {
        let Some(name) = file.file_name() else {
            continue;
        };
        let target = to.log().join(name);
        done += if number < closed {
            share(file, &target)?
        } else {
            clone(file, &target)?
        };
    }
    for (file, target) in [(from.state(), to.state()), (from.restored(), to.restored())] {
        if std::fs::symlink_metadata(&file).is_ok_and(|m| m.is_file()) {
            done += clone(&file, &target)?;
        }
    }
    sync_dir(&to.log())?;
    sync_dir(to.dir())?;
    Ok(done)
}

/// The files of a log in their order: their names are the places where they begin, zero-padded.
fn log_files(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |e: io::Error| codes::local("list", dir, &e);
    let mut files = Vec::new();
    for item in std::fs::read_dir(dir).map_err(failed)? {
        let item = item.map_err(failed)?;
        let is_file = item.file_type().map_err(failed)?.is_file();
        if is_file && item.path().extension().is_some_and(|e| e == LOG_FILE) {
            files.push(item.path());
        }
    }
    files.sort();
    Ok(files)
}

/// A second name for a file; a copy where the file system has no second names.
fn share(from: &Path, to: &Path) -> Result<Copied, Failure> {
    match std::fs::hard_link(from, to) {
        Ok(()) => Ok(Copied {
            shared_bytes: size(from)?,
            ..Copied::default()
        }),
        Err(_) => clone(from, to),
    }
}

fn size(path: &Path) -> Result<u64, Failure> {
    let metadata = std::fs::metadata(path).map_err(|e| codes::local("look at", path, &e))?;
    Ok(metadata.len())
}

/// A file of its own with the same content: its blocks are shared until one of them is written, where that can be had.
fn clone(from: &Path, to: &Path) -> Result<Copied, Failure> {
    let failed = |e: io::Error| codes::local("copy to", to, &e);
    let source = File::open(from).map_err(|e| codes::local("read", from, &e))?;
    let target = File::create_new(to).map_err(failed)?;
    let bytes = size(from)?;
    let done = if rustix::fs::ioctl_ficlone(&target, &source).is_ok() {
        Copied {
            shared_bytes: bytes,
            ..Copied::default()
        }
    } else {
        drop(target);
        std::fs::copy(from, to).map_err(failed)?;
        Copied {
            copied_bytes: bytes,
            ..Copied::default()
        }
    };
    let written = File::open(to).map_err(failed)?;
    written.sync_all().map_err(failed)?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use confman_snapshot::model::GroupId;
    use confman_store::DataPaths;

    use super::*;

    #[test]
    fn what_may_be_written_is_a_file_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let paths = |name: &str| DataPaths::new(dir.path().join(name)).group(&GroupId::config(0));
        let (from, to) = (paths("old"), paths("new"));
        std::fs::create_dir_all(from.log()).unwrap();
        for name in ["r-1.wal", "r-2.wal", "r-3.wal", "LOCK"] {
            std::fs::write(from.log().join(name), name).unwrap();
        }
        std::fs::write(from.state(), "state").unwrap();
        std::fs::write(from.dir().join("state.redb.new"), "leftover").unwrap();
        let needed = needed(&from, dir.path()).unwrap();
        let done = group(&from, &to).unwrap();
        assert_eq!(done.copied_bytes + done.shared_bytes, 3 * 7 + 5);
        assert!(done.shared_bytes >= 7, "the closed file is shared");
        // Log files that are open are counted even where they could be cloned.
        assert!(
            needed >= done.copied_bytes && needed <= 2 * 7 + 5,
            "{needed}"
        );
        assert!(!to.log().join("LOCK").exists());
        assert!(!to.dir().join("state.redb.new").exists());
        for file in [
            to.log().join("r-2.wal"),
            to.log().join("r-3.wal"),
            to.state(),
        ] {
            std::fs::write(&file, "written").unwrap();
        }
        assert_eq!(
            std::fs::read(from.log().join("r-2.wal")).unwrap(),
            b"r-2.wal"
        );
        assert_eq!(
            std::fs::read(from.log().join("r-3.wal")).unwrap(),
            b"r-3.wal"
        );
        assert_eq!(std::fs::read(from.state()).unwrap(), b"state");
        // A file that is removed from the copy is still there in the original.
        std::fs::remove_file(to.log().join("r-1.wal")).unwrap();
        assert_eq!(
            std::fs::read(from.log().join("r-1.wal")).unwrap(),
            b"r-1.wal"
        );
    }
}
