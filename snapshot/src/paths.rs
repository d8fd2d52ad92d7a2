//! Every object name in the store, built and parsed here and nowhere else. All are relative to the prefix.
//!
//! ```text
//! cluster/{incarnation:010}-{uuid}.json         who owns this prefix; a restore order
//! cluster/{incarnation:010}-{uuid}.done.json    that restore order is spent
//! cluster/{incarnation:010}-{uuid}.undone.json  that incarnation never was: its recovery was undone
//! cluster/{incarnation:010}-{uuid}.member-{node id:020}.json  a node took up that id of the restore order
//! snapshots/{topic}/{partition}/{id}.snap       one snapshot
//! pins/{topic}/{partition}/{id}.json            that snapshot stays, whatever retention would do
//! marks/{topic}/{partition}/{id}.json           a tool found that snapshot due for deletion
//! reports/{kind}/{time}-{id}.json               how a drill, a recovery or a restore went
//! probe/{name}                                  written and deleted at a start, to learn what the store honours
//! ```

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::id::SnapshotId;
use crate::model::{ClusterId, GroupId};

/// Where cluster objects lie.
pub const CLUSTERS: &str = "cluster";
/// Where snapshots lie.
pub const SNAPSHOTS: &str = "snapshots";
/// Where probe objects lie for a moment.
pub const PROBES: &str = "probe";
/// Where reports lie.
pub const REPORTS: &str = "reports";
/// Longest id of a report, in bytes.
const REPORT_ID_BYTES_MAX: usize = 64;
const DONE_SUFFIX: &str = ".done.json";
const MEMBER_INFIX: &str = ".member-";
const REPORT_TIME: &str = "%Y%m%dT%H%M%S.%6fZ";
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

/// What is noted about a snapshot beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoteKind {
    /// It stays, whatever retention would do.
    Pin,
    /// Retention without a cluster found it due for deletion.
    Mark,
}

impl NoteKind {
    fn folder(self) -> &'static str {
        match self {
            Self::Pin => "pins",
            Self::Mark => "marks",
        }
    }
}

/// The folder of all notes of one kind.
pub fn notes_of_all(kind: NoteKind) -> &'static str {
    kind.folder()
}

/// The folder of the notes of one kind about a group's snapshots.
pub fn notes(kind: NoteKind, group: &GroupId) -> String {
    format!("{}/{group}", kind.folder())
}

/// The object of one note.
pub fn note(kind: NoteKind, group: &GroupId, id: &SnapshotId) -> String {
    format!("{}/{group}/{id}{CLUSTER_SUFFIX}", kind.folder())
}

/// The group and snapshot that an object of this kind is about; none if it is not the name of such a note.
pub fn parse_note(kind: NoteKind, object: &str) -> Option<(GroupId, SnapshotId)> {
    let rest = object.strip_prefix(kind.folder())?.strip_prefix('/')?;
    let (group, file) = rest.rsplit_once('/')?;
    let id = file.strip_suffix(CLUSTER_SUFFIX)?;
    Some((group.parse().ok()?, id.parse().ok()?))
}

/// The object by which a cluster's incarnation owns the prefix.
pub fn cluster(cluster: &ClusterId) -> String {
    format!(
        "{CLUSTERS}/{:010}-{}{CLUSTER_SUFFIX}",
        cluster.incarnation, cluster.uuid
    )
}

/// The object that says that a recovery which claimed this incarnation was undone: the number is spent, and nobody
/// owns the prefix by it.
pub fn cluster_undone(cluster: &ClusterId) -> String {
    format!(
        "{CLUSTERS}/{:010}-{}.undone.json",
        cluster.incarnation, cluster.uuid
    )
}

/// The cluster of an object that [`cluster_undone`] names.
pub fn parse_cluster_undone(object: &str) -> Option<ClusterId> {
    let name = object.strip_suffix(".undone.json")?;
    parse_cluster(&format!("{name}.json"))
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

/// The object that says that the restore order of this incarnation is spent.
pub fn cluster_done(cluster: &ClusterId) -> String {
    format!(
        "{CLUSTERS}/{:010}-{}{DONE_SUFFIX}",
        cluster.incarnation, cluster.uuid
    )
}

/// The cluster whose restore order is spent when an object of this name exists; none if it is not such a name.
pub fn parse_cluster_done(object: &str) -> Option<ClusterId> {
    let stem = object.strip_suffix(DONE_SUFFIX)?;
    parse_cluster(&format!("{stem}{CLUSTER_SUFFIX}"))
}

/// The object that says that a node took up one of the ids of this incarnation's restore order.
pub fn cluster_member(cluster: &ClusterId, node_id: u64) -> String {
    format!(
        "{CLUSTERS}/{:010}-{}{MEMBER_INFIX}{node_id:020}{CLUSTER_SUFFIX}",
        cluster.incarnation, cluster.uuid
    )
}

/// The cluster and node id of an object that [`cluster_member`] names.
pub fn parse_cluster_member(object: &str) -> Option<(ClusterId, u64)> {
    let (stem, id) = object
        .strip_suffix(CLUSTER_SUFFIX)?
        .rsplit_once(MEMBER_INFIX)?;
    let cluster = parse_cluster(&format!("{stem}{CLUSTER_SUFFIX}"))?;
    let node_id = id.parse().ok()?;
    // One text a name.
    (cluster_member(&cluster, node_id) == object).then_some((cluster, node_id))
}

/// What a report is about.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum ReportKind {
    /// A rehearsal of a restore.
    Drill,
    /// A recovery from the loss of a quorum.
    Recovery,
    /// A restore of a cluster from the store.
    Restore,
}

impl ReportKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Drill, Self::Recovery, Self::Restore];

    /// The kind in one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Drill => "drill",
            Self::Recovery => "recovery",
            Self::Restore => "restore",
        }
    }
}

/// The folder of the reports of one kind.
pub fn reports(kind: ReportKind) -> String {
    format!("{REPORTS}/{}", kind.name())
}

/// The object of one report. `time_us` is when it was made, microseconds since 1970 UTC; names sort by it. None when the time
/// is not of the years 0 to 9999, or the id is not made of lower case letters, digits and `-`, 1 to 64 of them.
pub fn report(kind: ReportKind, time_us: i64, id: &str) -> Option<String> {
    let time = Timestamp::from_microsecond(time_us).ok()?;
    let year = time.to_zoned(TimeZone::UTC).year();
    let fits = (0..=9999).contains(&year) && is_report_id(id);
    let time = time.strftime(REPORT_TIME);
    fits.then(|| format!("{}/{time}-{id}{CLUSTER_SUFFIX}", reports(kind)))
}

/// The kind, time and id that an object name stands for; none if it is not the name of a report.
pub fn parse_report(object: &str) -> Option<(ReportKind, i64, String)> {
    let rest = object.strip_prefix(REPORTS)?.strip_prefix('/')?;
    let (folder, file) = rest.split_once('/')?;
    let kind = ReportKind::ALL.into_iter().find(|k| k.name() == folder)?;
    let (time, id) = file.strip_suffix(CLUSTER_SUFFIX)?.split_once('-')?;
    let time = jiff::civil::DateTime::strptime(REPORT_TIME, time).ok()?;
    let time_us = time
        .to_zoned(TimeZone::UTC)
        .ok()?
        .timestamp()
        .as_microsecond();
    // One text a name.
    (report(kind, time_us, id)? == object).then(|| (kind, time_us, id.to_owned()))
}

fn is_report_id(id: &str) -> bool {
    (1..=REPORT_ID_BYTES_MAX).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The object that a probe with this nonce writes and deletes.
pub fn probe(nonce: u64) -> String {
    format!("{PROBES}/{nonce:016x}")
}

/// One of several objects of a probe with this nonce; with an empty name, how all of them begin.
pub fn probe_part(nonce: u64, name: &str) -> String {
    format!("{PROBES}/{nonce:016x}-{name}")
}

/// Whether an object is one that [`probe`] or [`probe_part`] names.
pub fn is_probe(object: &str) -> bool {
    let Some(name) = object
        .strip_prefix(PROBES)
        .and_then(|rest| rest.strip_prefix('/'))
    else {
        return false;
    };
    let (nonce, part) = name.split_once('-').unwrap_or((name, ""));
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    nonce.len() == 16
        && nonce
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        && part.bytes().all(good)
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
        fn a_note_is_read_as_it_was_built(group in any_group(), id in any_id()) {
            let (pin, mark) = (note(NoteKind::Pin, &group, &id), note(NoteKind::Mark, &group, &id));
            prop_assert_eq!(parse_note(NoteKind::Pin, &pin), Some((group.clone(), id)));
            prop_assert_eq!(parse_note(NoteKind::Mark, &mark), Some((group.clone(), id)));
            prop_assert_eq!(parse_note(NoteKind::Mark, &pin), None);
            prop_assert_eq!(parse_snapshot(&pin), None);
            let folder = notes(NoteKind::Pin, &group) + "/";
            prop_assert!(pin.starts_with(&folder));
        }

        #[test]
        fn an_object_of_a_probe_is_known_again(nonce in any::<u64>(), name in "[a-z0-9-]{1,20}") {
            prop_assert!(is_probe(&probe(nonce)) && is_probe(&probe_part(nonce, &name)));
            let upper = format!("{}/A", probe(nonce));
            prop_assert!(!is_probe(&upper) && !is_probe(&name));
        }

        #[test]
        fn a_cluster_name_is_read_as_it_was_built(incarnation in any::<u64>(), hex in "[0-9a-f]{32}") {
            let uuid = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
            let id = ClusterId::new(uuid, incarnation);
            prop_assert_eq!(parse_cluster(&cluster(&id)), Some(id.clone()));
            // An order and the word that it is spent are never taken for each other.
            prop_assert_eq!(parse_cluster_done(&cluster(&id)), None);
            prop_assert_eq!(parse_cluster(&cluster_done(&id)), None);
            prop_assert_eq!(parse_cluster_done(&cluster_done(&id)), Some(id.clone()));
            let member = cluster_member(&id, incarnation / 2);
            prop_assert_eq!(parse_cluster(&member), None);
            prop_assert_eq!(parse_cluster_member(&cluster(&id)), None);
            prop_assert_eq!(parse_cluster_member(&member), Some((id, incarnation / 2)));
        }

        #[test]
        fn a_report_name_is_read_as_it_was_built(
            kind in proptest::sample::select(ReportKind::ALL.to_vec()),
            // The years 0001 to 9998.
            time_us in -62_135_596_800_000_000_i64..253_370_764_800_000_000,
            id in "[a-z0-9-]{1,64}",
        ) {
            let name = report(kind, time_us, &id).unwrap();
            prop_assert_eq!(parse_report(&name), Some((kind, time_us, id)));
            let folder = reports(kind) + "/";
            prop_assert!(name.starts_with(&folder));
        }

        #[test]
        fn x03_no_report_leads_out_of_its_folder(id in ".{0,80}", time_us in any::<i64>()) {
            if let Some(name) = report(ReportKind::Drill, time_us, &id) {
                prop_assert!(is_report_id(&id), "{name}");
            }
            prop_assert_eq!(parse_report(&id), None);
        }

        #[test]
        fn reports_sort_by_time(a in 0..10_i64.pow(16), b in 0..10_i64.pow(16)) {
            let name = |time_us| report(ReportKind::Drill, time_us, "x");
            prop_assert_eq!(a.cmp(&b), name(a).cmp(&name(b)));
        }

        #[test]
        fn o22_names_of_others_are_not_ours(name in ".{0,80}") {
            prop_assert_eq!(parse_snapshot(&name), None);
            prop_assert_eq!(parse_cluster(&name), None);
            prop_assert_eq!(parse_cluster_done(&name), None);
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
