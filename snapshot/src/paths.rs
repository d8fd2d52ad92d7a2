//! Every object name in the store, built and parsed here and nowhere else. All are relative to the prefix.
//!
//! ```text
//! cluster/{incarnation:010}-{uuid}.json         who owns this prefix
//! snapshots/{topic}/{partition}/{id}.snap       one snapshot
//! probe/{name}                                  written and deleted at a start, to learn what the store honours
//! ```

use crate::id::SnapshotId;
use crate::model::{ClusterId, GroupId};

/// Where cluster objects lie.
pub const CLUSTERS: &str = "cluster";
/// Where snapshots lie.
pub const SNAPSHOTS: &str = "snapshots";
/// Where probe objects lie for a moment.
pub const PROBES: &str = "probe";
const SNAPSHOT_SUFFIX: &str = ".snap";
const CLUSTER_SUFFIX: &str = ".json";

/// The folder of one group's snapshots.
pub fn snapshots(group: &GroupId) -> String {
    format!("{SNAPSHOTS}/{group}")
}

/// The object of one snapshot.
pub fn snapshot(group: &GroupId, id: &SnapshotId) -> String {
    format!("{SNAPSHOTS}/{group}/{id}{SNAPSHOT_SUFFIX}")
}

/// The group and id that an object name stands for; none if it is not the name of a snapshot.
pub fn parse_snapshot(object: &str) -> Option<(GroupId, SnapshotId)> {
    let rest = object.strip_prefix(SNAPSHOTS)?.strip_prefix('/')?;
    let (group, file) = rest.rsplit_once('/')?;
    let id = file.strip_suffix(SNAPSHOT_SUFFIX)?;
    Some((group.parse().ok()?, id.parse().ok()?))
}

/// The object by which a cluster's incarnation owns the prefix.
pub fn cluster(cluster: &ClusterId) -> String {
    format!(
        "{CLUSTERS}/{:010}-{}{CLUSTER_SUFFIX}",
        cluster.incarnation, cluster.uuid
    )
}

/// The cluster that an object name stands for; none if it is not the name of a cluster object.
pub fn parse_cluster(object: &str) -> Option<ClusterId> {
    let name = object
        .strip_prefix(CLUSTERS)?
        .strip_prefix('/')?
        .strip_suffix(CLUSTER_SUFFIX)?;
    let (incarnation, uuid) = name.split_once('-')?;
    let id = ClusterId::new(uuid, incarnation.parse().ok()?);
    id.check().ok()?;
    (cluster(&id) == object).then_some(id)
}

/// The object that a probe with this nonce writes and deletes.
pub fn probe(nonce: u64) -> String {
    format!("{PROBES}/{nonce:016x}")
}
