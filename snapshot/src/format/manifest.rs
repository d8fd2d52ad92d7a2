//! The manifest: what a snapshot holds, and where every chunk of it lies.

use crate::id::SnapshotId;
use crate::lthash::{Digest, StateHash};
use crate::model::{ClusterId, GroupId, Membership, MembershipMessage, ModelError, Position};

/// What a snapshot holds. Stored at the end of its object.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Manifest {
    /// The snapshot's name.
    #[prost(message, required, tag = "1")]
    pub id: SnapshotId,
    /// The group.
    #[prost(message, required, tag = "2")]
    pub group: GroupId,
    /// The cluster and incarnation.
    #[prost(message, required, tag = "3")]
    pub cluster: ClusterId,
    /// The last log entry in it.
    #[prost(message, required, tag = "4")]
    pub position: Position,
    /// The members as of that entry; see [`Manifest::membership`].
    #[prost(message, required, tag = "5")]
    pub members: MembershipMessage,
    /// The whole state hash, 2048 bytes; see [`Manifest::state_hash`].
    #[prost(bytes = "vec", tag = "6")]
    pub lattice: Vec<u8>,
    /// When it was made, microseconds since 1970 UTC.
    #[prost(int64, tag = "7")]
    pub created_us: i64,
    /// Time of the first entry that changed this state.
    #[prost(int64, tag = "8")]
    pub first_time_us: i64,
    /// Time of the last entry in it.
    #[prost(int64, tag = "9")]
    pub last_time_us: i64,
    /// How many records.
    #[prost(uint64, tag = "10")]
    pub records: u64,
    /// Bytes of all chunks before compression.
    #[prost(uint64, tag = "11")]
    pub raw_bytes: u64,
    /// Bytes of all chunks as stored, here and in other objects.
    #[prost(uint64, tag = "12")]
    pub stored_bytes: u64,
    /// The chunks in the order of their keys.
    #[prost(message, repeated, tag = "13")]
    pub chunks: Vec<ChunkEntry>,
}

/// One chunk: a range of the sorted state.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChunkEntry {
    /// The object that holds it, relative to the store's prefix; empty = the manifest's own.
    #[prost(string, tag = "1")]
    pub object: String,
    /// Where in that object it starts.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    /// Its bytes there.
    #[prost(uint64, tag = "3")]
    pub stored_len: u64,
    /// Its bytes before compression.
    #[prost(uint64, tag = "4")]
    pub raw_len: u64,
    /// How it is compressed: a [`super::Codec`].
    #[prost(int32, tag = "5")]
    pub codec: i32,
    /// CRC32 of the stored bytes.
    #[prost(fixed32, tag = "6")]
    pub crc32: u32,
    /// BLAKE3 of the stored bytes.
    #[prost(bytes = "vec", tag = "7")]
    pub blake3: Vec<u8>,
    /// How many records.
    #[prost(uint64, tag = "8")]
    pub records: u64,
    /// The first key in it.
    #[prost(bytes = "vec", tag = "9")]
    pub first_key: Vec<u8>,
    /// The last key in it.
    #[prost(bytes = "vec", tag = "10")]
    pub last_key: Vec<u8>,
}

impl Manifest {
    /// The members as of [`Manifest::position`].
    pub fn membership(&self) -> Membership {
        self.members.clone().into()
    }

    /// The state hash of all records.
    pub fn state_hash(&self) -> Result<StateHash, ModelError> {
        StateHash::from_bytes(&self.lattice)
    }

    /// The digest of the state hash; zeros if the manifest is malformed.
    pub fn state_digest(&self) -> Digest {
        self.state_hash()
            .map(|hash| hash.digest())
            .unwrap_or_default()
    }
}
