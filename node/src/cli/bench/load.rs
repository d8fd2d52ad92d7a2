//! The loop that makes the load, the same for every target.
//!
//! Without a rate each worker sends when its last answer has come (a closed loop). With one, each sends on a schedule
//! and a latency is counted from the moment it was due, so that a pause of the target shows in all that it delayed.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::target::Target;

/// Longest latency that is told apart from longer ones.
const LATENCY_MAX_US: u64 = 120_000_000;
/// So that a target that refuses at once is not asked a million times.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// How much of what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) writers: u32,
    pub(super) readers: u32,
    pub(super) value_bytes: usize,
    pub(super) keys: u64,
    pub(super) ramp: Duration,
    pub(super) duration: Duration,
    /// Writes a second, all writers together.
    pub(super) rate: Option<f64>,
}

/// What was measured of one kind of request.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    pub(super) latency_us: Histogram<u64>,
    pub(super) errors: BTreeMap<String, u64>,
    /// Count and longest latency of each second.
    pub(super) seconds: Vec<(u64, u64)>,
}

impl Measured {
    fn new() -> Self {
        // Three digits over this range: the bounds are constants that the library accepts, tested below.
        let latency_us = Histogram::new_with_max(LATENCY_MAX_US, 3)
            .unwrap_or_else(|_| Histogram::new_from_auto());
        Self {
            latency_us,
            errors: BTreeMap::new(),
            seconds: Vec::new(),
        }
    }

    fn ok(&mut self, at: Duration, took: Duration) {
        let us = u64::try_from(took.as_micros())
            .unwrap_or(u64::MAX)
            .clamp(1, LATENCY_MAX_US);
        self.latency_us.saturating_record(us);
        let second = at.as_secs() as usize;
        if self.seconds.len() <= second {
            self.seconds.resize(second + 1, (0, 0));
        }
        self.seconds[second].0 += 1;
        self.seconds[second].1 = self.seconds[second].1.max(us);
    }

    fn merge(&mut self, other: Self) {
        // The same bounds on both sides, so nothing is out of range.
        let _ = self.latency_us.add(&other.latency_us);
        for (what, count) in other.errors {
            *self.errors.entry(what).or_default() += count;
        }
        self.seconds
            .resize(self.seconds.len().max(other.seconds.len()), (0, 0));
        for (mine, theirs) in self.seconds.iter_mut().zip(other.seconds) {
            mine.0 += theirs.0;
            mine.1 = mine.1.max(theirs.1);
        }
    }
}

trait Auto {
    fn new_from_auto() -> Self;
}

impl Auto for Histogram<u64> {
    /// Grows with what is recorded.
    fn new_from_auto() -> Self {
        #[allow(clippy::expect_used)]
        // 3 digits are within 0..=5, the only thing that can be wrong.
        let mut histogram = Self::new(3).expect("3 significant digits are allowed");
        histogram.auto(true);
        histogram
    }
}

/// Writes and reads of a run; no run has both at zero.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) writes: Measured,
    pub(super) reads: Measured,
}

/// Writes every key once, so that reads find something.
pub(super) async fn fill(target: &Target, load: Load) -> Result<(), String> {
    const AT_ONCE: u64 = 64;
    let mut busy = JoinSet::new();
    for lane in 0..AT_ONCE.min(load.keys) {
        let target = target.clone();
        busy.spawn(async move {
            let mut number = lane;
            while number < load.keys {
                target
                    .write(number, value(load.value_bytes, number))
                    .await?;
                number += AT_ONCE;
            }
            Ok::<_, String>(())
        });
    }
    while let Some(done) = busy.join_next().await {
        done.map_err(|e| e.to_string())??;
    }
    Ok(())
}

/// Runs the load to its end.
pub(super) async fn run(target: &Target, load: Load) -> Run {
    let start = Instant::now();
    let mut writers = JoinSet::new();
    let mut readers = JoinSet::new();
    for worker in 0..load.writers {
        let begin = start + share(load.ramp, worker, load.writers);
        writers.spawn(work(
            target.clone(),
            load,
            start,
            begin,
            Kind::Write { worker },
        ));
    }
    for worker in 0..load.readers {
        let begin = start + share(load.ramp, worker, load.readers);
        readers.spawn(work(target.clone(), load, start, begin, Kind::Read));
    }
    Run {
        writes: merged(writers).await,
        reads: merged(readers).await,
    }
}

async fn merged(mut workers: JoinSet<Measured>) -> Measured {
    let mut all = Measured::new();
    while let Some(done) = workers.join_next().await {
        match done {
            Ok(measured) => all.merge(measured),
            Err(e) => {
                *all.errors
                    .entry(format!("a worker broke: {e}"))
                    .or_default() += 1
            }
        }
    }
    all
}

fn share(ramp: Duration, worker: u32, workers: u32) -> Duration {
    ramp * worker / workers.max(1)
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Write { worker: u32 },
    Read,
}

async fn work(target: Target, load: Load, start: Instant, begin: Instant, kind: Kind) -> Measured {
    let mut measured = Measured::new();
    let from = start + load.ramp;
    let until = from + load.duration;
    let interval = match (kind, load.rate) {
        (Kind::Write { .. }, Some(rate)) => {
            Some(Duration::from_secs_f64(f64::from(load.writers) / rate))
        }
        _ => None,
    };
    let mut due = begin;
    let mut count = 0u64;
    tokio::time::sleep_until(begin).await;
    loop {
        if let Some(interval) = interval {
            tokio::time::sleep_until(due).await;
            due += interval;
        }
        let sent = interval.map_or_else(Instant::now, |interval| due - interval);
        if sent >= until || Instant::now() >= until {
            return measured;
        }
        let number = rand::random_range(0..load.keys);
        let result = match kind {
            Kind::Write { worker } => {
                target
                    .write(
                        number,
                        value(load.value_bytes, (u64::from(worker) << 40) | count),
                    )
                    .await
            }
            Kind::Read => target.read(number).await,
        };
        count += 1;
        let done = Instant::now();
        if done < from {
            continue;
        }
        match result {
            Ok(()) if done <= until => measured.ok(done - from, done - sent),
            Ok(()) => {}
            Err(what) => {
                *measured.errors.entry(what).or_default() += 1;
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

/// Text of that size, different for each number, that does not compress to nothing.
fn value(bytes: usize, number: u64) -> Bytes {
    let mut text = format!("{number:016x}-").into_bytes();
    let mut state = number | 1;
    while text.len() < bytes {
        // Marsaglia's xorshift: good enough to look like nothing in particular.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.extend_from_slice(format!("{state:016x}").as_bytes());
    }
    text.truncate(bytes);
    Bytes::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_size_and_differ() {
        for bytes in [1, 16, 17, 256, 100_000] {
            assert_eq!(value(bytes, 3).len(), bytes);
        }
        assert_ne!(value(256, 1), value(256, 2));
        assert!(std::str::from_utf8(&value(1000, 9)).is_ok());
    }

    #[test]
    fn what_workers_measured_adds_up() {
        assert!(Histogram::<u64>::new_with_max(LATENCY_MAX_US, 3).is_ok());
        let mut a = Measured::new();
        a.ok(Duration::from_millis(100), Duration::from_micros(500));
        let mut b = Measured::new();
        b.ok(Duration::from_millis(2500), Duration::from_secs(1000));
        b.errors.insert("timeout".to_owned(), 2);
        a.merge(b);
        assert_eq!(a.latency_us.len(), 2);
        assert_eq!(a.seconds, [(1, 500), (0, 0), (1, LATENCY_MAX_US)]);
        assert_eq!(a.errors["timeout"], 2);
    }
}
