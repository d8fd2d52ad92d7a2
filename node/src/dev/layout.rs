//! The directory of `confman dev`: every file name in it, its mark, and its lock.
//!
//! The mark is `cluster.json`, which also remembers how the cluster was born (ports, shards, store), so that a
//! second run finds its data. [`Layout::clear`] removes exactly the names listed here, and only beside that mark.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::Told;

/// What `confmanDev` in the mark must say.
const MARK_VERSION: u32 = 1;
/// A mark is small; whatever is larger is not ours.
const MARK_BYTES_MAX: u64 = 64 * 1024;

/// The paths in one directory.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}

/// What the directory remembers of its cluster's birth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Birth {
    /// Version of this file, and the mark that `confman dev` made the directory.
    pub confman_dev: u32,
    /// API port of each node, in order.
    pub api_ports: Vec<u16>,
    /// Peer port of each node, in order.
    pub peer_ports: Vec<u16>,
    /// Number of configuration groups.
    pub shards: u32,
    /// The user's object store, or none for the built-in S3 server.
    pub object_store: Option<String>,
    /// Secret of the built-in S3 server.
    pub s3_secret_key: String,
    /// Whether the nodes speak TLS.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tls: bool,
}

impl Birth {
    /// A mark of this version.
    pub(super) fn new(
        api_ports: Vec<u16>,
        peer_ports: Vec<u16>,
        shards: u32,
        object_store: Option<String>,
        s3_secret_key: String,
    ) -> Self {
        Self {
            confman_dev: MARK_VERSION,
            api_ports,
            peer_ports,
            shards,
            object_store,
            s3_secret_key,
            tls: false,
        }
    }
}

/// What was found where the cluster is to live.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing, or an empty directory.
    Nothing,
    /// A cluster of an earlier run.
    Cluster(Birth),
}

impl Layout {
    /// The layout of `dir`, made absolute so that children find it too.
    pub(super) fn new(dir: &Path) -> anyhow::Result<Self> {
        let root = std::path::absolute(dir)
            .with_context(|| format!("resolve directory {}", dir.display()))?;
        Ok(Self { root })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }
    pub(super) fn mark(&self) -> PathBuf {
        self.root.join("cluster.json")
    }
    pub(super) fn lock_file(&self) -> PathBuf {
        self.root.join("dev.lock")
    }
    pub(super) fn document(&self) -> PathBuf {
        self.root.join("dev.json")
    }
    pub(super) fn socket(&self) -> PathBuf {
        self.root.join("dev.sock")
    }
    pub(super) fn api_key(&self) -> PathBuf {
        self.root.join("api-key")
    }
    pub(super) fn api_keys(&self) -> PathBuf {
        self.root.join("api-keys.json")
    }
    pub(super) fn cluster_token(&self) -> PathBuf {
        self.root.join("cluster-token")
    }
    pub(super) fn s3_root(&self) -> PathBuf {
        self.root.join("s3")
    }
    pub(super) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }
    pub(super) fn log(&self, node: &str) -> PathBuf {
        self.logs().join(format!("{node}.log"))
    }
    pub(super) fn tls(&self) -> PathBuf {
        self.root.join("tls")
    }
    /// The authority of the nodes' certificates.
    pub(super) fn ca(&self) -> PathBuf {
        self.tls().join("ca.pem")
    }
    /// A node's certificate.
    pub(super) fn cert(&self, node: &str) -> PathBuf {
        self.tls().join(format!("{node}.pem"))
    }
    /// Its private key.
    pub(super) fn cert_key(&self, node: &str) -> PathBuf {
        self.tls().join(format!("{node}-key.pem"))
    }
    fn nodes(&self) -> PathBuf {
        self.root.join("nodes")
    }
    pub(super) fn data(&self, node: &str) -> PathBuf {
        self.nodes().join(node)
    }

    /// What is there now. A directory that holds other people's files is an error: nothing is put among them.
    pub(super) fn inspect(&self) -> anyhow::Result<Found> {
        match read_bounded(&self.mark(), MARK_BYTES_MAX) {
            Ok(text) => {
                let birth: Birth = serde_json::from_str(&text).with_context(|| {
                    format!(
                        "read {}, which should be the mark of `confman dev`",
                        self.mark().display()
                    )
                })?;
                if birth.confman_dev != MARK_VERSION
                    || birth.api_ports.len() != birth.peer_ports.len()
                {
                    bail!(
                        "{} has version {}, this program knows {MARK_VERSION}\nhint: use the confman that made it, or another --dir",
                        self.mark().display(),
                        birth.confman_dev
                    );
                }
                Ok(Found::Cluster(birth))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The lock is taken before the mark is written; a run that died between the two left only these.
                let ours = [self.lock_file(), half_written(&self.mark())];
                if !self.entries_but(&ours)?.is_empty() {
                    bail!(
                        "{} is not empty and was not made by `confman dev`\nhint: choose another directory with --dir",
                        self.root.display()
                    );
                }
                Ok(Found::Nothing)
            }
            Err(error) => Err(error).with_context(|| format!("read {}", self.mark().display())),
        }
    }

    /// The names of what is in the directory and not among these.
    fn entries_but(&self, known: &[PathBuf]) -> anyhow::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(error).with_context(|| format!("list {}", self.root.display()));
            }
        };
        let mut others = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("list {}", self.root.display()))?;
            if !known.contains(&entry.path()) {
                let name = entry.file_name().to_string_lossy().into_owned();
                others.push(name.escape_debug().to_string());
            }
        }
        others.sort();
        Ok(others)
    }

    /// Makes the directory if need be and takes its lock, held until the file is dropped.
    pub(super) fn lock(&self) -> anyhow::Result<File> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.root)
            .with_context(|| format!("make directory {}", self.root.display()))?;
        let path = self.lock_file();
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Told::refused(format!(
                "a `confman dev` runs in {} already\nhint: stop it with `confman dev stop --dir {}`, or choose another --dir",
                self.root.display(),
                self.root.display()
            ))
            .into()),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("lock {}", path.display()))
            }
        }
    }

    /// Removes what an earlier run made; the mark goes last, so that a removal that was cut short can be repeated.
    pub(super) fn clear(&self) -> anyhow::Result<()> {
        // Else what they stand among would be gone, and the directory refused as somebody else's from then on.
        let foreign = self.entries_but(&self.own())?;
        if !foreign.is_empty() {
            bail!(
                "{} also holds what `confman dev` did not make: {}; nothing was removed\nhint: move it away, or choose another directory with --dir",
                self.root.display(),
                foreign.join(", ")
            );
        }
        for dir in self.own_dirs() {
            remove(fs::remove_dir_all(&dir), &dir)?;
        }
        for file in self.own_files() {
            let half = half_written(&file);
            remove(fs::remove_file(&half), &half)?;
            remove(fs::remove_file(&file), &file)?;
        }
        Ok(())
    }

    fn own_dirs(&self) -> [PathBuf; 4] {
        [self.nodes(), self.s3_root(), self.logs(), self.tls()]
    }

    /// The mark last.
    fn own_files(&self) -> [PathBuf; 6] {
        [
            self.document(),
            self.socket(),
            self.api_key(),
            self.api_keys(),
            self.cluster_token(),
            self.mark(),
        ]
    }

    /// Everything that a run makes in the directory.
    fn own(&self) -> Vec<PathBuf> {
        let files = self.own_files();
        let half = files.iter().map(|file| half_written(file));
        let mut own: Vec<PathBuf> = half.chain(self.own_dirs()).collect();
        own.extend(files);
        own.push(self.lock_file());
        own
    }

    /// Empties one node's data directory, keeping the directory itself.
    pub(super) fn wipe(&self, node: &str) -> anyhow::Result<()> {
        let dir = self.data(node);
        for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let entry = entry.with_context(|| format!("list {}", dir.display()))?;
            let kind = entry
                .file_type()
                .with_context(|| format!("inspect {}", entry.path().display()))?;
            let removed = if kind.is_dir() {
                fs::remove_dir_all(entry.path())
            } else {
                fs::remove_file(entry.path())
            };
            remove(removed, &entry.path())?;
        }
        Ok(())
    }

    /// Makes the directories of a cluster with these nodes.
    pub(super) fn make_dirs<'a>(&self, nodes: impl Iterator<Item = &'a str>) -> anyhow::Result<()> {
        let dirs = [self.s3_root(), self.logs(), self.tls()]
            .into_iter()
            .chain(nodes.map(|node| self.data(node)));
        for dir in dirs {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&dir)
                .with_context(|| format!("make directory {}", dir.display()))?;
        }
        Ok(())
    }

    /// Writes the mark.
    pub(super) fn write_mark(&self, birth: &Birth) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(birth).context("encode the mark")?;
        write_private(&self.mark(), &text)
    }
}

/// Reads a secret that an earlier run wrote; none if there is no such file.
pub(super) fn read_secret(path: &Path) -> anyhow::Result<Option<String>> {
    match read_bounded(path, MARK_BYTES_MAX) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Writes a file whole or not at all, readable by its owner only.
pub(crate) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let temporary = half_written(path);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// Where a file is put together before it gets its name.
fn half_written(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    File::open(path)?
        .take(bytes_max)
        .read_to_string(&mut text)?;
    Ok(text)
}

fn remove(result: io::Result<()>, path: &Path) -> anyhow::Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("remove {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn birth() -> Birth {
        Birth::new(
            vec![6100, 6200],
            vec![6101, 6201],
            1,
            None,
            "secret".to_owned(),
        )
    }

    #[test]
    fn a_directory_of_someone_else_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.txt"), "years of work").unwrap();
        let layout = Layout::new(dir.path()).unwrap();
        let error = layout.inspect().unwrap_err().to_string();
        assert!(error.contains("was not made by `confman dev`"), "{error}");
        assert!(error.contains("hint:"), "{error}");
        assert_eq!(
            fs::read_to_string(dir.path().join("thesis.txt")).unwrap(),
            "years of work"
        );
    }

    #[test]
    fn a_mark_of_someone_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path()).unwrap();
        fs::write(layout.mark(), r#"{"nodes": 3}"#).unwrap();
        assert!(layout.inspect().is_err());
    }

    #[test]
    fn clear_removes_what_was_made_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path()).unwrap();
        layout.make_dirs(["node1", "node2"].into_iter()).unwrap();
        layout.write_mark(&birth()).unwrap();
        write_private(&layout.api_key(), "k").unwrap();
        // Left by a run that was killed while it wrote.
        fs::write(half_written(&layout.document()), "{").unwrap();
        fs::write(layout.data("node1").join("state.redb"), "x").unwrap();
        drop(layout.lock().unwrap());
        assert!(matches!(layout.inspect().unwrap(), Found::Cluster(found) if found == birth()));
        layout.clear().unwrap();
        let left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left, ["dev.lock"]);
        layout.clear().unwrap();
    }

    #[test]
    fn nothing_is_removed_beside_the_files_of_someone_else() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path()).unwrap();
        layout.make_dirs(["node1"].into_iter()).unwrap();
        layout.write_mark(&birth()).unwrap();
        let kept = layout.data("node1").join("state.redb");
        fs::write(&kept, "x").unwrap();
        let notes = dir.path().join("notes.txt");
        fs::write(&notes, "mine").unwrap();
        let error = layout.clear().unwrap_err().to_string();
        assert!(
            error.contains("notes.txt") && error.contains("hint:"),
            "{error}"
        );
        assert!(kept.exists() && notes.exists());
        // The cluster is still there to be gone on with, and can be removed once the notes are elsewhere.
        assert!(matches!(layout.inspect().unwrap(), Found::Cluster(_)));
        fs::remove_file(&notes).unwrap();
        layout.clear().unwrap();
        assert!(matches!(layout.inspect().unwrap(), Found::Nothing));
    }

    #[test]
    fn only_one_run_holds_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(&dir.path().join("deep/er")).unwrap();
        let held = layout.lock().unwrap();
        let error = layout.lock().unwrap_err().to_string();
        assert!(error.contains("runs in"), "{error}");
        fs::write(half_written(&layout.mark()), "{").unwrap();
        assert!(matches!(layout.inspect().unwrap(), Found::Nothing));
        drop(held);
        layout.lock().unwrap();
    }

    #[test]
    fn wipe_keeps_the_directory_itself() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path()).unwrap();
        layout.make_dirs(["node1"].into_iter()).unwrap();
        fs::create_dir_all(layout.data("node1").join("groups/config-0")).unwrap();
        fs::write(layout.data("node1").join("identity"), "x").unwrap();
        layout.wipe("node1").unwrap();
        assert_eq!(fs::read_dir(layout.data("node1")).unwrap().count(), 0);
    }

    #[test]
    fn secrets_are_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster-token");
        assert_eq!(read_secret(&path).unwrap(), None);
        write_private(&path, "s3cr3t").unwrap();
        assert_eq!(read_secret(&path).unwrap().as_deref(), Some("s3cr3t"));
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
