//! What a group knows of its snapshots, and the comparison of this replica's state with the recorded one.

use std::collections::VecDeque;

use confman_snapshot::lthash::Digest;

use super::audit::{self, Change};
use super::{Ctx, Tx};
use crate::command::{Answer, Outcome, RefusalCode, SnapshotVerified};
use crate::error::{StateMismatch, StoreError};
use crate::keys;
use crate::records::SnapshotFactRecord;

/// Of how many entries this replica remembers the hash of its state.
const REMEMBERED: usize = 16 * 1024;

/// This replica's own state hashes at recent positions. In memory only, and no part of the state: it can stop a
/// replica that differs, never change what it does.
#[derive(Debug, Default)]
pub(crate) struct Hashes {
    recent: VecDeque<(u64, Digest)>,
}

impl Hashes {
    pub(crate) fn remember(&mut self, index: u64, digest: Digest) {
        while self.recent.len() >= REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back((index, digest));
    }

    pub(crate) fn at(&self, index: u64) -> Option<Digest> {
        let found = self
            .recent
            .binary_search_by_key(&index, |(at, _)| *at)
            .ok()?;
        self.recent.get(found).map(|(_, digest)| *digest)
    }

    pub(crate) fn clear(&mut self) {
        self.recent.clear();
    }
}

pub(super) fn verified(
    tx: &mut Tx<'_>,
    ctx: &mut Ctx<'_>,
    verified: &SnapshotVerified,
    hashes: &Hashes,
) -> Result<Outcome, StoreError> {
    let refuse = |detail: String| Ok(Outcome::refused(RefusalCode::Invalid, detail));
    let (Some(record), Some(membership)) = (&verified.record, &verified.membership) else {
        return refuse("a verified snapshot has a record and a membership".to_owned());
    };
    if let Err(error) = record.check() {
        return refuse(error.to_string());
    }
    if record.group != *ctx.group || record.position.index >= ctx.position.index {
        return refuse(format!(
            "snapshot {} of {} was not taken before this entry",
            record.id, record.group
        ));
    }
    let id = record.id.to_string();
    if let Some(found) = hashes.at(record.position.index)
        && found != record.state_digest()
    {
        return Err(StoreError::StateMismatch(Box::new(StateMismatch {
            group: ctx.group.clone(),
            index: record.position.index,
            found,
            recorded: record.state_digest(),
            snapshot: id,
        })));
    }
    let key = keys::snapshot(&id);
    if !tx.has(&key)? {
        let fact = SnapshotFactRecord {
            record: Some(record.clone()),
            membership: Some(membership.clone()),
            recorded_us: ctx.now_us,
            marked_us: None,
        };
        tx.put(&key, &fact)?;
        tx.facts.bytes_since_snapshot = 0;
        tx.snapshots_changed = true;
        audit::record(
            tx,
            ctx,
            Change {
                action: "snapshot.verified",
                key: &id,
                ..Change::default()
            },
        )?;
    }
    Ok(Outcome::new(Answer::Recorded(true)))
}

pub(super) fn marked(
    tx: &mut Tx<'_>,
    ctx: &Ctx<'_>,
    ids: &[String],
) -> Result<Outcome, StoreError> {
    for id in ids {
        let key = keys::snapshot(id);
        if let Some(mut fact) = tx.get::<SnapshotFactRecord>(&key)?
            && fact.marked_us.is_none()
        {
            fact.marked_us = Some(ctx.now_us);
            tx.put(&key, &fact)?;
            tx.snapshots_changed = true;
        }
    }
    Ok(Outcome::new(Answer::Done(true)))
}

pub(super) fn deleted(
    tx: &mut Tx<'_>,
    ctx: &mut Ctx<'_>,
    ids: &[String],
) -> Result<Outcome, StoreError> {
    for id in ids {
        if let Some(fact) = tx.get::<SnapshotFactRecord>(&keys::snapshot(id))?
            && fact.marked_us.is_none()
        {
            let detail = format!("snapshot {id} is not marked for deletion");
            return Ok(Outcome::refused(RefusalCode::Conflict, detail));
        }
    }
    for id in ids {
        if tx.delete(&keys::snapshot(id))? {
            tx.snapshots_changed = true;
            audit::record(
                tx,
                ctx,
                Change {
                    action: "snapshot.deleted",
                    key: id,
                    ..Change::default()
                },
            )?;
        }
    }
    Ok(Outcome::new(Answer::Done(true)))
}
