//! A Confman node and the `confman` command.

pub mod api;
pub mod auth;
pub mod cli;
pub mod dev;
pub mod telemetry;
