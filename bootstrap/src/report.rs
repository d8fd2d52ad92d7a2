//! How a group's state came to this node: one small durable file per group, shown in `status` as `restore`.
//!
//! Promises: a report is read back whole or refused with what is wrong (magic, version, length, checksum);
//! it is replaced at once or not at all; a report that says [`Stage::Installed`] is written only when the
//! state it speaks of is durable. It is also the marker that makes a restore safe to repeat: see
//! [`crate::restore`].
//!
//! It does not say what the group's state is: that is the database's to say.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use confman_snapshot::value_hash;
use confman_store::GroupPaths;
use prost::Message;

/// First bytes of the file.
const MAGIC: &[u8; 8] = b"CFMNRSTR";
/// The newest version of the file that this program reads, and the one it writes.
const VERSION: u32 = 1;
/// Magic, version, length of the body.
const HEAD_BYTES: usize = 8 + 4 + 4;
/// BLAKE3 of everything before it.
const SUM_BYTES: usize = 32;
/// Longest body that is read: a report names a few snapshots, each with a sentence.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Longest sentence kept for one skipped snapshot, in bytes.
const WHY_BYTES_MAX: usize = 2048;

/// Where a group's state came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Source {
    /// Not known: written by a newer program.
    Unknown = 0,
    /// A snapshot in the object store.
    Store = 1,
    /// The group's leader, because the store could not give one.
    Peer = 2,
}

impl Source {
    /// The word that stands in `status`.
    pub fn name(self) -> &'static str {
        match self {
            Source::Unknown => "unknown",
            Source::Store => "store",
            Source::Peer => "peer",
        }
    }
}

/// How far a restore has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Stage {
    /// Not known: written by a newer program.
    Unknown = 0,
    /// A state is being put in place; what is in the group's directory is this restore's own half product.
    Started = 1,
    /// The state is in place and durable, or it was decided that the leader gives it.
    Installed = 2,
    /// The group has reached what its leader had when it started.
    CaughtUp = 3,
}

/// A snapshot that was not used, and why.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Skipped {
    /// Its id.
    #[prost(string, tag = "1")]
    pub snapshot: String,
    /// Its index.
    #[prost(uint64, tag = "2")]
    pub index: u64,
    /// Why it was not used.
    #[prost(string, tag = "3")]
    pub why: String,
}

impl Skipped {
    pub(crate) fn new(snapshot: impl ToString, index: u64, why: impl ToString) -> Self {
        let mut why = one_line(&why.to_string());
        if why.len() > WHY_BYTES_MAX {
            let cut = (0..=WHY_BYTES_MAX)
                .rev()
                .find(|i| why.is_char_boundary(*i))
                .unwrap_or(0);
            why.truncate(cut);
        }
        Self {
            snapshot: snapshot.to_string(),
            index,
            why,
        }
    }
}

/// An error with its hint, as a part of a line.
pub(crate) fn one_line(text: &str) -> String {
    text.replace('\n', "; ")
}

/// How a group's state came to this node.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RestoreReport {
    /// The group, as text.
    #[prost(string, tag = "1")]
    pub group: String,
    /// The cluster's uuid.
    #[prost(string, tag = "2")]
    pub cluster_uuid: String,
    /// The incarnation of the cluster that was joined.
    #[prost(uint64, tag = "3")]
    pub incarnation: u64,
    /// Where the state came from.
    #[prost(enumeration = "Source", tag = "4")]
    pub source: i32,
    /// How far it has come.
    #[prost(enumeration = "Stage", tag = "5")]
    pub stage: i32,
    /// The snapshot that was installed; none when the leader gives the state.
    #[prost(string, optional, tag = "6")]
    pub snapshot: Option<String>,
    /// Its index; when the leader gives the state, the index of what it gave, once known.
    #[prost(uint64, optional, tag = "7")]
    pub snapshot_index: Option<u64>,
    /// The newest index of a snapshot that the cluster had recorded; higher than `snapshot_index` when newer
    /// ones were skipped. The difference is what the leader's log has to make up for.
    #[prost(uint64, optional, tag = "8")]
    pub newest_index: Option<u64>,
    /// Snapshots that were not used, newest first.
    #[prost(message, repeated, tag = "9")]
    pub skipped: Vec<Skipped>,
    /// Why the store gave nothing; empty when it did.
    #[prost(string, tag = "10")]
    pub why_not_store: String,
    /// Bytes read from the store, those of skipped snapshots included.
    #[prost(uint64, tag = "11")]
    pub read_bytes: u64,
    /// Bytes of all records that were installed, before compression.
    #[prost(uint64, tag = "12")]
    pub raw_bytes: u64,
    /// How many records were installed.
    #[prost(uint64, tag = "13")]
    pub records: u64,
    /// Digest of the state hash that was proven, in hex; empty when the leader gives the state.
    #[prost(string, tag = "14")]
    pub state_hash: String,
    /// When it began, microseconds since 1970 UTC.
    #[prost(int64, tag = "15")]
    pub started_us: i64,
    /// How long it took until the state was installed, in microseconds.
    #[prost(uint64, tag = "16")]
    pub took_us: u64,
    /// How many log entries the leader sent until the group had caught up; none until then.
    #[prost(uint64, optional, tag = "17")]
    pub tail_entries: Option<u64>,
    /// How long it took until the group had caught up, in microseconds from the beginning; none until then.
    #[prost(uint64, optional, tag = "18")]
    pub caught_up_us: Option<u64>,
}

impl RestoreReport {
    /// How long it took: until the group had caught up, or until the state was installed so far.
    pub fn seconds(&self) -> f64 {
        self.caught_up_us.unwrap_or(self.took_us) as f64 / 1e6
    }

    /// Whether the state is in place and durable, or the leader gives it.
    pub fn is_installed(&self) -> bool {
        matches!(self.stage(), Stage::Installed | Stage::CaughtUp)
    }

    /// Fills in the tail once the group has caught up at `applied_index` at time `now_us`. For a group that
    /// the leader fed with a snapshot, `fed_index` is that snapshot's index.
    pub fn caught_up(&mut self, fed_index: Option<u64>, applied_index: u64, now_us: i64) {
        if self.source() == Source::Peer {
            self.snapshot_index = fed_index;
        }
        let from = self.snapshot_index.unwrap_or(0);
        self.tail_entries = Some(applied_index.saturating_sub(from));
        self.caught_up_us = Some(now_us.saturating_sub(self.started_us).max(0).unsigned_abs());
        self.stage = Stage::CaughtUp.into();
    }

    /// The report as one line for the log.
    pub fn summary(&self) -> String {
        let mut text = match (self.source(), &self.snapshot) {
            (Source::Store, Some(id)) => format!(
                "{}: snapshot {id} from the store, {} records, {} bytes read, {:.2} s",
                self.group,
                self.records,
                self.read_bytes,
                self.took_us as f64 / 1e6
            ),
            _ => format!(
                "{}: from the leader, because {}",
                self.group, self.why_not_store
            ),
        };
        for skipped in &self.skipped {
            text.push_str(&format!("; skipped {}: {}", skipped.snapshot, skipped.why));
        }
        if let (Some(used), Some(newest)) = (self.snapshot_index, self.newest_index)
            && newest > used
        {
            text.push_str(&format!(
                "; {} more entries come from the leader's log",
                newest - used
            ));
        }
        text
    }
}

/// A report could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The file is there and is not what was written.
    #[error(
        "restore report {path:?} is damaged: {detail}\n\
         hint: nothing has been changed; run `drtool set-aside` on the data directory and start again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The file was written by a newer program.
    #[error(
        "restore report {path:?} has version {found}, this program reads up to {VERSION}\n\
         hint: use the version of confman that wrote it, or a newer one"
    )]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
    },
    /// The disk failed.
    #[error("{operation} {path:?}: {source}")]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Reads a group's report; `None` when the group was never restored. Never writes.
pub fn read(paths: &GroupPaths) -> Result<Option<RestoreReport>, ReportError> {
    let path = paths.restored();
    let size = match fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(ReportError::Io {
                operation: "read",
                path,
                source,
            });
        }
    };
    if size > (HEAD_BYTES + BODY_BYTES_MAX + SUM_BYTES) as u64 {
        return Err(ReportError::Damaged {
            path,
            detail: format!("it has {size} bytes"),
        });
    }
    let bytes = fs::read(&path).map_err(|source| ReportError::Io {
        operation: "read",
        path: path.clone(),
        source,
    })?;
    decode(&path, &bytes).map(Some)
}

/// Writes a group's report durably, replacing the one before at once.
pub fn write(paths: &GroupPaths, report: &RestoreReport) -> Result<(), ReportError> {
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| ReportError::Io {
            operation,
            path,
            source,
        }
    };
    let (target, new) = (paths.restored(), paths.tmp_file("restored"));
    fs::create_dir_all(paths.tmp_dir()).map_err(failed("create", paths.tmp_dir()))?;
    fs::create_dir_all(paths.dir()).map_err(failed("create", paths.dir()))?;
    let mut file = File::create(&new).map_err(failed("create", &new))?;
    file.write_all(&encode(report))
        .map_err(failed("write", &new))?;
    file.sync_all().map_err(failed("flush", &new))?;
    fs::rename(&new, &target).map_err(failed("rename", &target))?;
    // The rename is durable with its directory, and the directory with the one that names it.
    for dir in [Some(paths.dir()), paths.dir().parent()]
        .into_iter()
        .flatten()
    {
        File::open(dir)
            .and_then(|d| d.sync_all())
            .map_err(failed("flush", dir))?;
    }
    Ok(())
}

fn encode(report: &RestoreReport) -> Vec<u8> {
    let body = report.encode_to_vec();
    let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len() + SUM_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    // A report is far below 4 GiB: every text in it is cut.
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&body);
    let sum = value_hash(&bytes);
    bytes.extend_from_slice(&sum);
    bytes
}

fn decode(path: &Path, bytes: &[u8]) -> Result<RestoreReport, ReportError> {
    let damaged = |detail: &str| ReportError::Damaged {
        path: path.to_owned(),
        detail: detail.to_owned(),
    };
    let (head, rest) = bytes
        .split_at_checked(HEAD_BYTES)
        .ok_or_else(|| damaged("it is shorter than its head"))?;
    let number = |at: usize| {
        head.get(at..at + 4)
            .and_then(|b| b.try_into().ok())
            .map_or(0, u32::from_le_bytes)
    };
    if !head.starts_with(MAGIC) {
        return Err(damaged("it does not begin like a restore report"));
    }
    let (version, length) = (number(8), number(12) as usize);
    if version > VERSION {
        return Err(ReportError::NewerVersion {
            path: path.to_owned(),
            found: version,
        });
    }
    if version == 0 || rest.len() != length.saturating_add(SUM_BYTES) {
        return Err(damaged("its length is not the one it names"));
    }
    let (body, sum) = rest.split_at(length);
    if value_hash(&bytes[..HEAD_BYTES + length]).as_slice() != sum {
        return Err(damaged("its checksum does not match"));
    }
    RestoreReport::decode(body).map_err(|_| damaged("its body does not decode"))
}
