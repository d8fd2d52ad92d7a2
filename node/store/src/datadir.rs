//! The data directory: its lock, and who the node is.
//!
//! Promises: one process at a time; the identity is whole or it is refused with what was found; nothing is deleted
//! (but `tmp`); an identity whose data is gone never serves again. It does not repair anything.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use confman_snapshot::model::{ClusterId, GroupId, NodeInfo};
use prost::Message;
use rustix::fs::FlockOperation;

use crate::command::BeginIncarnation;
use crate::error::StoreError;
use crate::files::{Format, read_sealed, seal, sync_dir, write_atomically};
use crate::paths::DataPaths;

/// How far a node has come in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum IdentityState {
    /// The node has an id; its groups are not all there yet.
    Formed = 0,
    /// The node has started with all its groups at least once.
    Initialized = 1,
    /// The node met a newer incarnation of its cluster: it serves nothing, its data is kept.
    Fenced = 2,
}

/// A node as it was at the cluster's birth or at the join of this node.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct MemberAtBirth {
    /// The node's id.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Name and addresses.
    #[prost(message, optional, tag = "2")]
    pub info: Option<NodeInfo>,
}

/// Who a node is.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Identity {
    /// The cluster's UUID.
    #[prost(string, tag = "1")]
    pub cluster_uuid: String,
    /// The life of the cluster that this node's data belongs to.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// The cluster's id for the node.
    #[prost(uint64, tag = "3")]
    pub node_id: u64,
    /// The operator's name for the node.
    #[prost(string, tag = "4")]
    pub name: String,
    /// How many `config/` groups there are.
    #[prost(uint32, tag = "5")]
    pub shards: u32,
    /// Members of the cluster when this node got its id: where it looks for the others.
    #[prost(message, repeated, tag = "6")]
    pub members: Vec<MemberAtBirth>,
    /// How far the node has come.
    #[prost(enumeration = "IdentityState", tag = "7")]
    pub state: i32,
    /// Why the node is fenced.
    #[prost(string, tag = "8")]
    pub reason: String,
    /// When this was written first, microseconds since the epoch, UTC.
    #[prost(int64, tag = "9")]
    pub created_us: i64,
    /// Which of several lives of that number: empty at birth, after a recovery the id of its plan. Two operators who
    /// recover two survivors make two lives with one number, which must never meet.
    #[prost(string, tag = "10")]
    pub lineage: String,
    /// The highest incarnation that was ever begun from this directory, also by a recovery that was undone: the next
    /// one is higher.
    #[prost(uint64, tag = "11")]
    pub incarnation_floor: u64,
}

impl Identity {
    /// The cluster and its life.
    pub fn cluster(&self) -> ClusterId {
        ClusterId::new(self.cluster_uuid.clone(), self.incarnation)
    }
}

/// What is in a data directory.
#[derive(Debug, Clone, PartialEq)]
pub enum Facts {
    /// Nothing that says who the node is, and no data.
    Empty,
    /// A node's data.
    Good(Identity),
    /// Something is wrong; what, and what to do.
    Damaged(String),
}

pub(crate) const IDENTITY: Format = Format {
    magic: *b"CFMIDENT",
    version: 1,
    hint: "restore the file, or run `drtool set-aside` on the data directory and start the node: it rejoins under a new id",
};

pub(crate) const INCARNATION: Format = Format {
    magic: *b"CFMINCRN",
    version: 1,
    hint: "run `drtool recover apply` with the same plan again; it writes the file anew",
};

const CLAIM: Format = Format {
    magic: *b"CFMCLAIM",
    version: 1,
    hint: "run `drtool set-aside` on the data directory and start the node: it asks the restore order, or the living cluster, again",
};

pub(crate) const SURGERY: Format = Format {
    magic: *b"CFMSURGE",
    version: 1,
    hint: "run `drtool recover apply` or `drtool recover undo` with the plan that was being applied",
};

/// What lies in a directory while a recovery is being applied to it or undone, or a restore made in it: the node does not
/// start on it.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Surgery {
    /// The plan that is being carried out.
    #[prost(string, tag = "1")]
    pub plan_id: String,
    /// The command that goes on with it, for people.
    #[prost(string, tag = "2")]
    pub command: String,
    /// Whether the plan is being undone.
    #[prost(bool, tag = "3")]
    pub undo: bool,
    /// Whether a restore is being made here by a tool: then all that lies beside this file is its half product.
    #[prost(bool, tag = "5")]
    pub restore: bool,
    /// Whether the node whose directory it is begins the new life. Not its name: a name outlives the disk, and two
    /// directories may have one.
    #[prost(bool, tag = "6")]
    pub survivor: bool,
}

impl Surgery {
    /// What was begun, for people.
    pub fn what(&self) -> String {
        match (self.restore, self.undo) {
            (true, _) => "a restore into this directory".to_owned(),
            (false, true) => format!("undoing recovery {}", self.plan_id),
            (false, false) => format!("recovery {}", self.plan_id),
        }
    }
}

/// The word by which a directory takes up an id of a restore order: two directories of one name have two.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Claim {
    /// The plan of the order.
    #[prost(string, tag = "1")]
    pub plan_id: String,
    /// Random.
    #[prost(string, tag = "2")]
    pub nonce: String,
}

/// A data directory that this process holds the lock of.
#[derive(Debug)]
pub struct DataDir {
    paths: DataPaths,
    /// Locked for as long as it is open.
    _lock: File,
}

impl DataDir {
    /// Makes the directory if it is not there (0700), takes its lock, and empties its `tmp`. The directory itself may
    /// be a symbolic link; what is in it may not.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process has it; otherwise what the system said.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(StoreError::io("create", path))?;
        let root = path
            .canonicalize()
            .map_err(StoreError::io("resolve", path))?;
        let paths = DataPaths::new(root);
        let lock = lock(&paths)?;
        for inside in [paths.identity(), paths.groups(), paths.tmp(), paths.aside()] {
            refuse_link(&inside)?;
        }
        let tmp = paths.tmp();
        match std::fs::remove_dir_all(&tmp) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::io("empty", &tmp)(e));
            }
            _ => {}
        }
        for dir in [tmp, paths.groups()] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&dir)
                .map_err(StoreError::io("create", &dir))?;
        }
        sync_dir(paths.root())?;
        Ok(Self { paths, _lock: lock })
    }

    /// The names of its files.
    pub fn paths(&self) -> &DataPaths {
        &self.paths
    }

    /// What is in it.
    ///
    /// # Errors
    /// When the directory cannot be read; damage is a finding, not an error.
    pub fn inspect(&self) -> Result<Facts, StoreError> {
        match self.read_surgery() {
            Ok(None) => {}
            Ok(Some(surgery)) => {
                return Ok(Facts::Damaged(format!(
                    "{:?}: {} was begun here and has not ended\nhint: {}",
                    self.paths.surgery(),
                    surgery.what(),
                    surgery.command
                )));
            }
            Err(error) => return Ok(Facts::Damaged(error.to_string())),
        }
        let groups = self.groups_with_data()?;
        match self.read_identity() {
            Ok(None) if groups.is_empty() => Ok(Facts::Empty),
            Ok(None) => Ok(Facts::Damaged(format!(
                "{:?} is missing, but there is data of {}\nhint: {}",
                self.paths.identity(),
                groups
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", "),
                IDENTITY.hint,
            ))),
            Ok(Some(identity)) => Ok(self.check_groups(identity, &groups)),
            Err(
                error @ (StoreError::Damaged { .. }
                | StoreError::NewerVersion { .. }
                | StoreError::Foreign { .. }),
            ) => Ok(Facts::Damaged(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// A node that was up with all its groups must have them all: one that is missing would vote as if new.
    fn check_groups(&self, identity: Identity, groups: &[GroupId]) -> Facts {
        if identity.state() == IdentityState::Formed {
            return Facts::Good(identity);
        }
        let expected =
            std::iter::once(GroupId::meta()).chain((0..identity.shards).map(GroupId::config));
        let missing: Vec<String> = expected
            .filter(|group| !groups.contains(group))
            .map(|group| group.to_string())
            .collect();
        if missing.is_empty() {
            return Facts::Good(identity);
        }
        Facts::Damaged(format!(
            "{:?} has no data of {}, which node {} had\nhint: {}",
            self.paths.groups(),
            missing.join(", "),
            identity.node_id,
            IDENTITY.hint,
        ))
    }

    /// The groups that have a state here.
    fn groups_with_data(&self) -> Result<Vec<GroupId>, StoreError> {
        let dir = self.paths.groups();
        let mut groups = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(StoreError::io("list", &dir))? {
            let entry = entry.map_err(StoreError::io("list", &dir))?;
            let name = entry.file_name();
            let Some(group) = name.to_str().and_then(DataPaths::parse_group_dir) else {
                continue;
            };
            let paths = self.paths.group(&group);
            if paths.state().exists() || paths.log().exists() {
                groups.push(group);
            }
        }
        groups.sort();
        Ok(groups)
    }

    /// Who the node is; none in an empty directory.
    ///
    /// # Errors
    /// [`StoreError`] when the file is there and is not whole, ours, or of this version.
    pub fn read_identity(&self) -> Result<Option<Identity>, StoreError> {
        let path = self.paths.identity();
        let Some(body) = read_sealed(&path, IDENTITY)? else {
            return Ok(None);
        };
        decode_identity(&path, &body).map(Some)
    }

    /// Says who the node is: atomically, and durably when this returns.
    ///
    /// # Errors
    /// What the system said.
    pub fn write_identity(&self, identity: &Identity) -> Result<(), StoreError> {
        write_atomically(
            &self.paths.identity(),
            &seal(IDENTITY, &identity.encode_to_vec()),
        )
    }

    /// What the first leader of a new life proposes; none where the cluster is in its first life, or this node came
    /// to it later.
    ///
    /// # Errors
    /// [`StoreError`] when the file is there and is not whole, or is of a newer version.
    pub fn read_incarnation(&self) -> Result<Option<BeginIncarnation>, StoreError> {
        read_message(&self.paths.incarnation(), INCARNATION)
    }

    /// Writes down what the first leader of a new life proposes: atomically, and durably when this returns.
    ///
    /// # Errors
    /// What the system said.
    pub fn write_incarnation(&self, begin: &BeginIncarnation) -> Result<(), StoreError> {
        let bytes = seal(INCARNATION, &begin.encode_to_vec());
        write_atomically(&self.paths.incarnation(), &bytes)
    }

    /// The word by which this directory takes up an id of a restore order; none where there was no order.
    ///
    /// # Errors
    /// [`StoreError`] when the file is there and is not whole, or is of a newer version.
    pub fn read_claim(&self) -> Result<Option<Claim>, StoreError> {
        read_message(&self.paths.claim(), CLAIM)
    }

    /// Writes that word down, before the identity that it is for: atomically, and durably when this returns.
    ///
    /// # Errors
    /// What the system said.
    pub fn write_claim(&self, claim: &Claim) -> Result<(), StoreError> {
        write_atomically(&self.paths.claim(), &seal(CLAIM, &claim.encode_to_vec()))
    }

    /// The recovery that is being carried out here, if any.
    ///
    /// # Errors
    /// [`StoreError`] when the file is there and is not whole, or is of a newer version.
    pub fn read_surgery(&self) -> Result<Option<Surgery>, StoreError> {
        read_message(&self.paths.surgery(), SURGERY)
    }

    /// Says that a recovery is being carried out here: from now on no node starts on it. Durable when this returns.
    ///
    /// # Errors
    /// What the system said.
    pub fn begin_surgery(&self, surgery: &Surgery) -> Result<(), StoreError> {
        write_atomically(
            &self.paths.surgery(),
            &seal(SURGERY, &surgery.encode_to_vec()),
        )
    }

    /// Says that the directory is as it should be: the one step by which a recovery takes effect. Durable when this
    /// returns.
    ///
    /// # Errors
    /// What the system said.
    pub fn end_surgery(&self) -> Result<(), StoreError> {
        let path = self.paths.surgery();
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", &path)(e))
            }
            _ => sync_dir(self.paths.root()),
        }
    }

    /// Moves identity and groups to `aside/`, so that the directory is as good as empty; nothing is deleted. Returns
    /// where they are.
    ///
    /// # Errors
    /// What the system said.
    pub fn set_aside(&self, reason: &str, now_us: i64) -> Result<PathBuf, StoreError> {
        let aside = self.paths.aside();
        let name = jiff::Timestamp::from_microsecond(now_us).map_or_else(
            |_| now_us.to_string(),
            |time| time.strftime("%Y%m%dT%H%M%S.%6fZ").to_string(),
        );
        let to = (0..)
            .map(|n: u32| {
                aside.join(if n == 0 {
                    name.clone()
                } else {
                    format!("{name}-{n}")
                })
            })
            .find(|path| !path.exists())
            .unwrap_or_else(|| aside.join(&name));
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&to)
            .map_err(StoreError::io("create", &to))?;
        write_atomically(&to.join("REASON"), format!("{reason}\n").as_bytes())?;
        // The identity first: after a crash in between there is data without an identity, which is refused, and never
        // an identity without its data, which could vote twice.
        for from in [
            self.paths.identity(),
            self.paths.incarnation(),
            self.paths.claim(),
            self.paths.promises(),
            self.paths.groups(),
            self.paths.repaired(),
            // Last: while it lies there no node starts.
            self.paths.surgery(),
        ] {
            let Some(name) = from.file_name() else {
                continue;
            };
            match std::fs::rename(&from, to.join(name)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::io("set aside", &from)(e));
                }
                _ => sync_dir(self.paths.root())?,
            }
        }
        let groups = self.paths.groups();
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&groups)
            .map_err(StoreError::io("create", &groups))?;
        for dir in [&to, &aside, self.paths.root()] {
            sync_dir(dir)?;
        }
        Ok(to)
    }
}

/// The identity in a file that was set aside; nothing is opened for writing.
///
/// # Errors
/// As [`DataDir::read_identity`].
pub fn read_identity_at(path: &Path) -> Result<Option<Identity>, StoreError> {
    let Some(body) = read_sealed(path, IDENTITY)? else {
        return Ok(None);
    };
    decode_identity(path, &body).map(Some)
}

/// The recovery that a file of [`DataPaths::surgery`] speaks of; nothing is opened for writing.
///
/// # Errors
/// As [`DataDir::read_surgery`].
pub fn read_surgery_at(path: &Path) -> Result<Option<Surgery>, StoreError> {
    read_message(path, SURGERY)
}

/// What a file of [`DataPaths::incarnation`] says; nothing is opened for writing.
///
/// # Errors
/// As [`DataDir::read_incarnation`].
pub fn read_incarnation_at(path: &Path) -> Result<Option<BeginIncarnation>, StoreError> {
    read_message(path, INCARNATION)
}

fn read_message<M: Message + Default>(
    path: &Path,
    format: Format,
) -> Result<Option<M>, StoreError> {
    let Some(body) = read_sealed(path, format)? else {
        return Ok(None);
    };
    let decoded = M::decode(body.as_slice()).map_err(|e| StoreError::Damaged {
        path: path.to_owned(),
        detail: e.to_string(),
        hint: format.hint,
    })?;
    Ok(Some(decoded))
}

pub(crate) fn decode_identity(path: &Path, body: &[u8]) -> Result<Identity, StoreError> {
    let damaged = |detail: String| StoreError::Damaged {
        path: path.to_owned(),
        detail,
        hint: IDENTITY.hint,
    };
    let identity = Identity::decode(body).map_err(|e| damaged(e.to_string()))?;
    identity
        .cluster()
        .check()
        .map_err(|e| damaged(e.to_string()))?;
    if identity.node_id == 0
        || identity.shards == 0
        || IdentityState::try_from(identity.state).is_err()
    {
        let Identity {
            node_id,
            shards,
            state,
            ..
        } = identity;
        return Err(damaged(format!(
            "node id {node_id}, {shards} shards and state {state} cannot be"
        )));
    }
    Ok(identity)
}

fn refuse_link(path: &Path) -> Result<(), StoreError> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => Err(StoreError::Foreign {
            path: path.to_owned(),
            what: "the kind of the file",
            found: "a symbolic link".to_owned(),
            expected: "a file or directory of the data directory itself".to_owned(),
            hint: "move the data there, or link the whole data directory",
        }),
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(StoreError::io("look at", path)(e)),
    }
}

/// How often, and how long apart, a lock that this very process has is asked for again.
const OWN_TRIES: u32 = 25;
const OWN_PAUSE: Duration = Duration::from_millis(20);

/// Takes the lock, and writes into it who has it.
fn lock(paths: &DataPaths) -> Result<File, StoreError> {
    let path = paths.lock();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(&path)
        .map_err(StoreError::io("open", &path))?;
    let mut tries = OWN_TRIES;
    while let Err(error) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(StoreError::io("lock", &path)(error.into()));
        }
        let mut text = String::new();
        // What it says is for people only.
        drop(file.rewind());
        drop((&mut file).take(64).read_to_string(&mut text));
        let pid = text.trim();
        // A lock that this process has given up lives on in a child that it is just starting, until that has become another program.
        if pid == std::process::id().to_string() && tries > 0 {
            tries -= 1;
            std::thread::sleep(OWN_PAUSE);
            continue;
        }
        let holder = if pid.is_empty() {
            "another process".to_owned()
        } else {
            format!("process {pid}")
        };
        return Err(StoreError::InUse {
            path: paths.root().to_owned(),
            holder,
        });
    }
    let write = |file: &mut File| -> io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes())
    };
    write(&mut file).map_err(StoreError::io("write", &path))?;
    Ok(file)
}
