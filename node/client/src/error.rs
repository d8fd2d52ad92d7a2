//! Errors by what the user must do about them, and the one table of exit codes.

use std::path::PathBuf;

use crate::wire::{Problem, ProblemKind};

/// What kind of remedy an error needs. Each has one exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Change the command, the settings or the file.
    Usage,
    /// The cluster understood and said no.
    Refused,
    /// There is nothing by that name.
    NotFound,
    /// Bytes are not what their checksum says.
    Damaged,
    /// No node answered, or none that could; try again, or see to the cluster.
    Unreachable,
    /// It may have happened, or happened in part; look before repeating.
    Unknown,
    /// A defect of Confman.
    Bug,
}

impl ErrorKind {
    /// Every kind, in the order of the exit codes.
    pub const ALL: [Self; 7] = [
        Self::Usage,
        Self::Refused,
        Self::NotFound,
        Self::Damaged,
        Self::Unreachable,
        Self::Unknown,
        Self::Bug,
    ];

    /// The exit code of a command that ends this way. 0 is success, 1 the answer "no" of a check.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Usage => 2,
            Self::Refused => 3,
            Self::NotFound => 4,
            Self::Damaged => 5,
            Self::Unreachable => 6,
            Self::Unknown => 7,
            Self::Bug => 70,
        }
    }

    /// The meaning in a few words, for help pages.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Usage => "wrong usage: the command, a setting or a local file",
            Self::Refused => "refused by the cluster",
            Self::NotFound => "not found",
            Self::Damaged => "damaged data",
            Self::Unreachable => "no node could answer",
            Self::Unknown => "unknown outcome, or done in part",
            Self::Bug => "a defect of Confman",
        }
    }

    /// The kind of a problem that a node answered with.
    pub fn of_problem(problem: &Problem) -> Self {
        match problem.kind() {
            Some(
                ProblemKind::InvalidRequest
                | ProblemKind::InvalidName
                | ProblemKind::MethodNotAllowed,
            ) => Self::Usage,
            Some(
                ProblemKind::Unauthorized
                | ProblemKind::Forbidden
                | ProblemKind::OldIncarnation
                | ProblemKind::Refused
                | ProblemKind::MembershipChanged
                | ProblemKind::PreconditionFailed
                | ProblemKind::PayloadTooLarge
                | ProblemKind::IdempotencyKeyReused
                | ProblemKind::HeadersTooLarge,
            ) => Self::Refused,
            Some(ProblemKind::NotFound) => Self::NotFound,
            Some(
                ProblemKind::NotLeader
                | ProblemKind::NoLeader
                | ProblemKind::Unavailable
                | ProblemKind::SnapshotFailed
                | ProblemKind::ReadTimeout,
            ) => Self::Unreachable,
            Some(ProblemKind::WriteTimeout | ProblemKind::DeletedInPart) => Self::Unknown,
            Some(ProblemKind::Internal) => Self::Bug,
            None => match problem.status {
                404 => Self::NotFound,
                400..=499 => Self::Refused,
                502..=504 => Self::Unreachable,
                _ => Self::Bug,
            },
        }
    }
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Text that is no endpoint.
    #[error("not an endpoint: {text:?}: {why}")]
    Endpoint {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A name that cannot stand in a request path.
    #[error("not a {what}: {name:?}: {why}")]
    Name {
        /// `namespace` or `key`.
        what: &'static str,
        /// What was given.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Something that cannot be sent in a header.
    #[error("{what} holds characters that cannot be sent in a header")]
    Header {
        /// What it was to be.
        what: &'static str,
    },
    /// The HTTP client could not be set up.
    #[error("set up the HTTP client: {source}")]
    Setup {
        /// Why.
        source: reqwest::Error,
    },
    /// The file to send cannot be read.
    #[error("read {}: {source}", path.display())]
    Upload {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A node answered with a problem document.
    #[error("{endpoint} answered {}: {}", problem.status, problem.detail)]
    Problem {
        /// Who answered.
        endpoint: String,
        /// The answer.
        problem: Box<Problem>,
    },
    /// A redirect to a host that no node names as a member.
    #[error(
        "{from} sent the request on to {to}, which is neither a given endpoint nor a member of the cluster"
    )]
    ForeignRedirect {
        /// Who answered.
        from: String,
        /// Where it wanted the request to go.
        to: String,
    },
    /// No node could answer before the deadline.
    #[error("{method} {path}: no node could answer within {seconds:.1} s: {last}")]
    Unreachable {
        /// The method.
        method: String,
        /// The request path.
        path: String,
        /// How long it tried.
        seconds: f64,
        /// The last failure of each endpoint.
        last: String,
    },
    /// A write that was sent and never confirmed.
    #[error("{method} {path}: not confirmed within {seconds:.1} s, it may yet happen: {last}")]
    Unconfirmed {
        /// The method.
        method: String,
        /// The request path.
        path: String,
        /// How long it tried.
        seconds: f64,
        /// The last failure of each endpoint.
        last: String,
    },
    /// An answer that is not Confman's.
    #[error("{endpoint} gave an answer that is not Confman's: {why}")]
    Answer {
        /// Who answered.
        endpoint: String,
        /// What is wrong with it.
        why: String,
    },
    /// A download that broke off.
    #[error("{endpoint} broke off after {received} bytes: {why}")]
    BrokenOff {
        /// Who answered.
        endpoint: String,
        /// Bytes that had come.
        received: u64,
        /// What happened.
        why: String,
    },
}

impl ClientError {
    /// The node whose answer this is; none where nobody answered, or the request was never sent.
    #[must_use]
    pub fn answered_by(&self) -> Option<&str> {
        match self {
            Self::Problem { endpoint, .. }
            | Self::Answer { endpoint, .. }
            | Self::BrokenOff { endpoint, .. } => Some(endpoint),
            Self::ForeignRedirect { from, .. } => Some(from),
            _ => None,
        }
    }

    /// What kind of remedy it needs.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Endpoint { .. }
            | Self::Name { .. }
            | Self::Header { .. }
            | Self::Setup { .. }
            | Self::Upload { .. } => ErrorKind::Usage,
            Self::Problem { problem, .. } => ErrorKind::of_problem(problem),
            Self::ForeignRedirect { .. } => ErrorKind::Refused,
            Self::Unreachable { .. } | Self::Answer { .. } | Self::BrokenOff { .. } => {
                ErrorKind::Unreachable
            }
            Self::Unconfirmed { .. } => ErrorKind::Unknown,
        }
    }

    /// The problem document, when a node answered with one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem { problem, .. } => Some(problem),
            _ => None,
        }
    }

    /// Whether somebody is there who speaks TLS, or does not, and that is why it could not be asked.
    pub fn somebody_is_there(&self) -> bool {
        match self {
            // A node that speaks TLS has words for who comes in the clear.
            Self::Problem { .. } => true,
            Self::Unreachable { last, .. } | Self::Unconfirmed { last, .. } => {
                crate::handshake::hint(last).is_some()
            }
            _ => false,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Problem { problem, .. } => {
                return problem.hint.clone().or_else(|| match problem.kind() {
                    Some(ProblemKind::Unauthorized) => Some(
                        "set CONFMAN_API_KEY, or make a key with `confman key create`".to_owned(),
                    ),
                    Some(ProblemKind::Forbidden) => {
                        Some("use a key with a role that allows this".to_owned())
                    }
                    _ => None,
                });
            }
            Self::Endpoint { .. } => {
                "endpoints look like http://127.0.0.1:6100, with commas between"
            }
            Self::ForeignRedirect { to, .. } => {
                return Some(format!("if {to} is yours, add it to CONFMAN_ENDPOINTS"));
            }
            Self::Unreachable { last, .. } if crate::handshake::hint(last).is_some() => {
                return crate::handshake::hint(last).map(str::to_owned);
            }
            Self::Unreachable { .. } | Self::Answer { .. } => {
                "are the nodes of CONFMAN_ENDPOINTS running? the command `status` asks each"
            }
            Self::Unconfirmed { .. } => "read the key before writing it again",
            Self::BrokenOff { .. } => "run it again",
            Self::Name { .. } | Self::Header { .. } | Self::Setup { .. } | Self::Upload { .. } => {
                return None;
            }
        };
        Some(hint.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_distinct_and_none_means_success_or_no() {
        let codes: std::collections::BTreeSet<u8> =
            ErrorKind::ALL.iter().map(|kind| kind.exit_code()).collect();
        assert_eq!(codes.len(), ErrorKind::ALL.len());
        assert!(!codes.contains(&0) && !codes.contains(&1));
    }

    #[test]
    fn an_unknown_problem_goes_by_its_status() {
        let problem = |status| Problem {
            problem_type: "about:blank".to_owned(),
            title: String::new(),
            status,
            detail: String::new(),
            code: None,
            instance: None,
            hint: None,
            field: None,
            current_version: None,
        };
        assert_eq!(ErrorKind::of_problem(&problem(404)), ErrorKind::NotFound);
        assert_eq!(ErrorKind::of_problem(&problem(451)), ErrorKind::Refused);
        assert_eq!(ErrorKind::of_problem(&problem(502)), ErrorKind::Unreachable);
        assert_eq!(ErrorKind::of_problem(&problem(500)), ErrorKind::Bug);
    }
}
