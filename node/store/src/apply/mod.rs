//! Applying entries: a pure function of (state, entry).
//!
//! [`Tx`] is the state while a batch is applied: one write transaction that keeps the state hash up. The rest of
//! this room is what each command does to it. Nothing here reads a clock, draws a random number or looks at anything
//! but the state and the entry; a command that cannot be done is a refusal, the same on every replica, and only an
//! entry that this version does not understand, or a failing disk, is an error: it stops the node.
//!
//! What each entry does, in order: moves the group's clock on, evicts what is too old from the idempotency records,
//! removes a bounded piece of garbage, then does what it says.

mod audit;
mod blobs;
mod entries;
mod idempotency;
mod incarnation;
mod members;
mod meta;
mod namespaces;
mod snapshots;
mod tx;

pub use idempotency::IDEMPOTENCY_KEPT;
pub(crate) use snapshots::Hashes;
pub use snapshots::Remembered;
pub(crate) use tx::Tx;

use confman_snapshot::model::{GroupId, Position};
use prost::Message;

use crate::command::{Command, Op, Outcome, RefusalCode};
use crate::error::StoreError;
use crate::names::NameError;

/// What is known while one command is applied.
pub(crate) struct Ctx<'a> {
    pub(crate) group: &'a GroupId,
    pub(crate) position: Position,
    pub(crate) command: &'a Command,
    /// The group's clock at this command, microseconds since the epoch: later than at every one before.
    pub(crate) now_us: i64,
    /// Number of the next audit record of this command.
    sub: u32,
}

impl Ctx<'_> {
    /// An entry of a newer version.
    fn unknown(&self, what: &str) -> StoreError {
        StoreError::Undecodable {
            group: self.group.clone(),
            position: self.position,
            detail: format!("{what} is unknown to this version"),
        }
    }
}

/// Applies one command; `hashes` are this replica's own hashes of recent positions.
pub(crate) fn apply_command(
    tx: &mut Tx<'_>,
    group: &GroupId,
    position: Position,
    command: &Command,
    hashes: &Hashes,
) -> Result<Outcome, StoreError> {
    let now_us = command.time_us.max(tx.facts.last_time_us.saturating_add(1));
    if tx.facts.commands == 0 {
        tx.facts.first_time_us = now_us;
    }
    tx.facts.last_time_us = now_us;
    tx.facts.commands += 1;
    tx.facts.bytes_since_snapshot += command.encoded_len() as u64;
    let mut ctx = Ctx {
        group,
        position,
        command,
        now_us,
        sub: 0,
    };
    idempotency::evict(tx, now_us)?;
    blobs::collect_garbage(tx, now_us)?;
    let outcome = dispatch(tx, &mut ctx, hashes)?;
    tx.settle_facts();
    Ok(outcome)
}

fn dispatch(tx: &mut Tx<'_>, ctx: &mut Ctx<'_>, hashes: &Hashes) -> Result<Outcome, StoreError> {
    let command = ctx.command;
    let Some(op) = &command.op else {
        return Err(ctx.unknown("the operation"));
    };
    if !op.is_housekeeping() {
        tx.facts.may_be_undone = false;
    }
    match op {
        Op::Put(put) => {
            let outcome = idempotency::once(tx, ctx, |tx, ctx| entries::put(tx, ctx, put))?;
            // Whatever became of the command, its parts are an entry's now or garbage.
            blobs::discard_upload(tx, ctx, put)?;
            Ok(outcome)
        }
        Op::Delete(delete) => {
            idempotency::once(tx, ctx, |tx, ctx| entries::delete(tx, ctx, delete))
        }
        Op::CreateNamespace(create) => {
            idempotency::once(tx, ctx, |tx, ctx| namespaces::create(tx, ctx, &create.path))
        }
        Op::DeleteNamespace(delete) => {
            idempotency::once(tx, ctx, |tx, ctx| namespaces::delete(tx, ctx, &delete.path))
        }
        Op::StagePart(part) => blobs::stage(tx, ctx, part),
        Op::SnapshotVerified(verified) => snapshots::verified(tx, ctx, verified, hashes),
        Op::SnapshotsMarked(ids) => snapshots::marked(tx, ctx, &ids.ids),
        Op::SnapshotsDeleted(ids) => snapshots::deleted(tx, ctx, &ids.ids),
        Op::BeginIncarnation(begin) => incarnation::begin(tx, ctx, begin),
        _ if !ctx.group.is_meta() => Ok(Outcome::refused(
            RefusalCode::Invalid,
            format!("{} belongs to the group __meta/0", op.name()),
        )),
        Op::Genesis(genesis) => meta::genesis(tx, ctx, genesis),
        Op::AdmitNode(admit) => meta::admit(tx, ctx, admit),
        Op::ActivateNode(activate) => meta::activate(tx, ctx, activate.id),
        Op::UpdateNode(update) => meta::update(tx, ctx, update),
        Op::AssignSnapshot(task) => meta::assign(tx, ctx, task),
        Op::FinishSnapshotTask(finish) => meta::finish(tx, ctx, finish),
        Op::ExpectNode(expect) => members::expect(tx, ctx, expect),
        Op::ForgetNode(forget) => members::forget(tx, ctx, forget),
        Op::BeginChange(begin) => members::begin(tx, ctx, begin),
        Op::EndChange(end) => members::end(tx, ctx, end),
    }
}

fn refuse_name(error: &NameError) -> Outcome {
    Outcome::refused(RefusalCode::Invalid, error.to_string())
}
