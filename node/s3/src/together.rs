//! Lets those who create one object at once meet before any of them writes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// How long one waits that nobody joins.
const ALONE: Duration = Duration::from_millis(300);

type Name = (String, String);

/// Creates that have looked and not written yet, by bucket and key.
#[derive(Debug, Default)]
pub(crate) struct Together(Mutex<HashMap<Name, Met>>);

#[derive(Debug, Default)]
struct Met {
    here: usize,
    joined: Arc<Notify>,
}

impl Together {
    /// Waits until another one is here too, and not for long.
    pub(crate) async fn wait(&self, bucket: &str, key: &str) {
        let name = (bucket.to_owned(), key.to_owned());
        let (joined, alone) = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let met = all.entry(name.clone()).or_default();
            met.here += 1;
            if met.here > 1 {
                met.joined.notify_waiters();
            }
            (Arc::clone(&met.joined).notified_owned(), met.here == 1)
        };
        if alone {
            // Nobody has joined, then: that is an answer too.
            let _ = tokio::time::timeout(ALONE, joined).await;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(met) = all.get_mut(&name) {
            met.here -= 1;
            if met.here == 0 {
                all.remove(&name);
            }
        }
    }
}
