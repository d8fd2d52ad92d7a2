//! How a command ends when it does not succeed: a message, a hint and an exit code by kind of remedy.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use confman_client::{ClientError, ErrorKind};

/// The end of a command that did not do all it was asked.
#[derive(Debug)]
pub enum Failure {
    /// What went wrong and what to do about it.
    Told {
        /// Decides the exit code.
        kind: ErrorKind,
        /// One line, lower case.
        message: String,
        /// What to do.
        hint: Option<String>,
        /// The stable name of this refusal, for `drtool explain` and for scripts.
        code: Option<&'static str>,
        /// Whose view it is, when that is more than this command's own: `node URL`, `store URL`.
        view: Option<String>,
        /// What stands against it as well, where there is more than one reason.
        also: Vec<Self>,
    },
    /// Whoever read stdout has gone, as `head` does: nothing to say to nobody.
    PipeClosed,
}

impl Failure {
    /// A failure of this kind, said in one line of lower case.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::Told {
            kind,
            message: message.into(),
            hint: None,
            code: None,
            view: None,
            also: Vec::new(),
        }
    }

    /// The command, a setting or a local file is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// A local file or directory that does not do.
    pub fn local(doing: &str, path: &Path, error: &io::Error) -> Self {
        Self::usage(format!("{doing} {}: {error}", path.display()))
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn with_hint(mut self, text: impl Into<String>) -> Self {
        if let Self::Told { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    /// The same, under a stable name.
    #[must_use]
    pub fn coded(mut self, name: &'static str) -> Self {
        if let Self::Told { code, .. } = &mut self {
            *code = Some(name);
        }
        self
    }

    /// The same, as the view of whoever said it.
    #[must_use]
    pub fn seen_by(mut self, whom: impl Into<String>) -> Self {
        if let Self::Told { view, .. } = &mut self {
            *view = Some(whom.into());
        }
        self
    }

    /// The same, with further reasons. They are said before it, each with its own hint.
    #[must_use]
    pub fn with_also(mut self, further: Vec<Self>) -> Self {
        if let Self::Told { also, .. } = &mut self {
            *also = further;
        }
        self
    }

    /// What kind of remedy it needs; none when there is nobody to tell.
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Told { kind, .. } => Some(*kind),
            Self::PipeClosed => None,
        }
    }

    /// The document of it, for `--json`: the one on stdout when there is no other. None when there is nobody to tell.
    pub fn document(&self) -> Option<serde_json::Value> {
        let Self::Told {
            kind,
            message,
            hint,
            code,
            view,
            also,
        } = self
        else {
            return None;
        };
        let reason = |failure: &Self| match failure {
            Self::Told {
                message,
                hint,
                code,
                view,
                ..
            } => Some(
                serde_json::json!({ "code": code, "view": view, "message": message, "hint": hint }),
            ),
            Self::PipeClosed => None,
        };
        let reasons: Vec<_> = std::iter::once(self)
            .chain(also)
            .filter_map(reason)
            .collect();
        Some(serde_json::json!({ "error": {
            "code": code, "exitCode": kind.exit_code(), "view": view, "message": message, "hint": hint, "refusals": reasons,
        }}))
    }

    /// Says it on stderr, with `json` as the one document on stdout too where the command has printed none, and gives the exit code.
    pub fn report_as(&self, json: bool) -> ExitCode {
        let code = self.report();
        if json
            && !crate::output::is_document_begun()
            && let Some(document) = self.document()
        {
            // Whoever does not read stdout has read stderr.
            let _ = crate::output::json(&document);
        }
        code
    }

    /// Says it on stderr and gives the exit code. The only place where a command's failure is printed.
    pub fn report(&self) -> ExitCode {
        match self {
            Self::Told {
                kind,
                message,
                hint,
                code,
                also,
                view: _,
            } => {
                for other in also {
                    other.report();
                }
                let code = code.map_or_else(String::new, |code| format!("[{code}]"));
                eprintln!("error{code}: {}", crate::escape::text(message));
                if let Some(hint) = hint {
                    eprintln!("hint: {}", crate::escape::text(hint));
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
            code: None,
            view: error.answered_by().map(|node| format!("node {node}")),
            also: Vec::new(),
        }
    }
}

/// Writing to stdout failed.
pub fn stdout_failed(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Failure::PipeClosed
    } else {
        Failure::usage(format!("write to stdout: {error}"))
    }
}

/// The table of exit codes, for `--help`: which commands end with 1, and what each other code means in this program.
pub fn exit_codes_help(checks: &str, meaning: fn(ErrorKind) -> &'static str) -> String {
    let mut text = format!("Exit codes:\n   0  success\n   1  a check answered no ({checks})\n");
    for kind in ErrorKind::ALL {
        text.push_str(&format!("  {:>2}  {}\n", kind.exit_code(), meaning(kind)));
    }
    text
}
