//! What settings ask of the machine, by argument so that tests can answer instead.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// The longest secret file that is read.
pub(crate) const SECRET_FILE_BYTES_MAX: u64 = 16 * 1024;

/// Facts about the machine.
pub trait Machine {
    /// The machine's name, where it has one that is text.
    fn host_name(&self) -> Option<String>;
    /// The content of a secret's file.
    ///
    /// # Errors
    /// When it cannot be read, is not a regular file, or is longer than 16 KiB.
    fn read_secret(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// The machine this process runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThisMachine;

impl Machine for ThisMachine {
    fn host_name(&self) -> Option<String> {
        let name = rustix::system::uname().nodename().to_str().ok()?.to_owned();
        (!name.is_empty()).then_some(name)
    }

    fn read_secret(&self, path: &Path) -> io::Result<Vec<u8>> {
        // Before opening: opening a pipe that nobody writes to waits for ever.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut bytes = Vec::new();
        File::open(path)?
            .take(SECRET_FILE_BYTES_MAX + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > SECRET_FILE_BYTES_MAX {
            return Err(io::Error::other(format!(
                "it is longer than {SECRET_FILE_BYTES_MAX} bytes"
            )));
        }
        Ok(bytes)
    }
}
