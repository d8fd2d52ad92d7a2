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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_group() -> impl Strategy<Value = GroupId> {
        ("[a-z0-9_-]{1,64}", any::<u32>())
            .prop_map(|(topic, partition)| GroupId::new(topic, partition).unwrap())
    }

    fn any_id() -> impl Strategy<Value = SnapshotId> {
        any::<(u64, u64, u64, u32)>().prop_map(|(index, incarnation, term, nonce)| SnapshotId {
            index,
            incarnation,
            term,
            nonce,
        })
    }

    proptest! {
        #[test]
        fn a_snapshot_name_is_read_as_it_was_built(group in any_group(), id in any_id()) {
            let name = snapshot(&group, &id);
            prop_assert_eq!(parse_snapshot(&name), Some((group.clone(), id)));
            let folder = snapshots(&group) + "/";
            prop_assert!(name.starts_with(&folder));
            // No second text stands for it.
            prop_assert_eq!(parse_snapshot(&name.to_uppercase()), None);
            prop_assert_eq!(parse_snapshot(&format!("{name} ")), None);
        }

        #[test]
        fn a_cluster_name_is_read_as_it_was_built(incarnation in any::<u64>(), hex in "[0-9a-f]{32}") {
            let uuid = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
            let id = ClusterId::new(uuid, incarnation);
            prop_assert_eq!(parse_cluster(&cluster(&id)), Some(id));
        }

        #[test]
        fn o22_names_of_others_are_not_ours(name in ".{0,80}") {
            prop_assert_eq!(parse_snapshot(&name), None);
            prop_assert_eq!(parse_cluster(&name), None);
        }

        #[test]
        fn names_sort_as_the_log_does(a in 0..10_u64.pow(12), b in 0..10_u64.pow(12)) {
            let name = |index| {
                snapshot(&GroupId::config(0), &SnapshotId { index, incarnation: 1, term: 1, nonce: 0 })
            };
            prop_assert_eq!(a.cmp(&b), name(a).cmp(&name(b)));
        }
    }

    #[test]
    fn x03_no_name_leads_out_of_its_folder() {
        let id = SnapshotId {
            index: 1,
            incarnation: 1,
            term: 1,
            nonce: 1,
        };
        for topic in ["..", ".", "a/b", "", "a\0", "A", "%2e", "snapshots/config"] {
            assert!(GroupId::new(topic, 0).is_err(), "{topic:?}");
            assert_eq!(
                parse_snapshot(&format!("snapshots/{topic}/0/{id}.snap")),
                None,
                "{topic:?}"
            );
        }
        for name in [
            "snapshots/config/00/",
            "snapshots/config/+1/",
            "snapshots//0/",
            "snapshots/config/4294967296/",
        ] {
            assert_eq!(parse_snapshot(&format!("{name}{id}.snap")), None, "{name}");
        }
    }
}
