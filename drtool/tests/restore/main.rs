//! `drtool restore`, killed with `kill -9` at every step and run again (I17), on disks that are too small, and while the cluster
//! comes back.
//!
//! The program is the real one, built with places where it kills itself or waits; the store is a real one, made with the
//! product's own snapshots. That a node runs on what comes out of it is shown by the whole-system scenarios.

// Helpers of a test may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kills;
mod kit;
mod meanwhile;
