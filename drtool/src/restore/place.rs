//! A data directory in which a restore is made: empty before, whole afterwards, and closed to every node in between.
//!
//! The file `surgery` is the first thing that lies there and the last that goes; while it is there no node starts. So the
//! directory is built in its own place, whatever it is mounted on, and its removal is the one step by which the restore
//! takes effect. What lies beside the file is the half product of an earlier run and nothing else, because the directory
//! was empty when the file was written: run again, it is removed and made anew (I17).

use std::path::{Path, PathBuf};

use confman_bootstrap::{Limits, Ordered, RestoreError, RestoreReport, Restorer};
use confman_cli::failure::Failure;
use confman_client::ErrorKind;
use confman_snapshot::Repository;
use confman_snapshot::repository::OrderMember;
use confman_store::datadir::{IdentityState, Surgery, read_surgery_at};
use confman_store::offline::OfflineNode;
use confman_store::paths::half_written;
use confman_store::records::IncarnationKind;
use confman_store::{DataDir, DataPaths, StoreError};

use crate::codes;
use crate::owner;
use crate::step::step;
use crate::store::errors;

/// A directory that a restore is being made in. Dropped, it is left as it is: closed.
pub(crate) struct Place {
    data: DataDir,
}

/// Refuses a directory that holds anything but what an earlier run left. Looks only.
///
/// # Errors
/// It holds something, or cannot be looked at.
pub(crate) fn refuse_filled(dir: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| codes::local("look at", dir, &error);
    let paths = DataPaths::new(dir);
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if let Ok(Some(surgery)) = read_surgery_at(&paths.surgery())
        && surgery.restore
    {
        return Ok(());
    }
    // What was set aside there, what opening a data directory leaves, the first file of a run that was killed while it wrote it, and what a new file
    // system has.
    let empty = [
        paths.lock(),
        paths.tmp(),
        paths.aside(),
        half_written(&paths.surgery()),
        dir.join("lost+found"),
    ];
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let nothing = path == paths.groups() && is_empty(&path);
        if !nothing && !empty.contains(&path) {
            return Err(filled(dir, &path));
        }
    }
    Ok(())
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// Whose the directory is, as far as that can be told.
fn filled(dir: &Path, found: &Path) -> Failure {
    let node = OfflineNode::open(dir).ok();
    if let Some(in_use) = node.as_ref().and_then(|node| node.in_use.as_ref()) {
        let message = format!("{} is in use by {}", dir.display(), in_use.holder);
        return codes::refuse("DIRECTORY_IN_USE", ErrorKind::Refused, message)
            .with_hint("nothing was changed; name another directory with --to");
    }
    let holds = match node.and_then(|node| node.identity) {
        Some(identity) => format!(
            "the data of {} (node id {} of cluster {} incarnation {})",
            identity.name, identity.node_id, identity.cluster_uuid, identity.incarnation
        ),
        None => format!("{}", found.display()),
    };
    let message = format!("{} is not empty: it holds {holds}", dir.display());
    codes::refuse("DIRECTORY_NOT_EMPTY", ErrorKind::Refused, message)
        .with_hint("nothing was changed; name an empty directory, or one that is not there yet")
}

impl Place {
    /// Takes the directory: its lock, then the file that keeps nodes off, then everything of an earlier run goes. `command`
    /// is what a node says that finds it half done.
    ///
    /// # Errors
    /// It holds something, a process has it, or the system refuses.
    pub(crate) fn take(dir: &Path, command: &str) -> Result<Self, Failure> {
        refuse_filled(dir)?;
        owner::refuse_stranger(dir)?;
        let data = DataDir::open(dir).map_err(failure)?;
        // What counts is how it looks under the lock.
        refuse_filled(data.paths().root())?;
        data.begin_surgery(&Surgery {
            plan_id: String::new(),
            command: command.to_owned(),
            undo: false,
            restore: true,
            survivor: false,
        })
        .map_err(failure)?;
        step("local::marked");
        let place = Self { data };
        place.clear()?;
        step("local::cleared");
        Ok(place)
    }

    /// The names of its files.
    pub(crate) fn paths(&self) -> &DataPaths {
        self.data.paths()
    }

    /// Removes what an earlier run, or this one, has made.
    fn clear(&self) -> Result<(), Failure> {
        let paths = self.paths();
        let gone = |path: PathBuf, removed: std::io::Result<()>| match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(codes::local("remove", &path, &error))
            }
            _ => Ok(()),
        };
        for file in [paths.identity(), paths.incarnation(), paths.claim()] {
            for file in [half_written(&file), file] {
                let removed = std::fs::remove_file(&file);
                gone(file, removed)?;
            }
        }
        let groups = paths.groups();
        let removed = std::fs::remove_dir_all(&groups);
        gone(groups.clone(), removed)?;
        std::fs::create_dir(&groups).map_err(|e| codes::local("create", &groups, &e))
    }

    /// Gives it up: it is empty again.
    ///
    /// # Errors
    /// The system refuses; then it stays closed.
    pub(crate) fn abandon(self) -> Result<(), Failure> {
        self.clear()?;
        self.data.end_surgery().map_err(failure)
    }

    /// Restores every group of an order, or of a copy; what was done for the same one is not done again.
    ///
    /// # Errors
    /// As [`Restorer::restore_ordered`].
    pub(crate) async fn restore(
        &self,
        restorer: &Restorer,
        ordered: &Ordered<'_>,
        node_id: u64,
    ) -> Result<Vec<RestoreReport>, RestoreError> {
        let tasks = ordered.tasks(self.paths(), node_id);
        restorer.check_space_for(&tasks)?;
        let done = restorer.restore_ordered(&tasks).await?;
        step("local::restored");
        Ok(done.iter().map(|one| one.report().clone()).collect())
    }

    /// Says who its node is, and opens it to that node: the restore takes effect.
    ///
    /// # Errors
    /// The system refuses; then it stays closed.
    pub(crate) fn finish(
        self,
        ordered: &Ordered<'_>,
        member: &OrderMember,
        now_us: i64,
    ) -> Result<(), Failure> {
        let nonce = uuid::Uuid::new_v4().to_string();
        let identity = ordered.take_identity(&self.data, member, nonce, now_us);
        let mut identity = identity.map_err(failure)?;
        step("local::identified");
        // Whoever carries out an order in the store takes its id up there first: that is the node's to do.
        if ordered.kind == IncarnationKind::Copy {
            identity.set_state(IdentityState::Initialized);
            self.data.write_identity(&identity).map_err(failure)?;
        }
        step("local::complete");
        self.data.end_surgery().map_err(failure)?;
        step("local::ended");
        Ok(())
    }
}

/// What restores into a directory of this machine.
pub(crate) fn restorer(repository: &Repository, ordered: &Ordered<'_>, limits: Limits) -> Restorer {
    let now_us = || jiff::Timestamp::now().as_microsecond();
    let (repository, life) = (Some(repository.clone()), ordered.life.clone());
    let restorer = Restorer::new(repository, life, limits, now_us);
    fail::fail_point!("local::full-disk", |_| restorer
        .clone()
        .with_free_bytes(|_| Ok(0)));
    restorer
}

/// An error of the directory as an end of the command.
fn failure(error: StoreError) -> Failure {
    let (message, hint) = errors::split(&error.to_string());
    let (kind, code) = match &error {
        StoreError::InUse { .. } => (ErrorKind::Refused, "DIRECTORY_IN_USE"),
        StoreError::Io { .. } => (ErrorKind::Usage, "DIRECTORY_FAILED"),
        _ => (ErrorKind::Damaged, "DIRECTORY_FAILED"),
    };
    told(codes::refuse(code, kind, message), hint)
}

/// A restore that cannot go on as an end of the command.
pub(crate) fn restore_failure(error: &RestoreError) -> Failure {
    let (message, hint) = errors::split(&error.to_string());
    match error {
        RestoreError::Space { .. } => codes::refuse("DISK_TOO_SMALL", ErrorKind::Refused, message)
            .with_hint(
                "nothing was restored; make room there, or name a directory on a larger disk",
            ),
        RestoreError::Unreachable { .. } => {
            codes::refuse("STORE_UNREACHABLE", ErrorKind::Unreachable, message)
        }
        RestoreError::NotWhole { .. } => {
            codes::refuse("SNAPSHOT_DAMAGED", ErrorKind::Damaged, message)
        }
        _ => told(codes::usage("DIRECTORY_FAILED", message), hint),
    }
}

fn told(failure: Failure, hint: Option<String>) -> Failure {
    match hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i17_files_that_were_half_written_are_nobodys_data() {
        let dir = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(dir.path());
        std::fs::write(half_written(&paths.surgery()), "half").unwrap();
        let place = Place::take(dir.path(), "drtool restore local").unwrap();
        std::fs::write(half_written(&paths.identity()), "half").unwrap();
        place.abandon().unwrap();
        refuse_filled(dir.path()).unwrap();
        assert!(!half_written(&paths.identity()).exists());
        std::fs::write(paths.identity(), "whole").unwrap();
        refuse_filled(dir.path()).unwrap_err();
    }
}
