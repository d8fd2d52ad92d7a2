//! Which snapshot of every group: what the operator asked for, what the store has, and what of it is whole. Reads only.

use std::collections::BTreeMap;

use clap::Args;
use confman_cli::failure::Failure;
use confman_client::ErrorKind;
use confman_snapshot::repository::Listing;
use confman_snapshot::{GroupId, SnapshotId};
use jiff::Timestamp;

use super::choose::{Choice, Life, Wanted, choose};
use super::members::{self, Registry};
use super::survey::{Demands, Picked, Skipped, Survey, pick, survey};
use crate::codes;
use crate::context::Global;
use crate::store::errors;
use crate::store::reader::StoreReader;

/// The new life votes this far above every term that is known: nobody has elected a thousand leaders since the last snapshot.
const TERM_STEP: u64 = 1000;

/// Which snapshots.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Snapshots")]
pub(crate) struct WhichArgs {
    /// The cluster, where the prefix has several
    #[arg(long, value_name = "UUID")]
    pub(super) cluster: Option<String>,
    /// Take this snapshot instead of the newest good one of its group; repeat it for several groups
    #[arg(long = "snapshot", value_name = "[GROUP=]ID")]
    snapshots: Vec<NamedSnapshot>,
    /// Take of every group its newest snapshot that holds nothing later than this
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// Take of a group its newest snapshot up to this index; repeat it for several groups
    #[arg(long = "index", value_name = "GROUP=INDEX")]
    indexes: Vec<GroupIndex>,
}

#[derive(Debug, Clone)]
struct NamedSnapshot {
    group: Option<GroupId>,
    id: SnapshotId,
}

impl std::str::FromStr for NamedSnapshot {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (group, id) = match text.split_once('=') {
            Some((group, id)) => (Some(group.parse().map_err(|e| format!("{e}"))?), id),
            None => (None, text),
        };
        let id = id.parse().map_err(|e| format!("{e}"))?;
        Ok(Self { group, id })
    }
}

#[derive(Debug, Clone)]
struct GroupIndex {
    group: GroupId,
    index: u64,
}

impl std::str::FromStr for GroupIndex {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not GROUP=INDEX, such as config/0=1200");
        let (group, index) = text.split_once('=').ok_or_else(wrong)?;
        let group = group.parse().map_err(|e| format!("{e}"))?;
        let index = index.parse().map_err(|_| wrong())?;
        Ok(Self { group, index })
    }
}

impl WhichArgs {
    /// Whether anything but the newest was asked for.
    pub(super) fn is_earlier(&self) -> bool {
        self.at.is_some() || !self.snapshots.is_empty() || !self.indexes.is_empty()
    }
}

/// What the store gives for every group.
pub(super) struct Findings {
    pub(super) survey: Survey,
    pub(super) registry: Registry,
    pub(super) groups: BTreeMap<GroupId, GroupFinding>,
}

/// What the store gives for one group.
pub(super) struct GroupFinding {
    pub(super) picked: Picked,
    pub(super) listing: Listing,
    pub(super) choice: Choice,
}

/// How to look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Search<'a> {
    pub(super) which: &'a WhichArgs,
    /// Read every byte of what is chosen.
    pub(super) data: bool,
    /// Snapshots that turned out to be no good when they were read.
    pub(super) bad: &'a [(GroupId, Skipped)],
}

/// Looks for what can be restored. Reads only.
pub(super) async fn find(
    store: &StoreReader,
    search: Search<'_>,
    global: &Global,
) -> Result<Findings, Failure> {
    let which = search.which;
    let survey = survey(store, which.cluster.as_deref()).await?;
    let lives = survey.lives()?;
    let demands = Demands {
        data: search.data,
        at_us: which.at.map(|at| at.as_microsecond()),
    };
    let meta = GroupId::meta();
    let mut asked = Asked::new(which);
    let finder = Finder {
        store,
        survey: &survey,
        lives: &lives,
        demands,
        bad: search.bad,
        global,
    };
    let found = finder.group(&meta, &mut asked).await?;
    let registry = members::registry(&found.picked.reader).await;
    let registry = registry.map_err(|e| errors::snapshot(&e))?.ok_or_else(|| {
        let message = format!(
            "snapshot {} of __meta/0 was taken before the cluster was born",
            found.picked.record.id
        );
        codes::refuse("NO_SNAPSHOT", ErrorKind::NotFound, message)
            .with_hint("name a later one with --snapshot")
    })?;
    let mut groups = BTreeMap::from([(meta, found)]);
    for partition in 0..registry.cluster.shards {
        let group = GroupId::config(partition);
        let found = finder.group(&group, &mut asked).await?;
        groups.insert(group, found);
    }
    asked.all_used()?;
    Ok(Findings {
        survey,
        registry,
        groups,
    })
}

struct Finder<'a> {
    store: &'a StoreReader,
    survey: &'a Survey,
    lives: &'a [Life],
    demands: Demands,
    bad: &'a [(GroupId, Skipped)],
    global: &'a Global,
}

impl Finder<'_> {
    async fn group(&self, group: &GroupId, asked: &mut Asked) -> Result<GroupFinding, Failure> {
        let listing = self.store.snapshots(group).await;
        let listing = listing.map_err(|e| errors::store(&e))?;
        let wanted = asked.of(group, &listing)?;
        let mut choice = choose(group, &listing.snapshots, self.lives, wanted);
        let looked = choice.candidates.len();
        let bad: Vec<Skipped> = self
            .bad
            .iter()
            .filter(|(of, _)| of == group)
            .map(|(_, skipped)| skipped.clone())
            .collect();
        choice
            .candidates
            .retain(|c| !bad.iter().any(|b| b.snapshot_id == c.id.to_string()));
        let from = (&choice, self.survey.uuid.as_str());
        let named = matches!(wanted, Wanted::Named(_));
        let picked = pick(self.store, group, from, self.demands, self.global).await?;
        let picked = match picked {
            Ok(mut picked) => {
                picked.skipped.extend(bad);
                Some(picked)
            }
            Err(skipped) => {
                if let Some(why) = skipped.iter().chain(&bad).find(|_| named) {
                    return Err(named_is_bad(group, why));
                }
                None
            }
        };
        let Some(picked) = picked else {
            let beyond = match choice.dead.len() {
                0 => String::new(),
                dead => {
                    format!("; {dead} more are of a past that no life goes on from")
                }
            };
            let message = format!(
                "{group} has no snapshot that is whole and fits, of {looked} looked at{beyond}"
            );
            let (kind, hint) = if looked == 0 {
                (
                    ErrorKind::NotFound,
                    "`drtool snapshot list` shows what there is; `drtool export` reads what the snapshots of other groups hold",
                )
            } else {
                (
                    ErrorKind::Damaged,
                    "run it again with -v to see why each was skipped; --snapshot GROUP=ID names one",
                )
            };
            return Err(codes::refuse("NO_SNAPSHOT", kind, message).with_hint(hint));
        };
        Ok(GroupFinding {
            picked,
            listing,
            choice,
        })
    }
}

/// The snapshot that was named is no good, and no other was asked for.
fn named_is_bad(group: &GroupId, why: &Skipped) -> Failure {
    let message = format!(
        "{group}: snapshot {}, which was named, cannot be used: {}",
        why.snapshot_id, why.why
    );
    codes::refuse("SNAPSHOT_DAMAGED", ErrorKind::Damaged, message)
        .with_hint("without --snapshot the newest one that is whole is taken; keep the damaged object as evidence")
}

/// What was asked for of each group; what nobody had is an error and not ignored.
struct Asked {
    snapshots: Vec<(NamedSnapshot, bool)>,
    indexes: BTreeMap<GroupId, (u64, bool)>,
}

impl Asked {
    fn new(which: &WhichArgs) -> Self {
        let snapshots = which.snapshots.iter().map(|s| (s.clone(), false));
        let indexes = which.indexes.iter();
        Self {
            snapshots: snapshots.collect(),
            indexes: indexes
                .map(|i| (i.group.clone(), (i.index, false)))
                .collect(),
        }
    }

    fn of(&mut self, group: &GroupId, listing: &Listing) -> Result<Wanted, Failure> {
        let mut wanted = Wanted::Newest;
        for (named, used) in &mut self.snapshots {
            let listed = listing.snapshots.iter().any(|l| l.id == named.id);
            if named.group.as_ref().map_or(listed, |g| g == group) {
                *used = true;
                if wanted != Wanted::Newest {
                    return Err(codes::usage(
                        "ARGUMENT",
                        format!("several snapshots are named for {group}"),
                    ));
                }
                wanted = Wanted::Named(named.id);
            }
        }
        if let Some((index, used)) = self.indexes.get_mut(group) {
            *used = true;
            if wanted != Wanted::Newest {
                return Err(codes::usage(
                    "ARGUMENT",
                    format!("{group} has both a snapshot and an index"),
                ));
            }
            wanted = Wanted::UpTo(*index);
        }
        Ok(wanted)
    }

    fn all_used(&self) -> Result<(), Failure> {
        if let Some((named, _)) = self.snapshots.iter().find(|(_, used)| !used) {
            let message = format!("no group of the cluster has a snapshot {}", named.id);
            return Err(codes::refuse("NO_SNAPSHOT", ErrorKind::NotFound, message)
                .with_hint("`drtool snapshot list` shows what there is"));
        }
        if let Some((group, _)) = self.indexes.iter().find(|(_, (_, used))| !used) {
            return Err(codes::usage(
                "GROUP_UNKNOWN",
                format!("the cluster has no group {group}"),
            ));
        }
        Ok(())
    }
}

/// The term of the new life, and the highest node id that anything in the store speaks of.
pub(super) fn floor(findings: &Findings) -> (u64, u64) {
    let (mut term, mut id) = findings.survey.floor();
    id = id.max(findings.registry.cluster.next_node_id.saturating_sub(1));
    for node in &findings.registry.nodes {
        id = id.max(node.id);
    }
    for found in findings.groups.values() {
        for listed in &found.listing.snapshots {
            term = term.max(listed.id.term);
        }
        let manifest = found.picked.reader.manifest();
        term = term.max(manifest.position.term);
        id = id.max(manifest.position.node);
        for known in manifest.membership().nodes.keys() {
            id = id.max(*known);
        }
    }
    (term + TERM_STEP, id)
}
