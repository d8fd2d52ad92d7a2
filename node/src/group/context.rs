//! What a group knows of its node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use arc_swap::ArcSwap;
use confman_snapshot::model::GroupId;
use confman_store::types::Member;

use crate::api::backend::LeaderInfo;
use crate::fence::Fence;
use crate::peer::acquaintance::Acquaintances;
use crate::peer::client::Channels;
use crate::peer::proto;

/// What a group needs to know of its node.
#[derive(Clone)]
pub(crate) struct GroupContext {
    /// This node's id.
    pub(crate) node_id: u64,
    /// The cluster's uuid.
    pub(crate) cluster_uuid: String,
    /// The cluster's incarnation.
    pub(crate) incarnation: u64,
    /// Which of several lives of that incarnation.
    pub(crate) lineage: String,
    /// Channels to the other nodes.
    pub(crate) channels: Channels,
    /// Which process speaks for which node.
    pub(crate) acquaintances: Arc<Acquaintances>,
    /// Where each registered node is now: a node that moved keeps its id, and openraft keeps dialling
    /// the address that a replication began with.
    pub(crate) addresses: Arc<ArcSwap<BTreeMap<u64, String>>>,
    /// Whether this life may go on, by the store's word.
    pub(crate) fence: Arc<Fence>,
    /// Snapshot transfers that this node, leading, has under way in this group.
    pub(crate) transfers: Arc<AtomicUsize>,
    /// Told when a peer says that this node's id was retired, with its words.
    pub(crate) retired: tokio::sync::watch::Sender<Option<String>>,
    /// Told when a newer life of the cluster is met, with who has it.
    pub(crate) newer: tokio::sync::watch::Sender<Option<String>>,
    /// A leader that was silent for longer is not spoken of any more.
    pub(crate) leader_silence_max: Duration,
    /// How often a leader is heard.
    pub(crate) heartbeat: Duration,
    /// Bound for a write's confirmation.
    pub(crate) write_timeout: Duration,
    /// Bound for a read's guarantee.
    pub(crate) read_timeout: Duration,
}

impl GroupContext {
    /// Where `member`, node id `id`, is reached now.
    pub(crate) fn address(&self, id: u64, member: &Member) -> String {
        self.addresses
            .load()
            .get(&id)
            .unwrap_or(&member.peer_addr)
            .clone()
    }

    /// A header for a message of `group` to node id `to`: who speaks, in which life of which cluster.
    pub(crate) fn header(&self, group: &GroupId, to: u64) -> proto::Header {
        proto::Header {
            cluster_uuid: self.cluster_uuid.clone(),
            incarnation: self.incarnation,
            from_node: self.node_id,
            to_node: to,
            group: group.to_string(),
            lineage: self.lineage.clone(),
            from_boot: self.acquaintances.boot(),
            to_boot: self.acquaintances.boot_of(to),
        }
    }
}

/// A leader and where its peer listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeaderPeer {
    /// What clients are told.
    pub(crate) info: LeaderInfo,
    /// Where other nodes reach it.
    pub(crate) peer_addr: String,
}
