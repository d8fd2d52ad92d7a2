//! `drtool restore local`: one data directory made offline from the store, no cluster needed.
//!
//! Two kinds, which are never mistaken for each other: a copy to look at (the default), which is another cluster; and, with
//! `--begin-life`, the one node of the cluster's next life, which goes by a restore order in the store as every restore of the
//! cluster does: plan, consent, nobody alive, the next incarnation (I13). Killed anywhere and run again, both come to the same
//! end (I17).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use confman_bootstrap::{Limits, Ordered};
use confman_cli::failure::Failure;
use confman_cli::output;
use confman_client::ErrorKind;
use confman_snapshot::Repository;
use confman_snapshot::model::ClusterId;
use confman_snapshot::repository::{OrderMember, RestoreOrder};
use confman_store::records::IncarnationKind;
use jiff::Timestamp;

use super::alive::AskArgs;
use super::apply::{self, Standing};
use super::copy::{self, Copied};
use super::find::{Search, WhichArgs, find};
use super::look::Look;
use super::make::{Wishes, make, operator, refuse_alive};
use super::members::Given;
use super::place::{self, Place};
use super::plan::{GroupAccount, RestorePlan, span};
use super::survey::{Survey, survey};
use crate::codes;
use crate::consent;
use crate::context::Global;
use crate::look::LastLook;
use crate::step::step;
use crate::store::reader::StoreReader;
use crate::store::{StoreArgs, errors};

/// Make one data directory from the store, offline: a copy to look at, or with --begin-life the cluster's next life
#[derive(Debug, Args)]
pub(crate) struct LocalArgs {
    /// The directory: empty, or not there yet
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// The name of the copy's node: CONFMAN_NODE_NAME of the process that is to run on it
    #[arg(
        long,
        value_name = "NAME",
        default_value = "copy",
        conflicts_with = "begin_life"
    )]
    name: String,
    /// No copy: begin the next life of the cluster with this one node, whose directory it is
    #[arg(long, value_name = "NAME=API_URL,PEER_ADDR")]
    begin_life: Option<Given>,
    /// Who does this, for the audit history [default: the user of this shell]
    #[arg(long, value_name = "NAME")]
    operator: Option<String>,
    /// With --begin-life: agree to the plan without being asked
    #[arg(short, long, requires = "begin_life")]
    yes: bool,
    #[command(flatten)]
    ask: AskArgs,
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    store: StoreArgs,
}

pub(crate) async fn run(args: &LocalArgs, global: &Global) -> Result<ExitCode, Failure> {
    place::refuse_filled(&args.to)?;
    let repository = args.store.open(global).await?;
    match &args.begin_life {
        None => inspection_copy(args, &repository, global).await?,
        Some(member) => next_life(args, member, &repository, global).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What a node says that finds the directory half done.
fn command(dir: &Path) -> String {
    format!(
        "run `drtool restore local --to {}` again, as it was run; or empty the directory",
        dir.display()
    )
}

async fn inspection_copy(
    args: &LocalArgs,
    repository: &Repository,
    global: &Global,
) -> Result<(), Failure> {
    // Before the directory is touched: which cluster, and is there one?
    let store = StoreReader::new(repository.clone());
    survey(&store, args.which.cluster.as_deref()).await?;
    let place = Place::take(&args.to, &command(&args.to))?;
    let wanted = copy::Wanted {
        repository,
        which: &args.which,
        name: &args.name,
        api_url: "",
        peer_addr: "",
        operator: operator(args.operator.as_deref()),
        limits: Limits::default(),
    };
    let copied = copy::fill(place, &wanted, global).await?;
    let env = env_of(&args.to, &args.name);
    if global.json {
        return output::json(&serde_json::json!({
            "kind": "copy", "directory": args.to, "cluster": copied.life, "copyOf": copied.of,
            "nodeName": args.name, "nodeId": copied.node_id, "groups": copied.groups, "notInIt": copied.loss,
            "readBytes": copied.read_bytes, "selectMs": millis(copied.select), "restoreMs": millis(copied.restore), "env": env,
        }));
    }
    output::say(confman_cli::escape::lines(&told(&args.to, &copied, &env)));
    Ok(())
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// All that a node needs to run on a copy, on ports that the nodes of a machine rarely have.
fn env_of(dir: &Path, name: &str) -> BTreeMap<&'static str, String> {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    BTreeMap::from([
        ("CONFMAN_NODE_NAME", name.to_owned()),
        ("CONFMAN_DATA_DIR", dir.display().to_string()),
        ("CONFMAN_API_LISTEN", "127.0.0.1:6180".to_owned()),
        ("CONFMAN_PEER_LISTEN", "127.0.0.1:6181".to_owned()),
        ("CONFMAN_SNAPSHOT_ENABLED", "false".to_owned()),
    ])
}

fn told(dir: &Path, copied: &Copied, env: &BTreeMap<&'static str, String>) -> String {
    let mut text = format!(
        "{} is a copy of cluster {}, as incarnation {} of cluster {}\n",
        dir.display(),
        copied.of.uuid,
        copied.life.incarnation,
        copied.life.uuid
    );
    for group in &copied.groups {
        text.push_str(&group_line(group));
    }
    text.push_str("Not in it\n");
    for sentence in &copied.loss {
        text.push_str(&format!("  {sentence}\n"));
    }
    let env: Vec<String> = env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    text.push_str(&format!(
        "Next: env -i PATH=\"$PATH\" {} confman serve",
        env.join(" ")
    ));
    text
}

fn group_line(group: &GroupAccount) -> String {
    let mut text = format!(
        "  {:<10} index {}, last entry {:.0}, {} ago; {} records, {}; snapshot {}\n",
        group.group,
        group.index,
        group.last_entry_at,
        span(group.age_seconds),
        group.records,
        output::bytes(group.bytes),
        group.snapshot_id,
    );
    for skipped in &group.skipped {
        text.push_str(&format!(
            "             skipped  {}: {}\n",
            skipped.snapshot_id, skipped.why
        ));
    }
    text
}

/// What the next life begins by: an order of an earlier run of this command that nobody has carried out, or a new one.
async fn next_life(
    args: &LocalArgs,
    member: &Given,
    repository: &Repository,
    global: &Global,
) -> Result<(), Failure> {
    let store = StoreReader::new(repository.clone());
    let seen = survey(&store, args.which.cluster.as_deref()).await?;
    let (life, order, already) = match open_order(&seen, member)? {
        Some((life, order)) => {
            refuse_taken(repository, &life, &order).await?;
            (life, order, true)
        }
        None => {
            let (plan, looked) = plan(args, member, &store, global).await?;
            let mut look = Look::new(&plan, &args.ask, looked, global);
            check_room(args, repository, &plan)?;
            let consent = consent::ask(consent::show(&plan)?, args.yes, plan.word())?;
            step("local::agreed");
            if apply::judge_again(&mut look, &store, &plan).await? == Standing::Fresh {
                apply::order(&consent, repository).await?;
            }
            step("local::ordered");
            (plan.cluster.clone(), plan.order.clone(), false)
        }
    };
    let doing = "fetch, prove and install the snapshots";
    global
        .during(doing, carry_out(args, repository, &life, &order))
        .await?;
    if global.json {
        return output::json(&serde_json::json!({
            "kind": "member", "directory": args.to, "cluster": life, "planId": order.plan_id,
            "already": already, "member": order.member(&member.name), "groups": order.groups,
        }));
    }
    let how = match already {
        true => "by the order that lay in the store already",
        false => "by a new order in the store",
    };
    output::say(confman_cli::escape::lines(&format!(
        "{} is the directory of {} in incarnation {} of cluster {}, {how}\nNext: start `confman serve` on it with the usual settings of {}. The life begins when it leads; a node of an older one that comes back fences itself, and other nodes join it empty.",
        args.to.display(),
        member.name,
        life.incarnation,
        life.uuid,
        member.name
    )));
    Ok(())
}

/// The order of the newest life, when it is not spent and names this node and no other.
fn open_order(seen: &Survey, member: &Given) -> Result<Option<(ClusterId, RestoreOrder)>, Failure> {
    let Some(newest) = seen.objects.first().filter(|_| !seen.spent) else {
        return Ok(None);
    };
    // A number that was claimed since, and taken back, is spent too.
    if newest.cluster.incarnation < seen.highest {
        return Ok(None);
    }
    let order = newest
        .order()
        .map_err(|error| codes::refuse("PLAN_INVALID", ErrorKind::Damaged, error.to_string()))?;
    let ours = |order: &RestoreOrder| {
        matches!(order.members.as_slice(), [only] if only.name == member.name
            && only.api_url == member.api_url && only.peer_addr == member.peer_addr)
    };
    Ok(order.filter(ours).map(|o| (newest.cluster.clone(), o)))
}

/// Whoever took the id up may have voted under it (I14).
async fn refuse_taken(
    repository: &Repository,
    life: &ClusterId,
    order: &RestoreOrder,
) -> Result<(), Failure> {
    for member in &order.members {
        let taken = repository.read_taken(life, member.id).await;
        if taken.map_err(|e| errors::store(&e))?.is_some() {
            let message = format!(
                "node id {} of incarnation {} was taken up by another data directory of {}",
                member.id, life.incarnation, member.name
            );
            return Err(codes::refuse("ORDER_TAKEN", ErrorKind::Refused, message)
                .with_hint("start that directory; if it is gone, order anew with `drtool restore plan` and `drtool restore apply`"));
        }
    }
    Ok(())
}

/// The plan, and when its addresses were looked at.
async fn plan(
    args: &LocalArgs,
    member: &Given,
    store: &StoreReader,
    global: &Global,
) -> Result<(RestorePlan, LastLook), Failure> {
    let search = Search {
        which: &args.which,
        data: true,
        bad: &[],
    };
    let findings = find(store, search, global).await?;
    let wishes = Wishes {
        members: std::slice::from_ref(member),
        which: &args.which,
        ask: &args.ask,
        global,
        operator: operator(args.operator.as_deref()),
    };
    let looked = LastLook::now();
    let plan = make(store, &findings, wishes).await?;
    refuse_alive(&plan.probes)?;
    Ok((plan.sealed()?, looked))
}

/// Before a life is begun that could not be restored here.
fn check_room(
    args: &LocalArgs,
    repository: &Repository,
    plan: &RestorePlan,
) -> Result<(), Failure> {
    let place = Place::take(&args.to, &command(&args.to))?;
    let ordered = ordered(&plan.cluster, &plan.order);
    let restorer = place::restorer(repository, &ordered, Limits::default());
    let node_id = first(&plan.order)?.id;
    let room = restorer.check_space_for(&ordered.tasks(place.paths(), node_id));
    place.abandon()?;
    room.map_err(|error| place::restore_failure(&error))
}

fn ordered<'a>(life: &'a ClusterId, order: &'a RestoreOrder) -> Ordered<'a> {
    Ordered {
        life,
        kind: IncarnationKind::Restore,
        order,
    }
}

fn first(order: &RestoreOrder) -> Result<&OrderMember, Failure> {
    order
        .members
        .first()
        .ok_or_else(|| codes::refuse("BUG", ErrorKind::Bug, "an order without a member"))
}

/// What a node does that starts empty, done here: the node only has to take its id up.
async fn carry_out(
    args: &LocalArgs,
    repository: &Repository,
    life: &ClusterId,
    order: &RestoreOrder,
) -> Result<(), Failure> {
    let member = first(order)?;
    let place = Place::take(&args.to, &command(&args.to))?;
    let ordered = ordered(life, order);
    let restorer = place::restorer(repository, &ordered, Limits::default());
    match place.restore(&restorer, &ordered, member.id).await {
        Ok(_) => place.finish(&ordered, member, Timestamp::now().as_microsecond()),
        Err(error) => {
            // What failed first is what is told; a directory that cannot be cleared stays closed.
            let _ = place.abandon();
            Err(place::restore_failure(&error))
        }
    }
}
