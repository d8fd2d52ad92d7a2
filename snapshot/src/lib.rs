//! The state of a group outside its log: what a snapshot is, how it is written, where it lies, which ones stay.
//!
//! Promises:
//! - a `.snap` object is complete or absent, and every byte of it is covered by a checksum that was computed before the
//!   upload (I8); what is flipped, cut short or missing is named, and never handed out as if it were whole (I9);
//! - memory is a few chunks, whatever the size of the state (I6);
//! - retention never goes below N verified generations, whatever the clock says (I10);
//! - a store that is slow, down or lying costs time, within limits, and no data (I18);
//! - hostile objects get a clear error in bounded time and memory (I19).
//!
//! Not here: openraft, a database, the network between nodes, the clock. Time, random numbers and the state come in as
//! arguments, except for the spread of retries, the names of probes, and durations that are only reported.
//!
//! Where to go next: `model` and `view` for the nouns, `format` for the file, `repository` for the store, `build` for how
//! the two meet, `retention` and `trigger` for the pure decisions, `DESIGN.md` for the reasons.

mod background;
pub mod build;
pub mod error;
pub mod format;
mod hash;
pub mod id;
pub mod model;
pub mod paths;
mod record;
pub mod repository;
pub mod retention;
pub mod source;
#[cfg(feature = "testing")]
pub mod testing;
pub mod trigger;
pub mod view;

pub use background::Background;
pub use confman_lthash::{Digest, NotAHash, StateHash};
pub use error::{BoxError, Kind, SnapshotError, StoreError};
pub use format::{Codec, Manifest, RecordStream, SnapshotReader, WriteOptions, write_snapshot};
pub use hash::{ValueHasher, fnv1a64, value_hash};
pub use id::SnapshotId;
pub use model::{ClusterId, GroupId, Membership, MembershipMessage, NodeInfo, Position};
pub use record::SnapshotRecord;
pub use repository::Repository;
pub use source::{ChunkSource, LocalFiles};
pub use view::{Record, RecordIter, SnapshotInfo, StateView};
