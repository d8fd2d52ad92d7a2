//! A group of one, under the real openraft, over the real store.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyerror::AnyError;
use bytes::Bytes;
use confman_snapshot::model::{ClusterId, GroupId, MembershipMessage};
use confman_snapshot::{SnapshotId, SnapshotRecord};
use confman_store::command::{Command, Content, Op, Outcome, Put, SnapshotVerified};
use confman_store::records::ValueType;
use confman_store::types::{Member, Snapshot, TypeConfig, Vote};
use confman_store::{
    DataPaths, GroupStore, LogStore, OpenOptions, SnapshotHandle, StateHandle, StateMachine,
};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{Config, Raft, SnapshotPolicy};

pub(crate) const UUID: &str = "6f1c2f0a-58a5-4a7e-9d0a-3b1a2c4d5e6f";

/// A network without anybody in it.
pub(crate) struct Nobody;

fn unreachable() -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(&AnyError::error("there is nobody")))
}

impl RaftNetworkFactory<TypeConfig> for Nobody {
    type Network = Nobody;

    async fn new_client(&mut self, _: u64, _: &Member) -> Nobody {
        Nobody
    }
}

impl RaftNetworkV2<TypeConfig> for Nobody {
    type SnapshotData = SnapshotHandle;

    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(unreachable())
    }

    async fn vote(
        &mut self,
        _: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(unreachable())
    }

    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: Snapshot,
        _: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        Err(StreamingError::Unreachable(Unreachable::new(
            &AnyError::error("there is nobody"),
        )))
    }
}

pub(crate) struct One {
    pub(crate) raft: Raft<TypeConfig, StateMachine>,
    pub(crate) state: StateHandle,
    pub(crate) log: LogStore,
}

pub(crate) fn group() -> GroupId {
    GroupId::config(0)
}

pub(crate) fn options() -> OpenOptions {
    OpenOptions::new(ClusterId::new(UUID, 1))
}

impl One {
    /// Opens the group in `dir`, and returns when it leads.
    pub(crate) async fn start(dir: &Path) -> Self {
        Self::start_with(dir, options()).await
    }

    pub(crate) async fn start_with(dir: &Path, options: OpenOptions) -> Self {
        let (log, machine, state) =
            GroupStore::open(DataPaths::new(dir).group(&group()), options).unwrap();
        let config = Config {
            heartbeat_interval: 50,
            election_timeout_min: 100,
            election_timeout_max: 200,
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            ..Config::default()
        };
        let config = Arc::new(config.validate().unwrap());
        let raft = Raft::new(1, config, Nobody, log.clone(), machine)
            .await
            .unwrap();
        if !raft.is_initialized().await.unwrap() {
            let member = Member {
                name: "node1".to_owned(),
                ..Member::default()
            };
            raft.initialize(std::collections::BTreeMap::from([(1, member)]))
                .await
                .unwrap();
        }
        raft.wait(Some(Duration::from_secs(20)))
            .current_leader(1, "it leads")
            .await
            .unwrap();
        Self { raft, state, log }
    }

    pub(crate) async fn write(&self, op: Op) -> Outcome {
        let command = Command {
            time_us: 1,
            actor: "ann".to_owned(),
            op: Some(op),
            ..Command::default()
        };
        for _ in 0..1000 {
            match self.raft.client_write(command.clone()).await {
                Ok(response) => return response.data,
                // A fresh leader refuses writes for a moment.
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
        panic!("the group does not take writes");
    }

    /// Records a snapshot at what is applied now, shows it to openraft and purges the log up to it.
    pub(crate) async fn record_and_purge(&self) {
        let view = self.state.open_view(1).unwrap();
        let id = SnapshotId::new(view.info.position, 1, 7);
        let record = SnapshotRecord {
            id,
            group: group(),
            cluster_uuid: UUID.to_owned(),
            incarnation: 1,
            position: view.info.position,
            object: confman_snapshot::paths::snapshot(&group(), &id),
            object_bytes: 1,
            manifest_blake3: vec![0; 32],
            state_hash: view.info.state_hash.digest().to_vec(),
            records: 1,
            raw_bytes: 1,
            created_us: 1,
            codec: 0,
            builder_node: 1,
            took_us: 1,
        };
        let membership = MembershipMessage::from(view.info.membership);
        let index = record.position.index;
        let op = Op::SnapshotVerified(SnapshotVerified {
            record: Some(record),
            membership: Some(membership),
        });
        assert!(self.write(op).await.as_refused().is_none());
        self.raft.trigger().snapshot().await.unwrap();
        let wait = self.raft.wait(Some(Duration::from_secs(20)));
        wait.metrics(
            |m| m.snapshot.is_some_and(|s| s.index >= index),
            "the snapshot is shown",
        )
        .await
        .unwrap();
        self.raft.trigger().purge_log(index).await.unwrap();
        let wait = self.raft.wait(Some(Duration::from_secs(20)));
        wait.metrics(
            |m| m.purged.is_some_and(|p| p.index >= index),
            "the log is purged",
        )
        .await
        .unwrap();
    }
}

pub(crate) fn put(key: &str, value: &[u8]) -> Op {
    Op::Put(Put {
        namespace: "app".to_owned(),
        key: key.to_owned(),
        value_type: ValueType::Binary.into(),
        content: Some(Content::Inline(Bytes::copy_from_slice(value))),
        precondition: None,
        skip_unchanged: false,
    })
}
