//! Asks the store who owns its prefix, in bounded time. The answer is a fact, whatever it is.

use std::time::Duration;

use confman_snapshot::Repository;
use tokio::time::timeout;

use crate::facts::StoreFacts;

/// Which clusters the store knows. `None` for a node without a store; never longer than `limit`.
pub async fn ask_store(repository: Option<&Repository>, limit: Duration) -> StoreFacts {
    let Some(repository) = repository else {
        return StoreFacts::Off;
    };
    match timeout(limit, repository.list_clusters()).await {
        Ok(Ok(objects)) => StoreFacts::Reached {
            clusters: objects.into_iter().map(|o| o.cluster).collect(),
        },
        Ok(Err(error)) => StoreFacts::Unreachable {
            why: error.to_string(),
        },
        Err(_) => StoreFacts::Unreachable {
            why: format!("no answer within {limit:?}"),
        },
    }
}
