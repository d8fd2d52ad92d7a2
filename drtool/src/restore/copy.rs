//! An inspection copy: what the store holds, in one data directory, under the name of another cluster.
//!
//! Promises: the copy has a uuid of its own and one node, so that neither it nor a real node can take it for the cluster that
//! it was made from; every byte was proven on the way, and the state hashes are those of the snapshots (I11); a snapshot that
//! is no good is passed over for the next older one and what that costs is said, unless it was named (I9, I15).

use std::time::{Duration, Instant};

use confman_bootstrap::{Limits, Ordered, RestoreError};
use confman_cli::failure::Failure;
use confman_snapshot::model::ClusterId;
use confman_snapshot::repository::{OrderMember, RestoreOrder};
use confman_snapshot::{GroupId, Repository};
use confman_store::records::IncarnationKind;
use jiff::Timestamp;

use super::find::{Findings, Search, WhichArgs, find, floor};
use super::make::{account, loss};
use super::members::first_id;
use super::place::{Place, restore_failure, restorer};
use super::plan::GroupAccount;
use super::survey::Skipped;
use crate::context::Global;
use crate::store::reader::StoreReader;

/// As many snapshots of one group are passed over before it is given up.
const PASSED_OVER_MAX: usize = 16;

/// What is to be copied, and for whom.
pub(crate) struct Wanted<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) which: &'a WhichArgs,
    /// The name and the addresses of its one node; addresses may be empty, the node says its own when it starts.
    pub(crate) name: &'a str,
    pub(crate) api_url: &'a str,
    pub(crate) peer_addr: &'a str,
    /// For its audit history.
    pub(crate) operator: String,
    pub(crate) limits: Limits,
}

/// What was copied.
#[derive(Debug)]
pub(crate) struct Copied {
    /// The cluster that it is now.
    pub(crate) life: ClusterId,
    /// The cluster that it was made from, and its newest life in the store.
    pub(crate) of: ClusterId,
    /// The id of its node.
    pub(crate) node_id: u64,
    /// What each group was restored to.
    pub(crate) groups: Vec<GroupAccount>,
    /// What is not in it, in sentences.
    pub(crate) loss: Vec<String>,
    /// Bytes read from the store.
    pub(crate) read_bytes: u64,
    /// Time to look for snapshots.
    pub(crate) select: Duration,
    /// Time to fetch, prove and install them.
    pub(crate) restore: Duration,
}

/// Fills the directory. On an error it is as the caller left it, or holds what [`Place::abandon`] removes.
pub(crate) async fn fill(
    place: Place,
    wanted: &Wanted<'_>,
    global: &Global,
) -> Result<Copied, Failure> {
    let filled = try_fill(&place, wanted, global);
    match global
        .during("fetch, prove and install the snapshots", filled)
        .await
    {
        Ok((copied, order)) => {
            let member = order.members.first().ok_or_else(no_member)?;
            let ordered = Ordered {
                life: &copied.life,
                kind: IncarnationKind::Copy,
                order: &order,
            };
            place.finish(&ordered, member, Timestamp::now().as_microsecond())?;
            Ok(copied)
        }
        Err(failure) => {
            // What failed first is what is told; a directory that cannot be cleared stays closed.
            if let Err(second) = place.abandon() {
                global.note(format!("clear the directory: {second}"));
            }
            Err(failure)
        }
    }
}

fn no_member() -> Failure {
    crate::codes::refuse(
        "BUG",
        confman_client::ErrorKind::Bug,
        "a copy without a node",
    )
}

async fn try_fill(
    place: &Place,
    wanted: &Wanted<'_>,
    global: &Global,
) -> Result<(Copied, RestoreOrder), Failure> {
    let store = StoreReader::new(wanted.repository.clone());
    let uuid = uuid::Uuid::new_v4().to_string();
    let mut bad: Vec<(GroupId, Skipped)> = Vec::new();
    let (mut select, mut restore) = (Duration::ZERO, Duration::ZERO);
    // What is chosen first decides it: the groups that are done keep it when another group is chosen anew.
    let mut candidacy = None;
    loop {
        let began = Instant::now();
        let search = Search {
            which: wanted.which,
            data: false,
            bad: &bad,
        };
        let findings = find(&store, search, global).await?;
        select += began.elapsed();
        let (term, node_id) = *candidacy.get_or_insert_with(|| {
            let (term, highest) = floor(&findings);
            (term, first_id(highest))
        });
        let life = ClusterId::new(uuid.clone(), findings.survey.highest + 1);
        let groups = accounts(&findings);
        let loss = loss(&findings.groups, wanted.which);
        let order = order(wanted, &findings, &groups, (term, node_id));
        let ordered = Ordered {
            life: &life,
            kind: IncarnationKind::Copy,
            order: &order,
        };
        let restorer = restorer(wanted.repository, &ordered, wanted.limits.clone());
        let began = Instant::now();
        let restored = place.restore(&restorer, &ordered, node_id).await;
        restore += began.elapsed();
        match restored {
            Ok(reports) => {
                let copied = Copied {
                    of: ClusterId::new(findings.survey.uuid.clone(), findings.survey.newest()),
                    life: life.clone(),
                    node_id,
                    groups,
                    loss,
                    read_bytes: reports.iter().map(|report| report.read_bytes).sum(),
                    select,
                    restore,
                };
                return Ok((copied, order));
            }
            Err(RestoreError::NotWhole {
                group,
                snapshot,
                why,
            }) if bad.iter().filter(|(of, _)| *of == group).count() < PASSED_OVER_MAX => {
                global.note(format!("{group}: skip {snapshot}: {why}"));
                bad.push((group.clone(), skipped(&findings, &group, snapshot, why)));
            }
            Err(error) => return Err(restore_failure(&error)),
        }
    }
}

fn skipped(findings: &Findings, group: &GroupId, snapshot_id: String, why: String) -> Skipped {
    let found = findings.groups.get(group);
    Skipped {
        snapshot_id,
        index: found.map_or(0, |found| found.picked.record.position.index),
        why,
    }
}

/// What each group is restored to. All of it is read and proven, or it is not restored.
fn accounts(findings: &Findings) -> Vec<GroupAccount> {
    let now = Timestamp::now();
    let account = |found| GroupAccount {
        checked: "data".to_owned(),
        ..account(found, now)
    };
    findings.groups.values().map(account).collect()
}

/// An order for one node, which lies in no store.
fn order(
    wanted: &Wanted<'_>,
    findings: &Findings,
    groups: &[GroupAccount],
    (term, node_id): (u64, u64),
) -> RestoreOrder {
    let copied: Vec<_> = groups
        .iter()
        .take(64)
        .map(|g| serde_json::json!({ "group": g.group, "index": g.index, "snapshotId": g.snapshot_id }))
        .collect();
    let summary = serde_json::json!({
        "copyOf": findings.survey.uuid, "incarnation": findings.survey.newest(), "groups": copied,
    });
    let members = vec![OrderMember {
        id: node_id,
        name: wanted.name.to_owned(),
        api_url: wanted.api_url.to_owned(),
        peer_addr: wanted.peer_addr.to_owned(),
        learner: false,
    }];
    RestoreOrder {
        version: RestoreOrder::version_for(&members),
        plan_id: uuid::Uuid::new_v4().to_string(),
        shards: findings.registry.cluster.shards,
        term,
        groups: findings
            .groups
            .values()
            .map(|found| found.picked.record.clone())
            .collect(),
        members,
        next_node_id: node_id + 1,
        operator: wanted.operator.clone(),
        summary: short(summary),
    }
}

/// As much as an audit event takes.
fn short(summary: serde_json::Value) -> String {
    let text = summary.to_string();
    if text.len() <= confman_store::records::AUDIT_VALUE_MAX {
        return text;
    }
    serde_json::json!({ "copyOf": summary["copyOf"], "incarnation": summary["incarnation"] })
        .to_string()
}
