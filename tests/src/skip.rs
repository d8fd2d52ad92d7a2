//! Says that a test was skipped, so that it is seen.

use std::io::Write as _;

/// Names the test and the reason on the real stderr: what a passing test prints otherwise is kept back by the test runner.
pub fn skipped(test: &str, why: impl std::fmt::Display) {
    // Nobody to tell is no reason to fail.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}
