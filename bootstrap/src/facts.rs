//! What a starting node knows before it decides: its own disk, its peers, the store.
//!
//! Facts are plain values gathered by the node (`confman-node` asks the peers and the store) and read by
//! [`decide`](crate::decide::decide). Nothing here does I/O, and what is not known is a fact of its own: a
//! peer that did not answer is [`PeerAnswer::Silent`], never an empty one; a store that could not be asked
//! is [`StoreFacts::Unreachable`], never one without a cluster.

use std::fmt;

use confman_snapshot::model::ClusterId;
use confman_store::datadir::{Facts, Identity, IdentityState};

/// What this node's settings and its own data directory say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalFacts {
    /// The name in `CONFMAN_NODE_NAME`.
    pub name: String,
    /// What was found in the data directory.
    pub data: LocalData,
}

impl LocalFacts {
    /// The facts of a node called `name` whose data directory was inspected.
    pub fn new(name: impl Into<String>, found: Facts) -> Self {
        let data = match found {
            Facts::Empty => LocalData::Empty,
            Facts::Good(identity) => LocalData::Good(LocalIdentity::new(&identity)),
            Facts::Damaged(finding) => LocalData::Damaged { finding },
        };
        Self {
            name: name.into(),
            data,
        }
    }
}

/// What was found in the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalData {
    /// No identity and no group: a new node, or one that lost its disk. It cannot tell which.
    Empty,
    /// An identity that reads back whole.
    Good(LocalIdentity),
    /// Something that is not whole, not ours, or of a newer version, in the words of who found it.
    Damaged {
        /// What was found, and where.
        finding: String,
    },
}

/// The identity found in the data directory, as far as a decision needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalIdentity {
    /// The cluster and the incarnation that the directory belongs to.
    pub cluster: ClusterId,
    /// The id that the cluster gave this node.
    pub node_id: u64,
    /// The name that the node had when the directory was made.
    pub name: String,
    /// How far the directory has come.
    pub stage: Stage,
}

impl LocalIdentity {
    /// What a decision needs of an identity. One whose groups have not been started is of a birth when it
    /// names itself among the members, and of a join when it does not: a joining node got its id from them. A life that
    /// was not born but ordered has a lineage.
    pub fn new(identity: &Identity) -> Self {
        let at_birth = identity
            .members
            .iter()
            .any(|member| member.id == identity.node_id);
        let stage = match identity.state() {
            IdentityState::Formed if at_birth && !identity.lineage.is_empty() => Stage::Restoring {
                plan: identity.lineage.clone(),
            },
            IdentityState::Formed if at_birth => Stage::Forming,
            IdentityState::Formed => Stage::Rejoining,
            IdentityState::Initialized => Stage::Complete,
            IdentityState::Fenced => Stage::Fenced {
                reason: identity.reason.clone(),
            },
        };
        let (cluster, node_id, name) =
            (identity.cluster(), identity.node_id, identity.name.clone());
        Self {
            cluster,
            node_id,
            name,
            stage,
        }
    }
}

/// How far a data directory has come in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// A member at birth that has its identity and has never started its groups: it cast no vote.
    Forming,
    /// A node that was admitted under this id and whose groups are not all restored yet: it cast no vote.
    Rejoining,
    /// A node that restores itself under an id of a restore order and has never started its groups: it cast no vote.
    Restoring {
        /// The plan of the order.
        plan: String,
    },
    /// A node whose groups have been started.
    Complete,
    /// A node that met a newer incarnation of its cluster, or was retired, and wrote that down.
    Fenced {
        /// What it wrote down.
        reason: String,
    },
}

/// What the other listed members answered. The own entry of `CONFMAN_PEERS` is not among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerFacts {
    /// One for each listed peer, whether it answered or not.
    pub peers: Vec<PeerFact>,
}

/// What one listed peer answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerFact {
    /// Its name in `CONFMAN_PEERS`.
    pub name: String,
    /// Its answer.
    pub answer: PeerAnswer,
}

/// The answer of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerAnswer {
    /// No usable answer: refused, timed out, wrong token, gone. It may hold data all the same.
    Silent {
        /// Why there is no answer.
        why: String,
    },
    /// It has no identity either.
    Empty,
    /// It has the identity of a cluster that is being born and has not started its groups.
    Forming {
        /// The cluster that is being born.
        cluster: ClusterId,
    },
    /// It has data of a cluster.
    Member {
        /// The cluster and incarnation it belongs to.
        cluster: ClusterId,
        /// The name of the node it holds to be the leader of `__meta/0` now, if there is one.
        leader: Option<String>,
        /// Whether it knows the asking node's id to be retired; `false` when the asking node has none.
        you_are_retired: bool,
    },
    /// It has fenced itself: its data belong to an incarnation that is over.
    Fenced {
        /// The cluster and incarnation that its data belong to.
        cluster: ClusterId,
    },
}

/// What the object store says about who owns the prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreFacts {
    /// Snapshots are switched off: no store is asked.
    Off,
    /// The store could not be asked within the time given, or its answer made no sense.
    Unreachable {
        /// What went wrong.
        why: String,
    },
    /// Every cluster object under the prefix, in any order; empty when there is none.
    Reached {
        /// The clusters and incarnations found.
        clusters: Vec<ClusterId>,
        /// The restore order that began the newest life, if one did.
        order: Option<OrderFact>,
    },
}

/// A restore order, as far as it concerns the node that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderFact {
    /// The life that it begins.
    pub life: ClusterId,
    /// Its plan.
    pub plan: String,
    /// Whether it may be carried out.
    pub state: OrderState,
    /// The id that it gives to the node of this name, if it names it.
    pub member: Option<u64>,
    /// Whether that id was taken up, by whatever directory.
    pub taken: bool,
    /// The names of its members.
    pub names: Vec<String>,
}

/// Whether a restore order may be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderState {
    /// It may.
    Open,
    /// The life that it begins has begun: no empty node carries it out any more.
    Spent,
    /// This program cannot carry it out.
    Unusable {
        /// Why.
        why: String,
    },
}

impl StoreFacts {
    /// The highest incarnation of the cluster `uuid` that the store knows.
    pub(crate) fn newest_of(&self, uuid: &str) -> Option<&ClusterId> {
        self.clusters()
            .iter()
            .filter(|c| c.uuid == uuid)
            .max_by_key(|c| c.incarnation)
    }

    /// A cluster in the store with another uuid.
    pub(crate) fn other_than(&self, uuid: &str) -> Option<&ClusterId> {
        self.clusters()
            .iter()
            .filter(|c| c.uuid != uuid)
            .max_by_key(|c| c.incarnation)
    }

    pub(crate) fn clusters(&self) -> &[ClusterId] {
        match self {
            StoreFacts::Reached { clusters, .. } => clusters,
            StoreFacts::Off | StoreFacts::Unreachable { .. } => &[],
        }
    }

    /// The order that began the newest life, unless it is spent.
    pub(crate) fn open_order(&self) -> Option<&OrderFact> {
        match self {
            StoreFacts::Reached { order, .. } => {
                order.as_ref().filter(|o| o.state != OrderState::Spent)
            }
            StoreFacts::Off | StoreFacts::Unreachable { .. } => None,
        }
    }
}

impl fmt::Display for PeerAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerAnswer::Silent { why } => write!(f, "no answer ({why})"),
            PeerAnswer::Empty => write!(f, "empty"),
            PeerAnswer::Forming { cluster } => write!(f, "forming {}", named(cluster)),
            PeerAnswer::Member {
                cluster,
                leader: Some(leader),
                ..
            } => {
                write!(f, "member of {}, leader {leader}", named(cluster))
            }
            PeerAnswer::Member {
                cluster,
                leader: None,
                ..
            } => {
                write!(f, "member of {}, no leader", named(cluster))
            }
            PeerAnswer::Fenced { cluster } => write!(f, "fenced in {}", named(cluster)),
        }
    }
}

/// A cluster in words: `cluster {uuid} incarnation {n}`.
pub(crate) fn named(cluster: &ClusterId) -> String {
    format!(
        "cluster {} incarnation {}",
        cluster.uuid, cluster.incarnation
    )
}
