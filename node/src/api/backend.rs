//! What the API needs of a node: the only door between HTTP and the rest.
//!
//! [`Backend`] is the node, [`GroupBackend`] one replica of one group on it. The node implements both; the tests of
//! the API implement them over the real store with a group of one.
//!
//! Does not: say how a command is replicated, or how a read index is found.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use confman_client::wire::GroupMembers;
use confman_client::wire::PeerReach;
use confman_client::wire::Readiness;
use confman_client::wire::Status;
use confman_client::wire::VersionToken;
use confman_client::wire::{SnapshotItem, SnapshotOrder};
use confman_snapshot::model::GroupId;
use confman_snapshot::model::Position;
use confman_store::StateHandle;
use confman_store::command::Op;
use confman_store::command::Outcome;

/// Who asks, and how the change shows in logs and audit: everything of a command that is not the operation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteContext {
    /// The name of the API key.
    pub actor: String,
    /// The id of this request.
    pub request_id: String,
    /// The id that the caller follows through several requests.
    pub correlation_id: String,
    /// Where present, the write is applied once for (actor, key).
    pub idempotency_key: Option<String>,
    /// What the idempotency key stands for: a hash of the request, empty without a key.
    pub fingerprint: Bytes,
}

/// Where the leader of a group is, as the committed membership says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderInfo {
    /// The node's id.
    pub id: u64,
    /// The operator's name of the node.
    pub name: String,
    /// The base URL of its API, for clients.
    pub api_url: String,
    /// Where other nodes reach it, as `host:port`.
    pub peer_addr: String,
}

/// A command that has been applied, refused or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// Where in the log it stands.
    pub position: Position,
    /// What apply said.
    pub outcome: Outcome,
}

/// Why a command has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This replica does not lead; nothing was proposed.
    #[error("this node does not lead the group")]
    NotLeader {
        /// Who does, as far as is known here.
        leader: Option<LeaderInfo>,
    },
    /// It was proposed and not confirmed, in time or before this node had to end: it may yet happen.
    #[error("the write was not confirmed")]
    Timeout,
    /// It was not proposed, or the group cannot go on.
    #[error("{0}")]
    Unavailable(String),
}

impl ProposeError {
    /// One word, of which there are few.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotLeader { .. } => "not-leader",
            Self::Timeout => "timeout",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

/// How fresh a read has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadMode {
    /// Sees every write acknowledged before the read began, on any node.
    Linearizable,
    /// Sees at least what the token names.
    ReadYourWrites(VersionToken),
    /// Sees what this replica has.
    Eventual,
}

/// Why a read could not be as fresh as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Nobody leads the group.
    #[error("the group has no leader")]
    NoLeader,
    /// The replica did not get there in time.
    #[error("the replica did not catch up in time")]
    Timeout,
    /// The token is of another life of the cluster.
    #[error("the version token is of incarnation {token}, the cluster is in incarnation {current}")]
    OldIncarnation {
        /// The token's incarnation.
        token: u64,
        /// The cluster's.
        current: u64,
    },
    /// The replica cannot serve reads (fenced, stopping, failed).
    #[error("{0}")]
    Unavailable(String),
}

/// The membership of every group and who answers, as this node's replicas have it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MembershipView {
    /// The cluster.
    pub cluster_uuid: String,
    /// Its life.
    pub incarnation: u64,
    /// Each group.
    pub groups: Vec<GroupMembers>,
    /// Ids that answered this node lately, where it leads `__meta/0`.
    pub up: BTreeSet<u64>,
}

/// Why a snapshot that was asked for is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotRequestError {
    /// Snapshots are turned off.
    #[error("snapshots are disabled")]
    Disabled,
    /// Nobody leads the group that assigns the work.
    #[error("no leader to assign the snapshot")]
    NoLeader,
    /// It was not verified and recorded in time; it may yet be.
    #[error("the snapshot was not finished in time")]
    Timeout,
    /// It was tried and failed.
    #[error("snapshot of {group} failed: {reason}")]
    Failed {
        /// Of which group.
        group: GroupId,
        /// What the builder reported.
        reason: String,
    },
}

/// One replica of one group on this node.
#[async_trait]
pub trait GroupBackend: Send + Sync {
    /// The group.
    fn id(&self) -> &GroupId;
    /// Reads of what this replica has applied.
    fn state(&self) -> &StateHandle;
    /// The leader, as far as is known here.
    fn leader(&self) -> Option<LeaderInfo>;
    /// Whether this replica leads.
    fn is_leader(&self) -> bool;
    /// Proposes a command and waits for its outcome. Commands whose futures are first polled in some order are
    /// proposed in that order.
    ///
    /// # Errors
    /// [`ProposeError`], of which only `Timeout` leaves open whether the command happens.
    async fn propose(&self, context: WriteContext, op: Op) -> Result<Applied, ProposeError>;
    /// Returns when a read of [`Self::state`] is as fresh as `mode` asks.
    ///
    /// # Errors
    /// [`ReadError`] when it cannot be in time.
    async fn barrier(&self, mode: &ReadMode) -> Result<(), ReadError>;
}

/// This node.
#[async_trait]
pub trait Backend: Send + Sync {
    /// The cluster's incarnation, the first part of every version token.
    fn incarnation(&self) -> u64;
    /// The operator's name of this node.
    fn node_name(&self) -> &str;
    /// The group that the namespace tree of `namespace` lives in.
    fn route(&self, namespace: &str) -> Arc<dyn GroupBackend>;
    /// The group of what belongs to the whole cluster.
    fn meta(&self) -> Arc<dyn GroupBackend>;
    /// All groups with configuration, in order.
    fn config_groups(&self) -> Vec<Arc<dyn GroupBackend>>;
    /// What `GET /api/v1/status` answers.
    async fn status(&self) -> Status;
    /// Which other nodes this one reaches now, by asking them; within seconds.
    async fn peers(&self) -> Vec<PeerReach>;
    /// What `GET /health/ready` answers.
    async fn readiness(&self) -> Readiness;
    /// The membership of every group.
    fn membership(&self) -> MembershipView;
    /// What `GET /metrics` answers: Prometheus text.
    fn metrics_text(&self) -> String;
    /// Has a snapshot of `group` (of all groups without it) made now, and answers when it is verified and recorded.
    ///
    /// # Errors
    /// [`SnapshotRequestError`], the first one of several groups.
    async fn request_snapshot(
        &self,
        group: Option<GroupId>,
    ) -> Result<Vec<SnapshotItem>, SnapshotRequestError>;
    /// The same, and answers as soon as somebody builds it.
    ///
    /// # Errors
    /// [`SnapshotRequestError`], the first one of several groups.
    async fn order_snapshot(
        &self,
        group: Option<GroupId>,
    ) -> Result<Vec<SnapshotOrder>, SnapshotRequestError>;
}
