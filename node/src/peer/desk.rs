//! Where this node stands, as its peers are told: empty, being born, a member, fenced, diverged.
//!
//! The desk outlives every stage: it answers Hello before the node has an identity and after it
//! fenced itself. Birth messages are handed to [`crate::formation`], which owns the data directory.

use std::sync::Arc;

use arc_swap::ArcSwap;
use confman_snapshot::model::ClusterId;
use confman_store::Identity;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::{mpsc, oneshot, watch};

use super::acquaintance::{Acquaintances, Own};
use super::proto;
use crate::node::Node;

/// Which life of which cluster a data directory is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    /// The cluster and the incarnation.
    pub(crate) cluster: ClusterId,
    /// Which of several lives of that number.
    pub(crate) lineage: String,
    /// It was prepared and has not begun: nothing of it was acknowledged, and it ends no other.
    pub(crate) unborn: bool,
    /// The id of this node in it.
    pub(crate) node_id: u64,
}

impl Life {
    /// That of an identity.
    pub(crate) fn of(identity: &Identity, unborn: bool) -> Self {
        Self {
            cluster: identity.cluster(),
            lineage: identity.lineage.clone(),
            unborn,
            node_id: identity.node_id,
        }
    }
}

/// How far this node has come.
#[derive(Clone)]
pub(crate) enum Stage {
    /// The data directory has not been looked at yet, or is damaged: it may hold anything.
    Unknown,
    /// No identity.
    Empty,
    /// An identity from a birth that is under way; no group has run.
    Forming(ClusterId),
    /// An identity, groups not running yet (restoring, or starting).
    Starting(Life),
    /// Running.
    Member(Arc<Node>),
    /// Its time is over; it serves nothing.
    Fenced(Life),
    /// Its state differs from the recorded one; it serves nothing, and has what was acknowledged until somebody decides.
    Diverged(Life),
}

/// A birth message for the formation loop.
pub(crate) enum Birth {
    /// Take this identity.
    Prepare(
        proto::PrepareRequest,
        oneshot::Sender<Result<(), tonic::Status>>,
    ),
    /// Every listed node has it: begin.
    Commence(
        proto::CommenceRequest,
        oneshot::Sender<Result<(), tonic::Status>>,
    ),
}

/// What the peer service knows.
pub(crate) struct Desk {
    /// This node as it wants to be reached.
    pub(crate) own: proto::Node,
    /// Which process speaks for which node.
    pub(crate) acquaintances: Arc<Acquaintances>,
    stage: ArcSwap<Stage>,
    births: mpsc::Sender<Birth>,
    token: Option<[u8; 32]>,
    /// Told when a node of a newer life has spoken to this one while it stands still.
    newer: watch::Sender<Option<u64>>,
}

impl Desk {
    /// A desk that hands birth messages to the returned queue.
    pub(crate) fn new(
        own: proto::Node,
        acquaintances: Arc<Acquaintances>,
        token: Option<&SecretString>,
    ) -> (Arc<Self>, mpsc::Receiver<Birth>) {
        let (births, queue) = mpsc::channel(16);
        let token = token.map(|t| sha256(t.expose_secret().as_bytes()));
        let desk = Self {
            own,
            acquaintances,
            stage: ArcSwap::from_pointee(Stage::Unknown),
            births,
            token,
            newer: watch::Sender::new(None),
        };
        (Arc::new(desk), queue)
    }

    pub(crate) fn stage(&self) -> Arc<Stage> {
        self.stage.load_full()
    }

    pub(crate) fn enter(&self, stage: Stage) {
        self.stage.store(Arc::new(stage));
    }

    /// Who this process is in the life that its stage is of; none without an id.
    pub(crate) fn own_in(&self, stage: &Stage) -> Option<Own> {
        let (id, cluster, lineage) = match stage {
            Stage::Starting(life) | Stage::Diverged(life) => {
                (life.node_id, &life.cluster, &life.lineage)
            }
            Stage::Member(node) => (node.id(), node.cluster(), &node.identity().lineage),
            _ => return None,
        };
        Some(Own {
            node: proto::Node {
                id,
                ..self.own.clone()
            },
            cluster_uuid: cluster.uuid.clone(),
            incarnation: cluster.incarnation,
            lineage: lineage.clone(),
        })
    }

    /// A node of a newer life of this cluster has spoken.
    pub(crate) fn meet_newer(&self, incarnation: u64) {
        self.newer.send_replace(Some(incarnation));
    }

    /// Resolves with the incarnation that was met first by [`Desk::meet_newer`].
    pub(crate) async fn newer(&self) -> u64 {
        let mut told = self.newer.subscribe();
        match told.wait_for(Option::is_some).await {
            Ok(met) => met.unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    pub(crate) fn births(&self) -> &mpsc::Sender<Birth> {
        &self.births
    }

    /// Compares hashes, in constant time: neither length nor prefix of the token shows.
    pub(crate) fn token_fits(&self, presented: Option<&[u8]>) -> bool {
        match (&self.token, presented) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(presented)) => sha256(presented).ct_eq(own).into(),
        }
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
