//! What clients did and what they were told, on one clock.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::http::Token;

/// The versions of a life begin above this, times the lives before it: no version is used twice.
pub(crate) const VERSIONS_OF_A_LIFE: u64 = 1_000_000_000;

/// What an operation asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Set the key to this value, unique in the history.
    Put(String),
    /// Remove the key.
    Delete,
    /// Read the key, linearizably.
    Read,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged: the token of its log entry, and the key's version where one was told.
    Done {
        /// `X-Confman-Version`.
        token: Token,
        /// The key's new version.
        version: Option<u64>,
    },
    /// A read's answer: the value, or none for an absent key.
    Saw(Option<String>),
    /// The node said that it did not do it.
    Refused,
    /// No answer that says either; it may have happened, or may yet.
    Unknown,
}

/// One operation of one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// Unique in the history; sent as the correlation id.
    pub id: String,
    /// `namespace/key`.
    pub key: String,
    /// What it asked for.
    pub act: Act,
    /// When it was first sent, in nanoseconds of the history's clock.
    pub call: u64,
    /// When its outcome was known; meaningless when unknown.
    pub end: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// A history being recorded by many clients.
#[derive(Debug, Clone)]
pub struct Recorder {
    begin: Instant,
    ops: Arc<Mutex<Vec<Op>>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            begin: Instant::now(),
            ops: Arc::default(),
        }
    }
}

impl Recorder {
    /// Now, on the history's clock.
    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Adds an operation that has come to its end.
    pub fn record(&self, op: Op) {
        self.ops
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(op);
    }

    /// Everything recorded so far.
    #[must_use]
    pub fn ops(&self) -> Vec<Op> {
        self.ops
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How many writes were acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        let ops = self.ops.lock().unwrap_or_else(PoisonError::into_inner);
        ops.iter()
            .filter(|op| matches!(op.outcome, Outcome::Done { .. }))
            .count()
    }
}
