//! The phases of a drill, in the order of the bad day: select, restore, verify, boot, read.
//!
//! What is wrong with the snapshots, the copy or its node is a finding of the drill, which has a report then. What keeps the
//! drill from being carried out (no room, no store, a wrong call) is an error of the command.

use std::time::{Duration, Instant};

use confman_bootstrap::Limits;
use confman_cli::failure::Failure;
use confman_client::{Client, ErrorKind};
use confman_snapshot::{GroupId, Repository, SnapshotId};
use jiff::Timestamp;

use super::DrillArgs;
use super::compare;
use super::living::{self, Living};
use super::node::{NAME, Node, Program, Site};
use super::report::{Drill, GroupDrilled, Phases};
use crate::codes;
use crate::context::Global;
use crate::finding::{Finding, Severity};
use crate::restore::cluster_of;
use crate::restore::copy::{self, Copied, Wanted};
use crate::restore::operator;
use crate::restore::place::Place;
use crate::step::step;
use crate::store::reader::StoreReader;

/// What is to be done.
pub(super) struct Job<'a> {
    pub(super) args: &'a DrillArgs,
    pub(super) program: &'a Program,
    pub(super) repository: &'a Repository,
    /// Asks the living cluster.
    pub(super) client: &'a Client,
    pub(super) scratch: &'a std::path::Path,
    pub(super) global: &'a Global,
}

/// One group at a time, one chunk ahead: a drill is in no hurry, and the machine may have other work.
fn limits() -> Limits {
    Limits {
        prefetch: 1,
        parallel: 1,
        ..Limits::default()
    }
}

/// Carries it out. The node is put into `booted`, so that whoever called this off can end it.
///
/// # Errors
/// It could not be carried out; then there is nothing to report.
pub(super) async fn rehearse(job: &Job<'_>, booted: &mut Option<Node>) -> Result<Drill, Failure> {
    let began = Instant::now();
    let store = StoreReader::new(job.repository.clone());
    let cluster = cluster_of(&store, &job.args.which).await?;
    let mut drill = Drill::new(
        cluster.clone(),
        job.repository.url(),
        operator(job.args.operator.as_deref()),
        job.program.version.clone(),
    );
    // As far as the cluster is now: what a disaster at this moment would cost is counted from here.
    let living = living::look(job.client, &cluster.uuid).await;
    drill.living_silent.clone_from(&living.silent);
    job.global.note("restore into the scratch directory");
    let site = Site::choose(job.scratch)?;
    let copied = match restore(job, &site).await {
        Ok(copied) => copied,
        Err(failure) => {
            let Some(finding) = of_the_store(&failure) else {
                return Err(failure);
            };
            drill.findings.push(finding);
            drill.phases.total_ms = millis(began.elapsed());
            return Ok(drill.judged());
        }
    };
    step("drill::restored");
    drill.phases = Phases {
        select_ms: millis(copied.select),
        restore_ms: millis(copied.restore),
        ..Phases::default()
    };
    drill.read_bytes = copied.read_bytes;
    account(job, &mut drill, &copied, &living).await;
    let on_disk = verify(&mut drill, &site, job.global).await?;
    step("drill::verified");
    boot(job, &mut drill, &site, booted).await?;
    step("drill::booted");
    if let Some(node) = booted.as_ref().filter(|_| drill.phases.boot_ms.is_some()) {
        read(job, &mut drill, node, (&store, &copied, &on_disk)).await?;
    }
    step("drill::read");
    drill.phases.total_ms = millis(began.elapsed());
    Ok(drill.judged())
}

async fn restore(job: &Job<'_>, site: &Site) -> Result<Copied, Failure> {
    let command = "a drill was being made here; the directory can be removed";
    let place = Place::take(&site.data(), command)?;
    let wanted = Wanted {
        repository: job.repository,
        which: &job.args.which,
        name: NAME,
        api_url: &site.api_url(),
        peer_addr: &site.peer_addr(),
        operator: operator(job.args.operator.as_deref()),
        limits: limits(),
    };
    copy::fill(place, &wanted, job.global).await
}

/// A failure that says something about the snapshots, and so belongs into a report; none for any other.
fn of_the_store(failure: &Failure) -> Option<Finding> {
    let Failure::Told {
        kind,
        message,
        hint,
        code,
        ..
    } = failure
    else {
        return None;
    };
    let code = code.filter(|code| *kind == ErrorKind::Damaged || *code == "NO_SNAPSHOT")?;
    let finding = Finding::new(Severity::Error, code, "the store", message.clone());
    Some(match hint {
        Some(hint) => finding.with_hint(hint.clone()),
        None => finding,
    })
}

/// What came, how old it is, and whether the living cluster knows it.
async fn account(job: &Job<'_>, drill: &mut Drill, copied: &Copied, living: &Living) {
    for group in &copied.groups {
        let hash = group.state_hash.as_str();
        let compared = living.compare(job.client, &group.group, group.index, hash);
        let live = compared.await;
        for node in &live.differs {
            drill.findings.push(Finding::new(
                Severity::Error,
                "DRILL_HASH_DIFFERS",
                format!("node {node}"),
                format!(
                    "{}: it had another state at {} than snapshot {}",
                    group.group, group.index, group.snapshot_id
                ),
            ));
        }
        for skipped in &group.skipped {
            drill.findings.push(
                Finding::new(
                    Severity::Warning,
                    "DRILL_SNAPSHOT_PASSED_OVER",
                    "the store",
                    format!(
                        "{}: snapshot {} is no good ({}); the one that was taken is {} entries older",
                        group.group,
                        skipped.snapshot_id,
                        skipped.why,
                        skipped.index.saturating_sub(group.index)
                    ),
                )
                .with_hint("keep it as evidence, and have the cluster make a new one: `drtool snapshot create`"),
            );
        }
        let committed = living.committed(&group.group);
        drill.groups.push(GroupDrilled {
            account: group.clone(),
            restored_hash: None,
            live,
            committed_index: committed,
            entries_behind: committed.map(|c| c.saturating_sub(group.index)),
        });
    }
}

/// Reads back what was written, every record of it.
async fn verify(
    drill: &mut Drill,
    site: &Site,
    global: &Global,
) -> Result<compare::OnDisk, Failure> {
    let doing = "read the restored state back";
    global.note(doing);
    let began = Instant::now();
    let data = site.data();
    let reading = tokio::task::spawn_blocking(move || compare::read_back(&data));
    let read = global.during(doing, reading).await;
    let mut read = read.map_err(|e| codes::refuse("BUG", ErrorKind::Bug, e.to_string()))??;
    drill.phases.verify_ms = Some(millis(began.elapsed()));
    drill.findings.append(&mut read.findings);
    for group in &mut drill.groups {
        let name = &group.account.group;
        group.restored_hash = read.hashes.get(name).cloned().flatten();
        if group.restored_hash.as_ref() != Some(&group.account.state_hash) {
            drill.findings.push(Finding::new(
                Severity::Error,
                "DRILL_HASH_DIFFERS",
                "the restored copy",
                format!(
                    "{name}: its records hash to {}, snapshot {} says {}",
                    group.restored_hash.as_deref().unwrap_or("nothing"),
                    group.account.snapshot_id,
                    group.account.state_hash
                ),
            ));
        }
    }
    Ok(read)
}

/// Starts the node and waits for it.
async fn boot(
    job: &Job<'_>,
    drill: &mut Drill,
    site: &Site,
    booted: &mut Option<Node>,
) -> Result<(), Failure> {
    let doing = "boot a node on it";
    job.global.note(doing);
    let began = Instant::now();
    let node = booted.insert(Node::start(job.program, site).await?);
    let ready = node.wait_ready(Duration::from_secs(job.args.within));
    let ready = job.global.during(doing, ready).await;
    match ready {
        Ok(()) => drill.phases.boot_ms = Some(millis(began.elapsed())),
        Err(why) => drill.findings.push(
            Finding::new(Severity::Error, "DRILL_NODE_FAILED", "the booted copy", why)
                .with_hint("`drtool drill --keep` leaves the copy and the node's log"),
        ),
    }
    Ok(())
}

/// Reads from the node as a client does.
async fn read(
    job: &Job<'_>,
    drill: &mut Drill,
    node: &Node,
    (store, copied, on_disk): (&StoreReader, &Copied, &compare::OnDisk),
) -> Result<(), Failure> {
    let doing = "read from the node, and compare with the snapshots";
    job.global.note(doing);
    let began = Instant::now();
    let mut first = None;
    let parsed = copied.groups.iter().map(|group| {
        let id: Option<SnapshotId> = group.snapshot_id.parse().ok();
        let group: Option<GroupId> = group.group.parse().ok();
        Some((group?, id?))
    });
    let snapshots: Vec<(GroupId, SnapshotId)> = parsed.flatten().collect();
    let sample = usize::from(job.args.sample);
    let seen = || {
        first.get_or_insert_with(|| began.elapsed());
    };
    let reading = compare::read_over(node, store, &snapshots, sample, seen);
    let (mut over, mut findings) = job.global.during(doing, reading).await?;
    let namespaces = on_disk.kinds.get("namespace").copied().unwrap_or(0);
    over.namespaces_listed = compare::count_namespaces(node, namespaces, &mut findings).await;
    drill.phases.first_read_ms = Some(millis(first.unwrap_or_else(|| began.elapsed())));
    drill.phases.read_ms = Some(millis(began.elapsed()));
    drill.entries = on_disk.kinds.get("entry").copied().unwrap_or(0);
    drill.namespaces = namespaces;
    drill.read = Some(over);
    drill.findings.append(&mut findings);
    drill.ended_at = Timestamp::now();
    Ok(())
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
