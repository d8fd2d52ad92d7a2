//! The state machine of one group, as openraft drives it.

use std::path::PathBuf;
use std::sync::Arc;

use confman_snapshot::{Manifest, RecordStream, SnapshotRecord};

/// The state machine of one group, as openraft drives it.
#[derive(Debug)]
pub struct StateMachine;

impl StateMachine {
    /// What may be told to the machine after openraft has taken it.
    pub fn control(&self) -> StateMachineControl {
        todo!()
    }
}

/// What may be told to a state machine that openraft has taken.
#[derive(Debug, Clone)]
pub struct StateMachineControl;

impl StateMachineControl {
    /// With `true`, snapshots are built as local files from now on, even where one is recorded in the store: for a
    /// follower that cannot reach the store.
    pub fn prefer_local(&self, yes: bool) {
        let _ = yes;
        todo!()
    }
}

/// A snapshot as openraft passes it around: never its bytes.
#[derive(Debug, Clone)]
pub enum SnapshotHandle {
    /// In the store: whoever gets this reads it there.
    Recorded(SnapshotRecord),
    /// In a local file of this node, to be sent as bytes.
    Local(Arc<LocalSnapshot>),
    /// Being received: only for `install_full_snapshot`.
    Incoming(Incoming),
}

/// A `.snap` file of this node, deleted with its last handle.
#[derive(Debug)]
pub struct LocalSnapshot {
    path: PathBuf,
    manifest: Manifest,
    file_bytes: u64,
}

impl LocalSnapshot {
    /// The file.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// What is in it.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The size of the file in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }
}

/// A snapshot that is being received: the records to install, and what is kept of it as this replica's own.
#[derive(Clone)]
pub struct Incoming {
    stream: Arc<parking_lot::Mutex<Option<RecordStream>>>,
    record: Option<SnapshotRecord>,
}

impl Incoming {
    /// Records from the store (with the record of the snapshot that they are of) or from a file that a peer sent
    /// (without).
    pub fn new(stream: RecordStream, record: Option<SnapshotRecord>) -> Self {
        Self {
            stream: Arc::new(parking_lot::Mutex::new(Some(stream))),
            record,
        }
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let open = self.stream.lock().is_some();
        f.debug_struct("Incoming")
            .field("record", &self.record)
            .field("open", &open)
            .finish()
    }
}
