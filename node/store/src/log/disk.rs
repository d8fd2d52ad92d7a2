//! The files of the log: how they are opened, and what is said when they are damaged.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use codeq::Span;
use raft_log::RaftWalTypes;
use raft_log::chunked_wal::ChunkedWal;

use super::codec::LogTypes;
use crate::error::StoreError;

/// Size of a chunk file. Entries of the newest chunk stay in memory, and purge drops whole chunks: keep it small.
const CHUNK_BYTES: usize = 16 * 1024 * 1024;
/// How long the writer collects before a sync. Just long enough to take all that is queued into one sync: with zero it
/// takes one write a sync, however many wait (tried: three times the syncs at 16 writers).
const COLLECT: Duration = Duration::from_micros(5);
const READ_BUFFER_BYTES: usize = 1024 * 1024;

const DAMAGED_HINT: &str = "run `drtool set-aside` on the data directory and start the node: it rejoins under a new id and loses nothing";

pub(super) fn config(dir: &Path, cache_bytes: usize) -> raft_log::Config {
    let mut config = raft_log::Config::new(dir.display());
    config.log_cache_capacity = Some(cache_bytes);
    config.wal.chunk_max_size = Some(CHUNK_BYTES);
    config.wal.read_buffer_size = Some(READ_BUFFER_BYTES);
    config.wal.flush_batch_wait = Some(COLLECT);
    // A record that a crash cut short was never acknowledged. Anything else that is wrong is refused: see `codec`.
    config.wal.truncate_incomplete_record = Some(true);
    config
}

/// Bytes of all chunk files.
pub(super) fn wal_bytes(dir: &Path) -> Result<u64, StoreError> {
    let list = || -> io::Result<u64> {
        let mut bytes = 0;
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|e| e == "wal") {
                bytes += entry.metadata()?.len();
            }
        }
        Ok(bytes)
    };
    list().map_err(StoreError::io("list", dir))
}

/// Makes durable what is there. A process that was killed may have written what it never synced: it is read back from the cache like
/// anything else, and must not be told of, or counted on, before no power loss takes it away.
pub(super) fn sync_wal(dir: &Path) -> Result<(), StoreError> {
    let sync = || -> io::Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "wal") {
                std::fs::File::open(path)?.sync_all()?;
            }
        }
        Ok(())
    };
    sync().map_err(StoreError::io("sync", dir))?;
    crate::files::sync_dir(dir)
}

pub(super) fn damaged(path: &Path, detail: String) -> StoreError {
    StoreError::Damaged {
        path: path.to_owned(),
        detail,
        hint: DAMAGED_HINT,
    }
}

/// Says which file is damaged, and where: the crate's own error does not.
pub(super) fn open_error(dir: &Path, config: &raft_log::Config, error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::NotFound
        | io::ErrorKind::StorageFull
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::WouldBlock => {
            return StoreError::Io {
                operation: "open the log",
                path: dir.into(),
                source: error,
            };
        }
        _ => {}
    }
    let mut found = None;
    if let Ok(lock) = ChunkedWal::<RaftWalTypes<LogTypes>>::acquire_lock(&config.wal) {
        let mut end = None;
        let scan = ChunkedWal::<RaftWalTypes<LogTypes>>::dump_records(
            &config.wal,
            &lock,
            |chunk, number, record| {
                match record {
                    Ok((segment, _)) => end = Some(segment.end().0),
                    Err(e) if found.is_none() => {
                        let after = if number == 0 { 0 } else { end.unwrap_or(0) };
                        let detail = format!("record {number} at byte {after} cannot be read: {e}");
                        found = Some((PathBuf::from(config.wal.chunk_path(chunk)), detail));
                    }
                    Err(_) => {}
                }
                Ok(())
            },
        );
        if let Err(e) = scan {
            tracing::debug!(error = %e, "the scan for the damage stopped");
        }
    }
    match found {
        Some((path, detail)) => damaged(&path, detail),
        None => damaged(dir, error.to_string()),
    }
}
