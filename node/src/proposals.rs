//! How many proposals of a group wait for their outcome on this node.

use confman_snapshot::model::GroupId;

/// The gauge of one group; looked up once, a write should not.
pub(crate) struct InFlight(metrics::Gauge);

impl InFlight {
    pub(crate) fn new(group: &GroupId) -> Self {
        let gauge =
            metrics::gauge!("confman_raft_proposals_in_flight", "group" => group.to_string());
        gauge.set(0.0);
        Self(gauge)
    }

    /// One more, until what is given back is dropped: with its outcome, or with the caller who went away.
    pub(crate) fn one(&self) -> impl Drop + use<> {
        self.0.increment(1.0);
        Under(self.0.clone())
    }
}

struct Under(metrics::Gauge);

impl Drop for Under {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
