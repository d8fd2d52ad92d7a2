//! Group `__meta/0`: the cluster, its nodes, who builds which snapshot.

use super::audit::{self, Change};
use super::{Ctx, Tx, members};
use crate::command::{
    AdmitNode, Answer, FinishSnapshotTask, Genesis, NodeAdmitted, Outcome, RefusalCode, UpdateNode,
};
use crate::error::StoreError;
use crate::keys;
use crate::membership::NodeWish;
use crate::records::{ClusterRecord, NodeRecord, NodeState, SnapshotFailure, SnapshotTask};

fn done() -> Outcome {
    Outcome::new(Answer::Done(true))
}

pub(super) fn genesis(
    tx: &mut Tx<'_>,
    ctx: &mut Ctx<'_>,
    genesis: &Genesis,
) -> Result<Outcome, StoreError> {
    if let Some(cluster) = tx.get::<ClusterRecord>(&keys::cluster())? {
        if cluster.uuid == genesis.cluster_uuid {
            return Ok(done());
        }
        let detail = format!("the cluster {} is born already", cluster.uuid);
        return Ok(Outcome::refused(RefusalCode::Conflict, detail));
    }
    let highest = genesis.nodes.iter().map(|node| node.id).max().unwrap_or(0);
    let cluster = ClusterRecord {
        uuid: genesis.cluster_uuid.clone(),
        incarnation: genesis.incarnation,
        shards: genesis.shards,
        created_us: ctx.now_us,
        next_node_id: highest.saturating_add(1),
    };
    tx.put(&keys::cluster(), &cluster)?;
    audit::record(
        tx,
        ctx,
        Change {
            action: "cluster.created",
            key: &cluster.uuid,
            ..Change::default()
        },
    )?;
    for node in &genesis.nodes {
        let record = NodeRecord {
            state: NodeState::Active.into(),
            replaces: None,
            nonce: String::new(),
            admitted_us: ctx.now_us,
            ..node.clone()
        };
        tx.put(&keys::node(node.id), &record)?;
        audit::record(
            tx,
            ctx,
            Change {
                action: "node.admitted",
                key: &node.name,
                version: node.id,
                ..Change::default()
            },
        )?;
    }
    Ok(done())
}

pub(super) fn admit(
    tx: &mut Tx<'_>,
    ctx: &mut Ctx<'_>,
    admit: &AdmitNode,
) -> Result<Outcome, StoreError> {
    let Some(mut cluster) = tx.get::<ClusterRecord>(&keys::cluster())? else {
        return Ok(Outcome::refused(
            RefusalCode::NotFound,
            "there is no cluster yet",
        ));
    };
    if admit.nonce.is_empty() || admit.name.is_empty() {
        return Ok(Outcome::refused(
            RefusalCode::Invalid,
            "a node asks for an id with its name and a nonce",
        ));
    }
    let nodes: Vec<NodeRecord> = tx.all(&[keys::NODE])?;
    if let Some(node) = nodes.iter().find(|node| node.nonce == admit.nonce) {
        return Ok(Outcome::new(Answer::NodeAdmitted(NodeAdmitted {
            id: node.id,
        })));
    }
    if let Some(old) = admit.replaces
        && !nodes.iter().any(|node| node.id == old)
    {
        return Ok(Outcome::refused(
            RefusalCode::NotFound,
            format!("there is no node {old} to replace"),
        ));
    }
    if let Some(old) = nodes.iter().find(|n| Some(n.id) == admit.replaces)
        && old.wish() == NodeWish::Gone
    {
        let detail = format!("{} is being removed", old.name);
        return Ok(Outcome::refused(RefusalCode::Conflict, detail));
    }
    let id = cluster.next_node_id;
    cluster.next_node_id += 1;
    let (wish, replaces) = members::admitted(tx, &admit.name, admit.replaces, id)?;
    tx.put(&keys::cluster(), &cluster)?;
    let record = NodeRecord {
        id,
        name: admit.name.clone(),
        api_url: admit.api_url.clone(),
        peer_addr: admit.peer_addr.clone(),
        state: NodeState::Joining.into(),
        replaces,
        nonce: admit.nonce.clone(),
        admitted_us: ctx.now_us,
        wish: wish.into(),
        retired_index: 0,
    };
    tx.put(&keys::node(id), &record)?;
    audit::record(
        tx,
        ctx,
        Change {
            action: "node.admitted",
            key: &record.name,
            version: id,
            ..Change::default()
        },
    )?;
    Ok(Outcome::new(Answer::NodeAdmitted(NodeAdmitted { id })))
}

fn no_node(id: u64) -> Outcome {
    Outcome::refused(RefusalCode::NotFound, format!("there is no node {id}"))
}

pub(super) fn activate(tx: &mut Tx<'_>, ctx: &mut Ctx<'_>, id: u64) -> Result<Outcome, StoreError> {
    let Some(mut node) = tx.get::<NodeRecord>(&keys::node(id))? else {
        return Ok(no_node(id));
    };
    match node.state() {
        NodeState::Active => return Ok(done()),
        NodeState::Retired => {
            let detail = format!("node {id} is retired, and its id is not used again");
            return Ok(Outcome::refused(RefusalCode::Conflict, detail));
        }
        NodeState::Joining => {}
    }
    if node.wish() == NodeWish::Gone {
        let detail = format!("node {id} is being removed");
        return Ok(Outcome::refused(RefusalCode::Conflict, detail));
    }
    let all: Vec<NodeRecord> = tx.all(&[keys::NODE])?;
    if let Some(newer) = all
        .iter()
        .find(|o| o.name == node.name && o.id > id && o.state() != NodeState::Retired)
    {
        let detail = format!("node {} has the name of node {id} now", newer.id);
        return Ok(Outcome::refused(RefusalCode::Conflict, detail));
    }
    node.set_state(NodeState::Active);
    tx.put(&keys::node(id), &node)?;
    members::fulfilled(tx, &node.name)?;
    audit::record(
        tx,
        ctx,
        Change {
            action: "node.activated",
            key: &node.name,
            version: id,
            ..Change::default()
        },
    )?;
    // The one that it takes the place of, and those of the same name that never got as far: a node may lose its disk
    // again while it joins.
    for mut old in all {
        let replaced = node.replaces == Some(old.id) || old.name == node.name;
        if old.id == id || !replaced || old.state() == NodeState::Retired {
            continue;
        }
        old.set_state(NodeState::Retired);
        tx.put(&keys::node(old.id), &old)?;
        let change = Change {
            action: "node.retired",
            key: &old.name,
            version: old.id,
            ..Change::default()
        };
        audit::record(tx, ctx, change)?;
    }
    Ok(done())
}

pub(super) fn update(
    tx: &mut Tx<'_>,
    ctx: &mut Ctx<'_>,
    update: &UpdateNode,
) -> Result<Outcome, StoreError> {
    let Some(mut node) = tx.get::<NodeRecord>(&keys::node(update.id))? else {
        return Ok(no_node(update.id));
    };
    if (&node.api_url, &node.peer_addr) == (&update.api_url, &update.peer_addr) {
        return Ok(done());
    }
    node.api_url.clone_from(&update.api_url);
    node.peer_addr.clone_from(&update.peer_addr);
    tx.put(&keys::node(update.id), &node)?;
    audit::record(
        tx,
        ctx,
        Change {
            action: "node.updated",
            key: &node.name,
            version: node.id,
            ..Change::default()
        },
    )?;
    Ok(done())
}

/// One task a group: a new one takes the place of one that is overdue.
pub(super) fn assign(
    tx: &mut Tx<'_>,
    ctx: &Ctx<'_>,
    task: &SnapshotTask,
) -> Result<Outcome, StoreError> {
    if task.task_id.is_empty() || task.group.is_empty() {
        return Ok(Outcome::refused(
            RefusalCode::Invalid,
            "a snapshot task has an id and a group",
        ));
    }
    // One at a time for a group: whoever waits for the first must not be told that it is done by the second.
    if let Some(open) = tx.get::<SnapshotTask>(&keys::task(&task.group))?
        && open.task_id != task.task_id
        && open.deadline_us > ctx.now_us
    {
        let detail = format!("a snapshot of {} is under way", task.group);
        return Ok(Outcome::refused(RefusalCode::Conflict, detail));
    }
    tx.put(&keys::task(&task.group), task)?;
    Ok(done())
}

pub(super) fn finish(
    tx: &mut Tx<'_>,
    ctx: &Ctx<'_>,
    finish: &FinishSnapshotTask,
) -> Result<Outcome, StoreError> {
    let tasks: Vec<SnapshotTask> = tx.all(&[keys::TASK])?;
    let Some(task) = tasks
        .into_iter()
        .find(|task| task.task_id == finish.task_id)
    else {
        return Ok(Outcome::refused(
            RefusalCode::NotFound,
            "there is no such snapshot task (any more)",
        ));
    };
    tx.delete(&keys::task(&task.group))?;
    let failure_key = keys::failure(&task.group);
    match &finish.error {
        Some(error) => {
            let failure = SnapshotFailure {
                task: Some(task),
                error: error.clone(),
                time_us: ctx.now_us,
            };
            tx.put(&failure_key, &failure)?;
        }
        None => {
            tx.delete(&failure_key)?;
        }
    }
    Ok(done())
}
