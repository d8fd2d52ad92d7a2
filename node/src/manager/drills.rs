//! When the last good drill was: from the names of the reports in the store, so that somebody is told when nobody rehearses.
//!
//! One small listing by the leader of `__meta/0`, every half hour. Nothing depends on it.

use std::time::{Duration, Instant};

use confman_snapshot::paths::ReportKind;
use confman_snapshot::repository::{DrillVerdict, ListedReport};

use super::{Failure, Manager};

/// How often the names are listed.
const LIST_EVERY: Duration = Duration::from_secs(1800);

impl Manager {
    /// At the leader of `__meta/0`: measures the age of the last good drill, now and then.
    pub(super) async fn look_at_drills(&self) -> Result<(), Failure> {
        if !self.node.meta().is_leader() {
            // The next time it leads it looks at once.
            *self.drills_seen.lock() = None;
            return Ok(());
        }
        let due = self
            .drills_seen
            .lock()
            .is_none_or(|at| at.elapsed() >= LIST_EVERY);
        if !due {
            return Ok(());
        }
        *self.drills_seen.lock() = Some(Instant::now());
        let repository = self.node.store().repository().await?;
        let listed = repository.list_reports(ReportKind::Drill).await?;
        metrics::gauge!("confman_drill_last_good_timestamp_seconds").set(last_good(&listed));
        Ok(())
    }
}

/// Seconds since 1970 UTC of the newest report of a drill that passed; 0 when there is none.
fn last_good(listed: &[ListedReport]) -> f64 {
    listed
        .iter()
        .filter(|report| report.drill_verdict() == Some(DrillVerdict::Passed))
        .map(|report| report.created_us)
        .max()
        .map_or(0.0, |us| us as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_drill_that_passed_counts() {
        let report = |seconds: i64, id: String| ListedReport {
            created_us: seconds * 1_000_000,
            id,
            object: String::new(),
        };
        let failed = report(30, DrillVerdict::Failed.report_id(1));
        let degraded = report(20, DrillVerdict::Degraded.report_id(2));
        let passed = report(10, DrillVerdict::Passed.report_id(3));
        let foreign = report(40, "b6f0".to_owned());
        assert_eq!(last_good(&[failed.clone(), degraded.clone(), foreign]), 0.0);
        assert_eq!(last_good(&[failed, degraded, passed]), 10.0);
    }
}
