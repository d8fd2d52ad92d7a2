//! The arithmetic of majorities, in one place for whoever shows it, plans with it or refuses by it.

use serde::Serialize;

/// How strong a group is: who votes, and how many of those are up. What "up" means is the caller's to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Strength {
    /// Members that vote.
    pub voters: usize,
    /// Those of them that are up; never more than vote.
    pub up: usize,
}

impl Strength {
    /// Of a group with these voters, of whom those for which `up` holds are up.
    pub fn of(voters: impl IntoIterator<Item = u64>, up: impl Fn(u64) -> bool) -> Self {
        voters
            .into_iter()
            .fold(Self { voters: 0, up: 0 }, |s, id| Self {
                voters: s.voters + 1,
                up: s.up + usize::from(up(id)),
            })
    }

    /// How many must be up for anything to be committed.
    pub fn quorum(self) -> usize {
        self.voters / 2 + 1
    }

    /// Whether anything can be committed.
    pub fn has_quorum(self) -> bool {
        self.voters > 0 && self.up >= self.quorum()
    }

    /// How many more nodes may go and writes still go on; none when they do not now.
    pub fn tolerance(self) -> Option<usize> {
        if self.voters == 0 {
            return None;
        }
        self.up.checked_sub(self.quorum())
    }

    /// What the tolerance would be with every voter up.
    pub fn tolerance_at_best(self) -> usize {
        self.voters.saturating_sub(self.quorum())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_clusters_as_everybody_knows_them() {
        let told = |voters, up| {
            let s = Strength { voters, up };
            (s.quorum(), s.tolerance(), s.tolerance_at_best())
        };
        assert_eq!(told(1, 1), (1, Some(0), 0));
        assert_eq!(told(2, 2), (2, Some(0), 0));
        assert_eq!(told(3, 3), (2, Some(1), 1));
        assert_eq!(told(3, 2), (2, Some(0), 1));
        assert_eq!(told(3, 1), (2, None, 1));
        assert_eq!(told(4, 4), (3, Some(1), 1));
        assert_eq!(told(5, 5), (3, Some(2), 2));
        assert_eq!(told(0, 0), (1, None, 0));
    }

    proptest! {
        /// Whatever the size: with the tolerance gone there is still a quorum, with one more there is none, and two
        /// quorums always share a voter.
        #[test]
        fn tolerance_is_exact(voters in 1_usize..40, down in 0_usize..40) {
            let up = voters.saturating_sub(down);
            let now = Strength { voters, up };
            prop_assert!(2 * now.quorum() > voters);
            match now.tolerance() {
                None => prop_assert!(!now.has_quorum()),
                Some(more) => {
                    let later = Strength { voters, up: up - more };
                    prop_assert!(later.has_quorum());
                    let one_less = Strength { voters, up: later.up - 1 };
                    prop_assert!(!one_less.has_quorum());
                    prop_assert!(more <= now.tolerance_at_best());
                }
            }
        }
    }
}
