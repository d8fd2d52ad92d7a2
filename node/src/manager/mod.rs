//! The snapshot manager of a node.
//!
//! - [`assign`]: the leader of a group decides when a snapshot is due and gives the work to a replica,
//!   through `__meta/0`; the request of an operator, or of a replica whose disk is short of room, goes the same way. [`setbacks`]: after a failure another replica tries, later.
//! - [`work`]: the replica that has the work builds, uploads, verifies and records.
//! - [`truncate`]: every replica adopts what is recorded and purges its log behind it (I4).
//! - [`retire`]: the leader retires old snapshots in two steps: mark, then delete after a grace (I10);
//!   what is pinned in the store stays; [`orphans`] collects what builders that died left behind.
//! - [`drills`]: the leader of `__meta/0` says how long ago the last good drill was.
//!
//! All of it is a stateless executor: it reads committed state, acts, and proposes the result. What is
//! held in memory is only what is running right now and how long to wait after a failure. The store
//! being slow or down never touches a write (I18); building is off the runtime's threads (I5).

mod assign;
mod drills;
mod orphans;
mod retire;
mod setbacks;
mod truncate;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use confman_snapshot::Background;
use confman_snapshot::error::StoreError;
use confman_snapshot::model::GroupId;
use confman_snapshot::retention::Holds;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub(crate) use assign::{order, request};

use crate::forward::ForwardError;
use crate::node::Node;

const TURN: Duration = Duration::from_millis(300);
/// How often old snapshots are looked at.
const RETIRE_EVERY: Duration = Duration::from_secs(5);

/// What is running, and what failed lately.
pub(crate) struct Manager {
    node: Arc<Node>,
    slots: Arc<Semaphore>,
    background: Arc<Background>,
    /// The tasks of this node that run, or whose end was reported.
    taken_up: Arc<Mutex<BTreeSet<String>>>,
    /// Per group that this node leads: the failures since its last snapshot.
    failed: Mutex<BTreeMap<GroupId, setbacks::Setbacks>>,
    /// While there are such failures: when this node looked for the store last, and whether it was away.
    store_seen: Mutex<Option<(Instant, bool)>>,
    /// Per group that another node leads: when this one asked for a snapshot for the room on its disk.
    asked_for_room: Mutex<BTreeMap<GroupId, Instant>>,
    /// Per group: since when this leader streams snapshots of its own.
    local: Mutex<BTreeMap<GroupId, Instant>>,
    orphans: Mutex<orphans::Seen>,
    /// Per group: the pins that the store showed, and when.
    pinned: Mutex<BTreeMap<GroupId, (Instant, Holds)>>,
    /// When the reports of drills were listed last, while this node leads `__meta/0`.
    drills_seen: Mutex<Option<Instant>>,
}

/// Runs the manager until cancelled.
pub(crate) async fn run(node: Arc<Node>, stop: CancellationToken) {
    let slots = node.settings().snapshot.max_concurrent.max(1);
    let background = match Background::start() {
        Ok(background) => background,
        Err(error) => {
            tracing::error!(
                "start the threads of the snapshot manager: {error}; this node makes no snapshots"
            );
            return;
        }
    };
    let manager = Manager {
        node,
        slots: Arc::new(Semaphore::new(slots)),
        background: Arc::new(background),
        taken_up: Arc::default(),
        failed: Mutex::default(),
        store_seen: Mutex::default(),
        asked_for_room: Mutex::default(),
        local: Mutex::default(),
        orphans: Mutex::default(),
        pinned: Mutex::default(),
        drills_seen: Mutex::default(),
    };
    // The store may be slow: what waits for it does not hold up what does not.
    tokio::join!(manager.turns(&stop), manager.retirements(&stop));
}

/// Waits; false when cancelled meanwhile.
async fn pause(stop: &CancellationToken, pause: Duration) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(pause) => true,
    }
}

impl Manager {
    async fn turns(&self, stop: &CancellationToken) {
        while pause(stop, TURN).await {
            // Nothing of a life that has not begun goes to the store, and nothing is purged: it can still be undone.
            if !self.node.has_begun() {
                continue;
            }
            let groups: Vec<_> = self.node.groups().cloned().collect();
            if self.node.settings().snapshot.enabled {
                for group in &groups {
                    let assigned = match group.is_leader() {
                        true => self.assign_if_due(group).await,
                        false => self.ask_for_room(group).await,
                    };
                    if let Err(error) = assigned {
                        tracing::debug!(group = %group.id(), "assign a snapshot: {error}");
                    }
                }
                self.take_up_work();
            }
            for group in &groups {
                if let Err(error) = self.truncate(group).await
                    && let Some(kept_back) = self.node.may_tell(group.id(), "truncate")
                {
                    tracing::warn!(group = %group.id(), kept_back, "truncate the log, to be tried again: {error}");
                }
            }
        }
    }

    async fn retirements(&self, stop: &CancellationToken) {
        while pause(stop, RETIRE_EVERY).await {
            if !self.node.settings().snapshot.enabled || !self.node.has_begun() {
                continue;
            }
            for group in self.node.groups().filter(|g| g.is_leader()) {
                if let Err(error) = self.retire(group).await
                    && let Some(kept_back) = self.node.may_tell(group.id(), "retire")
                {
                    tracing::warn!(group = %group.id(), kept_back, "retire old snapshots, to be tried again: {error}");
                }
                if let Err(error) = self.collect_orphans(group).await
                    && let Some(kept_back) = self.node.may_tell(group.id(), "orphans")
                {
                    tracing::warn!(group = %group.id(), kept_back, "look for orphans in the store, to be tried again: {error}");
                }
            }
            self.watch_the_store().await;
            if let Err(error) = self.look_at_drills().await {
                tracing::debug!("look for reports of drills: {error}");
            }
        }
    }
}

/// Any failure inside the manager's turns; each is tried again.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One lower case word for a trace, of which there are few.
fn kind_of(failure: &Failure) -> &'static str {
    if let Some(error) = failure.downcast_ref::<StoreError>() {
        return error.kind.name();
    }
    match failure.downcast_ref::<ForwardError>() {
        Some(error) => error.kind(),
        // What OpenTelemetry calls the rest.
        None => "_OTHER",
    }
}
