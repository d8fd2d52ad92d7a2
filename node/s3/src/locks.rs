//! One lock per object name, there only while somebody holds or awaits it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

type Name = (String, String);

/// Locks by bucket and key.
#[derive(Debug, Default)]
pub(crate) struct KeyLocks {
    locks: Mutex<HashMap<Name, Weak<AsyncMutex<()>>>>,
}

impl KeyLocks {
    /// Waits until nobody else writes this object.
    pub(crate) async fn lock(&self, bucket: &str, key: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            // Locks that nobody holds any more go when the table has grown.
            if locks.len() >= 1024 {
                locks.retain(|_, lock| lock.strong_count() > 0);
            }
            let slot = locks
                .entry((bucket.to_owned(), key.to_owned()))
                .or_default();
            match slot.upgrade() {
                Some(lock) => lock,
                None => {
                    let lock = Arc::new(AsyncMutex::new(()));
                    *slot = Arc::downgrade(&lock);
                    lock
                }
            }
        };
        lock.lock_owned().await
    }
}
