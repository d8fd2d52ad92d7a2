//! The directory as a whole: who the node is, which groups it has, who holds it, what does not belong there.

use std::path::{Path, PathBuf};

use confman_snapshot::model::GroupId;
use prost::Message;

use super::file::{ReadFile, list};
use super::finding::{Findings, OfflineFinding, OfflineSeverity, codes};
use super::group::OfflineGroup;
use super::wal::parse_chunk_name;
use crate::command::BeginIncarnation;
use crate::datadir::{
    IDENTITY, INCARNATION, Identity, IdentityState, SURGERY, Surgery, decode_identity,
};
use crate::error::StoreError;
use crate::files::{Format, unseal};
use crate::paths::{DataPaths, GroupPaths};
use crate::records::IncarnationKind;

/// Most names that are looked at in one directory.
const NAMES_MAX: usize = 100_000;
/// Largest small file that is read.
pub(super) const SEALED_BYTES_MAX: u64 = 16 * 1024 * 1024 + 64;

/// A process holds the directory: what is read here may be moving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InUse {
    /// Who, as far as the lock file says.
    pub holder: String,
}

/// A node's data directory, for reading.
#[derive(Debug)]
pub struct OfflineNode {
    /// The names of its files.
    pub paths: DataPaths,
    /// Who the node is; none when that cannot be read.
    pub identity: Option<Identity>,
    /// The recovery that was begun here and has not ended.
    pub surgery: Option<Surgery>,
    /// What the first leader of a new life is to propose; gone when every group has it.
    pub incarnation: Option<BeginIncarnation>,
    /// Its groups, in order.
    pub groups: Vec<OfflineGroup>,
    /// Whether a process holds the directory.
    pub in_use: Option<InUse>,
    /// What is wrong with the directory itself; each group has its own.
    pub findings: Vec<OfflineFinding>,
}

impl OfflineNode {
    /// Looks at a directory. Reads the whole log of every group once; changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] when there is no such directory or it cannot be listed. All else is a finding.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let root = path
            .canonicalize()
            .map_err(StoreError::io("resolve", path))?;
        let paths = DataPaths::new(root);
        let mut findings = Findings::default();
        let in_use = lock_holder(&paths, &mut findings);
        if let Some(holder) = &in_use {
            findings.push(OfflineFinding::new(
                OfflineSeverity::Warning,
                codes::DIR_IN_USE,
                paths.root(),
                format!(
                    "{} holds it: what is read may be moving, and may contradict itself",
                    holder.holder
                ),
            ));
        }
        let names = names(paths.root())?;
        let identity = read_identity(&paths, &names, &mut findings);
        let surgery = read_surgery(&paths, &mut findings);
        let incarnation = read_incarnation(&paths, &mut findings);
        let groups = group_ids(&paths, &mut findings)
            .into_iter()
            .map(|group| OfflineGroup::open(paths.group(&group)))
            .collect();
        let mut node = Self {
            paths,
            identity,
            surgery,
            incarnation,
            groups,
            in_use,
            findings: Vec::new(),
        };
        node.check_groups(&mut findings);
        node.check_names(&names, &mut findings);
        node.findings = findings.into_vec();
        Ok(node)
    }

    /// The group, if the node has it.
    pub fn group(&self, group: &GroupId) -> Option<&OfflineGroup> {
        self.groups.iter().find(|g| &g.group == group)
    }

    /// Who the records must agree with; none while the state is still another cluster's, in a copy that has not begun.
    pub fn owner(&self) -> Option<&Identity> {
        let copy = |begin: &BeginIncarnation| begin.kind() == IncarnationKind::Copy;
        let unborn = self.incarnation.as_ref().is_some_and(copy);
        self.identity.as_ref().filter(|_| !unborn)
    }

    /// All findings, those of the groups too.
    pub fn all_findings(&self) -> impl Iterator<Item = &OfflineFinding> {
        self.findings
            .iter()
            .chain(self.groups.iter().flat_map(|group| &group.findings))
    }

    fn check_groups(&self, findings: &mut Findings) {
        let Some(identity) = &self.identity else {
            let there = std::fs::symlink_metadata(self.paths.identity()).is_ok();
            if !there && !self.groups.is_empty() {
                let groups: Vec<_> = self.groups.iter().map(|g| g.group.to_string()).collect();
                findings.push(OfflineFinding::error(
                    codes::IDENTITY_MISSING,
                    &self.paths.identity(),
                    format!("there is no identity, but data of {}", groups.join(", ")),
                ));
            }
            return;
        };
        if identity.state() == IdentityState::Fenced {
            findings.push(OfflineFinding::new(
                OfflineSeverity::Warning,
                codes::NODE_FENCED,
                &self.paths.identity(),
                format!(
                    "node {} is fenced and serves nothing: {}",
                    identity.node_id, identity.reason
                ),
            ));
        }
        // A node that never started with all its groups may lack some.
        if identity.state() == IdentityState::Formed {
            return;
        }
        let config = (0..identity.shards).map(GroupId::config);
        for group in std::iter::once(GroupId::meta()).chain(config) {
            let there = self.group(&group);
            if there.is_none_or(|there| there.log.is_none() && there.state.is_none()) {
                findings.push(OfflineFinding::error(
                    codes::GROUP_MISSING,
                    self.paths.group(&group).dir(),
                    format!("no data of {group}, which node {} had", identity.node_id),
                ));
            }
        }
    }

    /// What a crash left, and what is not ours.
    fn check_names(&self, names: &[PathBuf], findings: &mut Findings) {
        let known = [
            self.paths.lock(),
            self.paths.identity(),
            self.paths.groups(),
            self.paths.tmp(),
            self.paths.objects(),
            self.paths.aside(),
            self.paths.incarnation(),
            self.paths.claim(),
            self.paths.promises(),
            self.paths.surgery(),
            self.paths.repaired(),
        ];
        check(names, &known, findings);
        for group in &self.groups {
            let GroupFiles { known, log } = group_files(&group.paths);
            match names_or_finding(group.paths.dir(), findings) {
                Some(names) => check(&names, &known, findings),
                None => continue,
            }
            let in_log = names_or_finding(&log, findings).unwrap_or_default();
            let foreign: Vec<PathBuf> = in_log
                .into_iter()
                .filter(|path| {
                    let name = path.file_name().and_then(|name| name.to_str());
                    name.and_then(parse_chunk_name).is_none()
                })
                .collect();
            check(&foreign, &[log.join("LOCK")], findings);
        }
    }
}

struct GroupFiles {
    known: Vec<PathBuf>,
    log: PathBuf,
}

fn group_files(paths: &GroupPaths) -> GroupFiles {
    GroupFiles {
        known: vec![
            paths.log(),
            paths.state(),
            paths.restored(),
            paths.diverged(),
        ],
        log: paths.log(),
    }
}

/// Names that are not `known` are told of; what they hold is not looked at.
fn check(names: &[PathBuf], known: &[PathBuf], findings: &mut Findings) {
    for path in names {
        let is_link = std::fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink());
        if is_link {
            findings.push(OfflineFinding::error(
                codes::DIR_FOREIGN,
                path,
                "a symbolic link; it was not followed",
            ));
        } else if known.contains(path) {
        } else if path.extension().is_some_and(|e| e == "new" || e == "fresh") {
            findings.push(OfflineFinding::new(
                OfflineSeverity::Info,
                codes::DIR_LEFTOVER,
                path,
                "what a crash left unfinished; a start of the node removes it or goes on with it",
            ));
        } else {
            findings.push(OfflineFinding::new(
                OfflineSeverity::Warning,
                codes::DIR_UNKNOWN_FILE,
                path,
                "no program of this version made it",
            ));
        }
    }
}

fn names(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let (names, _) = list(dir, NAMES_MAX)?.unwrap_or_default();
    Ok(names.iter().map(std::fs::DirEntry::path).collect())
}

fn names_or_finding(dir: &Path, findings: &mut Findings) -> Option<Vec<PathBuf>> {
    names(dir)
        .map_err(|error| findings.push(OfflineFinding::of(&error, codes::DIR_UNREADABLE, dir)))
        .ok()
}

fn lock_holder(paths: &DataPaths, findings: &mut Findings) -> Option<InUse> {
    let path = paths.lock();
    let holder = ReadFile::open(&path).and_then(|file| match file {
        Some(file) => file.lock_holder(),
        None => Ok(None),
    });
    match holder {
        Ok(holder) => holder.map(|holder| InUse { holder }),
        Err(error) => {
            findings.push(OfflineFinding::of(&error, codes::DIR_UNREADABLE, &path));
            None
        }
    }
}

fn read_identity(
    paths: &DataPaths,
    names: &[PathBuf],
    findings: &mut Findings,
) -> Option<Identity> {
    let path = paths.identity();
    let read = || -> Result<Option<Identity>, StoreError> {
        let Some(file) = ReadFile::open(&path)? else {
            return Ok(None);
        };
        let body = unseal(&path, IDENTITY, &file.read_all(SEALED_BYTES_MAX)?)?;
        decode_identity(&path, &body).map(Some)
    };
    match read() {
        Ok(Some(identity)) => Some(identity),
        Ok(None) => {
            if !names.contains(&paths.groups()) {
                findings.push(OfflineFinding::error(
                    codes::IDENTITY_MISSING,
                    paths.root(),
                    "there is neither an identity nor data of a group: this is no data directory of a node, or it is empty",
                ));
            }
            None
        }
        Err(error) => {
            findings.push(OfflineFinding::of(&error, codes::IDENTITY_DAMAGED, &path));
            None
        }
    }
}

/// A small file of ours; damage is a finding under `damaged`.
fn read_small<M: Message + Default>(
    path: &Path,
    format: Format,
    damaged: &'static str,
    findings: &mut Findings,
) -> Option<M> {
    let read = || -> Result<Option<M>, StoreError> {
        let Some(file) = ReadFile::open(path)? else {
            return Ok(None);
        };
        let body = unseal(path, format, &file.read_all(SEALED_BYTES_MAX)?)?;
        M::decode(body.as_slice())
            .map(Some)
            .map_err(|e| StoreError::Damaged {
                path: path.to_owned(),
                detail: e.to_string(),
                hint: format.hint,
            })
    };
    read().unwrap_or_else(|error| {
        findings.push(OfflineFinding::of(&error, damaged, path));
        None
    })
}

fn read_surgery(paths: &DataPaths, findings: &mut Findings) -> Option<Surgery> {
    let path = paths.surgery();
    let surgery: Surgery = read_small(&path, SURGERY, codes::SURGERY_DAMAGED, findings)?;
    findings.push(OfflineFinding::error(
        codes::SURGERY_UNFINISHED,
        &path,
        format!(
            "{} was begun here and has not ended; to go on: {}",
            surgery.what(),
            surgery.command
        ),
    ));
    Some(surgery)
}

fn read_incarnation(paths: &DataPaths, findings: &mut Findings) -> Option<BeginIncarnation> {
    let path = paths.incarnation();
    let begin: BeginIncarnation =
        read_small(&path, INCARNATION, codes::INCARNATION_DAMAGED, findings)?;
    findings.push(OfflineFinding::new(
        OfflineSeverity::Info,
        codes::INCARNATION_UNBORN,
        &path,
        format!(
            "incarnation {} by plan {} has not begun in every group, as far as this node knows",
            begin.incarnation, begin.plan_id
        ),
    ));
    Some(begin)
}

fn group_ids(paths: &DataPaths, findings: &mut Findings) -> Vec<GroupId> {
    let dir = paths.groups();
    let names = names_or_finding(&dir, findings).unwrap_or_default();
    let mut groups = Vec::new();
    for path in names {
        let name = path.file_name().and_then(|name| name.to_str());
        let is_dir = std::fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir());
        match name.and_then(DataPaths::parse_group_dir) {
            Some(group) if is_dir => groups.push(group),
            _ => check(std::slice::from_ref(&path), &[], findings),
        }
    }
    groups.sort();
    groups
}
