//! How far apart the clocks are, and how long small requests take.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use object_store::ObjectStoreExt as _;

use super::long::{Found, LongProbe};
use super::{Latency, Verdict};
use crate::error::StoreError;

/// S3 refuses requests whose time is off by more.
const CLOCK_REFUSED_SECONDS: f64 = 900.0;
/// Off by more is worth mending.
const CLOCK_FINE_SECONDS: f64 = 5.0;

impl LongProbe {
    /// The store's time of writing, against ours before and after. A store's times are whole seconds.
    pub(super) async fn clock(&self) -> Found {
        let before = SystemTime::now();
        self.put("clock", &Bytes::from_static(b"tick")).await?;
        let after = SystemTime::now();
        let Some(meta) = self.head("clock").await? else {
            return Ok((
                Verdict::Failed,
                "the object that was just put is not there".into(),
            ));
        };
        let seconds = |time: SystemTime| {
            time.duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs_f64()
        };
        let theirs = meta.last_modified.timestamp_micros() as f64 / 1e6;
        // Cut to whole seconds, so it may be one behind.
        let (low, high) = (seconds(before) - 1.0, seconds(after));
        let ahead = match theirs {
            theirs if theirs < low => theirs - low,
            theirs if theirs > high => theirs - high,
            _ => 0.0,
        };
        self.lock().clock_ahead_seconds = Some(ahead);
        let found = match ahead {
            0.0 => "the clocks agree within a second".to_owned(),
            ahead if ahead > 0.0 => format!("the store's clock is {ahead:.0} s ahead of ours"),
            behind => format!("the store's clock is {:.0} s behind ours", -behind),
        };
        Ok(match ahead.abs() {
            off if off > CLOCK_REFUSED_SECONDS => (Verdict::Failed, found),
            off if off > CLOCK_FINE_SECONDS => (Verdict::Limited, found),
            _ => (Verdict::Good, found),
        })
    }

    /// Small requests, one after the other.
    pub(super) async fn latency(&self) -> Found {
        let content = Bytes::from(vec![7; 4096]);
        let mut times: [(&'static str, Vec<Duration>); 5] = [
            ("put", Vec::new()),
            ("head", Vec::new()),
            ("get", Vec::new()),
            ("list", Vec::new()),
            ("delete", Vec::new()),
        ];
        for round in 0..self.plan.rounds.max(1) {
            if self.is_stopped() {
                break;
            }
            let name = format!("timed-{round}");
            for (operation, taken) in &mut times {
                let began = Instant::now();
                self.timed(operation, &name, &content).await?;
                taken.push(began.elapsed());
            }
        }
        let latencies: Vec<Latency> = times
            .into_iter()
            .filter_map(|(operation, taken)| summary(operation, taken))
            .collect();
        let slowest = latencies.iter().map(|l| l.p90_ms).fold(0.0, f64::max);
        self.lock().latencies = latencies;
        Ok((
            Verdict::Good,
            format!("nine in ten small requests of every kind take at most {slowest:.1} ms"),
        ))
    }

    async fn timed(&self, operation: &str, name: &str, content: &Bytes) -> Result<(), StoreError> {
        match operation {
            "put" => self.put(name, content).await.map(|_| ()),
            "head" => self.head(name).await.map(|_| ()),
            "get" => self.get(name).await.map(|_| ()),
            "list" => self.listed().await.map(|_| ()),
            _ => {
                let (object, path) = self.object(name)?;
                let store = self.store();
                self.must("delete", &object, store.delete(&path)).await
            }
        }
    }
}

fn summary(operation: &'static str, mut taken: Vec<Duration>) -> Option<Latency> {
    taken.sort_unstable();
    let ms = |at: usize| taken.get(at).map(|time| time.as_secs_f64() * 1e3);
    let last = taken.len().checked_sub(1)?;
    Some(Latency {
        operation,
        count: taken.len(),
        median_ms: ms(last / 2)?,
        p90_ms: ms(last * 9 / 10)?,
        max_ms: ms(last)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_summed_up_in_order() {
        let taken = (1..=11).rev().map(Duration::from_millis).collect();
        let latency = summary("put", taken).unwrap();
        assert_eq!(
            (latency.median_ms, latency.p90_ms, latency.max_ms),
            (6.0, 10.0, 11.0)
        );
        assert_eq!(summary("put", Vec::new()), None);
    }
}
