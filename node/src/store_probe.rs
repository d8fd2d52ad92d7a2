//! A short look, after the start, at what the object store really does with what it is asked.
//!
//! It is said once in the log and measured; the repository takes it into account (`Repository::probe_short`). Nothing waits for it: a
//! store that is down, or did not let itself be found out, is asked again later, and ordinary work goes on meanwhile (I18). A prefix that is not this cluster's is not
//! written to, not even for this.

use std::sync::Arc;
use std::time::Duration;

use confman_snapshot::repository::{Conditions, Probe};
use tokio_util::sync::CancellationToken;

use crate::node::Node;
use crate::store_door::DoorError;

/// Pause before the store is asked again; doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Looks until it is known what the store does, or the node stops.
pub(crate) async fn at_start(node: Arc<Node>, stop: CancellationToken) {
    let mut pause = PAUSE_MIN;
    let (mut told, mut unknown) = (false, false);
    loop {
        // Nothing of a life that has not begun goes to the store.
        if node.has_begun() {
            match look(&node).await {
                Ok((store, probe)) => {
                    if let Some(honoured) = known(probe.conditions) {
                        metrics::gauge!("confman_store_conditional_writes").set(honoured);
                        return say(&store, &probe);
                    }
                    if !std::mem::replace(&mut unknown, true) {
                        say(&store, &probe);
                    }
                }
                // Whoever needs the store says why it is not used.
                Err(DoorError::Store(..)) if told => {}
                Err(error @ DoorError::Store(..)) => {
                    tracing::warn!(
                        "the object store could not be probed, to be tried again: {error}"
                    );
                    told = true;
                }
                Err(_) => return,
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        if node.has_begun() {
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

async fn look(node: &Node) -> Result<(String, Probe), DoorError> {
    let lineage = &node.identity().lineage;
    let repository = node.store().claimed(node.cluster(), lineage).await?;
    let probe = repository.probe_short().await?;
    Ok((repository.url().to_owned(), probe))
}

/// What is measured of conditional writes; nothing while it is not known.
fn known(conditions: Conditions) -> Option<f64> {
    match conditions {
        Conditions::Honoured => Some(1.0),
        Conditions::Ignored | Conditions::Refused | Conditions::Racing => Some(0.0),
        Conditions::Unknown => None,
    }
}

fn say(store: &str, probe: &Probe) {
    tracing::info!(
        store,
        conditional_writes = probe.conditions.name(),
        list_after_put = probe.list_after_put,
        delete = probe.delete,
        "object store probed"
    );
    if !probe.list_after_put {
        tracing::warn!(
            store,
            "the object store did not list an object that was just put: two clusters on one prefix may not see each other\n\
             hint: `drtool store probe` says more"
        );
    }
    if let Some(error) = &probe.delete_error {
        tracing::warn!(
            store,
            "this node may not delete in the object store, so snapshots stay until somebody else deletes them: {error}\n\
             hint: let `drtool retention show --apply` do it with keys that may"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_was_not_found_out_is_looked_at_again_and_not_measured() {
        assert_eq!(known(Conditions::Unknown), None);
        assert_eq!(known(Conditions::Honoured), Some(1.0));
        assert_eq!(known(Conditions::Ignored), Some(0.0));
        assert_eq!(known(Conditions::Refused), Some(0.0));
        assert_eq!(known(Conditions::Racing), Some(0.0));
    }
}
