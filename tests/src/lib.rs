//! The harness of the whole-system scenarios: real `confman serve` processes, real sockets, real disks.
//!
//! What is here:
//! - [`plan`] says what a cluster shall be and lays it out; [`cluster`] starts its processes, and does to them what the world does:
//!   kill -9, SIGSTOP, a lost disk, a store that is gone or damaged. All of it ends when the [`cluster::Cluster`] is
//!   dropped, and unless [`cluster::Cluster::finish`] was reached the nodes' logs are shown.
//! - [`drtool`] runs the operator's tool against such a cluster, a store or a directory.
//! - [`restore`] plans, orders and waits for restores with it.
//! - [`metrics`] reads what a node measures.
//! - [`http`] speaks to one node, without following redirects or retrying unless asked, so that a scenario sees what
//!   a node says.
//! - [`history`], [`order`], [`register`] and [`audit`] judge what clients saw: a lost, doubled, reordered or stale
//!   answer is found and named. They are tested on planted faults. [`judge`] asks all of them.
//! - [`containers`] is the same in containers on a network of their own, which it cuts, slows and lets lose packets.
//! - [`delay`] is a way between two processes that takes its time.
//! - [`power`] is disks that lose what was not synced.
//! - [`lives`] holds what clients of one life of a cluster saw against the next one and its plan; [`old_majority`] lives on, or comes back, and is
//!   watched.
//! - [`load`] makes such histories; [`members`] runs changes of the membership.
//! - [`certs`] makes authorities and certificates for a cluster that speaks TLS.
//!
//! What it deliberately does not: use any code of the node. Names and shapes are those of the documented HTTP API and
//! settings, so a change that would break a script outside this repository breaks a scenario.

pub mod agree;
pub mod argument;
pub mod audit;
pub mod binary;
pub mod certs;
pub mod cluster;
pub mod containers;
pub mod delay;
pub mod drtool;
pub mod history;
pub mod http;
pub mod judge;
pub mod lives;
pub mod load;
mod log_tail;
pub mod members;
pub mod metrics;
pub mod node;
pub mod old_majority;
pub mod order;
pub mod plan;
pub mod ports;
pub mod power;
pub mod random;
pub mod register;
pub mod requests;
pub mod restore;
pub mod runbook;
pub mod skip;
pub mod small_disk;
pub mod store;
pub mod wait;
