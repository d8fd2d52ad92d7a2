//! What a leader remembers of snapshots that failed: who shall not build the next one, and how long to wait for it.
//!
//! The failure itself is committed in `__meta/0`, so a new leader knows the last one and begins from there. A store that is down is
//! noticed to be back by the next attempt, at most five minutes later; where this node saw it go and come, within half a minute.

use std::time::{Duration, Instant};

use confman_store::records::{SnapshotFailure, SnapshotTask};

use super::{Failure, Manager};
use crate::group::Group;
use crate::node::Node;

const WAIT_FIRST: Duration = Duration::from_secs(5);
const WAIT_MAX: Duration = Duration::from_secs(240);
/// While snapshots of groups that this node leads fail, it looks this often whether the store answers.
const LOOK_EVERY: Duration = Duration::from_secs(20);

/// The failures of one group since its last snapshot.
#[derive(Debug, Default)]
pub(super) struct Setbacks {
    last_task: String,
    /// Whose tasks failed, each once, the latest last.
    builders: Vec<u64>,
    in_a_row: u32,
    hurried: bool,
}

impl Setbacks {
    /// Takes note of the task that failed last; the same one counts once.
    fn saw(&mut self, task: &SnapshotTask) {
        if task.task_id == self.last_task {
            return;
        }
        self.last_task.clone_from(&task.task_id);
        self.builders.retain(|builder| *builder != task.node);
        self.builders.push(task.node);
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.hurried = false;
    }

    /// How long after the last failure the next attempt is made.
    fn wait(&self) -> Duration {
        if self.hurried {
            return Duration::ZERO;
        }
        wait_after(self.in_a_row, &self.last_task)
    }
}

/// 5 seconds, twice as long with each failure in a row, at most four minutes; and up to a quarter more, so that the groups of a
/// cluster do not all come back to a store at the same moment. Task ids are random: what is derived from one is as good as drawn.
fn wait_after(in_a_row: u32, task_id: &str) -> Duration {
    let doubled = in_a_row.saturating_sub(1).min(16);
    let wait = WAIT_FIRST.saturating_mul(1 << doubled).min(WAIT_MAX);
    let drawn = task_id.bytes().fold(0_u32, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u32::from(byte))
    });
    wait + wait * (drawn % 256) / 1024
}

/// How the last snapshot task of a group failed; none when it did not.
pub(super) fn last_failure(
    node: &Node,
    group: &Group,
) -> Result<Option<(SnapshotTask, SnapshotFailure)>, Failure> {
    let name = group.id().to_string();
    let failures = node.meta().state().snapshot_failures()?;
    Ok(failures.into_iter().find_map(|failure| {
        let task = failure.task.clone().filter(|task| task.group == name)?;
        Some((task, failure))
    }))
}

impl Manager {
    /// Whose tasks failed since the group's last snapshot; none while it is too early for another.
    pub(super) fn may_try(&self, group: &Group) -> Result<Option<Vec<u64>>, Failure> {
        let failure = last_failure(&self.node, group)?;
        let mut failed = self.failed.lock();
        let Some((task, failure)) = failure else {
            failed.remove(group.id());
            return Ok(Some(Vec::new()));
        };
        let setbacks = failed.entry(group.id().clone()).or_default();
        setbacks.saw(&task);
        let now_us = self.node.meta().now_us();
        let age_us = now_us.saturating_sub(failure.time_us).max(0);
        let age = Duration::from_micros(age_us.unsigned_abs());
        Ok((age >= setbacks.wait()).then(|| setbacks.builders.clone()))
    }

    /// While snapshots of groups that this node leads fail: sees whether the store went away and came back, and then lets
    /// nobody wait any longer.
    pub(super) async fn watch_the_store(&self) {
        let leads = |id: &_| self.node.group(id).is_some_and(|g| g.is_leader());
        let quiet = {
            let mut failed = self.failed.lock();
            failed.retain(|id, _| leads(id));
            failed.is_empty()
        };
        let seen = *self.store_seen.lock();
        let was_away = match seen {
            _ if quiet => {
                *self.store_seen.lock() = None;
                return;
            }
            Some((at, _)) if at.elapsed() < LOOK_EVERY => return,
            Some((_, away)) => away,
            None => false,
        };
        let away = self.node.store().look().await.is_err();
        *self.store_seen.lock() = Some((Instant::now(), away));
        if was_away && !away {
            tracing::info!("the object store answers again: snapshots that failed are tried now");
            for setbacks in self.failed.lock().values_mut() {
                setbacks.hurried = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: &str, node: u64) -> SnapshotTask {
        SnapshotTask {
            task_id: id.to_owned(),
            node,
            ..SnapshotTask::default()
        }
    }

    #[test]
    fn the_wait_doubles_up_to_minutes_and_is_spread_by_the_task() {
        let seconds = |in_a_row| wait_after(in_a_row, "").as_secs();
        let waits: Vec<u64> = (1..=8).map(seconds).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 240, 240]);
        assert_eq!(seconds(u32::MAX), 240);
        let drawn: std::collections::BTreeSet<Duration> = (0..100)
            .map(|n| wait_after(7, &format!("task {n}")))
            .collect();
        assert!(drawn.len() > 50, "{} of 100 differ", drawn.len());
        let bounds = WAIT_MAX..WAIT_MAX * 5 / 4;
        assert!(drawn.iter().all(|wait| bounds.contains(wait)), "{drawn:?}");
    }

    #[test]
    fn each_failure_counts_once_and_the_latest_builder_is_last() {
        let mut setbacks = Setbacks::default();
        for (id, node) in [("a", 2), ("a", 2), ("b", 3), ("b", 3), ("c", 2)] {
            setbacks.saw(&task(id, node));
        }
        assert_eq!(setbacks.in_a_row, 3);
        assert_eq!(setbacks.builders, [3, 2]);
        assert!(setbacks.wait() >= Duration::from_secs(20));
    }

    #[test]
    fn a_store_that_is_back_ends_the_wait_until_the_next_failure() {
        let mut setbacks = Setbacks::default();
        setbacks.saw(&task("a", 2));
        setbacks.hurried = true;
        assert_eq!(setbacks.wait(), Duration::ZERO);
        setbacks.saw(&task("a", 2));
        assert_eq!(setbacks.wait(), Duration::ZERO, "the failure from before");
        setbacks.saw(&task("b", 3));
        assert!(setbacks.wait() >= Duration::from_secs(10));
    }
}
