//! What time it is, by more clocks than one's own.
//!
//! The time that a leader writes into its log stays: what comes later is never earlier. So a machine whose clock is a year ahead must not
//! be the one that says it. Every node hears the clocks of the others (in the answer to Hello, at least every [`LISTEN_EVERY`]) and follows
//! its own while that is near the middle of all of them, and the middle otherwise.
//!
//! - What was heard goes on by the steady clock. So one's own jump shows at once, and another's when it is heard again.
//! - Of an even number the earlier middle counts: time that is late catches up, time that is ahead stays.
//! - Nothing of safety hangs on it: positions order everything. That all clocks are wrong alike is not seen here; see
//!   [`crate::group`] for how time goes on when they are put right.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::node::Node;
use crate::reach;

/// How often the others are asked.
const LISTEN_EVERY: Duration = Duration::from_secs(10);
/// A clock that was not heard for longer does not count.
const HEARD_WITHIN: Duration = Duration::from_secs(60);
/// How far from the middle one's own clock is still followed, in microseconds: more than any time service that works leaves, less than
/// anybody who reads a history would mind.
const NEAR_US: i64 = 10_000_000;

/// One reading of another node's clock.
#[derive(Debug, Clone, Copy)]
struct Reading {
    time_us: i64,
    at: Instant,
}

impl Reading {
    /// What that clock says at `now`, unless it was read too long ago.
    fn at(self, now: Instant) -> Option<i64> {
        let age = now.saturating_duration_since(self.at);
        (age <= HEARD_WITHIN).then(|| self.time_us.saturating_add(micros(age)))
    }
}

/// The clocks that this process knows, its own first.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    others: Mutex<HashMap<u64, Reading>>,
    /// The own clock was found to be off, and the log was told.
    off: AtomicBool,
}

impl Clock {
    /// Node id `id` said that it is `time_us`, in answer to a question of `asked`.
    pub(crate) fn heard(&self, id: u64, time_us: i64, asked: Instant) {
        // From a node of a version that does not say.
        if time_us == 0 {
            return;
        }
        let now = Instant::now();
        let way = now.saturating_duration_since(asked) / 2;
        let at = now.checked_sub(way).unwrap_or(now);
        self.others.lock().insert(id, Reading { time_us, at });
    }

    /// The time to go by, in microseconds since 1970 UTC.
    pub(crate) fn now_us(&self) -> i64 {
        let own = wall_us();
        own.saturating_sub(beyond(self.offset_us(own)))
    }

    /// How far this machine's clock is ahead of the middle of all that are known, in microseconds.
    pub(crate) fn own_offset_us(&self) -> i64 {
        self.offset_us(wall_us())
    }

    fn offset_us(&self, own: i64) -> i64 {
        let now = Instant::now();
        let others = self.others.lock();
        let others = others.values().filter_map(|reading| reading.at(now));
        own.saturating_sub(middle(own, others))
    }

    /// Says in the log when this machine's clock goes off, and when it is back.
    fn tell(&self) {
        let offset = self.own_offset_us();
        let off = beyond(offset) != 0;
        if self.off.swap(off, Ordering::AcqRel) == off {
            return;
        }
        let seconds = offset as f64 / 1e6;
        match off {
            true => tracing::warn!(
                seconds,
                "this machine's clock is {} the other nodes': they are followed until it is put right\n\
                 hint: see to its time service (timedatectl, chronyc tracking); `drtool doctor` compares all of them",
                if offset > 0 { "ahead of" } else { "behind" }
            ),
            false => tracing::info!(seconds, "this machine's clock agrees with the other nodes'"),
        }
    }
}

/// The middle of all clocks, of two the earlier.
fn middle(own: i64, others: impl Iterator<Item = i64>) -> i64 {
    let mut all: Vec<i64> = std::iter::once(own).chain(others).collect();
    all.sort_unstable();
    all.get((all.len() - 1) / 2).copied().unwrap_or(own)
}

/// What is not followed of an offset.
fn beyond(offset_us: i64) -> i64 {
    match offset_us.unsigned_abs() <= NEAR_US.unsigned_abs() {
        true => 0,
        false => offset_us,
    }
}

/// What this machine's own clock says, in microseconds since 1970 UTC.
pub(crate) fn wall_us() -> i64 {
    let wall = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => micros(since),
        // Before 1970: who needs more asks several clocks.
        Err(_) => 0,
    };
    #[cfg(feature = "failpoints")]
    let wall = wall.saturating_add(crate::killpoints::clock_off_us());
    wall
}

/// A duration in microseconds.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Listens to the others' clocks for as long as the node runs.
pub(crate) async fn listen(node: Arc<Node>, closing: CancellationToken) {
    loop {
        // What it is asked for here is the time in the answers.
        reach::peers(&node).await;
        let clock = node.clock();
        clock.tell();
        metrics::gauge!("confman_clock_offset_seconds").set(clock.own_offset_us() as f64 / 1e6);
        tokio::select! {
            () = closing.cancelled() => return,
            () = tokio::time::sleep(LISTEN_EVERY) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3_600_000_000;
    const YEAR: i64 = 365 * 24 * HOUR;

    /// The time that a node with that clock goes by, among others.
    fn gone_by(own: i64, others: &[i64]) -> i64 {
        own - beyond(own - middle(own, others.iter().copied()))
    }

    #[test]
    fn t01_a_clock_that_is_far_from_the_others_is_not_followed() {
        let stories = [
            (0, vec![], 0),
            (0, vec![3_000_000, -2_000_000], 0),
            (YEAR, vec![0, 1_000], 1_000),
            (-YEAR, vec![0, 1_000], 0),
            (NEAR_US, vec![0, 0], NEAR_US),
            (NEAR_US + 1, vec![0, 0], 0),
            // Another's fault moves nobody.
            (0, vec![YEAR, 5], 0),
            (0, vec![-YEAR, -5], 0),
            // Of two the earlier: a leader that is ahead does not stamp for good.
            (HOUR, vec![0], 0),
            (0, vec![HOUR], 0),
            (HOUR, vec![HOUR, HOUR, 0, 0], HOUR),
        ];
        for (own, others, want) in stories {
            assert_eq!(gone_by(own, &others), want, "{own} among {others:?}");
        }
    }

    #[test]
    fn t01_what_was_heard_goes_on_and_is_forgotten() {
        let clock = Clock::default();
        let now = Instant::now();
        let reading = Reading {
            time_us: 5,
            at: now,
        };
        assert_eq!(reading.at(now + Duration::from_micros(7)), Some(12));
        assert_eq!(reading.at(now + HEARD_WITHIN * 2), None);
        // A node that says nothing, and two that are an hour behind this one.
        clock.heard(1, 0, now);
        assert_eq!(clock.own_offset_us(), 0);
        let behind = wall_us() - HOUR;
        clock.heard(2, behind, Instant::now());
        clock.heard(3, behind, Instant::now());
        assert!((clock.now_us() - behind).abs() < NEAR_US);
        assert!((clock.own_offset_us() - HOUR).abs() < NEAR_US);
    }

    proptest! {
        /// As long as most clocks are near each other, everybody goes by a time that is near them.
        #[test]
        fn t01_most_clocks_are_followed(
            good in prop::collection::vec(-1_000_000_i64..1_000_000, 3..6),
            bad in prop::collection::vec(any::<i64>(), 0..3),
        ) {
            let all: Vec<i64> = good.iter().chain(&bad).map(|us| us / 4).collect();
            for (i, own) in all.iter().enumerate() {
                let mut others = all.clone();
                others.remove(i);
                let us = gone_by(*own, &others);
                prop_assert!(us.abs() <= NEAR_US + 1_000_000, "{us}");
            }
        }
    }
}
