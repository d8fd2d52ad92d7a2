//! What can be wrong with a file.

use std::fmt;
use std::path::PathBuf;

/// One wrong file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} names {}: {why}", path.display())]
pub struct FileError {
    /// The setting that names it.
    pub setting: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
    /// What to do.
    pub hint: String,
    /// Nothing is wrong with it but the time.
    pub by_time: bool,
}

/// All that is wrong; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileErrors(pub(crate) Vec<FileError>);

impl FileErrors {
    /// Each of them.
    #[must_use]
    pub fn all(&self) -> &[FileError] {
        &self.0
    }

    /// Whether nothing is wrong but the time: a certificate that does not count yet or any more.
    #[must_use]
    pub fn only_by_time(&self) -> bool {
        self.0.iter().all(|error| error.by_time)
    }

    /// All of them on one line, for a log.
    #[must_use]
    pub fn on_one_line(&self) -> String {
        let each = self.0.iter().map(|e| format!("{e} (hint: {})", e.hint));
        each.collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for FileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            let end = if at == 0 { "" } else { "\n" };
            write!(f, "{end}{error}\nhint: {}", error.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for FileErrors {}
