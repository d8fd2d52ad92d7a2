//! Clocks, compared with this machine's by a question and its answer.

use serde::Serialize;

use super::report::{Check, Outcome, Subject};

/// A clock that is certainly further than this from the middle of all is a finding.
const OFF_US: i64 = 1_000_000;
/// As far off is more than a finding: graces and signatures are of this order.
const FAR_OFF_US: i64 = 30_000_000;

/// One clock, seen from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Clock {
    /// Whose it is: `node node1`, `store URL`.
    pub(super) whose: String,
    /// How far it is ahead of this machine's, in microseconds.
    pub(super) ahead_us: i64,
    /// By how much that may be wrong: half of the time that the question took, and half of the clock's own step.
    pub(super) bound_us: i64,
}

impl Clock {
    /// From the answer to a question that was sent and answered at these times of this machine's clock.
    pub(super) fn seen(
        whose: String,
        sent_us: i64,
        answered_us: i64,
        told_us: i64,
        step_us: i64,
    ) -> Self {
        let middle = sent_us + (answered_us - sent_us) / 2;
        Self {
            whose,
            ahead_us: told_us + step_us / 2 - middle,
            bound_us: (answered_us - sent_us).max(0) / 2 + step_us / 2,
        }
    }
}

/// Judges the clocks with this machine's own among them.
pub(super) fn judge(clocks: &[Clock]) -> Vec<Check> {
    let here = Clock {
        whose: "this machine".to_owned(),
        ahead_us: 0,
        bound_us: 0,
    };
    let all: Vec<&Clock> = clocks.iter().chain([&here]).collect();
    let middle = middle(&all);
    all.iter()
        .map(|clock| {
            let off = clock.ahead_us - middle;
            let certain = off.abs() - clock.bound_us;
            if certain <= OFF_US {
                let what = match clock.bound_us {
                    0 => "its clock is what the others are compared with".to_owned(),
                    bound => format!(
                        "{} this machine's clock, give or take {}",
                        side(clock.ahead_us),
                        seconds(bound)
                    ),
                };
                return Check::ok(Subject::Clocks, &clock.whose, what);
            }
            let outcome = match certain > FAR_OFF_US {
                true => Outcome::Problem,
                false => Outcome::Warning,
            };
            Check::not(
                Subject::Clocks,
                outcome,
                "CLOCK_OFF",
                &clock.whose,
                format!(
                    "{} the middle of the {} clocks that were seen, give or take {}",
                    side(off),
                    all.len(),
                    seconds(clock.bound_us)
                ),
                "have time kept there (chrony, ntpd or systemd-timesyncd)",
            )
        })
        .collect()
}

/// The middle one; between the middle two of an even number, so that of two clocks neither is called right.
fn middle(clocks: &[&Clock]) -> i64 {
    let mut ahead: Vec<i64> = clocks.iter().map(|c| c.ahead_us).collect();
    ahead.sort_unstable();
    let upper = ahead.get(ahead.len() / 2).copied().unwrap_or(0);
    let lower = ahead
        .get(ahead.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or(upper);
    lower + (upper - lower) / 2
}

fn side(us: i64) -> String {
    match us < 0 {
        true => format!("{} behind", seconds(us)),
        false => format!("{} ahead of", seconds(us)),
    }
}

fn seconds(us: i64) -> String {
    format!("{:.3} s", us.unsigned_abs() as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(whose: &str, ahead_us: i64, bound_us: i64) -> Clock {
        Clock {
            whose: whose.to_owned(),
            ahead_us,
            bound_us,
        }
    }

    fn wrong(clocks: &[Clock]) -> Vec<(String, Outcome)> {
        let checks = judge(clocks).into_iter().filter(|c| c.code.is_some());
        checks.map(|c| (c.view, c.outcome)).collect()
    }

    #[test]
    fn the_one_that_is_off_is_named_whichever_it_is() {
        let [a, b] = [clock("a", 2_000, 500), clock("b", -1_000, 500)];
        assert_eq!(wrong(&[a.clone(), b.clone()]), []);
        let c = clock("c", 5_000_000, 500);
        assert_eq!(wrong(&[a, b, c]), [("c".to_owned(), Outcome::Warning)]);
        let all = ["a", "b", "c"].map(|n| clock(n, 90_000_000, 500));
        assert_eq!(wrong(&all), [("this machine".to_owned(), Outcome::Problem)]);
    }

    #[test]
    fn what_is_within_its_bound_is_not_called_wrong() {
        let others = [clock("a", 0, 100), clock("b", 0, 100)];
        let vague = clock("store", 1_400_000, 600_000);
        assert_eq!(wrong(&[&others[..], &[vague]].concat()), []);
        let sure = clock("store", 1_700_000, 600_000);
        assert_eq!(wrong(&[&others[..], &[sure]].concat()).len(), 1);
    }

    #[test]
    fn of_two_that_differ_neither_is_called_right() {
        let views: Vec<String> = wrong(&[clock("a", 10_000_000, 100)])
            .into_iter()
            .map(|(view, _)| view)
            .collect();
        assert_eq!(views, ["a", "this machine"]);
    }

    #[test]
    fn the_middle_of_the_question_is_when_it_was_answered() {
        let clock = Clock::seen("a".to_owned(), 1_000, 3_000, 2_500, 0);
        assert_eq!((clock.ahead_us, clock.bound_us), (500, 1_000));
        // Told in whole seconds, cut off: on average half a second later.
        let clock = Clock::seen(
            "s".to_owned(),
            10_400_000,
            10_600_000,
            10_000_000,
            1_000_000,
        );
        assert_eq!((clock.ahead_us, clock.bound_us), (0, 600_000));
    }
}
