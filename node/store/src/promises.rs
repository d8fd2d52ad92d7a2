//! `promises`: what this node knows the others to have promised it, kept for after its own restart. A node that is put back to an older
//! copy of its directory is known by it (I1), even when every process of the cluster has been restarted since.
//!
//! Evidence, and no more: where the file is missing or damaged its node knows less, and runs. It counts in the life of the cluster that it
//! was written in; ids are never given twice, so what it says of one that is gone harms nobody.

use prost::Message as _;

use crate::error::StoreError;
use crate::files::{Format, read_sealed, seal, write_atomically};
use crate::paths::DataPaths;

const PROMISES: Format = Format {
    magic: *b"CFMPROMS",
    version: 1,
    hint: "it is written anew while the node runs",
};

/// What is known of all nodes.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Promises {
    /// The cluster's UUID.
    #[prost(string, tag = "1")]
    pub cluster_uuid: String,
    /// The life of the cluster that it was heard in.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// Which of several lives of that number.
    #[prost(string, tag = "3")]
    pub lineage: String,
    /// By node.
    #[prost(message, repeated, tag = "4")]
    pub nodes: Vec<NodePromises>,
}

/// What one node promised.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodePromises {
    /// The node's id.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// The process of it that was heard last. What that one held when it started says nothing of what it promised since.
    #[prost(fixed64, tag = "2")]
    pub boot: u64,
    /// By group.
    #[prost(message, repeated, tag = "3")]
    pub groups: Vec<GroupPromise>,
}

/// What one node promised in one group.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GroupPromise {
    /// The group.
    #[prost(string, tag = "1")]
    pub group: String,
    /// The highest term that it has voted in.
    #[prost(uint64, tag = "2")]
    pub voted: u64,
    /// The highest term in which it acknowledged entries to its leader.
    #[prost(uint64, tag = "3")]
    pub acked_term: u64,
    /// One more than the last index that it acknowledged in that term.
    #[prost(uint64, tag = "4")]
    pub acked_end: u64,
    /// One more than the last index that it acknowledged and can never lose.
    #[prost(uint64, tag = "5")]
    pub kept_end: u64,
}

/// What was written last; none where nothing was.
///
/// # Errors
/// [`StoreError`] when the file is there and is not whole, or is of a newer version.
pub fn read(paths: &DataPaths) -> Result<Option<Promises>, StoreError> {
    let path = paths.promises();
    let Some(body) = read_sealed(&path, PROMISES)? else {
        return Ok(None);
    };
    let promises = Promises::decode(body.as_slice()).map_err(|e| StoreError::Damaged {
        path,
        detail: e.to_string(),
        hint: PROMISES.hint,
    })?;
    Ok(Some(promises))
}

/// Replaces it: atomically, and durably when this returns.
///
/// # Errors
/// What the system said.
pub fn write(paths: &DataPaths, promises: &Promises) -> Result<(), StoreError> {
    write_atomically(
        &paths.promises(),
        &seal(PROMISES, &promises.encode_to_vec()),
    )
}
