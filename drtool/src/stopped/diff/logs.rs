//! Where two logs differ first.

use confman_snapshot::model::Position;
use confman_store::offline::{OfflineEntry, OfflineGroup};
use serde::Serialize;

use crate::stopped::log_entry::{self, LogEntry};

/// How two logs compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(
    tag = "verdict",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Verdict {
    /// The same entries at all indexes that both have.
    Same {
        /// The first index that was compared.
        from: u64,
        /// The last one.
        to: u64,
        /// The last entries of the two.
        last: [Option<Position>; 2],
    },
    /// One index, two entries.
    Differs {
        /// The first such index.
        index: u64,
        /// What stands there in each; none where only its position is known.
        entries: Box<[Option<LogEntry>; 2]>,
        /// The positions.
        positions: [Position; 2],
        /// Which of the two knew that entry to be committed.
        committed: [bool; 2],
    },
    /// There is no index that both have.
    NoOverlap {
        /// The last entries of the two.
        last: [Option<Position>; 2],
    },
    /// One of them has no log that can be read.
    Missing {
        /// Which of them has one.
        there: [bool; 2],
    },
}

/// Compares; `unreadable` gets what could not be read, with the number of the node, from 0.
pub fn compare(
    one: Option<&OfflineGroup>,
    two: Option<&OfflineGroup>,
    unreadable: &mut Vec<(usize, String)>,
) -> Verdict {
    let logs = [one, two].map(|group| group.and_then(|group| group.log.as_ref()));
    let ([Some(a), Some(b)], Some(one), Some(two)) = (logs, one, two) else {
        return Verdict::Missing {
            there: logs.map(|log| log.is_some()),
        };
    };
    let last = [one.last, two.last];
    if let Some(at) = purged_otherwise(one, two) {
        return differs(one, two, at, [None, None]);
    }
    // By index, not as Raft orders logs: of two logs the longer one need not be the later one.
    let indexes = |ends: [Option<Position>; 2]| match ends {
        [Some(a), Some(b)] => Some([a.index, b.index]),
        _ => None,
    };
    let (Some(firsts), Some(lasts)) = (indexes([one.first, two.first]), indexes(last)) else {
        return Verdict::NoOverlap { last };
    };
    let (from, to) = (firsts[0].max(firsts[1]), lasts[0].min(lasts[1]));
    if from > to {
        return Verdict::NoOverlap { last };
    }
    let (mut left, mut right) = (a.entries(from..=to), b.entries(from..=to));
    let (mut x, mut y) = (
        next(&mut left, 0, unreadable),
        next(&mut right, 1, unreadable),
    );
    while let (Some(p), Some(q)) = (&x, &y) {
        match p.position.index.cmp(&q.position.index) {
            std::cmp::Ordering::Less => x = next(&mut left, 0, unreadable),
            std::cmp::Ordering::Greater => y = next(&mut right, 1, unreadable),
            std::cmp::Ordering::Equal if p == q => {
                x = next(&mut left, 0, unreadable);
                y = next(&mut right, 1, unreadable);
            }
            std::cmp::Ordering::Equal => {
                let told = [(one, p), (two, q)].map(|(group, entry)| {
                    let decoded = entry.decode(&group.group);
                    Some(log_entry::tell(
                        decoded.map(|payload| (entry.position, payload)),
                    ))
                });
                return differs(one, two, [p.position, q.position], told);
            }
        }
    }
    Verdict::Same { from, to, last }
}

/// The next entry that can be read.
fn next<I>(
    entries: &mut I,
    number: usize,
    unreadable: &mut Vec<(usize, String)>,
) -> Option<OfflineEntry>
where
    I: Iterator<Item = Result<OfflineEntry, confman_store::StoreError>>,
{
    loop {
        match entries.next()? {
            Ok(entry) => return Some(entry),
            Err(error) => {
                let text = error.to_string();
                let text = text.split("\nhint: ").next().unwrap_or_default();
                unreadable.push((number, text.to_owned()));
            }
        }
    }
}

/// What one has purged and the other has, or has purged too, under another id.
fn purged_otherwise(one: &OfflineGroup, two: &OfflineGroup) -> Option<[Position; 2]> {
    let at = |group: &OfflineGroup, index: u64| match group.purged {
        Some(purged) if purged.index == index => Some(purged),
        _ => group
            .log
            .as_ref()?
            .entries(index..=index)
            .find_map(Result::ok)
            .map(|entry| entry.position),
    };
    [one.purged, two.purged]
        .into_iter()
        .flatten()
        .find_map(|purged| {
            let found = [at(one, purged.index)?, at(two, purged.index)?];
            (found[0] != found[1]).then_some(found)
        })
}

fn differs(
    one: &OfflineGroup,
    two: &OfflineGroup,
    positions: [Position; 2],
    entries: [Option<LogEntry>; 2],
) -> Verdict {
    let index = positions[0].index;
    let knew = |group: &OfflineGroup| {
        let known = [group.committed, group.applied, group.purged];
        known
            .into_iter()
            .flatten()
            .any(|known| known.index >= index)
    };
    Verdict::Differs {
        index,
        entries: Box::new(entries),
        positions,
        committed: [knew(one), knew(two)],
    }
}

impl Verdict {
    /// Whether this is a difference.
    pub fn differs(&self) -> bool {
        matches!(self, Self::Differs { .. })
    }

    /// The verdict in words.
    pub fn lines(&self, names: &[String; 2]) -> Vec<String> {
        let [one, two] = names;
        let end = |last: &[Option<Position>; 2]| {
            let told = last.map(|p| p.map_or_else(|| "nothing".to_owned(), |p| p.to_string()));
            format!("{one} ends at {}, {two} at {}", told[0], told[1])
        };
        match self {
            Self::Same { from, to, last } => {
                vec![format!(
                    "the same entries from {from} to {to}; {}",
                    end(last)
                )]
            }
            Self::NoOverlap { last } => {
                vec![format!("no index that both have; {}", end(last))]
            }
            Self::Missing { there } => {
                let without: Vec<&str> = std::iter::zip(names, there)
                    .filter(|(_, there)| !**there)
                    .map(|(name, _)| name.as_str())
                    .collect();
                vec![format!("not compared: {} has none", without.join(" and "))]
            }
            Self::Differs {
                index,
                entries,
                positions,
                committed,
            } => {
                let mut lines = vec![format!("differs first at index {index}")];
                for ((name, entry), position) in std::iter::zip(names, &**entries).zip(positions) {
                    lines.push(match entry {
                        Some(entry) => format!("{name} has {entry}"),
                        None => format!("{name} has {position}, purged since"),
                    });
                }
                lines.push(match committed {
                    [false, false] => "neither knew it to be committed: what a leader that was lost leaves; one of them is cut off when the two meet".to_owned(),
                    [true, false] => format!("{one} knew its own to be committed: that of {two} is cut off when the two meet"),
                    [false, true] => format!("{two} knew its own to be committed: that of {one} is cut off when the two meet"),
                    [true, true] => "both knew their own to be committed: these are two histories, which must never meet".to_owned(),
                });
                lines
            }
        }
    }
}
