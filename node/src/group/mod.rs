//! One Raft group on this node: proposing, reading, and what a client may be told about it.
//!
//! Promises: a command is acknowledged only after it was applied here; an unknown outcome is called
//! unknown ([`ProposeError::Timeout`]); a linearizable read on any replica is never stale, because
//! the index it waits for was proven by the leader after the read began.
//!
//! Does not: know HTTP, decide membership ([`crate::membership`]) or snapshots ([`crate::manager`]).

mod context;
mod hand_over;
mod reads;
mod time;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use confman_snapshot::model::GroupId;
use confman_store::command::{Command, Op};
use confman_store::types::{Member, TypeConfig};
use confman_store::{StateHandle, StateMachine, StateMachineControl};
use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, RaftError};
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResponse;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use crate::api::backend::{
    Applied, GroupBackend, LeaderInfo, ProposeError, ReadError, ReadMode, WriteContext,
};
use crate::peer::acquaintance::Acquaintances;
use crate::peer::client::Channels;
use crate::peer::proto;
use crate::proposals::InFlight;
use crate::readindex::ReadRounds;
use crate::traces::spans;

pub(crate) use self::context::{GroupContext, LeaderPeer};
use self::reads::leader_read_index;
use self::time::GroupTime;

/// A fresh leader refuses for about this long.
const RETRY_FIRST: Duration = Duration::from_millis(2);
/// A leader that has lost its quorum is not flooded by those who wait.
const RETRY_MAX: Duration = Duration::from_millis(50);

/// A Raft of one group.
pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// What Raft says of a command.
type Written =
    Result<ClientWriteResponse<TypeConfig>, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>;

/// One group on this node.
pub(crate) struct Group {
    id: GroupId,
    raft: Raft,
    state: StateHandle,
    context: GroupContext,
    control: StateMachineControl,
    rounds: ReadRounds,
    /// When a leader of this group was last heard of, by the peer service.
    heard: Mutex<Option<Instant>>,
    /// Where the log ended when this process opened it; 0 without any.
    log_end: AtomicU64,
    /// A leader has shown since this process began.
    led: AtomicBool,
    /// The life that this node is of is known to have begun in this group.
    begun: AtomicBool,
    time: GroupTime,
    in_flight: InFlight,
}

impl Group {
    /// Wraps a running Raft of group `id`.
    pub(crate) fn new(
        id: GroupId,
        raft: Raft,
        state: StateHandle,
        control: StateMachineControl,
        context: GroupContext,
    ) -> Arc<Self> {
        let rounds = {
            let raft = raft.clone();
            let (bound, fence) = (context.read_timeout, Arc::clone(&context.fence));
            ReadRounds::start(move || leader_read_index(raft.clone(), Arc::clone(&fence), bound))
        };
        // The first life begins with the cluster's birth.
        let begun = context.incarnation <= 1;
        Arc::new(Self {
            in_flight: InFlight::new(&id),
            id,
            raft,
            state,
            context,
            control,
            rounds,
            heard: Mutex::new(None),
            log_end: AtomicU64::new(0),
            led: AtomicBool::new(false),
            begun: AtomicBool::new(begun),
            time: GroupTime::new(),
        })
    }

    /// Notes where the log ended that was opened.
    pub(crate) fn begins_behind(&self, log_end: Option<u64>) {
        self.log_end.store(log_end.unwrap_or(0), Ordering::Relaxed);
    }

    /// Whether the state knows all that this directory's log held when it was opened: a state is made durable less often than the log,
    /// and what is not known to be committed is not applied before there is a leader.
    pub(crate) fn has_applied_its_log(&self) -> bool {
        let applied = self.state.applied().map_or(0, |position| position.index);
        applied >= self.log_end.load(Ordering::Relaxed)
    }

    /// The group's id.
    pub(crate) fn id(&self) -> &GroupId {
        &self.id
    }

    /// All reads of the replica's state.
    pub(crate) fn state(&self) -> &StateHandle {
        &self.state
    }

    /// What may be told to its state machine.
    pub(crate) fn control(&self) -> &StateMachineControl {
        &self.control
    }

    /// The Raft itself, for the rooms that steer it.
    pub(crate) fn raft(&self) -> &Raft {
        &self.raft
    }

    /// This node's id.
    pub(crate) fn node_id(&self) -> u64 {
        self.context.node_id
    }

    /// The bound for a write's confirmation.
    pub(crate) fn write_timeout(&self) -> Duration {
        self.context.write_timeout
    }

    /// A copy of Raft's own account of itself.
    pub(crate) fn metrics(&self) -> openraft::RaftMetrics<TypeConfig> {
        self.raft.metrics().borrow_watched().clone()
    }

    /// Why this replica cannot go on: what its state says failed, else what Raft says.
    pub(crate) fn why_failed(&self, fatal: &Fatal<TypeConfig>) -> String {
        match (fatal, self.state().failure()) {
            (Fatal::StorageError(_), Some(first)) => format!("storage failed: {first}"),
            _ => fatal_text(fatal),
        }
    }

    /// True while this node believes that it leads.
    pub(crate) fn is_leader(&self) -> bool {
        self.raft.metrics().borrow_watched().state.is_leader()
    }

    /// Whether this group has written down that the life this node is of has begun. Before that nothing of it is
    /// acknowledged (I13).
    pub(crate) fn has_begun(&self) -> bool {
        if self.begun.load(Ordering::Acquire) {
            return true;
        }
        let begun = match self.state.incarnation() {
            Ok(record) => record.is_some_and(|record| {
                record.incarnation == self.context.incarnation
                    && record.lineage == self.context.lineage
            }),
            Err(error) => {
                tracing::warn!(group = %self.id, "read which incarnation the group is in: {error}");
                false
            }
        };
        if begun {
            self.begun.store(true, Ordering::Release);
        }
        begun
    }

    /// Why nothing is read or written for clients while the life has not begun.
    fn unborn(&self) -> String {
        format!(
            "incarnation {} has not begun in {}\nhint: see the node's log, or /health/ready, for what it waits for",
            self.context.incarnation, self.id
        )
    }

    /// A leader of this group has just been heard.
    pub(crate) fn hear(&self) {
        *self.heard.lock() = Some(Instant::now());
    }

    /// The leader, as far as this node knows and has reason to believe.
    ///
    /// Raft remembers a leader for as long as nobody takes its place. Clients are told of it only while
    /// it shows: as a follower, something was heard from it within the longest election timeout; as the
    /// leader itself, a quorum answered within that time.
    pub(crate) fn leader_peer(&self) -> Option<LeaderPeer> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let id = metrics.current_leader?;
        let membership = metrics.membership_config.membership();
        let silence = if id == self.context.node_id {
            let alone = membership.voter_ids().all(|voter| voter == id);
            let acked = metrics.last_quorum_acked.as_ref().map(|at| at.elapsed());
            if alone { Some(Duration::ZERO) } else { acked }
        } else {
            self.heard.lock().map(|at| at.elapsed())
        };
        if silence.is_none_or(|silence| silence > self.context.leader_silence_max) {
            return None;
        }
        let member = membership.get_node(&id)?;
        self.led.store(true, Ordering::Release);
        Some(LeaderPeer {
            info: leader_info(id, member),
            peer_addr: self.context.address(id, member),
        })
    }

    /// Whether a leader shows, or has shown since this process began: then this life may have acknowledged something that
    /// nobody who collected its directories before has seen.
    pub(crate) fn lives(&self) -> bool {
        self.leader_peer().is_some() || self.led.load(Ordering::Acquire)
    }

    /// At the leader: how many more voters may go before nothing can be committed, by who answered within the longest
    /// silence that a leader is granted; none where this replica does not lead. Of a change that is under way the
    /// weaker half counts.
    pub(crate) fn failure_tolerance(&self) -> Option<i64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let acks = metrics.heartbeat.as_ref()?;
        let answers = |id: &u64| {
            *id == self.context.node_id
                || acks
                    .get(id)
                    .and_then(|at| at.as_ref().map(|at| at.elapsed()))
                    .is_some_and(|silent| silent <= self.context.leader_silence_max)
        };
        let membership = metrics.membership_config.membership();
        let spare = |voters: &BTreeSet<u64>| {
            let alive = voters.iter().filter(|id| answers(id)).count() as i64;
            alive - (voters.len() as i64 / 2 + 1)
        };
        membership.get_joint_config().iter().map(spare).min()
    }

    /// Proposes a command and waits until it is applied here; only on the leader. A fresh leader
    /// refuses for some milliseconds until its own first entry is committed: that is retried here,
    /// within the write timeout.
    pub(crate) async fn propose_command(&self, command: Command) -> Result<Applied, ProposeError> {
        let deadline = Instant::now() + self.context.write_timeout;
        self.propose_within(command, deadline).await
    }

    async fn propose_within(
        &self,
        command: Command,
        deadline: Instant,
    ) -> Result<Applied, ProposeError> {
        // Where another leads, the story goes on there.
        let span = match self.is_leader() {
            true => spans::propose(&self.id),
            false => Span::none(),
        };
        let traced = !span.is_disabled();
        let applied = self
            .propose_until_applied(command, deadline, traced)
            .instrument(span.clone())
            .await;
        let at = applied.as_ref().map(|applied| &applied.position);
        spans::proposed(&span, at.map_err(ProposeError::kind));
        applied
    }

    async fn propose_until_applied(
        &self,
        mut command: Command,
        deadline: Instant,
        traced: bool,
    ) -> Result<Applied, ProposeError> {
        let _counted = self.in_flight.one();
        let mut pause = RETRY_FIRST;
        if let Err(fatal) = &self.raft.metrics().borrow_watched().running_state {
            return Err(ProposeError::Unavailable(self.why_failed(fatal)));
        }
        loop {
            // Before it is known whether this node leads; apply makes it later than the entry before.
            command.time_us = self.now_us();
            let written =
                tokio::time::timeout_at(deadline, self.client_write(command.clone(), traced))
                    .await
                    .map_err(|_| ProposeError::Timeout)?;
            let error = match written {
                Ok(response) => {
                    return Ok(Applied {
                        position: confman_store::convert::position(&response.log_id),
                        outcome: response.data,
                    });
                }
                // Raft ended with the proposal in its hands: the others may have it.
                Err(RaftError::Fatal(_)) => return Err(ProposeError::Timeout),
                Err(RaftError::APIError(error)) => error,
            };
            match error {
                ClientWriteError::ForwardToLeader(to) => {
                    let itself = to.leader_id.is_none_or(|id| id == self.context.node_id);
                    if !(itself && self.is_leader()) {
                        let leader = self
                            .leader_peer()
                            .map(|l| l.info)
                            .filter(|l| l.id != self.context.node_id);
                        return Err(ProposeError::NotLeader { leader });
                    }
                    // Elected, but its first entry is not committed yet.
                    if Instant::now() >= deadline {
                        return Err(ProposeError::NotLeader { leader: None });
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
                // Appended by a leader that was deposed: whether it survives is not known here.
                ClientWriteError::LogEntryDiscarded(_) => return Err(ProposeError::Timeout),
                other => return Err(ProposeError::Unavailable(other.to_string())),
            }
        }
    }

    /// Raft's own, with a span up to the commit and one from there where it is `traced`.
    async fn client_write(&self, command: Command, traced: bool) -> Written {
        if !traced {
            return self.raft.client_write(command).await;
        }
        let (responder, committed, applied) = ProgressResponder::new();
        self.raft
            .client_write_ff(command, Some(responder))
            .await
            .map_err(RaftError::Fatal)?;
        // A command that Raft refuses is answered without a commit.
        let applying = match committed.instrument(spans::replicate()).await {
            Ok(_) => spans::apply(),
            Err(_) => Span::none(),
        };
        match applied.instrument(applying).await {
            Ok(answer) => answer.map_err(RaftError::APIError),
            Err(_) => Err(RaftError::Fatal(Fatal::Stopped)),
        }
    }

    /// A header for a message to `to`.
    pub(crate) fn header(&self, to: u64) -> proto::Header {
        self.context.header(&self.id, to)
    }

    /// Whether a snapshot is being sent to somebody.
    pub(crate) fn transfers_snapshot(&self) -> bool {
        self.context.transfers.load(Ordering::Acquire) > 0
    }

    /// Channels to the other nodes.
    pub(crate) fn channels(&self) -> &Channels {
        &self.context.channels
    }

    /// Which process speaks for which node.
    pub(crate) fn acquaintances(&self) -> &Arc<Acquaintances> {
        &self.context.acquaintances
    }

    /// The time of this group, in microseconds since 1970 UTC: never earlier than what its log says. What has a time there is
    /// measured by it.
    pub(crate) fn now_us(&self) -> i64 {
        let clock_us = self.acquaintances().clock().now_us();
        self.time.now_us(clock_us, self.state.last_time_us())
    }

    /// When a time of this group's was by the clocks, for those who have no other: as long ago as it is in the group's time.
    pub(crate) fn by_clock_us(&self, us: i64) -> i64 {
        let clock_us = self.acquaintances().clock().now_us();
        let now_us = self.time.now_us(clock_us, self.state.last_time_us());
        time::by_clock_us(us, now_us, clock_us)
    }

    /// How far the newest time in the log is ahead of the nodes' clocks, in microseconds.
    pub(crate) fn ahead_us(&self) -> i64 {
        time::ahead_us(self.acquaintances().clock(), self.state.last_time_us())
    }
}

#[async_trait::async_trait]
impl GroupBackend for Group {
    fn id(&self) -> &GroupId {
        &self.id
    }

    fn state(&self) -> &StateHandle {
        &self.state
    }

    fn leader(&self) -> Option<LeaderInfo> {
        self.leader_peer().map(|l| l.info)
    }

    fn is_leader(&self) -> bool {
        Group::is_leader(self)
    }

    async fn propose(&self, context: WriteContext, op: Op) -> Result<Applied, ProposeError> {
        let command = Command {
            time_us: 0,
            actor: context.actor,
            request_id: context.request_id,
            correlation_id: context.correlation_id,
            idempotency_key: context.idempotency_key.unwrap_or_default(),
            fingerprint: context.fingerprint,
            op: Some(op),
        };
        // One that does not lead says who does; the leader has to know that its life has begun.
        if self.is_leader() && !self.has_begun() {
            return Err(ProposeError::Unavailable(self.unborn()));
        }
        let fence = &self.context.fence;
        // All that follows is one write to whoever waits for it.
        let deadline = Instant::now() + self.context.write_timeout;
        if self.is_leader() {
            let held = fence.hold_until(deadline).await;
            held.map_err(ProposeError::Unavailable)?;
        }
        let applied = self.propose_within(command, deadline).await?;
        // The process, and with it its quorum, may have been stopped meanwhile: whether a newer life has the entry is not known here.
        match fence.hold_until(deadline).await {
            Ok(()) => Ok(applied),
            Err(_) => Err(ProposeError::Timeout),
        }
    }

    async fn barrier(&self, mode: &ReadMode) -> Result<(), ReadError> {
        let deadline = Instant::now() + self.context.read_timeout;
        if !matches!(mode, ReadMode::Eventual) && !self.has_begun() {
            return Err(ReadError::Unavailable(self.unborn()));
        }
        let index = match mode {
            ReadMode::Eventual => return Ok(()),
            ReadMode::ReadYourWrites(token) => {
                if token.incarnation != self.context.incarnation {
                    return Err(ReadError::OldIncarnation {
                        token: token.incarnation,
                        current: self.context.incarnation,
                    });
                }
                token.index
            }
            ReadMode::Linearizable => tokio::time::timeout_at(deadline, self.read_index())
                .await
                .map_err(|_| ReadError::NoLeader)??,
        };
        self.wait_applied(index, deadline).await
    }
}

fn leader_info(id: u64, member: &Member) -> LeaderInfo {
    LeaderInfo {
        id,
        name: member.name.clone(),
        api_url: member.api_url.clone(),
        peer_addr: member.peer_addr.clone(),
    }
}

/// What a reader is told when this node goes away under it.
pub(crate) fn stopping() -> ReadError {
    ReadError::Unavailable("this node is stopping".to_owned())
}

pub(crate) fn fatal_text(fatal: &Fatal<TypeConfig>) -> String {
    match fatal {
        Fatal::Stopped => "this node is stopping".to_owned(),
        Fatal::Panicked => "Raft panicked; see the log".to_owned(),
        Fatal::StorageError(e) => format!("storage failed: {e}"),
    }
}
