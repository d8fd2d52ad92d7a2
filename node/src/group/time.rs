//! The time of a group: what its leader stamps, and what everything is measured by that its log has a time for.
//!
//! A hybrid logical clock. It follows the clocks of the nodes ([`Clock`]), and never goes back. Where it is ahead of them, because all of
//! them were, it goes on at half their speed until they have caught up: what waits for a time to pass waits twice as long, not for ever.

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

    /// Now, given the clocks' word for it and the newest time in the log.
    pub(super) fn now_us(&self, clock_us: i64, last_us: i64) -> i64 {
        let now = Instant::now();
        self.newest.lock().now_us(clock_us, last_us, now)
    }

    /// Now, and later than every time that was given before: for a command.
    pub(super) fn stamp_us(&self, clock_us: i64, last_us: i64) -> i64 {
        let now = Instant::now();
        self.newest.lock().stamp_us(clock_us, last_us, now)
    }
}

/// The newest time that is known, and since when.
#[derive(Debug)]
struct Newest {
    us: i64,
    since: Instant,
}

impl Newest {
    fn now_us(&mut self, clock_us: i64, last_us: i64, now: Instant) -> i64 {
        if last_us > self.us {
            self.is(last_us, now);
        }
        let passed = now.saturating_duration_since(self.since);
        clock_us.max(self.us.saturating_add(micros(passed) / 2))
    }

    fn stamp_us(&mut self, clock_us: i64, last_us: i64, now: Instant) -> i64 {
        let us = self.now_us(clock_us, last_us, now);
        let us = us.max(self.us.saturating_add(1));
        self.is(us, now);
        us
    }

    fn is(&mut self, us: i64, now: Instant) {
        self.us = us;
        self.since = now;
    }
}

/// How far the newest time in a log is ahead of the clocks, in microseconds; 0 where it is not.
pub(super) fn ahead_us(clock: &Clock, last_us: i64) -> i64 {
    last_us.saturating_sub(clock.now_us()).max(0)
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
    fn t01_time_never_goes_back_and_never_stands() {
        let begin = Instant::now();
        let mut time = newest(begin);
        assert_eq!(time.stamp_us(100 * SECOND, 0, begin), 100 * SECOND);
        assert_eq!(time.stamp_us(100 * SECOND, 0, begin), 100 * SECOND + 1);
        // All clocks went back; half as fast, whether it writes or not.
        for seconds in [1, 2, 3] {
            let now = begin + Duration::from_secs(2 * seconds);
            let on = (100 + seconds as i64) * SECOND + 1;
            assert_eq!(time.now_us(10 * SECOND, 0, now), on);
            if seconds == 2 {
                assert_eq!(time.stamp_us(10 * SECOND, 0, now), on);
            }
        }
        // And with them again, as soon as they are there.
        assert_eq!(time.stamp_us(200 * SECOND, 0, begin), 200 * SECOND);
    }

    #[test]
    fn t01_what_another_leader_stamped_counts() {
        let begin = Instant::now();
        let mut time = newest(begin);
        assert_eq!(time.now_us(5, 100 * SECOND, begin), 100 * SECOND);
        assert_eq!(time.stamp_us(5, 100 * SECOND, begin), 100 * SECOND + 1);
        let now = begin + Duration::from_secs(1);
        assert_eq!(time.stamp_us(5, 300 * SECOND, now), 300 * SECOND + 1);
    }
}
