//! The node killed (-9) at every named place of a change of the membership, of the begin of a recovered life and of a restore order, with real processes; then
//! started again, as a service manager does: the same end. And `drtool` killed at every place of a recovery, on what such nodes left.
//!
//! These tests lie here and not among the scenarios because they need the programs with their kill points, or wrong clocks
//! (`confman_node::killpoints`), which cargo builds for tests of the whole workspace.

// Tests may fail loudly.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod clock;
mod clock_jumps;
mod directory;
mod diverged;
mod kit;
mod membership;
mod recovery;
mod restore_order;
mod slow_follower;
mod wrong_clock;

/// A place that no test comes by would be dead code in the program, and a crash there untried.
#[test]
fn i17_every_kill_point_is_used_by_a_test() {
    let tests = [
        include_str!("membership.rs"),
        include_str!("recovery.rs"),
        include_str!("restore_order.rs"),
    ];
    let unused: Vec<&str> = confman_node::killpoints::POINTS
        .iter()
        .copied()
        .filter(|point| {
            !tests
                .iter()
                .any(|test| test.contains(&format!("\"{point}\"")))
        })
        .collect();
    assert!(unused.is_empty(), "no test kills at {unused:?}");
}
