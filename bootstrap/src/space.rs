//! How much room a disk has.

use std::io;
use std::path::{Path, PathBuf};

/// Bytes that this process may still write under `dir`.
pub(crate) fn free_bytes(dir: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// `dir`, or the nearest directory above it that exists.
pub(crate) fn existing(dir: &Path) -> PathBuf {
    dir.ancestors()
        .find(|ancestor| ancestor.is_dir())
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}
