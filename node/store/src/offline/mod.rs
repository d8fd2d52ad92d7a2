//! A node's data directory, looked at without touching it.
//!
//! For the tool of the bad day: the directory of a node that does not run (or of one that does: it says so, and then
//! what it tells may be moving). [`OfflineNode::open`] tells who the node is and gives its groups; an [`OfflineGroup`]
//! tells vote, positions and membership, and gives the log's entries and the state's records as streams. That is quick;
//! [`OfflineGroup::check_records`] reads every record and tells what does not belong together.
//!
//! Promises:
//! - it cannot write, by type: files are opened in `file` only, with `O_RDONLY`; there is nothing in this room that
//!   creates, renames, truncates or removes, and a test reads the room's source for it. redb, which mends a database
//!   that was not closed, gets a file whose writes stay in memory (`overlay`);
//! - a torn tail is told, never mended: the log is read by a reader of our own, because the log's own `open` cuts;
//! - it does not stop at the first fault: what is wrong is a [`OfflineFinding`] with its file and place, and the
//!   reading goes on as far as is sound;
//! - no link is followed and no pipe waited for; nothing panics on bytes of the disk, and sizes are checked before
//!   memory is taken; memory does not grow with log or state (I19).
//!
//! It does not repair, lock (it asks for a shared lock and lets go of it at once, to learn whether a process holds the
//! directory), delete `tmp`, or judge what to do: `drtool` does.

mod check;
mod entries;
mod file;
mod finding;
mod group;
mod log;
mod node;
mod overlay;
mod state;
mod wal;

pub use check::RecordsReport;
pub use entries::{Entries, OfflineEntry};
pub use finding::{OfflineFinding, OfflineSeverity, codes};
pub use group::OfflineGroup;
pub use log::{OfflineLog, TornTail};
pub use node::{InUse, OfflineNode};
pub use state::{OfflineState, StateRecords, StateView, panic_is_caught};
