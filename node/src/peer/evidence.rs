//! What a node is known to have promised in one group: the terms it voted in, the entries it acknowledged. A node that
//! starts with less has an older copy of its data directory, and could break what it promised.
//!
//! Only what can never be taken back counts:
//! - a vote, once it was answered or asked with, is on the disk (openraft saves it before it speaks);
//! - in one term a log only grows, so what was acknowledged to the leader of a term is there for as long as the vote is of
//!   that term. In a later term another leader may have cut off what was not committed;
//! - what was acknowledged and is committed is there for ever, and so is what a state holds durably.
//!
//! Pure: no clock, no I/O. Where it is kept and compared: [`super::acquaintance`].

use confman_store::promises::GroupPromise;

use super::proto::Standing;

/// What one node is known to have promised in one group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// The highest term that it has voted in.
    voted: u64,
    /// The highest term in which it acknowledged entries to its leader.
    acked_term: u64,
    /// Where the log ended that it acknowledged in that term: one more than the last index.
    acked_end: u64,
    /// Where the log ended of what it acknowledged and can never lose.
    kept_end: u64,
}

impl Evidence {
    /// It voted, or asked for votes, in this term.
    pub(crate) fn voted(&mut self, term: u64) {
        self.voted = self.voted.max(term);
    }

    /// It acknowledged its log up to `index` to the leader of `term`, the first `committed_end` entries of whose log were
    /// committed.
    pub(crate) fn acked(&mut self, term: u64, index: u64, committed_end: u64) {
        self.voted(term);
        if term < self.acked_term {
            return;
        }
        if term > self.acked_term {
            (self.acked_term, self.acked_end) = (term, 0);
        }
        self.acked_end = self.acked_end.max(index.saturating_add(1));
        self.kept_end = self
            .kept_end
            .max(committed_end.min(index.saturating_add(1)));
    }

    /// It said itself what is durable here: its vote, and where its state ends.
    pub(crate) fn told(&mut self, standing: &Standing) {
        self.voted(standing.vote_term);
        self.kept_end = self.kept_end.max(standing.end);
    }

    /// As it was kept, beside what is known already.
    pub(crate) fn recall(&mut self, kept: &GroupPromise) {
        if kept.acked_term > self.acked_term {
            (self.acked_term, self.acked_end) = (kept.acked_term, 0);
        }
        if kept.acked_term == self.acked_term {
            self.acked_end = self.acked_end.max(kept.acked_end);
        }
        self.voted(kept.voted);
        self.kept_end = self.kept_end.max(kept.kept_end);
    }

    /// To be kept.
    pub(crate) fn of_group(&self, group: &str) -> GroupPromise {
        GroupPromise {
            group: group.to_owned(),
            voted: self.voted,
            acked_term: self.acked_term,
            acked_end: self.acked_end,
            kept_end: self.kept_end,
        }
    }

    /// What is missing from a directory with this standing; none when it can be the node's own.
    pub(crate) fn missing_in(&self, standing: &Standing) -> Option<String> {
        if standing.vote_term < self.voted {
            return Some(format!(
                "it voted in term {} of {}, its data directory knows of none after term {}",
                self.voted, standing.group, standing.vote_term
            ));
        }
        let acked = if standing.vote_term == self.acked_term {
            self.acked_end.max(self.kept_end)
        } else {
            self.kept_end
        };
        (standing.end < acked).then(|| {
            let ends = match standing.end.checked_sub(1) {
                Some(last) => format!("ends at entry {last}"),
                None => "has none".to_owned(),
            };
            format!(
                "it acknowledged entry {} of {}, its data directory {ends}",
                acked.saturating_sub(1),
                standing.group
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn standing(vote_term: u64, end: u64) -> Standing {
        Standing {
            group: "config/0".to_owned(),
            vote_term,
            end,
        }
    }

    #[test]
    fn d08_less_than_was_promised_is_found() {
        let mut seen = Evidence::default();
        assert_eq!(seen.missing_in(&standing(0, 0)), None, "nothing is known");
        seen.voted(3);
        seen.acked(3, 9, 8);
        let found = |vote: u64, end: u64| seen.missing_in(&standing(vote, end));
        assert!(found(2, 10).is_some_and(|m| m.contains("voted in term 3")));
        assert!(
            found(3, 9).is_some_and(
                |m| m.contains("acknowledged entry 9") && m.contains("ends at entry 8")
            )
        );
        assert!(found(3, 0).is_some_and(|m| m.contains("has none")));
        assert_eq!(found(3, 10), None);
        assert_eq!(found(3, 20), None);
        // Another leader may have cut off the entries 8 and 9, and nothing before them.
        assert_eq!(found(4, 8), None);
        assert!(found(4, 7).is_some_and(|m| m.contains("acknowledged entry 7")));
    }

    #[test]
    fn what_a_node_said_of_itself_counts_in_every_term() {
        let mut seen = Evidence::default();
        seen.told(&standing(5, 4));
        assert!(seen.missing_in(&standing(4, 9)).is_some());
        assert!(seen.missing_in(&standing(5, 3)).is_some());
        assert!(seen.missing_in(&standing(9, 3)).is_some());
        assert_eq!(seen.missing_in(&standing(5, 4)), None);
    }

    #[test]
    fn what_is_recalled_is_what_was_kept() {
        let mut seen = Evidence::default();
        seen.acked(4, 20, 16);
        seen.acked(5, 17, 17);
        seen.voted(7);
        let mut again = Evidence::default();
        again.recall(&seen.of_group("config/0"));
        assert_eq!(again, seen);
        // Beside what was heard since, in a later term.
        again.acked(8, 30, 3);
        again.recall(&seen.of_group("config/0"));
        assert_eq!((again.acked_term, again.acked_end), (8, 31));
        assert_eq!(again.kept_end, 17);
        let mut nothing = Evidence::default();
        nothing.recall(&Evidence::default().of_group("config/0"));
        assert_eq!(nothing, Evidence::default());
    }

    /// What a sound node does, as far as it shows: its vote and its committed log never go back; what is not committed may
    /// be cut off by the leader of a later term.
    #[derive(Debug, Clone)]
    enum Step {
        Vote(u8),
        Append(u8),
        Commit(u8),
        NewLeaderCuts(u8),
        Tell,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3u8).prop_map(Step::Vote),
            (1..5u8).prop_map(Step::Append),
            any::<u8>().prop_map(Step::Commit),
            any::<u8>().prop_map(Step::NewLeaderCuts),
            Just(Step::Tell),
        ]
    }

    proptest! {
        #[test]
        fn a_node_that_kept_everything_is_never_refused(steps in prop::collection::vec(step(), 0..60)) {
            let (mut term, mut end, mut committed) = (1u64, 1u64, 1u64);
            let mut seen = Evidence::default();
            for step in steps {
                match step {
                    Step::Vote(more) => {
                        term += u64::from(more);
                        seen.voted(term);
                    }
                    Step::Append(more) => {
                        end += u64::from(more);
                        seen.acked(term, end - 1, committed);
                    }
                    Step::Commit(at) => {
                        committed = committed.max(u64::from(at) % (end + 1));
                        seen.acked(term, end - 1, committed);
                    }
                    Step::NewLeaderCuts(at) => {
                        term += 1;
                        end = committed + u64::from(at) % (end - committed + 1);
                    }
                    Step::Tell => seen.told(&standing(term, committed)),
                }
                // Killed here, it starts with what it has.
                prop_assert_eq!(seen.missing_in(&standing(term, end)), None);
            }
        }
    }
}
