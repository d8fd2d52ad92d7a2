//! The HTTP interface of Confman as types, and a client that finds the leader by itself.
//!
//! - [`wire`]: every JSON document, header and problem type of `/api/v1`, used by the node to
//!   answer and by everything else to ask. Whoever changes the interface changes it here.

pub mod wire;
