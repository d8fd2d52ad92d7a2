//! `drtool`: what an operator reaches for on the bad day.
//!
//! The rooms are the places it can look at, and no command needs a place that may be gone:
//! - [`live`]: a running cluster, over HTTP;
//! - [`store`]: the object store alone: snapshots, retention, single values;
//! - [`restore`]: every node is gone: restore orders, a directory made offline;
//! - [`drill`]: a restore rehearsed;
//! - [`stopped`]: the directory of a node that does not run, opened for reading only, by type; `aside`: its contents moved aside;
//! - [`recover`]: a quorum is gone: collect, plan, apply, verify, undo;
//! - [`doctor`]: all of it at one look: what is wrong or about to go wrong.
//!
//! Promises:
//! - a command that reads cannot write; one that destroys takes a [`consent::Consent`], which only a shown plan and
//!   `--yes` or a typed cluster name can make (I16);
//! - every step can be killed and run again (I17);
//! - each refusal and finding has a stable code ([`codes`]), says whose view it is, and names the next command;
//! - with `--json` one document on stdout, and everything else on stderr.
//!
//! Does not: link the server, or decide anything by itself that loses data.

pub mod codes;
pub mod consent;
pub mod context;
pub mod doctor;
pub mod drill;
pub mod finding;
pub mod live;
pub mod recover;
pub mod restore;
pub mod stopped;
pub mod store;

mod aside;
mod cli;
mod endpoints;
mod explain;
mod look;
mod not_ours;
mod owner;
mod pages;
mod runbook;
mod step;

pub use cli::main;
