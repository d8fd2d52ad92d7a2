//! Before a node's groups run: is this process the only one of its node, and is its data directory as new as what the
//! node promised?
//!
//! A data directory that was copied, or a disk that is mounted twice, makes two processes with one node id, and the two
//! could vote twice in one term. So a process that is about to run asks everybody who may know: the other members, which
//! remember whom they heard, and every address that its node has or had, where another process may answer.
//!
//! A data directory may also be put back from an older copy, and then the node could vote again in a term that it voted in,
//! or be counted on for entries that it acknowledged and does not have. Every process tells the others about once a
//! second what it holds durably; they remember that, and what it acknowledged to them, and compare.
//!
//! Promises: nothing of this node has voted before the question was put; a restart is never refused, because the process
//! before it is dead and answers nobody. Who does not answer is not waited for: a cluster that starts whole has nobody to
//! ask, and whoever answers later says so then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use confman_config::Settings;
use confman_snapshot::model::GroupId;
use confman_store::Identity;
use confman_store::command::BeginIncarnation;
use confman_store::records::{IncarnationKind, NodeState};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::group::Group;
use crate::node::Node;
use crate::peer::acquaintance::{Acquaintances, Own};
use crate::peer::{Refusal, proto};
use crate::serve::OpenedStore;

/// For how long another process may go on answering before this one gives up: one that is being stopped does not take
/// longer to let go of its directory, but its last answer may.
const GIVE_UP: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// How often the others are told what this node holds, while that changes.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How often when it does not: they may have started since.
const TELL_ANYWAY: Duration = Duration::from_secs(10);

/// Asks around; an error when another process is this node.
pub(crate) async fn prove(
    settings: &Settings,
    acquaintances: &Acquaintances,
    own: Own,
    identity: &Identity,
    pending: Option<&BeginIncarnation>,
    groups: &[(GroupId, OpenedStore)],
) -> anyhow::Result<()> {
    acquaintances.become_node(own, groups.iter().map(standing).collect());
    let addresses = addresses(settings, identity, pending, groups)?;
    let until = Instant::now() + GIVE_UP;
    let mut said = false;
    while let Some(rejected) = acquaintances.ask_around(&addresses, &[]).await {
        if rejected.refusal != Refusal::SecondProcess || Instant::now() >= until {
            anyhow::bail!("{}", rejected.told());
        }
        if !said {
            tracing::warn!("{}; looking again", rejected.words);
            said = true;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// What a group's data holds before it runs.
fn standing((id, (log, _, state)): &(GroupId, OpenedStore)) -> proto::Standing {
    let end = |index: Option<u64>| index.map_or(0, |index| index.saturating_add(1));
    let applied = state.applied().map(|p| p.index);
    proto::Standing {
        group: id.to_string(),
        vote_term: log.wire_vote().map_or(0, |vote| vote.term),
        end: end(log.stats().last.map(|p| p.index)).max(end(applied)),
    }
}

/// Tells the others what this node holds durably, while that changes and every now and then, until cancelled.
pub(crate) async fn tell(node: Arc<Node>, stop: CancellationToken) {
    let mut told: Option<(Vec<proto::Standing>, Instant)> = None;
    loop {
        let now: Vec<proto::Standing> = node.groups().map(|group| durable(group)).collect();
        let due = told
            .as_ref()
            .is_none_or(|(last, at)| *last != now || at.elapsed() >= TELL_ANYWAY);
        if due {
            let others = node
                .registered()
                .into_iter()
                .filter(|n| n.id != node.id() && n.state() != NodeState::Retired)
                .map(|n| n.peer_addr)
                .collect();
            let acquaintances = node.meta().acquaintances();
            if let Some(rejected) = acquaintances.ask_around(&others, &now).await {
                acquaintances.reject(rejected.refusal, &rejected.words);
            }
            told = Some((now, Instant::now()));
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TELL_EVERY) => {}
        }
    }
}

/// What no crash of this process takes back.
fn durable(group: &Group) -> proto::Standing {
    let state = group.state().durable();
    proto::Standing {
        group: group.id().to_string(),
        // The last vote that is on the disk.
        vote_term: group.metrics().vote.leader_id.term,
        end: state.map_or(0, |p| p.index.saturating_add(1)),
    }
}

/// Where the other members are, and where this node is and was.
fn addresses(
    settings: &Settings,
    identity: &Identity,
    pending: Option<&BeginIncarnation>,
    groups: &[(GroupId, OpenedStore)],
) -> anyhow::Result<BTreeSet<String>> {
    let mut addresses: BTreeSet<String> = identity
        .members
        .iter()
        .filter_map(|m| Some(m.info.as_ref()?.peer_addr.clone()))
        .chain(settings.peers.iter().map(|p| p.addr.clone()))
        .chain([settings.peer_advertise.clone()])
        .collect();
    // What a copy that has not begun knows of nodes is of another cluster, which it has nothing to do with.
    let copy = pending.is_some_and(|begin| begin.kind() == IncarnationKind::Copy);
    for (id, (_, _, state)) in groups {
        if id.is_meta() && !copy {
            addresses.extend(state.nodes()?.into_iter().map(|n| n.peer_addr));
        }
    }
    addresses.retain(|addr| !addr.is_empty());
    Ok(addresses)
}
