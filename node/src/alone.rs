//! Before a node's groups run: is this process the only one of its node?
//!
//! A data directory that was copied, or a disk that is mounted twice, makes two processes with one node id, and the two
//! could vote twice in one term. So a process that is about to run asks everybody who may know: the other members, which
//! remember whom they heard, and every address that its node has or had, where another process may answer.
//!
//! Promises: nothing of this node has voted before the question was put; a restart is never refused, because the process
//! before it is dead and answers nobody. Who does not answer is not waited for: a cluster that starts whole has nobody to
//! ask, and whoever answers later says so then.

use std::collections::BTreeSet;
use std::time::Duration;

use confman_config::Settings;
use confman_snapshot::model::GroupId;
use confman_store::Identity;
use tokio::time::Instant;

use crate::peer::Refusal;
use crate::peer::acquaintance::Acquaintances;
use crate::serve::OpenedStore;

/// For how long another process may go on answering before this one gives up: one that is being stopped does not take
/// longer to let go of its directory, but its last answer may.
const GIVE_UP: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// Asks around; an error when another process is this node.
pub(crate) async fn prove(
    settings: &Settings,
    acquaintances: &Acquaintances,
    identity: &Identity,
    groups: &[(GroupId, OpenedStore)],
) -> anyhow::Result<()> {
    let addresses = addresses(settings, identity, groups)?;
    let until = Instant::now() + GIVE_UP;
    let mut said = false;
    while let Some(rejected) = acquaintances.ask_around(&addresses).await {
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

/// Where the other members are, and where this node is and was.
fn addresses(
    settings: &Settings,
    identity: &Identity,
    groups: &[(GroupId, OpenedStore)],
) -> anyhow::Result<BTreeSet<String>> {
    let mut addresses: BTreeSet<String> = identity
        .members
        .iter()
        .filter_map(|m| Some(m.info.as_ref()?.peer_addr.clone()))
        .chain(settings.peers.iter().map(|p| p.addr.clone()))
        .chain([settings.peer_advertise.clone()])
        .collect();
    for (id, (_, _, state)) in groups {
        if id.is_meta() {
            addresses.extend(state.nodes()?.into_iter().map(|n| n.peer_addr));
        }
    }
    addresses.retain(|addr| !addr.is_empty());
    Ok(addresses)
}
