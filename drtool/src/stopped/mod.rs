//! The directory of a node that does not run, for reading only.

use crate::codes::Code;

/// The refusals and findings of this room.
pub const CODES: &[Code] = &[];
