//! `recover undo`: a directory becomes what it was before the plan.
//!
//! Until the first acknowledged write of the new life, and never after: what was written then would be lost, and a life
//! that has acknowledged anything is not to be taken back. What is proven by the directory's own log is what counts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use confman_cli::failure::Failure;
use confman_cli::output;
use confman_client::ErrorKind;
use confman_store::datadir::{self, IdentityState, Surgery};
use confman_store::offline::OfflineNode;
use confman_store::wire::{PayloadKind, WirePayload};
use confman_store::{DataDir, DataPaths, Identity};
use serde::Serialize;

use super::apply::{data_failure, directory, stale};
use super::ask::{AskArgs, Caller, Foreign, ask};
use super::plan::Plan;
use super::role::Lock;
use super::store_side;
use super::swap;
use crate::codes;
use crate::consent::{self, Consent};
use crate::context::Global;
use crate::look::LastLook;
use crate::owner;
use crate::step::step;
use crate::store::StoreArgs;

/// Take a plan back at one data directory, until the first write of the new incarnation
///
/// The survivor gets its old directory back, a directory that was set aside returns, and a node that fenced itself before
/// the new incarnation could begin is let go. Begin with the survivor. The node must be stopped.
#[derive(Debug, Args)]
pub(crate) struct UndoArgs {
    /// The data directory [default: CONFMAN_DATA_DIR]
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
    /// What `recover plan` wrote [default: the copy that `recover apply` left in the directory]
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    #[command(flatten)]
    ask: AskArgs,
    /// Agree to it
    #[arg(long)]
    yes: bool,
    /// Withdraw the claim in no store, though one is named in the environment
    #[arg(long, conflicts_with = "store")]
    no_store: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// What undoing does to a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum What {
    /// The old contents come back in place of those of the new life.
    PutBack,
    /// The old contents come back into an empty directory.
    Return,
    /// A node that fenced itself because of the new life is let go.
    Unfence,
    /// There is nothing to do any more.
    Nothing,
}

/// What is shown and agreed to.
#[derive(Debug)]
struct Undoing<'a> {
    plan: &'a Plan,
    path: &'a Path,
    what: What,
}

impl std::fmt::Display for Undoing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Plan {
            plan_id,
            new_incarnation,
            cluster,
            ..
        } = self.plan;
        writeln!(f, "Undo of plan {plan_id} at {}", self.path.display())?;
        let old = cluster.incarnation;
        match self.what {
            What::PutBack => writeln!(
                f,
                "  the contents of incarnation {new_incarnation} are set aside, those of incarnation {old} come back"
            )?,
            What::Return => writeln!(f, "  the contents of incarnation {old} come back")?,
            What::Unfence => writeln!(
                f,
                "  the node is let go: it takes part in incarnation {old} again"
            )?,
            What::Nothing => writeln!(f, "  the directory is as it was before")?,
        }
        write!(
            f,
            "  incarnation {new_incarnation} never was; its number is not used again"
        )
    }
}

/// What was done.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Undone<'a> {
    plan_id: &'a str,
    directory: String,
    what: What,
    incarnation: u64,
    store: store_side::Told,
}

pub(crate) async fn run(args: &UndoArgs, global: &Global) -> Result<ExitCode, Failure> {
    let path = directory(args.directory.as_deref())?;
    let plan = match &args.plan {
        Some(file) => Plan::read(file)?,
        None => kept_plan(&path)?,
    };
    owner::refuse_stranger(&path)?;
    let doing = "the directory and its log are read";
    let what = global.during_blocking(doing, || look(&path, &plan, Lock::Free))?;
    let named = !args.no_store && args.store.is_named(global);
    let door = store_side::Door::new(named.then_some(&args.store), global);
    let is_survivor = matches!(what, What::PutBack) || was_survivor(&path, &plan);
    let lets_go = what == What::Unfence || what == What::Return;
    let asks = lets_go.then(|| args.ask.given(&plan, global)).transpose()?;
    let looked = LastLook::now();
    let mut foreign = Foreign::default();
    if let Some((given, caller)) = &asks {
        refuse_living(&plan, given, caller, &door, &mut foreign).await?;
    }
    let undoing = Undoing {
        plan: &plan,
        path: &path,
        what,
    };
    let word = plan.cluster.uuid.get(..8).unwrap_or_default();
    let consent = consent::ask(consent::show(&undoing)?, args.yes, word)?;
    step("recover::undo-agreed");
    // The new life may have been started while somebody thought about it.
    if let Some((given, caller)) = asks.as_ref().filter(|_| !looked.is_good()) {
        refuse_living(&plan, given, caller, &door, &mut foreign).await?;
    }
    carry_out(&consent)?;
    // Whoever sees the claim fences itself: it goes after the directory that it speaks of.
    let told = if is_survivor {
        door.withdraw(&plan).await?
    } else {
        store_side::Told::default()
    };
    let done = Undone {
        plan_id: &plan.plan_id,
        directory: path.display().to_string(),
        what,
        incarnation: plan.cluster.incarnation,
        store: told,
    };
    if global.json {
        output::json(&done)?;
    } else {
        output::line(&format!(
            "{} is of incarnation {} again",
            done.directory, done.incarnation
        ))?;
        if is_survivor {
            output::line(&done.store.words_of_withdrawal(plan.new_incarnation))?;
        }
        output::line(
            "next: undo it on every other machine where it was applied; a node that fenced itself meanwhile is let go by `drtool recover undo --plan FILE DIR`",
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The plan that was applied here, as `apply` kept it.
fn kept_plan(path: &Path) -> Result<Plan, Failure> {
    let paths = DataPaths::new(path);
    let surgery = datadir::read_surgery_at(&paths.surgery()).map_err(data_failure)?;
    let identity = datadir::read_identity_at(&paths.identity()).map_err(data_failure)?;
    let id = surgery
        .map(|s| s.plan_id)
        .or(identity.map(|i| i.lineage))
        .filter(|id| !id.is_empty());
    let file = id.map(|id| swap::plan_file(&paths, &id));
    match file.filter(|file| file.exists()) {
        Some(file) => Plan::read(&file),
        None => Err(codes::usage(
            "RECOVER_NOT_NAMED",
            format!(
                "{} does not say which plan was applied there",
                path.display()
            ),
        )
        .with_hint("name the plan: drtool recover undo --plan FILE DIR")),
    }
}

fn was_survivor(path: &Path, plan: &Plan) -> bool {
    let identity = datadir::read_identity_at(&DataPaths::new(path).identity());
    identity
        .ok()
        .flatten()
        .is_some_and(|i| i.node_id == plan.survivor.old_id && i.cluster_uuid == plan.cluster.uuid)
}

/// What is to be done here, or why nothing can be.
fn look(path: &Path, plan: &Plan, lock: Lock) -> Result<What, Failure> {
    let paths = DataPaths::new(path);
    if let Some(surgery) = datadir::read_surgery_at(&paths.surgery()).map_err(data_failure)? {
        if surgery.plan_id != plan.plan_id {
            let text = format!(
                "plan {} was begun in {}, not {}",
                surgery.plan_id,
                path.display(),
                plan.plan_id
            );
            return Err(codes::refuse("RECOVER_UNDER_WAY", ErrorKind::Refused, text)
                .with_hint(surgery.command));
        }
        // Nothing has started on it since.
        return Ok(if surgery.survivor {
            What::PutBack
        } else {
            What::Return
        });
    }
    let aside = swap::aside(&paths, &plan.plan_id);
    let has_old = swap::exists(&aside.join("identity"));
    let identity = datadir::read_identity_at(&paths.identity()).map_err(data_failure)?;
    let Some(identity) = identity else {
        return if has_old {
            Ok(What::Return)
        } else {
            Err(not_applied(path, plan))
        };
    };
    if identity.cluster_uuid != plan.cluster.uuid {
        return Err(not_applied(path, plan));
    }
    if identity.lineage == plan.plan_id && identity.incarnation == plan.new_incarnation {
        if identity.node_id == plan.survivor.new_id && has_old {
            check_unwritten(path, plan, lock)?;
            return Ok(What::PutBack);
        }
        let text = format!(
            "{} has joined incarnation {} as node id {}: that life has begun, and is not taken back",
            identity.name, plan.new_incarnation, identity.node_id
        );
        return Err(spent(text));
    }
    let is_old =
        identity.incarnation == plan.cluster.incarnation && identity.lineage == plan.lineage;
    match (is_old, identity.state() == IdentityState::Fenced) {
        (true, true) => Ok(What::Unfence),
        (true, false) if identity.incarnation_floor >= plan.new_incarnation => Ok(What::Nothing),
        _ => Err(not_applied(path, plan)),
    }
}

fn not_applied(path: &Path, plan: &Plan) -> Failure {
    codes::refuse(
        "RECOVER_NOT_NAMED",
        ErrorKind::Refused,
        format!(
            "plan {} was not applied to {}, or its old contents are gone",
            plan.plan_id,
            path.display()
        ),
    )
    .with_hint("there is nothing here to undo")
}

fn spent(text: String) -> Failure {
    codes::refuse("RECOVER_SPENT", ErrorKind::Refused, text)
        .with_hint("keep the new life. What the old contents under aside/ have and it has not can be read with `drtool diff` and `drtool inspect`, and written again")
}

/// Whether the log of every group proves that nothing was acknowledged to anybody in the new life.
fn check_unwritten(path: &Path, plan: &Plan, lock: Lock) -> Result<(), Failure> {
    let node = OfflineNode::open(path).map_err(data_failure)?;
    if lock == Lock::Free
        && let Some(holder) = &node.in_use
    {
        let text = format!("{} is in use by {}", path.display(), holder.holder);
        return Err(codes::refuse("RECOVER_RUNNING", ErrorKind::Refused, text)
            .with_hint("stop that process first"));
    }
    for planned in &plan.groups {
        let end = planned.last.max(planned.applied);
        let first = end.map_or(0, |p| p.index.saturating_add(1));
        let group = node
            .group(&planned.group)
            .ok_or_else(|| stale(&format!("{} is gone", planned.group)))?;
        if group.purged.is_some_and(|purged| purged.index > first) {
            return Err(spent(format!(
                "the log of {} is purged beyond the beginning of the new life: nobody can say that nothing was written",
                planned.group
            )));
        }
        for entry in group.entries(first..) {
            let (position, payload) = entry.map_err(data_failure)?;
            if let Some(what) = acknowledged(&payload, plan.survivor.new_id) {
                let entry = super::directory::tail_entry(position, &payload);
                return Err(spent(format!(
                    "incarnation {} has {what} at entry {} of {} ({}): it is not taken back any more",
                    plan.new_incarnation, position.index, planned.group, entry.what
                )));
            }
        }
    }
    Ok(())
}

/// What an entry of the new life promised to somebody; none for what the life says to itself.
fn acknowledged(payload: &WirePayload, alone: u64) -> Option<&'static str> {
    match &payload.kind {
        None | Some(PayloadKind::Blank(_)) => None,
        Some(PayloadKind::Membership(members)) => {
            let ids: BTreeSet<u64> = members.nodes.keys().copied().collect();
            (ids != BTreeSet::from([alone])).then_some("taken in another node")
        }
        Some(PayloadKind::Command(command)) => match &command.op {
            Some(op) if op.is_housekeeping() => None,
            Some(op) if super::directory::is_write(op) => Some("acknowledged a write"),
            _ => Some("changed what is there"),
        },
    }
}

/// Nothing of the new life may be there when nodes of the old one are let go.
async fn refuse_living(
    plan: &Plan,
    given: &[String],
    caller: &Caller,
    door: &store_side::Door<'_>,
    foreign: &mut Foreign,
) -> Result<(), Failure> {
    let newer = |what: String| {
        codes::refuse("RECOVER_NEWER_LIFE", ErrorKind::Refused, what).with_hint(format!(
            "undo the plan at {} first ({} on {}), with its node stopped",
            plan.survivor.info.name, plan.survivor.path, plan.survivor.host
        ))
    };
    if door.is_claimed(plan).await? == Some(true) {
        return Err(newer(format!(
            "incarnation {} is still claimed in the store",
            plan.new_incarnation
        )));
    }
    let mut urls: BTreeSet<String> = plan.member_urls().into_iter().collect();
    urls.extend(given.iter().cloned());
    urls.insert(plan.survivor.info.api_url.clone());
    let urls: Vec<String> = urls.into_iter().filter(|url| !url.is_empty()).collect();
    for live in ask(&urls, caller).await? {
        if foreign.holds(&live, &plan.cluster.uuid) {
            continue;
        }
        let Some(status) = &live.status else {
            // It serves, and may be of the new life as well as of the old one.
            if live.readiness.as_ref().is_some_and(|r| r.ready) {
                let why = live.why.as_deref().unwrap_or("no word");
                let text = format!(
                    "a node is ready at {} and does not say of which life: {why}",
                    live.url
                );
                return Err(
                    codes::refuse("RECOVER_NEWER_LIFE", ErrorKind::Refused, text)
                        .with_hint(caller.hint(why)),
                );
            }
            continue;
        };
        if status.incarnation >= plan.new_incarnation {
            return Err(newer(format!(
                "{} at {} is of incarnation {}",
                status.node.name, live.url, status.incarnation
            )));
        }
    }
    Ok(())
}

/// The old contents, the fence, or nothing: under the directory's lock.
fn carry_out(consent: &Consent<'_, Undoing<'_>>) -> Result<(), Failure> {
    let Undoing { plan, path, what } = consent.plan();
    if *what == What::Nothing {
        return Ok(());
    }
    owner::refuse_stranger(path)?;
    let data = DataDir::open(path).map_err(data_failure)?;
    // What counts is how it looks under the lock: its node may have run since, and acknowledged something.
    let what = match look(path, plan, Lock::Held)? {
        now if now == *what => now,
        _ => return Err(stale("somebody else has changed it meanwhile")),
    };
    if what == What::Unfence {
        let identity = data
            .read_identity()
            .map_err(data_failure)?
            .ok_or_else(|| stale("its identity is gone"))?;
        data.write_identity(&old_identity(identity, plan))
            .map_err(data_failure)?;
        return Ok(());
    }
    let root = data.paths().root().display();
    data.begin_surgery(&Surgery {
        plan_id: plan.plan_id.clone(),
        command: format!(
            "go on with `drtool recover undo --plan FILE {root}`; FILE is plan {}",
            plan.plan_id
        ),
        undo: true,
        restore: false,
        survivor: what == What::PutBack,
    })
    .map_err(data_failure)?;
    step("recover::undo-marked");
    swap::put_back(&data, plan, |identity| old_identity(identity, plan))?;
    swap::clear_repaired(data.paths())?;
    step("recover::undo-cleared");
    data.end_surgery().map_err(data_failure)?;
    step("recover::undo-ended");
    Ok(())
}

/// The identity of the old life, which remembers that a newer one was begun from it.
fn old_identity(identity: Identity, plan: &Plan) -> Identity {
    let state = match identity.state() {
        IdentityState::Fenced => IdentityState::Initialized,
        state => state,
    };
    Identity {
        incarnation_floor: identity.incarnation_floor.max(plan.new_incarnation),
        state: state.into(),
        reason: String::new(),
        ..identity
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recover::tests::kit;

    /// What is agreed to, for each of the things that an undo may find.
    #[test]
    fn undoings_as_they_are_shown() {
        let left = kit::node(2, 3, kit::at(2, 120), kit::at(2, 117));
        let lost = kit::wishes(&["node1", "node3"]);
        let plan = kit::planned(&kit::collection(vec![left]), &lost);
        let shown = [What::PutBack, What::Return, What::Unfence, What::Nothing].map(|what| {
            let undoing = Undoing {
                plan: &plan,
                path: Path::new("/var/lib/confman/data"),
                what,
            };
            format!("{what:?}\n{undoing}")
        });
        insta::assert_snapshot!(shown.join("\n\n"));
    }
}
