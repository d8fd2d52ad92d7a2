//! `confman status`: what every node says of itself and its groups, and whether all of that is well.
//!
//! Promises: whose view a line is stands in the line; a node that does not answer is shown as such; the exit code is 0
//! when nothing is wrong, 1 when something is.

mod judge;

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Args;
use confman_client::wire::{GroupStatus, ReplicaRole, RestoreSource, Status};
use confman_client::{Client, Endpoint};
use futures::future::join_all;
use serde::Serialize;

use super::connect::{ConnectArgs, OutputArgs};
use super::escape;
use super::failure::Failure;
use super::output;

/// Show every node and group; exit code 0 if all is well, 1 if not
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Also show members, restores and hashes
    #[arg(long, short)]
    long: bool,
    #[command(flatten)]
    out: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// What one node said, or why it said nothing.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeView {
    endpoint: String,
    status: Option<Status>,
    error: Option<String>,
}

/// The document of `--json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    healthy: bool,
    findings: Vec<String>,
    nodes: Vec<NodeView>,
}

pub(crate) async fn run(args: StatusArgs) -> Result<ExitCode, Failure> {
    let client = args.connect.client()?;
    let nodes = ask_all(&client).await?;
    let findings = judge::findings(&nodes);
    let report = Report {
        healthy: findings.is_empty(),
        findings,
        nodes,
    };
    if args.out.json {
        output::json(&report)?;
    } else {
        print(&report, args.long)?;
    }
    Ok(if report.healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// Asks the given endpoints, then the members that those named and that were not given.
async fn ask_all(client: &Client) -> Result<Vec<NodeView>, Failure> {
    let mut nodes = Vec::new();
    let mut asked = BTreeSet::new();
    let mut refusal = None;
    loop {
        let next: Vec<Endpoint> = client
            .known_endpoints()
            .into_iter()
            .filter(|e| asked.insert(e.clone()))
            .collect();
        if next.is_empty() {
            break;
        }
        let answers = join_all(next.iter().map(|endpoint| client.status(Some(endpoint)))).await;
        for (endpoint, answer) in next.iter().zip(answers) {
            let (status, error) = match answer {
                Ok(answered) => (Some(answered.value), None),
                Err(error) => {
                    let text = error.to_string();
                    refusal = error.problem().is_some().then_some(error).or(refusal);
                    (None, Some(text))
                }
            };
            nodes.push(NodeView {
                endpoint: endpoint.to_string(),
                status,
                error,
            });
        }
    }
    // A wrong key is the caller's to mend, and says nothing about the cluster's health.
    match refusal {
        Some(error) if nodes.iter().all(|node| node.status.is_none()) => Err(error.into()),
        _ => Ok(nodes),
    }
}

fn print(report: &Report, long: bool) -> Result<(), Failure> {
    if let Some(status) = report.nodes.iter().find_map(|node| node.status.as_ref()) {
        output::line(&format!(
            "cluster {}, incarnation {}",
            status.cluster_uuid, status.incarnation
        ))?;
    }
    let mut table = output::table([
        "NODE",
        "GROUP",
        "ROLE",
        "TERM",
        "LEADER",
        "LAST",
        "COMMITTED",
        "APPLIED",
        "PURGED",
        "LOG",
        "SNAPSHOT",
        "STATE",
    ]);
    for node in &report.nodes {
        let Some(status) = &node.status else {
            table.add_row([safe(&node.endpoint), "-".to_owned(), "no answer".to_owned()]);
            continue;
        };
        let name = format!("{} ({})", safe(&status.node.name), status.node.id);
        for group in &status.groups {
            table.add_row(row(&name, group));
        }
    }
    output::print_table(&table)?;
    if long {
        print_long(report)?;
    }
    if report.healthy {
        return output::line("healthy");
    }
    output::line("not healthy:")?;
    report
        .findings
        .iter()
        .try_for_each(|finding| output::line(&format!("  {finding}")))
}

fn row(node: &str, group: &GroupStatus) -> [String; 12] {
    let snapshot = group.snapshot.as_ref().map(|s| {
        let unverified = if s.verified { "" } else { " unverified" };
        format!("{}{unverified}", s.index)
    });
    [
        node.to_owned(),
        safe(&group.group),
        role(group.role).to_owned(),
        group.term.to_string(),
        group
            .leader
            .as_ref()
            .map_or_else(|| "none".to_owned(), |leader| safe(&leader.name)),
        group.last_index.to_string(),
        group.committed_index.to_string(),
        group.applied_index.to_string(),
        group.purged_index.to_string(),
        format!("{} / {}", group.log_entries, output::bytes(group.log_bytes)),
        snapshot.unwrap_or_else(|| "none".to_owned()),
        format!(
            "{}@{}",
            short(&group.state_hash.hash),
            group.state_hash.index
        ),
    ]
}

fn print_long(report: &Report) -> Result<(), Failure> {
    for node in &report.nodes {
        let Some(status) = &node.status else { continue };
        for group in &status.groups {
            output::line(&format!("{} {}", status.node.name, group.group))?;
            output::line(&format!(
                "  state hash {} at {}",
                group.state_hash.hash, group.state_hash.index
            ))?;
            if let Some(snapshot) = &group.snapshot {
                output::line(&format!("  snapshot {} of {}", snapshot.id, snapshot.time))?;
            }
            if let Some(restore) = &group.restore {
                let source = match restore.source {
                    RestoreSource::Store => "the store",
                    RestoreSource::Peer => "the leader",
                };
                let tail = restore.tail_entries.map_or_else(
                    || "still replaying".to_owned(),
                    |n| format!("then {n} entries"),
                );
                let id = restore.snapshot_id.as_deref().unwrap_or("none");
                output::line(&format!(
                    "  restored from {source}: snapshot {id}, {tail}, {:.1} s",
                    restore.seconds
                ))?;
            }
            for member in &group.members {
                let matched = member
                    .matched_index
                    .map_or_else(|| "-".to_owned(), |index| index.to_string());
                let role = format!("{:?}", member.role).to_lowercase();
                let (name, id, url) = (&member.name, member.id, &member.api_url);
                output::line(&format!(
                    "  member {name} ({id}) {role} {url} {} matched {matched}",
                    member.peer_addr
                ))?;
            }
        }
    }
    Ok(())
}

fn role(role: ReplicaRole) -> &'static str {
    match role {
        ReplicaRole::Leader => "leader",
        ReplicaRole::Follower => "follower",
        ReplicaRole::Candidate => "candidate",
        ReplicaRole::Learner => "learner",
    }
}

fn short(hash: &str) -> String {
    safe(&hash.chars().take(12).collect::<String>())
}

fn safe(text: &str) -> String {
    escape::text(text).into_owned()
}
