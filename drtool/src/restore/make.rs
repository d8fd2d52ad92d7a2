//! `drtool restore plan`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use confman_cli::failure::Failure;
use confman_cli::output;
use confman_client::ErrorKind;
use confman_snapshot::model::{ClusterId, Membership};
use confman_snapshot::repository::{Listing, RestoreOrder};
use confman_snapshot::{GroupId, SnapshotId};
use jiff::Timestamp;

use super::alive::{self, Found, Probed};
use super::choose::{Choice, Life, Wanted, choose};
use super::members::{self, Given, Registry};
use super::plan::{GroupAccount, LifeSeen, RestorePlan, VERSION, span};
use super::survey::{Demands, Picked, Survey, pick, survey};
use crate::context::Global;
use crate::store::reader::StoreReader;
use crate::store::{StoreArgs, errors};

/// The new life votes this far above every term that is known: nobody has elected a thousand leaders since the last snapshot.
const TERM_STEP: u64 = 1000;
/// Longest summary that fits into an audit event, in bytes.
const SUMMARY_BYTES_MAX: usize = 4000;

/// Say what would be restored, what is lost, and write the plan
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// A member of the new life; repeat it for each [default: the active members of the newest snapshot]
    #[arg(long = "member", value_name = "NAME=API_URL,PEER_ADDR")]
    members: Vec<Given>,
    /// The plan's file [default: restore-plan-ID.json]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Who orders this, for the audit history [default: the user of this shell]
    #[arg(long, value_name = "NAME")]
    operator: Option<String>,
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// Which snapshots.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Snapshots")]
pub(crate) struct WhichArgs {
    /// The cluster, where the prefix has several
    #[arg(long, value_name = "UUID")]
    pub(super) cluster: Option<String>,
    /// Restore this snapshot instead of the newest good one of its group; repeat it for several groups
    #[arg(long = "snapshot", value_name = "[GROUP=]ID")]
    snapshots: Vec<NamedSnapshot>,
    /// Restore every group to its newest snapshot that holds nothing later than this
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// Restore a group to its newest snapshot up to this index; repeat it for several groups
    #[arg(long = "index", value_name = "GROUP=INDEX")]
    indexes: Vec<GroupIndex>,
    /// Do not read the snapshots' data: believe their manifests
    #[arg(long)]
    skip_data: bool,
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
    choice: Choice,
}

pub(crate) async fn run(args: &PlanArgs, global: &Global) -> Result<ExitCode, Failure> {
    let store = args.store.reader(global).await?;
    let findings = find(&store, &args.which, global).await?;
    let operator = operator(args.operator.as_deref());
    let plan = make(&store, &findings, (&args.members, &args.which), operator).await?;
    refuse_alive(&plan.probes)?;
    let plan = plan.sealed()?;
    let name = format!("restore-plan-{}.json", plan.plan_id);
    let path = args.out.clone().unwrap_or_else(|| name.into());
    plan.write(&path)?;
    let next = format!(
        "Written to {}. Nothing else was changed.\nNext: drtool restore apply {}",
        path.display(),
        path.display()
    );
    if global.json {
        output::json(&plan)?;
        eprintln!("{}", confman_cli::escape::lines(&next));
    } else {
        output::say(confman_cli::escape::lines(&format!("{plan}\n\n{next}")));
    }
    Ok(ExitCode::SUCCESS)
}

/// Looks for what can be restored. Reads only.
pub(super) async fn find(
    store: &StoreReader,
    which: &WhichArgs,
    global: &Global,
) -> Result<Findings, Failure> {
    let survey = survey(store, which.cluster.as_deref()).await?;
    let lives = survey.lives()?;
    let demands = Demands {
        data: !which.skip_data,
        at_us: which.at.map(|at| at.as_microsecond()),
    };
    let meta = GroupId::meta();
    let mut asked = Asked::new(which);
    let finder = Finder {
        store,
        survey: &survey,
        lives: &lives,
        demands,
        global,
    };
    let found = finder.group(&meta, &mut asked).await?;
    let registry = members::registry(&found.picked.reader).await;
    let registry = registry.map_err(|e| errors::snapshot(&e))?.ok_or_else(|| {
        let message = format!(
            "snapshot {} of __meta/0 was taken before the cluster was born",
            found.picked.record.id
        );
        Failure::new(ErrorKind::NotFound, message)
            .coded("NO_SNAPSHOT")
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
    global: &'a Global,
}

impl Finder<'_> {
    async fn group(&self, group: &GroupId, asked: &mut Asked) -> Result<GroupFinding, Failure> {
        let listing = self.store.snapshots(group).await;
        let listing = listing.map_err(|e| errors::store(&e))?;
        let wanted = asked.of(group, &listing)?;
        let choice = choose(group, &listing.snapshots, self.lives, wanted);
        let from = (&choice, self.survey.uuid.as_str());
        let picked = pick(self.store, group, from, self.demands, self.global).await?;
        let Some(picked) = picked else {
            let looked = choice.candidates.len();
            let beyond = match choice.dead.len() {
                0 => String::new(),
                dead => {
                    format!("; {dead} more are of a past that a newer life was restored away from")
                }
            };
            let message = format!(
                "{group} has no snapshot that is whole and fits, of {looked} looked at{beyond}"
            );
            let kind = if looked == 0 {
                ErrorKind::NotFound
            } else {
                ErrorKind::Damaged
            };
            return Err(Failure::new(kind, message).coded("NO_SNAPSHOT").with_hint(
                "run it again with -v to see why each was skipped; --snapshot GROUP=ID names one",
            ));
        };
        Ok(GroupFinding {
            picked,
            listing,
            choice,
        })
    }
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
                    return Err(Failure::usage(format!(
                        "several snapshots are named for {group}"
                    )));
                }
                wanted = Wanted::Named(named.id);
            }
        }
        if let Some((index, used)) = self.indexes.get_mut(group) {
            *used = true;
            if wanted != Wanted::Newest {
                return Err(Failure::usage(format!(
                    "{group} has both a snapshot and an index"
                )));
            }
            wanted = Wanted::UpTo(*index);
        }
        Ok(wanted)
    }

    fn all_used(&self) -> Result<(), Failure> {
        if let Some((named, _)) = self.snapshots.iter().find(|(_, used)| !used) {
            let message = format!("no group of the cluster has a snapshot {}", named.id);
            return Err(Failure::new(ErrorKind::NotFound, message)
                .coded("NO_SNAPSHOT")
                .with_hint("`drtool snapshot list` shows what there is"));
        }
        if let Some((group, _)) = self.indexes.iter().find(|(_, (_, used))| !used) {
            return Err(Failure::usage(format!("the cluster has no group {group}")));
        }
        Ok(())
    }
}

async fn make(
    store: &StoreReader,
    findings: &Findings,
    (given, which): (&[Given], &WhichArgs),
    operator: String,
) -> Result<RestorePlan, Failure> {
    let Findings {
        survey,
        registry,
        groups,
    } = findings;
    let now = Timestamp::now();
    let (term, highest) = floor(findings);
    let (members, next_node_id) = members::members(given, registry, highest)?;
    let cluster = ClusterId::new(survey.uuid.clone(), survey.highest + 1);
    let accounts: Vec<GroupAccount> = groups.values().map(|found| account(found, now)).collect();
    let loss = loss(groups, which);
    let times = accounts.iter().map(|a| a.age_seconds);
    let oldest = times.clone().max().unwrap_or(0);
    let skew_seconds = oldest - times.min().unwrap_or(0);
    let memberships: Vec<Membership> = groups
        .values()
        .map(|found| found.picked.reader.manifest().membership())
        .collect();
    let addresses = members::addresses(registry, memberships.iter(), &members);
    let probes = alive::probe(&addresses).await;
    let plan_id = uuid::Uuid::new_v4().to_string();
    let order = RestoreOrder {
        version: RestoreOrder::VERSION,
        plan_id: plan_id.clone(),
        shards: registry.cluster.shards,
        term,
        groups: groups.values().map(|f| f.picked.record.clone()).collect(),
        members,
        next_node_id,
        operator,
        summary: summary(&accounts, &loss),
    };
    order.check(&cluster).map_err(|e| {
        Failure::new(
            ErrorKind::Damaged,
            format!("no order can be made of this: {e}"),
        )
        .coded("NO_SNAPSHOT")
    })?;
    Ok(RestorePlan {
        version: VERSION,
        plan_id,
        digest: String::new(),
        created_at: now,
        store: store.url().to_owned(),
        cluster,
        lives: survey.objects.iter().map(LifeSeen::of).collect(),
        notes: notes(findings, &order, &probes, skew_seconds),
        groups: accounts,
        skew_seconds,
        loss,
        probes,
        order,
    })
}

/// The term of the new life, and the highest node id that anything in the store speaks of.
fn floor(findings: &Findings) -> (u64, u64) {
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

fn account(found: &GroupFinding, now: Timestamp) -> GroupAccount {
    let (picked, manifest) = (&found.picked, found.picked.reader.manifest());
    // The entries' own times: when the snapshot was built says less.
    let last_us = match manifest.last_time_us {
        0 => manifest.created_us,
        last_us => last_us,
    };
    let last_entry_at = Timestamp::from_microsecond(last_us).unwrap_or_default();
    let age_us = now.as_microsecond().saturating_sub(last_us);
    let newest = found.listing.snapshots.iter().map(|l| l.id).max();
    GroupAccount {
        group: picked.record.group.to_string(),
        snapshot_id: picked.record.id.to_string(),
        incarnation: picked.record.incarnation,
        index: picked.record.position.index,
        term: picked.record.position.term,
        last_entry_at,
        age_seconds: age_us / 1_000_000,
        records: picked.record.records,
        bytes: picked.record.raw_bytes,
        state_hash: picked.record.state_digest().to_string(),
        checked: if picked.data_read { "data" } else { "manifest" }.to_owned(),
        skipped: picked.skipped.clone(),
        newest_listed: newest.map_or_else(String::new, |id| id.to_string()),
    }
}

/// What is lost, as far as anybody can know it (I15).
fn loss(groups: &BTreeMap<GroupId, GroupFinding>, which: &WhichArgs) -> Vec<String> {
    let mut said = Vec::new();
    for (group, found) in groups {
        let record = &found.picked.record;
        let last_us = found.picked.reader.manifest().last_time_us;
        let last = Timestamp::from_microsecond(last_us).unwrap_or_default();
        let index = record.position.index;
        said.push(format!(
            "{group}: everything committed after index {index} ({last:.3})"
        ));
        if let Some(beyond) = found.picked.skipped.iter().map(|s| s.index).max()
            && beyond > index
        {
            said.push(format!(
                "{group}: of that, {} entries are known to have been there: a snapshot at index {beyond} cannot be used",
                beyond - index
            ));
        }
        let newer = |l: &&confman_snapshot::repository::Listed| {
            l.id.incarnation >= record.incarnation && l.id.index > index
        };
        let passed = found.listing.snapshots.iter().filter(newer).count();
        let asked = which.at.is_some() || !which.snapshots.is_empty() || !which.indexes.is_empty();
        let passed = passed.saturating_sub(found.picked.skipped.len());
        if asked && passed > 0 {
            said.push(format!(
                "{group}: {passed} newer snapshots are passed over, as asked for"
            ));
        }
    }
    said.push(
        "What came after the snapshots cannot be known or counted: the log between snapshots is not archived."
            .to_owned(),
    );
    said
}

fn notes(
    findings: &Findings,
    order: &RestoreOrder,
    probes: &[Probed],
    skew_seconds: i64,
) -> Vec<String> {
    let mut notes = Vec::new();
    if findings.groups.len() > 2 {
        notes.push(format!(
            "Each group is restored to its own newest point; they are {} apart. No value spans two groups.",
            span(skew_seconds)
        ));
    }
    if !findings.survey.spent {
        notes.push(format!(
            "Incarnation {} was ordered and never reported as begun: this plan takes its place, and what its nodes have restored is set aside.",
            findings.survey.newest()
        ));
    }
    for (group, found) in &findings.groups {
        if !found.choice.dead.is_empty() {
            notes.push(format!(
                "{group}: {} snapshots are of a past that a newer life was restored away from; --snapshot names one all the same.",
                found.choice.dead.len()
            ));
        }
        if !found.picked.data_read {
            notes.push(format!(
                "{group}: the data of its snapshot was not read; a node that finds it damaged waits for another plan."
            ));
        }
    }
    let living: BTreeSet<&str> = order.members.iter().map(|m| m.name.as_str()).collect();
    for node in findings.registry.living() {
        if !living.contains(node.name.as_str()) {
            notes.push(format!(
                "{} is no member of the new life, and its id {} is retired.",
                node.name, node.id
            ));
        }
    }
    for probe in probes.iter().filter(|p| p.found == Found::Mute) {
        notes.push(format!(
            "{} ({}): {}. It may be a node that is paused: make sure that it is gone.",
            probe.name, probe.api_url, probe.detail
        ));
    }
    notes
}

/// The account for the audit history: JSON, and small enough for it.
fn summary(accounts: &[GroupAccount], loss: &[String]) -> String {
    let groups: BTreeMap<&str, serde_json::Value> = accounts
        .iter()
        .map(|a| {
            let at = serde_json::json!({ "index": a.index, "at": a.last_entry_at, "snapshotId": a.snapshot_id });
            (a.group.as_str(), at)
        })
        .collect();
    let full = serde_json::json!({ "restoredTo": groups, "lost": loss }).to_string();
    if full.len() <= SUMMARY_BYTES_MAX {
        return full;
    }
    serde_json::json!({
        "groups": accounts.len(),
        "lost": "everything after the snapshots that the restore order names",
    })
    .to_string()
}

/// A restore beside a node that lives would be a second life.
pub(super) fn refuse_alive(probes: &[Probed]) -> Result<(), Failure> {
    let alive: Vec<String> = probes
        .iter()
        .filter(|p| p.found == Found::Alive)
        .map(|p| format!("{} at {}", p.detail, p.api_url))
        .collect();
    if alive.is_empty() {
        return Ok(());
    }
    let message = format!("the cluster is not gone: {}", alive.join("; "));
    Err(Failure::new(ErrorKind::Refused, message)
        .coded("CLUSTER_ALIVE")
        .with_hint("with a quorum nothing needs a restore; with less, start with `drtool recover collect`; stop a node whose data is to be given up"))
}

/// Who does this, for the audit history.
pub(super) fn operator(given: Option<&str>) -> String {
    let named = given.map(str::to_owned);
    let user = || {
        ["SUDO_USER", "USER", "LOGNAME"]
            .iter()
            .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()))
    };
    let name = named.or_else(user).unwrap_or_else(|| "unknown".to_owned());
    name.chars().take(200).collect()
}
