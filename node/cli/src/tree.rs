//! A directory that files are written below, and never beside.
//!
//! Promises (X03): every name comes from the cluster and is taken for hostile. A name that is no plain file name is
//! refused; directories are opened one by one without following links; so nothing is written outside the root, even
//! when links lie in the way. A file appears whole, under its name, or not at all.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, renameat, unlinkat};

/// The directory below which files are written.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
}

/// A directory below the root.
#[derive(Debug)]
pub struct Place {
    dir: OwnedFd,
}

/// A file on its way; gone again unless it is committed.
#[derive(Debug)]
pub struct Pending<'a> {
    place: &'a Place,
    temp: String,
    committed: bool,
}

const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

impl Tree {
    /// Opens the root, which may be a link itself: it is what the user named.
    ///
    /// # Errors
    /// It is not there, or is no directory.
    pub fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            root: rustix::fs::open(root, flags, Mode::empty())?,
        })
    }

    /// The directory at these names below the root, made where it is not there.
    ///
    /// # Errors
    /// A name is no plain file name, or something else has it.
    pub fn place<'n>(&self, names: impl Iterator<Item = &'n str>) -> io::Result<Place> {
        let mut dir = self.root.try_clone()?;
        for name in names {
            check(name)?;
            match mkdirat(&dir, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
            dir = openat(&dir, name, DIRECTORY, Mode::empty()).map_err(|e| match e {
                rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP => io::Error::new(
                    io::ErrorKind::NotADirectory,
                    format!("{name:?} is there and is no directory"),
                ),
                e => e.into(),
            })?;
        }
        Ok(Place { dir })
    }
}

impl Place {
    /// The regular file of that name, if there is one.
    ///
    /// # Errors
    /// The name is no plain file name.
    pub fn existing(&self, name: &str) -> io::Result<Option<File>> {
        check(name)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match openat(&self.dir, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(_) => return Ok(None),
        };
        Ok(file.metadata()?.is_file().then_some(file))
    }

    /// A new file to write, under a name of its own.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn begin(&self, nonce: u64) -> io::Result<(Pending<'_>, File)> {
        let temp = format!(".confman-export-{nonce:016x}");
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(
            &self.dir,
            temp.as_str(),
            flags,
            Mode::from_raw_mode(0o644),
        )?);
        Ok((
            Pending {
                place: self,
                temp,
                committed: false,
            },
            file,
        ))
    }
}

impl Pending<'_> {
    /// Gives it its name, in place of what had it.
    ///
    /// # Errors
    /// The name is no plain file name, or a directory has it.
    pub fn commit(mut self, name: &str) -> io::Result<()> {
        check(name)?;
        renameat(&self.place.dir, self.temp.as_str(), &self.place.dir, name)?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.committed {
            // The error that led here is the one that is told.
            let _ = unlinkat(&self.place.dir, self.temp.as_str(), AtFlags::empty());
        }
    }
}

/// A plain file name: no separator, no way up.
fn check(name: &str) -> io::Result<()> {
    let why = match name {
        "" => "an empty name",
        "." | ".." => "a name that leads elsewhere",
        _ if name.contains('/') => "a name that holds a slash",
        _ if name.contains('\0') => "a name that holds a zero byte",
        _ => return Ok(()),
    };
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{name:?} is no file name: {why}"),
    ))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn write(tree: &Tree, path: &[&str], name: &str, text: &str) -> io::Result<()> {
        let place = tree.place(path.iter().copied())?;
        let (pending, mut file) = place.begin(7)?;
        file.write_all(text.as_bytes())?;
        pending.commit(name)
    }

    #[test]
    fn files_appear_whole_and_replace_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        write(&tree, &["a", "b"], "k", "one").unwrap();
        write(&tree, &["a", "b"], "k", "two").unwrap();
        assert_eq!(
            std::fs::read_to_string(dir.path().join("a/b/k")).unwrap(),
            "two"
        );
        let place = tree.place(["a"].into_iter()).unwrap();
        drop(place.begin(8).unwrap());
        let names: Vec<_> = std::fs::read_dir(dir.path().join("a"))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names, ["b"], "a file that was not committed is gone");
    }

    #[test]
    fn x03_nothing_is_written_outside_the_root() {
        let outside = tempfile::tempdir().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        for name in ["..", ".", "", "../x", "/x", "a/b", "a\0b"] {
            assert!(write(&tree, &[], name, "x").is_err(), "{name:?}");
            assert!(write(&tree, &[name], "k", "x").is_err(), "{name:?}");
        }
        std::os::unix::fs::symlink(outside.path(), dir.path().join("way")).unwrap();
        assert!(write(&tree, &["way"], "k", "x").is_err());
        std::fs::write(outside.path().join("victim"), "safe").unwrap();
        std::os::unix::fs::symlink(outside.path().join("victim"), dir.path().join("file")).unwrap();
        write(&tree, &[], "file", "new").unwrap();
        assert_eq!(
            std::fs::read_to_string(outside.path().join("victim")).unwrap(),
            "safe"
        );
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_in_the_place_of_a_directory_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        write(&tree, &[], "a", "x").unwrap();
        let error = write(&tree, &["a"], "k", "x").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("\"a\" is there and is no directory"),
            "{error}"
        );
        write(&tree, &["d"], "k", "x").unwrap();
        assert!(write(&tree, &[], "d", "x").is_err());
    }
}
