//! Whether two states differ, and in which records first.

use std::cmp::Ordering;

use bytes::Bytes;
use confman_snapshot::Digest;
use confman_snapshot::model::Position;
use confman_store::offline::{OfflineGroup, OfflineState};
use confman_store::records::AuditRef;
use confman_store::{StoreError, keys};
use serde::Serialize;

use crate::context::Global;
use crate::stopped::record::{self, StateRecord};

/// Most records that are shown of those that differ.
const SHOWN_MAX: usize = 10;

/// How two states compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(
    tag = "verdict",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Verdict {
    /// One position, one hash of all records.
    Same {
        /// The position.
        position: Option<Position>,
        /// The hash.
        hash: String,
    },
    /// One position, two states.
    Differs {
        /// The position.
        position: Option<Position>,
        /// The hashes of all records; none where not all could be read.
        hashes: [Option<String>; 2],
        /// The first records that differ, in the order of their keys.
        records: Vec<RecordDiff>,
        /// How many differ in all.
        count: u64,
    },
    /// Two positions: the audit histories are the same as far as both reach.
    OtherPositions {
        /// The positions.
        positions: [Option<Position>; 2],
        /// How many audit events were compared.
        events: u64,
    },
    /// Two positions, and an audit event of before both differs.
    HistoriesDiffer {
        /// The positions of the states.
        positions: [Option<Position>; 2],
        /// The first event that differs.
        event: RecordDiff,
    },
    /// One of them has no state that can be read.
    Missing {
        /// Which of them has one.
        there: [bool; 2],
    },
}

/// One record that is not the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordDiff {
    /// Kind and name.
    pub key: String,
    /// What each has; none where it has no such record.
    pub records: [Option<StateRecord>; 2],
}

/// Compares; `unreadable` gets what could not be read, with the number of the node, from 0.
pub fn compare(
    one: Option<&OfflineGroup>,
    two: Option<&OfflineGroup>,
    global: &Global,
    unreadable: &mut Vec<(usize, String)>,
) -> Verdict {
    let states = [one, two].map(|group| group.and_then(|group| group.state.as_ref()));
    let [Some(a), Some(b)] = states else {
        return Verdict::Missing {
            there: states.map(|state| state.is_some()),
        };
    };
    let positions = [a.applied(), b.applied()];
    if positions[0] == positions[1] {
        at_one_position([a, b], positions[0], global, unreadable)
    } else {
        at_two_positions([a, b], positions, unreadable)
    }
}

/// The hash is taken anew: the one that was kept up does not know what happened behind its back.
fn at_one_position(
    states: [&OfflineState; 2],
    position: Option<Position>,
    global: &Global,
    unreadable: &mut Vec<(usize, String)>,
) -> Verdict {
    let bar = global.progress("hashing", 2);
    let mut hashes: [Option<Digest>; 2] = [None, None];
    for (number, (state, hash)) in std::iter::zip(states, &mut hashes).enumerate() {
        match state.rehash() {
            Ok((digest, _)) => *hash = Some(digest),
            Err(error) => unreadable.push((number, words(&error))),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if let [Some(one), Some(two)] = hashes
        && one == two
    {
        return Verdict::Same {
            position,
            hash: one.to_string(),
        };
    }
    let (mut records, mut count) = (Vec::new(), 0);
    // What cannot be read was told above.
    walk(states, &[], &mut Vec::new(), |diff| {
        count += 1;
        if records.len() < SHOWN_MAX {
            records.push(told(diff));
        }
        true
    });
    Verdict::Differs {
        position,
        hashes: hashes.map(|hash| hash.map(|hash| hash.to_string())),
        records,
        count,
    }
}

fn at_two_positions(
    states: [&OfflineState; 2],
    positions: [Option<Position>; 2],
    unreadable: &mut Vec<(usize, String)>,
) -> Verdict {
    let index = |p: Option<Position>| p.map(|p| p.index);
    // Where one has applied nothing there is nothing that both reach.
    let Some(both) = index(positions[0]).min(index(positions[1])) else {
        return Verdict::OtherPositions {
            positions,
            events: 0,
        };
    };
    let of_both = |key: &[u8]| keys::parse_audit(key).is_some_and(|at| at.index <= both);
    let mut first = None;
    let events = walk(
        states,
        keys::audit(AuditRef::default())
            .get(..1)
            .unwrap_or_default(),
        unreadable,
        |diff| {
            if of_both(diff.key) {
                first = Some(told(diff));
            }
            false
        },
    );
    match first {
        Some(event) => Verdict::HistoriesDiffer { positions, event },
        None => Verdict::OtherPositions { positions, events },
    }
}

/// A record that differs, while the states are walked.
struct Met<'a> {
    key: &'a [u8],
    values: [Option<&'a Bytes>; 2],
}

/// Walks both states in the order of their keys; `each` is told of what differs, and says whether to go on. Gives how
/// many records were the same.
fn walk(
    states: [&OfflineState; 2],
    prefix: &[u8],
    unreadable: &mut Vec<(usize, String)>,
    mut each: impl FnMut(Met<'_>) -> bool,
) -> u64 {
    let mut same = 0;
    let mut sides = [None, None];
    for (number, (state, side)) in std::iter::zip(states, &mut sides).enumerate() {
        match state.records(prefix, None) {
            Ok(records) => *side = Some(records),
            Err(error) => unreadable.push((number, words(&error))),
        }
    }
    let [Some(mut left), Some(mut right)] = sides else {
        return same;
    };
    // A side that cannot be read on ends the walk: everything behind would look missing.
    let mut next = |left_too: bool, right_too: bool, held: [Option<(Bytes, Bytes)>; 2]| {
        let [mut x, mut y] = held;
        let mut read = |item: Option<Result<(Bytes, Bytes), StoreError>>, number: usize| match item
        {
            Some(Ok(pair)) => Ok(Some(pair)),
            None => Ok(None),
            Some(Err(error)) => {
                unreadable.push((number, words(&error)));
                Err(())
            }
        };
        if left_too {
            x = read(left.next(), 0)?;
        }
        if right_too {
            y = read(right.next(), 1)?;
        }
        Ok::<_, ()>([x, y])
    };
    let mut held = next(true, true, [None, None]);
    while let Ok([x, y]) = held {
        let order = match (&x, &y) {
            (None, None) => return same,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((p, _)), Some((q, _))) => p.cmp(q),
        };
        let (has_left, has_right) = (order != Ordering::Greater, order != Ordering::Less);
        let values = [
            x.as_ref().filter(|_| has_left),
            y.as_ref().filter(|_| has_right),
        ];
        if let [Some((_, p)), Some((_, q))] = values
            && p == q
        {
            same += 1;
        } else if let Some((key, _)) = values.into_iter().flatten().next() {
            let values = values.map(|pair| pair.map(|(_, value)| value));
            if !each(Met { key, values }) {
                return same;
            }
        }
        held = next(has_left, has_right, [x, y]);
    }
    same
}

fn told(met: Met<'_>) -> RecordDiff {
    RecordDiff {
        key: keys::describe(met.key),
        records: met
            .values
            .map(|value| value.map(|v| record::tell(met.key, v))),
    }
}

fn words(error: &StoreError) -> String {
    let text = error.to_string();
    text.split("\nhint: ").next().unwrap_or_default().to_owned()
}

impl Verdict {
    /// Whether this is a difference.
    pub fn differs(&self) -> bool {
        matches!(self, Self::Differs { .. } | Self::HistoriesDiffer { .. })
    }

    /// The verdict in words.
    pub fn lines(&self, names: &[String; 2]) -> Vec<String> {
        let [one, two] = names;
        let place =
            |p: &Option<Position>| p.map_or_else(|| "nothing".to_owned(), |p| format!("entry {p}"));
        let both = |positions: &[Option<Position>; 2]| {
            let told = positions.each_ref().map(place);
            format!("{one} has applied {}, {two} {}", told[0], told[1])
        };
        match self {
            Self::Same { position, hash } => {
                vec![format!(
                    "the same, applied {}, hash {hash}",
                    place(position)
                )]
            }
            Self::OtherPositions { positions, events } => vec![format!(
                "{}: not to be compared by hash; {events} audit events that both have are the same",
                both(positions)
            )],
            Self::HistoriesDiffer { positions, event } => {
                let mut lines = vec![format!(
                    "{}; their histories differ first in {}",
                    both(positions),
                    event.key
                )];
                lines.extend(event.lines(names));
                lines
            }
            Self::Missing { there } => {
                let without: Vec<&str> = std::iter::zip(names, there)
                    .filter(|(_, there)| !**there)
                    .map(|(name, _)| name.as_str())
                    .collect();
                vec![format!("not compared: {} has none", without.join(" and "))]
            }
            Self::Differs {
                position,
                hashes,
                records,
                count,
            } => {
                let hash = |n: usize| {
                    let hash = hashes.get(n).and_then(Option::as_deref);
                    hash.unwrap_or("one that could not be taken").to_owned()
                };
                let mut lines = vec![
                    format!("differs, though both have applied {}", place(position)),
                    format!("{one} has the hash {}, {two} {}", hash(0), hash(1)),
                    format!("{count} records differ; the first:"),
                ];
                for record in records {
                    lines.push(record.key.clone());
                    lines.extend(record.lines(names));
                }
                lines
            }
        }
    }
}

impl RecordDiff {
    fn lines(&self, names: &[String; 2]) -> Vec<String> {
        std::iter::zip(names, &self.records)
            .map(|(name, record)| match record {
                None => format!("  {name} has no such record"),
                Some(StateRecord {
                    error: Some(error), ..
                }) => format!("  {name} has one that cannot be read: {error}"),
                Some(record) => match &record.says {
                    Some(says) => format!("  {name} has {says}"),
                    None => format!("  {name} has {} bytes", record.bytes),
                },
            })
            .collect()
    }
}
