//! How a command ends when it does not succeed: a message, a hint and an exit code by kind of remedy.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use confman_client::{ClientError, ErrorKind};

/// The end of a command that did not do all it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What went wrong and what to do about it.
    Told {
        /// Decides the exit code.
        kind: ErrorKind,
        /// One line, lower case.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// Whoever read stdout has gone, as `head` does: nothing to say to nobody.
    PipeClosed,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::Told {
            kind,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// A local file or directory that does not do.
    pub(crate) fn local(doing: &str, path: &Path, error: &io::Error) -> Self {
        Self::usage(format!("{doing} {}: {error}", path.display()))
    }

    #[must_use]
    pub(crate) fn with_hint(self, text: impl Into<String>) -> Self {
        match self {
            Self::Told { kind, message, .. } => Self::Told {
                kind,
                message,
                hint: Some(text.into()),
            },
            Self::PipeClosed => Self::PipeClosed,
        }
    }

    pub(crate) fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Told { kind, .. } => Some(*kind),
            Self::PipeClosed => None,
        }
    }

    /// Says it on stderr and gives the exit code. The only place where a command's failure is printed.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            Self::Told {
                kind,
                message,
                hint,
            } => {
                eprintln!("error: {}", super::escape::text(message));
                if let Some(hint) = hint {
                    eprintln!("hint: {}", super::escape::text(hint));
                }
                ExitCode::from(kind.exit_code())
            }
            Self::PipeClosed => ExitCode::SUCCESS,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Told { message, .. } => f.write_str(message),
            Self::PipeClosed => f.write_str("stdout is closed"),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Told {
            kind: error.kind(),
            message: error.to_string(),
            hint: error.hint(),
        }
    }
}

/// Writing to stdout failed.
pub(crate) fn stdout_failed(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Failure::PipeClosed
    } else {
        Failure::usage(format!("write to stdout: {error}"))
    }
}

/// The table of exit codes, for `confman --help`.
pub(crate) fn exit_codes_help() -> String {
    let mut text =
        String::from("Exit codes:\n   0  success\n   1  a check answered no (status, health)\n");
    for kind in ErrorKind::ALL {
        text.push_str(&format!("  {:>2}  {}\n", kind.exit_code(), kind.meaning()));
    }
    text
}
