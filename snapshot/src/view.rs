//! A consistent look at one group's state, from which a snapshot is built.

use std::fmt;

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

/// A key and its value.
pub type Record = (Vec<u8>, Vec<u8>);

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
