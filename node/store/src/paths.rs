//! The name of every file in a data directory: built and parsed here, nowhere else.
//!
//! ```text
//! {data}/LOCK                                  held by the running process
//! {data}/identity                              who this node is
//! {data}/incarnation                           what the first leader of a new life proposes
//! {data}/claim                                 by what word this directory took up an id of a restore order
//! {data}/promises                              what this node knows the others to have promised
//! {data}/surgery                               a recovery is being applied, or a restore made: no node starts here
//! {data}/groups/{topic}-{partition}/log/       the Raft log
//! {data}/groups/{topic}-{partition}/state.redb the state
//! {data}/groups/{topic}-{partition}/restored   how the state came here from a snapshot
//! {data}/groups/{topic}-{partition}/diverged   that this replica's state differed from the recorded one
//! {data}/tmp/                                  emptied at every start
//! {data}/objects/                              the default object store
//! {data}/aside/                                what was set aside, never deleted by us
//! ```

use std::path::{Path, PathBuf};

use confman_snapshot::model::GroupId;

/// The files of one data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataPaths {
    root: PathBuf,
}

impl DataPaths {
    /// The files under `root`; nothing is touched.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file whose lock says that the directory is in use.
    pub fn lock(&self) -> PathBuf {
        self.root.join("LOCK")
    }

    /// The file that says who the node is.
    pub fn identity(&self) -> PathBuf {
        self.root.join("identity")
    }

    /// What the first leader of a new life of the cluster proposes.
    pub fn incarnation(&self) -> PathBuf {
        self.root.join("incarnation")
    }

    /// The word by which this directory takes up an id of a restore order.
    pub fn claim(&self) -> PathBuf {
        self.root.join("claim")
    }

    /// What this node knows the others to have promised.
    pub fn promises(&self) -> PathBuf {
        self.root.join("promises")
    }

    /// The file that says that a recovery is being applied or undone, or a restore made.
    pub fn surgery(&self) -> PathBuf {
        self.root.join("surgery")
    }

    /// What a recovery builds before it puts it in place.
    pub fn repaired(&self) -> PathBuf {
        self.root.join("repaired")
    }

    /// The directory of all groups.
    pub fn groups(&self) -> PathBuf {
        self.root.join("groups")
    }

    /// Files that mean nothing after a crash.
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// The default object store.
    pub fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    /// What was set aside.
    pub fn aside(&self) -> PathBuf {
        self.root.join("aside")
    }

    /// The files of one group.
    pub fn group(&self, group: &GroupId) -> GroupPaths {
        let name = format!("{}-{}", group.topic(), group.partition());
        GroupPaths {
            dir: self.groups().join(&name),
            tmp: self.tmp(),
            name,
            group: group.clone(),
        }
    }

    /// The group whose directory has this name.
    pub fn parse_group_dir(name: &str) -> Option<GroupId> {
        let (topic, partition) = name.rsplit_once('-')?;
        let group: GroupId = format!("{topic}/{partition}").parse().ok()?;
        Some(group)
    }
}

/// A database while its first commit is made; it becomes `state` by a rename.
pub(crate) fn fresh(state: &Path) -> PathBuf {
    let mut name = state.as_os_str().to_owned();
    name.push(".fresh");
    PathBuf::from(name)
}

/// The files of one group on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPaths {
    group: GroupId,
    name: String,
    dir: PathBuf,
    tmp: PathBuf,
}

impl GroupPaths {
    /// The group.
    pub fn group(&self) -> &GroupId {
        &self.group
    }

    /// The group's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory of the Raft log.
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// The state.
    pub fn state(&self) -> PathBuf {
        self.dir.join("state.redb")
    }

    /// A state that is being built and will take the place of [`GroupPaths::state`].
    pub fn state_new(&self) -> PathBuf {
        self.dir.join("state.redb.new")
    }

    /// A log that is being made and will become [`GroupPaths::log`].
    pub fn log_new(&self) -> PathBuf {
        self.dir.join("log.new")
    }

    /// How the state came here from a snapshot.
    pub fn restored(&self) -> PathBuf {
        self.dir.join("restored")
    }

    /// That the state here differed from the recorded one; see [`crate::diverged`].
    pub fn diverged(&self) -> PathBuf {
        self.dir.join("diverged")
    }

    /// A temporary file of this group, `what` of [`DataPaths::tmp`].
    pub fn tmp_file(&self, what: &str) -> PathBuf {
        self.tmp.join(format!("{}.{what}", self.name))
    }

    /// The directory of temporary files.
    pub fn tmp_dir(&self) -> &Path {
        &self.tmp
    }
}

/// What a crash may leave beside a small file that was being written.
#[must_use]
pub fn half_written(path: &Path) -> PathBuf {
    path.with_extension("new")
}
