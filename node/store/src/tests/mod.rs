//! Tests that look inside. `kit` has a replica to apply commands to; the others are named after what they hold.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kit;
mod suite;
