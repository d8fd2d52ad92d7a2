//! A Confman node and the `confman` command.
//!
//! - [`serve`] assembles a node: [`formation`], [`rejoin`] and [`ordered`] give it an identity, [`group`] is one Raft
//!   group, [`node`] all of them, [`peer`] what nodes say to each other; [`standstill`] is a node whose time is over;
//! - stateless executors work beside it: [`membership`] and [`manager`];
//! - [`traces`] is what a collector is told of requests and snapshots;
//! - [`tls`] is how both listeners shake hands; [`api`] is the HTTP API, [`cli`] and [`dev`] the commands.
//!
//! Promises: every change of state is a committed log entry; what a peer says is checked before Raft
//! hears it; background work never delays a write.

// The crate's library is only for its own binary: its map names private rooms.
#![allow(rustdoc::private_intra_doc_links)]

mod account;
mod agreement;
mod alone;
pub mod api;
pub mod auth;
pub mod cli;
pub(crate) mod clock;
pub mod dev;
pub(crate) mod fence;
pub(crate) mod formation;
pub(crate) mod forward;
mod front;
pub(crate) mod group;
mod grumble;
mod incoming;
#[cfg(feature = "failpoints")]
pub mod killpoints;
pub(crate) mod manager;
pub(crate) mod membership;
mod meters;
pub(crate) mod node;
pub(crate) mod ordered;
pub(crate) mod peer;
mod proposals;
mod reach;
mod readindex;
pub(crate) mod rejoin;
mod remembered;
pub mod serve;
mod standstill;
mod stop;
mod store_door;
mod store_probe;
pub mod telemetry;
pub mod tls;
mod traces;
mod watch;
