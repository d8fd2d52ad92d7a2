//! A consistent look at one group's state, from which a snapshot is built.

use std::fmt;

use bytes::Bytes;

use crate::StateHash;
use crate::error::BoxError;
use crate::model::{ClusterId, GroupId, Membership, Position};

/// What is known of a state beside its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The cluster and incarnation.
    pub cluster: ClusterId,
    /// The group.
    pub group: GroupId,
    /// The last log entry that is in the state.
    pub position: Position,
    /// The members as of that entry.
    pub membership: Membership,
    /// The state hash that apply kept up.
    pub state_hash: StateHash,
    /// When the snapshot is made, microseconds since 1970 UTC.
    pub created_us: i64,
    /// Time of the first entry that ever changed this state, microseconds since 1970 UTC.
    pub first_time_us: i64,
    /// Time of the last entry in it, microseconds since 1970 UTC.
    pub last_time_us: i64,
}

/// A key and its value. Those that were read from a snapshot are parts of their chunk, all of which stays in memory with any of them:
/// who keeps one for longer copies it (`Bytes::copy_from_slice`; a clone keeps the chunk).
pub type Record = (Bytes, Bytes);

/// All records of a state in ascending order of their keys; each is read when asked for.
pub type RecordIter = Box<dyn Iterator<Item = Result<Record, BoxError>> + Send>;

/// A state at one position: its facts, and its records from one read transaction.
pub struct StateView {
    /// The facts.
    pub info: SnapshotInfo,
    /// The records.
    pub records: RecordIter,
}

impl fmt::Debug for StateView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateView")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}
