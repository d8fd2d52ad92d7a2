//! `drtool restore plan`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use confman_cli::failure::Failure;
use confman_cli::output;
use confman_client::ErrorKind;
use confman_snapshot::GroupId;
use confman_snapshot::model::{ClusterId, Membership};
use confman_snapshot::repository::RestoreOrder;
use jiff::Timestamp;

use super::alive::{AskArgs, Found, Probed};
use super::find::{Findings, GroupFinding, Search, WhichArgs, find, floor};
use super::members::{self, Given};
use super::plan::{GroupAccount, LifeSeen, RestorePlan, VERSION, span};
use crate::codes;
use crate::context::Global;
use crate::store::StoreArgs;
use crate::store::reader::StoreReader;

/// Longest summary that fits into an audit event, in bytes.
const SUMMARY_BYTES_MAX: usize = 4000;

/// Say what would be restored, what is lost, and write the plan
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// A member of the new life; repeat it for each. It votes, unless the newest snapshot has that name as a learner [default: the
    /// members of the newest snapshot, those that are joining too]
    #[arg(long = "member", value_name = "NAME=API_URL,PEER_ADDR")]
    members: Vec<Given>,
    /// The plan's file [default: restore-plan-ID.json]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Who orders this, for the audit history [default: the user of this shell]
    #[arg(long, value_name = "NAME")]
    operator: Option<String>,
    /// Do not read the snapshots' data: believe their manifests
    #[arg(long, help_heading = "Snapshots")]
    skip_data: bool,
    #[command(flatten)]
    ask: AskArgs,
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// What a plan is made by, besides what the store says.
pub(super) struct Wishes<'a> {
    pub(super) members: &'a [Given],
    pub(super) which: &'a WhichArgs,
    pub(super) ask: &'a AskArgs,
    pub(super) global: &'a Global,
    pub(super) operator: String,
}

pub(crate) async fn run(args: &PlanArgs, global: &Global) -> Result<ExitCode, Failure> {
    let store = args.store.reader(global).await?;
    let search = Search {
        which: &args.which,
        data: !args.skip_data,
        bad: &[],
    };
    let looked = find(&store, search, global);
    let findings = global.during("the store is searched", looked).await?;
    let wishes = Wishes {
        members: &args.members,
        which: &args.which,
        ask: &args.ask,
        global,
        operator: operator(args.operator.as_deref()),
    };
    let plan = make(&store, &findings, wishes).await?;
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

pub(super) async fn make(
    store: &StoreReader,
    findings: &Findings,
    wishes: Wishes<'_>,
) -> Result<RestorePlan, Failure> {
    let Findings {
        survey,
        registry,
        groups,
    } = findings;
    let now = Timestamp::now();
    let (term, highest) = floor(findings);
    let (members, next_node_id) = members::members(wishes.members, registry, highest)?;
    let cluster = ClusterId::new(survey.uuid.clone(), survey.highest + 1);
    let accounts: Vec<GroupAccount> = groups.values().map(|found| account(found, now)).collect();
    let loss = loss(groups, wishes.which);
    let times = accounts.iter().map(|a| a.age_seconds);
    let oldest = times.clone().max().unwrap_or(0);
    let skew_seconds = oldest - times.min().unwrap_or(0);
    let memberships: Vec<Membership> = groups
        .values()
        .map(|found| found.picked.reader.manifest().membership())
        .collect();
    let addresses = members::addresses(registry, memberships.iter(), &members);
    let asked = wishes.ask.probe(addresses, &survey.uuid, wishes.global);
    let probes = asked.await?;
    let plan_id = uuid::Uuid::new_v4().to_string();
    let order = RestoreOrder {
        version: RestoreOrder::version_for(&members),
        plan_id: plan_id.clone(),
        shards: registry.cluster.shards,
        term,
        groups: groups.values().map(|f| f.picked.record.clone()).collect(),
        members,
        next_node_id,
        operator: wishes.operator,
        summary: summary(&accounts, &loss),
    };
    order.check(&cluster).map_err(|e| {
        codes::refuse(
            "NO_SNAPSHOT",
            ErrorKind::Damaged,
            format!("no order can be made of this: {e}"),
        )
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

pub(super) fn account(found: &GroupFinding, now: Timestamp) -> GroupAccount {
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
pub(super) fn loss(groups: &BTreeMap<GroupId, GroupFinding>, which: &WhichArgs) -> Vec<String> {
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
        let asked = which.is_earlier();
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
                "{group}: {} snapshots are of a past that no life goes on from; --snapshot names one all the same.",
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
    for node in findings.registry.joining() {
        if living.contains(node.name.as_str()) {
            notes.push(format!(
                "{} had not finished joining and is a member of the new life all the same: if its machine is not there yet, name the others with --member.",
                node.name
            ));
        }
    }
    for probe in probes.iter().filter(|p| p.found == Found::NotOurs) {
        notes.push(format!(
            "{} ({}) cannot be asked whether it lives ({}): --not-ours says that it is no node of this cluster.",
            probe.name, probe.api_url, probe.detail
        ));
    }
    for probe in probes.iter().filter(|p| p.found == Found::Foreign) {
        notes.push(format!(
            "Another cluster answers at {} ({}), where {} was looked for: it does not count.",
            probe.api_url, probe.detail, probe.name
        ));
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
pub(super) fn summary(accounts: &[GroupAccount], loss: &[String]) -> String {
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

/// A restore beside a node that lives would be a second life, and one that cannot be asked may live.
pub(super) fn refuse_alive(probes: &[Probed]) -> Result<(), Failure> {
    if let Some(probe) = probes.iter().find(|p| p.found == Found::Unshaken) {
        let text = format!(
            "{} at {} cannot be asked whether it lives: {}",
            probe.name, probe.api_url, probe.detail
        );
        return Err(codes::refuse("RESTORE_TLS", ErrorKind::Refused, text)
            .with_hint(probe.hint.clone().unwrap_or_default()));
    }
    let alive: Vec<String> = probes
        .iter()
        .filter(|p| p.found == Found::Alive)
        .map(|p| format!("{} at {}", p.detail, p.api_url))
        .collect();
    if alive.is_empty() {
        return Ok(());
    }
    let message = format!("the cluster is not gone: {}", alive.join("; "));
    Err(codes::refuse("CLUSTER_ALIVE", ErrorKind::Refused, message)
        .with_hint("with a quorum nothing needs a restore; with less, start with `drtool recover collect`; stop a node whose data is to be given up; if CONFMAN_ENDPOINTS names nodes of another cluster, unset it"))
}

/// Who does this, for the audit history.
pub(crate) fn operator(given: Option<&str>) -> String {
    let named = given.map(str::to_owned);
    let user = || {
        ["SUDO_USER", "USER", "LOGNAME"]
            .iter()
            .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()))
    };
    let name = named.or_else(user).unwrap_or_else(|| "unknown".to_owned());
    name.chars().take(200).collect()
}
