//! What `recover collect` saw: directories, living nodes, the store. One readable file, and all that a plan is made from.
//!
//! Promises: bounded in size, whatever the directories hold; what is not known is absent and never a default; nothing in
//! it is a secret (keys of entries are named, values are not).

use std::collections::BTreeMap;
use std::path::Path;

use confman_cli::failure::Failure;
use confman_client::ErrorKind;
use confman_client::wire::{NodeRef, Readiness, Status, Time};
use confman_snapshot::model::{ClusterId, GroupId, Membership, NodeInfo, Position};
use confman_snapshot::value_hash;
use serde::{Deserialize, Serialize};

use super::file;

use crate::codes;

/// The version that this program writes, and the only one that it plans from. Until 2, of the memberships only the last was told, and
/// of the nodes not what they shall be.
pub const VERSION: u32 = 2;
/// What the file calls itself.
pub const KIND: &str = "confman-recovery-collection";
/// Largest collection that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Everything that was seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Collection {
    /// [`KIND`].
    pub kind: String,
    /// [`VERSION`].
    pub version: u32,
    /// When it was made, by this machine's clock.
    pub collected_at: Time,
    /// One for each directory.
    pub directories: Vec<Directory>,
    /// One for each address that was asked, whether it answered or not.
    pub live: Vec<Live>,
    /// What the store says; none when no store was named.
    pub store: Option<StoreAccount>,
}

/// One data directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Directory {
    /// Where it is, on its host.
    pub path: String,
    /// The host that it was read on.
    pub host: String,
    /// When it was read.
    pub read_at: Time,
    /// Free bytes of its file system.
    pub free_bytes: Option<u64>,
    /// Who holds it, while a process does.
    pub in_use: Option<String>,
    /// Who the node is; none when that cannot be read.
    pub identity: Option<IdentityFacts>,
    /// The plan that is being applied to it or undone, if one is.
    pub surgery: Option<String>,
    /// The life that it is to begin and that has not begun, if it is of one.
    pub unborn: Option<String>,
    /// Its groups.
    pub groups: Vec<GroupFacts>,
    /// The nodes that `__meta/0` has registered, as far as this state has applied.
    pub nodes: Vec<NodeFacts>,
    /// The names that may join and have not, as far as this state has applied.
    pub expected: Vec<ExpectedFacts>,
    /// The id that the next node would get.
    pub next_node_id: u64,
    /// What is wrong with it, its groups included.
    pub findings: Vec<FindingFacts>,
    /// Findings that are not listed.
    pub findings_more: u64,
}

/// Who a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdentityFacts {
    /// The cluster's UUID.
    pub cluster_uuid: String,
    /// The life of the cluster.
    pub incarnation: u64,
    /// Which of several lives of that number.
    pub lineage: String,
    /// The highest incarnation that was ever begun from this directory.
    pub incarnation_floor: u64,
    /// The node's id.
    pub node_id: u64,
    /// The node's name.
    pub name: String,
    /// How many `config/` groups there are.
    pub shards: u32,
    /// How far it has come.
    pub stage: Stage,
    /// Why it is fenced.
    pub reason: String,
    /// The members when the node got its id.
    pub members: BTreeMap<u64, NodeInfo>,
}

/// How far a node has come in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// It has an id, and not all its groups.
    Formed,
    /// It has started with all its groups.
    Initialized,
    /// It serves nothing: it met a newer life.
    Fenced,
}

/// A vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VoteFacts {
    /// The term.
    pub term: u64,
    /// For whom.
    pub node: u64,
    /// Whether a quorum granted it.
    pub committed: bool,
}

/// One group in a directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GroupFacts {
    /// The group.
    pub group: GroupId,
    /// The last vote.
    pub vote: Option<VoteFacts>,
    /// The first entry that can be read.
    pub first: Option<Position>,
    /// The last entry, readable or purged.
    pub last: Option<Position>,
    /// The last entry that the node knew to be committed.
    pub committed: Option<Position>,
    /// The last entry in the state.
    pub applied: Option<Position>,
    /// The last entry that is purged.
    pub purged: Option<Position>,
    /// Where the entries of each leader begin, oldest first.
    pub leaders: Vec<Position>,
    /// Entries that can be read.
    pub entries: u64,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Bytes of the state.
    pub state_bytes: u64,
    /// The state's hash at `applied`.
    pub state_hash: Option<String>,
    /// The members: those known here to be committed, and all that were appended since, oldest first. The last are in effect.
    pub memberships: Vec<Membership>,
    /// Bytes that a crash cut short at the end of the log.
    pub torn_bytes: u64,
    /// The newest snapshots that the group has recorded, newest first.
    pub snapshots: Vec<SnapshotFacts>,
    /// The leader's clock in the last command of the log.
    pub last_write_at: Option<Time>,
    /// The end of the log that is not known here to be committed, newest last.
    pub tail: Vec<TailEntry>,
    /// Entries of that tail before those listed.
    pub tail_more: u64,
}

/// One entry of a tail, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TailEntry {
    /// Where it stands.
    pub position: Position,
    /// What it does, in a few words: `put app/db/host by alice`.
    pub what: String,
    /// Whether a client may have been told that it was done.
    pub write: bool,
    /// The leader's clock.
    pub time: Option<Time>,
}

/// A recorded snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SnapshotFacts {
    /// Its name.
    pub id: String,
    /// What is in it.
    pub position: Position,
    /// The state's hash there.
    pub state_hash: String,
}

/// A registered node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeFacts {
    /// Its id.
    pub id: u64,
    /// Name and addresses.
    pub info: NodeInfo,
    /// Whether its id is retired.
    pub retired: bool,
    /// What it shall be, whatever it is now: one that was just admitted is a learner until it has caught up.
    pub wish: WishFacts,
}

/// What a node shall be in every group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WishFacts {
    /// It votes, once it has caught up.
    Voter,
    /// It follows and does not vote.
    Learner,
    /// It is being taken out.
    Gone,
}

/// A name under which a node may join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExpectedFacts {
    /// The name, and where it is to be.
    pub info: NodeInfo,
    /// It stays a learner.
    pub learner: bool,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FindingFacts {
    /// `info`, `warning` or `error`.
    pub severity: crate::finding::Severity,
    /// Its stable name.
    pub code: String,
    /// The file and what is wrong with it.
    pub what: String,
}

/// What one address answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Live {
    /// The URL that was asked.
    pub url: String,
    /// When.
    pub asked_at: Time,
    /// What it says of itself, to those who have a key.
    pub status: Option<Status>,
    /// What it says to everybody.
    pub readiness: Option<Readiness>,
    /// Why there is no status.
    pub why: Option<String>,
    /// Something is there that cannot be asked, and the operator says that it is no node of the cluster.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_ours: bool,
}

/// What the store says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StoreAccount {
    /// Its URL, without secrets.
    pub url: String,
    /// Why it could not be asked, when it could not.
    pub error: Option<String>,
    /// The highest incarnation of the cluster that was ever claimed; 0 for none.
    pub highest_incarnation: u64,
    /// Who owns the prefix, those whose recovery was undone excepted.
    pub clusters: Vec<ClaimFacts>,
    /// The newest snapshot of each group that can be opened.
    pub snapshots: Vec<StoreSnapshot>,
}

/// A cluster object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimFacts {
    /// The cluster and its life.
    pub cluster: ClusterId,
    /// The plan or order that began it; empty for the first.
    pub lineage: String,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: Time,
}

/// A snapshot in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StoreSnapshot {
    /// The group.
    pub group: GroupId,
    /// Its name.
    pub id: String,
    /// The cluster and the life that wrote it.
    pub cluster: ClusterId,
    /// What is in it.
    pub position: Position,
}

impl Collection {
    /// Reads a collection.
    ///
    /// # Errors
    /// The file is not there, too large, or not one.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = file::read(path, FILE_BYTES_MAX)?;
        let wrong = |why: String| {
            codes::refuse(
                "RECOVER_FILE",
                ErrorKind::Damaged,
                format!("{} is no collection: {why}", path.display()),
            )
            .with_hint("`drtool recover collect` makes one")
        };
        let version = file::check_head(&bytes, KIND, VERSION).map_err(wrong)?;
        if version < VERSION {
            let text = format!(
                "{} has version {version} and was made by an older drtool, this one plans from version {VERSION}",
                path.display()
            );
            return Err(codes::refuse("RECOVER_FILE", ErrorKind::Refused, text)
                .with_hint("collect again with this drtool: `drtool recover collect DIR...`"));
        }
        serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))
    }

    /// Whose data was read earlier in the place of a directory that does not say whose it is: it may be that of one of them by now,
    /// or of somebody else whose machine has the same name.
    pub fn read_before_at_place_of(&self, directory: &Directory) -> Vec<&str> {
        let is_before = |known: &&Directory| {
            known.identity.is_some()
                && known.is_at_place_of(directory)
                && known.read_at < directory.read_at
        };
        if directory.identity.is_some() {
            return Vec::new();
        }
        let before = self.directories.iter().filter(is_before);
        before.map(Directory::name).collect()
    }

    /// Writes it.
    ///
    /// # Errors
    /// The file is there and may not be replaced, or cannot be written.
    pub fn write(&self, path: &Path, replace: bool) -> Result<(), Failure> {
        file::write_json(path, self, replace)
    }
}

impl GroupFacts {
    /// The members in effect: the last ones appended, committed or not.
    pub fn membership(&self) -> Option<&Membership> {
        self.memberships.last()
    }

    /// The last members that this directory proves to be committed.
    pub fn committed_membership(&self) -> Option<&Membership> {
        let (proven, _) = self.proven()?;
        let all = self.memberships.iter().rev();
        let mut committed = all.filter(|m| m.position <= Some(proven));
        committed.next()
    }

    /// Where its data ends: the last entry, or the state where that was installed beyond the log.
    pub fn end(&self) -> Option<Position> {
        self.last.max(self.applied)
    }

    /// The highest position that this directory proves to be committed, and what proves it.
    pub fn proven(&self) -> Option<(Position, &'static str)> {
        let recorded = self.snapshots.iter().map(|s| s.position).max();
        [
            (self.purged, "purged from the log"),
            (recorded, "recorded in a snapshot"),
            (self.committed, "marked as committed"),
            (self.applied, "applied to the state"),
        ]
        .into_iter()
        .filter_map(|(position, by)| Some((position?, by)))
        .max_by_key(|(position, _)| *position)
    }
}

impl Directory {
    /// A short name for messages: the node's, else the path.
    pub fn name(&self) -> &str {
        self.identity
            .as_ref()
            .map_or(self.path.as_str(), |i| i.name.as_str())
    }

    /// Whether both were read under one path of machines of one name.
    pub fn is_at_place_of(&self, other: &Self) -> bool {
        (&self.path, &self.host) == (&other.path, &other.host)
    }

    /// The facts of one group.
    pub fn group(&self, group: &GroupId) -> Option<&GroupFacts> {
        self.groups.iter().find(|g| g.group == *group)
    }

    /// What changes whenever a node runs on the directory and anything happens, and only then.
    pub fn fingerprint(&self) -> String {
        #[derive(Serialize)]
        struct OfGroup<'a>(
            &'a GroupId,
            Option<VoteFacts>,
            [Option<Position>; 4],
            Option<&'a str>,
        );
        let groups: Vec<OfGroup<'_>> = self
            .groups
            .iter()
            .map(|g| {
                let positions = [g.last, g.committed, g.applied, g.purged];
                OfGroup(&g.group, g.vote, positions, g.state_hash.as_deref())
            })
            .collect();
        let all = (&self.identity, &self.unborn, groups);
        // Plain structs of ours: there is nothing in them that JSON cannot say.
        let bytes = serde_json::to_vec(&all).unwrap_or_default();
        hex::encode(&value_hash(&bytes)[..16])
    }
}

impl Live {
    /// Whether it says that it is of another cluster than this one: then nothing of it counts here, not even that it lives.
    pub fn is_foreign(&self, cluster_uuid: &str) -> bool {
        self.cluster_uuid().is_some_and(|told| told != cluster_uuid)
    }

    /// Of which cluster it says to be.
    pub fn cluster_uuid(&self) -> Option<&str> {
        let of_status = self.status.as_ref().map(|s| s.cluster_uuid.as_str());
        of_status.or_else(|| self.readiness.as_ref()?.cluster_uuid.as_deref())
    }

    /// Who answers for another cluster, and where.
    pub fn foreign_words(&self) -> String {
        let name = self.node().map_or("a node", |node| node.name.as_str());
        format!(
            "another cluster answers at {}: {name} of {}; it does not count",
            self.url,
            self.cluster_uuid().unwrap_or_default()
        )
    }

    /// Who answered, as far as it said.
    pub fn node(&self) -> Option<&NodeRef> {
        let of_status = self.status.as_ref().map(|s| &s.node);
        of_status.or_else(|| self.readiness.as_ref()?.node.as_ref())
    }
}
