//! One replica's data: opened once, in three parts.

use confman_snapshot::model::ClusterId;

use crate::diverged;
use crate::error::StoreError;
use crate::files::sync_dir;
use crate::install;
use crate::log::LogStore;
use crate::machine::StateMachine;
use crate::paths::GroupPaths;
use crate::state::{Shared, StateHandle};

const REJOIN: &str = "run `drtool set-aside` on the data directory and start the node: it rejoins from the other nodes";

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
            state_cache_bytes: 32 << 20,
            log_cache_bytes: 16 << 20,
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
    /// [`StoreError`] with the file and a remedy: a damaged log or state, one of another group, a log and a state
    /// that do not belong together, or a state that was found to differ from the recorded one.
    pub fn open(
        paths: GroupPaths,
        options: OpenOptions,
    ) -> Result<(LogStore, StateMachine, StateHandle), StoreError> {
        std::fs::create_dir_all(paths.dir()).map_err(StoreError::io("create", paths.dir()))?;
        diverged::refuse(&paths)?;
        install::remove_unfinished(&paths)?;
        let shared = Shared::open(paths.clone(), options.cluster, options.state_cache_bytes)?;
        let label = paths.group().to_string();
        let log = LogStore::open(
            &paths.log(),
            options.log_cache_bytes,
            Some(shared.clone()),
            label,
        )?;
        check_together(&paths, &shared, &log)?;
        sync_dir(paths.dir())?;
        let machine = StateMachine::new(shared.clone(), options.flush_interval)?;
        Ok((log, machine, StateHandle::new(shared)))
    }
}

/// A log that lost its votes could vote twice, and a state that is behind its purged log has a hole.
fn check_together(paths: &GroupPaths, shared: &Shared, log: &LogStore) -> Result<(), StoreError> {
    let applied = shared.current().head.position;
    let purged = log.stats().purged;
    let detail = match (applied, purged) {
        (Some(applied), _) if !log.has_vote() => {
            format!("the state has applied entry {applied}, but the log has never seen a vote")
        }
        (applied, Some(purged)) if applied.is_none_or(|applied| applied.index < purged.index) => {
            let applied = applied.map_or_else(|| "nothing".to_owned(), |p| format!("entry {p}"));
            format!("the log begins after entry {purged}, but the state has applied {applied}")
        }
        _ => return Ok(()),
    };
    Err(StoreError::Damaged {
        path: paths.dir().to_owned(),
        detail,
        hint: REJOIN,
    })
}
