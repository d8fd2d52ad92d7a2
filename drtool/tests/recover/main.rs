//! Carrying out a plan and taking it back, with the real program on real directories: killed with `kill -9` at every step and
//! run again (I17), beside nodes that live, on directories that change meanwhile, and on disks without room.
//!
//! The program is the real one, built with places where it kills itself or waits; the directories are real ones, made with
//! the node's own storage, and the store is a folder. That a node leads over what comes out of it is shown by the
//! whole-system scenarios.

// Helpers of a test may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod behind;
mod kills;
mod kit;
mod meanwhile;
mod one_name;
mod refusals;
