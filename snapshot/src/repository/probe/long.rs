//! The long probe: its plan, its checks one after the other, its end.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path as ObjectPath;
use object_store::{
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, PutResult,
};
use serde::Serialize;

use crate::error::{Kind, StoreError};
use crate::paths;
use crate::repository::Repository;

/// A probe that was killed left its objects: after this many microseconds they belong to nobody.
const LEFT_AGE_US: i64 = 3_600_000_000;
/// More objects than any number of probes leaves.
const LISTED_MAX: usize = 100_000;

/// How much a probe does.
#[derive(Debug, Clone)]
pub struct ProbePlan {
    /// Bytes of the large object; none without that check.
    pub big_bytes: Option<u64>,
    /// Rounds of small requests that are timed.
    pub rounds: usize,
    /// Writers that race for one name.
    pub racers: usize,
    /// The same store, opened so that it deletes in bulk.
    pub bulk: Option<Repository>,
    /// The same store, opened so that it sends checksums in headers.
    pub checksums: Option<Repository>,
    /// The same again, opened so that bodies are not signed, and altered on their way.
    pub altered: Option<Repository>,
}

impl Default for ProbePlan {
    fn default() -> Self {
        Self {
            big_bytes: Some(64 << 20),
            rounds: 20,
            racers: 8,
            bulk: None,
            checksums: None,
            altered: None,
        }
    }
}

/// What one check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// The store does not have it, and says so.
    NotOffered,
    /// It does otherwise than it should; nothing here depends on it.
    Limited,
    /// It takes what it is sent, and does not look at it; nothing here depends on it.
    Ignored,
    /// It does not work.
    Failed,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Its stable name.
    pub name: &'static str,
    /// What it found.
    pub verdict: Verdict,
    /// Whether a store without it cannot be used.
    pub required: bool,
    /// What was seen.
    pub found: String,
}

/// How long small requests of one kind took, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// What was asked.
    pub operation: &'static str,
    /// How often.
    pub count: usize,
    /// Half took no longer.
    pub median_ms: f64,
    /// Nine in ten took no longer.
    pub p90_ms: f64,
    /// None took longer.
    pub max_ms: f64,
}

/// Whether the store can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suitability {
    /// It does all that was asked.
    Suitable,
    /// It does all that is needed, and some things otherwise than they should be.
    SuitableWithLimits,
    /// Something that is needed does not work.
    Unsuitable,
    /// The probe was stopped before its end.
    Unknown,
}

/// What a long probe learned.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeReport {
    /// The store, without secrets.
    pub store: String,
    /// Whether it can be used.
    pub suitability: Suitability,
    /// The checks, in the order that they were made.
    pub checks: Vec<Check>,
    /// Times of small requests.
    pub latencies: Vec<Latency>,
    /// Bytes a second of one large upload.
    pub upload_bytes_per_second: Option<f64>,
    /// Bytes a second of reading it back.
    pub download_bytes_per_second: Option<f64>,
    /// How far the store's clock is ahead of ours, in seconds; precise to about one.
    pub clock_ahead_seconds: Option<f64>,
    /// Objects of this probe that could not be deleted.
    pub left_behind: Vec<String>,
    /// Objects that an earlier probe had left, and that this one deleted.
    pub swept: usize,
}

/// A probe that is under way.
#[derive(Debug)]
pub struct LongProbe {
    pub(super) repository: Repository,
    pub(super) plan: ProbePlan,
    nonce: u64,
    made: Mutex<BTreeSet<String>>,
    stop: AtomicBool,
    pub(super) report: Mutex<ProbeReport>,
}

/// What a check found, before it has its name.
pub(super) type Found = Result<(Verdict, String), StoreError>;

impl LongProbe {
    /// A probe of this store. Nothing is asked of it yet.
    pub fn new(repository: &Repository, plan: ProbePlan) -> Self {
        let report = ProbeReport {
            store: repository.url().to_owned(),
            suitability: Suitability::Unknown,
            checks: Vec::new(),
            latencies: Vec::new(),
            upload_bytes_per_second: None,
            download_bytes_per_second: None,
            clock_ahead_seconds: None,
            left_behind: Vec::new(),
            swept: 0,
        };
        Self {
            repository: repository.clone(),
            plan,
            nonce: rand::random(),
            made: Mutex::default(),
            stop: AtomicBool::new(false),
            report: Mutex::new(report),
        }
    }

    /// Lets the probe come to its end after the request that is under way. It cleans up.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Makes all checks, calling `next` with the name of each, and cleans up. An error when not even a small object could be put
    /// and read back: nothing else would mean anything then.
    pub async fn run(&self, mut next: impl FnMut(&'static str)) -> Result<ProbeReport, StoreError> {
        next("read-after-write");
        let first = self.read_after_write().await;
        if let Err(error) = first {
            self.clean().await;
            return Err(error);
        }
        self.took("read-after-write", true, first);
        macro_rules! checks {
            ($($name:literal $required:literal $check:ident)*) => {$(
                if !self.is_stopped() {
                    next($name);
                    let found = self.$check().await;
                    self.took($name, $required, found);
                }
            )*};
        }
        checks! {
            "list-after-write" true list_after_write
            "missing-object" true missing_object
            "range-reads" true range_reads
            "suffix-read" false suffix_read
            "create-if-absent" false create_twice
            "create-race" false create_race
            "stale-if-match" false stale_if_match
            "if-match-on-missing" false if_match_on_missing
            "multipart-complete" true multipart_complete
            "multipart-abort" false multipart_abort
            "delete" false delete_tells_the_truth
            "bulk-delete" false bulk_delete
            "checksum-headers" false checksum_headers
            "big-object" true big_object
            "clock" false clock
            "latency" false latency
        }
        let stopped = self.is_stopped();
        next("clean up");
        // What others left is in nobody's way: not worth an error.
        let swept = self.sweep().await.unwrap_or_default();
        self.clean().await;
        let mut report = self.lock().clone();
        report.swept = swept;
        report.suitability = if stopped {
            Suitability::Unknown
        } else {
            judge(&report.checks)
        };
        Ok(report)
    }

    fn took(&self, name: &'static str, required: bool, found: Found) {
        let (verdict, found) = match found {
            Ok(found) => found,
            Err(error) => (Verdict::Failed, error.to_string().replace('\n', "; ")),
        };
        self.lock().checks.push(Check {
            name,
            verdict,
            required,
            found,
        });
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, ProbeReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The full path of an object of this probe, written down before anything is put there.
    pub(super) fn object(&self, name: &str) -> Result<(String, ObjectPath), StoreError> {
        let object = paths::probe_part(self.nonce, name);
        let path = self.repository.path(&object)?;
        self.made
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(object.clone());
        Ok((object, path))
    }

    pub(super) fn store(&self) -> Arc<dyn ObjectStore> {
        self.repository.inner.slot.get()
    }

    /// One request, whose error is still the store's own.
    pub(super) async fn ask<T>(
        &self,
        operation: &'static str,
        object: &str,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<object_store::Result<T>, StoreError> {
        let time = self.repository.inner.options.transfer_try;
        self.repository
            .once_raw(operation, object, time, request)
            .await
    }

    /// One request that must not fail.
    pub(super) async fn must<T>(
        &self,
        operation: &'static str,
        object: &str,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, StoreError> {
        self.ask(operation, object, request)
            .await?
            .map_err(|error| self.repository.classify(operation, object, &error))
    }

    pub(super) async fn put(&self, name: &str, content: &Bytes) -> Result<PutResult, StoreError> {
        let (object, path) = self.object(name)?;
        let store = self.store();
        let payload = PutPayload::from_bytes(content.clone());
        self.must("put", &object, store.put(&path, payload)).await
    }

    /// A put under a condition; the inner error is what the store said to it.
    pub(super) async fn put_if(
        &self,
        name: &str,
        content: &Bytes,
        mode: PutMode,
    ) -> Result<object_store::Result<PutResult>, StoreError> {
        let (object, path) = self.object(name)?;
        let store = self.store();
        let options = PutOptions {
            mode,
            ..PutOptions::default()
        };
        let payload = PutPayload::from_bytes(content.clone());
        self.ask("put", &object, store.put_opts(&path, payload, options))
            .await
    }

    pub(super) async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        let (object, path) = self.object(name)?;
        let store = self.store();
        let read = async { store.get(&path).await?.bytes().await };
        self.must("get", &object, read).await
    }

    /// What the store says of an object; none if it says that there is none.
    pub(super) async fn head(&self, name: &str) -> Result<Option<ObjectMeta>, StoreError> {
        let (object, path) = self.object(name)?;
        let store = self.store();
        match self.must("head", &object, store.head(&path)).await {
            Ok(meta) => Ok(Some(meta)),
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The objects of this probe that a listing shows.
    pub(super) async fn listed(&self) -> Result<BTreeSet<String>, StoreError> {
        let mine = paths::probe_part(self.nonce, "");
        let mut found = BTreeSet::new();
        self.repository
            .list(paths::PROBES, |object, _| {
                if object.starts_with(&mine) {
                    found.insert(object.to_owned());
                }
            })
            .await?;
        Ok(found)
    }

    pub(super) fn name_of(&self, name: &str) -> String {
        paths::probe_part(self.nonce, name)
    }

    /// Deletes everything that this probe made.
    async fn clean(&self) {
        let made: Vec<String> = {
            let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            made.iter().cloned().collect()
        };
        let mut left = Vec::new();
        for object in made {
            let gone = match self.repository.delete(&object).await {
                // A store may say yes and do nothing.
                Ok(()) => match self.repository.path(&object) {
                    Ok(path) => {
                        let store = self.store();
                        let seen = self.must("head", &object, store.head(&path)).await;
                        seen.is_err_and(|error| error.kind == Kind::NotFound)
                    }
                    Err(_) => false,
                },
                Err(_) => false,
            };
            if !gone {
                left.push(object);
            }
        }
        self.lock().left_behind = left;
    }

    /// Deletes what killed probes left an hour ago or more, by the store's own clock; says how many objects that were.
    async fn sweep(&self) -> Result<usize, StoreError> {
        // The store's own time, so that our clock does not matter.
        let (object, path) = self.object("sweep")?;
        self.put("sweep", &Bytes::from_static(b"now")).await?;
        let store = self.store();
        let now = self.must("head", &object, store.head(&path)).await?;
        let now_us = now.last_modified.timestamp_micros();
        let folder = self.repository.path(paths::PROBES)?;
        let mut listed = store.list(Some(&folder)).take(LISTED_MAX);
        let mut old = Vec::new();
        while let Some(meta) = self.must("list", paths::PROBES, listed.try_next()).await? {
            let age_us = now_us.saturating_sub(meta.last_modified.timestamp_micros());
            let object = self.repository.relative(&meta.location).unwrap_or_default();
            if paths::is_probe(object) && age_us > LEFT_AGE_US {
                old.push(object.to_owned());
            }
        }
        for object in &old {
            self.repository.delete(object).await?;
        }
        Ok(old.len())
    }
}

fn judge(checks: &[Check]) -> Suitability {
    let bad = |check: &&Check| check.verdict != Verdict::Good;
    if checks.iter().filter(bad).any(|check| check.required) {
        Suitability::Unsuitable
    } else if checks.iter().any(|check| bad(&check)) {
        Suitability::SuitableWithLimits
    } else {
        Suitability::Suitable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_unsuitable_only_when_something_needed_does_not_work() {
        let check = |required, verdict| Check {
            name: "x",
            verdict,
            required,
            found: String::new(),
        };
        let good = check(true, Verdict::Good);
        assert_eq!(judge(std::slice::from_ref(&good)), Suitability::Suitable);
        for verdict in [
            Verdict::NotOffered,
            Verdict::Limited,
            Verdict::Ignored,
            Verdict::Failed,
        ] {
            let optional = [good.clone(), check(false, verdict)];
            assert_eq!(judge(&optional), Suitability::SuitableWithLimits);
            assert_eq!(judge(&[check(true, verdict)]), Suitability::Unsuitable);
        }
    }
}
