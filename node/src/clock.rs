//! What time it is, by more clocks than one's own.
//!
//! The time that a leader writes into its log stays: what comes later is never earlier. So a machine whose clock is a year ahead must not
//! be the one that says it. Every node hears the clocks of the others (in the answer to Hello, at least every [`LISTEN_EVERY`]) and follows
//! its own while that is near the middle of all of them, and the middle otherwise.
//!
//! - What was heard goes on by the steady clock. So one's own jump shows at once, and another's when it is heard again.
//! - Of an even number the earlier middle counts: time that is late catches up, time that is ahead stays. Which of two is wrong is not
//!   known: both say that they differ.
//! - What three clocks or more said last is not forgotten when only one other is heard: their middle goes on by the steady clock and counts
//!   as the third, or a clock that is behind would be the earlier of two.
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
    /// The last middle of at least three clocks, wherever the own clock was.
    of_three: Option<Reading>,
}

/// What is known of this machine's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Finding {
    /// It is followed: the others are near, or there is nothing to say against it.
    #[default]
    Near,
    /// It is far from the middle of at least three, one of which may be what they said last.
    Off,
    /// It and the only other one that is heard differ, and there was no third: either may be wrong.
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
        let mut others: Vec<i64> = others.map(|r| r.at(now)).collect();
        let heard = others.len();
        match heard {
            0 => return self.look_alone(own, now),
            1 => others.extend(self.of_three.map(|r| r.at(now))),
            _ => {}
        }
        let middle = middle(own, &others);
        let reading = Reading {
            time_us: middle,
            at: now,
        };
        let offset_us = own.saturating_sub(middle);
        let off = beyond(offset_us) != 0;
        self.middle = off.then_some(reading);
        // With one other it is renewed only where all agree: a steady clock drifts, and who is far off shall not drag it along.
        let agree = others.iter().all(|o| beyond(own.saturating_sub(*o)) == 0);
        if heard > 1 || (others.len() > 1 && agree) {
            self.of_three = Some(reading);
        }
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
        let mut known = self.known.lock();
        (known.middle, known.of_three) = (None, None);
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
            // It may have been followed all along, being the earlier of two, and there may be nobody else.
            Finding::Near => tracing::info!(
                seconds,
                "this machine's clock is followed: it agrees with those that are heard, if any"
            ),
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
            ..Known::default()
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

    #[test]
    fn t01_what_three_clocks_said_is_the_third_where_one_other_is_heard() {
        let begin = Instant::now();
        let later = |seconds: u64| begin + Duration::from_secs(seconds);
        let one = later(70);
        let none = one + HEARD_WITHIN + Duration::from_secs(1);
        // The own clock, that of the last one that is heard, and what is found while both are heard, one, and none.
        let stories = [
            // It is off, and what it was off from is known to the end.
            (YEAR, 0, [Finding::Off, Finding::Off, Finding::Unheard]),
            (-YEAR, 0, [Finding::Off, Finding::Off, Finding::Unheard]),
            // The other one is, and moves nobody.
            (0, YEAR, [Finding::Near; 3]),
            (0, -YEAR, [Finding::Near; 3]),
            (0, 0, [Finding::Near; 3]),
        ];
        for (own, last, findings) in stories {
            let mut known = known(2, begin);
            let times = [begin, one, none];
            for (at, finding) in times.into_iter().zip(findings) {
                let passed = micros(at - begin);
                let reading = Reading {
                    time_us: last + passed,
                    at: at.min(one),
                };
                known.others.insert(1, reading);
                // However often, and whatever is asked between.
                for _ in 0..2 {
                    let look = known.look(own + passed, at);
                    assert_eq!(
                        (look.finding, look.offset_us),
                        (finding, own),
                        "{own} {last}"
                    );
                }
            }
        }
    }

    #[test]
    fn t01_what_three_clocks_said_follows_those_that_agree_and_no_others() {
        let begin = Instant::now();
        let mut known = known(2, begin);
        known.look(0, begin);
        // The steady clock loses a second where the others count ten minutes, for hours.
        let mut at = begin;
        let mut time_us = 0;
        let mut heard = |known: &mut Known, off: i64| {
            at += Duration::from_secs(600);
            time_us += 601 * SECOND;
            let reading = Reading {
                time_us: time_us + off,
                at,
            };
            known.others.insert(0, reading);
            known.look(time_us, at)
        };
        for _ in 0..60 {
            assert_eq!(heard(&mut known, 0).finding, Finding::Near);
        }
        // Then one of the two jumps, and who has not jumped is still known.
        for off in [YEAR, -YEAR] {
            let look = heard(&mut known, off);
            assert_eq!(look.finding, Finding::Near, "{off}");
        }
        // Both are put elsewhere together: two against what was.
        let look = known.look(time_us - YEAR, at);
        assert_eq!((look.finding, look.offset_us), (Finding::Near, 0));
    }

    #[test]
    fn t01_the_only_one_that_is_left_of_three_forgets_what_they_said() {
        let begin = Instant::now();
        let clock = Clock::default();
        *clock.known.lock() = known(2, begin);
        clock.known.lock().look(0, begin);
        clock.nobody_else();
        // A member that came later.
        let later = begin + HEARD_WITHIN * 2;
        let reading = Reading {
            time_us: YEAR,
            at: later,
        };
        clock.known.lock().others.insert(7, reading);
        let look = clock.known.lock().look(0, later);
        assert_eq!(look.finding, Finding::OneOfTwo);
    }

    /// The earlier of two was followed all along: it is not followed "again".
    #[test]
    fn t01_what_is_said_of_a_clock_that_is_near_holds_for_the_earlier_of_two() {
        let page = Page::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer({
                let page = page.clone();
                move || page.clone()
            })
            .finish();
        let near = Look {
            finding: Finding::Near,
            offset_us: 0,
            ahead_us: 0,
        };
        tracing::subscriber::with_default(subscriber, || near.say());
        let said = String::from_utf8_lossy(&page.0.lock()).into_owned();
        assert!(said.contains("agrees with those that are heard"), "{said}");
        assert!(!said.contains("again"), "{said}");
    }

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
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
