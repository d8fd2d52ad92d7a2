//! The log-order check: every acknowledgement names its log entry, so the whole history is judged in one pass.
//!
//! It finds: an entry acknowledged twice; an order of entries that contradicts the order in which clients saw things
//! end and begin; a term that goes back; a version that is reused, goes back, or leaves a gap that no unknown write
//! can fill (a write applied twice); and a final value that is not that of the last write (a lost write).
//!
//! All operations are of one group: their indexes are comparable.

use std::collections::BTreeMap;

use crate::history::{Act, Op, Outcome, VERSIONS_OF_A_LIFE};
use crate::http::Token;

/// One acknowledged write.
struct Ack<'a> {
    op: &'a Op,
    token: Token,
    version: Option<u64>,
}

/// Checks a history against the values that the keys have at the end (absent keys left out).
///
/// # Errors
/// The first thing that cannot have happened in a correct system.
pub fn check(history: &[Op], finally: &BTreeMap<String, String>) -> Result<(), String> {
    let mut acks: Vec<Ack<'_>> = history
        .iter()
        .filter_map(|op| match op.outcome {
            Outcome::Done { token, version } => Some(Ack { op, token, version }),
            _ => None,
        })
        .collect();
    acks.sort_by_key(|ack| (ack.token.incarnation, ack.token.index));
    check_entries(&acks)?;
    check_real_time(&acks)?;
    let mut by_key: BTreeMap<&str, Vec<&Ack<'_>>> = BTreeMap::new();
    for ack in &acks {
        by_key.entry(&ack.op.key).or_default().push(ack);
    }
    let mut unknown: BTreeMap<&str, Vec<&Op>> = BTreeMap::new();
    for op in history {
        if op.outcome == Outcome::Unknown && op.act != Act::Read {
            unknown.entry(&op.key).or_default().push(op);
        }
    }
    for (key, acks) in &by_key {
        let unknown = unknown.get(key).map_or(&[][..], Vec::as_slice);
        check_versions(key, acks, unknown)?;
        check_final(key, acks, unknown, finally.get(*key))?;
    }
    Ok(())
}

fn check_entries(acks: &[Ack<'_>]) -> Result<(), String> {
    for pair in acks.windows(2) {
        let [one, two] = pair else { continue };
        if (one.token.incarnation, one.token.index) == (two.token.incarnation, two.token.index) {
            return Err(format!(
                "entry {} was acknowledged for {} and for {}",
                one.token, one.op.id, two.op.id
            ));
        }
        if two.token.term < one.token.term {
            return Err(format!(
                "the term goes back: {} of {} is before {} of {}",
                one.token, one.op.id, two.token, two.op.id
            ));
        }
    }
    Ok(())
}

/// No write may stand in the log before one that had been acknowledged when it began.
fn check_real_time(acks: &[Ack<'_>]) -> Result<(), String> {
    let mut earliest_end: Option<&Ack<'_>> = None;
    for ack in acks.iter().rev() {
        if let Some(later) = earliest_end
            && later.op.end < ack.op.call
        {
            return Err(format!(
                "{} at {} was acknowledged before {} began, which stands before it at {}",
                later.op.id, later.token, ack.op.id, ack.token
            ));
        }
        if earliest_end.is_none_or(|known| ack.op.end < known.op.end) {
            earliest_end = Some(ack);
        }
    }
    Ok(())
}

fn check_versions(key: &str, acks: &[&Ack<'_>], unknown: &[&Op]) -> Result<(), String> {
    let mut before: Option<(&Ack<'_>, u64)> = None;
    let mut deletes = 0;
    for ack in acks {
        let Some(version) = ack.version else {
            deletes += 1;
            continue;
        };
        let known = before.map_or(0, |(_, version)| version);
        if version <= known {
            return Err(format!(
                "{key}: {} at {} made version {version}, but {known} was there already",
                ack.op.id, ack.token
            ));
        }
        let known = known.max(version / VERSIONS_OF_A_LIFE * VERSIONS_OF_A_LIFE);
        // Whatever lies between came from writes whose outcome nobody was told, or from deletes.
        let gap = version - known - 1;
        let fill = unknown.iter().filter(|op| op.call < ack.op.end).count() as u64 + deletes;
        if gap > fill {
            return Err(format!(
                "{key}: from version {known} to {version} of {} there are {gap} versions that nobody wrote (at most {fill} writes are unknown)",
                ack.op.id
            ));
        }
        before = Some((ack, version));
    }
    Ok(())
}

fn check_final(
    key: &str,
    acks: &[&Ack<'_>],
    unknown: &[&Op],
    value: Option<&String>,
) -> Result<(), String> {
    let Some(last) = acks.last() else {
        return Ok(());
    };
    let expected = match &last.op.act {
        Act::Put(value) => Some(value),
        Act::Delete | Act::Read => None,
    };
    if value == expected {
        return Ok(());
    }
    let by_unknown = unknown.iter().any(|op| match &op.act {
        Act::Put(put) => Some(put) == value,
        Act::Delete => value.is_none(),
        Act::Read => false,
    });
    if by_unknown {
        return Ok(());
    }
    Err(format!(
        "{key}: ends as {value:?}, but the last acknowledged write is {} at {} with {expected:?}: lost",
        last.op.id, last.token
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(
        id: &str,
        key: &str,
        value: Option<&str>,
        span: (u64, u64),
        index: u64,
        version: Option<u64>,
    ) -> Op {
        let token = Token {
            incarnation: 1,
            term: 1,
            index,
        };
        Op {
            id: id.to_owned(),
            key: key.to_owned(),
            act: value.map_or(Act::Delete, |value| Act::Put(value.to_owned())),
            call: span.0,
            end: span.1,
            outcome: Outcome::Done { token, version },
        }
    }

    fn good() -> Vec<Op> {
        vec![
            ack("a", "k", Some("1"), (0, 10), 5, Some(1)),
            ack("b", "k", Some("2"), (5, 30), 7, Some(2)),
            ack("c", "j", Some("x"), (5, 20), 6, Some(1)),
            ack("d", "k", Some("3"), (31, 40), 8, Some(3)),
        ]
    }

    fn finally(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_correct_history_passes() {
        check(&good(), &finally(&[("k", "3"), ("j", "x")])).unwrap();
    }

    #[test]
    fn a_lost_write_is_found() {
        let error = check(&good(), &finally(&[("k", "2"), ("j", "x")])).unwrap_err();
        assert!(
            error.contains("d at 1.1.8") && error.contains("lost"),
            "{error}"
        );
        let error = check(&good(), &finally(&[("k", "3")])).unwrap_err();
        assert!(error.contains("lost"), "{error}");
    }

    #[test]
    fn a_doubled_write_is_found() {
        let mut history = good();
        // b was applied twice: d got version 4.
        history[3].outcome = Outcome::Done {
            token: Token {
                incarnation: 1,
                term: 1,
                index: 9,
            },
            version: Some(4),
        };
        let error = check(&history, &finally(&[("k", "3"), ("j", "x")])).unwrap_err();
        assert!(error.contains("nobody wrote"), "{error}");
    }

    #[test]
    fn the_versions_of_another_life_begin_where_no_other_has_any_and_have_no_gap_either() {
        let later = |version| {
            let mut history = good();
            let token = Token {
                incarnation: 2,
                term: 2,
                index: 9,
            };
            history[3].outcome = Outcome::Done {
                token,
                version: Some(version),
            };
            check(&history, &finally(&[("k", "3"), ("j", "x")]))
        };
        later(VERSIONS_OF_A_LIFE + 1).unwrap();
        later(VERSIONS_OF_A_LIFE + 2).unwrap_err();
    }

    #[test]
    fn an_unknown_write_explains_a_gap_and_an_end_but_only_one() {
        let mut history = good();
        let token = Token {
            incarnation: 1,
            term: 1,
            index: 9,
        };
        history[3].outcome = Outcome::Done {
            token,
            version: Some(4),
        };
        let maybe = Op {
            outcome: Outcome::Unknown,
            ..ack("m", "k", Some("m"), (12, 0), 0, None)
        };
        history.push(maybe);
        check(&history, &finally(&[("k", "3"), ("j", "x")])).unwrap();
        check(&history, &finally(&[("k", "m"), ("j", "x")])).unwrap();
        history[3].outcome = Outcome::Done {
            token,
            version: Some(5),
        };
        check(&history, &finally(&[("k", "3"), ("j", "x")])).unwrap_err();
    }

    #[test]
    fn an_entry_acknowledged_twice_is_found() {
        let mut history = good();
        history.push(ack("e", "z", Some("9"), (0, 50), 8, Some(1)));
        let error = check(&history, &finally(&[("k", "3"), ("j", "x"), ("z", "9")])).unwrap_err();
        assert!(error.contains("acknowledged for d and for e"), "{error}");
    }

    #[test]
    fn a_log_order_against_real_time_is_found() {
        let mut history = good();
        history.push(ack("late", "z", Some("9"), (100, 110), 4, Some(1)));
        let error = check(&history, &finally(&[("k", "3"), ("j", "x"), ("z", "9")])).unwrap_err();
        assert!(error.contains("began"), "{error}");
    }

    #[test]
    fn a_version_used_twice_is_found() {
        let mut history = good();
        history.push(ack("e", "k", Some("9"), (50, 60), 11, Some(3)));
        assert!(check(&history, &finally(&[("k", "9"), ("j", "x")])).is_err());
    }

    #[test]
    fn a_term_that_goes_back_is_found() {
        let mut history = good();
        history[3].outcome = Outcome::Done {
            token: Token {
                incarnation: 1,
                term: 0,
                index: 8,
            },
            version: Some(3),
        };
        let error = check(&history, &finally(&[("k", "3"), ("j", "x")])).unwrap_err();
        assert!(error.contains("term"), "{error}");
    }

    #[test]
    fn a_delete_ends_a_key() {
        let mut history = good();
        history.push(ack("e", "k", None, (50, 60), 11, None));
        check(&history, &finally(&[("j", "x")])).unwrap();
        assert!(check(&history, &finally(&[("k", "3"), ("j", "x")])).is_err());
    }
}
