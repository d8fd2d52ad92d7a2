//! A recovery plan: a readable file that leaves whoever carries it out no choices.
//!
//! Promises: it says which directory becomes what, and what is lost; it has an id that no other has and a digest over all
//! of it, so that a changed one is refused; it can be printed, and what is printed is all that matters.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use confman_cli::failure::Failure;
use confman_client::ErrorKind;
use confman_client::wire::Time;
use confman_snapshot::model::{ClusterId, GroupId, NodeInfo, Position};
use confman_snapshot::value_hash;
use serde::{Deserialize, Serialize};

use super::collection::TailEntry;
use super::file;

use crate::codes;

/// The version that this program writes, and the only one that it carries out. Until 2, nodes were told by their names.
pub const VERSION: u32 = 2;
/// What the file calls itself.
pub const KIND: &str = "confman-recovery-plan";
/// Largest plan that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Entries of a tail that are printed.
const SHOWN_MAX: usize = 10;

/// What is to be done, to whom, and what it costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// [`KIND`].
    pub kind: String,
    /// [`VERSION`].
    pub version: u32,
    /// The plan's id, and the lineage of the life that it begins.
    pub plan_id: String,
    /// When it was made, by that machine's clock.
    pub created_at: Time,
    /// When the collection was made.
    pub collected_at: Time,
    /// The cluster and the life that is over.
    pub cluster: ClusterId,
    /// Which of several lives of that number.
    pub lineage: String,
    /// The number of the life that begins.
    pub new_incarnation: u64,
    /// The term of the vote and of the entry by which it begins: above every one that was seen.
    pub term: u64,
    /// How many `config/` groups there are.
    pub shards: u32,
    /// The node that begins the new life, alone.
    pub survivor: Survivor,
    /// Each group, where its log and state come from, and what is lost of it.
    pub groups: Vec<GroupPlan>,
    /// The other directories that were seen: each is set aside, so that its node joins anew.
    pub others: Vec<OtherDirectory>,
    /// Members that are given up: nobody has their data.
    pub lost: Vec<LostNode>,
    /// Names under which empty nodes may join the new life.
    pub expected: Vec<Expected>,
    /// What the operator has accepted by name.
    pub accepted: Accepted,
    /// What else is to be known.
    pub notes: Vec<String>,
    /// BLAKE3 of the plan without this, in hex.
    pub digest: String,
}

/// The node that begins the new life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Survivor {
    /// Its name and addresses, which stay.
    pub info: NodeInfo,
    /// Its id until now.
    pub old_id: u64,
    /// Its id from now on: nobody ever had it.
    pub new_id: u64,
    /// Where its directory was seen.
    pub path: String,
    /// On which host.
    pub host: String,
    /// The state of that directory: another one is not the plan's.
    pub fingerprint: String,
}

/// One group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GroupPlan {
    /// The group.
    pub group: GroupId,
    /// The node whose log and state it goes on with.
    pub from: OldNode,
    /// The last entry there.
    pub last: Option<Position>,
    /// The last entry in the state there.
    pub applied: Option<Position>,
    /// What it costs.
    pub loss: Loss,
}

/// A node of the life that is over. Its id tells it: a node that lost its disk came back under its old name and another id,
/// and both directories may be here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OldNode {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
}

impl fmt::Display for OldNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (node id {})", self.name, self.id)
    }
}

/// What is lost of a group, as exactly as it can be known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Loss {
    /// The highest entry that is proven to be committed.
    pub proven: Option<Proof>,
    /// Entries after it that the new life keeps. They may have been acknowledged or not; from now on they are committed.
    pub kept_unproven: u64,
    /// The newest of them, in words.
    pub kept: Vec<TailEntry>,
    /// Entries that are proven to be committed and that the new life does not have.
    pub lost_proven: u64,
    /// There may be fewer of those: nobody here can say whether entries that are kept are the ones that were committed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost_at_most: bool,
    /// Entries in other directories that the new life does not have.
    pub dropped: Vec<Dropped>,
    /// What nobody can know.
    pub unknown: Option<Unknown>,
    /// The leader's clock in the last command that is kept: what came later is not there.
    pub last_write_at: Option<Time>,
}

/// What proves that an entry was committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Proof {
    /// The entry.
    pub position: Position,
    /// Whose word, and which.
    pub by: String,
}

/// Entries of a directory that the new life does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dropped {
    /// The node that has them.
    pub node: OldNode,
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// Whether they cannot have been acknowledged: a later leader has replaced them.
    pub never_committed: bool,
    /// The newest of them that were not known there to be committed, in words.
    pub entries: Vec<TailEntry>,
}

/// What may have been acknowledged without anybody here knowing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Unknown {
    /// Entries from this index on.
    pub from: u64,
    /// The members whose logs were not seen, enough of them to acknowledge without anybody else.
    pub unseen: Vec<String>,
}

/// A directory that is set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OtherDirectory {
    /// The node's name.
    pub name: String,
    /// Its id.
    pub id: u64,
    /// Where it was seen.
    pub path: String,
    /// On which host.
    pub host: String,
    /// Its state then.
    pub fingerprint: String,
    /// Groups whose log and state the survivor takes from it: not before they were taken is it set aside.
    pub gives: Vec<GroupId>,
}

/// A member that is given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LostNode {
    /// Its id.
    pub id: u64,
    /// Its name and where it was.
    pub info: NodeInfo,
    /// What is known of its data: `not collected`, or what is wrong with it.
    pub why: String,
}

/// A name under which an empty node may join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expected {
    /// Its name, and where it was.
    pub info: NodeInfo,
    /// It shall not vote.
    pub learner: bool,
}

/// What the operator has accepted by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Accepted {
    /// Members that are lost for good.
    pub lost: BTreeSet<String>,
    /// Groups of which proven or newer entries may be dropped.
    pub data_loss: BTreeSet<GroupId>,
    /// Addresses at which something is that cannot be asked, and that is no node of the cluster.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub not_ours: BTreeSet<String>,
}

impl Plan {
    /// The life that the plan begins.
    pub fn new_life(&self) -> ClusterId {
        ClusterId::new(self.cluster.uuid.clone(), self.new_incarnation)
    }

    /// The same plan, with its digest.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.digest = self.compute_digest();
        self
    }

    fn compute_digest(&self) -> String {
        let bare = Self {
            digest: String::new(),
            ..self.clone()
        };
        // Plain structs of ours, whose fields have one order: there is nothing in them that JSON cannot say.
        let bytes = serde_json::to_vec(&bare).unwrap_or_default();
        hex::encode(value_hash(&bytes))
    }

    /// Reads a plan.
    ///
    /// # Errors
    /// The file is not there, is no plan, or was changed after it was made.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = file::read(path, FILE_BYTES_MAX)?;
        let wrong = |why: String| {
            codes::refuse(
                "RECOVER_FILE",
                ErrorKind::Damaged,
                format!("{} is no plan: {why}", path.display()),
            )
            .with_hint("`drtool recover plan` makes one from a collection")
        };
        let version = file::check_head(&bytes, KIND, VERSION).map_err(wrong)?;
        if version < VERSION {
            let text = format!(
                "{} has version {version} and was made by an older drtool, this one carries out version {VERSION}",
                path.display()
            );
            let hint = "use that drtool to end or undo it; a plan of which nothing was begun is made anew, from a new collection";
            return Err(codes::refuse("RECOVER_FILE", ErrorKind::Refused, text).with_hint(hint));
        }
        let plan: Self = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
        if plan.digest != plan.compute_digest() {
            let text = format!(
                "plan {} in {} was changed after it was made",
                plan.plan_id,
                path.display()
            );
            return Err(
                codes::refuse("RECOVER_ALTERED", ErrorKind::Refused, text).with_hint(
                    "a plan is not edited: make another one with the options that you want",
                ),
            );
        }
        Ok(plan)
    }

    /// Writes it.
    ///
    /// # Errors
    /// The file is there and may not be replaced, or cannot be written.
    pub fn write(&self, path: &Path, replace: bool) -> Result<(), Failure> {
        file::write_json(path, self, replace)
    }

    /// The plan of one group.
    pub fn group(&self, group: &GroupId) -> Option<&GroupPlan> {
        self.groups.iter().find(|g| g.group == *group)
    }

    /// The API URLs of everybody who was a member, but the survivor.
    pub fn member_urls(&self) -> Vec<String> {
        let infos = self.expected.iter().map(|e| &e.info);
        let lost = self.lost.iter().map(|l| &l.info);
        let urls: BTreeSet<String> = infos
            .chain(lost)
            .map(|info| info.api_url.clone())
            .filter(|url| !url.is_empty() && *url != self.survivor.info.api_url)
            .collect();
        urls.into_iter().collect()
    }
}

/// An index range as people say it.
fn entries(from: u64, to: u64) -> String {
    if from == to {
        format!("entry {from}")
    } else {
        format!("entries {from} to {to}")
    }
}

/// So many entries.
pub(super) fn counted(count: u64) -> String {
    match count {
        1 => "1 entry".to_owned(),
        count => format!("{count} entries"),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Survivor {
            info,
            old_id,
            new_id,
            ..
        } = &self.survivor;
        writeln!(f, "Recovery plan {}", self.plan_id)?;
        writeln!(
            f,
            "  cluster {}: incarnation {} ends, incarnation {} begins at term {}",
            self.cluster.uuid, self.cluster.incarnation, self.new_incarnation, self.term
        )?;
        writeln!(
            f,
            "  {} begins it alone, as node id {new_id} (it was {old_id})",
            info.name
        )?;
        writeln!(f, "    {} on {}", self.survivor.path, self.survivor.host)?;
        for other in &self.others {
            writeln!(
                f,
                "  {} (node id {}): its directory is set aside, it joins anew",
                other.name, other.id
            )?;
            writeln!(f, "    {} on {}", other.path, other.host)?;
            if !other.gives.is_empty() {
                let gives: Vec<String> = other.gives.iter().map(ToString::to_string).collect();
                writeln!(
                    f,
                    "    before that, {} takes {} from it: its log ends later there",
                    info.name,
                    gives.join(", ")
                )?;
            }
        }
        for lost in &self.lost {
            writeln!(
                f,
                "  {} (node id {}) is given up: {}",
                lost.info.name, lost.id, lost.why
            )?;
        }
        let role = |learner: bool| if learner { "learner" } else { "voter" };
        let expected = self.expected.iter();
        let expected: Vec<String> = expected
            .map(|e| format!("{} ({})", e.info.name, role(e.learner)))
            .collect();
        if expected.is_empty() {
            writeln!(f, "  nobody may join the new life")?;
        } else {
            writeln!(
                f,
                "  may join the new life when empty: {}",
                expected.join(", ")
            )?;
        }
        writeln!(f, "What is lost")?;
        for group in &self.groups {
            show_group(f, group)?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        write!(f, "digest {}", self.digest)
    }
}

fn show_group(f: &mut fmt::Formatter<'_>, plan: &GroupPlan) -> fmt::Result {
    let Loss {
        proven,
        kept_unproven,
        kept,
        lost_proven,
        lost_at_most,
        dropped,
        unknown,
        last_write_at,
    } = &plan.loss;
    let end = plan
        .last
        .map_or_else(|| "an empty log".to_owned(), |p| format!("entry {p}"));
    writeln!(f, "  {} goes on from {}, {end}", plan.group, plan.from)?;
    if *lost_proven > 0 {
        let by = proven.as_ref().map_or("", |p| p.by.as_str());
        let bound = if *lost_at_most { "up to " } else { "" };
        writeln!(
            f,
            "    LOST: {bound}{} that were committed ({by})",
            counted(*lost_proven)
        )?;
    }
    if *kept_unproven > 0 {
        let (last, they) = match *kept_unproven {
            1 => ("the last entry".to_owned(), "it becomes"),
            count => (format!("the last {count} entries"), "they become"),
        };
        writeln!(
            f,
            "    kept: {last}, not proven to be committed; {they} so, whatever the writer was told"
        )?;
        show_entries(f, kept)?;
        if *lost_at_most {
            writeln!(
                f,
                "      others may have been committed in their place by a leader that nobody here has seen"
            )?;
        }
    }
    for gone in dropped {
        let word = if gone.never_committed {
            "never committed, a later leader replaced them"
        } else {
            "some may have been acknowledged"
        };
        writeln!(
            f,
            "    dropped: {} of {}: {word}",
            entries(gone.from, gone.to),
            gone.node
        )?;
        show_entries(f, &gone.entries)?;
    }
    match unknown {
        Some(unknown) => {
            let since = last_write_at.map_or_else(String::new, |t| format!(", after {t}"));
            writeln!(
                f,
                "    cannot be known: what {} acknowledged among themselves from entry {} on{since}",
                unknown.unseen.join(" and "),
                unknown.from
            )
        }
        None if *lost_proven == 0 && dropped.iter().all(|d| d.never_committed) => writeln!(
            f,
            "    nothing that was acknowledged: too few members are unseen to have acknowledged anything without these"
        ),
        None => Ok(()),
    }
}

fn show_entries(f: &mut fmt::Formatter<'_>, entries: &[TailEntry]) -> fmt::Result {
    let skipped = entries.len().saturating_sub(SHOWN_MAX);
    if skipped > 0 {
        writeln!(f, "      ... {skipped} more, in the file")?;
    }
    for entry in entries.iter().skip(skipped) {
        let time = entry.time.map_or_else(String::new, |t| format!(" at {t}"));
        writeln!(f, "      {}: {}{time}", entry.position.index, entry.what)?;
    }
    Ok(())
}
