//! Leadership that goes over to another voter by this node's will.

use std::time::Duration;

use confman_store::types::TypeConfig;
use openraft::RaftMetrics;
use openraft::errors::Fatal;
use tokio::time::Instant;

use super::Group;

/// How long the first asking has, and each later one twice as long as the one before. Whoever lacks an entry yet is asked
/// again soon. Who was asked stands in a term of its own: one that is asked while it still stands begins anew, and a
/// voter that is heard by nobody would come back with a term for every asking.
const FIRST_ASKING: Duration = Duration::from_millis(100);

impl Group {
    /// Asks voters to lead until this node does not any more, for at most `within`; `choose` says whom, each time anew,
    /// and with none it is given up. Returns whether this node leads no more.
    ///
    /// # Errors
    /// When Raft has ended.
    pub(crate) async fn hand_over(
        &self,
        within: Duration,
        mut choose: impl FnMut(&RaftMetrics<TypeConfig>) -> Option<u64>,
    ) -> Result<bool, Fatal<TypeConfig>> {
        let until = Instant::now() + within;
        let mut patience = FIRST_ASKING;
        while self.is_leader() {
            let left = until.saturating_duration_since(Instant::now());
            let Some(to) = choose(&self.metrics()).filter(|_| !left.is_zero()) else {
                break;
            };
            let trigger = self.raft().trigger();
            let Ok(asked) = tokio::time::timeout(left, trigger.transfer_leader(to)).await else {
                // Raft does not take it: its disk hangs, or it is about to end.
                break;
            };
            asked?;
            // That it is too early to say so is no error: it is asked again.
            let _ = self
                .raft()
                .wait(Some(patience.min(left)))
                .metrics(|raft| !raft.state.is_leader(), "another one leads")
                .await;
            patience *= 2;
        }
        Ok(!self.is_leader())
    }
}
