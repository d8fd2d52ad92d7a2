//! Group `__meta/0`: wishes about the membership, one change at a time.

use super::audit::{self, Change};
use super::{Ctx, Tx};
use crate::command::{Answer, Outcome, RefusalCode};
use crate::error::StoreError;
use crate::keys;
use crate::membership::{
    BeginChange, ChangeKind, ChangeRecord, EndChange, ExpectNode, ExpectedRecord, ForgetNode,
    NodeWish, Registry,
};
use crate::records::{ClusterRecord, NodeRecord, NodeState};

fn done() -> Outcome {
    Outcome::new(Answer::Done(true))
}

fn conflict(detail: String) -> Outcome {
    Outcome::refused(RefusalCode::Conflict, detail)
}

fn invalid(detail: &str) -> Outcome {
    Outcome::refused(RefusalCode::Invalid, detail)
}

fn registry(tx: &Tx<'_>) -> Result<Registry, StoreError> {
    Ok(Registry {
        nodes: tx.all(&[keys::NODE])?,
        expected: tx.all(&[keys::EXPECTED])?,
        change: tx.get(&keys::change())?,
    })
}

fn living<'r>(registry: &'r Registry, name: &str) -> Option<&'r NodeRecord> {
    registry
        .nodes
        .iter()
        .filter(|n| n.name == name && n.state() != NodeState::Retired)
        .max_by_key(|n| n.id)
}

/// What any command on the registry must pass: a cluster that is born, and the registry that its plan was made from.
fn unless_moved(
    tx: &Tx<'_>,
    registry: &Registry,
    fingerprint: u64,
) -> Result<Option<Outcome>, StoreError> {
    if tx.get::<ClusterRecord>(&keys::cluster())?.is_none() {
        return Ok(Some(Outcome::refused(
            RefusalCode::NotFound,
            "there is no cluster yet",
        )));
    }
    if fingerprint != 0 && fingerprint != registry.fingerprint() {
        return Ok(Some(Outcome::refused(
            RefusalCode::PreconditionFailed,
            "the membership has changed since the plan was made",
        )));
    }
    Ok(None)
}

/// A change that may not be begun beside the one that is under way. A change of the same node takes its place: that is
/// how one is called off.
fn unless_running(registry: &Registry, change: &ChangeRecord) -> Option<Outcome> {
    let running = registry.running()?;
    (running.name != change.name).then(|| {
        conflict(format!(
            "a change is under way: {} ({})",
            running.words(),
            running.id
        ))
    })
}

pub(super) fn expect(
    tx: &mut Tx<'_>,
    ctx: &mut Ctx<'_>,
    expect: &ExpectNode,
) -> Result<Outcome, StoreError> {
    let registry = registry(tx)?;
    let Some(record) = expect.record.as_ref().filter(|r| !r.name.is_empty()) else {
        return Ok(invalid("a node is expected by its name"));
    };
    if let Some(change) = &expect.change
        && repeats(&registry, change)
    {
        return Ok(done());
    }
    if let Some(refused) = unless_moved(tx, &registry, expect.registry)? {
        return Ok(refused);
    }
    if let Some(node) = living(&registry, &record.name) {
        let detail = format!("{} is a member already, as node id {}", node.name, node.id);
        return Ok(conflict(detail));
    }
    let taken = registry.nodes.iter().find(|n| {
        n.state() != NodeState::Retired
            && n.peer_addr == record.peer_addr
            && Some(n.id) != record.replaces
    });
    if let Some(node) = taken {
        let detail = format!("{} is the peer address of {}", node.peer_addr, node.name);
        return Ok(conflict(detail));
    }
    if let Some(old) = record.replaces
        && !registry
            .nodes
            .iter()
            .any(|n| n.id == old && n.state() != NodeState::Retired)
    {
        return Ok(Outcome::refused(
            RefusalCode::NotFound,
            format!("there is no node {old} to replace"),
        ));
    }
    if let Some(change) = &expect.change {
        if let Some(refused) = unless_running(&registry, change) {
            return Ok(refused);
        }
        begun(tx, ctx, &registry, change)?;
    }
    let record = ExpectedRecord {
        since_us: ctx.now_us,
        ..record.clone()
    };
    tx.put(&keys::expected(&record.name), &record)?;
    note(tx, ctx, "node.expected", &record.name, 0)?;
    Ok(done())
}

pub(super) fn forget(
    tx: &mut Tx<'_>,
    ctx: &mut Ctx<'_>,
    forget: &ForgetNode,
) -> Result<Outcome, StoreError> {
    let registry = registry(tx)?;
    if let Some(refused) = unless_moved(tx, &registry, forget.registry)? {
        return Ok(refused);
    }
    if !consume(tx, ctx, &forget.name)? {
        let detail = format!("no node called {} is expected", forget.name);
        return Ok(Outcome::refused(RefusalCode::NotFound, detail));
    }
    if let Some(running) = registry.running()
        && running.name == forget.name
        && running.node_id == 0
    {
        let why = format!("{} is not expected any more", forget.name);
        settle(tx, ctx, running, Some(&why))?;
    }
    Ok(done())
}

/// Removes an expected name, if it is there.
fn consume(tx: &mut Tx<'_>, ctx: &mut Ctx<'_>, name: &str) -> Result<bool, StoreError> {
    let key = keys::expected(name);
    if tx.get::<ExpectedRecord>(&key)?.is_none() {
        return Ok(false);
    }
    tx.delete(&key)?;
    note(tx, ctx, "node.forgotten", name, 0)?;
    Ok(true)
}

/// The name has a member: it is not expected any more, which is no news.
pub(super) fn fulfilled(tx: &mut Tx<'_>, name: &str) -> Result<(), StoreError> {
    let key = keys::expected(name);
    if tx.get::<ExpectedRecord>(&key)?.is_some() {
        tx.delete(&key)?;
    }
    Ok(())
}

/// What a node that is admitted under `name` shall be, and whom it replaces; and the change that waits for it learns
/// its id.
pub(super) fn admitted(
    tx: &mut Tx<'_>,
    name: &str,
    replaces: Option<u64>,
    id: u64,
) -> Result<(NodeWish, Option<u64>), StoreError> {
    let registry = registry(tx)?;
    if let Some(running) = registry.running()
        && running.name == name
    {
        let change = ChangeRecord {
            node_id: id,
            ..running.clone()
        };
        tx.put(&keys::change(), &change)?;
    }
    if let Some(expected) = registry.expected.iter().find(|e| e.name == name) {
        let wish = if expected.learner_only {
            NodeWish::Learner
        } else {
            NodeWish::Voter
        };
        return Ok((wish, replaces.or(expected.replaces)));
    }
    let old = registry.nodes.iter().find(|n| Some(n.id) == replaces);
    // A learner that lost its disk comes back as one.
    Ok((old.map_or(NodeWish::Voter, NodeRecord::wish), replaces))
}

/// Whether this very change was begun before: a request that was sent twice.
fn repeats(registry: &Registry, change: &ChangeRecord) -> bool {
    registry
        .change
        .as_ref()
        .is_some_and(|known| !change.id.is_empty() && known.id == change.id)
}

pub(super) fn begin(
    tx: &mut Tx<'_>,
    ctx: &mut Ctx<'_>,
    begin: &BeginChange,
) -> Result<Outcome, StoreError> {
    let registry = registry(tx)?;
    let Some(change) = begin.change.as_ref().filter(|c| !c.id.is_empty()) else {
        return Ok(invalid("a change has an id"));
    };
    if ChangeKind::try_from(change.kind).is_err() {
        return Err(ctx.unknown("the kind of change"));
    }
    if repeats(&registry, change) {
        return Ok(done());
    }
    if let Some(refused) = unless_moved(tx, &registry, begin.registry)? {
        return Ok(refused);
    }
    if let Some(refused) = unless_running(&registry, change) {
        return Ok(refused);
    }
    let node = match living(&registry, &change.name) {
        Some(node) if node.id == change.node_id => node.clone(),
        _ => {
            let detail = format!("{} is no member under id {}", change.name, change.node_id);
            return Ok(Outcome::refused(RefusalCode::NotFound, detail));
        }
    };
    let wish = match change.kind() {
        ChangeKind::Add => return Ok(invalid("a node is added by expecting its name")),
        ChangeKind::Promote | ChangeKind::Replace => Some(NodeWish::Voter),
        ChangeKind::Demote => Some(NodeWish::Learner),
        ChangeKind::Remove => Some(NodeWish::Gone),
        ChangeKind::Transfer => None,
    };
    if change.kind() == ChangeKind::Replace {
        let old = living(&registry, &change.old_name);
        if old.is_none_or(|old| old.id != change.old_id || old.id == node.id) {
            let detail = format!("{} is no other member", change.old_name);
            return Ok(Outcome::refused(RefusalCode::NotFound, detail));
        }
    }
    let leaves = matches!(wish, Some(NodeWish::Learner | NodeWish::Gone));
    if leaves && !registry.nodes.iter().any(|n| stays_voter(n, node.id)) {
        return Ok(conflict(format!(
            "{} is the only voter: a cluster has at least one",
            node.name
        )));
    }
    begun(tx, ctx, &registry, change)?;
    if wish == Some(NodeWish::Gone) {
        // It was joining: an empty node must not come under its name again.
        consume(tx, ctx, &node.name)?;
    }
    if let Some(wish) = wish {
        let mut node = node;
        node.set_wish(wish);
        tx.put(&keys::node(node.id), &node)?;
    }
    Ok(done())
}

fn stays_voter(node: &NodeRecord, but: u64) -> bool {
    node.id != but && node.state() == NodeState::Active && node.wish() == NodeWish::Voter
}

/// Writes the change down as begun; the one of the same node that it takes the place of is over.
fn begun(
    tx: &mut Tx<'_>,
    ctx: &mut Ctx<'_>,
    registry: &Registry,
    change: &ChangeRecord,
) -> Result<(), StoreError> {
    if let Some(running) = registry.running() {
        let why = format!("{} took its place", change.words());
        settle(tx, ctx, running, Some(&why))?;
    }
    let change = ChangeRecord {
        begun_us: ctx.now_us,
        begun_index: ctx.position.index,
        actor: ctx.command.actor.clone(),
        ended_us: 0,
        ended_index: 0,
        error: String::new(),
        ..change.clone()
    };
    tx.put(&keys::change(), &change)?;
    note(
        tx,
        ctx,
        change.kind().action(),
        &change.name,
        change.node_id,
    )
}

pub(super) fn end(
    tx: &mut Tx<'_>,
    ctx: &mut Ctx<'_>,
    end: &EndChange,
) -> Result<Outcome, StoreError> {
    let Some(change) = tx.get::<ChangeRecord>(&keys::change())? else {
        return Ok(Outcome::refused(
            RefusalCode::NotFound,
            "there is no such change (any more)",
        ));
    };
    if change.id != end.id {
        return Ok(Outcome::refused(
            RefusalCode::NotFound,
            "there is no such change (any more)",
        ));
    }
    if !change.is_running() {
        return Ok(done());
    }
    settle(tx, ctx, &change, end.error.as_deref())?;
    if end.error.is_some() {
        return Ok(done());
    }
    let nodes: Vec<NodeRecord> = tx.all(&[keys::NODE])?;
    let goes = |n: &NodeRecord| match change.kind() {
        ChangeKind::Remove => n.name == change.name && n.id <= change.node_id,
        ChangeKind::Replace => n.id == change.old_id,
        _ => false,
    };
    for mut node in nodes {
        if !goes(&node) || node.state() == NodeState::Retired {
            continue;
        }
        node.set_state(NodeState::Retired);
        node.retired_index = ctx.position.index;
        tx.put(&keys::node(node.id), &node)?;
        note(tx, ctx, "node.retired", &node.name, node.id)?;
    }
    Ok(done())
}

fn settle(
    tx: &mut Tx<'_>,
    ctx: &mut Ctx<'_>,
    change: &ChangeRecord,
    error: Option<&str>,
) -> Result<(), StoreError> {
    let ended = ChangeRecord {
        ended_us: ctx.now_us,
        ended_index: ctx.position.index,
        error: error.unwrap_or_default().to_owned(),
        ..change.clone()
    };
    tx.put(&keys::change(), &ended)?;
    let action = if error.is_some() {
        "member.stopped"
    } else {
        "member.done"
    };
    note(tx, ctx, action, &ended.name, ended.node_id)
}

fn note(
    tx: &mut Tx<'_>,
    ctx: &mut Ctx<'_>,
    action: &'static str,
    name: &str,
    id: u64,
) -> Result<(), StoreError> {
    let change = Change {
        action,
        key: name,
        version: id,
        ..Change::default()
    };
    audit::record(tx, ctx, change)
}
