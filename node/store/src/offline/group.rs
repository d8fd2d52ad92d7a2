//! One group of a stopped node: its log, its state, and whether they belong together.

use std::ops::RangeBounds;

use confman_snapshot::Digest;
use confman_snapshot::model::{GroupId, Membership, Position};
use prost::Message;

use super::file::ReadFile;
use super::finding::{Findings, OfflineFinding, OfflineSeverity, codes};
use super::log::{OfflineLog, TornTail};
use super::node::SEALED_BYTES_MAX;
use super::state::OfflineState;
use crate::diverged::{DIVERGED, Divergence};
use crate::error::StoreError;
use crate::files::unseal;
use crate::paths::GroupPaths;
use crate::state::SnapshotFact;
use crate::wire::{WirePayload, WireVote};

/// One group of a stopped node.
#[derive(Debug)]
pub struct OfflineGroup {
    /// The group.
    pub group: GroupId,
    /// The names of its files.
    pub paths: GroupPaths,
    /// The last vote that was granted or asked for.
    pub vote: Option<WireVote>,
    /// The last entry that the node knew to be committed; it may know less than is.
    pub committed: Option<Position>,
    /// The first entry that can be read.
    pub first: Option<Position>,
    /// The last entry, readable or purged.
    pub last: Option<Position>,
    /// The last entry that is purged.
    pub purged: Option<Position>,
    /// The last entry that the state has applied durably.
    pub applied: Option<Position>,
    /// The membership in effect: the last one appended, committed or not, with its position.
    pub membership: Membership,
    /// From the last one that the node knows to be committed to the one in effect, oldest first. Whether those between were
    /// committed nobody can say who has only this directory.
    pub memberships: Vec<Membership>,
    /// The hash that the state says it has; none without a readable state.
    pub state_hash: Option<Digest>,
    /// What a crash cut short at the end of the log.
    pub torn_tail: Option<TornTail>,
    /// The snapshots that the group has recorded, oldest first.
    pub snapshots: Vec<SnapshotFact>,
    /// What is wrong with it.
    pub findings: Vec<OfflineFinding>,
    /// The log; none where there is none that can be listed.
    pub log: Option<OfflineLog>,
    /// The state; none where there is none that can be opened.
    pub state: Option<OfflineState>,
}

/// The memberships from the last one on that stands at or before `known`, which is committed.
fn since_committed(
    in_log: &[Membership],
    in_state: Option<&Membership>,
    known: Option<Position>,
) -> Vec<Membership> {
    // A state in which nothing was applied has none.
    let in_state = in_state.filter(|m| !m.voters.is_empty());
    let mut all: Vec<Membership> = in_log.iter().chain(in_state).cloned().collect();
    all.sort_by_key(|m| m.position);
    all.dedup_by_key(|m| m.position);
    let from = all.iter().rposition(|m| m.position <= known);
    all.split_off(from.unwrap_or(0))
}

impl OfflineGroup {
    /// Looks at the files of one group.
    pub(super) fn open(paths: GroupPaths) -> Self {
        let mut findings = Findings::default();
        let group = paths.group().clone();
        let log = OfflineLog::scan(&paths.log(), &group, &mut findings).unwrap_or_else(|error| {
            findings.push(OfflineFinding::of(&error, codes::LOG_DAMAGED, &paths.log()));
            None
        });
        let mut state_found = true;
        let state = match OfflineState::open(&paths.state(), &group) {
            Ok(state) => {
                state_found = state.is_some();
                state
            }
            Err(error) => {
                findings.push(OfflineFinding::of(
                    &error,
                    codes::STATE_DAMAGED,
                    &paths.state(),
                ));
                None
            }
        };
        let snapshots = match state.as_ref().map(OfflineState::snapshots) {
            Some(Ok(snapshots)) => snapshots,
            Some(Err(error)) => {
                findings.push(OfflineFinding::of(
                    &error,
                    codes::STATE_DAMAGED,
                    &paths.state(),
                ));
                Vec::new()
            }
            None => Vec::new(),
        };
        let first = log.as_ref().and_then(|log| {
            log.entries(..)
                .find_map(Result::ok)
                .map(|entry| entry.position)
        });
        let committed = log.as_ref().and_then(|log| log.committed);
        let applied = state.as_ref().and_then(OfflineState::applied);
        let in_log = log.as_ref().map_or(&[][..], |log| log.memberships());
        let in_state = state.as_ref().map(OfflineState::membership);
        let memberships = since_committed(in_log, in_state, committed.max(applied));
        let this = Self {
            vote: log.as_ref().and_then(|log| log.vote),
            committed,
            first,
            last: log.as_ref().and_then(|log| log.last),
            purged: log.as_ref().and_then(|log| log.purged),
            applied,
            membership: memberships.last().cloned().unwrap_or_default(),
            memberships,
            state_hash: state.as_ref().map(OfflineState::hash),
            torn_tail: log.as_ref().and_then(|log| log.torn_tail.clone()),
            snapshots,
            findings: Vec::new(),
            group,
            paths,
            log,
            state,
        };
        this.check_together(state_found, &mut findings);
        this.check_diverged(&mut findings);
        Self {
            findings: findings.into_vec(),
            ..this
        }
    }

    /// The entries of a range, decoded, in order. Where some cannot be read there is an error, and then the next ones.
    pub fn entries(
        &self,
        range: impl RangeBounds<u64>,
    ) -> impl Iterator<Item = Result<(Position, WirePayload), StoreError>> + '_ {
        let entries = self.log.as_ref().map(|log| log.entries(range));
        entries.into_iter().flatten().map(|entry| {
            let entry = entry?;
            Ok((entry.position, entry.decode(&self.group)?))
        })
    }

    /// The same checks as when a node opens the group, and some that it leaves to Raft.
    fn check_together(&self, state_found: bool, findings: &mut Findings) {
        let dir = self.paths.dir();
        if !state_found && self.log.is_some() {
            findings.push(OfflineFinding::error(
                codes::STATE_MISSING,
                &self.paths.state(),
                "there is a log and no state",
            ));
        }
        let Some(state) = &self.state else {
            return;
        };
        let applied = state.applied();
        if let Some(applied) = applied
            && self.vote.is_none()
        {
            findings.push(OfflineFinding::error(
                codes::VOTE_MISSING,
                dir,
                format!("the state has applied entry {applied}, but the log has never seen a vote"),
            ));
        }
        let text =
            |p: Option<Position>| p.map_or_else(|| "nothing".to_owned(), |p| format!("entry {p}"));
        if let Some(purged) = self.purged
            && applied.is_none_or(|applied| applied.index < purged.index)
        {
            findings.push(OfflineFinding::error(
                codes::STATE_BEHIND_LOG,
                dir,
                format!(
                    "the log begins after entry {purged}, but the state has applied {}",
                    text(applied)
                ),
            ));
        }
        if let Some(applied) = applied
            && self.log.is_some()
            && self.last.is_none_or(|last| last.index < applied.index)
        {
            // A snapshot that was installed a moment before the crash leaves this, and nothing else that is sound.
            let severity = if state.installed() == Some(applied) {
                OfflineSeverity::Info
            } else {
                OfflineSeverity::Error
            };
            findings.push(OfflineFinding::new(
                severity,
                codes::STATE_AHEAD_OF_LOG,
                dir,
                format!(
                    "the state has applied entry {applied}, but the log ends at {}",
                    text(self.last)
                ),
            ));
        }
        self.check_applied_entry(applied, findings);
    }

    /// A replica that found its state to differ wrote it down, and is not opened again.
    fn check_diverged(&self, findings: &mut Findings) {
        let path = self.paths.diverged();
        let read = || -> Result<Option<Divergence>, StoreError> {
            let Some(file) = ReadFile::open(&path)? else {
                return Ok(None);
            };
            let body = unseal(&path, DIVERGED, &file.read_all(SEALED_BYTES_MAX)?)?;
            Divergence::decode(body.as_slice())
                .map(Some)
                .map_err(|e| StoreError::Damaged {
                    path: path.clone(),
                    detail: e.to_string(),
                    hint: DIVERGED.hint,
                })
        };
        match read() {
            Ok(None) => {}
            Ok(Some(finding)) => findings.push(OfflineFinding::error(
                codes::GROUP_DIVERGED,
                &path,
                format!(
                    "the state at index {} had the hash {}, snapshot {} recorded {}",
                    finding.index,
                    hex::encode(&finding.found),
                    finding.snapshot,
                    hex::encode(&finding.recorded)
                ),
            )),
            Err(error) => findings.push(OfflineFinding::of(&error, codes::GROUP_DIVERGED, &path)),
        }
    }

    /// The entry that was applied last must be the one that stands in the log at its index.
    fn check_applied_entry(&self, applied: Option<Position>, findings: &mut Findings) {
        let (Some(applied), Some(log)) = (applied, &self.log) else {
            return;
        };
        let there = match log.entries(applied.index..=applied.index).next() {
            Some(Ok(entry)) => Some(entry.position),
            _ => self.purged.filter(|purged| purged.index == applied.index),
        };
        if let Some(there) = there
            && there != applied
        {
            findings.push(OfflineFinding::error(
                codes::LOG_ORDER,
                self.paths.dir(),
                format!("the state has applied entry {applied}, the log has {there} in its place"),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(index: u64) -> Membership {
        Membership {
            position: Some(Position::new(1, 1, index)),
            voters: vec![[index].into()],
            ..Membership::default()
        }
    }

    #[test]
    fn memberships_begin_with_the_last_one_that_is_known_to_be_committed() {
        let log = [members(0), members(5), members(9)];
        let at = |index| Some(Position::new(1, 1, index));
        let told = |log: &[Membership], state: Option<&Membership>, known| -> Vec<u64> {
            let told = since_committed(log, state, known);
            told.iter()
                .map(|m| m.position.map_or(0, |p| p.index))
                .collect()
        };
        assert_eq!(told(&log, None, None), [0, 5, 9]);
        assert_eq!(told(&log, None, at(4)), [0, 5, 9]);
        assert_eq!(told(&log, None, at(5)), [5, 9]);
        assert_eq!(told(&log, None, at(99)), [9]);
        // What the state knows was applied: the log may have purged it, and may have it as well.
        assert_eq!(told(&log[2..], Some(&members(5)), at(7)), [5, 9]);
        assert_eq!(told(&log, Some(&members(5)), at(5)), [5, 9]);
        assert_eq!(told(&[], Some(&members(5)), at(5)), [5]);
        assert_eq!(told(&log[..1], Some(&Membership::default()), None), [0]);
    }
}
