//! An empty machine becomes a member of the living cluster: a new node id, state from the store.
//!
//! The id is asked of the leader of `__meta/0` and written down before anything is restored; a
//! restore that is interrupted goes on under it. The log after the snapshot is the leader's to send
//! once the groups run. Until it is a voter this node counts for nothing (I14).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use confman_bootstrap::report::RestoreReport;
use confman_bootstrap::restore::{GroupTask, Limits, Restorer};
use confman_config::Settings;
use confman_snapshot::SnapshotRecord;
use confman_snapshot::model::{ClusterId, GroupId};
use confman_store::datadir::{DataDir, Facts, Identity, IdentityState, MemberAtBirth};
use prost::Message;
use tonic::Status;

use crate::formation::{Established, Formation, StartError, node_info};
use crate::peer::client::{Channels, Purpose, with_deadline};
use crate::peer::desk::{Life, Stage};
use crate::peer::{Refusal, proto};
use crate::store_door::StoreDoor;

const JOIN_WITHIN: Duration = Duration::from_secs(20);
const ASKED_AT_MOST: usize = 5;

/// Joins the cluster that `leader` leads. `None`: not now, look again. An error: not ever like this.
pub(crate) async fn rejoin(
    formation: &mut Formation<'_>,
    leader: proto::Node,
    resume: Option<u64>,
) -> Result<Option<Established>, StartError> {
    let Formation {
        settings,
        channels,
        desk,
        store,
        data,
        nonce,
        ..
    } = formation;
    let reply = match ask_in(settings, channels, (nonce, desk.own.boot), leader, resume).await {
        Ok(reply) => reply,
        Err(status) => match Refusal::of(&status) {
            Some(
                Refusal::NameInUse
                | Refusal::UnknownName
                | Refusal::Token
                | Refusal::Retired
                | Refusal::SecondProcess,
            ) => {
                return Err(StartError::Join(status.message().to_owned()));
            }
            _ => {
                let text = format!("join: {}", status.message());
                formation.warn_once(text);
                return Ok(None);
            }
        },
    };
    if resume.is_none() && reply.shards != settings.shards {
        tracing::warn!(
            cluster = reply.shards,
            here = settings.shards,
            "CONFMAN_SHARDS counts at birth only; the cluster's number is used"
        );
    }
    let identity = write_identity(settings, data, &reply)?;
    let cluster = identity.cluster();
    desk.enter(Stage::Starting(Life {
        cluster: cluster.clone(),
        lineage: identity.lineage.clone(),
        // Nobody is admitted to a life before it has begun.
        unborn: false,
        node_id: identity.node_id,
    }));
    tracing::info!(
        node_id = identity.node_id, replaces = ?reply.replaces, cluster = %cluster.uuid,
        "admitted under a new node id, as a learner"
    );
    let restored = restore(store, data, cluster, &reply).await?;
    Ok(Some(Established::Run { identity, restored }))
}

/// Asks for an id, following the account of who leads.
async fn ask_in(
    settings: &Settings,
    channels: &Channels,
    (nonce, boot): (&str, u64),
    leader: proto::Node,
    resume: Option<u64>,
) -> Result<proto::JoinReply, Status> {
    let ask = proto::JoinRequest {
        name: settings.node_name.clone(),
        api_url: settings.api_advertise.clone(),
        peer_addr: settings.peer_advertise.clone(),
        nonce: nonce.to_owned(),
        node_id: resume.unwrap_or(0),
        boot,
    };
    let mut at = leader;
    for _ in 0..ASKED_AT_MOST {
        let mut stub = channels
            .stub(&at.peer_addr, Purpose::Control)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let reply = stub
            .join(with_deadline(ask.clone(), JOIN_WITHIN))
            .await?
            .into_inner();
        match reply.ask_leader {
            Some(next) => at = next,
            None => return Ok(reply),
        }
    }
    Err(Status::unavailable("no node says that it leads"))
}

fn write_identity(
    settings: &Settings,
    data: &mut DataDir,
    reply: &proto::JoinReply,
) -> Result<Identity, StartError> {
    if let Facts::Good(identity) = data.inspect()? {
        return Ok(identity);
    }
    let identity = Identity {
        cluster_uuid: reply.cluster_uuid.clone(),
        incarnation: reply.incarnation,
        node_id: reply.node_id,
        name: settings.node_name.clone(),
        shards: reply.shards,
        members: reply
            .nodes
            .iter()
            .filter(|n| n.id != reply.node_id)
            .map(|n| MemberAtBirth {
                id: n.id,
                info: Some(node_info(n)),
            })
            .collect(),
        state: IdentityState::Formed.into(),
        reason: String::new(),
        created_us: crate::clock::wall_us(),
        lineage: reply.lineage.clone(),
        incarnation_floor: reply.incarnation,
    };
    data.write_identity(&identity)?;
    Ok(identity)
}

async fn restore(
    store: &Arc<StoreDoor>,
    data: &DataDir,
    cluster: ClusterId,
    reply: &proto::JoinReply,
) -> Result<BTreeMap<GroupId, RestoreReport>, StartError> {
    let repository = match store.repository().await {
        Ok(repository) => Some(repository),
        Err(error) => {
            tracing::warn!("the leader will give the state, because the store cannot: {error}");
            None
        }
    };
    let mut tasks = Vec::new();
    for group in &reply.groups {
        let id: GroupId = group.group.parse().map_err(|e| {
            StartError::Join(format!("the leader names a group {:?}: {e}", group.group))
        })?;
        let candidates = group
            .records
            .iter()
            .map(|bytes| SnapshotRecord::decode(bytes.as_slice()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| StartError::Join(format!("decode a snapshot record of {id}: {e}")))?;
        tasks.push(GroupTask {
            paths: data.paths().group(&id),
            candidates,
        });
    }
    let restorer = Restorer::new(
        repository,
        cluster,
        Limits::default(),
        crate::clock::wall_us,
    );
    let ids: Vec<GroupId> = tasks.iter().map(|t| t.paths.group().clone()).collect();
    let done = restorer
        .restore_groups(tasks)
        .await
        .map_err(|e| StartError::Join(e.to_string()))?;
    Ok(ids
        .into_iter()
        .zip(done.into_iter().map(|restored| restored.report().clone()))
        .collect())
}
