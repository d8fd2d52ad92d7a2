//! Whether the disks of the nodes have room, also for what a restore or a recovery builds beside the old contents. Pure.

use confman_cli::output;

use super::facts::ClusterFacts;
use super::report::{Check, Outcome, Subject};

/// Less of a disk free is a finding, in hundredths. The alert `ConfmanDiskFilling` comes earlier: it leaves time for an order.
const DISK_LOW_PERCENT: u64 = 10;
/// Less is a problem.
const DISK_FULL_PERCENT: u64 = 5;
/// What the nodes say of their disks.
pub(super) fn judge(facts: &ClusterFacts) -> Vec<Check> {
    let mut checks = Vec::new();
    for status in facts.accounts.iter().filter_map(|a| a.status.as_ref()) {
        let view = format!("node {}", status.node.name);
        let Some(disk) = &status.disk else {
            checks.push(Check::not(
                Subject::Disks,
                Outcome::Unknown,
                "CLUSTER_UNKNOWN",
                view,
                "it does not say how full its disk is",
                "look on that machine",
            ));
            continue;
        };
        let percent = u128::from(disk.free_bytes) * 100 / u128::from(disk.total_bytes.max(1));
        let percent = u64::try_from(percent).unwrap_or(100);
        let told = format!(
            "{} of {} free ({percent} %), {} in use by logs and states",
            output::bytes(disk.free_bytes),
            output::bytes(disk.total_bytes),
            output::bytes(disk.data_bytes)
        );
        if percent < DISK_LOW_PERCENT {
            checks.push(Check::not(
                Subject::Disks,
                if percent < DISK_FULL_PERCENT {
                    Outcome::Problem
                } else {
                    Outcome::Warning
                },
                "DISK_LOW",
                view.clone(),
                told.clone(),
                "`drtool runbook disk-full`",
            ));
        }
        if disk.free_bytes < disk.data_bytes {
            checks.push(Check::not(
                Subject::Disks,
                Outcome::Warning,
                "DISK_NO_SECOND_COPY",
                view.clone(),
                format!(
                    "a restore or a recovery builds the new contents beside the old ones and needs about {}; {} are free",
                    output::bytes(disk.data_bytes),
                    output::bytes(disk.free_bytes)
                ),
                "give the disk room before the day on which it is needed",
            ));
        } else if percent >= DISK_LOW_PERCENT {
            let what = format!("{told}: a restore or a recovery has room beside that");
            checks.push(Check::ok(Subject::Disks, view, what));
        }
    }
    checks
}
