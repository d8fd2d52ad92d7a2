//! Until when this node may take its life for the newest of its cluster, by the store's word (I13).
//!
//! An old majority that a recovery left behind may have its store, its clients and each other, and nobody who tells it. So
//! a leader looks into the store once an interval, and acknowledges nothing, and proves no read index, unless it *began* a look
//! less than a lease ago that has ended. A life that a recovery made waits longer than that ([`Fence::waits_until`]) between its claim in
//! the store and its first entry. So whatever the old life acknowledged, it did so before.
//!
//! - The clock goes on while the machine sleeps and while the process is stopped: who wakes up looks first.
//! - A look that fails has ended (I18): a store that is down stops no write, and fences nobody. While looks fail the fence is blind: that
//!   is counted, and said.
//! - Followers look seldom. One that becomes leader looks then. One whose last look failed looks as often as a leader, so that
//!   no first write waits for a store that is known not to answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::clock::wall_us;
use crate::node::Node;
use crate::store_door::DoorError;

/// How often who leads nothing looks, unless the interval is longer.
const FOLLOWER_LOOK: Duration = Duration::from_secs(30);
/// How often it is asked whether a look is due.
const TICK_MAX: Duration = Duration::from_millis(200);
/// A look ends after the interval, and after this at the latest.
const LOOK_WITHIN_MAX: Duration = Duration::from_secs(5);
/// The lease, in tenths of the interval: until the next look begins, until that has ended, and room for a busy machine.
const LEASE_TENTHS: u32 = 24;
/// What a new life waits for, in the same: a lease, and room for clocks that go at different speeds.
const WAIT_TENTHS: u32 = 30;
/// So many looks that fail on end are no passing trouble.
const FAILED_TELL: u32 = 3;

/// How a look ended.
#[derive(Debug)]
enum Looked {
    /// The store knows no newer life.
    Well,
    /// It gave no answer: why.
    Badly(DoorError),
    /// It knows one: this.
    Over(String),
}

impl Looked {
    fn name(&self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Badly(_) => "failed",
            Self::Over(_) => "over",
        }
    }
}

/// A moment, by the clock that goes on and by the wall's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    boot_ms: u64,
    wall_us: i64,
}

/// What was seen of the store, and what may be done by it.
pub(crate) struct Fence {
    /// None where there is no store: then nothing is asked and nothing waits.
    interval: Option<Duration>,
    clock_ms: Box<dyn Fn() -> u64 + Send + Sync>,
    /// When the newest look that has ended was begun; 0 for none.
    looked_ms: AtomicU64,
    over: OnceLock<String>,
    /// Somebody waits for a look.
    wanted: Notify,
    /// A look has ended.
    ended: watch::Sender<()>,
}

impl Fence {
    /// `interval` is none where there is no store.
    pub(crate) fn new(interval: Option<Duration>) -> Arc<Self> {
        Self::by(interval, Box::new(boot_ms))
    }

    pub(crate) fn by(
        interval: Option<Duration>,
        clock_ms: Box<dyn Fn() -> u64 + Send + Sync>,
    ) -> Arc<Self> {
        Arc::new(Self {
            interval,
            clock_ms,
            looked_ms: AtomicU64::new(0),
            over: OnceLock::new(),
            wanted: Notify::new(),
            ended: watch::Sender::new(()),
        })
    }

    /// Returns as soon as this life may go on, which is at once as a rule.
    ///
    /// # Errors
    /// It is over: why.
    pub(crate) async fn hold(&self) -> Result<(), String> {
        let Some(interval) = self.interval else {
            return Ok(());
        };
        if self.holds(interval)? {
            return Ok(());
        }
        let mut ended = self.ended.subscribe();
        loop {
            if self.holds(interval)? {
                return Ok(());
            }
            self.wanted.notify_one();
            if ended.changed().await.is_err() {
                return Err("this node is stopping".to_owned());
            }
        }
    }

    /// [`Fence::hold`] that waits no longer than that.
    ///
    /// # Errors
    /// It is over, or that could not be found out: why.
    pub(crate) async fn hold_until(&self, deadline: Instant) -> Result<(), String> {
        let begun = Instant::now();
        match tokio::time::timeout_at(deadline, self.hold()).await {
            Ok(held) => held,
            Err(_) => Err(format!(
                "whether the cluster has a newer life was not found out within {:.1} s: no look into the object store has ended",
                begun.elapsed().as_secs_f64()
            )),
        }
    }

    fn holds(&self, interval: Duration) -> Result<bool, String> {
        if let Some(why) = self.over.get() {
            return Err(format!("this node is fenced: {why}"));
        }
        let looked = self.looked_ms.load(Ordering::Acquire);
        let age = (self.clock_ms)().saturating_sub(looked);
        Ok(looked != 0 && age < millis(interval * LEASE_TENTHS / 10))
    }

    fn looked(&self, begun_ms: u64) {
        self.looked_ms.store(begun_ms, Ordering::Release);
        self.ended.send_replace(());
    }

    fn end(&self, why: String) {
        // Before anybody who waits looks again.
        let _ = self.over.set(why);
        self.ended.send_replace(());
    }

    /// Now.
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            boot_ms: (self.clock_ms)(),
            wall_us: wall_us(),
        }
    }

    /// How long ago that was.
    pub(crate) fn since(&self, mark: Mark) -> Duration {
        Duration::from_millis((self.clock_ms)().saturating_sub(mark.boot_ms))
    }

    /// The claim of a new life lay in the store at that moment, at the latest. Until when the life waits before it begins, in
    /// microseconds since 1970 UTC: by then every node of the older life that reaches the store has seen the claim, or acknowledges
    /// nothing. None once that time has come, and where there is no store.
    pub(crate) fn waits_until(&self, claimed: Mark) -> Option<i64> {
        let wait = self.interval? * WAIT_TENTHS / 10;
        let wait_us = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
        (self.since(claimed) < wait).then(|| claimed.wall_us.saturating_add(wait_us))
    }

    /// Returns when the next look is due after one that was begun then.
    async fn due(&self, interval: Duration, begun_ms: u64, often: impl Fn() -> bool) {
        let tick = (interval / 5).min(TICK_MAX);
        loop {
            let pause = match often() {
                true => interval,
                false => interval.max(FOLLOWER_LOOK),
            };
            if (self.clock_ms)().saturating_sub(begun_ms) >= millis(pause) {
                return;
            }
            tokio::select! {
                () = self.wanted.notified() => return,
                () = tokio::time::sleep(tick) => {}
            }
        }
    }
}

/// Looks for as long as the node lives. Resolves with the reason when the store shows that its life is over.
pub(crate) async fn watch(node: &Arc<Node>) -> String {
    let fence = node.fence();
    let Some(interval) = fence.interval else {
        return std::future::pending().await;
    };
    let mut failed = 0;
    loop {
        let begun_ms = (fence.clock_ms)();
        let looked = look(node, interval.min(LOOK_WITHIN_MAX)).await;
        measure(&looked);
        let well = match looked {
            Looked::Over(why) => {
                fence.end(why.clone());
                return why;
            }
            Looked::Well => {
                failed = 0;
                true
            }
            Looked::Badly(error) => {
                failed += 1;
                tell_blind(node, failed, &error);
                false
            }
        };
        fence.looked(begun_ms);
        let leads = || node.groups().any(|group| group.is_leader());
        fence.due(interval, begun_ms, || !well || leads()).await;
    }
}

async fn look(node: &Node, within: Duration) -> Looked {
    match node.store().ended_by(node.identity(), within).await {
        Ok(None) => Looked::Well,
        Ok(Some(why)) => Looked::Over(why),
        Err(error) => Looked::Badly(error),
    }
}

/// A look that saw nothing counts for the lease like any other: so it must show that it saw nothing.
fn measure(looked: &Looked) {
    metrics::counter!("confman_store_fence_looks_total", "result" => looked.name()).increment(1);
    if matches!(looked, Looked::Well) {
        metrics::gauge!("confman_store_fence_look_timestamp_seconds").set(wall_us() as f64 / 1e6);
    }
}

/// Says, now and then, that nobody would learn here of a newer life by the store.
fn tell_blind(node: &Node, failed: u32, error: &DoorError) {
    if failed < FAILED_TELL {
        return;
    }
    if let Some(kept_back) = node.may_tell(node.meta().id(), "fence") {
        tracing::warn!(
            failed,
            kept_back,
            "looks into the object store for a newer life of this cluster fail; until one sees it, only other nodes can tell this one that its life is over: {error}\nhint: `drtool store probe` with the variables of this node tries every step; the node must be allowed to list the prefix"
        );
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since this machine was started, those in which it slept among them; never 0.
fn boot_ms() -> u64 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
    // Elsewhere this one goes on during sleep.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(CLOCK);
    let (secs, nanos) = (
        u64::try_from(now.tv_sec).unwrap_or_default(),
        u64::try_from(now.tv_nsec).unwrap_or_default(),
    );
    (secs * 1_000 + nanos / 1_000_000).max(1)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    /// A fence whose clock goes when it is told to.
    fn fence() -> (Arc<Fence>, Arc<AtomicU64>) {
        let clock = Arc::new(AtomicU64::new(100_000));
        let reads = Arc::clone(&clock);
        let now = Box::new(move || reads.load(Ordering::Acquire));
        (Fence::by(Some(INTERVAL), now), clock)
    }

    #[tokio::test]
    async fn i13_nothing_is_acknowledged_unless_a_look_was_begun_a_lease_ago() {
        let (fence, clock) = fence();
        assert!(fence.hold().now_or_never().is_none(), "nobody has looked");
        fence.looked(100_000);
        assert_eq!(fence.hold().now_or_never(), Some(Ok(())));
        clock.store(111_999, Ordering::Release);
        assert_eq!(fence.hold().now_or_never(), Some(Ok(())));
        clock.store(112_000, Ordering::Release);
        let mut waiting = std::pin::pin!(fence.hold());
        assert!((&mut waiting).now_or_never().is_none(), "the lease is over");
        // One that was under way when the process was frozen says nothing of now.
        fence.looked(100_000);
        assert!((&mut waiting).now_or_never().is_none());
        fence.looked(112_000);
        assert_eq!(waiting.now_or_never(), Some(Ok(())));
    }

    #[tokio::test]
    async fn i13_who_waits_for_a_look_that_finds_a_newer_life_is_told_so() {
        let (fence, _) = fence();
        let mut waiting = std::pin::pin!(fence.hold());
        assert!((&mut waiting).now_or_never().is_none());
        // A look is asked for, long before the next one would be due.
        assert!(
            fence
                .due(INTERVAL, 100_000, || false)
                .now_or_never()
                .is_some()
        );
        fence.end("the store has incarnation 2".to_owned());
        let told = waiting.now_or_never().and_then(Result::err);
        assert!(told.is_some_and(|told| told.contains("fenced: the store has incarnation 2")));
        fence.looked(100_000);
        assert!(
            matches!(fence.hold().now_or_never(), Some(Err(_))),
            "it is over for good"
        );
    }

    #[tokio::test]
    async fn i13_a_new_life_waits_for_longer_than_any_lease_that_is_older_than_its_claim() {
        let (fence, clock) = fence();
        let claimed = fence.mark();
        assert!(fence.waits_until(claimed).is_some());
        clock.store(
            100_000 + 5_000 * u64::from(LEASE_TENTHS) / 10,
            Ordering::Release,
        );
        assert!(
            fence.waits_until(claimed).is_some(),
            "as long as a lease is not longer"
        );
        clock.store(115_000, Ordering::Release);
        assert_eq!(fence.waits_until(claimed), None);
    }

    #[tokio::test]
    async fn i18_leaders_and_who_found_the_store_down_look_often_the_others_seldom() {
        let (fence, clock) = fence();
        clock.store(105_000, Ordering::Release);
        assert!(
            fence
                .due(INTERVAL, 100_000, || true)
                .now_or_never()
                .is_some()
        );
        assert!(
            fence
                .due(INTERVAL, 100_000, || false)
                .now_or_never()
                .is_none()
        );
        clock.store(130_000, Ordering::Release);
        assert!(
            fence
                .due(INTERVAL, 100_000, || false)
                .now_or_never()
                .is_some()
        );
    }

    #[test]
    fn i13_a_look_that_saw_nothing_is_counted_as_that_and_never_dated() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let shown = |looked: &Looked| {
            metrics::with_local_recorder(&recorder, || measure(looked));
            recorder.handle().render()
        };
        let failed = Looked::Badly(DoorError::Off);
        let text = shown(&failed);
        assert!(
            text.contains("confman_store_fence_looks_total{result=\"failed\"} 1"),
            "{text}"
        );
        assert!(!text.contains("look_timestamp"), "{text}");
        let text = shown(&Looked::Well);
        assert!(
            text.contains("confman_store_fence_looks_total{result=\"well\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("confman_store_fence_look_timestamp_seconds "),
            "{text}"
        );
    }

    #[tokio::test]
    async fn without_a_store_nothing_waits() {
        let fence = Fence::new(None);
        assert_eq!(fence.hold().now_or_never(), Some(Ok(())));
        assert_eq!(fence.waits_until(fence.mark()), None);
    }

    #[test]
    fn the_clock_goes() {
        let begin = boot_ms();
        std::thread::sleep(Duration::from_millis(20));
        assert!(boot_ms() >= begin + 20);
    }
}
