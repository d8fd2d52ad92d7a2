//! openraft's own suite over our log and state machine.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::kit;
use crate::log::LogStore;
use crate::machine::StateMachine;
use crate::types::TypeConfig;

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let (_, machine, _) = kit::open(dir.path()).unwrap();
        // The suite applies what it likes, with gaps between.
        machine.shared().allow_gaps();
        // And it purges what it never applied: its log stands alone, without the state that guards it.
        let log = LogStore::open(
            &dir.path().join("lone-log"),
            1 << 20,
            None,
            "config/0".to_owned(),
        )
        .unwrap();
        Ok((dir, log, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openraft_storage_suite_passes() {
    Suite::test_all(Builder).await.unwrap();
}
