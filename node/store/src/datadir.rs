//! The data directory: its lock, and who the node is.

use std::path::{Path, PathBuf};

use confman_snapshot::model::{ClusterId, NodeInfo};

use crate::error::StoreError;
use crate::paths::DataPaths;

/// How far a node has come in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum IdentityState {
    /// The node has an id; its groups are not all there yet.
    Formed = 0,
    /// The node has started with all its groups at least once.
    Initialized = 1,
    /// The node met a newer incarnation of its cluster: it serves nothing, its data is kept.
    Fenced = 2,
}

/// A node as it was at the cluster's birth or at the join of this node.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct MemberAtBirth {
    /// The node's id.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Name and addresses.
    #[prost(message, optional, tag = "2")]
    pub info: Option<NodeInfo>,
}

/// Who a node is.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Identity {
    /// The cluster's UUID.
    #[prost(string, tag = "1")]
    pub cluster_uuid: String,
    /// The life of the cluster that this node's data belongs to.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// The cluster's id for the node.
    #[prost(uint64, tag = "3")]
    pub node_id: u64,
    /// The operator's name for the node.
    #[prost(string, tag = "4")]
    pub name: String,
    /// How many `config/` groups there are.
    #[prost(uint32, tag = "5")]
    pub shards: u32,
    /// Members of the cluster when this node got its id: where it looks for the others.
    #[prost(message, repeated, tag = "6")]
    pub members: Vec<MemberAtBirth>,
    /// How far the node has come.
    #[prost(enumeration = "IdentityState", tag = "7")]
    pub state: i32,
    /// Why the node is fenced.
    #[prost(string, tag = "8")]
    pub reason: String,
    /// When this was written first, microseconds since the epoch, UTC.
    #[prost(int64, tag = "9")]
    pub created_us: i64,
}

impl Identity {
    /// The cluster and its life.
    pub fn cluster(&self) -> ClusterId {
        ClusterId::new(self.cluster_uuid.clone(), self.incarnation)
    }
}

/// What is in a data directory.
#[derive(Debug, Clone, PartialEq)]
pub enum Facts {
    /// Nothing that says who the node is, and no data.
    Empty,
    /// A node's data.
    Good(Identity),
    /// Something is wrong; what, and what to do.
    Damaged(String),
}

/// A data directory that this process holds the lock of.
#[derive(Debug)]
pub struct DataDir {
    paths: DataPaths,
}

impl DataDir {
    /// Makes the directory if it is not there (0700), takes its lock, and empties its `tmp`.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process has it; otherwise what the system said.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            paths: DataPaths::new(path),
        })
    }

    /// The names of its files.
    pub fn paths(&self) -> &DataPaths {
        &self.paths
    }

    /// What is in it.
    ///
    /// # Errors
    /// When the directory cannot be read; damage is a finding, not an error.
    pub fn inspect(&self) -> Result<Facts, StoreError> {
        todo!()
    }

    /// Who the node is; none in an empty directory.
    ///
    /// # Errors
    /// [`StoreError`] when the file is there and is not whole, ours, or of this version.
    pub fn read_identity(&self) -> Result<Option<Identity>, StoreError> {
        todo!()
    }

    /// Says who the node is: atomically, and durably when this returns.
    ///
    /// # Errors
    /// What the system said.
    pub fn write_identity(&self, identity: &Identity) -> Result<(), StoreError> {
        let _ = identity;
        todo!()
    }

    /// Moves identity and groups to `aside/`, so that the directory is as good as empty; nothing is deleted. Returns
    /// where they are.
    ///
    /// # Errors
    /// What the system said.
    pub fn set_aside(&self, reason: &str, now_us: i64) -> Result<PathBuf, StoreError> {
        let _ = (reason, now_us);
        todo!()
    }
}
