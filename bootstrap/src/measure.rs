//! What is measured of a restore: how long it and its phases took, how they ended, and what was passed over.

use std::future::Future;

use confman_snapshot::model::GroupId;
use tokio::time::Instant;

use crate::error::RestoreError;
use crate::restore::RestoreOutcome;

/// Measures the restore of a group. One that an earlier run had finished is none.
pub(crate) async fn restore(
    group: &GroupId,
    restore: impl Future<Output = Result<RestoreOutcome, RestoreError>>,
) -> Result<RestoreOutcome, RestoreError> {
    let group = group.to_string();
    let skipped =
        metrics::counter!("confman_restore_skipped_snapshots_total", "group" => group.clone());
    // From its first value on, so that the first one that is passed over is an increase.
    skipped.increment(0);
    let began = Instant::now();
    let restored = restore.await;
    let (result, passed_over) = match &restored {
        Ok(RestoreOutcome::Already(_)) => return restored,
        Ok(RestoreOutcome::FromStore(report)) => ("store", report.skipped.len()),
        Ok(RestoreOutcome::NotFromStore(report)) => ("leader", report.skipped.len()),
        // There is no older one to go on with, and it is no good all the same.
        Err(RestoreError::NotWhole { .. }) => ("failed", 1),
        Err(_) => ("failed", 0),
    };
    skipped.increment(passed_over as u64);
    metrics::histogram!("confman_restore_seconds", "group" => group, "result" => result)
        .record(began.elapsed().as_secs_f64());
    restored
}

/// Measures one phase of the restore of a group.
pub(crate) async fn phase<T>(
    group: &GroupId,
    phase: &'static str,
    failed: impl FnOnce(&T) -> bool,
    work: impl Future<Output = T>,
) -> T {
    let began = Instant::now();
    let done = work.await;
    let result = if failed(&done) { "failed" } else { "ok" };
    metrics::histogram!(
        "confman_restore_phase_seconds", "group" => group.to_string(), "phase" => phase, "result" => result
    )
    .record(began.elapsed().as_secs_f64());
    done
}
