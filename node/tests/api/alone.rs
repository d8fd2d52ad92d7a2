//! A node of one: the real store and Raft, and groups that can be told to lose their leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use confman_client::wire::{
    GroupReadiness, NodeRef, PeerReach, Readiness, SnapshotItem, SnapshotOrder, Status,
};
use confman_node::api::backend::{
    Applied, Backend, GroupBackend, LeaderInfo, MembershipView, ProposeError, ReadError, ReadMode,
    SnapshotRequestError, WriteContext,
};
use confman_snapshot::fnv1a64;
use confman_snapshot::model::{ClusterId, GroupId};
use confman_store::command::{Command, Op};
use confman_store::paths::DataPaths;
use confman_store::types::{Member, Snapshot, TypeConfig, Vote};
use confman_store::{GroupStore, OpenOptions, SnapshotHandle, StateHandle, StateMachine};
use openraft::ReadPolicy;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use parking_lot::Mutex;

use super::support::leader_elsewhere;

pub(crate) const INCARNATION: u64 = 7;
pub(crate) const WAIT: Duration = Duration::from_secs(10);

type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// A group of one has nobody to talk to.
#[derive(Clone)]
struct Alone;

impl RaftNetworkFactory<TypeConfig> for Alone {
    type Network = Alone;

    async fn new_client(&mut self, _target: u64, _node: &Member) -> Alone {
        Alone
    }
}

fn nobody<T>() -> Result<T, RPCError<TypeConfig>> {
    Err(RPCError::Unreachable(Unreachable::from_string(
        "there is no other node",
    )))
}

impl RaftNetworkV2<TypeConfig> for Alone {
    type SnapshotData = SnapshotHandle;

    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        nobody()
    }

    async fn vote(
        &mut self,
        _rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        nobody()
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote,
        _snapshot: Snapshot,
        _cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        nobody().map_err(StreamingError::from)
    }
}

/// What a replica is made to look like.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Behaviour {
    /// As it is: it leads.
    Leads,
    /// It follows this leader, or knows none.
    Follows(Option<LeaderInfo>),
    /// It leads, and what is proposed is confirmed too late.
    TooLate,
    /// It looks like the leader until something is proposed.
    Deposed(Option<LeaderInfo>),
    /// It leads until so many commands were proposed.
    LeadsFor(u32, Option<LeaderInfo>),
    /// It cannot confirm reads.
    NoReads,
}

/// One replica, perhaps made to look like another.
pub(crate) struct TestGroup {
    id: GroupId,
    raft: Raft,
    state: StateHandle,
    behaviour: Mutex<Behaviour>,
}

#[async_trait]
impl GroupBackend for TestGroup {
    fn id(&self) -> &GroupId {
        &self.id
    }

    fn state(&self) -> &StateHandle {
        &self.state
    }

    fn leader(&self) -> Option<LeaderInfo> {
        match &*self.behaviour.lock() {
            Behaviour::Follows(leader) => leader.clone(),
            _ => Some(leader_elsewhere(1, "http://127.0.0.1:1")),
        }
    }

    fn is_leader(&self) -> bool {
        !matches!(*self.behaviour.lock(), Behaviour::Follows(_))
    }

    async fn propose(&self, context: WriteContext, op: Op) -> Result<Applied, ProposeError> {
        let behaviour = self.behaviour.lock().clone();
        match &mut *self.behaviour.lock() {
            Behaviour::LeadsFor(0, leader) => {
                let leader = leader.clone();
                return Err(ProposeError::NotLeader { leader });
            }
            Behaviour::LeadsFor(left, _) => *left -= 1,
            _ => {}
        }
        if let Behaviour::Follows(leader) | Behaviour::Deposed(leader) = behaviour {
            return Err(ProposeError::NotLeader { leader });
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let command = Command {
            time_us: now.as_micros() as i64,
            actor: context.actor,
            request_id: context.request_id,
            correlation_id: context.correlation_id,
            idempotency_key: context.idempotency_key.unwrap_or_default(),
            fingerprint: context.fingerprint,
            op: Some(op),
        };
        let response = self
            .raft
            .client_write(command)
            .await
            .map_err(|e| ProposeError::Unavailable(e.to_string()))?;
        if behaviour == Behaviour::TooLate {
            return Err(ProposeError::Timeout);
        }
        Ok(Applied {
            position: confman_store::convert::position(&response.log_id),
            outcome: response.data,
        })
    }

    async fn barrier(&self, mode: &ReadMode) -> Result<(), ReadError> {
        let index = match mode {
            ReadMode::Eventual => return Ok(()),
            ReadMode::ReadYourWrites(token) if token.incarnation != INCARNATION => {
                return Err(ReadError::OldIncarnation {
                    token: token.incarnation,
                    current: INCARNATION,
                });
            }
            ReadMode::ReadYourWrites(token) => token.index,
            ReadMode::Linearizable => {
                if *self.behaviour.lock() == Behaviour::NoReads {
                    return Err(ReadError::NoLeader);
                }
                let (read, _) = self
                    .raft
                    .get_read_log_id(ReadPolicy::ReadIndex)
                    .await
                    .map_err(|e| ReadError::Unavailable(e.to_string()))?;
                read.index()
            }
        };
        let mut applied = self.state.applied_watch();
        match tokio::time::timeout(
            Duration::from_millis(500),
            applied.wait_for(|at| *at >= index),
        )
        .await
        {
            Ok(_) => Ok(()),
            Err(_) => Err(ReadError::Timeout),
        }
    }
}

/// A node with the given groups.
pub(crate) struct TestNode {
    name: String,
    meta: Arc<TestGroup>,
    config: Vec<Arc<TestGroup>>,
    pub(crate) ready: Mutex<bool>,
    pub(crate) snapshot: Mutex<Result<(), SnapshotRequestError>>,
    pub(crate) members: Mutex<MembershipView>,
}

impl TestNode {
    /// Another node with the same replicas, to be made to look like a follower.
    pub(crate) fn twin(&self, name: &str) -> Arc<Self> {
        let twin = |group: &Arc<TestGroup>| {
            Arc::new(TestGroup {
                id: group.id.clone(),
                raft: group.raft.clone(),
                state: group.state.clone(),
                behaviour: Mutex::new(Behaviour::Leads),
            })
        };
        Arc::new(Self {
            name: name.to_owned(),
            meta: twin(&self.meta),
            config: self.config.iter().map(twin).collect(),
            ready: Mutex::new(true),
            snapshot: Mutex::new(Ok(())),
            members: Mutex::default(),
        })
    }

    /// Makes all replicas behave so.
    pub(crate) fn behave(&self, behaviour: &Behaviour) {
        for group in self.config.iter().chain([&self.meta]) {
            *group.behaviour.lock() = behaviour.clone();
        }
    }

    /// Makes one replica behave so.
    pub(crate) fn behave_group(&self, group: usize, behaviour: &Behaviour) {
        *self.config[group].behaviour.lock() = behaviour.clone();
    }

    /// The number of the group that holds `namespace`.
    pub(crate) fn group_of(&self, namespace: &str) -> usize {
        let first = namespace.split('/').next().unwrap();
        (fnv1a64(first.as_bytes()) % self.config.len() as u64) as usize
    }

    /// The state of one group.
    pub(crate) fn state(&self, group: usize) -> &StateHandle {
        &self.config[group].state
    }

    /// Has something committed in the group of the cluster's own affairs.
    pub(crate) async fn propose_meta(&self, op: Op) {
        let applied = self
            .meta
            .propose(WriteContext::default(), op)
            .await
            .unwrap();
        assert!(
            applied.outcome.as_refused().is_none(),
            "{}",
            applied.outcome
        );
    }
}

#[async_trait]
impl Backend for TestNode {
    fn incarnation(&self) -> u64 {
        INCARNATION
    }

    fn node_name(&self) -> &str {
        &self.name
    }

    fn route(&self, namespace: &str) -> Arc<dyn GroupBackend> {
        self.config[self.group_of(namespace)].clone()
    }

    fn meta(&self) -> Arc<dyn GroupBackend> {
        self.meta.clone()
    }

    fn config_groups(&self) -> Vec<Arc<dyn GroupBackend>> {
        self.config
            .iter()
            .map(|group| group.clone() as Arc<dyn GroupBackend>)
            .collect()
    }

    async fn status(&self) -> Status {
        Status {
            cluster_uuid: "uuid".to_owned(),
            incarnation: INCARNATION,
            node: NodeRef {
                id: 1,
                name: self.name.clone(),
            },
            ready: *self.ready.lock(),
            version: None,
            time: None,
            disk: None,
            caller: None,
            groups: Vec::new(),
        }
    }

    async fn peers(&self) -> Vec<PeerReach> {
        Vec::new()
    }

    async fn readiness(&self) -> Readiness {
        let ready = *self.ready.lock();
        Readiness {
            ready,
            node: Some(NodeRef {
                id: 1,
                name: self.name.clone(),
            }),
            cluster_uuid: None,
            reason: None,
            groups: vec![GroupReadiness {
                group: "config/0".to_owned(),
                ready,
                reason: (!ready).then(|| "no leader".to_owned()),
            }],
        }
    }

    fn membership(&self) -> MembershipView {
        self.members.lock().clone()
    }

    fn metrics_text(&self) -> String {
        "# TYPE confman_up gauge\nconfman_up 1\n".to_owned()
    }

    async fn request_snapshot(
        &self,
        group: Option<GroupId>,
    ) -> Result<Vec<SnapshotItem>, SnapshotRequestError> {
        self.snapshot.lock().clone()?;
        Ok(vec![SnapshotItem {
            group: group.unwrap_or_else(|| GroupId::config(0)).to_string(),
            id: "s".to_owned(),
            index: 1,
            bytes: 1,
            seconds: 0.5,
        }])
    }

    async fn order_snapshot(
        &self,
        group: Option<GroupId>,
    ) -> Result<Vec<SnapshotOrder>, SnapshotRequestError> {
        self.snapshot.lock().clone()?;
        Ok(vec![SnapshotOrder {
            group: group.unwrap_or_else(|| GroupId::config(0)).to_string(),
            under_way: false,
        }])
    }
}

/// Starts a node with `shards` groups of configuration.
pub(crate) async fn node(shards: u32) -> (Arc<TestNode>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let meta = group(&dir, GroupId::meta()).await;
    let mut config = Vec::new();
    for shard in 0..shards {
        config.push(group(&dir, GroupId::config(shard)).await);
    }
    let node = Arc::new(TestNode {
        name: "node1".to_owned(),
        meta,
        config,
        ready: Mutex::new(true),
        snapshot: Mutex::new(Ok(())),
        members: Mutex::default(),
    });
    (node, dir)
}

async fn group(dir: &tempfile::TempDir, id: GroupId) -> Arc<TestGroup> {
    let paths = DataPaths::new(dir.path()).group(&id);
    let mut options = OpenOptions::new(ClusterId::new(
        "5f0c2b1e-6c1f-4f59-9d8c-0d5bb2a5a001",
        INCARNATION,
    ));
    options.state_cache_bytes = 8 << 20;
    options.log_cache_bytes = 4 << 20;
    let (log, machine, state) =
        tokio::task::spawn_blocking(move || GroupStore::open(paths, options))
            .await
            .unwrap()
            .unwrap();
    let config = openraft::Config {
        heartbeat_interval: 50,
        election_timeout_min: 150,
        election_timeout_max: 300,
        snapshot_policy: openraft::SnapshotPolicy::Never,
        ..openraft::Config::default()
    };
    let raft = Raft::new(1, Arc::new(config.validate().unwrap()), Alone, log, machine)
        .await
        .unwrap();
    let member = Member {
        name: "node1".to_owned(),
        api_url: "http://127.0.0.1:1".to_owned(),
        peer_addr: "127.0.0.1:2".to_owned(),
    };
    raft.initialize(BTreeMap::from([(1, member)]))
        .await
        .unwrap();
    raft.wait(Some(WAIT))
        .state(openraft::ServerState::Leader, "leads")
        .await
        .unwrap();
    Arc::new(TestGroup {
        id,
        raft,
        state,
        behaviour: Mutex::new(Behaviour::Leads),
    })
}
