//! What lies where while a directory changes its contents, and how it is moved: each move is one rename, and each can be
//! done again.
//!
//! While any of this goes on the file `surgery` lies in the directory, and no node starts there. So the order of the moves
//! matters to nobody but the next run of the tool, which finds out from what is there how far it came.
//!
//! ```text
//! {data}/repaired/            the new contents while they are built; `repaired/READY` says that they are whole
//! {data}/aside/{plan}/        the old contents, and `plan.json`
//! {data}/aside/{plan}-undone/ the new contents of a recovery that was undone
//! ```

use std::io;
use std::path::{Path, PathBuf};

use confman_cli::failure::Failure;
use confman_store::{DataDir, DataPaths, Identity};

use super::copy::{make_dir, sync_dir};
use super::plan::Plan;
use crate::step::step;

use crate::codes;

/// The contents of a data directory that a recovery changes.
const CONTENTS: [&str; 3] = ["identity", "incarnation", "groups"];
/// Says that what was built is whole.
const READY: &str = "READY";

/// Where the old contents go.
pub(super) fn aside(paths: &DataPaths, plan_id: &str) -> PathBuf {
    paths.aside().join(plan_id)
}

/// Where the new contents go when the recovery is undone.
pub(super) fn undone(paths: &DataPaths, plan_id: &str) -> PathBuf {
    paths.aside().join(format!("{plan_id}-undone"))
}

/// The plan as it was applied here.
pub(super) fn plan_file(paths: &DataPaths, plan_id: &str) -> PathBuf {
    aside(paths, plan_id).join("plan.json")
}

/// Whether what was built for this plan is whole.
pub(super) fn is_ready(paths: &DataPaths, plan: &Plan) -> bool {
    let text = std::fs::read_to_string(paths.repaired().join(READY));
    text.is_ok_and(|digest| digest.trim() == plan.digest)
}

/// Says so, durably.
pub(super) fn set_ready(paths: &DataPaths, plan: &Plan) -> Result<(), Failure> {
    let file = paths.repaired().join(READY);
    let write = || -> io::Result<()> {
        use std::io::Write as _;
        let mut file = std::fs::File::create(&file)?;
        file.write_all(plan.digest.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|e| codes::local("write", &file, &e))?;
    sync_dir(&paths.repaired())?;
    sync_dir(paths.root())
}

/// Removes what was built: a copy on which nothing ever ran.
pub(super) fn clear_repaired(paths: &DataPaths) -> Result<(), Failure> {
    let dir = paths.repaired();
    match std::fs::remove_dir_all(&dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(codes::local("remove", &dir, &e)),
        _ => sync_dir(paths.root()),
    }
}

/// Moves the old contents aside. `is_new` tells the contents that are to come from those that were there.
pub(super) fn put_aside(data: &DataDir, plan: &Plan) -> Result<(), Failure> {
    let paths = data.paths();
    let to = aside(paths, &plan.plan_id);
    make_dir(&to)?;
    sync_dir(&paths.aside())?;
    sync_dir(paths.root())?;
    for (name, point) in CONTENTS.into_iter().zip([
        "recover::aside-identity",
        "recover::aside-incarnation",
        "recover::aside-groups",
    ]) {
        let from = paths.root().join(name);
        // Once the old one is there, what lies here is new, or an empty folder that opening the directory made.
        if exists(&from) && !exists(&to.join(name)) && !is_of(data, name, &plan.plan_id)? {
            rename(&from, &to.join(name))?;
        }
        step(point);
    }
    Ok(())
}

/// Moves what was built into place.
pub(super) fn put_in_place(paths: &DataPaths) -> Result<(), Failure> {
    // The identity last: without it the directory is no node's.
    for (name, point) in ["groups", "incarnation", "identity"].into_iter().zip([
        "recover::place-groups",
        "recover::place-incarnation",
        "recover::place-identity",
    ]) {
        let from = paths.repaired().join(name);
        if exists(&from) {
            let to = paths.root().join(name);
            remove_if_empty(&to)?;
            rename(&from, &to)?;
        }
        step(point);
    }
    Ok(())
}

/// Takes a recovery back: what it put in place is set aside, and what it set aside is put back.
///
/// `old_identity` makes the identity what it is to be from then on.
pub(super) fn put_back(
    data: &DataDir,
    plan: &Plan,
    old_identity: impl FnOnce(Identity) -> Identity,
) -> Result<(), Failure> {
    let paths = data.paths();
    let old = aside(paths, &plan.plan_id);
    let new = undone(paths, &plan.plan_id);
    make_dir(&new)?;
    sync_dir(&paths.aside())?;
    for (name, point) in CONTENTS.into_iter().zip([
        "recover::undo-aside-identity",
        "recover::undo-aside-incarnation",
        "recover::undo-aside-groups",
    ]) {
        let here = paths.root().join(name);
        // What is here is new while the old one is still aside; an `incarnation` may have had no old one.
        let is_new = exists(&old.join(name)) || is_of(data, name, &plan.plan_id)?;
        if is_new && std::fs::remove_dir(&here).is_err() && exists(&here) {
            rename(&here, &new.join(name))?;
        }
        step(point);
    }
    for (name, point) in ["groups", "incarnation", "identity"].into_iter().zip([
        "recover::undo-place-groups",
        "recover::undo-place-incarnation",
        "recover::undo-place-identity",
    ]) {
        let from = old.join(name);
        if exists(&from) {
            let to = paths.root().join(name);
            remove_if_empty(&to)?;
            rename(&from, &to)?;
        }
        step(point);
    }
    let back = data.read_identity().map_err(super::apply::data_failure)?;
    if let Some(identity) = back {
        data.write_identity(&old_identity(identity))
            .map_err(super::apply::data_failure)?;
    }
    step("recover::undo-identity-written");
    Ok(())
}

/// Whether the file of that name is what this plan made.
fn is_of(data: &DataDir, name: &str, plan_id: &str) -> Result<bool, Failure> {
    let made = match name {
        "identity" => data
            .read_identity()
            .map_err(super::apply::data_failure)?
            .is_some_and(|identity| identity.lineage == plan_id),
        "incarnation" => data
            .read_incarnation()
            .map_err(super::apply::data_failure)?
            .is_some_and(|begin| begin.plan_id == plan_id),
        _ => false,
    };
    Ok(made)
}

pub(super) fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

fn rename(from: &Path, to: &Path) -> Result<(), Failure> {
    std::fs::rename(from, to).map_err(|e| codes::local("move", from, &e))?;
    for dir in [from.parent(), to.parent()].into_iter().flatten() {
        sync_dir(dir)?;
    }
    Ok(())
}

/// Opening a data directory makes an empty `groups` where there is none.
fn remove_if_empty(dir: &Path) -> Result<(), Failure> {
    match std::fs::remove_dir(dir) {
        Ok(()) => Ok(()),
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(())
        }
        Err(e) => Err(codes::local("make room at", dir, &e)),
    }
}
