//! When a snapshot is due and who builds it: pure decisions over facts that survive a restart.
//!
//! What is counted is entries since the last *recorded* snapshot, never the distance between commit and apply, which is
//! zero on a healthy node.

use std::fmt;
use std::time::Duration;

/// A follower that is at most this many entries behind keeps up.
const KEEPS_UP_ENTRIES: u64 = 1_000;
/// A group that has none gets its first snapshot at this age, or earlier when the time threshold is shorter: a cluster can be
/// restored only when every group has one, those that nobody writes to as well.
const FIRST_AFTER: Duration = Duration::from_secs(300);
/// ... and no later than this after another group recorded one. Not at once: whoever has all groups snapshotted, one after
/// the other, is not to find each made twice.
const FIRST_AFTER_OTHERS: Duration = Duration::from_secs(30);
/// While nothing that users see changed, fewer entries than this make no snapshot, whatever the threshold: a snapshot leaves up to
/// four behind its own position (its record, the end of its task, a mark and a deletion), and two in `__meta/0` for each of another
/// group, and must not make the next one due by that.
const UNCHANGED_ENTRIES_MIN: u64 = 100;
/// While a disk is short of room, less log than this since the last snapshot makes no other one: the log goes in whole files, of which the
/// newest stays, and a snapshot of the same state again and again costs more than it frees.
const DISK_LOG_BYTES_MIN: u64 = 32 << 20;
/// Nor less than this part of the size of the last one.
const DISK_SHARE_OF_LAST: u64 = 4;

/// What is known of a group's log since its last snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TriggerFacts {
    /// Entries applied since the last recorded snapshot.
    pub entries_since: u64,
    /// Bytes of those entries.
    pub bytes_since: u64,
    /// When that snapshot was made, microseconds since 1970 UTC; none while the group has none.
    pub last_snapshot_us: Option<i64>,
    /// When this life of the group began, microseconds since 1970 UTC.
    pub born_us: i64,
    /// When the newest snapshot of any other group was made, likewise; none while no other has one.
    pub others_snapshot_us: Option<i64>,
    /// Whether any of those entries changed what users see; the record of a snapshot does not.
    pub changed: bool,
    /// Now, microseconds since 1970 UTC.
    pub now_us: i64,
    /// Size of that snapshot's object; 0 while the group has none.
    pub last_bytes: u64,
    /// The disk that the log is on; none where its size is not known.
    pub disk: Option<Disk>,
    /// Whether an operator asked.
    pub requested: bool,
}

/// Room on a disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Free for whoever is not root.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

/// When a snapshot is due. Zero turns a threshold off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriggerPolicy {
    /// After this many entries, whether they changed anything or not: the log is purged behind snapshots only.
    pub entries: u64,
    /// After this many bytes, likewise.
    pub bytes: u64,
    /// After this time, if anything changed.
    pub time: Duration,
    /// With less than this percentage of the disk free, as soon as the snapshot lets 32 MiB of log go.
    pub disk_free_percent: u64,
}

/// Why a snapshot is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// An operator asked.
    Requested,
    /// The group has none, and without one the cluster cannot be restored.
    First,
    /// Enough entries, so many.
    Entries(u64),
    /// Enough bytes, so many.
    Bytes(u64),
    /// Enough time, so much, and something changed.
    Time(Duration),
    /// The disk is short of room, of which so many percent are free, and so many bytes of log have come since the last one.
    Disk(u64, u64),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested => f.write_str("requested"),
            Self::First => f.write_str("the first of this group"),
            Self::Entries(n) => write!(f, "{n} entries since the last one"),
            Self::Bytes(n) => write!(f, "{n} bytes since the last one"),
            Self::Time(t) => write!(f, "changed, and {} s since the last one", t.as_secs()),
            Self::Disk(percent, bytes) => {
                write!(
                    f,
                    "{percent} % of the disk are free, and {bytes} bytes of log since the last one"
                )
            }
        }
    }
}

/// Whether a snapshot is due, and why. A group in which nothing happens makes its first one, and no other save on request.
pub fn decide(facts: &TriggerFacts, policy: &TriggerPolicy) -> Option<Reason> {
    if facts.requested {
        return Some(Reason::Requested);
    }
    let entries_min = if facts.changed {
        0
    } else {
        UNCHANGED_ENTRIES_MIN
    };
    if policy.entries > 0 && facts.entries_since >= policy.entries.max(entries_min) {
        return Some(Reason::Entries(facts.entries_since));
    }
    if policy.bytes > 0 && facts.bytes_since >= policy.bytes {
        return Some(Reason::Bytes(facts.bytes_since));
    }
    if let Some(short) = short_of_disk(facts, policy) {
        return Some(short);
    }
    let Some(last_us) = facts.last_snapshot_us else {
        return first_is_due(facts, policy).then_some(Reason::First);
    };
    let since = facts.since(last_us)?;
    let due = facts.changed && !policy.time.is_zero() && since >= policy.time;
    due.then_some(Reason::Time(since))
}

/// Whether a snapshot is due because a disk is short of room. Every member judges its own: the log is on all of them.
pub fn short_of_disk(facts: &TriggerFacts, policy: &TriggerPolicy) -> Option<Reason> {
    let disk = facts.disk.filter(|disk| disk.total > 0)?;
    // However long others fill the disk: what is written to the store stays in a proportion to what is freed.
    if facts.bytes_since < DISK_LOG_BYTES_MIN.max(facts.last_bytes / DISK_SHARE_OF_LAST) {
        return None;
    }
    let free = u128::from(disk.free) * 100;
    let short = free < u128::from(policy.disk_free_percent) * u128::from(disk.total);
    let percent = free / u128::from(disk.total);
    short.then(|| Reason::Disk(u64::try_from(percent).unwrap_or(100), facts.bytes_since))
}

/// Whether a group that has no snapshot has waited long enough for its first.
fn first_is_due(facts: &TriggerFacts, policy: &TriggerPolicy) -> bool {
    let Some(age) = facts.since(facts.born_us) else {
        return false;
    };
    let after = match policy.time {
        Duration::ZERO => FIRST_AFTER,
        time => time.min(FIRST_AFTER),
    };
    // In a life that began from a snapshot others may bring theirs along: they count from its beginning.
    let others = facts
        .others_snapshot_us
        .and_then(|us| facts.since(us.max(facts.born_us)));
    age >= after || others.is_some_and(|others| others >= FIRST_AFTER_OTHERS)
}

impl TriggerFacts {
    /// How long ago that was. A clock that went back makes everything late, never early; entries and bytes do not care.
    fn since(&self, us: i64) -> Option<Duration> {
        let since = u64::try_from(self.now_us.saturating_sub(us)).ok()?;
        Some(Duration::from_micros(since))
    }
}

/// One member of a group, as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The node's id.
    pub node: u64,
    /// Whether it votes; learners are busy catching up.
    pub voter: bool,
    /// The last index that the leader knows it has; none if unknown.
    pub matched: Option<u64>,
    /// Whether it answered lately.
    pub reachable: bool,
}

/// Who builds: of the voters that answer and keep up, the one that is furthest, not the leader; the leader if there is none.
///
/// `failed` are those whose tasks failed since the last snapshot, the latest last. They come after those that did not fail, and
/// of them the one whose failure is the oldest comes first: what one node cannot do, because it cannot reach the store, another
/// gets to try, the leader too.
pub fn choose_builder(leader: u64, last_index: u64, members: &[Candidate], failed: &[u64]) -> u64 {
    let mut able: Vec<(u64, u64)> = members
        .iter()
        .filter(|m| m.node != leader && m.voter && m.reachable)
        .filter_map(|m| Some((m.matched?, m.node)))
        .filter(|(matched, _)| matched.saturating_add(KEEPS_UP_ENTRIES) >= last_index)
        .collect();
    // Of equals the lowest id, so that two leaders in a row choose alike.
    able.sort_by_key(|(matched, node)| (std::cmp::Reverse(*matched), *node));
    let in_order = able.into_iter().map(|(_, node)| node).chain([leader]);
    least_failed(in_order, failed).unwrap_or(leader)
}

/// The first of `nodes` that did not fail; where all did, the one whose failure is the oldest. `failed` as in [`choose_builder`].
pub fn least_failed(nodes: impl IntoIterator<Item = u64>, failed: &[u64]) -> Option<u64> {
    // None before the first place; of equals the first.
    nodes
        .into_iter()
        .min_by_key(|node| failed.iter().rposition(|f| f == node))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_US: i64 = 3_600_000_000;

    fn policy() -> TriggerPolicy {
        TriggerPolicy {
            entries: 10_000,
            bytes: 1 << 30,
            time: Duration::from_secs(3600),
            disk_free_percent: 20,
        }
    }

    fn facts(entries_since: u64, bytes_since: u64, age_us: i64) -> TriggerFacts {
        TriggerFacts {
            entries_since,
            bytes_since,
            last_snapshot_us: Some(0),
            changed: true,
            now_us: age_us,
            ..TriggerFacts::default()
        }
    }

    #[test]
    fn the_first_threshold_that_is_reached_decides() {
        let due = |f| decide(&f, &policy());
        assert_eq!(due(facts(9_999, 100, HOUR_US - 1)), None);
        assert_eq!(due(facts(10_000, 100, 0)), Some(Reason::Entries(10_000)));
        assert_eq!(due(facts(3, 1 << 30, 0)), Some(Reason::Bytes(1 << 30)));
        assert_eq!(
            due(facts(1, 100, HOUR_US)),
            Some(Reason::Time(Duration::from_secs(3600)))
        );
    }

    #[test]
    fn an_idle_group_makes_no_snapshots() {
        let idle = TriggerFacts {
            changed: false,
            ..facts(1, 100, 100 * HOUR_US)
        };
        assert_eq!(decide(&idle, &policy()), None);
        let requested = TriggerFacts {
            requested: true,
            ..idle
        };
        assert_eq!(decide(&requested, &policy()), Some(Reason::Requested));
    }

    /// Refusals, retries and parts of broken uploads change nothing that users see, and fill the log all the same.
    #[test]
    fn entries_and_bytes_count_whether_they_changed_anything_or_not() {
        let due = |entries, bytes| {
            let unchanged = TriggerFacts {
                changed: false,
                ..facts(entries, bytes, 0)
            };
            decide(&unchanged, &policy())
        };
        assert_eq!(due(9_999, 100), None);
        assert_eq!(due(10_000, 100), Some(Reason::Entries(10_000)));
        assert_eq!(due(3, 1 << 30), Some(Reason::Bytes(1 << 30)));
    }

    #[test]
    fn what_a_snapshot_itself_leaves_in_the_log_makes_no_other_due() {
        let eager = TriggerPolicy {
            entries: 1,
            ..policy()
        };
        assert_eq!(
            decide(&facts(1, 1, 0), &eager),
            Some(Reason::Entries(1)),
            "a change"
        );
        let unchanged = |entries| TriggerFacts {
            changed: false,
            ..facts(entries, 1, 100 * HOUR_US)
        };
        // Record, end of the task, mark and deletion of an old one; and the tasks of 40 other groups.
        assert_eq!(decide(&unchanged(4 + 2 * 40), &eager), None);
        assert_eq!(
            decide(&unchanged(UNCHANGED_ENTRIES_MIN), &eager),
            Some(Reason::Entries(UNCHANGED_ENTRIES_MIN))
        );
    }

    #[test]
    fn a_group_that_nobody_writes_to_has_its_first_soon() {
        let born_us = 7 * HOUR_US;
        let at = |seconds: i64| TriggerFacts {
            last_snapshot_us: None,
            born_us,
            now_us: born_us + seconds * 1_000_000,
            ..facts(1, 0, 0)
        };
        assert_eq!(decide(&at(299), &policy()), None);
        assert_eq!(decide(&at(300), &policy()), Some(Reason::First));
        let quick = TriggerPolicy {
            time: Duration::from_secs(2),
            ..policy()
        };
        assert_eq!(decide(&at(1), &quick), None);
        assert_eq!(decide(&at(2), &quick), Some(Reason::First));
        // Another group has one: without this one it is worth nothing.
        let beside = |seconds, others_us| TriggerFacts {
            others_snapshot_us: Some(others_us),
            ..at(seconds)
        };
        assert_eq!(decide(&beside(59, born_us + 30_000_000), &policy()), None);
        assert_eq!(
            decide(&beside(60, born_us + 30_000_000), &policy()),
            Some(Reason::First)
        );
        // One that came along from an older life.
        assert_eq!(decide(&beside(29, HOUR_US), &policy()), None);
        assert_eq!(decide(&beside(30, HOUR_US), &policy()), Some(Reason::First));
        // A clock that went back is never early.
        assert_eq!(decide(&at(-1_000), &policy()), None);
    }

    #[test]
    fn a_clock_that_went_back_stops_time_only() {
        assert_eq!(decide(&facts(1, 1, -HOUR_US), &policy()), None);
        assert_eq!(
            decide(&facts(20_000, 1, i64::MIN), &policy()),
            Some(Reason::Entries(20_000))
        );
    }

    #[test]
    fn without_a_snapshot_entries_count_from_the_beginning() {
        let first = TriggerFacts {
            last_snapshot_us: None,
            ..facts(10_000, 1, 0)
        };
        assert_eq!(decide(&first, &policy()), Some(Reason::Entries(10_000)));
        let few = TriggerFacts {
            entries_since: 5,
            ..first
        };
        assert_eq!(decide(&few, &policy()), None);
    }

    #[test]
    fn zero_turns_a_threshold_off() {
        let off = TriggerPolicy {
            entries: 0,
            bytes: 0,
            time: Duration::ZERO,
            disk_free_percent: 0,
        };
        let full = TriggerFacts {
            disk: Some(Disk {
                free: 0,
                total: 100,
            }),
            ..facts(u64::MAX, u64::MAX, i64::MAX)
        };
        assert_eq!(decide(&full, &off), None);
    }

    #[test]
    fn a_disk_that_is_short_of_room_makes_one_due_that_lets_log_go() {
        let on = |free, total, bytes_since| {
            let facts = TriggerFacts {
                disk: Some(Disk { free, total }),
                ..facts(3, bytes_since, 0)
            };
            decide(&facts, &policy())
        };
        let enough = DISK_LOG_BYTES_MIN;
        assert_eq!(on(200, 1000, enough), None);
        assert_eq!(on(199, 1000, enough), Some(Reason::Disk(19, enough)));
        assert_eq!(on(0, 1000, enough), Some(Reason::Disk(0, enough)));
        // It would free nothing.
        assert_eq!(on(0, 1000, enough - 1), None);
        // It would write much more than it frees.
        let of_a_large_state = |bytes_since| {
            let facts = TriggerFacts {
                disk: Some(Disk {
                    free: 0,
                    total: 1000,
                }),
                last_bytes: 4 << 30,
                ..facts(3, bytes_since, 0)
            };
            short_of_disk(&facts, &policy())
        };
        assert_eq!(of_a_large_state((1 << 30) - 1), None);
        assert!(of_a_large_state(1 << 30).is_some());
        // Sizes of which no product fits into 64 bits, and a disk that says nothing of itself.
        assert_eq!(
            on(u64::MAX / 10, u64::MAX, enough),
            Some(Reason::Disk(9, enough))
        );
        assert_eq!(on(0, 0, enough), None);
        assert_eq!(decide(&facts(3, enough, 0), &policy()), None);
    }

    fn member(node: u64, matched: Option<u64>) -> Candidate {
        Candidate {
            node,
            voter: true,
            matched,
            reachable: true,
        }
    }

    #[test]
    fn a_follower_that_keeps_up_builds() {
        let members = [
            member(1, Some(5_000)),
            member(2, Some(4_500)),
            member(3, Some(4_900)),
        ];
        assert_eq!(choose_builder(1, 5_000, &members, &[]), 3);
        let level = [
            member(1, Some(10)),
            member(3, Some(10)),
            member(2, Some(10)),
        ];
        assert_eq!(choose_builder(1, 10, &level, &[]), 2);
    }

    #[test]
    fn who_failed_comes_last_and_everybody_gets_a_turn() {
        let members = [1, 2, 3].map(|node| member(node, Some(10)));
        let choose = |failed: &[u64]| choose_builder(1, 10, &members, failed);
        assert_eq!(choose(&[]), 2);
        assert_eq!(choose(&[2]), 3);
        assert_eq!(choose(&[2, 3]), 1, "the leader");
        assert_eq!(choose(&[2, 3, 1]), 2, "whose failure is the oldest");
        assert_eq!(choose(&[3, 1, 2]), 3);
        assert_eq!(choose(&[7]), 2, "who is no member any more");
        assert_eq!(choose_builder(1, 10, &[], &[1]), 1, "alone");
    }

    #[test]
    fn the_leader_builds_when_nobody_else_can() {
        let behind = member(2, Some(3_999));
        let silent = Candidate {
            reachable: false,
            ..member(3, Some(5_000))
        };
        let learner = Candidate {
            voter: false,
            ..member(4, Some(5_000))
        };
        let unknown = member(5, None);
        assert_eq!(
            choose_builder(
                1,
                5_000,
                &[member(1, Some(5_000)), behind, silent, learner, unknown],
                &[]
            ),
            1
        );
        assert_eq!(choose_builder(1, 0, &[], &[]), 1);
    }
}
