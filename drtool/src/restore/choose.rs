//! Which snapshots of a group may be restored, best first: a pure function of what the store lists and of how each life of
//! the cluster began.
//!
//! The newest life counts first, however high the indexes of an older one are. Of an older life counts only what the newer
//! ones grew from: where a life was restored from a snapshot, what the life before wrote beyond it is a dead branch. Within a
//! life the highest index is the newest; no clock is asked. What a life wrote whose recovery was undone is a dead branch too.

use confman_snapshot::repository::{Listed, RestoreOrder};
use confman_snapshot::{GroupId, SnapshotId};

/// How one life of the cluster began, as far as the choice needs it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Life {
    /// Its number.
    pub(super) incarnation: u64,
    /// The restore order that began it, if one did.
    pub(super) order: Option<RestoreOrder>,
    /// Whether the recovery that made it was undone: it never was.
    pub(super) undone: bool,
}

/// The snapshots of one group, sorted by what they are good for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Choice {
    /// What may be restored, best first.
    pub(super) candidates: Vec<Listed>,
    /// Of a life that was undone, or written after the point from which a newer life went on: not restored unless it is named.
    pub(super) dead: Vec<Listed>,
}

/// What an operator asked for, of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The newest.
    Newest,
    /// This one.
    Named(SnapshotId),
    /// The newest up to this index.
    UpTo(u64),
}

/// Sorts the snapshots of `group`. `lives` in any order.
pub(super) fn choose(group: &GroupId, listed: &[Listed], lives: &[Life], wanted: Wanted) -> Choice {
    let mut newest_first: Vec<&Listed> = listed.iter().collect();
    newest_first
        .sort_by_key(|l| std::cmp::Reverse((l.id.incarnation, l.id.index, l.id.term, l.id)));
    let mut choice = Choice::default();
    for snapshot in newest_first {
        let fits = match wanted {
            Wanted::Newest => true,
            Wanted::UpTo(index) => snapshot.id.index <= index,
            Wanted::Named(id) => {
                if snapshot.id == id {
                    choice.candidates.push(snapshot.clone());
                }
                continue;
            }
        };
        if is_dead(group, &snapshot.id, lives) {
            choice.dead.push(snapshot.clone());
        } else if fits {
            choice.candidates.push(snapshot.clone());
        }
    }
    choice
}

/// Whether the snapshot's life never was, or a newer one was restored from an earlier point than the snapshot.
fn is_dead(group: &GroupId, id: &SnapshotId, lives: &[Life]) -> bool {
    let undone = |life: &Life| life.undone && life.incarnation == id.incarnation;
    if lives.iter().any(undone) {
        return true;
    }
    lives
        .iter()
        .filter(|life| life.incarnation > id.incarnation)
        .filter_map(|life| life.order.as_ref()?.record(group))
        .any(|from| from.incarnation < id.incarnation || from.position.index < id.index)
}

#[cfg(test)]
mod tests {
    use confman_snapshot::model::Position;
    use confman_snapshot::{SnapshotRecord, paths};

    use super::*;

    fn listed(incarnation: u64, index: u64) -> Listed {
        let id = SnapshotId {
            index,
            incarnation,
            term: incarnation * 1000,
            nonce: 1,
        };
        Listed {
            id,
            object: paths::snapshot(&GroupId::config(0), &id),
            bytes: 1,
        }
    }

    fn restored(incarnation: u64, from: (u64, u64)) -> Life {
        let group = GroupId::config(0);
        let id = listed(from.0, from.1).id;
        let record = SnapshotRecord {
            position: Position::new(id.term, 1, id.index),
            object: paths::snapshot(&group, &id),
            id,
            group,
            incarnation: from.0,
            ..SnapshotRecord::default()
        };
        let order = RestoreOrder {
            version: 1,
            plan_id: "p".to_owned(),
            shards: 1,
            term: 5000,
            groups: vec![record],
            members: Vec::new(),
            next_node_id: 9,
            operator: String::new(),
            summary: String::new(),
        };
        Life {
            incarnation,
            order: Some(order),
            undone: false,
        }
    }

    fn born() -> Life {
        Life {
            incarnation: 1,
            order: None,
            undone: false,
        }
    }

    fn undone(incarnation: u64) -> Life {
        Life {
            incarnation,
            undone: true,
            ..born()
        }
    }

    #[test]
    fn i13_what_a_life_wrote_that_was_undone_is_nobodys_past() {
        let there = [listed(1, 40), listed(2, 30), listed(2, 50)];
        let lives = [born(), undone(2)];
        assert_eq!(chosen(&there, &lives, Wanted::Newest), [(1, 40)]);
        let choice = choose(&GroupId::config(0), &there, &lives, Wanted::Newest);
        assert_eq!(choice.dead.len(), 2);
        // Who names it has looked at it.
        let named = Wanted::Named(there[2].id);
        assert_eq!(chosen(&there, &lives, named), [(2, 50)]);
        // A later life that is restored from the first grew from that alone.
        let there = [there.as_slice(), &[listed(3, 45)]].concat();
        let lives = [born(), undone(2), restored(3, (1, 40))];
        assert_eq!(chosen(&there, &lives, Wanted::Newest), [(3, 45), (1, 40)]);
    }

    fn chosen(listed: &[Listed], lives: &[Life], wanted: Wanted) -> Vec<(u64, u64)> {
        let choice = choose(&GroupId::config(0), listed, lives, wanted);
        let at = |l: &Listed| (l.id.incarnation, l.id.index);
        choice.candidates.iter().map(at).collect()
    }

    #[test]
    fn the_highest_index_of_the_newest_life_comes_first() {
        let there = [listed(1, 9637), listed(1, 10137), listed(2, 700)];
        assert_eq!(
            chosen(&there, &[born()], Wanted::Newest),
            [(2, 700), (1, 10137), (1, 9637)]
        );
        assert_eq!(
            chosen(&there[..2], &[born()], Wanted::UpTo(10_000)),
            [(1, 9637)]
        );
    }

    #[test]
    fn what_was_written_beyond_the_point_of_a_restore_is_no_past_of_the_new_life() {
        let there = [
            listed(1, 100),
            listed(1, 200),
            listed(1, 300),
            listed(2, 250),
        ];
        let lives = [born(), restored(2, (1, 200))];
        assert_eq!(
            chosen(&there, &lives, Wanted::Newest),
            [(2, 250), (1, 200), (1, 100)]
        );
        // The second life was itself restored away, to the first.
        let lives = [born(), restored(2, (1, 200)), restored(3, (1, 100))];
        assert_eq!(chosen(&there, &lives, Wanted::Newest), [(1, 100)]);
        // Unless it is named.
        let named = Wanted::Named(listed(1, 300).id);
        assert_eq!(chosen(&there, &lives, named), [(1, 300)]);
        let dead = choose(&GroupId::config(0), &there, &lives, Wanted::Newest).dead;
        assert_eq!(dead.len(), 3);
    }
}
