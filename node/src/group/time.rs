//! The time of a group: what its leader stamps, and what everything is measured by that its log has a time for.
//!
//! A hybrid logical clock. It follows the clocks of the nodes ([`Clock`]), and is never behind what the log says. Where the log is ahead of
//! them, because all of them were, it goes on at half their speed until they have caught up: what waits for a time to pass waits twice
//! as long, not for ever.
//!
//! What this node stamped itself is not kept: whether it leads and whether its entry lasts is not known then, and a time that nobody else
//! has must not come back when it leads later. Apply makes every entry later than the one before it, whatever their stamps say.

use std::time::Instant;

use parking_lot::Mutex;

use crate::clock::{Clock, micros};

/// The time of one group, on one node.
#[derive(Debug)]
pub(super) struct GroupTime {
    newest: Mutex<Newest>,
}

impl GroupTime {
    pub(super) fn new() -> Self {
        Self {
            newest: Mutex::new(Newest {
                us: i64::MIN,
                since: Instant::now(),
            }),
        }
    }

    /// Now, given the clocks' word for it and the newest time that was applied.
    pub(super) fn now_us(&self, clock_us: i64, last_us: i64) -> i64 {
        let now = Instant::now();
        self.newest.lock().now_us(clock_us, last_us, now)
    }
}

/// The newest time that was applied, and since when it is known.
#[derive(Debug)]
struct Newest {
    us: i64,
    since: Instant,
}

impl Newest {
    fn now_us(&mut self, clock_us: i64, last_us: i64, now: Instant) -> i64 {
        // What has gone on from an older one may be later by now, and time would stand if each entry began it anew.
        if last_us > self.at(now) {
            *self = Self {
                us: last_us,
                since: now,
            };
        }
        clock_us.max(self.at(now))
    }

    /// What the log's time has become, at half speed.
    fn at(&self, now: Instant) -> i64 {
        let passed = now.saturating_duration_since(self.since);
        self.us.saturating_add(micros(passed) / 2)
    }
}

/// How far the newest time in a log is ahead of the clocks, in microseconds; 0 where it is not.
pub(super) fn ahead_us(clock: &Clock, last_us: i64) -> i64 {
    last_us.saturating_sub(clock.now_us()).max(0)
}

/// When a time of the group's was by the clocks, if the group's time is `now_us` and theirs is `clock_us`: as long ago for both.
pub(super) fn by_clock_us(us: i64, now_us: i64, clock_us: i64) -> i64 {
    clock_us.saturating_sub(now_us.saturating_sub(us))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: i64 = 1_000_000;

    fn newest(begin: Instant) -> Newest {
        Newest {
            us: i64::MIN,
            since: begin,
        }
    }

    #[test]
    fn t01_time_goes_on_at_half_speed_where_the_log_is_ahead() {
        let begin = Instant::now();
        let mut time = newest(begin);
        // The log has what the clocks said before they went back. Some of what is stamped is applied, and only looked at later.
        let mut last = 100 * SECOND;
        assert_eq!(time.now_us(10 * SECOND, last, begin), last);
        for seconds in 1..100 {
            let now = begin + Duration::from_secs(2 * seconds);
            let on = (100 + seconds as i64) * SECOND;
            assert_eq!(time.now_us(10 * SECOND, last, now), on);
            if seconds % 3 == 0 {
                last = on;
            }
        }
        // And with them again, as soon as they are there.
        assert_eq!(time.now_us(300 * SECOND, last, begin), 300 * SECOND);
    }

    #[test]
    fn t01_what_another_leader_stamped_counts() {
        let begin = Instant::now();
        let mut time = newest(begin);
        assert_eq!(time.now_us(5, 100 * SECOND, begin), 100 * SECOND);
        let now = begin + Duration::from_secs(1);
        assert_eq!(time.now_us(5, 300 * SECOND, now), 300 * SECOND);
    }

    #[test]
    fn t01_what_is_an_hour_old_is_so_by_the_clocks_too() {
        // Both alike; the group a day ahead, and what it dated lies in the future.
        assert_eq!(by_clock_us(100, 3700, 3700), 100);
        assert_eq!(by_clock_us(90_000, 93_600, 7_200), 3_600);
    }

    #[test]
    fn t01_what_was_stamped_and_never_applied_does_not_come_back() {
        let begin = Instant::now();
        let mut time = newest(begin);
        // This node alone, by its own clock; then it hears the others, who have none of that.
        assert_eq!(time.now_us(900_000 * SECOND, 5, begin), 900_000 * SECOND);
        assert_eq!(time.now_us(100 * SECOND, 6, begin), 100 * SECOND);
    }
}
