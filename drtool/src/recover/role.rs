//! What a directory is to a plan, and how far the plan has come there.

use std::path::Path;

use confman_cli::failure::Failure;
use confman_client::ErrorKind;
use confman_store::DataPaths;
use confman_store::datadir::read_surgery_at;

use super::apply::{data_failure, stale};
use super::collect::now;
use super::collection::Directory;
use super::directory;
use super::plan::Plan;
use super::swap;

use crate::codes;

/// What the directory becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It begins the new life.
    Survivor,
    /// It is set aside, and its node joins anew.
    Other,
}

/// How far the plan has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing was done, and the directory is as the plan saw it.
    Fresh(Role),
    /// It was begun and has not ended.
    Begun(Role),
    /// It was done.
    Done(Role),
}

impl Standing {
    pub(super) fn role(self) -> Role {
        match self {
            Self::Fresh(role) | Self::Begun(role) | Self::Done(role) => role,
        }
    }
}

/// Whose the directory's lock is while it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    /// Nobody's, or somebody else's: then it is in use.
    Free,
    /// This program's.
    Held,
}

/// Finds out, from what lies there.
pub(super) fn stand(path: &Path, plan: &Plan, lock: Lock) -> Result<Standing, Failure> {
    let paths = DataPaths::new(path);
    if let Some(surgery) = read_surgery_at(&paths.surgery()).map_err(data_failure)? {
        if surgery.plan_id != plan.plan_id || surgery.undo {
            let text = format!(
                "{} was begun in {} and has not ended",
                surgery.what(),
                path.display()
            );
            return Err(codes::refuse("RECOVER_UNDER_WAY", ErrorKind::Refused, text)
                .with_hint(surgery.command));
        }
        let role = if surgery.survivor {
            Role::Survivor
        } else {
            Role::Other
        };
        return Ok(Standing::Begun(role));
    }
    let mut found = directory::read(path, now().as_us())?;
    if lock == Lock::Held {
        found.in_use = None;
    }
    let Some(identity) = &found.identity else {
        if swap::plan_file(&paths, &plan.plan_id).exists() && found.groups.is_empty() {
            return Ok(Standing::Done(Role::Other));
        }
        return Err(not_named(path, plan, "nothing says whose directory it is"));
    };
    if identity.lineage == plan.plan_id && identity.incarnation == plan.new_incarnation {
        if identity.node_id == plan.survivor.new_id {
            return Ok(Standing::Done(Role::Survivor));
        }
        if swap::plan_file(&paths, &plan.plan_id).exists() {
            return Ok(Standing::Done(Role::Other));
        }
        let why = format!(
            "{} has joined the new life as node id {}",
            identity.name, identity.node_id
        );
        return Err(not_named(path, plan, &why));
    }
    let life = (
        identity.cluster_uuid.as_str(),
        identity.incarnation,
        identity.lineage.as_str(),
    );
    let planned = (
        plan.cluster.uuid.as_str(),
        plan.cluster.incarnation,
        plan.lineage.as_str(),
    );
    if life != planned {
        let text = format!(
            "{} is of cluster {} incarnation {}, the plan is for cluster {} incarnation {}",
            path.display(),
            life.0,
            life.1,
            planned.0,
            planned.1
        );
        return Err(
            codes::refuse("RECOVER_FOREIGN", ErrorKind::Refused, text).with_hint(
                "name the directory that the plan names, with the plan that was made for it",
            ),
        );
    }
    if identity.node_id == plan.survivor.old_id {
        check_fresh(&found, &plan.survivor.fingerprint)?;
        return Ok(Standing::Fresh(Role::Survivor));
    }
    match plan.others.iter().find(|o| o.id == identity.node_id) {
        Some(other) => {
            check_fresh(&found, &other.fingerprint)?;
            Ok(Standing::Fresh(Role::Other))
        }
        None => Err(not_named(
            path,
            plan,
            &format!("it is of {} (node id {})", identity.name, identity.node_id),
        )),
    }
}

/// Whether the directory is as the plan saw it.
pub(super) fn check_fresh(found: &Directory, fingerprint: &str) -> Result<(), Failure> {
    if let Some(holder) = &found.in_use {
        let text = format!("{} is in use by {holder}", found.path);
        return Err(codes::refuse("RECOVER_RUNNING", ErrorKind::Refused, text)
            .with_hint("stop that process first, then collect and plan again: what it has may have changed"));
    }
    if found.fingerprint() == fingerprint {
        return Ok(());
    }
    Err(stale(&format!(
        "{} has changed since it was collected",
        found.path
    )))
}

fn not_named(path: &Path, plan: &Plan, why: &str) -> Failure {
    let text = format!(
        "plan {} does not name {}: {why}",
        plan.plan_id,
        path.display()
    );
    codes::refuse("RECOVER_NOT_NAMED", ErrorKind::Refused, text)
        .with_hint(format!(
            "the plan is for {} on {} and {} others; a directory that was not collected is set aside by hand",
            plan.survivor.path,
            plan.survivor.host,
            plan.others.len()
        ))
}
