//! confman-snapshot
pub mod build;
pub mod error;
pub mod format;
mod hash;
pub mod id;
pub mod lthash;
pub mod model;
pub mod paths;
mod record;
pub mod repository;
pub mod retention;
pub mod source;
pub mod trigger;
pub mod view;

pub use error::{BoxError, Kind, SnapshotError, StoreError};
pub use format::{Codec, Manifest, RecordStream, SnapshotReader, WriteOptions, write_snapshot};
pub use hash::{ValueHasher, fnv1a64, value_hash};
pub use id::SnapshotId;
pub use lthash::{Digest, StateHash};
pub use model::{ClusterId, GroupId, Membership, MembershipMessage, NodeInfo, Position};
pub use record::SnapshotRecord;
pub use repository::Repository;
pub use source::{ChunkSource, LocalFiles};
pub use view::{Record, RecordIter, SnapshotInfo, StateView};
