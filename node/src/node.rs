//! A running node: its identity and its groups, and the answers about them.
//!
//! Assembled by [`crate::serve`] from parts given by argument. Holds no cache of replicated state but
//! the registry of node ids, which is read again whenever `__meta/0` has applied something, because
//! every peer message is checked against it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use confman_bootstrap::report::RestoreReport;
use confman_client::wire::{
    GroupMembers, PeerReach, Readiness, SnapshotItem, SnapshotOrder, Status,
};
use confman_config::Settings;
use confman_snapshot::fnv1a64;
use confman_snapshot::model::{ClusterId, GroupId};
use confman_store::command::BeginIncarnation;
use confman_store::membership::NodeWish;
use confman_store::records::{IncarnationKind, NodeRecord, NodeState};
use confman_store::{DataPaths, Identity, names};
use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::Mutex;

use crate::api::backend::{Backend, GroupBackend, MembershipView, SnapshotRequestError};
use crate::clock::Clock;
use crate::fence::Fence;
use crate::group::Group;
use crate::grumble::Grumble;
use crate::peer::client::Channels;
use crate::peer::proto;
use crate::store_door::StoreDoor;

/// The parts a node is assembled from.
pub(crate) struct Parts {
    pub(crate) settings: Arc<Settings>,
    pub(crate) identity: Identity,
    pub(crate) paths: DataPaths,
    pub(crate) groups: BTreeMap<GroupId, Arc<Group>>,
    pub(crate) channels: Channels,
    pub(crate) store: Arc<StoreDoor>,
    pub(crate) restored: BTreeMap<GroupId, RestoreReport>,
    pub(crate) addresses: Arc<ArcSwap<BTreeMap<u64, String>>>,
    pub(crate) fence: Arc<Fence>,
    pub(crate) prometheus: PrometheusHandle,
    /// What the first leader of this life proposes, while that has not been done.
    pub(crate) pending: Option<BeginIncarnation>,
    /// Told when a newer life of the cluster is met.
    pub(crate) newer: tokio::sync::watch::Sender<Option<String>>,
    /// Told when this node's id is called retired.
    pub(crate) told_retired: tokio::sync::watch::Sender<Option<String>>,
}

/// The registered nodes as of the last look.
#[derive(Default)]
struct Registry {
    nodes: Vec<NodeRecord>,
    retired: HashMap<u64, String>,
}

/// A running node.
pub(crate) struct Node {
    settings: Arc<Settings>,
    identity: Identity,
    cluster: ClusterId,
    paths: DataPaths,
    groups: BTreeMap<GroupId, Arc<Group>>,
    meta: Arc<Group>,
    channels: Channels,
    store: Arc<StoreDoor>,
    restored: Mutex<BTreeMap<GroupId, RestoreReport>>,
    registry: ArcSwap<Registry>,
    addresses: Arc<ArcSwap<BTreeMap<u64, String>>>,
    fence: Arc<Fence>,
    prometheus: PrometheusHandle,
    pending: Option<BeginIncarnation>,
    newer: tokio::sync::watch::Sender<Option<String>>,
    told_retired: tokio::sync::watch::Sender<Option<String>>,
    /// What the membership of each group that this node leads waits for.
    waits: Mutex<BTreeMap<GroupId, String>>,
    /// Why the life of this node cannot begin yet.
    held_back: Mutex<Option<String>>,
    grumble: Grumble,
}

/// The groups given have no `__meta/0`.
#[derive(Debug, thiserror::Error)]
#[error("a node without the group __meta/0")]
pub(crate) struct NoMeta;

impl Node {
    pub(crate) fn new(parts: Parts) -> Result<Arc<Self>, NoMeta> {
        let meta = parts.groups.get(&GroupId::meta()).cloned().ok_or(NoMeta)?;
        Ok(Arc::new(Self {
            cluster: parts.identity.cluster(),
            settings: parts.settings,
            identity: parts.identity,
            paths: parts.paths,
            groups: parts.groups,
            meta,
            channels: parts.channels,
            store: parts.store,
            restored: Mutex::new(parts.restored),
            registry: ArcSwap::default(),
            addresses: parts.addresses,
            fence: parts.fence,
            prometheus: parts.prometheus,
            pending: parts.pending,
            newer: parts.newer,
            told_retired: parts.told_retired,
            waits: Mutex::default(),
            held_back: Mutex::default(),
            grumble: Grumble::default(),
        }))
    }

    /// Whether the log may be told now that something, which is tried at every turn, failed in a group: then, how often
    /// that was kept back.
    pub(crate) fn may_tell(&self, group: &GroupId, what: &'static str) -> Option<u64> {
        self.grumble.may(&group.to_string(), what, Instant::now())
    }

    /// This node's id.
    pub(crate) fn id(&self) -> u64 {
        self.identity.node_id
    }

    /// The operator's name for this node.
    pub(crate) fn name(&self) -> &str {
        &self.identity.name
    }

    /// The cluster and its life.
    pub(crate) fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// The settings it was started with.
    pub(crate) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn paths(&self) -> &DataPaths {
        &self.paths
    }

    pub(crate) fn channels(&self) -> &Channels {
        &self.channels
    }

    pub(crate) fn store(&self) -> &Arc<StoreDoor> {
        &self.store
    }

    /// What time it is, by all nodes' clocks.
    pub(crate) fn clock(&self) -> &Clock {
        self.meta.acquaintances().clock()
    }

    /// Until when its life may be taken for the newest.
    pub(crate) fn fence(&self) -> &Fence {
        &self.fence
    }

    /// One of its groups.
    pub(crate) fn group(&self, id: &GroupId) -> Option<Arc<Group>> {
        self.groups.get(id).cloned()
    }

    /// Asks a peer who it is, in this node's name.
    pub(crate) fn question(&self) -> proto::HelloRequest {
        proto::HelloRequest {
            from: Some(proto::Node {
                id: self.id(),
                name: self.name().to_owned(),
                ..Default::default()
            }),
            cluster_uuid: self.cluster.uuid.clone(),
            incarnation: self.cluster.incarnation,
            lineage: self.identity.lineage.clone(),
            ..Default::default()
        }
    }

    /// All its groups, in order.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.groups.values()
    }

    /// The group of what belongs to the whole cluster.
    pub(crate) fn meta(&self) -> &Arc<Group> {
        &self.meta
    }

    /// Why `id` may not speak any more, if it was retired.
    pub(crate) fn retired(&self, id: u64) -> Option<String> {
        self.registry.load().retired.get(&id).cloned()
    }

    /// The registered nodes, retired ones too, as of the last look.
    pub(crate) fn registered(&self) -> Vec<NodeRecord> {
        self.registry.load().nodes.clone()
    }

    /// Whether every group knows that the life this node is of has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.groups.values().all(|group| group.has_begun())
    }

    /// What the first leader of this life proposes, if this node was given it.
    pub(crate) fn pending(&self) -> Option<&BeginIncarnation> {
        self.pending.as_ref()
    }

    /// Whether this is a copy that has not taken its own name yet: what its registry says is another cluster's.
    pub(crate) fn is_unborn_copy(&self) -> bool {
        let copy = |begin: &BeginIncarnation| begin.kind() == IncarnationKind::Copy;
        self.pending.as_ref().is_some_and(copy) && !self.has_begun()
    }

    /// Why the life of this node cannot begin yet, as far as is known.
    pub(crate) fn held_back(&self) -> Option<String> {
        self.held_back.lock().clone()
    }

    /// Says why the life of this node cannot begin yet; gives what was said before.
    pub(crate) fn hold_back(&self, why: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.held_back.lock(), why)
    }

    /// Says what the membership of a group waits for.
    pub(crate) fn wait_for(&self, group: &GroupId, what: Option<String>) {
        let mut waits = self.waits.lock();
        match what {
            Some(what) => waits.insert(group.clone(), what),
            None => waits.remove(group),
        };
    }

    /// What the membership of a group waits for, when this node leads it.
    pub(crate) fn waits_for(&self, group: &GroupId) -> Option<String> {
        self.waits.lock().get(group).cloned()
    }

    /// Another member says that this node's id was retired.
    pub(crate) fn told_retired(&self, reason: String) {
        self.told_retired.send_replace(Some(reason));
    }

    /// Whether this node is wished to follow without a vote.
    pub(crate) fn shall_learn(&self) -> bool {
        self.registry
            .load()
            .nodes
            .iter()
            .any(|n| n.id == self.id() && n.wish() == NodeWish::Learner)
    }

    /// Whether any group has a leader, or had one since this process began.
    pub(crate) fn lives(&self) -> bool {
        self.groups.values().any(|group| group.lives())
    }

    /// A node of a newer life of this cluster has spoken. It need not have begun, so it ends this one only where no
    /// group has had a leader: a living quorum is ended by nobody who asks, only by what that life has committed.
    pub(crate) fn meet_newer(&self, incarnation: u64) {
        if !self.lives() {
            self.newer.send_replace(Some(format!(
                "a node of incarnation {incarnation} of this cluster has spoken, this node is of {} and has known no leader",
                self.cluster.incarnation
            )));
        }
    }

    /// Reads the registry again.
    pub(crate) fn refresh_registry(&self) -> Result<(), confman_store::StoreError> {
        if self.is_unborn_copy() {
            return Ok(());
        }
        let nodes = self.meta.state().nodes()?;
        let retired = nodes
            .iter()
            .filter(|n| n.state() == NodeState::Retired)
            .map(|n| (n.id, why_retired(n, &nodes)))
            .collect();
        let addresses = nodes.iter().map(|n| (n.id, n.peer_addr.clone())).collect();
        self.addresses.store(Arc::new(addresses));
        self.registry.store(Arc::new(Registry { nodes, retired }));
        Ok(())
    }

    pub(crate) fn restore_report(&self, group: &GroupId) -> Option<RestoreReport> {
        self.restored.lock().get(group).cloned()
    }

    pub(crate) fn note_restore(&self, group: &GroupId, report: RestoreReport) {
        self.restored.lock().insert(group.clone(), report);
    }

    /// The group that the tree of `namespace` lives in, whole.
    fn group_of(&self, namespace: &str) -> Arc<Group> {
        let shards = u64::from(self.identity.shards.max(1));
        let partition = fnv1a64(names::first_segment(namespace).as_bytes()) % shards;
        // Less than a u32 by construction; the group is there because all were opened.
        let id = GroupId::config(u32::try_from(partition).unwrap_or(0));
        self.groups.get(&id).unwrap_or(&self.meta).clone()
    }
}

/// Why `node`, which is retired, may not speak any more, and how its machine can be a member again.
fn why_retired(node: &NodeRecord, nodes: &[NodeRecord]) -> String {
    let who = format!("node id {} ({})", node.id, node.name);
    let successor = nodes
        .iter()
        .filter(|o| o.name == node.name && o.id > node.id && o.state() != NodeState::Retired)
        .map(|o| o.id)
        .max();
    if let Some(by) = successor {
        return format!(
            "{who} was retired: node id {by} took its place\nhint: its data is kept; {} lives as node id {by}, so give this machine another name if it is to be a node",
            node.name
        );
    }
    let gone = match nodes
        .iter()
        .find(|o| o.replaces == Some(node.id) && o.name != node.name)
    {
        Some(by) => format!("{who} was replaced by {} ({})", by.name, by.id),
        None if node.retired_index > 0 => {
            format!(
                "{who} was removed at index {} of __meta/0",
                node.retired_index
            )
        }
        None => format!("{who} was retired"),
    };
    format!(
        "{gone}\nhint: its data is kept; to take this machine in again run `drtool member add {} {}`, run `drtool set-aside` on its data directory and start it",
        node.name, node.peer_addr
    )
}

#[async_trait]
impl Backend for Node {
    fn incarnation(&self) -> u64 {
        self.cluster.incarnation
    }

    fn node_name(&self) -> &str {
        self.name()
    }

    fn route(&self, namespace: &str) -> Arc<dyn GroupBackend> {
        self.group_of(namespace)
    }

    fn meta(&self) -> Arc<dyn GroupBackend> {
        Arc::clone(&self.meta) as Arc<dyn GroupBackend>
    }

    fn config_groups(&self) -> Vec<Arc<dyn GroupBackend>> {
        self.groups
            .values()
            .filter(|g| !g.id().is_meta())
            .map(|g| Arc::clone(g) as Arc<dyn GroupBackend>)
            .collect()
    }

    async fn status(&self) -> Status {
        crate::account::status(self)
    }

    async fn peers(&self) -> Vec<PeerReach> {
        crate::reach::peers(self).await
    }

    async fn readiness(&self) -> Readiness {
        crate::account::readiness(self)
    }

    fn membership(&self) -> MembershipView {
        let groups = self.groups.values().map(|group| {
            let raft = group.metrics();
            let membership = raft.membership_config.membership();
            let voters: BTreeSet<u64> = membership.voter_ids().collect();
            GroupMembers {
                group: group.id().to_string(),
                leader: group.leader_peer().map(|l| l.info.id),
                learners: membership
                    .nodes()
                    .map(|(id, _)| *id)
                    .filter(|id| !voters.contains(id))
                    .collect(),
                voters: voters.into_iter().collect(),
                joint: membership.get_joint_config().len() != 1,
            }
        });
        MembershipView {
            cluster_uuid: self.cluster.uuid.clone(),
            incarnation: self.cluster.incarnation,
            groups: groups.collect(),
            up: crate::membership::alive(self, &self.meta),
        }
    }

    fn metrics_text(&self) -> String {
        crate::account::publish(self);
        self.prometheus.render()
    }

    async fn request_snapshot(
        &self,
        group: Option<GroupId>,
    ) -> Result<Vec<SnapshotItem>, SnapshotRequestError> {
        crate::manager::request(self, group).await
    }

    async fn order_snapshot(
        &self,
        group: Option<GroupId>,
    ) -> Result<Vec<SnapshotOrder>, SnapshotRequestError> {
        crate::manager::order(self, group).await
    }
}
