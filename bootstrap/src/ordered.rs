//! Gives the groups of a node that carries out a restore order their state: from exactly the snapshots that it names.
//!
//! Promises, beside those of [`crate::restore`]: nothing but the ordered snapshot becomes the state, because every member
//! must begin from the same one; there is no older one and no leader to fall back to. A snapshot that is no good, and a
//! store that does not answer, are errors that leave nothing behind: the operator, or time, decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use confman_snapshot::SnapshotRecord;
use confman_snapshot::model::Membership;
use confman_store::GroupPaths;
use futures::StreamExt;
use tokio::time::Instant;

use crate::error::RestoreError;
use crate::report::{RestoreReport, Stage, one_line};
use crate::restore::{Failure, Place, RestoreOutcome, Restorer, stop_at};

/// One group to restore by an order.
#[derive(Debug, Clone)]
pub struct OrderedTask {
    /// Where the group's data go.
    pub paths: GroupPaths,
    /// The snapshot that the order names.
    pub record: SnapshotRecord,
    /// The members from its position on.
    pub members: Membership,
    /// The term that the new life votes above.
    pub term: u64,
    /// The id that the order gives to this node.
    pub node_id: u64,
}

impl OrderedTask {
    pub(crate) fn candidacy(&self) -> (u64, u64) {
        (self.term, self.node_id)
    }
}

impl Restorer {
    /// Restores the groups of an order, a bounded number at once; results in the order of the tasks. Run again, it does
    /// what is left.
    ///
    /// # Errors
    /// The first group's, after the others have ended: what they have finished need not be fetched again.
    pub async fn restore_ordered(
        &self,
        tasks: &[OrderedTask],
    ) -> Result<Vec<RestoreOutcome>, RestoreError> {
        let mut raw_bytes = 0_u64;
        for task in tasks {
            if self.earlier_run(&task.paths)?.is_none() {
                raw_bytes = raw_bytes.saturating_add(task.record.raw_bytes);
            }
        }
        if let Some(first) = tasks.first().filter(|_| raw_bytes > 0) {
            let what = format!("{} groups", tasks.len());
            self.need(&what, first.paths.dir(), raw_bytes)?;
        }
        let parallel = self.limits.parallel.max(1);
        let mut running =
            futures::stream::iter(tasks.iter().map(|task| self.one(task))).buffered(parallel);
        let mut ended = Vec::with_capacity(tasks.len());
        while let Some(outcome) = running.next().await {
            ended.push(outcome);
        }
        ended.into_iter().collect()
    }

    async fn one(&self, task: &OrderedTask) -> Result<RestoreOutcome, RestoreError> {
        if let Some(report) = self.earlier_run(&task.paths)? {
            return Ok(RestoreOutcome::Already(report));
        }
        self.clear_half_product(&task.paths).await?;
        let began = Instant::now();
        let mut report = self.new_report(task.paths.group());
        report.newest_index = Some(task.record.position.index);
        self.fetch(task, &mut report).await?;
        report.took_us = began.elapsed().as_micros() as u64;
        stop_at("restore::installed")?;
        report.stage = Stage::Installed.into();
        self.write(&task.paths, &report).await?;
        tracing::info!("restored {}", report.summary());
        Ok(RestoreOutcome::FromStore(report))
    }

    async fn fetch(
        &self,
        task: &OrderedTask,
        report: &mut RestoreReport,
    ) -> Result<(), RestoreError> {
        let (group, snapshot) = (task.paths.group().clone(), task.record.id.to_string());
        let Some(repository) = &self.repository else {
            let why = "there is no store".to_owned();
            return Err(RestoreError::Unreachable {
                group,
                snapshot,
                why,
            });
        };
        let place = Place {
            paths: &task.paths,
            ordered: Some(task),
        };
        let read_bytes = Arc::new(AtomicU64::new(0));
        let tried = self
            .try_snapshot(&place, &task.record, repository, &read_bytes, report)
            .await;
        report.read_bytes = read_bytes.load(Ordering::Relaxed);
        tried.map_err(|failure| match failure {
            Failure::Bad(why) => RestoreError::NotWhole {
                group,
                snapshot,
                why: one_line(&why),
            },
            Failure::Unreachable(why) => RestoreError::Unreachable {
                group,
                snapshot,
                why: one_line(&why),
            },
            Failure::Here(error) => error,
        })
    }
}
