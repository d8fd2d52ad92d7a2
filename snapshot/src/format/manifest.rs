//! The manifest: what a snapshot holds, and where every chunk of it lies.

use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::Codec;
use super::limits::{
    CHUNK_ENTRY_BYTES, CHUNK_RAW_MAX, CHUNK_STORED_MAX, CHUNKS_MAX, KEY_BYTES_MAX,
    MEMBERSHIP_BYTES_MAX,
};
use crate::id::SnapshotId;
use crate::model::{ClusterId, GroupId, Membership, MembershipMessage, ModelError, Position};
use crate::paths;
use crate::view::SnapshotInfo;
use crate::{Digest, StateHash};

const TAG_MEMBERS: u32 = 5;
const TAG_CHUNKS: u32 = 13;

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
        Ok(StateHash::from_bytes(&self.lattice)?)
    }

    /// The digest of the state hash; zeros if the manifest is malformed.
    pub fn state_digest(&self) -> Digest {
        self.state_hash()
            .map(|hash| hash.digest())
            .unwrap_or_default()
    }

    /// The facts of the state, as they went into the writer.
    pub fn info(&self) -> Result<SnapshotInfo, ModelError> {
        Ok(SnapshotInfo {
            cluster: self.cluster.clone(),
            group: self.group.clone(),
            position: self.position,
            membership: self.membership(),
            state_hash: self.state_hash()?,
            created_us: self.created_us,
            first_time_us: self.first_time_us,
            last_time_us: self.last_time_us,
        })
    }

    /// Names of the other objects that hold chunks of this snapshot, sorted, each once.
    pub fn referenced_objects(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .chunks
            .iter()
            .map(|c| c.object.as_str())
            .filter(|o| !o.is_empty())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Decodes a manifest whose bytes have matched their sums; counts are checked before anything is set aside for
    /// them, because whoever writes objects can write matching sums.
    pub(crate) fn decode_checked(bytes: &[u8]) -> Result<Self, String> {
        let mut chunks = 0_usize;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (tag, wire_type) = decode_key(&mut rest).map_err(|e| e.to_string())?;
            if wire_type != WireType::LengthDelimited {
                skip_field(wire_type, tag, &mut rest, DecodeContext::default())
                    .map_err(|e| e.to_string())?;
                continue;
            }
            let len = decode_varint(&mut rest).map_err(|e| e.to_string())?;
            let bad_length = match tag {
                TAG_MEMBERS => len > MEMBERSHIP_BYTES_MAX,
                TAG_CHUNKS => !CHUNK_ENTRY_BYTES.contains(&len),
                _ => len > KEY_BYTES_MAX as u64,
            };
            if bad_length || len > rest.len() as u64 {
                return Err(format!("field {tag} claims {len} bytes"));
            }
            rest = &rest[len as usize..];
            chunks += usize::from(tag == TAG_CHUNKS);
            if chunks > CHUNKS_MAX {
                return Err(format!("it names more than {CHUNKS_MAX} chunks"));
            }
        }
        Self::decode(bytes).map_err(|e| e.to_string())
    }

    /// Whether everything in it fits together, and its own chunks fill the object from `chunks_start` to `chunks_end`
    /// without a gap. Says the first thing that does not.
    pub(crate) fn check(&self, chunks_start: u64, chunks_end: u64) -> Result<(), String> {
        self.group.check().map_err(|e| e.to_string())?;
        self.cluster.check().map_err(|e| e.to_string())?;
        self.state_hash().map_err(|e| e.to_string())?;
        if self.id != SnapshotId::new(self.position, self.cluster.incarnation, self.id.nonce) {
            return Err(format!(
                "its id {} is not that of position {}",
                self.id, self.position
            ));
        }
        if self
            .members
            .position
            .is_some_and(|p| p.index > self.position.index)
        {
            return Err("its membership is newer than itself".to_owned());
        }
        let (mut records, mut raw_bytes, mut stored_bytes) = (0_u64, 0_u64, 0_u64);
        let mut own_end = chunks_start;
        let mut previous: Option<&ChunkEntry> = None;
        for (i, chunk) in self.chunks.iter().enumerate() {
            chunk
                .check(&self.group, &self.id)
                .map_err(|e| format!("chunk {i}: {e}"))?;
            if previous.is_some_and(|p| p.last_key >= chunk.first_key) {
                return Err(format!("chunk {i} does not start above the one before"));
            }
            previous = Some(chunk);
            let overflow = || format!("chunk {i}: the sums of sizes overflow");
            if chunk.object.is_empty() {
                if chunk.offset != own_end {
                    return Err(format!(
                        "chunk {i} starts at {}, the one before ends at {own_end}",
                        chunk.offset
                    ));
                }
                own_end = own_end.checked_add(chunk.stored_len).ok_or_else(overflow)?;
            }
            records = records.checked_add(chunk.records).ok_or_else(overflow)?;
            raw_bytes = raw_bytes.checked_add(chunk.raw_len).ok_or_else(overflow)?;
            stored_bytes = stored_bytes
                .checked_add(chunk.stored_len)
                .ok_or_else(overflow)?;
        }
        if own_end != chunks_end {
            return Err(format!(
                "its chunks end at byte {own_end}, the manifest starts at {chunks_end}"
            ));
        }
        let counts = [
            ("records", records, self.records),
            ("bytes before compression", raw_bytes, self.raw_bytes),
            ("stored bytes", stored_bytes, self.stored_bytes),
        ];
        match counts.iter().find(|(_, found, recorded)| found != recorded) {
            Some((what, found, recorded)) => Err(format!(
                "its chunks have {found} {what}, it says {recorded}"
            )),
            None => Ok(()),
        }
    }
}

impl ChunkEntry {
    fn check(&self, group: &GroupId, own: &SnapshotId) -> Result<(), String> {
        if Codec::try_from(self.codec).is_err() {
            return Err(format!("unknown codec {}", self.codec));
        }
        if self.blake3.len() != 32 {
            return Err(format!("a BLAKE3 of {} bytes", self.blake3.len()));
        }
        if !(1..=CHUNK_RAW_MAX).contains(&self.raw_len)
            || !(1..=CHUNK_STORED_MAX).contains(&self.stored_len)
        {
            return Err(format!(
                "{} bytes that become {}",
                self.stored_len, self.raw_len
            ));
        }
        if self.offset.checked_add(self.stored_len).is_none() {
            return Err(format!("it starts at byte {}", self.offset));
        }
        // A record takes at least the 8 bytes of its lengths.
        if self.records == 0 || self.records > self.raw_len / 8 {
            return Err(format!(
                "{} records in {} bytes",
                self.records, self.raw_len
            ));
        }
        if self.first_key.len() > KEY_BYTES_MAX
            || self.last_key.len() > KEY_BYTES_MAX
            || self.first_key > self.last_key
        {
            return Err("its key range is not one".to_owned());
        }
        if self.object.is_empty() {
            return Ok(());
        }
        // Names of other objects are ids of the same group: never a way out of the folder.
        match paths::parse_snapshot(&self.object) {
            Some((theirs, id)) if theirs == *group && id != *own => Ok(()),
            _ => Err(format!(
                "it refers to {:?}, which is not another snapshot of {group}",
                self.object
            )),
        }
    }
}
