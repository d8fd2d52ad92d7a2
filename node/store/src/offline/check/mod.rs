//! Whether every record of a state is what it says, and whether they agree: with each other, with the log beside them, and
//! with the node's identity.
//!
//! - `data`: entries, their values and namespaces;
//! - `history`: the audit history, its index, and what is remembered of idempotency keys;
//! - `registry`: the cluster, its nodes, its lives, its recorded snapshots;
//! - `log`: whether the state was made from the log that lies beside it.
//!
//! Promises: one pass over all records and one over the log, in memory that grows with neither; what cannot be read is a
//! finding, and the pass goes on with the next kind of record.
//!
//! It cannot know what is missing without a trace: a whole older copy of a directory agrees with itself.

mod data;
mod history;
mod log;
mod registry;

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use confman_snapshot::model::{GroupId, Position};
use confman_snapshot::{Digest, StateHash};
use prost::Message;

use super::finding::{Findings, OfflineFinding, codes};
use super::group::OfflineGroup;
use super::state::{OfflineState, StateView};
use crate::datadir::Identity;
use crate::error::StoreError;
use crate::keys;

/// What reading every record of a group gave.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordsReport {
    /// How many records were read.
    pub records: u64,
    /// How many of each kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// The hash of all records; none when not all could be read.
    pub hash: Option<Digest>,
    /// How many entries of the log were compared with what the state says of them.
    pub entries_compared: u64,
    /// What is wrong.
    pub findings: Vec<OfflineFinding>,
}

/// What every check looks at, and where it says what it found.
struct Ctx<'a> {
    group: &'a GroupId,
    path: &'a Path,
    applied: Option<Position>,
    view: StateView<'a>,
    identity: Option<&'a Identity>,
    findings: Findings,
}

/// A single record that another one speaks of.
enum Looked<M> {
    Missing,
    /// It is there and cannot be read, which is told where it is read in its turn.
    Unreadable,
    Found(M),
}

impl Ctx<'_> {
    fn error(&mut self, code: &'static str, what: impl Into<String>) {
        self.findings
            .push(OfflineFinding::error(code, self.path, what));
    }

    fn warning(&mut self, code: &'static str, what: impl Into<String>) {
        self.findings
            .push(OfflineFinding::warning(code, self.path, what));
    }

    fn damaged(&mut self, key: &[u8], what: &str) {
        let what = format!("{}: {what}", keys::describe(key));
        self.error(codes::RECORD_DAMAGED, what);
    }

    fn look<M: Message + Default>(&self, key: &[u8]) -> Looked<M> {
        match self.view.get(key) {
            Ok(None) => Looked::Missing,
            Ok(Some(bytes)) => M::decode(bytes).map_or(Looked::Unreadable, Looked::Found),
            Err(_) => Looked::Unreadable,
        }
    }

    /// Whether a record is there, readable or not.
    fn has(&self, key: &[u8]) -> bool {
        !matches!(self.view.get(key), Ok(None))
    }

    fn decode<M: Message + Default>(&mut self, key: &[u8], value: Bytes) -> Option<M> {
        M::decode(value)
            .map_err(|error| self.damaged(key, &error.to_string()))
            .ok()
    }
}

/// All checks of one pass.
#[derive(Default)]
struct Checks {
    namespaces: data::Namespaces,
    entries: data::Entries,
    history: history::History,
    remembered: history::Remembered,
    registry: registry::Registry,
}

impl Checks {
    fn take(&mut self, ctx: &mut Ctx<'_>, key: &[u8], value: Bytes) {
        match key.first().copied().unwrap_or(u8::MAX) {
            keys::FACTS => self.registry.facts(ctx, key, value),
            keys::CLUSTER => self.registry.cluster(ctx, key, value),
            keys::NODE => self.registry.node(ctx, key, value),
            keys::TASK | keys::FAILURE | keys::EXPECTED | keys::CHANGE => {
                registry::small(ctx, key, value);
            }
            keys::SNAPSHOT => registry::snapshot(ctx, key, value),
            keys::INCARNATION => registry::incarnation(ctx, key, value),
            keys::NAMESPACE => self.namespaces.take(ctx, key, value),
            keys::ENTRY => self.entries.entry(ctx, key, value),
            keys::TOMBSTONE => data::tombstone(ctx, key, value),
            keys::PART => self.entries.parts_found += 1,
            keys::UPLOAD => self.entries.upload(ctx, key, value),
            keys::GARBAGE => self.entries.garbage(ctx, key, value),
            keys::AUDIT => self.history.take(ctx, key, value),
            keys::AUDIT_BY_NAMESPACE => self.history.indexed(ctx, key),
            keys::IDEMPOTENCY => self.remembered.take(ctx, key, value),
            keys::IDEMPOTENCY_ORDER => self.remembered.order(ctx, key, &value),
            _ => ctx.warning(
                codes::RECORD_UNKNOWN,
                format!(
                    "{}: a kind that this version does not know",
                    keys::describe(key)
                ),
            ),
        }
    }

    /// What can only be said when all records were read.
    fn end(self, ctx: &mut Ctx<'_>) {
        let keys_counted = self.namespaces.end(ctx);
        self.entries.end(ctx, keys_counted);
        self.history.end(ctx);
        self.remembered.end(ctx, &self.registry);
    }
}

impl OfflineGroup {
    /// Reads every record of the state and every entry of the log, and compares. None without a readable state. `seen` is
    /// told how many bytes of records were read so far.
    pub fn check_records(
        &self,
        identity: Option<&Identity>,
        mut seen: impl FnMut(u64),
    ) -> Option<RecordsReport> {
        let state = self.state.as_ref()?;
        let mut report = RecordsReport {
            records: 0,
            kinds: BTreeMap::new(),
            hash: None,
            entries_compared: 0,
            findings: Vec::new(),
        };
        let view = match state.view() {
            Ok(view) => view,
            Err(error) => {
                report.findings.push(OfflineFinding::of(
                    &error,
                    codes::STATE_DAMAGED,
                    state.path(),
                ));
                return Some(report);
            }
        };
        let mut ctx = Ctx {
            group: &self.group,
            path: state.path(),
            applied: self.applied,
            view,
            identity,
            findings: Findings::default(),
        };
        let mut checks = Checks::default();
        let (mut hash, mut bytes) = (StateHash::new(), 0);
        let whole = read_all(state, &mut ctx, |ctx, key, value| {
            hash.add(&key, &value);
            report.records += 1;
            bytes += (key.len() + value.len()) as u64;
            let kind = key.first().and_then(|first| keys::kind(*first));
            *report.kinds.entry(kind.unwrap_or("unknown")).or_default() += 1;
            checks.take(ctx, &key, value);
            seen(bytes);
        });
        if whole {
            checks.end(&mut ctx);
            let found = hash.digest();
            if found != state.hash() {
                let what = format!(
                    "the hash of all records is {found}, the state says {}",
                    state.hash()
                );
                ctx.error(codes::STATE_HASH_MISMATCH, what);
            }
            report.hash = Some(found);
        }
        report.entries_compared = log::compare(self, state, &mut ctx);
        registry::own_node(self, &mut ctx);
        report.findings.extend(ctx.findings.into_vec());
        Some(report)
    }
}

/// Gives every record that can be read; after one that cannot, goes on with the next kind. Says whether it was all.
fn read_all(
    state: &OfflineState,
    ctx: &mut Ctx<'_>,
    mut each: impl FnMut(&mut Ctx<'_>, Bytes, Bytes),
) -> bool {
    let mut said: Option<String> = None;
    let mut kind = 0;
    let mut from = Vec::new();
    loop {
        let failed = match state.records(&[], Some(&from)) {
            Ok(records) => {
                let mut failed = None;
                for record in records {
                    match record {
                        Ok((key, value)) => {
                            kind = key.first().copied().unwrap_or_default();
                            each(ctx, key, value);
                        }
                        Err(error) => failed = Some(error),
                    }
                }
                failed
            }
            Err(error) => Some(error),
        };
        let Some(error) = failed else {
            return said.is_none();
        };
        said = Some(tell_once(ctx, &error, said));
        match kind.checked_add(1) {
            Some(next) if next <= keys::IDEMPOTENCY_ORDER => kind = next,
            _ => return false,
        }
        from = vec![kind];
    }
}

/// The same damage is met again from every side: once is enough.
fn tell_once(ctx: &mut Ctx<'_>, error: &StoreError, said: Option<String>) -> String {
    let finding = OfflineFinding::of(error, codes::STATE_DAMAGED, ctx.path);
    let text = finding.what.clone();
    if said.as_ref() != Some(&text) {
        ctx.findings.push(finding);
    }
    text
}
