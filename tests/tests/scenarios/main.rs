//! Whole-system scenarios: real `confman serve` processes, one file per subject.
//!
//! Each starts its own cluster and ends it; nothing is shared, so any of them runs alone.
//! `CONFMAN_TEST_BINARY` and `CONFMAN_TEST_DRTOOL` name other programs to test, `CONFMAN_TEST_KEEP` keeps the directory of one that failed.

mod commands;
mod consistency;
mod crash;
mod delay;
mod dev;
mod disk_full;
mod disk_loss;
mod doctor;
mod drill;
mod drtool;
mod drtool_stopped;
mod drtool_store;
mod election;
mod five_nodes;
mod identity;
mod large;
mod membership;
mod metrics;
mod monitoring;
mod older_copy;
mod power_loss;
mod quorum_loss;
mod restore_all;
mod restore_faults;
mod restore_local;
mod restore_returning;
mod runbooks;
mod second_process;
mod settings;
mod snapshot_cycle;
mod snapshots_due;
mod status;
mod store_faults;
mod tls;
mod tls_store;
mod tls_tools;
mod traces;
mod weak_store;
mod writes;
