//! The HTTP API: what a client of a node sees.
//!
//! Promises
//! - every request gets one answer in bounded time and memory, however hostile it is (I19);
//! - every answer carries a request id and a correlation id, every error is an RFC 9457 problem document;
//! - who may do what stands in one table ([`endpoints::ENDPOINTS`]), checked before a body is read;
//! - nothing here changes state: a write becomes a command, proposed through [`backend::GroupBackend`].
//!
//! Does not
//! - know openraft, the peer protocol or the data directory: all that is behind [`backend::Backend`]; of the peers no more than how
//!   a request gets from one node's API to another's ([`forward`], [`forwarded`]);
//! - shake hands ([`crate::tls`] does); retry a write on its own (the client's idempotency key is for that).
//!
//! Where to go next: [`endpoints`] (the table), `call.rs` (what happens around every request), `config.rs` (reads
//! and writes of entries), [`serve`] (the listener with its limits), [`limits`] (every bound).

use std::sync::Arc;

use axum::Router;

use self::access::Keyring;
use self::backend::Backend;
use self::forward::Forwarder;
use self::limits::Budgets;
use self::limits::Limits;
use crate::grumble::Pace;

pub mod access;
mod audit;
pub mod backend;
mod batch;
mod body;
pub(crate) mod call;
mod causes;
mod config;
mod content;
mod download;
pub mod endpoints;
mod failure;
pub mod forward;
pub mod forwarded;
mod headers;
pub(crate) mod json;
pub mod limits;
mod members;
mod names;
mod namespaces;
mod operate;
mod patience;
mod query;
mod read;
mod render;
pub mod serve;
mod upload;
mod write;

/// Gives 16 bytes that nobody else gets: request ids and uploads are named by them.
pub type IdSource = Arc<dyn Fn() -> [u8; 16] + Send + Sync>;

/// What all requests share.
pub(crate) struct Api {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) keys: Arc<dyn Keyring>,
    pub(crate) limits: Limits,
    pub(crate) budgets: Budgets,
    pub(crate) forwarder: Forwarder,
    /// Of lines about requests that failed: a cluster without a leader fails all of them.
    pub(crate) pace: Arc<Pace>,
    ids: IdSource,
}

impl Api {
    /// An id for a request.
    pub(crate) fn new_id(&self) -> String {
        hex::encode((self.ids)())
    }

    /// An id for an upload.
    pub(crate) fn new_upload_id(&self) -> [u8; 16] {
        (self.ids)()
    }
}

/// The API of a node as a router, to be served by [`serve::serve`] and, for what other nodes forward, by [`forwarded::door`].
pub fn router(
    backend: Arc<dyn Backend>,
    keys: Arc<dyn Keyring>,
    limits: Limits,
    ids: IdSource,
    forwarder: Forwarder,
) -> Router {
    let budgets = Budgets::new(&limits);
    endpoints::routes(&Arc::new(Api {
        backend,
        keys,
        limits,
        budgets,
        forwarder,
        pace: Arc::default(),
        ids,
    }))
}
