//! `recover verify`: whether the cluster that lives is the one that the plan began.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use confman_cli::connect::TargetArgs;
use confman_cli::failure::Failure;
use confman_cli::output;
use confman_client::wire::{AuditEvent, MemberRole};
use confman_client::{AuditFilter, Client, ClientError, ErrorKind, Page, ReadMode};
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::plan::Plan;
use super::store_side;
use crate::codes;
use crate::context::Global;
use crate::finding::{Finding, Severity};
use crate::live::report::{Report, Verdict};
use crate::live::status;
use crate::store::StoreArgs;

/// The action of the audit event of a recovery.
const ACTION: &str = "cluster.recovered";
/// Pages of the audit history that are looked through, newest first.
const PAGES_MAX: usize = 50;
const PAGE: u32 = 1_000;

/// Check the living cluster against the plan that began it; exit code 0 when all is as planned, 1 when not
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// What `recover plan` wrote
    #[arg(long, value_name = "FILE", default_value = "plan.json")]
    plan: PathBuf,
    /// Ask no store, though one is named in the environment
    #[arg(long, conflicts_with = "store")]
    no_store: bool,
    /// Wait until all is as planned, for at most so many seconds [default: 60]
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "60",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    wait: Option<u64>,
    #[command(flatten)]
    to: TargetArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// What was found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verified<'a> {
    plan_id: &'a str,
    incarnation: u64,
    /// Nothing is wrong.
    ok: bool,
    findings: Vec<Finding>,
    /// What the audit history says was lost.
    recorded: Option<Value>,
    /// Each member of `__meta/0`.
    members: Vec<Value>,
}

/// How often a life that is not as planned yet is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(crate) async fn run(args: &VerifyArgs, global: &Global) -> Result<ExitCode, Failure> {
    let plan = Plan::read(&args.plan)?;
    let client = args.to.client(global.verbose, None)?;
    let deadline = Instant::now() + Duration::from_secs(args.wait.unwrap_or(0));
    let mut said = None;
    let bar = global.waiting("nodes, history and store are compared with the plan");
    let verified = loop {
        let looked = look(args, &client, &plan, global).await;
        let waits_for = match &looked {
            Ok(verified) => {
                let wrong = |f: &&Finding| f.severity == Severity::Error;
                verified.findings.iter().find(wrong).map(|f| f.what.clone())
            }
            Err(failure) => Some(failure.to_string()),
        };
        if waits_for.is_none() || Instant::now() + LOOK_AGAIN > deadline {
            break looked?;
        }
        if waits_for != said {
            if let Some(what) = &waits_for {
                global.note(format!("not as planned yet: {what}"));
                let line = format!("not as planned yet: {what}");
                bar.set_message(confman_cli::escape::text(&line).into_owned());
            }
            said = waits_for;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    };
    bar.finish_and_clear();
    show(&verified, global)?;
    Ok(ExitCode::from(u8::from(!verified.ok)))
}

/// What the nodes, the audit history and the store say now.
async fn look<'a>(
    args: &VerifyArgs,
    client: &Client,
    plan: &'a Plan,
    global: &Global,
) -> Result<Verified<'a>, Failure> {
    let report = status::look(client).await?;
    if report.nodes.iter().all(|node| node.status.is_none()) {
        return Err(codes::refuse("RECOVER_UNVERIFIED", ErrorKind::Unreachable, "no node answers")
            .with_hint("start the survivor with its usual settings; its log, and /health/ready, say what it waits for"));
    }
    let mut findings = judge(&report, plan);
    let history = match audit_events(client, plan).await {
        Ok(history) => history,
        Err(error) => {
            findings.push(
                finding(
                    Severity::Error,
                    "the audit history",
                    format!("it cannot be read: {error}"),
                )
                .with_hint("the new life may not have begun: see /health/ready of the survivor"),
            );
            History::default()
        }
    };
    findings.extend(history.missing(plan));
    let named = !args.no_store && args.store.is_named(global);
    let door = store_side::Door::new(named.then_some(&args.store), global);
    if let Some(false) = door.is_claimed(plan).await? {
        findings.push(finding(
            Severity::Warning,
            "the store",
            format!(
                "incarnation {} is not claimed there: the leader does so with the next snapshot",
                plan.new_incarnation
            ),
        ));
    }
    findings.sort_by_key(|f| std::cmp::Reverse(f.severity));
    let recorded = history
        .found
        .iter()
        .find_map(|event| serde_json::from_str(event.new_value.as_ref()?.get()).ok());
    Ok(Verified {
        plan_id: &plan.plan_id,
        incarnation: plan.new_incarnation,
        ok: findings.iter().all(|f| f.severity != Severity::Error),
        members: members(&report),
        findings,
        recorded,
    })
}

fn finding(severity: Severity, view: &str, what: String) -> Finding {
    Finding::new(severity, "RECOVER_UNVERIFIED", view, what)
}

/// What the nodes say, against the plan. Pure.
fn judge(report: &Report, plan: &Plan) -> Vec<Finding> {
    let mut findings = Vec::new();
    if report.verdict == Verdict::NoQuorum {
        findings.push(
            finding(
                Severity::Error,
                "the cluster",
                "a group takes no writes".to_owned(),
            )
            .with_hint("`drtool status` says which, and why"),
        );
    }
    let old_ids: BTreeSet<u64> = plan
        .others
        .iter()
        .map(|o| o.id)
        .chain(plan.lost.iter().map(|l| l.id))
        .chain([plan.survivor.old_id])
        .collect();
    for account in &report.nodes {
        let Some(status) = &account.status else {
            continue;
        };
        let view = format!("node {}", status.node.name);
        if status.cluster_uuid != plan.cluster.uuid || status.incarnation != plan.new_incarnation {
            findings.push(
                finding(
                    Severity::Error,
                    &view,
                    format!(
                        "it is of cluster {} incarnation {}, not of {} incarnation {}",
                        status.cluster_uuid,
                        status.incarnation,
                        plan.cluster.uuid,
                        plan.new_incarnation
                    ),
                )
                .with_hint("its log, and /health/ready, say how it rejoins"),
            );
            continue;
        }
        for group in &status.groups {
            let voters: BTreeSet<u64> = group
                .members
                .iter()
                .filter(|m| m.role == MemberRole::Voter)
                .map(|m| m.id)
                .collect();
            if voters.is_empty() {
                findings.push(finding(
                    Severity::Error,
                    &view,
                    format!("{} has no voters", group.group),
                ));
            }
            for member in group.members.iter().filter(|m| old_ids.contains(&m.id)) {
                findings.push(finding(
                    Severity::Error,
                    &view,
                    format!(
                        "{}: {} is a member under its old id {}",
                        group.group, member.name, member.id
                    ),
                ));
            }
        }
    }
    for group in &report.groups {
        if group.agreement.hashes.len() > 1 {
            findings.push(
                finding(
                    Severity::Error,
                    &format!("{} at index {}", group.group, group.agreement.index),
                    "the replicas have different states".to_owned(),
                )
                .with_hint("`drtool status` names them"),
            );
        }
    }
    let there: BTreeSet<String> = members(report)
        .iter()
        .filter_map(|m| Some(m["name"].as_str()?.to_owned()))
        .collect();
    if !there.is_empty() && !there.contains(&plan.survivor.info.name) {
        findings.push(finding(
            Severity::Warning,
            "the cluster",
            format!("{} is no member any more", plan.survivor.info.name),
        ));
    }
    for expected in &plan.expected {
        if !there.contains(&expected.info.name) {
            findings.push(
                finding(
                    Severity::Info,
                    "the cluster",
                    format!("{} has not joined yet", expected.info.name),
                )
                .with_hint("start it with an empty data directory and its usual settings"),
            );
        }
    }
    findings
}

/// The members of `__meta/0`, by the word of the first node that leads or follows there.
fn members(report: &Report) -> Vec<Value> {
    let meta = report
        .nodes
        .iter()
        .filter_map(|account| account.status.as_ref())
        .flat_map(|status| &status.groups)
        .find(|group| group.group == "__meta/0" && group.leader.is_some());
    meta.into_iter()
        .flat_map(|group| &group.members)
        .map(|m| serde_json::json!({ "id": m.id, "name": m.name, "role": m.role }))
        .collect()
}

/// What the audit history has of the recovery.
#[derive(Debug, Default)]
struct History {
    /// One event of each group.
    found: Vec<AuditEvent>,
    /// How many events were looked through, where there are older ones.
    stopped_after: Option<usize>,
}

impl History {
    /// Groups whose history does not tell of the recovery, as far as it was read.
    fn missing(&self, plan: &Plan) -> Vec<Finding> {
        let told: BTreeSet<&str> = self.found.iter().map(|e| e.group.as_str()).collect();
        let groups = plan.groups.iter().map(|g| g.group.to_string());
        groups
            .filter(|group| !told.contains(group.as_str()))
            .map(|group| {
                let view = format!("the audit history of {group}");
                let event = format!("{ACTION} event of plan {}", plan.plan_id);
                match self.stopped_after {
                    None => finding(Severity::Error, &view, format!("it has no {event}")),
                    // A life that has written so much since has begun long ago.
                    Some(looked) => finding(
                        Severity::Info,
                        &view,
                        format!("the {event} was not found among the newest {looked} events"),
                    )
                    .with_hint("`confman audit` reads further back"),
                }
            })
            .collect()
    }
}

async fn audit_events(client: &Client, plan: &Plan) -> Result<History, ClientError> {
    let mut history = History::default();
    let mut cursor = None;
    let mut looked = 0;
    for _ in 0..PAGES_MAX {
        let page = Page {
            limit: Some(PAGE),
            cursor: cursor.take(),
        };
        let answered = client
            .audit(&AuditFilter::default(), &page, ReadMode::Eventual)
            .await?;
        let is_ours = |event: &AuditEvent| {
            event.action == ACTION && event.key.as_deref() == Some(plan.plan_id.as_str())
        };
        looked += answered.value.items.len();
        history
            .found
            .extend(answered.value.items.into_iter().filter(is_ours));
        cursor = answered.value.next_cursor;
        if history.found.len() >= plan.groups.len() || cursor.is_none() {
            return Ok(history);
        }
    }
    history.stopped_after = Some(looked);
    Ok(history)
}

fn show(verified: &Verified<'_>, global: &Global) -> Result<(), Failure> {
    if global.json {
        return output::json(verified);
    }
    for finding in &verified.findings {
        output::say(confman_cli::escape::lines(&finding.to_string()));
    }
    let names: Vec<String> = verified
        .members
        .iter()
        .map(|m| {
            format!(
                "{} (id {})",
                m["name"].as_str().unwrap_or_default(),
                m["id"]
            )
        })
        .collect();
    output::line(&format!("members: {}", names.join(", ")))?;
    if verified.ok {
        output::line(&format!(
            "incarnation {} lives as plan {} says",
            verified.incarnation, verified.plan_id
        ))
    } else {
        output::line(&format!("this is not what plan {} says", verified.plan_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recover::tests::kit;

    #[test]
    fn an_event_that_is_older_than_what_was_read_is_not_called_missing() {
        let seen = kit::collection(vec![kit::node(2, 3, kit::at(2, 9), kit::at(2, 9))]);
        let plan = kit::planned(&seen, &kit::wishes(&["node1", "node3"]));
        let read = |stopped_after| History {
            found: Vec::new(),
            stopped_after,
        };
        let whole = read(None).missing(&plan);
        assert_eq!(whole.len(), 2);
        assert!(whole.iter().all(|f| f.severity == Severity::Error));
        let part = read(Some(50_000)).missing(&plan);
        assert!(
            part.iter().all(|f| f.severity == Severity::Info),
            "{part:?}"
        );
        assert!(part[0].what.contains("newest 50000 events"), "{}", part[0]);
    }
}
