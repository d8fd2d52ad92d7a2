//! Whether the files with which a store is spoken to have changed.
//!
//! A certificate and its key are two files, so for a moment they may not belong together: what will not do is told when it has
//! stayed the same for two looks.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

/// How often the files are looked at, when the store is asked for anything at all.
const LOOK: Duration = Duration::from_secs(5);

/// What tells that a file was written anew: inode, bytes and time of the last change; none when it is not there.
type Stamp = Option<(u64, u64, i64, i64)>;

/// The files, and what they were like.
#[derive(Debug)]
pub(super) struct Watch {
    files: Vec<PathBuf>,
    taken: Vec<Stamp>,
    /// What a try to take them found, in vain.
    tried: Option<Vec<Stamp>>,
    looked: Instant,
}

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing to do.
    Same,
    /// Files that are to be taken.
    Changed(Vec<Stamp>),
}

impl Watch {
    pub(super) fn new(files: Vec<PathBuf>) -> Self {
        Self {
            taken: stamps(&files),
            files,
            tried: None,
            looked: Instant::now(),
        }
    }

    /// Looks, if it is time to.
    pub(super) fn look(&mut self, now: Instant) -> Seen {
        if now.saturating_duration_since(self.looked) < LOOK {
            return Seen::Same;
        }
        self.looked = now;
        let seen = stamps(&self.files);
        if seen == self.taken {
            self.tried = None;
            return Seen::Same;
        }
        Seen::Changed(seen)
    }

    /// They are in force.
    pub(super) fn took(&mut self, seen: Vec<Stamp>) {
        self.taken = seen;
        self.tried = None;
    }

    /// They will not do; whether that is worth telling now. It is told once for each change.
    pub(super) fn refused(&mut self, seen: Vec<Stamp>) -> bool {
        let stayed = self.tried.as_ref() == Some(&seen);
        if stayed {
            self.took(seen);
        } else {
            self.tried = Some(seen);
        }
        stayed
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file: &PathBuf| {
        let found = std::fs::metadata(file).ok()?;
        Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
    };
    files.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_taken_once_and_told_once_when_it_stays_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cert.pem");
        std::fs::write(&file, "one").unwrap();
        let mut watch = Watch::new(vec![file.clone()]);
        let mut now = Instant::now();
        let mut next = |watch: &mut Watch| {
            now += LOOK;
            watch.look(now)
        };
        assert_eq!(next(&mut watch), Seen::Same);
        std::fs::write(&file, "another").unwrap();
        let Seen::Changed(seen) = next(&mut watch) else {
            panic!("not seen")
        };
        watch.took(seen);
        assert_eq!(next(&mut watch), Seen::Same);

        std::fs::remove_file(&file).unwrap();
        let told: Vec<Option<bool>> = (0..4)
            .map(|_| match next(&mut watch) {
                Seen::Same => None,
                Seen::Changed(seen) => Some(watch.refused(seen)),
            })
            .collect();
        assert_eq!(told, [Some(false), Some(true), None, None]);
    }

    #[test]
    fn nobody_looks_at_files_for_every_request() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cert.pem");
        let mut watch = Watch::new(vec![file.clone()]);
        std::fs::write(&file, "now there").unwrap();
        let began = Instant::now();
        assert_eq!(watch.look(began), Seen::Same);
        assert!(matches!(watch.look(began + 2 * LOOK), Seen::Changed(_)));
    }
}
