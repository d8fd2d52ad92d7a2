//! A quorum is gone: collect, plan, apply, verify, undo.

use crate::codes::Code;

/// The refusals and findings of this room.
pub const CODES: &[Code] = &[];
