//! What a replica writes down when its state turns out to differ from the recorded one, so that a restart does not
//! forget it.
//!
//! The hashes of recent positions are in memory only. The finding is not: `{group}/diverged` stands until the
//! directory is set aside, and the group is not opened while it is there. Written once, never removed by us.

use std::time::{SystemTime, UNIX_EPOCH};

use confman_snapshot::Digest;
use prost::Message;

use crate::error::{Diverged, StateMismatch, StoreError};
use crate::files::{Format, read_sealed, seal, write_atomically};
use crate::paths::GroupPaths;

pub(crate) const DIVERGED: Format = Format {
    magic: *b"CFMDIVRG",
    version: 1,
    hint: "a replica of this group stopped because its state differed: run `drtool set-aside` on the data directory and start the node",
};

/// The finding as it stands in the file.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Divergence {
    /// The group.
    #[prost(string, tag = "1")]
    pub group: String,
    /// The index of the two states.
    #[prost(uint64, tag = "2")]
    pub index: u64,
    /// The state hash of this replica there.
    #[prost(bytes = "vec", tag = "3")]
    pub found: Vec<u8>,
    /// The state hash that was recorded for it.
    #[prost(bytes = "vec", tag = "4")]
    pub recorded: Vec<u8>,
    /// The snapshot that recorded it.
    #[prost(string, tag = "5")]
    pub snapshot: String,
    /// When it was found, microseconds since the epoch, UTC.
    #[prost(int64, tag = "6")]
    pub time_us: i64,
}

/// The finding that stands in the directory of a group; none in a sound one.
///
/// # Errors
/// [`StoreError`] when the file is there and is not whole, ours, or of this version.
pub fn read(paths: &GroupPaths) -> Result<Option<Divergence>, StoreError> {
    let path = paths.diverged();
    let Some(body) = read_sealed(&path, DIVERGED)? else {
        return Ok(None);
    };
    Divergence::decode(body.as_slice())
        .map(Some)
        .map_err(|e| StoreError::Damaged {
            path,
            detail: e.to_string(),
            hint: DIVERGED.hint,
        })
}

/// Writes the finding down, durably when this returns.
pub(crate) fn write(paths: &GroupPaths, mismatch: &StateMismatch) -> Result<(), StoreError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let finding = Divergence {
        group: mismatch.group.to_string(),
        index: mismatch.index,
        found: mismatch.found.as_bytes().to_vec(),
        recorded: mismatch.recorded.as_bytes().to_vec(),
        snapshot: mismatch.snapshot.clone(),
        time_us: since.map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX)),
    };
    write_atomically(&paths.diverged(), &seal(DIVERGED, &finding.encode_to_vec()))
}

/// Refuses a directory with a finding in it.
pub(crate) fn refuse(paths: &GroupPaths) -> Result<(), StoreError> {
    match standing(paths)? {
        Some(finding) => Err(StoreError::Diverged(Box::new(finding))),
        None => Ok(()),
    }
}

/// The finding that stands in the directory of a group, in words for an operator; none in a sound one.
///
/// # Errors
/// As [`read`].
pub fn standing(paths: &GroupPaths) -> Result<Option<Diverged>, StoreError> {
    let Some(finding) = read(paths)? else {
        return Ok(None);
    };
    let digest = |bytes: &[u8]| {
        Digest::from_slice(bytes).map_or_else(|_| hex::encode(bytes), |d| d.to_string())
    };
    Ok(Some(Diverged {
        path: paths.dir().to_owned(),
        group: finding.group,
        index: finding.index,
        found: digest(&finding.found),
        recorded: digest(&finding.recorded),
        snapshot: finding.snapshot,
        time: jiff::Timestamp::from_microsecond(finding.time_us)
            .map_or_else(|_| "an unknown time".to_owned(), |time| time.to_string()),
    }))
}
