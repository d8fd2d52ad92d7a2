//! The HTTP interface of Confman as types, and a client that finds the leader by itself.
//!
//! - [`wire`]: every JSON document, header and problem type of `/api/v1`, used by the node to
//!   answer and by everything else to ask. Whoever changes the interface changes it here.
//! - [`Client`]: one method a question. Tries every endpoint, follows 307 to the leader, waits
//!   out elections, and ends with an answer or with a [`ClientError`] before its deadline.
//! - [`Strength`]: the arithmetic of majorities, for whoever shows it or plans with it.
//! - [`members`]: what a change of the membership would do, and whether it may be.
//! - [`ErrorKind`]: errors by what the user must do, with the exit code of each.
//!
//! Promises:
//! - a write is sent with an `Idempotency-Key`, so that one that is sent twice is applied once;
//! - the API key and the values go to no host but the given endpoints and the members that those name;
//! - when a write got no answer the error says so ([`ErrorKind::Unknown`]), never "failed";
//! - every call ends in bounded time, a deletion that comes on as long as it does; values are streamed, so memory does not grow with them.
//!
//! Does not: cache what it read, read the environment, log, or know where keys and endpoints come from.

mod ask;
mod body;
mod client;
mod clock;
mod course;
mod endpoint;
mod entries;
mod error;
mod handshake;
mod health;
pub mod members;
mod names;
mod options;
mod quorum;
mod routes;
mod silence;
mod trust;
pub mod wire;

pub use ask::WRITE_RESENT_MAX;
pub use body::{Download, Upload};
pub use client::{Answered, Client, ClientConfig};
pub use clock::{DATE_STEP_US, date_of};
pub use confman_tls::{ClientFiles, ClientTls, NamedFile};
pub use endpoint::{Endpoint, parse_endpoints};
pub use entries::{PutValue, RawEntry, Written};
pub use error::{ClientError, ErrorKind};
pub use options::{AuditFilter, Page, Precondition, PutOptions, ReadMode};
pub use quorum::Strength;
