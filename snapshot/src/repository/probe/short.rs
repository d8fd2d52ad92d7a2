//! A short look at what a store honours, which nodes take at their start.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use futures::future::join_all;
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::Serialize;

use crate::error::{Kind, StoreError};
use crate::paths;
use crate::repository::Repository;
use crate::repository::create::names_condition;
use crate::source::ChunkSource;

/// What a store makes of "create only if absent". Nothing depends on it; where it is honoured it is one more fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conditions {
    /// Nobody has looked, or the store was busy when somebody did.
    #[default]
    Unknown,
    /// A second create fails, as it should.
    Honoured,
    /// A second create is taken: the condition is sent, and means nothing.
    Ignored,
    /// A create with a condition fails always: objects are created without one.
    Refused,
    /// A second create fails, as it should, and of several at once more than one is told that it won: the store looks first and
    /// writes then.
    Racing,
}

impl Conditions {
    /// One lower case word, for logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Honoured => "honoured",
            Self::Ignored => "ignored",
            Self::Refused => "refused",
            Self::Racing => "racing",
        }
    }

    /// What a second create of the same object came to.
    fn of_second_create<T>(second: &Result<T, StoreError>) -> Self {
        match second {
            Ok(_) => Self::Ignored,
            Err(error) if error.kind == Kind::Conflict => Self::Honoured,
            Err(error) if error.kind.is_transient() => Self::Unknown,
            Err(_) => Self::Refused,
        }
    }
}

/// What a probe of the store learned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// What becomes of "create only if absent".
    pub conditions: Conditions,
    /// Whether an object was listed as soon as it was put.
    pub list_after_put: bool,
    /// Whether deleting is allowed; snapshots stay for ever without it.
    pub delete: bool,
    /// Why deleting does not work.
    pub delete_error: Option<String>,
}

/// What is known of a store, shared by the clones of its repository.
#[derive(Debug, Default)]
pub(in crate::repository) struct Known {
    conditions: AtomicU8,
    /// Of the object of its probes: one for all of them, because where it may not be deleted each name stays for ever.
    nonce: OnceLock<u64>,
    /// Of a probe whose object could not be deleted: whether that was listed as soon as it was put. It is put under the same
    /// name from then on, and a listing that has it proves nothing more.
    left: Mutex<Option<bool>>,
    /// What a race came to whose object could not be deleted: there is no other, because each would leave one more.
    raced: Mutex<Option<Conditions>>,
}

/// How many race for one object.
const RACERS: usize = 8;

impl Known {
    const ALL: [Conditions; 5] = [
        Conditions::Unknown,
        Conditions::Honoured,
        Conditions::Ignored,
        Conditions::Refused,
        Conditions::Racing,
    ];

    pub(in crate::repository) fn get(&self) -> Conditions {
        let place = usize::from(self.conditions.load(Ordering::Relaxed));
        Self::ALL.get(place).copied().unwrap_or_default()
    }

    /// What is not known now does not make what was known unknown. A store that was seen to honour conditions did not refuse one for being
    /// one: what it refused was something else. Nor does a race that went well make up for one that did not.
    pub(in crate::repository) fn set(&self, conditions: Conditions) {
        match (self.get(), conditions) {
            (_, Conditions::Unknown)
            | (Conditions::Honoured, Conditions::Refused)
            | (Conditions::Racing, Conditions::Honoured) => return,
            _ => {}
        }
        self.conditions.store(conditions as u8, Ordering::Relaxed);
    }
}

impl Repository {
    /// What is known of this store's conditions, by the last short probe or by a write that was refused for one.
    pub fn conditions(&self) -> Conditions {
        self.inner.conditions.get()
    }

    /// Puts, reads, lists and deletes an object of its own, and where a second create of it fails has eight race for another. An error says
    /// which of put, get and list does not work; that deleting does not is part of the answer. From then on this repository and its clones create objects as the store can.
    pub async fn probe_short(&self) -> Result<Probe, StoreError> {
        let nonce = *self.inner.conditions.nonce.get_or_init(rand::random);
        let object = paths::probe(nonce);
        let content = Bytes::from(format!("confman probe {nonce:016x}\n"));
        let left = self.left_listed(&object, &content).await;
        let may_put = match self.put_probe(&object, &content).await {
            Ok(()) => true,
            // Where what was left may not be overwritten, it does instead. Whether anything may be put is not known then.
            Err(error) if left.is_some() && is_refusal(&error) => false,
            Err(error) => return Err(error),
        };
        let learned = self.learn(&object, &content, may_put).await;
        let deleted = self.delete(&object).await;
        let (alone, listed) = learned?;
        let conditions = match alone {
            Conditions::Honoured => self.race(nonce).await,
            other => other,
        };
        let list_after_put = left.unwrap_or(listed);
        self.inner.conditions.set(conditions);
        *self.left() = deleted.is_err().then_some(list_after_put);
        let delete_error = deleted.err().map(|e| e.to_string());
        Ok(Probe {
            conditions,
            list_after_put,
            delete: delete_error.is_none(),
            delete_error,
        })
    }

    fn left(&self) -> std::sync::MutexGuard<'_, Option<bool>> {
        let left = self.inner.conditions.left.lock();
        left.unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the object of an earlier probe, which could not be deleted and is still there, was listed as soon as it was put.
    async fn left_listed(&self, object: &str, content: &Bytes) -> Option<bool> {
        let listed = (*self.left())?;
        let there = self.read(object, 0..content.len() as u64).await;
        there.is_ok_and(|there| there == *content).then_some(listed)
    }

    async fn put_probe(&self, object: &str, content: &Bytes) -> Result<(), StoreError> {
        let path = self.path(object)?;
        self.small("put", object, move |store| {
            let (path, payload) = (path.clone(), PutPayload::from_bytes(content.clone()));
            async move { store.put(&path, payload).await.map(|_| ()) }
        })
        .await
    }

    async fn learn(
        &self,
        object: &str,
        content: &Bytes,
        may_put: bool,
    ) -> Result<(Conditions, bool), StoreError> {
        if self.read(object, 0..content.len() as u64).await? != content {
            return Err(self.error(
                Kind::Damaged,
                "get",
                object,
                "what came back is not what was put",
                "",
            ));
        }
        let mut second = self.create_new(object, content).await;
        // A 400 that does not say that it is about the condition may be about that moment.
        if Conditions::of_second_create(&second) == Conditions::Refused
            && !second.as_ref().is_err_and(names_condition)
        {
            second = self.create_new(object, content).await;
        }
        let conditions = match &second {
            // As it was without a condition: so it is not the condition that is refused.
            Err(error) if !may_put && error.kind == Kind::Credentials => Conditions::Unknown,
            _ => Conditions::of_second_create(&second),
        };
        let mut listed = false;
        self.list(paths::PROBES, |found, _| listed |= found == object)
            .await?;
        Ok((conditions, listed))
    }

    /// Whether of many that create one object at once a single one wins, in an object of its own that is deleted again.
    ///
    /// A name of its own for each race: what a probe that was stopped has left must not decide the next.
    async fn race(&self, nonce: u64) -> Conditions {
        let raced = || {
            let raced = self.inner.conditions.raced.lock();
            raced.unwrap_or_else(PoisonError::into_inner)
        };
        if let Some(left) = *raced() {
            return left;
        }
        let object = paths::probe_part(nonce, &format!("race-{:08x}", rand::random::<u32>()));
        let contents: Vec<Bytes> = (0..RACERS)
            .map(|racer| Bytes::from(format!("confman probe {nonce:016x}, racer {racer}\n")))
            .collect();
        let racers = contents
            .iter()
            .map(|content| self.create_new(&object, content));
        let answers = join_all(racers).await;
        let mut winners = answers
            .iter()
            .zip(&contents)
            .filter(|(answer, _)| answer.is_ok());
        let found = match (winners.next(), winners.next()) {
            (Some(_), Some(_)) => Conditions::Racing,
            (Some((_, winner)), None) => self.outcome(&object, winner).await,
            // All of the answers were lost, or each was in the way of another.
            (None, _) => Conditions::Unknown,
        };
        // Where nothing was put there is nothing to be told of it either.
        if self.delete(&object).await.is_err() && found != Conditions::Unknown {
            *raced() = Some(found);
        }
        found
    }

    /// What a race came to of which one was told that it won: somebody who was told otherwise may have written after it.
    async fn outcome(&self, object: &str, winner: &Bytes) -> Conditions {
        match self.read(object, 0..winner.len() as u64).await {
            Ok(there) if there == winner => Conditions::Honoured,
            Ok(_) => Conditions::Racing,
            Err(_) => Conditions::Unknown,
        }
    }

    /// Creates what is there already, or what others create too: one try.
    async fn create_new(&self, object: &str, content: &Bytes) -> Result<(), StoreError> {
        let path = self.path(object)?;
        let options = PutOptions {
            mode: PutMode::Create,
            ..PutOptions::default()
        };
        let store = self.inner.slot.get();
        let put = store.put_opts(&path, PutPayload::from_bytes(content.clone()), options);
        let within = self.inner.options.small_try;
        self.once("put", object, within, put).await.map(drop)
    }
}

/// Whether it says that this object may not be overwritten, or that nothing may be put.
fn is_refusal(error: &StoreError) -> bool {
    matches!(error.kind, Kind::Credentials | Kind::Conflict)
}
