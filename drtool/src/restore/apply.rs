//! `drtool restore apply`: the plan becomes the order that empty nodes carry out.
//!
//! One object appears, at once or not at all, and is a function of the plan: killed anywhere and run again, this finds its
//! own object and says so. Everything that can refuse does so before the operator is asked.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use confman_cli::failure::Failure;
use confman_cli::output;
use confman_client::ErrorKind;
use confman_snapshot::repository::Begun;
use confman_snapshot::{GroupId, Repository, SnapshotId};

use super::alive::AskArgs;
use super::look::Look;
use super::plan::{LifeSeen, RestorePlan};
use super::survey::{Survey, prove, survey};
use crate::codes;
use crate::consent::{self, Consent};
use crate::context::Global;
use crate::look::LastLook;
use crate::step::step;
use crate::store::reader::StoreReader;
use crate::store::{StoreArgs, errors};

/// Write the restore order of a plan into the store
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// The plan that `drtool restore plan` wrote
    plan: PathBuf,
    #[command(flatten)]
    ask: AskArgs,
    #[command(flatten)]
    store: StoreArgs,
    /// Read every byte of the snapshots again before anything is written
    #[arg(long)]
    verify_data: bool,
    /// Agree to the plan without being asked
    #[arg(short, long)]
    yes: bool,
}

/// How far the plan has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing of it is in the store.
    Fresh,
    /// Its order is there.
    Ordered,
    /// Its order has been carried out.
    Spent,
}

pub(crate) async fn run(args: &ApplyArgs, global: &Global) -> Result<ExitCode, Failure> {
    let plan = RestorePlan::read(&args.plan)?;
    let store = args.store.reader(global).await?;
    let mut standing = judge(&store, &plan).await?;
    if standing == Standing::Fresh {
        let mut look = Look::new(&plan, &args.ask, LastLook::default(), global);
        look.refuse().await?;
        check_snapshots(&store, &plan, args.verify_data, global).await?;
        step("restore::proven");
        let consent = consent::ask(consent::show(&plan)?, args.yes, plan.word())?;
        let repository = args.store.open(global).await?;
        standing = judge_again(&mut look, &store, &plan).await?;
        if standing == Standing::Fresh {
            order(&consent, &repository).await?;
        }
    }
    tell(&plan, standing, global)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether the store is still what the plan was made from.
async fn judge(store: &StoreReader, plan: &RestorePlan) -> Result<Standing, Failure> {
    let now = survey(store, Some(&plan.cluster.uuid)).await?;
    let ours = |life: &&LifeSeen| life.incarnation == plan.cluster.incarnation;
    let lives: Vec<LifeSeen> = now.objects.iter().map(LifeSeen::of).collect();
    if let Some(there) = lives.iter().find(ours) {
        if there.nonce != plan.digest {
            return Err(stale(format!(
                "incarnation {} was begun by another plan",
                plan.cluster.incarnation
            )));
        }
        refuse_newer(&now, plan)?;
        let done = store.done(&plan.cluster).await;
        return match done.map_err(|e| errors::store(&e))? {
            Some(_) => Ok(Standing::Spent),
            None => Ok(Standing::Ordered),
        };
    }
    if lives != plan.lives || now.highest + 1 != plan.cluster.incarnation {
        return Err(stale(format!(
            "the store has come to incarnation {}, the plan begins {}",
            now.highest, plan.cluster.incarnation
        )));
    }
    for account in &plan.groups {
        let group: GroupId = account.group.parse().map_err(bad_name)?;
        let listing = store.snapshots(&group).await;
        let listing = listing.map_err(|e| errors::store(&e))?;
        let newest = listing.snapshots.iter().map(|l| l.id).max();
        let known: Option<SnapshotId> = account.newest_listed.parse().ok();
        if newest > known {
            let newest = newest.map_or_else(String::new, |id| id.to_string());
            return Err(stale(format!(
                "{group} has snapshot {newest}, which the plan does not know: somebody has written since"
            )));
        }
    }
    Ok(Standing::Fresh)
}

/// Right before the order. The cluster may have come back, or somebody else have acted, while the snapshots were read or somebody
/// read the plan.
pub(super) async fn judge_again(
    look: &mut Look<'_>,
    store: &StoreReader,
    plan: &RestorePlan,
) -> Result<Standing, Failure> {
    if look.is_good() {
        return Ok(Standing::Fresh);
    }
    look.refuse().await?;
    judge(store, plan).await
}

fn refuse_newer(now: &Survey, plan: &RestorePlan) -> Result<(), Failure> {
    if now.highest > plan.cluster.incarnation {
        return Err(stale(format!(
            "incarnation {} has taken the place of the plan's {}",
            now.highest, plan.cluster.incarnation
        )));
    }
    Ok(())
}

fn bad_name(error: confman_snapshot::model::ModelError) -> Failure {
    codes::usage("PLAN_INVALID", error.to_string())
}

fn stale(why: String) -> Failure {
    codes::refuse(
        "PLAN_STALE",
        ErrorKind::Refused,
        format!("the plan is stale: {why}"),
    )
    .with_hint("find out who did that, then run `drtool restore plan` again")
}

/// The snapshots are still there and still those of the plan.
async fn check_snapshots(
    store: &StoreReader,
    plan: &RestorePlan,
    data: bool,
    global: &Global,
) -> Result<(), Failure> {
    for record in &plan.order.groups {
        let checked = async {
            let reader = store.open(&record.group, &record.id).await?;
            reader.expect(record)?;
            prove(store, &reader, data, global).await
        };
        checked.await.map_err(|error| {
            let failure = errors::snapshot(&error);
            match error.is_unreachable() {
                true => failure,
                false => failure.with_hint("make another plan: it takes the next older snapshot"),
            }
        })?;
    }
    Ok(())
}

/// Writes the order.
pub(super) async fn order(
    consent: &Consent<'_, RestorePlan>,
    repository: &Repository,
) -> Result<(), Failure> {
    let plan = consent.plan();
    step("restore::before-order");
    let begun = repository.begin_life(&plan.object()).await;
    let begun = begun.map_err(|e| errors::store(&e))?;
    step("restore::after-order");
    if let Begun::Other(other) = begun {
        return Err(taken(plan, &other.created_by));
    }
    // A store that ignores conditions may have let another order replace this one in the meantime.
    let there = repository.read_life(&plan.cluster).await;
    match there.map_err(|e| errors::store(&e))? {
        Some(there) if there.nonce == plan.digest => Ok(()),
        Some(there) => Err(taken(plan, &there.created_by)),
        None => Err(codes::refuse(
            "ORDER_VANISHED",
            ErrorKind::Unknown,
            "the order was written and is not there",
        )
        .with_hint("run the same command again")),
    }
}

fn taken(plan: &RestorePlan, by: &str) -> Failure {
    stale(format!(
        "{by} has just begun incarnation {} by another plan",
        plan.cluster.incarnation
    ))
}

fn tell(plan: &RestorePlan, standing: Standing, global: &Global) -> Result<(), Failure> {
    let members = &plan.order.members;
    if global.json {
        let document = serde_json::json!({
            "planId": plan.plan_id,
            "cluster": plan.cluster,
            "state": match standing {
                Standing::Spent => "spent",
                Standing::Fresh | Standing::Ordered => "ordered",
            },
            "already": standing != Standing::Fresh,
            "members": members,
        });
        return output::json(&document);
    }
    let names: Vec<&str> = members.iter().map(|m| m.name.as_str()).collect();
    let text = match standing {
        Standing::Spent => format!(
            "Plan {} was carried out before; nothing was done.\nAn empty node of incarnation {} now rejoins by itself.",
            plan.plan_id, plan.cluster.incarnation
        ),
        Standing::Ordered => format!(
            "The order of plan {} lies in the store already; nothing was done.\nNext: start {} with their usual settings and empty data directories.",
            plan.plan_id,
            names.join(", ")
        ),
        Standing::Fresh => format!(
            "The order lies in the store: incarnation {} begins when its members have restored themselves.\nNext: start {} with their usual settings and empty data directories. Each says in its log and at /health/ready how far it is.",
            plan.cluster.incarnation,
            names.join(", ")
        ),
    };
    output::say(confman_cli::escape::lines(&text));
    Ok(())
}
