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
    let mut refusals = refusals.into_iter().map(Failure::from);
    match refusals.next() {
        Some(first) => first.with_also(refusals.collect()),
        None => codes::bug("refused without a reason"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that stands against a plan is in the one document that a script reads.
    #[test]
    fn no_refusal_is_lost_on_a_script() {
        let refusals = ["RECOVER_TOO_FEW", "RECOVER_RUNNING", "RECOVER_BEHIND"]
            .map(|code| Refusal::new(code, format!("{code} it is"), "do this"));
        let document = failure(refusals.to_vec()).document();
        let error = &document.unwrap_or_default()["error"];
        assert_eq!(error["code"], "RECOVER_TOO_FEW");
        let told = error["refusals"].as_array().into_iter().flatten();
        let told: Vec<_> = told.map(|refusal| &refusal["code"]).collect();
        assert_eq!(
            told,
            ["RECOVER_TOO_FEW", "RECOVER_RUNNING", "RECOVER_BEHIND"]
        );
        assert_eq!(failure(Vec::new()).kind(), Some(ErrorKind::Bug));
    }
}
