//! The claim of a new life in the store, over as many turns as it takes, and how long the life waits for it.
//!
//! Members of the older life of which nothing was heard learn of the new one by the store alone ([`crate::fence`]). So the life
//! begins only when its claim has lain there for longer than any of their leases. A store that is slow is given the time that
//! it takes. One that never says whose the life is does not hold it for ever (I18); but it may have the claim and be unable to say so,
//! therefore the same time is waited after the last try that may have put it there.

use std::sync::Arc;
use std::time::Duration;

use confman_store::records::IncarnationKind;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::fence::{Fence, Mark};
use crate::node::Node;
use crate::store_door::Claimed;

/// What one turn waits for the store: most have answered by then.
const TURN_WAITS: Duration = Duration::from_millis(300);
/// From the begin of one try to that of the next, at least.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// No try begins later than this after the first. A store that neither takes the claim nor refuses it is given up.
const TRIES_FOR: Duration = Duration::from_secs(60);
/// What is waited for the store where everybody of the older life was heard: they know already.
const HEARD_PATIENCE: Duration = Duration::from_secs(5);
/// Longest that the second look at the claim takes.
const LOOK_WITHIN: Duration = Duration::from_secs(5);

/// How a life whose claim is under way may go on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// This stands against it.
    pub(super) against: Option<String>,
    /// Nothing stands against it, and it waits for this.
    pub(super) waits: Option<String>,
}

impl Standing {
    fn waits(what: String) -> Self {
        Self {
            against: None,
            waits: Some(what),
        }
    }
}

/// How far the claim has come.
#[derive(Default)]
pub(super) struct Claiming {
    /// The try that is under way.
    under_way: JoinSet<Claimed>,
    /// When the last try began, for the pause between two.
    tried: Option<Instant>,
    marks: Marks,
    told: bool,
}

/// What was seen of the store, and when.
#[derive(Debug, Clone, Copy, Default)]
struct Marks {
    /// The first try began.
    first: Option<Mark>,
    /// The last try ended of those that may have put the claim.
    may_lie_there: Option<Mark>,
    /// The claim was first seen there.
    seen: Option<Mark>,
    /// Another try would end as the last one did.
    refused: bool,
}

impl Claiming {
    /// One turn: goes on with the claim, and says how the life may go on. `silent` are those of the older life of whom nothing was heard.
    pub(super) async fn turn(
        &mut self,
        node: &Arc<Node>,
        kind: IncarnationKind,
        silent: &[String],
    ) -> Standing {
        let fence = node.fence();
        match self.answer(node, kind, silent).await {
            Some(Claimed::NoStore) => return Standing::default(),
            Some(Claimed::Against(why)) => {
                return Standing {
                    against: Some(why),
                    waits: None,
                };
            }
            Some(Claimed::Ours) => {
                self.marks.seen.get_or_insert_with(|| fence.mark());
            }
            Some(Claimed::Unknown {
                why,
                may_lie_there,
                again,
            }) => self.failed(fence, &why, may_lie_there, again),
            None => {}
        }
        match self.marks.waits(fence, silent, !self.under_way.is_empty()) {
            Some(what) => Standing::waits(what),
            None if self.marks.seen.is_some() => second_look(node).await,
            None => {
                if let Some(kept_back) = node.may_tell(node.meta().id(), "claim") {
                    tracing::warn!(
                        kept_back,
                        "incarnation {} begins without a claim in the store\nhint: `drtool store probe` with the variables of this node tries every step",
                        node.cluster().incarnation
                    );
                }
                Standing::default()
            }
        }
    }

    /// The life cannot begin by this node now, for another reason: what is under way is not wished any more, and the next time
    /// all is asked and waited for anew, unless the claim was seen.
    pub(super) fn pause(&mut self) {
        let marks = Marks {
            seen: self.marks.seen,
            ..Marks::default()
        };
        *self = Self {
            marks,
            told: self.told,
            ..Self::default()
        };
    }

    /// The answer of a try that has ended, if one has by now.
    async fn answer(
        &mut self,
        node: &Arc<Node>,
        kind: IncarnationKind,
        silent: &[String],
    ) -> Option<Claimed> {
        if self.under_way.is_empty() {
            let rested = self.tried.is_none_or(|at| at.elapsed() >= TRY_AGAIN);
            if !rested || !self.marks.tries_again(node.fence(), silent) {
                return None;
            }
            self.tried = Some(Instant::now());
            self.marks.first.get_or_insert_with(|| node.fence().mark());
            let (store, identity) = (Arc::clone(node.store()), node.identity().clone());
            self.under_way.spawn(async move {
                fail::fail_point!("life::before-claim");
                let claimed = store.claim_life(&identity, kind).await;
                fail::fail_point!("life::after-claim");
                claimed
            });
        }
        let ended = tokio::time::timeout(TURN_WAITS, self.under_way.join_next()).await;
        match ended.ok().flatten()? {
            Ok(claimed) => Some(claimed),
            // It was ended from outside, whatever it had done by then.
            Err(error) => Some(Claimed::Unknown {
                why: error.to_string(),
                may_lie_there: true,
                again: true,
            }),
        }
    }

    fn failed(&mut self, fence: &Fence, why: &str, may_lie_there: bool, again: bool) {
        if may_lie_there {
            self.marks.may_lie_there = Some(fence.mark());
        }
        self.marks.refused = !again;
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!("the store did not take the claim of the new incarnation: {why}");
        }
    }
}

impl Marks {
    /// Whether another try may still change what is known.
    fn tries_again(&self, fence: &Fence, silent: &[String]) -> bool {
        let Some(first) = self.first else {
            return true;
        };
        if self.seen.is_some() {
            // It is asked at each turn whether it still is.
            return true;
        }
        !self.refused && fence.since(first) < TRIES_FOR && self.outlasts(fence, silent)
    }

    /// Whether the store's word is still waited for, once it has been asked.
    fn outlasts(&self, fence: &Fence, silent: &[String]) -> bool {
        let Some(first) = self.first else {
            return true;
        };
        if silent.is_empty() {
            return fence.since(first) < HEARD_PATIENCE;
        }
        [Some(first), self.may_lie_there]
            .into_iter()
            .flatten()
            .any(|mark| fence.waits_until(mark).is_some())
    }

    /// What the life waits for; none when it may begin.
    fn waits(&self, fence: &Fence, silent: &[String], under_way: bool) -> Option<String> {
        let names = silent.join(", ");
        if let Some(seen) = self.seen {
            let until = fence.waits_until(seen).filter(|_| !silent.is_empty())?;
            return Some(format!(
                "it waits until {}, because {names} of the older life gave no answer: by then, where they reach the object store, they have seen there that their time is over",
                time(until)
            ));
        }
        if silent.is_empty() {
            let waits = under_way && self.outlasts(fence, silent);
            return waits.then(|| "the object store is asked whose it is".to_owned());
        }
        if !under_way && !self.outlasts(fence, silent) {
            return None;
        }
        let first = self.first.and_then(|first| fence.waits_until(first));
        let until = first.map_or_else(
            || "for the object store for a while yet".to_owned(),
            |until| format!("until {} at least", time(until)),
        );
        Some(format!(
            "it waits {until}, because {names} of the older life gave no answer and the object store has not said that it has the claim of this one\nhint: `drtool store probe` with the variables of this node tries every step"
        ))
    }
}

/// Seconds are enough to wait by.
fn time(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us).map_or_else(|_| us.to_string(), |at| format!("{at:.0}"))
}

/// Looks once more before the life begins: on a store that ignores conditions, of two recoveries that claimed one number at one time the
/// later may have replaced the earlier; and the prefix may be one that others share.
async fn second_look(node: &Node) -> Standing {
    match node.store().ended_by(node.identity(), LOOK_WITHIN).await {
        Ok(against) => Standing {
            against,
            waits: None,
        },
        Err(error) => {
            tracing::warn!("the claim of the new incarnation could not be read again: {error}");
            Standing::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    /// A claim as of which the tests say what the store did, by a clock that goes when it is told to.
    struct Bench {
        fence: Arc<Fence>,
        clock_ms: Arc<AtomicU64>,
        claiming: Claiming,
        silent: Vec<String>,
    }

    impl Bench {
        fn new(silent: &[&str]) -> Self {
            let clock_ms = Arc::new(AtomicU64::new(100_000));
            let reads = Arc::clone(&clock_ms);
            let fence = Fence::by(
                Some(INTERVAL),
                Box::new(move || reads.load(Ordering::Acquire)),
            );
            let mut claiming = Claiming::default();
            claiming.marks.first = Some(fence.mark());
            Self {
                fence,
                clock_ms,
                claiming,
                silent: silent.iter().map(|name| (*name).to_owned()).collect(),
            }
        }

        fn pass(&self, secs: u64) {
            self.clock_ms.fetch_add(secs * 1_000, Ordering::AcqRel);
        }

        fn fails(&mut self, may_lie_there: bool, again: bool) {
            self.claiming
                .failed(&self.fence, "no answer", may_lie_there, again);
        }

        fn seen(&mut self) {
            self.claiming.marks.seen = Some(self.fence.mark());
        }

        fn waits(&self, under_way: bool) -> Option<String> {
            self.claiming
                .marks
                .waits(&self.fence, &self.silent, under_way)
        }

        fn tries_again(&self) -> bool {
            self.claiming.marks.tries_again(&self.fence, &self.silent)
        }
    }

    #[test]
    fn i13_a_store_that_is_slow_to_take_the_claim_is_waited_for_and_the_lease_counts_from_its_answer()
     {
        let mut bench = Bench::new(&["node2"]);
        bench.pass(39);
        let waits = bench.waits(true);
        assert!(waits.is_some_and(|waits| waits.contains("node2 of the older life")));
        bench.seen();
        bench.pass(14);
        assert!(
            bench.waits(false).is_some(),
            "as long as a lease is not longer"
        );
        bench.pass(1);
        assert_eq!(bench.waits(false), None);
    }

    #[test]
    fn i13_a_claim_that_may_lie_there_is_outwaited_like_one_that_does() {
        let mut bench = Bench::new(&["node2"]);
        bench.pass(14);
        assert!(bench.tries_again());
        bench.fails(true, true);
        bench.pass(2);
        assert!(bench.waits(false).is_some(), "its answer was lost, 2 s ago");
        assert!(bench.tries_again());
        bench.pass(13);
        assert_eq!(bench.waits(false), None);
    }

    #[test]
    fn i18_a_store_that_never_takes_the_claim_does_not_hold_the_life_for_ever() {
        // Nobody is there.
        let mut bench = Bench::new(&["node2"]);
        for _ in 0..7 {
            bench.fails(false, true);
            bench.pass(2);
            assert!(bench.waits(false).is_some() && bench.tries_again());
        }
        bench.pass(1);
        assert_eq!(bench.waits(false), None);
        // It answers, and no try ends.
        let mut bench = Bench::new(&["node2"]);
        let mut tries = 1;
        while bench.tries_again() {
            bench.pass(12);
            bench.fails(true, true);
            tries += 1;
        }
        assert_eq!(tries, 6);
        assert!(bench.waits(false).is_some());
        bench.pass(15);
        assert_eq!(bench.waits(false), None);
        // It refuses.
        let mut bench = Bench::new(&["node2"]);
        bench.fails(true, false);
        assert!(!bench.tries_again());
        bench.pass(15);
        assert_eq!(bench.waits(false), None);
    }

    #[test]
    fn i18_where_everybody_was_heard_a_store_is_given_seconds() {
        let mut bench = Bench::new(&[]);
        assert!(bench.waits(true).is_some());
        bench.pass(5);
        assert_eq!(bench.waits(true), None);
        bench.seen();
        assert_eq!(bench.waits(false), None);
        let mut bench = Bench::new(&[]);
        bench.fails(false, true);
        assert_eq!(bench.waits(false), None);
    }
}
