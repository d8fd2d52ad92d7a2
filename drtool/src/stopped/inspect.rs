//! `drtool inspect`: what is in a directory.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::Args;
use confman_cli::failure::Failure;
use confman_cli::output;
use confman_client::ErrorKind;
use confman_snapshot::model::{GroupId, Membership, Position};
use confman_store::offline::{OfflineGroup, OfflineNode};
use serde::{Serialize, Serializer};

use super::record::time;
use super::{findings, log_entry, open, record};
use crate::codes;
use crate::context::Global;
use crate::finding::Finding;

/// Show what is in a data directory, without changing it
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The node's data directory
    dir: PathBuf,
    /// Show the entries of the log from index FROM to TO, both included; one of them may be left out
    #[arg(long, value_name = "FROM..TO")]
    log: Option<LogRange>,
    /// Show the records of the state
    #[arg(long)]
    state: bool,
    /// Show this group only, such as config/0
    #[arg(long, value_name = "GROUP")]
    group: Option<GroupId>,
}

/// Indexes of a log, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogRange(RangeInclusive<u64>);

impl FromStr for LogRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str, absent: u64| match part.trim() {
            "" => Ok(absent),
            part => part
                .parse::<u64>()
                .map_err(|_| format!("{part:?} is no index of an entry")),
        };
        let (from, to) = match text.split_once("..") {
            Some((from, to)) => (number(from, 0)?, number(to, u64::MAX)?),
            None if text.trim().is_empty() => return Err("no range, such as 10..20".to_owned()),
            None => (number(text, 0)?, number(text, 0)?),
        };
        if from > to {
            return Err(format!("{from} comes after {to}"));
        }
        Ok(Self(from..=to))
    }
}

/// Who the node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IdentityView {
    pub(super) cluster_uuid: String,
    pub(super) incarnation: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) lineage: String,
    pub(super) node_id: u64,
    pub(super) name: String,
    shards: u32,
    state: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    created: String,
}

impl IdentityView {
    pub(super) fn of(node: &OfflineNode) -> Option<Self> {
        node.identity.as_ref().map(|identity| Self {
            cluster_uuid: identity.cluster_uuid.clone(),
            incarnation: identity.incarnation,
            lineage: identity.lineage.clone(),
            node_id: identity.node_id,
            name: identity.name.clone(),
            shards: identity.shards,
            state: format!("{:?}", identity.state()).to_lowercase(),
            reason: identity.reason.clone(),
            created: time(identity.created_us),
        })
    }
}

impl std::fmt::Display for IdentityView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} (node id {}) of cluster {}, incarnation {}",
            self.name, self.node_id, self.cluster_uuid, self.incarnation
        )?;
        if !self.lineage.is_empty() {
            write!(f, " by {}", self.lineage)?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    dir: String,
    in_use: Option<&'a str>,
    identity: Option<IdentityView>,
    groups: Vec<GroupView<'a>>,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VoteView {
    term: u64,
    node: u64,
    granted: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SnapshotView {
    id: String,
    position: Position,
    state_hash: String,
    recorded: String,
    marked: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TornView {
    path: String,
    offset: u64,
    bytes: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupView<'a> {
    group: &'a GroupId,
    vote: Option<VoteView>,
    committed: Option<Position>,
    first: Option<Position>,
    last: Option<Position>,
    purged: Option<Position>,
    applied: Option<Position>,
    log_entries: Option<u64>,
    log_bytes: Option<u64>,
    state_bytes: Option<u64>,
    state_hash: Option<String>,
    commands: Option<u64>,
    clock: Option<String>,
    membership: &'a Membership,
    snapshots: Vec<SnapshotView>,
    torn_tail: Option<TornView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<LogItems<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<StateItems<'a>>,
}

/// Entries of a log, read while they are written.
struct LogItems<'a>(&'a OfflineGroup, RangeInclusive<u64>);

impl Serialize for LogItems<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.entries(self.1.clone()).map(log_entry::tell))
    }
}

/// Records of a state, read while they are written.
struct StateItems<'a>(&'a OfflineGroup);

impl Serialize for StateItems<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(records(self.0))
    }
}

/// All records; one that cannot be read ends them, and says so.
fn records(group: &OfflineGroup) -> impl Iterator<Item = record::StateRecord> + '_ {
    let failed = |error: &dyn std::fmt::Display| record::StateRecord {
        key: "the records from here on".to_owned(),
        says: None,
        bytes: 0,
        error: Some(
            error
                .to_string()
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
        ),
    };
    let (read, error) = match group.state.as_ref().map(|state| state.records(&[], None)) {
        Some(Ok(read)) => (Some(read), None),
        Some(Err(error)) => (None, Some(failed(&error))),
        None => (None, None),
    };
    let read = read.into_iter().flatten().map(move |item| match item {
        Ok((key, value)) => record::tell(&key, &value),
        Err(error) => failed(&error),
    });
    error.into_iter().chain(read)
}

impl<'a> GroupView<'a> {
    fn of(group: &'a OfflineGroup, args: &InspectArgs) -> Self {
        let (log, state) = (group.log.as_ref(), group.state.as_ref());
        Self {
            group: &group.group,
            vote: group.vote.map(|vote| VoteView {
                term: vote.term,
                node: vote.node,
                granted: vote.committed,
            }),
            committed: group.committed,
            first: group.first,
            last: group.last,
            purged: group.purged,
            applied: group.applied,
            log_entries: log.map(|log| log.entries_count()),
            log_bytes: log.map(|log| log.bytes()),
            state_bytes: state.map(|state| state.bytes()),
            state_hash: group.state_hash.map(|hash| hash.to_string()),
            commands: state.map(|state| state.facts().commands),
            clock: state
                .map(|state| state.facts().last_time_us)
                .filter(|us| *us != 0)
                .map(time),
            membership: &group.membership,
            snapshots: group
                .snapshots
                .iter()
                .map(|fact| SnapshotView {
                    id: fact.record.id.to_string(),
                    position: fact.record.position,
                    state_hash: hex::encode(&fact.record.state_hash),
                    recorded: time(fact.recorded_us),
                    marked: fact.marked_us.map(time),
                })
                .collect(),
            torn_tail: group.torn_tail.as_ref().map(|tail| TornView {
                path: tail.path.display().to_string(),
                offset: tail.offset,
                bytes: tail.bytes,
            }),
            log: args
                .log
                .as_ref()
                .filter(|_| log.is_some())
                .map(|range| LogItems(group, range.0.clone())),
            state: (args.state && state.is_some()).then_some(StateItems(group)),
        }
    }

    fn print(&self) -> Result<(), Failure> {
        let entry = |at: Option<Position>| {
            at.map_or_else(|| "nothing".to_owned(), |at| format!("entry {at}"))
        };
        let line = |name: &str, text: String| output::line(&format!("  {name:<12} {text}"));
        output::line(&format!("group {}", self.group))?;
        let vote = self.vote.as_ref().map_or_else(
            || "none".to_owned(),
            |vote| {
                let granted = if vote.granted {
                    ", granted by a quorum"
                } else {
                    ""
                };
                format!("term {} for node {}{granted}", vote.term, vote.node)
            },
        );
        line("vote", vote)?;
        let log = match (self.log_entries, self.log_bytes) {
            (Some(entries), Some(bytes)) => format!(
                "{entries} entries in {}; first {}, last {}, purged {}",
                output::bytes(bytes),
                entry(self.first),
                entry(self.last),
                entry(self.purged)
            ),
            _ => "none that can be read".to_owned(),
        };
        line("log", log)?;
        if let Some(tail) = &self.torn_tail {
            let text = format!(
                "{} bytes from byte {} of {}",
                tail.bytes, tail.offset, tail.path
            );
            line("torn tail", text)?;
        }
        line(
            "committed",
            format!("{}, as far as the node knew", entry(self.committed)),
        )?;
        let state = match (self.state_bytes, &self.state_hash) {
            (Some(bytes), Some(hash)) => format!(
                "applied {}, {} commands, {}, hash {hash}",
                entry(self.applied),
                self.commands.unwrap_or_default(),
                output::bytes(bytes)
            ),
            _ => "none that can be read".to_owned(),
        };
        line("state", state)?;
        if let Some(clock) = &self.clock {
            line("clock", clock.clone())?;
        }
        line(
            "members",
            format!("as of {}", entry(self.membership.position)),
        )?;
        for (id, info) in &self.membership.nodes {
            let votes = self.membership.voters.iter().any(|set| set.contains(id));
            let role = if votes { "voter" } else { "learner" };
            line(
                "",
                format!("node id {id} {} {} {role}", info.name, info.peer_addr),
            )?;
        }
        line("snapshots", format!("{} recorded", self.snapshots.len()))?;
        for snapshot in &self.snapshots {
            let marked = if snapshot.marked.is_some() {
                ", marked for deletion"
            } else {
                ""
            };
            line(
                "",
                format!("{} recorded {}{marked}", snapshot.id, snapshot.recorded),
            )?;
        }
        if let Some(LogItems(group, range)) = &self.log {
            line("entries", String::new())?;
            for told in group.entries(range.clone()).map(log_entry::tell) {
                output::line(&format!("    {told}"))?;
            }
        }
        if let Some(StateItems(group)) = &self.state {
            line("records", String::new())?;
            for told in records(group) {
                output::line(&format!("    {told}"))?;
            }
        }
        Ok(())
    }
}

pub(crate) fn run(args: &InspectArgs, global: &Global) -> Result<ExitCode, Failure> {
    let node = open::open(&args.dir, global)?;
    if let Some(group) = &args.group
        && node.group(group).is_none()
    {
        let there: Vec<_> = node.groups.iter().map(|g| g.group.to_string()).collect();
        let message = format!("{} has no group {group}", args.dir.display());
        return Err(codes::refuse("GROUP_UNKNOWN", ErrorKind::NotFound, message)
            .with_hint(format!("it has: {}", there.join(", "))));
    }
    let wanted = |group: &&OfflineGroup| args.group.as_ref().is_none_or(|g| *g == group.group);
    let document = Document {
        dir: node.paths.root().display().to_string(),
        in_use: node.in_use.as_ref().map(|in_use| in_use.holder.as_str()),
        identity: IdentityView::of(&node),
        groups: node
            .groups
            .iter()
            .filter(wanted)
            .map(|group| GroupView::of(group, args))
            .collect(),
        findings: node.all_findings().map(findings::of).collect(),
    };
    if global.json {
        output::json(&document)?;
    } else {
        print(&document)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(document: &Document<'_>) -> Result<(), Failure> {
    output::line(&format!("directory {}", document.dir))?;
    match &document.identity {
        Some(identity) => {
            output::line(&format!("  {identity}"))?;
            output::line(&format!(
                "  {}, {} config groups, since {}",
                identity.state, identity.shards, identity.created
            ))?;
        }
        None => output::line("  of no node that can be told")?,
    }
    for group in &document.groups {
        group.print()?;
    }
    findings::print(&document.findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_the_log_are_read_or_refused() {
        let range = |text: &str| text.parse::<LogRange>().map(|r| r.0);
        assert_eq!(range("5..9"), Ok(5..=9));
        assert_eq!(range("5.."), Ok(5..=u64::MAX));
        assert_eq!(range("..9"), Ok(0..=9));
        assert_eq!(range(".."), Ok(0..=u64::MAX));
        assert_eq!(range("7"), Ok(7..=7));
        for wrong in ["", "a..b", "9..5", "-1..4", "1..2..3"] {
            assert!(range(wrong).is_err(), "{wrong}");
        }
    }
}
