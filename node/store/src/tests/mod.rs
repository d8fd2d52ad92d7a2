//! Tests that look inside. `kit` has a replica to apply commands to; the others are named after what they hold.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod audit;
mod batching;
mod blobs;
mod damage;
mod datadir;
mod entries;
mod fixtures;
mod hostile;
mod idempotency;
mod incarnation;
mod install;
mod kit;
mod log;
mod members;
mod meta;
mod namespaces;
mod offline;
mod offline_check;
mod offline_log;
mod offline_source;
mod purge;
mod snapshots;
mod suite;
mod surgery;
