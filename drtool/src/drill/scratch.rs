//! The directory that a drill happens in.
//!
//! Beside it lies a file that is locked for as long as the drill lives: it is made before the directory and goes after it, so
//! that the next drill can tell what a killed one left, and removes that. Without the file a directory is nobody's to remove.

use std::fs::File;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use confman_cli::failure::Failure;
use rustix::fs::FlockOperation;

use crate::codes;
use crate::context::Global;

const PREFIX: &str = "confman-drill-";
/// The ending of the file whose lock says that a drill lives.
const LOCK: &str = "lock";
/// A drill that sweeps may have the lock of ours for a moment.
const MAKE_TRIES: u32 = 10;
/// A node that was killed may be writing its last.
const REMOVE_TRIES: u32 = 20;
const REMOVE_PAUSE: Duration = Duration::from_millis(100);

/// A scratch directory. Dropped without [`Scratch::close`], it is left to the next drill.
pub(super) struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes one in `root`, after what killed drills left there was removed.
    pub(super) fn make(root: Option<&Path>, global: &Global) -> Result<Self, Failure> {
        let root = root.map_or_else(std::env::temp_dir, Path::to_owned);
        std::fs::create_dir_all(&root).map_err(|e| codes::local("create", &root, &e))?;
        let root = root
            .canonicalize()
            .map_err(|e| codes::local("find", &root, &e))?;
        sweep(&root, global);
        for _ in 0..MAKE_TRIES {
            let path = root.join(format!("{PREFIX}{:016x}", rand::random::<u64>()));
            let file = path.with_extension(LOCK);
            let lock = File::create_new(&file).map_err(|e| codes::local("create", &file, &e))?;
            if !is_free(&lock) || !file.exists() {
                continue;
            }
            let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
            made.map_err(|e| codes::local("create", &path, &e))?;
            return Ok(Self { path, _lock: lock });
        }
        Err(codes::usage(
            "LOCAL_FILE",
            format!(
                "make a scratch directory in {}: other drills remove it",
                root.display()
            ),
        ))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it, or gives its place when it is to be kept; kept, it is no drill's any more.
    pub(super) fn close(self, keep: bool) -> Result<Option<PathBuf>, Failure> {
        if !keep {
            remove(&self.path, REMOVE_TRIES).map_err(|e| codes::local("remove", &self.path, &e))?;
        }
        let file = self.path.with_extension(LOCK);
        std::fs::remove_file(&file).map_err(|e| codes::local("remove", &file, &e))?;
        Ok(keep.then_some(self.path))
    }
}

/// Takes the lock, if nobody has it; it goes with the file's handle.
fn is_free(lock: &File) -> bool {
    rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok()
}

fn remove(dir: &Path, tries: u32) -> std::io::Result<()> {
    let mut removed = Ok(());
    for _ in 0..tries {
        removed = match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => return Ok(()),
        };
        std::thread::sleep(REMOVE_PAUSE);
    }
    removed
}

/// Removes what drills left that were killed: their locks are nobody's.
fn sweep(root: &Path, global: &Global) {
    let Ok(entries) = std::fs::read_dir(root) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let file = entry.path();
        let named = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if !named || file.extension().is_none_or(|ending| ending != LOCK) {
            continue;
        }
        let Ok(lock) = File::open(&file) else {
            continue;
        };
        if !is_free(&lock) {
            continue;
        }
        let dir = file.with_extension("");
        global.note(format!(
            "remove {}, which a killed drill left",
            dir.display()
        ));
        let removed = remove(&dir, 1).and_then(|()| std::fs::remove_file(&file));
        if let Err(error) = removed {
            global.note(format!("remove {}: {error}", dir.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i17_what_a_killed_drill_left_goes_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let global = Global::default();
        let scratch = |_: u32| Scratch::make(Some(root.path()), &global).unwrap();
        let killed = scratch(1);
        let left = killed.path().to_owned();
        std::fs::create_dir(left.join("data")).unwrap();
        drop(killed);
        let kept = scratch(2).close(true).unwrap().unwrap();
        assert!(!left.exists(), "what a killed drill left is still there");
        let half_removed = scratch(5);
        std::fs::remove_dir(half_removed.path()).unwrap();
        drop(half_removed);
        let living = scratch(3);
        let foreign = root.path().join("confman-drill-mine");
        std::fs::create_dir(&foreign).unwrap();
        let another = scratch(4);
        assert!(living.path().exists() && kept.exists() && foreign.exists());
        let path = another.path().to_owned();
        assert_eq!(another.close(false).unwrap(), None);
        assert!(!path.exists());
        drop(living);
        scratch(6).close(false).unwrap();
        let left = std::fs::read_dir(root.path()).unwrap().count();
        assert_eq!(left, 2, "what was kept, and what is somebody else's");
    }
}
