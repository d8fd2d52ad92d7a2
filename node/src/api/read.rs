//! Reads: how fresh, from which replica, off the runtime's threads.
//!
//! Promises: the position that an answer names was applied before the read began, so that a client that carries it on
//! never goes back; what may scan runs where blocking is allowed.

use std::sync::Arc;

use confman_client::wire::ProblemKind;
use confman_store::StateHandle;
use confman_store::StoreError;
use futures::future::try_join_all;
use http::HeaderMap;

use super::Api;
use super::backend::GroupBackend;
use super::backend::ReadError;
use super::backend::ReadMode;
use super::failure::Failure;
use super::headers;

/// Waits until `group` is as fresh as the headers ask.
pub(crate) async fn barrier(
    api: &Api,
    headers: &HeaderMap,
    group: &Arc<dyn GroupBackend>,
) -> Result<(), Failure> {
    let mode = headers::read_mode(headers, api.backend.incarnation())?;
    group.barrier(&mode).await.map_err(failure)
}

/// Waits until all `groups` are as fresh as the headers ask. A token names a position in one group, so that reading
/// one's writes across several asks for the stronger mode.
pub(crate) async fn barrier_all(
    api: &Api,
    headers: &HeaderMap,
    groups: &[Arc<dyn GroupBackend>],
) -> Result<(), Failure> {
    let mut mode = headers::read_mode(headers, api.backend.incarnation())?;
    if groups.len() > 1 && matches!(mode, ReadMode::ReadYourWrites(_)) {
        mode = ReadMode::Linearizable;
    }
    try_join_all(groups.iter().map(|group| group.barrier(&mode)))
        .await
        .map_err(failure)?;
    Ok(())
}

/// Reads that may take a while.
pub(crate) async fn blocking<T: Send + 'static>(
    state: &StateHandle,
    read: impl FnOnce(&StateHandle) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Failure> {
    let state = state.clone();
    match tokio::task::spawn_blocking(move || read(&state)).await {
        Ok(result) => result.map_err(Failure::internal),
        Err(e) => Err(Failure::internal(e)),
    }
}

pub(crate) fn failure(error: ReadError) -> Failure {
    match error {
        ReadError::NoLeader => Failure::new(ProblemKind::NoLeader, "the group has no leader now, so no read can be confirmed")
            .hint("X-Confman-Consistency: eventual reads what this node has")
            .retry_after(1),
        ReadError::Timeout => Failure::new(ProblemKind::ReadTimeout, "this node did not catch up in time")
            .hint("X-Confman-Consistency: eventual reads what this node has"),
        ReadError::OldIncarnation { token, current } => Failure::new(
            ProblemKind::OldIncarnation,
            format!("the version token is of incarnation {token}, the cluster is in incarnation {current}"),
        )
        .hint(if token > current {
            "the token is of a later life of the cluster than this node: ask another node"
        } else {
            "the cluster was recovered since: drop the token and read everything anew"
        }),
        ReadError::Unavailable(detail) => Failure::busy(detail),
    }
}
