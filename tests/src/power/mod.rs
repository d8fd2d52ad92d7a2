//! Disks that forget what was not synced: what a machine's power loss leaves, without a machine.
//!
//! A small library (`undo.c`) that is preloaded into the nodes keeps what every write overwrites until the file was synced. After the processes were
//! killed, [`Power::lose`] puts that back. A real disk may keep more than that; it keeps the names of files as the system has them, so what a missing
//! sync of a directory would lose is not found.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use rustix::fs::{AtFlags, StatxFlags};
use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::skip::skipped;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/power/undo.c");
/// Offset, length and the file's length before, of `struct record`.
const HEAD_BYTES: usize = 24;

/// What the nodes of one test overwrite between two syncs, with room to spare.
const RECORDS_BYTES: u64 = 256 << 20;
/// Where this is set, a test that loses power must run: `.ci/run` sets it, because what proves a promise must not fall away unseen.
const REQUIRED: &str = "POWER_LOSS_REQUIRED";

/// Why power losses cannot be had here.
#[derive(Debug)]
struct Unavailable(String);

/// The disks of a cluster, and what they may forget.
#[derive(Debug)]
pub struct Power {
    library: TempDir,
    records: TempDir,
}

/// What a power loss took.
#[derive(Debug, Default, Clone, Copy)]
pub struct Lost {
    /// Files that are not as they were written.
    pub files: usize,
    /// Writes that were undone.
    pub writes: usize,
}

impl Power {
    /// What a test of that name loses its power with; none where that cannot be had, which is said.
    ///
    /// # Errors
    /// It cannot be had, and must be.
    pub fn of_test(test: &str) -> anyhow::Result<Option<Self>> {
        let why = match Self::build() {
            Ok(power) => return Ok(Some(power)),
            Err(why) => why,
        };
        may_skip(test, &why, std::env::var_os(REQUIRED).is_some())?;
        skipped(test, why.0);
        Ok(None)
    }

    /// Builds the library, and sees that it is loaded.
    ///
    /// # Errors
    /// There is no C compiler, nothing can be preloaded, or nothing has room for the records: power losses cannot be had.
    fn build() -> Result<Self, Unavailable> {
        if !cfg!(target_os = "linux") {
            return Err(Unavailable("nothing can be preloaded here".to_owned()));
        }
        let failed = |error| Unavailable(format!("make a directory: {error}"));
        // Not beside the records: containers mount memory so that nothing is executed from it.
        let library = tempfile::tempdir().map_err(failed)?;
        let power = Self {
            library,
            records: records_dir(
                &[Path::new("/dev/shm"), &std::env::temp_dir()],
                RECORDS_BYTES,
            )?,
        };
        let compiled = Command::new("cc")
            .args([
                "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o",
            ])
            .arg(power.library())
            .arg(SOURCE)
            .output()
            .map_err(|error| Unavailable(format!("no C compiler: {error}")))?;
        // One that does not compile is a mistake in it, and no reason to skip anything.
        assert!(
            compiled.status.success(),
            "{}",
            String::from_utf8_lossy(&compiled.stderr)
        );
        power.check_loaded()?;
        Ok(power)
    }

    fn library(&self) -> PathBuf {
        self.library.path().join("undo.so")
    }

    /// The loader only warns of a library that it cannot use, and the program runs without it.
    fn check_loaded(&self) -> Result<(), Unavailable> {
        let path = self.library();
        let ran = Command::new("cat")
            .arg("/proc/self/maps")
            .env("LD_PRELOAD", &path)
            .env("UNDO_DIR", self.records.path())
            .env("UNDO_UNDER", self.library.path())
            .output()
            .map_err(|error| Unavailable(format!("run cat: {error}")))?;
        let maps = String::from_utf8_lossy(&ran.stdout);
        let mapped = resolved(&path).map_err(|error| Unavailable(error.to_string()))?;
        if maps.contains(&*mapped.to_string_lossy()) {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&ran.stderr);
        Err(Unavailable(format!(
            "{} is not loaded: {why}",
            path.display()
        )))
    }

    /// Gives every node such a disk, from its next start on.
    ///
    /// # Errors
    /// Its directory cannot be made.
    pub fn attach(&self, cluster: &Cluster) -> io::Result<()> {
        for node in cluster.nodes() {
            let undo = self.undo(&node.data_dir);
            fs::create_dir_all(&undo)?;
            node.set_env("LD_PRELOAD", &self.library().to_string_lossy());
            node.set_env("UNDO_DIR", &undo.to_string_lossy());
            let under = resolved(&node.data_dir)?;
            node.set_env("UNDO_UNDER", &under.to_string_lossy());
        }
        Ok(())
    }

    /// What every node's disk loses that has lost its power: the process is gone, and no other one has opened the directory.
    ///
    /// # Errors
    /// A file cannot be put back.
    pub fn lose(&self, data_dir: &Path) -> anyhow::Result<Lost> {
        let undo = self.undo(data_dir);
        let mut lost = Lost::default();
        for file in files_in(data_dir)? {
            let record = undo.join(name_of(&file)?);
            let bytes = match fs::read(&record) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).context("read what was overwritten"),
            };
            let writes = records(&bytes).with_context(|| format!("read {}", record.display()))?;
            if writes.is_empty() {
                continue;
            }
            put_back(&file, &writes).with_context(|| format!("put {} back", file.display()))?;
            lost.files += 1;
            lost.writes += writes.len();
        }
        // Of files that are gone too.
        fs::remove_dir_all(&undo)?;
        fs::create_dir_all(&undo)?;
        Ok(lost)
    }

    fn undo(&self, data_dir: &Path) -> PathBuf {
        let name = data_dir.to_string_lossy().replace('/', "_");
        self.records.path().join(name)
    }
}

/// Where what is overwritten is kept: at the first of these places that has room. Memory comes first, because that costs no disk of its own.
fn records_dir(places: &[&Path], needed_bytes: u64) -> Result<TempDir, Unavailable> {
    let mut why = Vec::new();
    for place in places {
        match dir_with_room(place, needed_bytes) {
            Ok(dir) => return Ok(dir),
            Err(error) => why.push(format!("{}: {error}", place.display())),
        }
    }
    Err(Unavailable(why.join("; ")))
}

fn dir_with_room(place: &Path, needed_bytes: u64) -> anyhow::Result<TempDir> {
    let space = rustix::fs::statvfs(place)?;
    let free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
    if free_bytes < needed_bytes {
        bail!("{free_bytes} bytes are free, {needed_bytes} are needed");
    }
    Ok(tempfile::tempdir_in(place)?)
}

/// As the system names it to a process that has it open: without the symbolic links on the way, of which `TMPDIR` may have some.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    match (path.canonicalize(), path.parent(), path.file_name()) {
        // It is made later.
        (Err(error), Some(parent), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
            Ok(parent.canonicalize()?.join(name))
        }
        (found, ..) => found,
    }
}

/// Whether a test of that name may fall away.
fn may_skip(test: &str, Unavailable(why): &Unavailable, required: bool) -> anyhow::Result<()> {
    if required {
        bail!("{test} must run here, {REQUIRED} says so, and cannot: {why}");
    }
    Ok(())
}

/// Regular files at any depth.
fn files_in(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            match entry.file_type()? {
                kind if kind.is_dir() => dirs.push(entry.path()),
                kind if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    Ok(files)
}

/// As undo.c names the record of a file.
fn name_of(file: &Path) -> io::Result<String> {
    let mask = StatxFlags::INO | StatxFlags::BTIME;
    let at = rustix::fs::statx(rustix::fs::CWD, file, AtFlags::SYMLINK_NOFOLLOW, mask)?;
    let made = at.stx_btime;
    Ok(format!(
        "{:x}-{:x}-{:x}",
        at.stx_ino, made.tv_sec, made.tv_nsec
    ))
}

/// One write, as it can be undone.
#[derive(Debug, PartialEq, Eq)]
struct Write<'a> {
    offset: u64,
    bytes: &'a [u8],
    file_bytes: u64,
}

fn records(mut bytes: &[u8]) -> anyhow::Result<Vec<Write<'_>>> {
    let mut writes = Vec::new();
    while !bytes.is_empty() {
        let (head, rest) = bytes
            .split_at_checked(HEAD_BYTES)
            .context("a torn record")?;
        let number = |at: usize| -> anyhow::Result<u64> {
            let bytes = head.get(at..at + 8).context("a torn record")?;
            Ok(u64::from_ne_bytes(bytes.try_into()?))
        };
        let kept = usize::try_from(number(8)?)?;
        let (kept, rest) = rest.split_at_checked(kept).context("a torn record")?;
        writes.push(Write {
            offset: number(0)?,
            bytes: kept,
            file_bytes: number(16)?,
        });
        bytes = rest;
    }
    Ok(writes)
}

/// Undoes the writes, the last one first.
fn put_back(file: &Path, writes: &[Write<'_>]) -> anyhow::Result<()> {
    let file = File::options().write(true).open(file)?;
    for write in writes.iter().rev() {
        file.write_all_at(write.bytes, write.offset)?;
        file.set_len(write.file_bytes)?;
    }
    file.sync_all()?;
    Ok(())
}

/// Kills all nodes at once, and takes from each disk what was not synced.
///
/// # Errors
/// One cannot be killed, or put back.
pub fn lose_all(power: &Power, cluster: &Cluster) -> anyhow::Result<Lost> {
    cluster.kill_all()?;
    let mut all = Lost::default();
    for node in cluster.nodes() {
        if node.pid().is_some() {
            bail!("{} lives", node.name);
        }
        let lost = power.lose(&node.data_dir)?;
        eprintln!("{} lost {lost:?}", node.name);
        all.files += lost.files;
        all.writes += lost.writes;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both are reasons to skip a test, and not to fail it, unless it must run.
    #[test]
    fn where_nothing_has_room_or_the_library_is_not_loaded_no_power_can_be_lost()
    -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let Err(short) = records_dir(&[dir.path()], u64::MAX) else {
            bail!("it fits");
        };
        assert!(short.0.contains("are needed"), "{short:?}");
        may_skip("this", &short, false)?;
        let refused = may_skip("this", &short, true).unwrap_err().to_string();
        assert!(
            refused.contains("this must run") && refused.contains(&short.0),
            "{refused}"
        );
        let power = Power {
            library: tempfile::tempdir()?,
            records: dir,
        };
        fs::write(power.library(), "no library")?;
        let Err(Unavailable(why)) = power.check_loaded() else {
            bail!("it was loaded");
        };
        assert!(why.contains("is not loaded"), "{why}");
        Ok(())
    }

    /// Containers have little memory, or none of that kind.
    #[test]
    fn where_memory_is_short_or_absent_the_records_are_on_disk() -> anyhow::Result<()> {
        let disk = tempfile::tempdir()?;
        let absent = disk.path().join("no memory");
        // Of no length, whatever is asked for; where it is not to be had it is absent too.
        let full = Path::new("/proc");
        for memory in [&*absent, full] {
            let found = records_dir(&[memory, disk.path()], 1);
            let found = found.map_err(|Unavailable(why)| anyhow::anyhow!(why))?;
            assert_eq!(found.path().parent(), Some(disk.path()));
        }
        Ok(())
    }

    /// `TMPDIR` may be a symbolic link, and the system names files without it.
    #[test]
    fn a_library_and_a_disk_behind_a_symbolic_link_are_known() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        fs::create_dir(dir.path().join("real"))?;
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("real"), &link)?;
        let real = dir.path().canonicalize()?.join("real");
        for made in [false, true] {
            if made {
                fs::create_dir(link.join("data"))?;
            }
            assert_eq!(resolved(&link.join("data"))?, real.join("data"));
        }
        let Some(built) = Power::of_test("a_library_behind_a_symbolic_link_is_loaded")? else {
            return Ok(());
        };
        let power = Power {
            library: tempfile::tempdir_in(&link)?,
            records: tempfile::tempdir()?,
        };
        fs::copy(built.library(), power.library())?;
        let loaded = power.check_loaded();
        loaded.map_err(|Unavailable(why)| anyhow::anyhow!(why))
    }

    /// What a program that was killed has left, of what it wrote with and without a sync.
    #[test]
    fn what_was_synced_stays_and_nothing_else() -> anyhow::Result<()> {
        let Some(power) = Power::of_test("what_was_synced_stays_and_nothing_else")? else {
            return Ok(());
        };
        let data = tempfile::tempdir()?;
        let undo = power.undo(data.path());
        fs::create_dir_all(&undo)?;
        // Python has every one of these calls; `dd` and a shell have fewer.
        let script = r#"
import os, sys
os.chdir(sys.argv[1])
f = os.open("a", os.O_RDWR | os.O_CREAT)
os.write(f, b"synced, "); os.write(f, b"all of it"); os.fdatasync(f)
os.write(f, b" and more"); os.pwrite(f, b"SYN", 0); os.ftruncate(f, 5); os.writev(f, [b"x", b"y"])
g = os.open("new", os.O_RDWR | os.O_CREAT); os.write(g, b"gone")
os.rename("new", "renamed")
h = os.open("grown", os.O_RDWR | os.O_CREAT); os.write(h, b"12345"); os.fsync(h); os.ftruncate(h, 100)
i = os.open("appended", os.O_WRONLY | os.O_CREAT | os.O_APPEND); os.write(i, b"one"); os.fsync(i); os.write(i, b"two")
os.kill(os.getpid(), 9)
"#;
        let ran = Command::new("python3")
            .args(["-c", script])
            .arg(data.path())
            .env("LD_PRELOAD", power.library())
            .env("UNDO_DIR", &undo)
            .env("UNDO_UNDER", resolved(data.path())?)
            .status();
        match ran {
            Ok(status) => assert!(status.code().is_none(), "{status}"),
            Err(error) => {
                skipped(
                    "what_was_synced_stays_and_nothing_else",
                    format!("no python3: {error}"),
                );
                return Ok(());
            }
        }
        let lost = power.lose(data.path())?;
        assert_eq!((lost.files, lost.writes), (4, 7), "{lost:?}");
        let read = |name: &str| fs::read_to_string(data.path().join(name));
        assert_eq!(read("a")?, "synced, all of it");
        assert_eq!(read("renamed")?, "");
        assert_eq!(read("grown")?, "12345");
        assert_eq!(read("appended")?, "one");
        // Once.
        assert_eq!(power.lose(data.path())?.files, 0);
        Ok(())
    }
}
