//! An independent linearizability check: each key is a register, version tokens are ignored, so that a fault in the
//! tokens cannot hide itself.
//!
//! The method is that of Wing and Gong with Lowe's memory of visited configurations, as in porcupine: walk the calls
//! in time order, linearize what fits, and go back when an operation ends that could not be linearized. An unknown
//! write ends never. Keep a key below some hundred operations, few at a time, or the search explodes; it is then
//! given up loudly.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::history::{Act, Op, Outcome};

/// Configurations that one key may take before the check gives up.
const CONFIGURATIONS_MAX: usize = 4_000_000;
/// Operations shown around the place where a history cannot be explained.
const SHOWN: usize = 8;
const NONE: usize = usize::MAX;
/// The register's content before the first write, and after a delete.
const ABSENT: u32 = 0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Write(u32),
    Read(u32),
}

#[derive(Debug)]
struct Event {
    op: usize,
    is_call: bool,
    /// Place of the return event of a call.
    partner: usize,
    previous: usize,
    next: usize,
}

/// Checks every key of a history.
///
/// # Errors
/// Names the key and the operations around the first one that no order explains.
pub fn check(history: &[Op]) -> Result<(), String> {
    let mut keys: BTreeMap<&str, Vec<&Op>> = BTreeMap::new();
    for op in history {
        keys.entry(&op.key).or_default().push(op);
    }
    keys.into_iter()
        .try_for_each(|(key, ops)| check_key(key, &ops))
}

fn check_key(key: &str, ops: &[&Op]) -> Result<(), String> {
    let mut values: HashMap<&str, u32> = HashMap::new();
    let seen: HashSet<Option<&str>> = ops
        .iter()
        .filter_map(|op| match &op.outcome {
            Outcome::Saw(value) => Some(value.as_deref()),
            _ => None,
        })
        .collect();
    let mut steps = Vec::new();
    let mut times = Vec::new();
    let mut shown = Vec::new();
    for op in ops {
        let written = match &op.act {
            Act::Put(value) => Some(value.as_str()),
            Act::Delete | Act::Read => None,
        };
        let step = match (&op.outcome, &op.act) {
            (Outcome::Saw(value), _) => Step::Read(number(&mut values, value.as_deref())),
            (Outcome::Done { .. }, _) => Step::Write(number(&mut values, written)),
            // A write that nobody was told of and nobody saw changes nothing for anyone.
            (Outcome::Unknown, Act::Put(_) | Act::Delete) if seen.contains(&written) => {
                Step::Write(number(&mut values, written))
            }
            _ => continue,
        };
        let end = if op.outcome == Outcome::Unknown {
            u64::MAX
        } else {
            op.end
        };
        steps.push(step);
        times.push((op.call, end));
        shown.push(*op);
    }
    match linearize(&steps, &times) {
        Verdict::Linearizable => Ok(()),
        Verdict::Impossible(at) => Err(format!(
            "{key}: no order explains what clients saw:\n{}",
            around(&shown, at)
        )),
        Verdict::TooHard => Err(format!(
            "{key}: {} operations are too many to check",
            steps.len()
        )),
    }
}

fn number<'a>(values: &mut HashMap<&'a str, u32>, value: Option<&'a str>) -> u32 {
    let Some(text) = value else { return ABSENT };
    let next = u32::try_from(values.len()).unwrap_or(u32::MAX - 1) + 1;
    *values.entry(text).or_insert(next)
}

fn around(ops: &[&Op], at: usize) -> String {
    let mut by_time: Vec<&&Op> = ops.iter().collect();
    by_time.sort_by_key(|op| op.call);
    let place = by_time
        .iter()
        .position(|op| op.id == ops[at].id)
        .unwrap_or_default();
    let from = place.saturating_sub(SHOWN);
    let to = by_time.len().min(place + SHOWN + 1);
    let line = |op: &&&Op| {
        let mark = if op.id == ops[at].id { ">" } else { " " };
        format!(
            "{mark} {:>14} .. {:>14} {} {:?} {:?}",
            op.call, op.end, op.id, op.act, op.outcome
        )
    };
    by_time[from..to]
        .iter()
        .map(line)
        .collect::<Vec<_>>()
        .join("\n")
}

enum Verdict {
    Linearizable,
    /// The operation that ended before it could be linearized, in the attempt that came furthest.
    Impossible(usize),
    TooHard,
}

fn linearize(steps: &[Step], times: &[(u64, u64)]) -> Verdict {
    let (mut events, head) = link(times);
    let mut done = vec![0_u64; steps.len().div_ceil(64)];
    let mut visited: HashSet<(Vec<u64>, u32)> = HashSet::new();
    let mut chosen: Vec<(usize, u32)> = Vec::new();
    let mut state = ABSENT;
    let mut furthest = (0, 0);
    let mut at = events[head].next;
    while events[head].next != NONE {
        let (op, is_call) = (events[at].op, events[at].is_call);
        if is_call {
            if let Some(after) = apply(steps[op], state) {
                let mut marked = done.clone();
                marked[op / 64] |= 1 << (op % 64);
                if visited.insert((marked.clone(), after)) {
                    if visited.len() > CONFIGURATIONS_MAX {
                        return Verdict::TooHard;
                    }
                    chosen.push((at, state));
                    state = after;
                    done = marked;
                    lift(&mut events, at);
                    at = events[head].next;
                    continue;
                }
            }
            at = events[at].next;
        } else {
            if chosen.len() >= furthest.0 {
                furthest = (chosen.len(), op);
            }
            let Some((back, before)) = chosen.pop() else {
                return Verdict::Impossible(furthest.1);
            };
            state = before;
            let op = events[back].op;
            done[op / 64] &= !(1 << (op % 64));
            unlift(&mut events, back);
            at = events[back].next;
        }
    }
    Verdict::Linearizable
}

fn apply(step: Step, state: u32) -> Option<u32> {
    match step {
        Step::Write(value) => Some(value),
        Step::Read(value) => (value == state).then_some(state),
    }
}

/// A doubly linked list of calls and returns in time order; the last place is its head.
fn link(times: &[(u64, u64)]) -> (Vec<Event>, usize) {
    let mut order: Vec<(u64, bool, usize)> = Vec::new();
    for (op, (call, end)) in times.iter().enumerate() {
        order.push((*call, false, op));
        order.push((*end, true, op));
    }
    // At the same instant a call stands before a return: the two overlap.
    order.sort_unstable();
    let mut events: Vec<Event> = Vec::new();
    let mut calls = vec![NONE; times.len()];
    for (place, (_, is_return, op)) in order.iter().enumerate() {
        let next = if place + 1 == order.len() {
            NONE
        } else {
            place + 1
        };
        let previous = if place == 0 { order.len() } else { place - 1 };
        events.push(Event {
            op: *op,
            is_call: !is_return,
            partner: NONE,
            previous,
            next,
        });
        if *is_return {
            events[calls[*op]].partner = place;
        } else {
            calls[*op] = place;
        }
    }
    let head = events.len();
    let first = if events.is_empty() { NONE } else { 0 };
    events.push(Event {
        op: NONE,
        is_call: false,
        partner: NONE,
        previous: NONE,
        next: first,
    });
    (events, head)
}

fn lift(events: &mut [Event], call: usize) {
    for place in [call, events[call].partner] {
        let (previous, next) = (events[place].previous, events[place].next);
        events[previous].next = next;
        if next != NONE {
            events[next].previous = previous;
        }
    }
}

fn unlift(events: &mut [Event], call: usize) {
    for place in [events[call].partner, call] {
        let (previous, next) = (events[place].previous, events[place].next);
        events[previous].next = place;
        if next != NONE {
            events[next].previous = place;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Token;
    use crate::random::Random;

    const TOKEN: Token = Token {
        incarnation: 1,
        term: 1,
        index: 1,
    };

    fn put(value: &str, span: (u64, u64)) -> Op {
        op(
            Act::Put(value.to_owned()),
            span,
            Outcome::Done {
                token: TOKEN,
                version: None,
            },
        )
    }
    fn saw(value: Option<&str>, span: (u64, u64)) -> Op {
        op(Act::Read, span, Outcome::Saw(value.map(str::to_owned)))
    }
    fn op(act: Act, (call, end): (u64, u64), outcome: Outcome) -> Op {
        Op {
            id: format!("{act:?}@{call}"),
            key: "k".to_owned(),
            act,
            call,
            end,
            outcome,
        }
    }

    #[test]
    fn reads_that_overlap_a_write_may_see_either() {
        check(&[
            put("1", (0, 10)),
            saw(None, (1, 9)),
            saw(Some("1"), (2, 12)),
            saw(Some("1"), (11, 13)),
        ])
        .unwrap();
    }

    #[test]
    fn a_stale_read_is_found() {
        let history = [
            put("1", (0, 10)),
            put("2", (20, 30)),
            saw(Some("1"), (31, 40)),
        ];
        let error = check(&history).unwrap_err();
        assert!(
            error.contains("no order explains") && error.contains("> "),
            "{error}"
        );
    }

    #[test]
    fn a_read_that_goes_back_is_found() {
        let history = [
            put("1", (0, 5)),
            put("2", (10, 100)),
            saw(Some("2"), (20, 30)),
            saw(Some("1"), (31, 40)),
        ];
        assert!(check(&history).is_err());
    }

    #[test]
    fn a_read_of_what_nobody_wrote_is_found() {
        assert!(check(&[put("1", (0, 5)), saw(Some("9"), (10, 20))]).is_err());
    }

    #[test]
    fn a_write_that_comes_back_is_found() {
        // A doubled write: "1" was overwritten, then appeared again.
        let history = [
            put("1", (0, 5)),
            put("2", (10, 20)),
            saw(Some("2"), (21, 22)),
            saw(Some("1"), (23, 24)),
        ];
        assert!(check(&history).is_err());
    }

    #[test]
    fn an_unknown_write_may_happen_late_or_never_but_not_before_it_was_asked() {
        let maybe = |span| op(Act::Put("m".to_owned()), span, Outcome::Unknown);
        check(&[
            put("1", (0, 5)),
            maybe((6, 0)),
            saw(Some("1"), (10, 20)),
            saw(Some("m"), (30, 40)),
        ])
        .unwrap();
        check(&[put("1", (0, 5)), maybe((6, 0)), saw(Some("1"), (10, 20))]).unwrap();
        assert!(check(&[put("1", (0, 5)), saw(Some("m"), (6, 8)), maybe((9, 0))]).is_err());
    }

    #[test]
    fn a_delete_is_a_write_of_nothing() {
        let gone = op(
            Act::Delete,
            (6, 8),
            Outcome::Done {
                token: TOKEN,
                version: None,
            },
        );
        check(&[put("1", (0, 5)), gone.clone(), saw(None, (9, 10))]).unwrap();
        assert!(check(&[put("1", (0, 5)), gone, saw(Some("1"), (9, 10))]).is_err());
    }

    /// Histories of a real register under concurrent clients pass; each with one read changed to an overwritten value fails.
    #[test]
    fn random_histories_pass_and_planted_stale_reads_are_found() {
        for seed in 0..60 {
            let mut random = Random::new(seed);
            let history = simulate(&mut random, 200);
            check(&history).unwrap();
            if let Some(planted) = plant_stale_read(&history) {
                assert!(check(&planted).is_err(), "seed {seed}");
            }
        }
    }

    /// Operations that take effect at one instant each, called a little before and answered a little after it.
    fn simulate(random: &mut Random, count: u64) -> Vec<Op> {
        let mut value: Option<String> = None;
        let mut history = Vec::new();
        for n in 1..=count {
            let instant = n * 100;
            let span = (
                instant - random.below(300) as u64 % instant,
                instant + random.below(300) as u64,
            );
            if random.chance(40) {
                value = Some(n.to_string());
                history.push(put(&n.to_string(), span));
            } else {
                history.push(saw(value.as_deref(), span));
            }
        }
        history
    }

    /// Makes the last read see a value that had been overwritten long before it began.
    fn plant_stale_read(history: &[Op]) -> Option<Vec<Op>> {
        let mut planted = history.to_vec();
        let last = planted.iter().rposition(|op| op.act == Act::Read)?;
        let stale = planted
            .iter()
            .find(|op| matches!(op.act, Act::Put(_)))?
            .clone();
        let Act::Put(value) = stale.act else {
            return None;
        };
        planted[last].outcome = Outcome::Saw(Some(value));
        Some(planted)
    }
}
