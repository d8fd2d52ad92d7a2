//! What a group knows of its snapshots, and the comparison of this replica's state with the recorded one.

use std::collections::VecDeque;

use confman_snapshot::Digest;

use super::audit::{self, Change};
use super::{Ctx, Tx};
use crate::command::{Answer, Outcome, RefusalCode, SnapshotVerified};
use crate::error::{StateMismatch, StoreError};
use crate::keys;
use crate::records::SnapshotFactRecord;

/// Of how many entries this replica remembers the whole hash of its state: what others may ask for.
const WHOLE: usize = 16 * 1024;
/// Of how many entries before those it remembers the beginning: enough to find that a state differs, at 8 bytes an entry.
const BEGUN: usize = 256 * 1024;

/// What a replica remembers of its own state hash at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remembered {
    /// All of it.
    Whole(Digest),
    /// Its first 8 bytes.
    Begun([u8; 8]),
}

impl Remembered {
    /// Whether it is the hash of that state, as far as it is remembered.
    pub fn agrees(&self, with: &Digest) -> bool {
        with.as_bytes().starts_with(self.as_bytes())
    }

    /// What is remembered of the hash.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Whole(digest) => digest.as_bytes(),
            Self::Begun(bytes) => bytes,
        }
    }
}

impl std::fmt::Display for Remembered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(digest) => digest.fmt(f),
            Self::Begun(bytes) => write!(f, "{}...", hex::encode(bytes)),
        }
    }
}

/// This replica's own state hashes at recent positions. In memory only, and no part of the state: it can stop a
/// replica that differs, never change what it does.
#[derive(Debug, Default)]
pub(crate) struct Hashes {
    recent: VecDeque<(u64, Digest)>,
    /// Those of the positions before the first of `recent`, one after the other.
    older: VecDeque<[u8; 8]>,
}

impl Hashes {
    pub(crate) fn remember(&mut self, index: u64, digest: Digest) {
        while self.recent.len() >= WHOLE {
            let Some((at, digest)) = self.recent.pop_front() else {
                break;
            };
            // A gap, which only openraft's own tests make: what is before it has no place any more.
            if self.recent.front().is_some_and(|(next, _)| *next != at + 1) {
                self.older.clear();
                continue;
            }
            if self.older.len() >= BEGUN {
                self.older.pop_front();
            }
            let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
            self.older.push_back([a, b, c, d, e, f, g, h]);
        }
        self.recent.push_back((index, digest));
    }

    /// The whole hash at one of the last positions.
    pub(crate) fn at(&self, index: u64) -> Option<Digest> {
        let found = self
            .recent
            .binary_search_by_key(&index, |(at, _)| *at)
            .ok()?;
        self.recent.get(found).map(|(_, digest)| *digest)
    }

    /// As much of the hash at a position as is remembered.
    pub(crate) fn remembered(&self, index: u64) -> Option<Remembered> {
        if let Some(digest) = self.at(index) {
            return Some(Remembered::Whole(digest));
        }
        let (first, _) = self.recent.front()?;
        let back = usize::try_from(first.checked_sub(index)?).ok()?;
        let place = self.older.len().checked_sub(back)?;
        self.older.get(place).copied().map(Remembered::Begun)
    }

    pub(crate) fn clear(&mut self) {
        self.recent.clear();
        self.older.clear();
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
    let recorded = record.state_digest();
    let differs = |found| {
        Err(StoreError::StateMismatch(Box::new(StateMismatch {
            group: ctx.group.clone(),
            index: record.position.index,
            found,
            recorded,
            snapshot: record.id.to_string(),
        })))
    };
    fail::fail_point!("store::state-differs", |_| differs(Remembered::Whole(
        Digest::empty()
    )));
    if let Some(found) = hashes.remembered(record.position.index)
        && !found.agrees(&recorded)
    {
        return differs(found);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(index: u64) -> Digest {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&index.to_be_bytes());
        Digest(bytes)
    }

    #[test]
    fn the_hashes_of_many_entries_are_compared_and_of_the_last_ones_told() {
        let last = (WHOLE + BEGUN + 1_000) as u64;
        let mut hashes = Hashes::default();
        for index in 1..=last {
            hashes.remember(index, digest(index));
        }
        let whole_from = last - WHOLE as u64 + 1;
        let begun_from = whole_from - BEGUN as u64;
        for index in [whole_from, last] {
            assert_eq!(hashes.at(index), Some(digest(index)));
            assert_eq!(
                hashes.remembered(index),
                Some(Remembered::Whole(digest(index)))
            );
        }
        for index in [begun_from, begun_from + 1, whole_from - 1] {
            assert_eq!(hashes.at(index), None, "no more than its beginning");
            let begun = hashes.remembered(index).unwrap();
            assert_eq!(begun, Remembered::Begun(index.to_be_bytes()));
            assert!(begun.agrees(&digest(index)));
            assert!(!begun.agrees(&digest(index + 1)));
        }
        for index in [0, begun_from - 1, last + 1] {
            assert_eq!(hashes.remembered(index), None);
        }
        assert_eq!(hashes.older.len(), BEGUN, "memory is bounded");
        hashes.clear();
        assert_eq!(hashes.remembered(last), None);
    }

    #[test]
    fn what_is_before_a_gap_is_forgotten_not_mistaken() {
        let mut hashes = Hashes::default();
        for index in (1..=100).chain(1_000..1_000 + WHOLE as u64) {
            hashes.remember(index, digest(index));
        }
        assert_eq!(hashes.remembered(100), None);
        assert_eq!(hashes.remembered(999), None);
        hashes.remember(1_000 + WHOLE as u64, digest(1_000 + WHOLE as u64));
        assert_eq!(
            hashes.remembered(1_000),
            Some(Remembered::Begun(1_000_u64.to_be_bytes()))
        );
    }
}
