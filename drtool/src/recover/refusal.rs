//! Why there is no plan: everything that stands against it, each with its name and what to do.

use std::fmt;

use confman_cli::failure::Failure;
use confman_client::ErrorKind;
use serde::Serialize;

use crate::codes;

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// A name of [`crate::codes`].
    pub code: &'static str,
    /// What stands against it.
    pub what: String,
    /// What to do.
    pub hint: String,
}

impl Refusal {
    pub(super) fn new(
        code: &'static str,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            code,
            what: what.into(),
            hint: hint.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}\n  hint: {}", self.code, self.what, self.hint)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        codes::refuse(refusal.code, ErrorKind::Refused, refusal.what).with_hint(refusal.hint)
    }
}

/// How a command ends that refuses for these reasons: the first is the error, the others are said before it.
pub(super) fn failure(refusals: Vec<Refusal>) -> Failure {
    let mut refusals = refusals.into_iter();
    let Some(first) = refusals.next() else {
        return codes::refuse("BUG", ErrorKind::Bug, "refused without a reason");
    };
    for other in refusals {
        eprintln!("{}", confman_cli::escape::lines(&other.to_string()));
    }
    first.into()
}
