//! One replica's data: opened once, in three parts.

use std::path::PathBuf;

use confman_snapshot::model::ClusterId;

use crate::error::StoreError;
use crate::log::LogStore;
use crate::machine::StateMachine;
use crate::paths::GroupPaths;
use crate::state::StateHandle;

/// How the data of a replica is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The cluster and its life: written into snapshots, never into the state.
    pub cluster: ClusterId,
    /// Memory for pages of the state database, in bytes.
    pub state_cache_bytes: usize,
    /// Memory for the newest entries of the log, in bytes.
    pub log_cache_bytes: usize,
    /// How often the state is made durable while it changes. What was applied since is applied again after a crash.
    pub flush_interval: std::time::Duration,
}

impl OpenOptions {
    /// The defaults for a cluster.
    pub fn new(cluster: ClusterId) -> Self {
        Self {
            cluster,
            state_cache_bytes: 64 << 20,
            log_cache_bytes: 32 << 20,
            flush_interval: std::time::Duration::from_secs(1),
        }
    }
}

/// The data of one replica on disk.
#[derive(Debug)]
pub struct GroupStore;

impl GroupStore {
    /// Opens, or makes, the data of one replica. Blocks; call it off the runtime's threads when the log is long.
    ///
    /// # Errors
    /// [`StoreError`] with the file and a remedy: a damaged log or state, one of another group, or a log and a state
    /// that do not belong together.
    pub fn open(
        paths: GroupPaths,
        options: OpenOptions,
    ) -> Result<(LogStore, StateMachine, StateHandle), StoreError> {
        let _: (GroupPaths, OpenOptions, Option<PathBuf>) = (paths, options, None);
        todo!()
    }
}
