//! The HTTP API over the real store: groups of one replica, real sockets, real requests.

// What fails here fails the test that asked for it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod alone;
mod raw;
mod support;

mod audit;
mod batch;
mod entries;
mod exhaustion;
mod forwarding;
mod hostile;
mod large;
mod leadership;
mod members;
mod namespaces;
mod operate;
mod roles;
mod watched;
