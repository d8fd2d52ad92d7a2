//! How long it is good that something was looked at: an operator may think about a plan for long, and gigabytes may be read in
//! between.

use std::time::{Duration, Instant};

const GOOD_FOR: Duration = Duration::from_secs(5);

/// When it was begun to look, last.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LastLook(Option<Instant>);

impl LastLook {
    /// Now. To be made before anything is asked: an answer may be as old as the question.
    pub(crate) fn now() -> Self {
        Self(Some(Instant::now()))
    }

    /// Whether what was seen then still counts.
    pub(crate) fn is_good(self) -> bool {
        self.0.is_some_and(|looked| looked.elapsed() < good_for())
    }
}

fn good_for() -> Duration {
    // As short as a test says.
    fail::fail_point!("look::good-for-ms", |ms| {
        let ms = ms.and_then(|ms| ms.parse().ok());
        ms.map_or(GOOD_FOR, Duration::from_millis)
    });
    GOOD_FOR
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_looked_at_or_long_ago_is_looked_at_again() {
        assert!(!LastLook::default().is_good());
        assert!(LastLook::now().is_good());
        let long_ago = Instant::now().checked_sub(GOOD_FOR);
        assert!(!LastLook(long_ago).is_good());
    }
}
