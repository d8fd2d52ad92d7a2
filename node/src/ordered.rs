//! A restore order is carried out: an empty node becomes the member that the order names, and when the life that it begins
//! has begun, the order is spent.
//!
//! 1. The identity is written, with the order's id for this node, and what the first leader proposes (`incarnation`).
//! 2. Every group is restored from the snapshot that the order names, and begins with the order's members.
//! 3. The id is *taken up* in the store, before this node may vote. A directory that loses its disk after that finds its
//!    id taken and joins under a new one (I14); one that loses it before has voted for nothing.
//! 4. The groups run; [`crate::membership`] begins the life; [`finish`] records the snapshots and spends the order.
//!
//! Killed anywhere, the next start goes on: 1 is found on disk, each group of 2 has its report, 3 knows its own word.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use confman_bootstrap::report::RestoreReport;
use confman_bootstrap::{Limits, Ordered, RestoreError, Restorer};
use confman_snapshot::Repository;
use confman_snapshot::error::{Kind, StoreError};
use confman_snapshot::model::{ClusterId, GroupId};
use confman_snapshot::paths::ReportKind;
use confman_snapshot::repository::{
    MemberTaken, OrderDone, OrderMember, Report, RestoreOrder, Taken,
};
use confman_store::command::Op;
use confman_store::datadir::{Facts, Identity};
use confman_store::records::{IncarnationKind, IncarnationRecord};
use tokio_util::sync::CancellationToken;

use crate::clock::wall_us;
use crate::formation::{Established, Formation, StartError};
use crate::forward;
use crate::node::Node;
use crate::peer::desk::{Life, Stage};

/// After a snapshot turned out to be no good, only another order helps: the store is not read again and again.
const TRY_AGAIN: Duration = Duration::from_secs(30);
const TURN: Duration = Duration::from_millis(500);
/// How often a node that does not lead asks whether the order is spent.
const ASK_EVERY: Duration = Duration::from_secs(60);

/// An attempt that failed for a reason that time may not heal.
pub(crate) struct Failed {
    plan: String,
    at: Instant,
    why: String,
}

/// Becomes the member that the order names. `None`: not now, look again.
pub(crate) async fn carry_out(
    formation: &mut Formation<'_>,
    facts: Facts,
    life: &ClusterId,
) -> Result<Option<Established>, StartError> {
    let Some((repository, order)) = read_order(formation, life).await else {
        return Ok(None);
    };
    if let Some(failed) = &formation.failed
        && failed.plan == order.plan_id
        && failed.at.elapsed() < TRY_AGAIN
    {
        formation.front.say(failed.why.clone());
        return Ok(None);
    }
    let Some(member) = order.member(&formation.settings.node_name) else {
        return Ok(None);
    };
    let identity = match facts {
        Facts::Good(identity) => identity,
        Facts::Empty | Facts::Damaged(_) => begin(formation, life, &order, member)?,
    };
    formation.desk.enter(Stage::Starting(Life {
        cluster: life.clone(),
        lineage: identity.lineage.clone(),
        unborn: true,
        node_id: identity.node_id,
    }));
    let restored = match restore(formation, repository.clone(), &identity, &order).await {
        Ok(restored) => restored,
        Err(error @ RestoreError::Unreachable { .. }) => {
            formation.warn_once(format!("to be tried again: {error}"));
            return Ok(None);
        }
        Err(error @ RestoreError::NotWhole { .. }) => {
            let why = error.to_string();
            formation.warn_once(why.clone());
            formation.failed = Some(Failed {
                plan: order.plan_id,
                at: Instant::now(),
                why,
            });
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    fail::fail_point!("order::restored");
    if !take_up(formation, &repository, &identity).await? {
        return Ok(None);
    }
    fail::fail_point!("order::taken-up");
    tracing::info!(
        node_id = identity.node_id, incarnation = life.incarnation, plan = %order.plan_id, groups = restored.len(),
        "restored from the store as the order says"
    );
    Ok(Some(Established::Run { identity, restored }))
}

/// The order as the store has it now.
async fn read_order(
    formation: &mut Formation<'_>,
    life: &ClusterId,
) -> Option<(Repository, RestoreOrder)> {
    let asked = async {
        let repository = formation
            .store
            .repository()
            .await
            .map_err(|e| e.to_string())?;
        let object = repository
            .read_life(life)
            .await
            .map_err(|e| e.to_string())?;
        let order = match &object {
            Some(object) => object.order().map_err(|e| e.to_string())?,
            None => None,
        };
        Ok::<_, String>((repository, order))
    };
    match asked.await {
        Ok((repository, Some(order))) => Some((repository, order)),
        // Looked at again: the decision will be another one.
        Ok((_, None)) => None,
        Err(why) => {
            formation.warn_once(format!("read the restore order: {why}"));
            None
        }
    }
}

/// Writes down who this node is to be: the word for its id first, the identity last.
fn begin(
    formation: &mut Formation<'_>,
    life: &ClusterId,
    order: &RestoreOrder,
    member: &OrderMember,
) -> Result<Identity, StartError> {
    let settings = formation.settings;
    if order.shards != settings.shards {
        tracing::warn!(
            cluster = order.shards,
            here = settings.shards,
            "CONFMAN_SHARDS counts at birth only; the cluster's number is used"
        );
    }
    if member.peer_addr != settings.peer_advertise {
        tracing::warn!(
            order = %member.peer_addr, here = %settings.peer_advertise,
            "the order has another address for this node; the others are told of this one when the life has begun"
        );
    }
    let identity = ordered(life, order).take_identity(
        formation.data,
        member,
        uuid::Uuid::new_v4().to_string(),
        wall_us(),
    )?;
    fail::fail_point!("order::identity");
    tracing::info!(
        node_id = identity.node_id, incarnation = life.incarnation, plan = %order.plan_id,
        "this node is named by a restore order and restores itself"
    );
    Ok(identity)
}

fn ordered<'a>(life: &'a ClusterId, order: &'a RestoreOrder) -> Ordered<'a> {
    Ordered {
        life,
        kind: IncarnationKind::Restore,
        order,
    }
}

async fn restore(
    formation: &Formation<'_>,
    repository: Repository,
    identity: &Identity,
    order: &RestoreOrder,
) -> Result<BTreeMap<GroupId, RestoreReport>, RestoreError> {
    let cluster = identity.cluster();
    let tasks = ordered(&cluster, order).tasks(formation.data.paths(), identity.node_id);
    let restorer = Restorer::new(
        Some(repository),
        cluster.clone(),
        Limits::default(),
        wall_us,
    );
    let done = restorer.restore_ordered(&tasks).await?;
    let groups = order.groups.iter().map(|record| record.group.clone());
    Ok(groups
        .zip(done.iter().map(|restored| restored.report().clone()))
        .collect())
}

/// Takes the id up in the store. False: not now, or another directory has it and this one was set aside.
async fn take_up(
    formation: &mut Formation<'_>,
    repository: &Repository,
    identity: &Identity,
) -> Result<bool, StartError> {
    // A restore may take long: by now another order may have taken this one's place.
    let newest = match repository.highest_incarnation(&identity.cluster_uuid).await {
        Ok(newest) => newest,
        Err(error) => {
            formation.warn_once(format!("look for a newer restore order: {error}"));
            return Ok(false);
        }
    };
    if newest > identity.incarnation {
        return Ok(false);
    }
    let claim = formation.data.read_claim()?;
    let nonce = claim
        .filter(|claim| claim.plan_id == identity.lineage)
        .map(|claim| claim.nonce);
    let taken = match nonce {
        Some(nonce) => {
            let ours = MemberTaken::new(
                identity.cluster(),
                identity.lineage.as_str(),
                (identity.node_id, &identity.name),
                nonce,
                wall_us(),
            );
            match repository.take_member(&ours).await {
                Ok(Taken::Ours) => return Ok(true),
                Ok(Taken::Other(other)) => format!("by another data directory of {}", other.name),
                Err(error) if error.kind == Kind::Damaged => error.to_string(),
                Err(error) => {
                    formation.warn_once(format!("take up node id {}: {error}", identity.node_id));
                    return Ok(false);
                }
            }
        }
        None => "this directory has lost its word for it".to_owned(),
    };
    let why = format!("node id {} was taken up before: {taken}", identity.node_id);
    let aside = formation.data.set_aside(&why, wall_us())?;
    tracing::warn!(to = %aside.display(), "set aside: {why}");
    Ok(false)
}

/// Of a life that an order began: records the snapshots that it began from, and spends the order. Ends when both are done.
pub(crate) async fn finish(node: Arc<Node>, stop: CancellationToken) {
    if node.identity().lineage.is_empty() {
        return;
    }
    let mut said: Option<String> = None;
    let mut asked: Option<Instant> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TURN) => {}
        }
        if !node.has_begun() {
            continue;
        }
        let Ok(Some(begun)) = node.meta().state().incarnation() else {
            continue;
        };
        if begun.kind() != IncarnationKind::Restore {
            return;
        }
        let recorded = record_origins(&node).await;
        let due = asked.is_none_or(|at| at.elapsed() > ASK_EVERY);
        if !node.meta().is_leader() && !due {
            continue;
        }
        asked = Some(Instant::now());
        match spend(&node, &begun).await {
            Ok(true) if recorded => return,
            Ok(_) => {}
            Err(error) => {
                let text = error.to_string();
                if said.as_ref() != Some(&text) {
                    tracing::warn!(plan = %begun.plan_id, "say that the restore order is spent, to be tried again: {text}");
                    said = Some(text);
                }
            }
        }
    }
}

/// The snapshots that the groups were restored from belong to their new life too: whoever joins may be given them, and
/// retention knows of them. Says whether all are recorded.
async fn record_origins(node: &Arc<Node>) -> bool {
    let mut all = true;
    for group in node.groups() {
        match group.state().unrecorded_origin() {
            Ok(None) => {}
            Ok(Some(origin)) => {
                all = false;
                fail::fail_point!("order::before-record");
                if group.is_leader()
                    && let Err(error) =
                        forward::propose(node, group, Op::SnapshotVerified(origin)).await
                {
                    tracing::warn!(group = %group.id(), "record the snapshot that it was restored from: {error}");
                }
            }
            Err(error) => {
                all = false;
                tracing::warn!(group = %group.id(), "read what it was restored from: {error}");
            }
        }
    }
    all
}

/// Puts the report and the end of the order into the store, when this node leads. Says whether the order is spent.
async fn spend(
    node: &Node,
    begun: &IncarnationRecord,
) -> Result<bool, crate::store_door::DoorError> {
    let repository = node.store().repository().await?;
    if repository.read_done(node.cluster()).await?.is_some() {
        return Ok(true);
    }
    if !node.meta().is_leader() {
        return Ok(false);
    }
    fail::fail_point!("order::before-report");
    if let Err(error) = put_report(node, &repository, begun).await {
        tracing::warn!(plan = %begun.plan_id, "keep the report of the restore in the store: {error}");
    }
    let done = OrderDone::new(
        node.cluster().clone(),
        begun.plan_id.as_str(),
        wall_us(),
        node.name(),
    );
    fail::fail_point!("order::before-spent");
    repository.put_done(&done).await?;
    fail::fail_point!("order::after-spent");
    tracing::info!(plan = %begun.plan_id, incarnation = node.cluster().incarnation, "the restore order is spent");
    Ok(true)
}

async fn put_report(
    node: &Node,
    repository: &Repository,
    begun: &IncarnationRecord,
) -> Result<(), StoreError> {
    let groups: Vec<serde_json::Value> = node
        .groups()
        .filter_map(|group| {
            let report = node.restore_report(group.id())?;
            Some(serde_json::json!({
                "group": report.group, "snapshotId": report.snapshot, "snapshotIndex": report.snapshot_index,
                "readBytes": report.read_bytes, "seconds": report.seconds(),
            }))
        })
        .collect();
    let summary = serde_json::from_str(&begun.summary)
        .unwrap_or_else(|_| serde_json::Value::String(begun.summary.clone()));
    let mut body = serde_json::Map::new();
    body.insert("planId".to_owned(), begun.plan_id.as_str().into());
    body.insert(
        "clusterUuid".to_owned(),
        node.cluster().uuid.as_str().into(),
    );
    body.insert("incarnation".to_owned(), begun.incarnation.into());
    body.insert("operator".to_owned(), begun.operator.as_str().into());
    body.insert("plan".to_owned(), summary);
    // As the node that led when the life began had them.
    body.insert("node".to_owned(), node.name().into());
    body.insert("groups".to_owned(), groups.into());
    let report = Report::new(
        ReportKind::Restore,
        begun.plan_id.as_str(),
        begun.time_us,
        body,
    );
    match repository.put_report(&report).await {
        // The leader before this one has told it.
        Err(error) if error.kind == Kind::Conflict => Ok(()),
        other => other.map(|_| ()),
    }
}
