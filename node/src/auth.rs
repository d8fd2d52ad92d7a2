//! API keys: who may call the API, from a file of hashes.
//!
//! Promises
//! - a key is 256 random bits, printed once when it is made; only its SHA-256 is kept;
//! - looking a key up takes the same time whichever key it is and whether it is known;
//! - a change of the file counts within about a second, without a restart; a file that has become
//!   unreadable changes nothing and is logged once;
//! - the file is replaced as a whole, readable by its owner only, one writer at a time.
//!
//! Does not: say what a role may do (that is [`crate::api::access`]), or guard the peer port (that is
//! the cluster token).
//!
//! Where to go next: `auth/file.rs` for the file, `auth/command.rs` for `confman key`.

mod command;
mod error;
mod file;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

pub use command::KeyArgs;
pub(crate) use command::run;
pub use error::KeysError;
pub use file::{KeyRecord, create_key, list_keys, revoke_key};

pub use crate::api::access::Role;
use crate::api::access::{Identity, Keyring};
use file::{Stamp, StoredKey};

/// How often, at most, the file is looked at for a change.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);

/// The keys of a file, kept up to date with it.
pub struct Keys {
    path: PathBuf,
    current: ArcSwap<Vec<StoredKey>>,
    watched: Mutex<Watched>,
}

struct Watched {
    looked_at: Instant,
    stamp: Option<Stamp>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Keys {
    /// Reads the keys file.
    ///
    /// # Errors
    /// Names the file, what is wrong with it and the remedy.
    pub fn load(path: &Path) -> Result<Self, KeysError> {
        let (keys, stamp) = file::read_with_stamp(path)?;
        if keys.is_empty() {
            tracing::warn!(path = %path.display(), "the keys file holds no key: nobody can use the API");
        }
        Ok(Self {
            path: path.to_owned(),
            current: ArcSwap::from_pointee(keys),
            watched: Mutex::new(Watched {
                looked_at: Instant::now(),
                stamp: Some(stamp),
            }),
        })
    }

    /// Whose key it is.
    #[must_use]
    pub fn authenticate(&self, bearer: &str) -> Option<Identity> {
        self.authenticate_at(bearer, Instant::now())
    }

    /// [`Keys::authenticate`] at a time given by argument.
    fn authenticate_at(&self, bearer: &str, now: Instant) -> Option<Identity> {
        self.refresh(now);
        find(&self.current.load(), bearer)
    }

    /// Reads the file again if it has changed. One caller looks, the others go on with what is there.
    fn refresh(&self, now: Instant) {
        let Some(mut watched) = self.watched.try_lock() else {
            return;
        };
        if now.saturating_duration_since(watched.looked_at) < RELOAD_INTERVAL {
            return;
        }
        watched.looked_at = now;
        let stamp = file::stamp(&self.path);
        if stamp == watched.stamp {
            return;
        }
        match file::read_with_stamp(&self.path) {
            Ok((keys, stamp)) => {
                tracing::info!(path = %self.path.display(), keys = keys.len(), "read the API keys again");
                watched.stamp = Some(stamp);
                self.current.store(Arc::new(keys));
            }
            // Not the fault of the caller whose request happened to find it: the keys known so far stay.
            Err(error) => {
                tracing::error!(
                    path = %self.path.display(), error = error.problem(), hint = error.hint(),
                    "the API keys have changed and cannot be read: those known before stay in force"
                );
                watched.stamp = stamp;
            }
        }
    }
}

impl Keyring for Keys {
    fn is_open(&self) -> bool {
        false
    }

    fn authenticate(&self, key: &str) -> Option<Identity> {
        Keys::authenticate(self, key)
    }
}

/// The holder of the key, by comparing with every one of them to the end.
fn find(keys: &[StoredKey], bearer: &str) -> Option<Identity> {
    let hash = sha256(bearer);
    let mut found = 0_u64;
    for (place, key) in (1_u64..).zip(keys) {
        found.conditional_assign(&place, key.hash.ct_eq(&hash));
    }
    let place = usize::try_from(found).ok()?.checked_sub(1)?;
    keys.get(place).map(|key| Identity {
        name: key.name.clone(),
        role: key.role,
    })
}

fn sha256(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests;
