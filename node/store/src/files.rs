//! Small files and directories, written so that a crash leaves the old or the new.
//!
//! A durable file of ours is: magic (8 bytes), version (u32), length of the body (u32), body, CRC32 of all before
//! (u32); numbers big-endian.

use std::fs::{File, OpenOptions};
use std::hash::Hasher;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use codeq::config::{CodeqConfig, Crc32fast};

use crate::error::StoreError;
use crate::paths::half_written;

const HEAD_BYTES: usize = 16;
const SUM_BYTES: usize = 4;
/// Largest body that is read.
const BODY_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The kind of a durable file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    pub(crate) magic: [u8; 8],
    /// The newest version that this program reads, and the one that it writes.
    pub(crate) version: u32,
    pub(crate) hint: &'static str,
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(StoreError::io("sync", dir))
}

/// Replaces a file: temporary file, sync, rename, sync of the directory.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let temporary = half_written(path);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(StoreError::io("write", &temporary))?;
    std::fs::rename(&temporary, path).map_err(StoreError::io("replace", path))?;
    sync_dir(dir)
}

/// The whole bytes of a durable file.
pub(crate) fn seal(format: Format, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len() + SUM_BYTES);
    bytes.extend_from_slice(&format.magic);
    bytes.extend_from_slice(&format.version.to_be_bytes());
    bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
    bytes.extend_from_slice(body);
    let sum = crc32(&bytes);
    bytes.extend_from_slice(&sum.to_be_bytes());
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    crc32_of(&[bytes])
}

/// CRC32 of pieces, one after the other.
pub(crate) fn crc32_of(pieces: &[&[u8]]) -> u32 {
    let mut hasher = <Crc32fast as CodeqConfig>::Hasher::default();
    pieces.iter().for_each(|piece| hasher.write(piece));
    hasher.finish() as u32
}

/// The body of a durable file; none when there is no file.
pub(crate) fn read_sealed(path: &Path, format: Format) -> Result<Option<Vec<u8>>, StoreError> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(StoreError::io("open", path)(e)),
    };
    let mut bytes = Vec::new();
    // One byte more than the largest file tells that it is too large.
    let limit = BODY_BYTES_MAX + (HEAD_BYTES + SUM_BYTES) as u64 + 1;
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(StoreError::io("read", path))?;
    unseal(path, format, &bytes).map(Some)
}

/// The body in the bytes of a durable file.
pub(crate) fn unseal(path: &Path, format: Format, bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
    let damaged = |detail: String| StoreError::Damaged {
        path: path.to_owned(),
        detail,
        hint: format.hint,
    };
    let word = |at: usize| -> Option<u32> {
        bytes
            .get(at..at + 4)
            .and_then(|b| b.try_into().ok())
            .map(u32::from_be_bytes)
    };
    let (Some(version), Some(length)) = (word(8), word(12)) else {
        return Err(damaged(format!("{} bytes are too few", bytes.len())));
    };
    if bytes[..8] != format.magic {
        return Err(damaged(format!(
            "it begins with {}, which is none of ours",
            hex::encode(&bytes[..8])
        )));
    }
    let end = HEAD_BYTES + length as usize;
    // The sum is checked first: a damaged version must not look like one of a newer program.
    if end + SUM_BYTES != bytes.len() {
        return Err(damaged(format!(
            "it has {} bytes, its head says {}",
            bytes.len(),
            end + SUM_BYTES
        )));
    }
    let (found, expected) = (crc32(&bytes[..end]), word(end).unwrap_or_default());
    if found != expected {
        return Err(damaged(format!(
            "its checksum is {found:08x}, it says {expected:08x}"
        )));
    }
    if version > format.version {
        return Err(StoreError::NewerVersion {
            path: path.to_owned(),
            found: version,
            newest: format.version,
        });
    }
    Ok(bytes[HEAD_BYTES..end].to_vec())
}
