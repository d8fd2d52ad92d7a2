//! `recover apply`: one directory becomes what the plan says it is.
//!
//! Promises: a repaired *copy* is built and swapped in, the old contents stay under `aside/`; nothing takes effect before
//! the last step, the removal of the file `surgery`; killed anywhere and run again it reaches the same end (I17); nothing is
//! done without the operator's consent to the printed plan (I16).

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use confman_cli::failure::Failure;
use confman_cli::output;
use confman_client::ErrorKind;
use confman_snapshot::model::NodeInfo;
use confman_store::command::BeginIncarnation;
use confman_store::datadir::{IdentityState, Surgery};
use confman_store::membership::{ExpectedRecord, NodeWish};
use confman_store::records::{IncarnationKind, NodeRecord, NodeState, versions_of_life_from};
use confman_store::surgery::{Operation, operate};
use confman_store::{DataDir, DataPaths, Identity, StoreError};
use serde::Serialize;

use super::alive::Look;
use super::ask::AskArgs;
use super::collect::now;
use super::copy::{self, Copied};
use super::file;
use super::plan::Plan;
use super::role::{Lock, Role, Standing, stand};
use super::room;
use super::sources::{self, Sources};
use super::store_side;
use super::summary;
use super::swap;
use crate::codes;
use crate::consent::{self, Consent};
use crate::context::Global;
use crate::owner;
use crate::step::step;
use crate::store::StoreArgs;

/// Carry out a plan at one data directory
///
/// Run it on every machine that the plan names, the survivor first. The node must be stopped. The old contents of the
/// directory are kept in its folder `aside`. When it was killed, run it again.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// The data directory [default: CONFMAN_DATA_DIR]
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
    /// What `recover plan` wrote
    #[arg(long, value_name = "FILE", default_value = "plan.json")]
    plan: PathBuf,
    /// Where the directory of another node is, of which the plan takes a group; may be given again
    #[arg(long, value_name = "NAME=DIR", value_parser = sources::parse)]
    from: Vec<(String, PathBuf)>,
    /// Who does this, for the audit history [default: user and host]
    #[arg(long, value_name = "NAME")]
    operator: Option<String>,
    #[command(flatten)]
    ask: AskArgs,
    /// Agree to the plan
    #[arg(long)]
    yes: bool,
    /// Claim the new incarnation in no store, though one is named in the environment
    #[arg(long, conflicts_with = "store")]
    no_store: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// What was done.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Applied<'a> {
    plan_id: &'a str,
    directory: String,
    /// `survivor` or `setAside`.
    role: &'static str,
    /// Whether it had been done before.
    already: bool,
    incarnation: u64,
    old_contents: String,
    copied: Copied,
    store: store_side::Told,
    seconds: f64,
}

pub(crate) async fn run(args: &ApplyArgs, global: &Global) -> Result<ExitCode, Failure> {
    let plan = Plan::read(&args.plan)?;
    let path = directory(args.directory.as_deref())?;
    owner::refuse_stranger(&path)?;
    let standing = stand(&path, &plan, Lock::Free)?;
    let sources = match &standing {
        Standing::Fresh(Role::Survivor) | Standing::Begun(Role::Survivor) => {
            sources::find(&plan, &path, &args.from)?
        }
        _ => Sources::default(),
    };
    let mut look = Look::new(&plan, &path, standing, args.ask.given(&plan, global)?);
    look.refuse().await?;
    let word = plan.cluster.uuid.get(..8).unwrap_or_default();
    let consent = consent::ask(consent::show(&plan)?, args.yes, word)?;
    // A quorum may have come back while somebody read the plan.
    look.refuse().await?;
    let operator = args.operator.clone().unwrap_or_else(default_operator);
    let start = Instant::now();
    let named = !args.no_store && args.store.is_named(global);
    let store = store_side::Door::new(named.then_some(&args.store), global);
    let (told, copied) = match standing.role() {
        Role::Survivor => {
            let repaired = survivor(&consent, &mut look, &path, &sources, &operator, &store);
            global
                .during("copy and repair the directory", repaired)
                .await?
        }
        Role::Other => (
            store_side::Told::default(),
            set_aside(&consent, &mut look, &path, &operator).await?,
        ),
    };
    let done = Applied {
        plan_id: &plan.plan_id,
        directory: path.display().to_string(),
        role: match standing.role() {
            Role::Survivor => "survivor",
            Role::Other => "setAside",
        },
        already: matches!(standing, Standing::Done(_)),
        incarnation: plan.new_incarnation,
        old_contents: swap::aside(&DataPaths::new(&path), &plan.plan_id)
            .display()
            .to_string(),
        copied,
        store: told,
        seconds: start.elapsed().as_secs_f64(),
    };
    let unclaimed = done.store.unclaimed(&plan);
    if global.json {
        output::json(&done)?;
    } else {
        tell(&done, &plan, standing.role())?;
    }
    // What was done is told on stdout in any case, so this goes to stderr alone.
    Ok(unclaimed.map_or(ExitCode::SUCCESS, |failure| failure.report()))
}

/// The directory that was named, or that of the node's own settings.
pub(super) fn directory(named: Option<&Path>) -> Result<PathBuf, Failure> {
    let from_env = || std::env::var_os("CONFMAN_DATA_DIR").map(PathBuf::from);
    let path = named.map(Path::to_owned).or_else(from_env).ok_or_else(|| {
        codes::usage("ARGUMENT", "no data directory is named")
            .with_hint("name it, or set CONFMAN_DATA_DIR as the node has it")
    })?;
    path.canonicalize()
        .map_err(|e| codes::local("find", &path, &e).coded("RECOVER_DIRECTORY"))
}

fn default_operator() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    let user = user.unwrap_or_else(|| "unknown".to_owned());
    format!("{user}@{}", super::directory::host())
}

/// An error of the data directory as an end of the command.
pub(crate) fn data_failure(error: StoreError) -> Failure {
    let (message, hint) = crate::store::errors::split(&error.to_string());
    let (kind, code) = match &error {
        StoreError::InUse { .. } => (ErrorKind::Refused, "RECOVER_RUNNING"),
        StoreError::Foreign { .. } => (ErrorKind::Refused, "RECOVER_STALE"),
        StoreError::Io { .. } => (ErrorKind::Usage, "RECOVER_DIRECTORY"),
        _ => (ErrorKind::Damaged, "RECOVER_DIRECTORY"),
    };
    let failure = codes::refuse(code, kind, message);
    match hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

/// Takes the directory's lock. It looked so a moment ago; what counts is how it looks under the lock.
fn lock(path: &Path, plan: &Plan) -> Result<(DataDir, Standing), Failure> {
    owner::refuse_stranger(path)?;
    let data = DataDir::open(path).map_err(data_failure)?;
    let standing = stand(path, plan, Lock::Held)?;
    Ok((data, standing))
}

fn mark(data: &DataDir, plan: &Plan, role: Role) -> Result<(), Failure> {
    let root = data.paths().root().display();
    data.begin_surgery(&Surgery {
        plan_id: plan.plan_id.clone(),
        command: format!(
            "go on with `drtool recover apply --plan FILE {root}`, or take it back with `drtool recover undo --plan FILE {root}`; FILE is plan {}",
            plan.plan_id
        ),
        undo: false,
        restore: false,
        survivor: role == Role::Survivor,
    })
    .map_err(data_failure)
}

/// The directory that begins the new life.
async fn survivor(
    consent: &Consent<'_, Plan>,
    look: &mut Look<'_>,
    path: &Path,
    sources: &Sources,
    operator: &str,
    store: &store_side::Door<'_>,
) -> Result<(store_side::Told, Copied), Failure> {
    let plan = consent.plan();
    let (data, standing) = lock(path, plan)?;
    step("apply::locked");
    let mut copied = Copied::default();
    if matches!(standing, Standing::Done(_)) {
        look.refuse().await?;
        return Ok((store.claim(plan, operator).await?, copied));
    }
    let fresh = matches!(standing, Standing::Fresh(_));
    let is_built = swap::is_ready(data.paths(), plan) || is_moved(&data, plan)?;
    if !is_built {
        // Before the number is claimed: a full disk would leave it claimed by nobody.
        swap::clear_repaired(data.paths())?;
        room::check(&data, plan, sources, standing)?;
    }
    // Every log was read since the operator agreed, which takes as long as they are large.
    look.refuse().await?;
    mark(&data, plan, Role::Survivor)?;
    step("recover::marked");
    // Before anything else: of two operators one is refused, and then nothing has happened here.
    let told = match store.claim(plan, operator).await {
        Ok(told) => told,
        Err(failure) => {
            if fresh {
                data.end_surgery().map_err(data_failure)?;
            }
            return Err(failure);
        }
    };
    step("recover::claimed");
    if !is_built {
        copied = build(&data, plan, sources, operator)?;
    }
    step("recover::ready");
    swap::put_aside(&data, plan)?;
    keep_plan(&data, plan)?;
    step("recover::plan-kept");
    swap::put_in_place(data.paths())?;
    swap::clear_repaired(data.paths())?;
    step("recover::cleared");
    data.end_surgery().map_err(data_failure)?;
    step("recover::ended");
    Ok((told, copied))
}

/// Whether the new contents are in place, or partly so: then they are not to be built again.
fn is_moved(data: &DataDir, plan: &Plan) -> Result<bool, Failure> {
    let identity = data.read_identity().map_err(data_failure)?;
    Ok(identity.is_some_and(|identity| identity.lineage == plan.plan_id))
}

/// Builds the new contents in `repaired/`.
fn build(
    data: &DataDir,
    plan: &Plan,
    sources: &Sources,
    operator: &str,
) -> Result<Copied, Failure> {
    let old = data
        .read_identity()
        .map_err(data_failure)?
        .ok_or_else(|| stale("its identity is gone"))?;
    let repaired = DataDir::open(&data.paths().repaired()).map_err(data_failure)?;
    step("recover::begun");
    let mut copied = Copied::default();
    for group in &plan.groups {
        let root = sources
            .root_of(group.from.id)
            .unwrap_or(data.paths().root());
        let from = DataPaths::new(root).group(&group.group);
        let to = repaired.paths().group(&group.group);
        copied += copy::group(&from, &to)?;
        step("recover::copied");
        // Nobody's lock kept another node's directory as it was.
        sources.check_unchanged(plan, group.from.id, data.paths().root())?;
        let operation = Operation {
            term: plan.term,
            node: plan.survivor.new_id,
            last: group.last,
            applied: group.applied,
            members: vec![(plan.survivor.new_id, plan.survivor.info.clone())],
        };
        operate(&to.log(), &operation).map_err(data_failure)?;
        step("recover::operated");
    }
    repaired
        .write_incarnation(&begin_incarnation(plan, operator))
        .map_err(data_failure)?;
    step("recover::incarnation-written");
    repaired
        .write_identity(&new_identity(&old, plan))
        .map_err(data_failure)?;
    copy::sync_dir(&repaired.paths().groups())?;
    copy::sync_dir(repaired.paths().root())?;
    step("recover::identity-written");
    drop(repaired);
    swap::set_ready(data.paths(), plan)?;
    Ok(copied)
}

fn new_identity(old: &Identity, plan: &Plan) -> Identity {
    Identity {
        incarnation: plan.new_incarnation,
        incarnation_floor: plan.new_incarnation,
        node_id: plan.survivor.new_id,
        lineage: plan.plan_id.clone(),
        state: IdentityState::Initialized.into(),
        reason: String::new(),
        created_us: now().as_us(),
        // Where the nodes of the older life were: they are asked before the new one begins.
        ..old.clone()
    }
}

/// What the first leader proposes.
fn begin_incarnation(plan: &Plan, operator: &str) -> BeginIncarnation {
    let NodeInfo {
        name,
        api_url,
        peer_addr,
    } = plan.survivor.info.clone();
    BeginIncarnation {
        cluster_uuid: plan.cluster.uuid.clone(),
        incarnation: plan.new_incarnation,
        kind: IncarnationKind::QuorumLoss.into(),
        plan_id: plan.plan_id.clone(),
        lineage: plan.plan_id.clone(),
        survivor_id: plan.survivor.old_id,
        versions_from: versions_of_life_from(plan.new_incarnation),
        operator: operator.chars().take(200).collect(),
        summary: summary::of(plan),
        nodes: vec![NodeRecord {
            id: plan.survivor.new_id,
            name,
            api_url,
            peer_addr,
            state: NodeState::Active.into(),
            wish: NodeWish::Voter.into(),
            ..NodeRecord::default()
        }],
        expected: plan
            .expected
            .iter()
            .map(|expected| ExpectedRecord {
                name: expected.info.name.clone(),
                peer_addr: expected.info.peer_addr.clone(),
                api_url: expected.info.api_url.clone(),
                learner_only: expected.learner,
                ..ExpectedRecord::default()
            })
            .collect(),
    }
}

fn keep_plan(data: &DataDir, plan: &Plan) -> Result<(), Failure> {
    let file = swap::plan_file(data.paths(), &plan.plan_id);
    file::write_json(&file, plan, true)?;
    copy::sync_dir(&swap::aside(data.paths(), &plan.plan_id))
}

/// A directory whose node joins the new life empty.
async fn set_aside(
    consent: &Consent<'_, Plan>,
    look: &mut Look<'_>,
    path: &Path,
    operator: &str,
) -> Result<Copied, Failure> {
    let plan = consent.plan();
    let (data, standing) = lock(path, plan)?;
    step("apply::locked");
    if matches!(standing, Standing::Done(_)) {
        return Ok(Copied::default());
    }
    look.refuse().await?;
    mark(&data, plan, Role::Other)?;
    step("recover::marked");
    tracing::debug!(operator, "set aside");
    swap::put_aside(&data, plan)?;
    keep_plan(&data, plan)?;
    step("recover::plan-kept");
    data.end_surgery().map_err(data_failure)?;
    step("recover::ended");
    Ok(Copied::default())
}

/// The directory is not the one that the plan was made from.
pub(super) fn stale(why: &str) -> Failure {
    codes::refuse(
        "RECOVER_STALE",
        ErrorKind::Refused,
        format!("the plan is stale: {why}"),
    )
    .with_hint("collect and plan again: something has run on the directory since")
}

fn tell(done: &Applied<'_>, plan: &Plan, role: Role) -> Result<(), Failure> {
    let name = &plan.survivor.info.name;
    if done.already {
        output::line(&format!("plan {} was applied here before", plan.plan_id))?;
    }
    output::line(&format!("the old contents are in {}", done.old_contents))?;
    match role {
        Role::Survivor => {
            let took = Duration::from_secs_f64(done.seconds);
            output::line(&format!(
                "{name} begins incarnation {} when it starts ({} copied, {} shared, {:.1} s)",
                plan.new_incarnation,
                output::bytes(done.copied.copied_bytes),
                output::bytes(done.copied.shared_bytes),
                took.as_secs_f64()
            ))?;
            output::line(&done.store.words())?;
            output::line(&format!(
                "next: start {name} with its usual settings, then `drtool recover verify --plan FILE`; to take it back before the first write: `drtool recover undo {}`",
                done.directory
            ))
        }
        Role::Other => output::line(&format!(
            "next: start the node with its usual settings; it joins incarnation {} under a new id when {name} runs",
            plan.new_incarnation
        )),
    }
}
