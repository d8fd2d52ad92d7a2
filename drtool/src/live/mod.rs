//! A running cluster, over HTTP.

use crate::codes::Code;

/// The refusals and findings of this room.
pub const CODES: &[Code] = &[];
