//! The HTTP API over the real store: groups of one replica, real sockets, real requests.

mod support;

mod audit;
mod batch;
mod entries;
mod hostile;
mod large;
mod leadership;
mod namespaces;
mod roles;
mod watched;
