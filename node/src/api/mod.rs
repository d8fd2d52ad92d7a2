//! The HTTP API: what a client of a node sees.
//!
//! Promises
//! - every request gets one answer in bounded time and memory, however hostile it is (I19);
//! - every answer carries a request id and a correlation id, every error is an RFC 9457 problem document;
//! - who may do what stands in one table ([`endpoints::ENDPOINTS`]), checked before a body is read;
//! - nothing here changes state: a write becomes a command, proposed through [`backend::GroupBackend`].
//!
//! Does not
//! - know openraft, the peer protocol or the data directory: all that is behind [`backend::Backend`];
//! - terminate TLS; retry a write on its own (the client's idempotency key is for that).
//!
//! Where to go next: [`endpoints`] (the table), [`call`] (what happens around every request), `config.rs` (reads
//! and writes of entries), [`serve`] (the listener with its limits).

pub mod backend;
