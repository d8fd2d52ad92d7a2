//! One Raft group on this node: proposing, reading, and what a client may be told about it.
//!
//! Promises: a command is acknowledged only after it was applied here; an unknown outcome is called
//! unknown ([`ProposeError::Timeout`]); a linearizable read on any replica is never stale, because
//! the index it waits for was proven by the leader after the read began.
//!
//! Does not: know HTTP, decide membership ([`crate::membership`]) or snapshots ([`crate::manager`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use confman_snapshot::model::GroupId;
use confman_store::command::{Command, Op};
use confman_store::types::{Member, TypeConfig};
use confman_store::{StateHandle, StateMachine, StateMachineControl};
use openraft::Instant as _;
use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, LinearizableReadError, RaftError};
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResponse;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use crate::api::backend::{
    Applied, GroupBackend, LeaderInfo, ProposeError, ReadError, ReadMode, WriteContext,
};
use crate::fence::Fence;
use crate::peer::acquaintance::Acquaintances;
use crate::peer::client::{Channels, Purpose, with_deadline};
use crate::peer::proto;
use crate::proposals::InFlight;
use crate::readindex::ReadRounds;
use crate::traces::spans;

/// A fresh leader refuses for about this long.
const RETRY_FIRST: Duration = Duration::from_millis(2);
/// A leader that has lost its quorum is not flooded by those who wait.
const RETRY_MAX: Duration = Duration::from_millis(50);
/// How long one leader is asked for its read index at least, before another look at who leads.
const ASK_WITHIN: Duration = Duration::from_secs(1);
/// And how many heartbeats long, which may be as long as a round trip: the question's own, the round's before, the round's, and a heartbeat
/// that was under way.
const ASK_WITHIN_HEARTBEATS: u32 = 4;

/// A Raft of one group.
pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// What Raft says of a command.
type Written =
    Result<ClientWriteResponse<TypeConfig>, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>;

/// What a group needs to know of its node.
#[derive(Clone)]
pub(crate) struct GroupContext {
    /// This node's id.
    pub(crate) node_id: u64,
    /// The cluster's uuid.
    pub(crate) cluster_uuid: String,
    /// The cluster's incarnation.
    pub(crate) incarnation: u64,
    /// Which of several lives of that incarnation.
    pub(crate) lineage: String,
    /// Channels to the other nodes.
    pub(crate) channels: Channels,
    /// Which process speaks for which node.
    pub(crate) acquaintances: Arc<Acquaintances>,
    /// Where each registered node is now: a node that moved keeps its id, and openraft keeps dialling
    /// the address that a replication began with.
    pub(crate) addresses: Arc<ArcSwap<BTreeMap<u64, String>>>,
    /// Whether this life may go on, by the store's word.
    pub(crate) fence: Arc<Fence>,
    /// Snapshot transfers that this node, leading, has under way in this group.
    pub(crate) transfers: Arc<AtomicUsize>,
    /// Told when a peer says that this node's id was retired, with its words.
    pub(crate) retired: tokio::sync::watch::Sender<Option<String>>,
    /// Told when a newer life of the cluster is met, with who has it.
    pub(crate) newer: tokio::sync::watch::Sender<Option<String>>,
    /// A leader that was silent for longer is not spoken of any more.
    pub(crate) leader_silence_max: Duration,
    /// How often a leader is heard.
    pub(crate) heartbeat: Duration,
    /// Bound for a write's confirmation.
    pub(crate) write_timeout: Duration,
    /// Bound for a read's guarantee.
    pub(crate) read_timeout: Duration,
}

impl GroupContext {
    /// Where `member`, node id `id`, is reached now.
    pub(crate) fn address(&self, id: u64, member: &Member) -> String {
        self.addresses
            .load()
            .get(&id)
            .unwrap_or(&member.peer_addr)
            .clone()
    }

    /// A header for a message of `group` to node id `to`: who speaks, in which life of which cluster.
    pub(crate) fn header(&self, group: &GroupId, to: u64) -> proto::Header {
        proto::Header {
            cluster_uuid: self.cluster_uuid.clone(),
            incarnation: self.incarnation,
            from_node: self.node_id,
            to_node: to,
            group: group.to_string(),
            lineage: self.lineage.clone(),
            from_boot: self.acquaintances.boot(),
            to_boot: self.acquaintances.boot_of(to),
        }
    }
}

/// A leader and where its peer listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeaderPeer {
    /// What clients are told.
    pub(crate) info: LeaderInfo,
    /// Where other nodes reach it.
    pub(crate) peer_addr: String,
}

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
    /// A leader has shown since this process began.
    led: AtomicBool,
    /// The life that this node is of is known to have begun in this group.
    begun: AtomicBool,
    /// Last time stamped by this node into a command of this group, in microseconds.
    last_stamp_us: AtomicI64,
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
            led: AtomicBool::new(false),
            begun: AtomicBool::new(begun),
            last_stamp_us: AtomicI64::new(0),
        })
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
        // Where another leads, the story goes on there.
        let span = match self.is_leader() {
            true => spans::propose(&self.id),
            false => Span::none(),
        };
        let traced = !span.is_disabled();
        let applied = self
            .propose_until_applied(command, traced)
            .instrument(span.clone())
            .await;
        let at = applied.as_ref().map(|applied| &applied.position);
        spans::proposed(&span, at.map_err(ProposeError::kind));
        applied
    }

    async fn propose_until_applied(
        &self,
        mut command: Command,
        traced: bool,
    ) -> Result<Applied, ProposeError> {
        let _counted = self.in_flight.one();
        let deadline = Instant::now() + self.context.write_timeout;
        let mut pause = RETRY_FIRST;
        if let Err(fatal) = &self.raft.metrics().borrow_watched().running_state {
            return Err(ProposeError::Unavailable(self.why_failed(fatal)));
        }
        loop {
            command.time_us = self.stamp();
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

    /// The index that a linearizable read which begins now has to wait for; asked of the leader.
    async fn read_index(&self) -> Result<u64, ReadError> {
        loop {
            if self.is_leader() {
                match self.rounds.index().await {
                    Err(ReadError::NoLeader) if !self.is_leader() => continue,
                    answer => return answer,
                }
            }
            match self.leader_peer() {
                Some(leader) if leader.info.id != self.context.node_id => {
                    match self.ask_read_index(&leader).await {
                        Ok(index) => return Ok(index),
                        Err(e) => {
                            tracing::debug!(group = %self.id, leader = %leader.info.name, "read index: {e}")
                        }
                    }
                }
                _ => {}
            }
            // An election is under way, or the leader cannot be reached: the caller bounds the wait.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The read index for another replica, given only while this node leads.
    pub(crate) async fn read_index_as_leader(&self) -> Result<u64, ReadError> {
        self.rounds.index().await
    }

    async fn ask_read_index(&self, leader: &LeaderPeer) -> Result<u64, String> {
        let stub = self
            .context
            .channels
            .stub(&leader.peer_addr, Purpose::Control)
            .map_err(|e| e.to_string())?;
        let ask = || {
            let mut stub = stub.clone();
            let request = proto::ReadIndexRequest {
                header: Some(self.header(leader.info.id)),
            };
            let within = ASK_WITHIN.max(self.context.heartbeat * ASK_WITHIN_HEARTBEATS);
            let within = within.min(self.context.read_timeout);
            async move { stub.read_index(with_deadline(request, within)).await }
        };
        let reply = self
            .context
            .acquaintances
            .call(leader.info.id, &leader.peer_addr, ask)
            .await
            .map_err(|s| s.message().to_owned())?
            .into_inner();
        Ok(reply.index)
    }

    async fn wait_applied(&self, index: u64, deadline: Instant) -> Result<(), ReadError> {
        let mut applied = self.state.applied_watch();
        match tokio::time::timeout_at(deadline, applied.wait_for(|at| *at >= index)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(stopping()),
            Err(_) => Err(ReadError::Timeout),
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

    /// A hybrid logical time: the wall clock, but never behind what the state or this node has
    /// stamped before, so that time in the log goes forward whatever the clock does.
    fn stamp(&self) -> i64 {
        let wall = now_us();
        let floor = self
            .state
            .last_time_us()
            .max(self.last_stamp_us.load(Ordering::Relaxed))
            + 1;
        let stamp = wall.max(floor);
        self.last_stamp_us.fetch_max(stamp, Ordering::Relaxed);
        stamp
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
        let (fence, within) = (&self.context.fence, self.context.write_timeout);
        if self.is_leader() {
            let held = fence.hold_within(within).await;
            held.map_err(ProposeError::Unavailable)?;
        }
        let applied = self.propose_command(command).await?;
        // The process, and with it its quorum, may have been stopped meanwhile: whether a newer life has the entry is not known here.
        match fence.hold_within(within).await {
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

/// Microseconds since the Unix epoch.
pub(crate) fn now_us() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        // A clock before 1970: the state's own time goes on from where it was.
        Err(_) => 0,
    }
}

fn leader_info(id: u64, member: &Member) -> LeaderInfo {
    LeaderInfo {
        id,
        name: member.name.clone(),
        api_url: member.api_url.clone(),
    }
}

/// What a reader is told when this node goes away under it.
pub(crate) fn stopping() -> ReadError {
    ReadError::Unavailable("this node is stopping".to_owned())
}

/// One ReadIndex round: a quorum answers a heartbeat sent after the round began. LeaseRead is not
/// used: it can be stale after a pause or a follower's restart. Afterwards the store must have said lately that this life is the newest:
/// the quorum may be one that was left behind (I13).
async fn leader_read_index(
    raft: Raft,
    fence: Arc<Fence>,
    bound: Duration,
) -> Result<u64, ReadError> {
    let asked = tokio::time::timeout(bound, raft.get_read_log_id(ReadPolicy::ReadIndex)).await;
    match asked {
        Ok(Ok((read, _applied))) => {
            let held = fence.hold().await;
            held.map(|()| read.index()).map_err(ReadError::Unavailable)
        }
        Ok(Err(RaftError::Fatal(fatal))) => Err(ReadError::Unavailable(fatal_text(&fatal))),
        // A quorum did not answer, or this node does not lead: the reader is told the same.
        Ok(Err(RaftError::APIError(
            LinearizableReadError::ForwardToLeader(_) | LinearizableReadError::QuorumNotEnough(_),
        )))
        | Err(_) => Err(ReadError::NoLeader),
    }
}

pub(crate) fn fatal_text(fatal: &Fatal<TypeConfig>) -> String {
    match fatal {
        Fatal::Stopped => "this node is stopping".to_owned(),
        Fatal::Panicked => "Raft panicked; see the log".to_owned(),
        Fatal::StorageError(e) => format!("storage failed: {e}"),
    }
}
