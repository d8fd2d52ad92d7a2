//! What a starting node does: a pure function from facts to a decision with its reason.
//!
//! This is the table of the design's section 7 with the cells it leaves open filled in. It promises:
//!
//! - every combination of facts gives a decision; there is no default branch that hides a case;
//! - nothing it can answer destroys anything: no variant deletes, resets or overwrites data;
//! - a directory that holds data is started, fenced or refused, never formed over or joined over (I14); only one that was
//!   being restored, and whose node never started, is set aside when what it was restored for is over;
//! - a new cluster is formed only when *every* listed member says that it has no data and the store says
//!   that it has no other cluster. Silence is not emptiness.
//!
//! Restore orders have rows of their own, in `by_order`. It does not repair damage, or talk to anyone. The node
//! gathers the facts, prints the verdict, acts, and on [`Decision::Wait`] gathers them again.

use std::collections::BTreeSet;

use confman_snapshot::model::ClusterId;

use crate::by_order;
use crate::facts::{
    LocalData, LocalFacts, LocalIdentity, PeerAnswer, PeerFacts, Stage, StoreFacts, named,
};
use crate::verdict::{Decision, Verdict};

/// How a node whose time is over comes back.
pub const HINT_REJOIN: &str = "to bring this node back, run `drtool set-aside` on its data directory and start it again with \
    the same settings: it joins under a new node id and restores from the store";
const HINT_OTHER_DIRECTORY: &str = "check CONFMAN_DATA_DIR, CONFMAN_NODE_NAME and CONFMAN_PEERS; \
    nothing has been changed";
const HINT_LOST_CLUSTER: &str = "start a member that still has its data directory; if none is left, \
    `drtool restore plan` and `drtool restore apply` order a restore from the store, which no node decides on its own. \
    For a new cluster choose another prefix in CONFMAN_OBJECT_STORE_URL";
const HINT_STORE: &str = "check CONFMAN_OBJECT_STORE_URL and its credentials, or set \
    CONFMAN_SNAPSHOT_ENABLED=false to do without a store";

/// Decides what a starting node does. Pure: same facts, same verdict.
pub fn decide(local: &LocalFacts, peers: &PeerFacts, store: &StoreFacts) -> Verdict {
    match &local.data {
        LocalData::Damaged { finding } => refuse(
            "the data directory is not whole".to_owned(),
            finding.clone(),
            "nothing has been changed; look at it first, then run `drtool set-aside` on the data directory and start \
             again: the node joins under a new node id and restores from the store",
        ),
        LocalData::Good(identity) if identity.name != local.name => refuse(
            "the data directory is another node's".to_owned(),
            format!(
                "it belongs to {} and this node is called {}",
                identity.name, local.name
            ),
            HINT_OTHER_DIRECTORY,
        ),
        LocalData::Good(identity) => decide_good(local, identity, peers, store),
        LocalData::Empty => decide_empty(local, peers, store),
    }
}

/// The directory holds an identity: start it, fence it, or go on with what was interrupted.
fn decide_good(
    local: &LocalFacts,
    identity: &LocalIdentity,
    peers: &PeerFacts,
    store: &StoreFacts,
) -> Verdict {
    let own = &identity.cluster;
    if let Stage::Fenced { reason } = &identity.stage {
        return fence(format!("this node has fenced itself: {reason}"), None);
    }
    if let Stage::Restoring { plan } = &identity.stage {
        return by_order::resume(identity, plan, peers, store);
    }
    if let Some((newer, seen)) = newer_incarnation(own, peers, store) {
        return fence(
            format!(
                "{seen} has {}, this directory is of incarnation {}",
                named(newer),
                own.incarnation
            ),
            Some(newer.clone()),
        );
    }
    if let Some(peer) = peers.peers.iter().find(|p| retires_me(&p.answer, own)) {
        return fence(
            format!(
                "{} says that node id {} is retired",
                peer.name, identity.node_id
            ),
            None,
        );
    }
    match identity.stage {
        Stage::Complete => start(own, peers, store),
        Stage::Rejoining => resume_rejoin(identity, peers, store),
        Stage::Forming => resume_forming(local, own, peers, store),
        // Answered above.
        Stage::Fenced { .. } | Stage::Restoring { .. } => {
            fence("this node has fenced itself".to_owned(), None)
        }
    }
}

fn start(own: &ClusterId, peers: &PeerFacts, store: &StoreFacts) -> Verdict {
    let mut notes = store_notes(own, store);
    notes.extend(strangers(own, peers));
    Verdict {
        decision: Decision::Start,
        reason: format!("the data directory is whole and of {}", named(own)),
        notes,
    }
}

/// An admission under this id was interrupted before all groups were there: it goes on.
fn resume_rejoin(identity: &LocalIdentity, peers: &PeerFacts, store: &StoreFacts) -> Verdict {
    let own = &identity.cluster;
    let via = peers_with_leader(own, peers);
    if via.is_empty() {
        return wait(
            format!(
                "node id {} was admitted, its groups are not all restored",
                identity.node_id
            ),
            format!("a peer of {} that knows a leader answers", named(own)),
            "start the other members, or check CONFMAN_PEERS",
            peers,
        );
    }
    Verdict {
        decision: Decision::Rejoin {
            cluster: own.clone(),
            via,
            resume: Some(identity.node_id),
        },
        reason: format!(
            "node id {} was admitted, its groups are not all restored",
            identity.node_id
        ),
        notes: store_notes(own, store),
    }
}

/// A member at birth that has never started its groups: the birth goes on, or has happened meanwhile.
fn resume_forming(
    local: &LocalFacts,
    own: &ClusterId,
    peers: &PeerFacts,
    store: &StoreFacts,
) -> Verdict {
    if let Some(stranger) = strangers(own, peers).into_iter().next() {
        return refuse(
            "this directory is of a cluster whose birth was interrupted, and the peers are of another"
                .to_owned(),
            format!("{stranger}; this directory is of {}", named(own)),
            HINT_REJOIN,
        );
    }
    let has_data =
        |a: &PeerAnswer| matches!(a, PeerAnswer::Member { .. } | PeerAnswer::Fenced { .. });
    let is_born =
        |a: &PeerAnswer| matches!(a, PeerAnswer::Member { cluster, .. } if cluster == own);
    if peers.peers.iter().any(|p| is_born(&p.answer)) {
        let mut verdict = start(own, peers, store);
        verdict.reason = format!("{} has been born and this node was in it", named(own));
        return verdict;
    }
    let is_other = |a: &PeerAnswer| matches!(a, PeerAnswer::Forming { cluster } if cluster != own);
    if peers.peers.iter().any(|p| is_other(&p.answer)) {
        return two_births(peers);
    }
    if peers.peers.iter().any(|p| has_data(&p.answer)) {
        return wait(
            format!(
                "{} was being born, and a peer has data of another of its lives",
                named(own)
            ),
            format!("a member of {} answers", named(own)),
            HINT_REJOIN,
            peers,
        );
    }
    if let Some(verdict) = silent_peers(peers, &format!("{} is being born", named(own))) {
        return verdict;
    }
    if let Some(other) = store.other_than(&own.uuid) {
        return refuse(
            format!("{} is being born, the store is another's", named(own)),
            format!("the store's prefix belongs to {}", named(other)),
            "choose another prefix in CONFMAN_OBJECT_STORE_URL on every node",
        );
    }
    if let StoreFacts::Unreachable { why } = store {
        return store_unknown(why, peers);
    }
    form(
        local,
        peers,
        Some(own.clone()),
        format!("{} is being born", named(own)),
    )
}

/// The directory holds nothing: a new node, or one that lost its disk. The others know which.
fn decide_empty(local: &LocalFacts, peers: &PeerFacts, store: &StoreFacts) -> Verdict {
    let held: BTreeSet<&str> = peers
        .peers
        .iter()
        .filter_map(|p| Some(held_by(&p.answer)?.uuid.as_str()))
        .collect();
    if held.len() > 1 {
        return refuse(
            "the listed peers are of different clusters".to_owned(),
            format!("they answer: {}", answers(peers)),
            "list the members of one cluster in CONFMAN_PEERS",
        );
    }
    let living: Option<&ClusterId> = peers
        .peers
        .iter()
        .filter_map(|p| match &p.answer {
            PeerAnswer::Member { cluster, .. } | PeerAnswer::Fenced { cluster } => Some(cluster),
            PeerAnswer::Silent { .. } | PeerAnswer::Empty | PeerAnswer::Forming { .. } => None,
        })
        .max_by_key(|c| c.incarnation);
    if let Some(order) = store.open_order()
        && peers
            .peers
            .iter()
            .filter_map(|p| held_by(&p.answer))
            .all(|c| c.uuid == order.life.uuid && c.incarnation <= order.life.incarnation)
        && let Some(verdict) = by_order::empty(&local.name, order, peers, store)
    {
        return verdict;
    }
    match living {
        Some(cluster) => join_living(cluster, peers, store),
        None => no_data_seen(local, peers, store),
    }
}

/// A peer holds data of `cluster`, the newest incarnation that any peer has.
fn join_living(cluster: &ClusterId, peers: &PeerFacts, store: &StoreFacts) -> Verdict {
    if let Some(newer) = store.newest_of(&cluster.uuid)
        && newer.incarnation > cluster.incarnation
    {
        return wait(
            format!(
                "the store has {}, the peers are of incarnation {}",
                named(newer),
                cluster.incarnation
            ),
            format!("a peer of incarnation {} answers", newer.incarnation),
            "list a member of the newer incarnation in CONFMAN_PEERS",
            peers,
        );
    }
    let via = peers_with_leader(cluster, peers);
    if via.is_empty() {
        return wait(
            format!(
                "peers have data of {} and none knows a leader",
                named(cluster)
            ),
            "a majority of the members with data is up and has elected a leader".to_owned(),
            "start the members that still have their data; if a majority of them is gone for ever, \
             what survives is decided with drtool",
            peers,
        );
    }
    Verdict {
        decision: Decision::Rejoin {
            cluster: cluster.clone(),
            via,
            resume: None,
        },
        reason: format!("the data directory is empty and {} lives", named(cluster)),
        notes: store_notes(cluster, store),
    }
}

/// No peer that answered holds data: a birth, unless a silent one or the store holds some.
fn no_data_seen(local: &LocalFacts, peers: &PeerFacts, store: &StoreFacts) -> Verdict {
    let births: BTreeSet<&ClusterId> = peers
        .peers
        .iter()
        .filter_map(|p| held_by(&p.answer))
        .collect();
    if births.len() > 1 {
        return two_births(peers);
    }
    let forming = births.into_iter().next();
    let foreign = match forming {
        Some(cluster) => store.clusters().iter().find(|c| *c != cluster),
        None => store.clusters().iter().max_by_key(|c| c.incarnation),
    };
    if let Some(found) = foreign {
        return wait(
            format!(
                "no listed member has data and the store has {}",
                named(found)
            ),
            "a listed member that has data answers".to_owned(),
            HINT_LOST_CLUSTER,
            peers,
        );
    }
    if let Some(verdict) = silent_peers(peers, "no member that answered has data") {
        return verdict;
    }
    if let StoreFacts::Unreachable { why } = store {
        return store_unknown(why, peers);
    }
    let store_says = match store {
        StoreFacts::Off => "there is no store",
        _ if forming.is_some() => "the store has no other cluster",
        _ => "the store has no cluster",
    };
    let who = match forming {
        Some(cluster) => format!("{} is being born", named(cluster)),
        None if peers.peers.is_empty() => "no peers are listed".to_owned(),
        None => "every listed member is empty".to_owned(),
    };
    form(
        local,
        peers,
        forming.cloned(),
        format!("{who}, {store_says}"),
    )
}

/// A newer incarnation of `own`, and who has it.
pub(crate) fn newer_incarnation<'a>(
    own: &ClusterId,
    peers: &'a PeerFacts,
    store: &'a StoreFacts,
) -> Option<(&'a ClusterId, String)> {
    let newer = |c: &ClusterId| c.uuid == own.uuid && c.incarnation > own.incarnation;
    let of_peers = peers
        .peers
        .iter()
        .filter_map(|p| held_by(&p.answer).map(|cluster| (cluster, p.name.clone())));
    let of_store = store.clusters().iter().map(|c| (c, "the store".to_owned()));
    of_peers
        .chain(of_store)
        .filter(|(c, _)| newer(c))
        .max_by_key(|(c, _)| c.incarnation)
}

/// Whether this answer, from a member of the same life of the same cluster, retires the asking node.
pub(crate) fn retires_me(answer: &PeerAnswer, own: &ClusterId) -> bool {
    matches!(answer, PeerAnswer::Member { cluster, you_are_retired: true, .. } if cluster == own)
}

/// Names of the peers of exactly this life of this cluster that know a leader, sorted.
pub(crate) fn peers_with_leader(own: &ClusterId, peers: &PeerFacts) -> Vec<String> {
    let mut names: Vec<String> = peers
        .peers
        .iter()
        .filter(|p| {
            matches!(&p.answer, PeerAnswer::Member { cluster, leader: Some(_), .. } if cluster == own)
        })
        .map(|p| p.name.clone())
        .collect();
    names.sort();
    names
}

/// The cluster that a peer carries an identity of.
fn held_by(answer: &PeerAnswer) -> Option<&ClusterId> {
    match answer {
        PeerAnswer::Member { cluster, .. }
        | PeerAnswer::Fenced { cluster }
        | PeerAnswer::Forming { cluster } => Some(cluster),
        PeerAnswer::Silent { .. } | PeerAnswer::Empty => None,
    }
}

/// Peers that belong to another cluster, each as a sentence.
fn strangers(own: &ClusterId, peers: &PeerFacts) -> Vec<String> {
    peers
        .peers
        .iter()
        .filter(|p| held_by(&p.answer).is_some_and(|c| c.uuid != own.uuid))
        .map(|p| format!("{} answers: {}", p.name, p.answer))
        .collect()
}

/// What the store says about this cluster that the operator should hear, and that stops nothing (I18).
pub(crate) fn store_notes(own: &ClusterId, store: &StoreFacts) -> Vec<String> {
    match store {
        StoreFacts::Off => vec!["there is no store: no snapshot protects this cluster".to_owned()],
        StoreFacts::Unreachable { why } => vec![format!("the store is unreachable: {why}")],
        StoreFacts::Reached { clusters, .. } if clusters.is_empty() => {
            vec!["the store does not know this cluster".to_owned()]
        }
        StoreFacts::Reached { .. } => {
            match (store.newest_of(&own.uuid), store.other_than(&own.uuid)) {
                (_, Some(other)) => {
                    vec![format!(
                        "the store's prefix also has {}: share no prefix",
                        named(other)
                    )]
                }
                (Some(_), None) | (None, None) => Vec::new(),
            }
        }
    }
}

fn two_births(peers: &PeerFacts) -> Verdict {
    refuse(
        "the listed members have identities of different births".to_owned(),
        format!("they answer: {}", answers(peers)),
        "none of them has data yet: stop them all, run `drtool set-aside` on their data directories and start again",
    )
}

fn silent_peers(peers: &PeerFacts, context: &str) -> Option<Verdict> {
    let silent: Vec<&str> = peers
        .peers
        .iter()
        .filter(|p| matches!(p.answer, PeerAnswer::Silent { .. }))
        .map(|p| p.name.as_str())
        .collect();
    if silent.is_empty() {
        return None;
    }
    Some(wait(
        format!("{context}, and not all listed members have answered"),
        format!("{} answers", silent.join(" and ")),
        "a cluster is born only when every listed member has said that it has no data: start them all, \
         or check CONFMAN_PEERS",
        peers,
    ))
}

fn store_unknown(why: &str, peers: &PeerFacts) -> Verdict {
    wait(
        format!("the store is unreachable, so nobody can say whether it has a cluster: {why}"),
        "the store answers".to_owned(),
        HINT_STORE,
        peers,
    )
}

fn form(
    local: &LocalFacts,
    peers: &PeerFacts,
    resume: Option<ClusterId>,
    reason: String,
) -> Verdict {
    let names = peers
        .peers
        .iter()
        .map(|p| p.name.as_str())
        .chain([local.name.as_str()]);
    let coordinator = names.min().unwrap_or(&local.name).to_owned();
    Verdict {
        decision: Decision::Form {
            coordinator,
            resume,
        },
        reason,
        notes: Vec::new(),
    }
}

fn fence(reason: String, newer: Option<ClusterId>) -> Verdict {
    Verdict {
        decision: Decision::Fence {
            newer,
            hint: HINT_REJOIN.to_owned(),
        },
        reason,
        notes: Vec::new(),
    }
}

fn refuse(reason: String, finding: String, hint: &str) -> Verdict {
    Verdict {
        decision: Decision::Refuse {
            finding,
            hint: hint.to_owned(),
        },
        reason,
        notes: Vec::new(),
    }
}

pub(crate) fn wait(reason: String, until: String, hint: &str, peers: &PeerFacts) -> Verdict {
    let notes = if peers.peers.is_empty() {
        Vec::new()
    } else {
        vec![format!("peers: {}", answers(peers))]
    };
    Verdict {
        decision: Decision::Wait {
            until,
            hint: hint.to_owned(),
        },
        reason,
        notes,
    }
}

fn answers(peers: &PeerFacts) -> String {
    let each: Vec<String> = peers
        .peers
        .iter()
        .map(|p| format!("{}: {}", p.name, p.answer))
        .collect();
    each.join("; ")
}
