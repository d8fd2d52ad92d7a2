//! When a snapshot is due and who builds it: pure decisions over facts that survive a restart.
//!
//! What is counted is entries since the last *recorded* snapshot, never the distance between commit and apply, which is
//! zero on a healthy node.

use std::fmt;
use std::time::Duration;

/// A follower that is at most this many entries behind keeps up.
const KEEPS_UP_ENTRIES: u64 = 1_000;

/// What is known of a group's log since its last snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TriggerFacts {
    /// Entries applied since the last recorded snapshot.
    pub entries_since: u64,
    /// Bytes of those entries.
    pub bytes_since: u64,
    /// When that snapshot was recorded, microseconds since 1970 UTC, by the group's time; with none yet, when the group
    /// began, if known.
    pub last_snapshot_us: Option<i64>,
    /// Whether any of those entries changed what users see; the record of a snapshot does not.
    pub changed: bool,
    /// Now, microseconds since 1970 UTC.
    pub now_us: i64,
    /// Whether an operator asked.
    pub requested: bool,
}

/// When a snapshot is due. Zero turns a threshold off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriggerPolicy {
    /// After this many entries.
    pub entries: u64,
    /// After this many bytes.
    pub bytes: u64,
    /// After this time, if anything changed.
    pub time: Duration,
}

/// Why a snapshot is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// An operator asked.
    Requested,
    /// Enough entries, so many.
    Entries(u64),
    /// Enough bytes, so many.
    Bytes(u64),
    /// Enough time, so much, and something changed.
    Time(Duration),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested => f.write_str("requested"),
            Self::Entries(n) => write!(f, "{n} entries since the last one"),
            Self::Bytes(n) => write!(f, "{n} bytes since the last one"),
            Self::Time(t) => write!(f, "changed, and {} s since the last one", t.as_secs()),
        }
    }
}

/// Whether a snapshot is due, and why. Nothing is due while nothing changed, save on request.
pub fn decide(facts: &TriggerFacts, policy: &TriggerPolicy) -> Option<Reason> {
    if facts.requested {
        return Some(Reason::Requested);
    }
    if !facts.changed {
        return None;
    }
    if policy.entries > 0 && facts.entries_since >= policy.entries {
        return Some(Reason::Entries(facts.entries_since));
    }
    if policy.bytes > 0 && facts.bytes_since >= policy.bytes {
        return Some(Reason::Bytes(facts.bytes_since));
    }
    // A clock that went back makes this late, never early; entries and bytes do not care.
    let since_us = u64::try_from(facts.now_us.saturating_sub(facts.last_snapshot_us?)).ok()?;
    let since = Duration::from_micros(since_us);
    (!policy.time.is_zero() && since >= policy.time).then_some(Reason::Time(since))
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
pub fn choose_builder(leader: u64, last_index: u64, members: &[Candidate]) -> u64 {
    members
        .iter()
        .filter(|m| m.node != leader && m.voter && m.reachable)
        .filter_map(|m| Some((m.matched?, m.node)))
        .filter(|(matched, _)| matched.saturating_add(KEEPS_UP_ENTRIES) >= last_index)
        // Of equals the lowest id, so that two leaders in a row choose alike.
        .max_by_key(|(matched, node)| (*matched, std::cmp::Reverse(*node)))
        .map_or(leader, |(_, node)| node)
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
        }
    }

    fn facts(entries_since: u64, bytes_since: u64, age_us: i64) -> TriggerFacts {
        TriggerFacts {
            entries_since,
            bytes_since,
            last_snapshot_us: Some(0),
            changed: true,
            now_us: age_us,
            requested: false,
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
        assert_eq!(
            decide(
                &TriggerFacts {
                    requested: true,
                    ..idle
                },
                &policy()
            ),
            Some(Reason::Requested)
        );
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
            ..facts(10_000, 1, i64::MAX)
        };
        assert_eq!(decide(&first, &policy()), Some(Reason::Entries(10_000)));
        assert_eq!(
            decide(
                &TriggerFacts {
                    entries_since: 5,
                    ..first
                },
                &policy()
            ),
            None
        );
    }

    #[test]
    fn zero_turns_a_threshold_off() {
        let off = TriggerPolicy {
            entries: 0,
            bytes: 0,
            time: Duration::ZERO,
        };
        assert_eq!(decide(&facts(u64::MAX, u64::MAX, i64::MAX), &off), None);
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
        assert_eq!(choose_builder(1, 5_000, &members), 3);
        let level = [
            member(1, Some(10)),
            member(3, Some(10)),
            member(2, Some(10)),
        ];
        assert_eq!(choose_builder(1, 10, &level), 2);
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
                &[member(1, Some(5_000)), behind, silent, learner, unknown]
            ),
            1
        );
        assert_eq!(choose_builder(1, 0, &[]), 1);
    }
}
