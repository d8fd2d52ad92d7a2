//! A file that redb may write to as it likes: what it writes stays in memory.
//!
//! redb mends a database that was not closed, when it opens it and when it lets go of it. Here the file is read and never
//! written; the pages that redb would have changed are kept beside it, and end with it.

use std::collections::BTreeMap;
use std::io;

use parking_lot::Mutex;
use redb::StorageBackend;

use super::file::ReadFile;

const BLOCK_BYTES: u64 = 4096;
/// Most bytes of changed blocks: mending takes a few pages for each gigabyte of database.
const CHANGED_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The file with what redb wrote over it.
#[derive(Debug)]
pub(super) struct Overlay {
    file: ReadFile,
    changes: Mutex<Changes>,
}

#[derive(Debug)]
struct Changes {
    len: u64,
    /// Up to where the file's bytes count: what was cut off and grown again is zero.
    of_file: u64,
    blocks: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    pub(super) fn new(file: ReadFile) -> Self {
        let len = file.len();
        Self {
            file,
            changes: Mutex::new(Changes {
                len,
                of_file: len,
                blocks: BTreeMap::new(),
            }),
        }
    }

    /// The bytes of the file from `at` on, zeros behind its end.
    fn read_file(&self, of_file: u64, at: u64, out: &mut [u8]) -> io::Result<()> {
        let there = of_file.saturating_sub(at).min(out.len() as u64) as usize;
        let (from_file, behind) = out.split_at_mut(there);
        behind.fill(0);
        self.file.read_at(at, from_file)
    }

    /// Calls `each` with every block that a range touches: its number, where in it, and where in the range.
    fn blocks(
        at: u64,
        len: usize,
        mut each: impl FnMut(u64, std::ops::Range<usize>, std::ops::Range<usize>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let here = at + done as u64;
            let inside = (here % BLOCK_BYTES) as usize;
            let count = (BLOCK_BYTES as usize - inside).min(len - done);
            each(
                here / BLOCK_BYTES,
                inside..inside + count,
                done..done + count,
            )?;
            done += count;
        }
        Ok(())
    }
}

fn beyond(at: u64, len: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("{len} bytes at {at} are beyond the end"),
    )
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.changes.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let changes = self.changes.lock();
        match offset.checked_add(out.len() as u64) {
            Some(end) if end <= changes.len => {}
            _ => return Err(beyond(offset, out.len())),
        }
        self.read_file(changes.of_file, offset, out)?;
        if changes.blocks.is_empty() {
            return Ok(());
        }
        Self::blocks(offset, out.len(), |number, inside, range| {
            if let Some(block) = changes.blocks.get(&number) {
                out[range].copy_from_slice(&block[inside]);
            }
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut changes = self.changes.lock();
        if len < changes.len {
            changes.of_file = changes.of_file.min(len);
            let cut = len.div_ceil(BLOCK_BYTES);
            drop(changes.blocks.split_off(&cut));
            if let Some(last) = changes.blocks.get_mut(&(len / BLOCK_BYTES)) {
                last[(len % BLOCK_BYTES) as usize..].fill(0);
            }
        }
        changes.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut changes = self.changes.lock();
        match offset.checked_add(data.len() as u64) {
            Some(end) if end <= changes.len => {}
            _ => return Err(beyond(offset, data.len())),
        }
        let of_file = changes.of_file;
        Self::blocks(offset, data.len(), |number, inside, range| {
            if !changes.blocks.contains_key(&number) {
                if changes.blocks.len() as u64 * BLOCK_BYTES >= CHANGED_BYTES_MAX {
                    return Err(io::Error::other(format!(
                        "mending the database takes more than {CHANGED_BYTES_MAX} bytes of memory"
                    )));
                }
                let mut block = vec![0; BLOCK_BYTES as usize].into_boxed_slice();
                self.read_file(of_file, number * BLOCK_BYTES, &mut block)?;
                changes.blocks.insert(number, block);
            }
            if let Some(block) = changes.blocks.get_mut(&number) {
                block[inside].copy_from_slice(&data[range]);
            }
            Ok(())
        })
    }
}
