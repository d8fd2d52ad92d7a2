//! What a store really does, as opposed to what it says.
//!
//! - [`short`]: what a node looks at when it starts;
//! - [`long`]: everything that this package relies on or would use, for an operator who chooses a store; its parts are in
//!   [`conditions`] (who may write), [`contents`] (bytes in and out), [`speed`].
//!
//! Promises: every object of a probe lies under `probe/` with a name of its own, is written down before it is put, and is
//! deleted at the end, also when a part failed or the probe was stopped; what could not be deleted is named.

mod conditions;
mod contents;
mod long;
mod short;
mod speed;

pub use long::{Check, Latency, LongProbe, ProbePlan, ProbeReport, Suitability, Verdict};
pub(super) use short::Known;
pub use short::{Conditions, Probe};
