//! confman-bootstrap: what a starting node does, and how an empty one gets its state back.
//!
//! | module | for |
//! |---|---|
//! | [`facts`] | what a starting node knows: its disk, its peers, the store |
//! | [`decide`](mod@decide), [`verdict`] | the pure decision: start, fence, rejoin, form, wait or refuse, each with its reason |
//! | [`plan`] | the pure choice: which snapshots to try, newest first, and which not and why |
//! | [`ordered`] | what a directory is given that carries out a restore order: identity, what is to begin, the groups' state |
//! | [`restore`] | tries them, installs the first good one, or says why the leader must give the state |
//! | [`report`](mod@report) | how a group's state came to this node: durable, and shown in `status` |
//!
//! The room promises that nothing it decides destroys anything, that a bad snapshot is named and skipped and
//! never applied in part, that a store that is down costs bounded time, and that a restore killed anywhere
//! and run again reaches the same end.
//!
//! It does not ask peers, give out node ids, or start Raft. `DESIGN.md` beside this
//! package has the lifecycle, the crash points and the decisions with their costs.

mod by_order;
pub mod decide;
mod error;
pub mod facts;
mod measure;
pub mod ordered;
pub mod plan;
pub mod report;
pub mod restore;
mod space;
pub mod verdict;
mod watched;

pub use decide::{HINT_REJOIN, decide};
pub use error::RestoreError;
pub use ordered::{Ordered, OrderedTask};
pub use report::RestoreReport;
pub use restore::{GroupTask, Limits, RestoreOutcome, Restorer};
pub use verdict::{Decision, Verdict};
