//! What nodes say to each other, over tonic.
//!
//! - [`acquaintance`] knows which process speaks for which node id, and lets no second one in (I14);
//! - [`evidence`] is what a node is known to have promised: one that starts with less has an older directory;
//! - [`client`] keeps one channel per address and purpose, with deadlines on every call;
//! - [`network`] is openraft's view of it;
//! - [`life`] tells whether a message is of this node's own life, whatever its term;
//! - [`listener`] is where they come in, and what they send on for clients;
//! - [`service`] answers, and refuses before Raft whatever names another cluster, another
//!   incarnation or another node (promise I13), or a node id that was retired (I14).
//!
//! Bodies of Raft messages are our own versioned structs (`confman_store::wire`), never openraft's.

pub(crate) mod acquaintance;
pub(crate) mod client;
mod codec;
pub(crate) mod desk;
pub(crate) mod evidence;
mod life;
pub(crate) mod listener;
pub(crate) mod network;
pub(crate) mod service;

/// Generated from `proto/peer.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub(crate) mod proto {
    tonic::include_proto!("confman.peer.v1");
}

use tonic::Status;

/// The metadata key that carries the peer token.
pub(crate) const TOKEN_KEY: &str = "x-confman-cluster-token";
/// The metadata key that carries a refusal's stable code.
pub(crate) const CODE_KEY: &str = "x-confman-code";

/// The metadata key that carries the incarnation of who refused, once that has begun.
const INCARNATION_KEY: &str = "x-confman-incarnation";

/// Largest peer message: an append batch is bounded to 4 MiB of entries, one entry to 1 MiB.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why a peer refused to listen, stable across versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The peer token is missing or wrong.
    Token,
    /// The message names another cluster.
    OtherCluster,
    /// The message names an older or newer incarnation.
    OtherIncarnation,
    /// The message is of another life of the same number: two survivors were recovered.
    OtherLineage,
    /// The message is for another node id: an address was reused, or a node lost its disk.
    OtherNode,
    /// The sender's node id was retired.
    Retired,
    /// This node has no such group, or has not begun to run its groups.
    NotServing,
    /// A node of that name is alive.
    NameInUse,
    /// The cluster knows no node of that name.
    UnknownName,
    /// A snapshot offered by reference cannot be had from the store there.
    StoreUnreachable,
    /// A snapshot record with another state hash than the leader's own at that position.
    StateDiffers,
    /// The two processes do not know each other: an introduction by Hello comes first.
    NotIntroduced,
    /// Another process answers under the sender's node id: its data directory was copied.
    SecondProcess,
    /// The sender's log ends before what it acknowledged: an older copy of its data directory was put back.
    OlderDirectory,
}

impl Refusal {
    const ALL: [Refusal; 14] = [
        Refusal::Token,
        Refusal::OtherCluster,
        Refusal::OtherIncarnation,
        Refusal::OtherLineage,
        Refusal::OtherNode,
        Refusal::Retired,
        Refusal::NotServing,
        Refusal::NameInUse,
        Refusal::UnknownName,
        Refusal::StoreUnreachable,
        Refusal::StateDiffers,
        Refusal::NotIntroduced,
        Refusal::SecondProcess,
        Refusal::OlderDirectory,
    ];

    /// The code as it goes over the wire and into logs.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Refusal::Token => "peer-token",
            Refusal::OtherCluster => "other-cluster",
            Refusal::OtherIncarnation => "other-incarnation",
            Refusal::OtherLineage => "other-lineage",
            Refusal::OtherNode => "other-node",
            Refusal::Retired => "retired",
            Refusal::NotServing => "not-serving",
            Refusal::NameInUse => "name-in-use",
            Refusal::UnknownName => "unknown-name",
            Refusal::StoreUnreachable => "store-unreachable",
            Refusal::StateDiffers => "state-differs",
            Refusal::NotIntroduced => "not-introduced",
            Refusal::SecondProcess => "second-process",
            Refusal::OlderDirectory => "older-directory",
        }
    }

    /// The refusal that a status carries, if it is one.
    pub(crate) fn of(status: &Status) -> Option<Refusal> {
        Self::of_code(status.metadata().get(CODE_KEY)?.to_str().ok()?)
    }

    /// The refusal of that code.
    pub(crate) fn of_code(code: &str) -> Option<Refusal> {
        Refusal::ALL.into_iter().find(|r| r.code() == code)
    }

    /// The refusal of a node of `incarnation`, which has begun: whoever is of an older one learns that its time is over.
    pub(crate) fn of_incarnation(incarnation: u64, detail: impl Into<String>) -> Status {
        let mut status = Self::OtherIncarnation.status(detail);
        status
            .metadata_mut()
            .insert(INCARNATION_KEY, incarnation.into());
        status
    }

    /// The incarnation that a status of [`Refusal::of_incarnation`] carries.
    pub(crate) fn incarnation(status: &Status) -> Option<u64> {
        let value = status.metadata().get(INCARNATION_KEY)?;
        value.to_str().ok()?.parse().ok()
    }

    /// A status that carries this refusal.
    pub(crate) fn status(self, detail: impl Into<String>) -> Status {
        let grpc = match self {
            Refusal::Token => tonic::Code::Unauthenticated,
            Refusal::NotServing => tonic::Code::Unavailable,
            _ => tonic::Code::FailedPrecondition,
        };
        let mut status = Status::new(grpc, detail);
        status.metadata_mut().insert(
            CODE_KEY,
            tonic::metadata::MetadataValue::from_static(self.code()),
        );
        status
    }
}
