//! The directory of a node that does not run, for reading only.
//!
//! - [`inspect`]: who the node is, how far each group is, the log's entries and the state's records;
//! - [`verify`]: every invariant of a directory, as findings;
//! - [`diff`]: the first position at which two nodes differ;
//! - [`log_entry`] and [`record`]: one entry of a log and one record of a state as people and scripts read them.
//!
//! Promises: what is opened here is `confman_store::OfflineNode`, which cannot write, by type (I16); a test reads this
//! room's source for any other way to a file. A torn tail is told and left. A group that cannot be opened is told of, and
//! the next one follows. A directory that a process holds is read, with a warning.
//!
//! Does not: mend, lock, or say which of two nodes is right. `drtool recover` decides such things, with a plan.

pub mod diff;
pub mod findings;
pub mod inspect;
pub mod log_entry;
pub mod record;
pub mod verify;

mod codes;
mod open;
#[cfg(test)]
mod tests;

pub use codes::CODES;
pub use open::keep_quiet_on_caught_panics;
