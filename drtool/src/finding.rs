//! What a check found: how bad, under which name, whose view it is, and what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codes;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// It will hurt if it stays.
    Warning,
    /// It hurts.
    Error,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// A name of [`crate::codes`].
    pub code: &'static str,
    /// Whose view this is: `file PATH`, `node node1`, `leader of config/0`, `store URL`.
    pub view: String,
    /// What was found.
    pub what: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Finding {
    /// A finding with the remedy of its code's page for a hint, where it is more than worth knowing.
    pub fn new(
        severity: Severity,
        code: &'static str,
        view: impl Into<String>,
        what: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            code,
            view: view.into(),
            what: what.into(),
            hint: codes::find(code)
                .filter(|_| severity > Severity::Info)
                .map(|page| page.remedy.to_owned()),
        }
    }

    /// The same, with what to do just here.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity}[{}] {}: {}", self.code, self.view, self.what)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_hurts_says_what_to_do() {
        let hint = |severity| {
            Finding::new(
                severity,
                "DRILL_HASH_DIFFERS",
                "node n1",
                "it had another state",
            )
            .hint
        };
        let page = codes::find("DRILL_HASH_DIFFERS").map(|page| page.remedy.to_owned());
        assert!(page.is_some());
        assert_eq!(hint(Severity::Error), page);
        assert_eq!(hint(Severity::Warning), page);
        assert_eq!(hint(Severity::Info), None, "nothing is to be done");
        let own = Finding::new(Severity::Error, "DRILL_HASH_DIFFERS", "", "").with_hint("look");
        assert_eq!(own.hint.as_deref(), Some("look"));
    }
}
