//! A new life of the cluster begins: what every group writes down of it, and what `__meta/0` does besides.

use bytes::Bytes;
use confman_snapshot::value_hash;

use super::audit::{self, Change};
use super::{Ctx, Tx};
use crate::command::{Answer, BeginIncarnation, Outcome, RefusalCode};
use crate::error::StoreError;
use crate::keys;
use crate::membership::{ChangeRecord, ExpectedRecord};
use crate::records::{
    AUDIT_VALUE_MAX, ClusterRecord, EntryHead, EntryRecord, IncarnationKind, IncarnationRecord,
    NodeRecord, NodeState, SnapshotFactRecord, SnapshotFailure, SnapshotTask, StoredContent,
    ValueType,
};

/// Idempotent by incarnation: the plan that came first is the one that counts.
pub(super) fn begin(
    tx: &mut Tx<'_>,
    ctx: &mut Ctx<'_>,
    begin: &BeginIncarnation,
) -> Result<Outcome, StoreError> {
    let kind = match IncarnationKind::try_from(begin.kind) {
        Ok(kind) if kind != IncarnationKind::Unknown => kind,
        _ => return Err(ctx.unknown("the kind of the new incarnation")),
    };
    if let Some(outcome) = refuse(tx, ctx, begin, kind)? {
        return Ok(outcome);
    }
    let record = IncarnationRecord {
        incarnation: begin.incarnation,
        kind: begin.kind,
        plan_id: begin.plan_id.clone(),
        lineage: begin.lineage.clone(),
        time_us: ctx.now_us,
        position: Some(ctx.position),
        operator: begin.operator.clone(),
        summary: begin.summary.clone(),
    };
    tx.put(&keys::incarnation(), &record)?;
    tx.facts.versions_from = tx.facts.versions_from.max(begin.versions_from);
    // What was restored from the store was not taken from anybody: there is nothing to go back to.
    tx.facts.may_be_undone = kind == IncarnationKind::QuorumLoss && begin.versions_from > 0;
    let summary = summary(begin);
    audit::record(
        tx,
        ctx,
        Change {
            action: kind.action(),
            key: &begin.plan_id,
            version: begin.incarnation,
            new: Some(&summary),
            ..Change::default()
        },
    )?;
    if kind == IncarnationKind::Copy {
        leave_store(tx)?;
    }
    if ctx.group.is_meta() {
        forget_snapshot_work(tx)?;
        if kind == IncarnationKind::Copy {
            leave_cluster(tx, begin)?;
        }
        take_over(tx, ctx, begin)?;
    }
    Ok(done())
}

fn done() -> Outcome {
    Outcome::new(Answer::Done(true))
}

/// What is already begun, or cannot begin.
fn refuse(
    tx: &Tx<'_>,
    ctx: &Ctx<'_>,
    begin: &BeginIncarnation,
    kind: IncarnationKind,
) -> Result<Option<Outcome>, StoreError> {
    let refused = |code, detail: String| Ok(Some(Outcome::refused(code, detail)));
    if begin.incarnation < 2 || begin.plan_id.is_empty() || begin.nodes.is_empty() {
        return refused(
            RefusalCode::Invalid,
            "a new incarnation has a number above 1, a plan and members".to_owned(),
        );
    }
    if begin.summary.len() > AUDIT_VALUE_MAX {
        let detail = format!(
            "the summary has {} bytes, the limit is {AUDIT_VALUE_MAX}",
            begin.summary.len()
        );
        return refused(RefusalCode::TooLarge, detail);
    }
    if let Some(there) = tx.get::<IncarnationRecord>(&keys::incarnation())? {
        if there.incarnation == begin.incarnation && there.plan_id == begin.plan_id {
            return Ok(Some(done()));
        }
        if there.incarnation >= begin.incarnation {
            let detail = format!(
                "incarnation {} has begun by {}",
                there.incarnation, there.plan_id
            );
            return refused(RefusalCode::Conflict, detail);
        }
    }
    if ctx.group.is_meta() {
        match tx.get::<ClusterRecord>(&keys::cluster())? {
            None => return refused(RefusalCode::NotFound, "there is no cluster yet".to_owned()),
            Some(cluster) => {
                // A copy is never taken for what it was made from, everything else never for another.
                let own = cluster.uuid == begin.cluster_uuid;
                if own == (kind == IncarnationKind::Copy) {
                    let detail = format!("this is cluster {}", cluster.uuid);
                    return refused(RefusalCode::Conflict, detail);
                }
            }
        }
    }
    Ok(None)
}

/// The summary as the value of the audit event.
fn summary(begin: &BeginIncarnation) -> EntryRecord {
    let bytes = Bytes::copy_from_slice(begin.summary.as_bytes());
    EntryRecord {
        head: Some(EntryHead {
            version: begin.incarnation,
            value_type: ValueType::Json.into(),
            size: bytes.len() as u64,
            hash: Bytes::copy_from_slice(&value_hash(&bytes)),
            ..EntryHead::default()
        }),
        content: Some(StoredContent::Inline(bytes)),
        changed: None,
    }
}

/// Who was to build which snapshot, and what became of it, ends with the life in which it was asked for.
fn forget_snapshot_work(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    for task in tx.all::<SnapshotTask>(&[keys::TASK])? {
        tx.delete(&keys::task(&task.group))?;
    }
    for failure in tx.all::<SnapshotFailure>(&[keys::FAILURE])? {
        if let Some(task) = failure.task {
            tx.delete(&keys::failure(&task.group))?;
        }
    }
    Ok(())
}

/// A copy: what the store of the cluster that it was made from holds protects that one, and is not a copy's to retire.
fn leave_store(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    for fact in tx.all::<SnapshotFactRecord>(&[keys::SNAPSHOT])? {
        if let Some(record) = fact.record {
            tx.delete(&keys::snapshot(&record.id.to_string()))?;
        }
    }
    tx.snapshots_changed = true;
    Ok(())
}

/// Group `__meta/0` of a copy: it takes its own name, and the nodes of the other cluster are none of its: nobody asks them
/// anything. Their ids stay given.
fn leave_cluster(tx: &mut Tx<'_>, begin: &BeginIncarnation) -> Result<(), StoreError> {
    let Some(mut cluster) = tx.get::<ClusterRecord>(&keys::cluster())? else {
        return Ok(());
    };
    let known: Vec<NodeRecord> = tx.all(&[keys::NODE])?;
    for node in known {
        cluster.next_node_id = cluster.next_node_id.max(node.id.saturating_add(1));
        tx.delete(&keys::node(node.id))?;
    }
    for expected in tx.all::<ExpectedRecord>(&[keys::EXPECTED])? {
        tx.delete(&keys::expected(&expected.name))?;
    }
    if tx.get::<ChangeRecord>(&keys::change())?.is_some() {
        tx.delete(&keys::change())?;
    }
    cluster.uuid.clone_from(&begin.cluster_uuid);
    tx.put(&keys::cluster(), &cluster)
}

/// Group `__meta/0`: the members of the new life are registered, everybody else is retired, no id is given twice.
fn take_over(
    tx: &mut Tx<'_>,
    ctx: &mut Ctx<'_>,
    begin: &BeginIncarnation,
) -> Result<(), StoreError> {
    let Some(mut cluster) = tx.get::<ClusterRecord>(&keys::cluster())? else {
        return Ok(());
    };
    let known: Vec<NodeRecord> = tx.all(&[keys::NODE])?;
    let highest = known.iter().chain(&begin.nodes).map(|node| node.id).max();
    cluster.incarnation = begin.incarnation;
    cluster.next_node_id = cluster
        .next_node_id
        .max(highest.unwrap_or(0).saturating_add(1));
    tx.put(&keys::cluster(), &cluster)?;
    for mut old in known {
        let stays = begin.nodes.iter().any(|node| node.id == old.id);
        if stays || old.state() == NodeState::Retired {
            continue;
        }
        old.set_state(NodeState::Retired);
        tx.put(&keys::node(old.id), &old)?;
        node_event(tx, ctx, "node.retired", &old)?;
    }
    for node in &begin.nodes {
        let before = tx.get::<NodeRecord>(&keys::node(node.id))?;
        let fresh = before.is_none();
        let record = NodeRecord {
            state: NodeState::Active.into(),
            admitted_us: before.map_or(ctx.now_us, |before| before.admitted_us),
            nonce: String::new(),
            replaces: None,
            ..node.clone()
        };
        tx.put(&keys::node(node.id), &record)?;
        if fresh {
            node_event(tx, ctx, "node.admitted", &record)?;
        }
    }
    for expected in &begin.expected {
        let record = ExpectedRecord {
            since_us: ctx.now_us,
            ..expected.clone()
        };
        tx.put(&keys::expected(&expected.name), &record)?;
    }
    Ok(())
}

fn node_event(
    tx: &mut Tx<'_>,
    ctx: &mut Ctx<'_>,
    action: &'static str,
    node: &NodeRecord,
) -> Result<(), StoreError> {
    let change = Change {
        action,
        key: &node.name,
        version: node.id,
        ..Change::default()
    };
    audit::record(tx, ctx, change)
}
