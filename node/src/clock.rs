//! What time it is, by more clocks than one's own.
//!
//! The time that a leader writes into its log stays: what comes later is never earlier. So a machine whose clock is a year ahead must not
//! be the one that says it. Every node hears the clocks of the others (in the answer to Hello, at least every [`LISTEN_EVERY`]) and follows
//! its own while that is near the middle of all of them, and the middle otherwise.
//!
//! - What was heard goes on by the steady clock. So one's own jump shows at once, and another's when it is heard again.
//! - Of an even number the earlier middle counts: time that is late catches up, time that is ahead stays. Which of two is wrong is not
//!   known: both say that they differ.
//! - A clock that was found to be off does not become right because nobody is heard any more: the last middle goes on by the steady clock
//!   until the own clock is near it, or somebody is heard.
//! - Nothing of safety hangs on it: positions order everything. That all clocks are wrong alike is not seen here; see
//!   [`crate::group`] for how time goes on when they are put right.

use std::collections::HashMap;
use std::sync::Arc;
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
    /// What that clock says at `now`.
    fn at(self, now: Instant) -> i64 {
        let age = now.saturating_duration_since(self.at);
        self.time_us.saturating_add(micros(age))
    }

    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) <= HEARD_WITHIN
    }
}

/// The clocks that this process knows, its own first.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    known: Mutex<Known>,
    /// What the log was told last.
    told: Mutex<Finding>,
}

#[derive(Debug, Default)]
struct Known {
    others: HashMap<u64, Reading>,
    /// The last middle, where the own clock was far from it.
    middle: Option<Reading>,
}

/// What is known of this machine's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Finding {
    /// It is followed: the others are near, or there is nothing to say against it.
    #[default]
    Near,
    /// It is far from the middle of at least three.
    Off,
    /// It and the only other one that is heard differ: either may be wrong.
    OneOfTwo,
    /// It was far from the middle when somebody was heard last, and still is.
    Unheard,
}

/// What was found of this machine's clock, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    finding: Finding,
    /// How far it is ahead of the middle of all that are known.
    offset_us: i64,
    /// How far it is ahead of the other one, where there is one other.
    ahead_us: i64,
}

impl Known {
    /// Compares `own` with those that are known.
    fn look(&mut self, own: i64, now: Instant) -> Look {
        let others = self.others.values().filter(|r| r.is_fresh(now));
        let others: Vec<i64> = others.map(|r| r.at(now)).collect();
        if others.is_empty() {
            return self.look_alone(own, now);
        }
        let middle = middle(own, &others);
        let offset_us = own.saturating_sub(middle);
        let off = beyond(offset_us) != 0;
        self.middle = off.then_some(Reading {
            time_us: middle,
            at: now,
        });
        let ahead_us = match *others {
            [other] => own.saturating_sub(other),
            _ => offset_us,
        };
        let finding = match others.len() {
            1 if beyond(ahead_us) != 0 => Finding::OneOfTwo,
            _ if off => Finding::Off,
            _ => Finding::Near,
        };
        Look {
            finding,
            offset_us,
            ahead_us,
        }
    }

    /// The same where nobody is heard.
    fn look_alone(&mut self, own: i64, now: Instant) -> Look {
        let offset_us = self
            .middle
            .map_or(0, |middle| own.saturating_sub(middle.at(now)));
        let finding = match beyond(offset_us) {
            0 => Finding::Near,
            _ => Finding::Unheard,
        };
        if finding == Finding::Near {
            // It was put right, and is the better one from now on: a steady clock drifts, and stands while a machine sleeps.
            self.middle = None;
        }
        Look {
            finding,
            offset_us,
            ahead_us: offset_us,
        }
    }
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
        self.known.lock().others.insert(id, Reading { time_us, at });
    }

    /// There is no other node: what others said last does not outweigh the only clock for ever.
    fn nobody_else(&self) {
        self.known.lock().middle = None;
    }

    /// The time to go by, in microseconds since 1970 UTC.
    pub(crate) fn now_us(&self) -> i64 {
        let own = wall_us();
        own.saturating_sub(beyond(self.look(own).offset_us))
    }

    fn look(&self, own: i64) -> Look {
        self.known.lock().look(own, Instant::now())
    }

    /// Says in the log when what is known of this machine's clock changes, and shows how far it is off.
    fn tell(&self) {
        let look = self.look(wall_us());
        let told = std::mem::replace(&mut *self.told.lock(), look.finding);
        if told != look.finding {
            look.say();
        }
        metrics::gauge!("confman_clock_offset_seconds").set(look.offset_us as f64 / 1e6);
    }
}

impl Look {
    fn say(self) {
        let seconds = self.ahead_us as f64 / 1e6;
        let side = if self.ahead_us > 0 {
            "ahead of"
        } else {
            "behind"
        };
        match self.finding {
            Finding::Near => tracing::info!(seconds, "this machine's clock is followed again"),
            Finding::Off => tracing::warn!(
                seconds,
                "this machine's clock is {side} the other nodes': they are followed until it is put right\n\
                 hint: see to its time service (timedatectl, chronyc tracking); `drtool doctor` compares all of them"
            ),
            Finding::OneOfTwo => tracing::warn!(
                seconds,
                "two clocks differ by {:.0} s, one of them is wrong, this machine's or that of the only other node that is heard: \
                 the earlier is followed\n\
                 hint: `drtool doctor` compares them with the store's and that of the machine it runs on",
                seconds.abs()
            ),
            Finding::Unheard => tracing::warn!(
                seconds,
                "nobody is heard, and this machine's clock is {side} what the other nodes said last: time goes on from that\n\
                 hint: see to the network and to its time service (timedatectl, chronyc tracking); `drtool doctor` compares all clocks"
            ),
        }
    }
}

/// The middle of all clocks, of two the earlier.
fn middle(own: i64, others: &[i64]) -> i64 {
    let mut all: Vec<i64> = others.iter().copied().chain([own]).collect();
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
        if reach::peers(&node).await.is_empty() {
            node.clock().nobody_else();
        }
        // It was told to end while it asked: what it showed may have been taken back since.
        if closing.is_cancelled() {
            return;
        }
        node.clock().tell();
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
        own - beyond(own - middle(own, others))
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

    const SECOND: i64 = 1_000_000;

    /// What is known where so many others said 0 at that moment.
    fn known(others: u64, at: Instant) -> Known {
        let reading = Reading { time_us: 0, at };
        Known {
            others: (0..others).map(|id| (id, reading)).collect(),
            middle: None,
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
        assert_eq!(reading.at(now + Duration::from_micros(7)), 12);
        assert!(reading.is_fresh(now + HEARD_WITHIN));
        assert!(!reading.is_fresh(now + HEARD_WITHIN * 2));
        // A node that says nothing, and two that are an hour behind this one.
        clock.heard(1, 0, now);
        assert_eq!(clock.look(wall_us()).offset_us, 0);
        let behind = wall_us() - HOUR;
        clock.heard(2, behind, Instant::now());
        clock.heard(3, behind, Instant::now());
        assert!((clock.now_us() - behind).abs() < NEAR_US);
        assert!((clock.look(wall_us()).offset_us - HOUR).abs() < NEAR_US);
    }

    #[test]
    fn t01_a_clock_that_was_off_is_not_followed_when_nobody_is_heard_any_more() {
        let begin = Instant::now();
        let alone = begin + HEARD_WITHIN * 10;
        let passed = 600 * SECOND;
        for off in [YEAR, -YEAR] {
            let mut known = known(2, begin);
            let look = known.look(off, begin);
            assert_eq!((look.finding, look.offset_us), (Finding::Off, off));
            for _ in 0..2 {
                let look = known.look(off + passed, alone);
                assert_eq!((look.finding, look.offset_us), (Finding::Unheard, off));
            }
            // It was put right, and is followed from then on, wherever it goes.
            let look = known.look(passed + 3, alone);
            assert_eq!((look.finding, look.offset_us), (Finding::Near, 3));
            assert_eq!(known.look(YEAR, alone).offset_us, 0);
        }
        // One that was right while others were heard is followed without them too.
        let mut well = known(2, begin);
        assert_eq!(well.look(5, begin).finding, Finding::Near);
        let look = well.look(HOUR, alone);
        assert_eq!((look.finding, look.offset_us), (Finding::Near, 0));
    }

    #[test]
    fn t01_the_only_node_that_is_left_goes_by_its_own_clock() {
        let begin = Instant::now();
        let clock = Clock::default();
        *clock.known.lock() = known(1, begin);
        let alone = begin + HEARD_WITHIN * 2;
        let look = |own| clock.known.lock().look(own, alone);
        clock.known.lock().look(YEAR, begin);
        assert_eq!(look(YEAR).finding, Finding::Unheard);
        clock.nobody_else();
        assert_eq!(
            (look(YEAR).finding, look(YEAR).offset_us),
            (Finding::Near, 0)
        );
    }

    #[test]
    fn t01_of_two_clocks_neither_is_accused() {
        let now = Instant::now();
        let hour = |own| known(1, now).look(own, now);
        for (own, offset_us) in [(HOUR, HOUR), (-HOUR, 0)] {
            let look = hour(own);
            assert_eq!(look.finding, Finding::OneOfTwo);
            assert_eq!((look.ahead_us, look.offset_us), (own, offset_us));
        }
        assert_eq!(hour(NEAR_US).finding, Finding::Near);
        assert_eq!(known(2, now).look(-HOUR, now).finding, Finding::Off);
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
