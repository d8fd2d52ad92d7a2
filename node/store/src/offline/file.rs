//! The only place in this room that opens anything, and it opens for reading.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::error::StoreError;

/// A regular file that can be read and nothing else.
#[derive(Debug)]
pub(super) struct ReadFile {
    path: PathBuf,
    file: File,
    /// Its length when it was opened: what a running process appends later is not looked at.
    len: u64,
}

impl ReadFile {
    /// Opens a file; none when there is none. A link is not followed, a pipe not waited for.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, StoreError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(rustix::io::Errno::LOOP) => return Err(foreign(path, "a symbolic link")),
            Err(e) => return Err(StoreError::io("open", path)(e.into())),
        };
        let metadata = file.metadata().map_err(StoreError::io("look at", path))?;
        if !metadata.is_file() {
            return Err(foreign(path, "no regular file"));
        }
        Ok(Some(Self {
            path: path.to_owned(),
            file,
            len: metadata.len(),
        }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `out` from `at` on.
    pub(super) fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, at)
    }

    /// The whole file, when it has at most `limit` bytes.
    pub(super) fn read_all(&self, limit: u64) -> Result<Vec<u8>, StoreError> {
        if self.len > limit {
            return Err(StoreError::Damaged {
                path: self.path.clone(),
                detail: format!("it has {} bytes, the limit is {limit}", self.len),
                hint: "see what put it there",
            });
        }
        let mut bytes = vec![0; self.len as usize];
        self.read_at(0, &mut bytes)
            .map_err(StoreError::io("read", &self.path))?;
        Ok(bytes)
    }

    /// Whether there are only zeros from `at` to the end.
    pub(super) fn is_zero_from(&self, mut at: u64) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        while at < self.len {
            let part = &mut buffer[..(self.len - at).min(4096) as usize];
            self.read_at(at, part)?;
            if part.iter().any(|b| *b != 0) {
                return Ok(false);
            }
            at += part.len() as u64;
        }
        Ok(true)
    }

    /// Whether a process holds the lock of this file, and who, as far as the file says. Takes nothing: a lock that can
    /// be had is let go of at once.
    pub(super) fn lock_holder(&self) -> Result<Option<String>, StoreError> {
        use rustix::fs::FlockOperation as Op;
        match rustix::fs::flock(&self.file, Op::NonBlockingLockShared) {
            Ok(()) => {
                rustix::fs::flock(&self.file, Op::Unlock)
                    .map_err(|e| StoreError::io("unlock", &self.path)(e.into()))?;
                Ok(None)
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = vec![0; self.len.min(64) as usize];
                // What it says is for people only.
                drop(self.read_at(0, &mut text));
                let text = String::from_utf8_lossy(&text);
                let pid = text.trim();
                Ok(Some(if pid.is_empty() {
                    "another process".to_owned()
                } else {
                    format!("process {pid}")
                }))
            }
            Err(e) => Err(StoreError::io("look at the lock", &self.path)(e.into())),
        }
    }
}

fn foreign(path: &Path, found: &str) -> StoreError {
    StoreError::Foreign {
        path: path.to_owned(),
        what: "the kind of the file",
        found: found.to_owned(),
        expected: "a regular file of the data directory itself".to_owned(),
        hint: "move the data there, or link the whole data directory",
    }
}

/// A part of a file as a stream.
#[derive(Debug)]
pub(super) struct Section<'a> {
    file: &'a ReadFile,
    at: u64,
}

impl<'a> Section<'a> {
    pub(super) fn new(file: &'a ReadFile, at: u64) -> Self {
        Self { file, at }
    }
}

impl Read for Section<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.file.len.saturating_sub(self.at);
        let count = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.file.read_at(self.at, &mut out[..count])?;
        self.at += count as u64;
        Ok(count)
    }
}

/// What a directory holds, by name: at most `limit` names, and whether there are more. None where there is no
/// directory.
pub(super) fn list(
    dir: &Path,
    limit: usize,
) -> Result<Option<(Vec<std::fs::DirEntry>, bool)>, StoreError> {
    match std::fs::symlink_metadata(dir) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(foreign(dir, "no directory")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(StoreError::io("look at", dir)(e)),
    }
    let mut names = Vec::new();
    for item in std::fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
        if names.len() == limit {
            return Ok(Some((names, true)));
        }
        names.push(item.map_err(StoreError::io("list", dir))?);
    }
    names.sort_by_key(std::fs::DirEntry::file_name);
    Ok(Some((names, false)))
}
