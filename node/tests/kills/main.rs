//! The node killed (-9) at every named place of a change of the membership and of a restore order, with real processes; then
//! started again, as a service manager does: the same end.
//!
//! These tests lie here and not among the scenarios because they need the program with its kill points
//! (`confman_node::killpoints`), which cargo builds for this package's own tests.

// Tests may fail loudly.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod diverged;
mod kit;
mod membership;
mod restore_order;
