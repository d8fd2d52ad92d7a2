//! The index that a linearizable read waits for, as the leader proves it after the read began.

use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use tokio::time::Instant;

use super::{Group, LeaderPeer, Raft, fatal_text, stopping};
use crate::api::backend::ReadError;
use crate::fence::Fence;
use crate::peer::client::{Purpose, with_deadline};
use crate::peer::proto;

/// How long one leader is asked for its read index at least, before another look at who leads.
const ASK_WITHIN: Duration = Duration::from_secs(1);
/// And how many heartbeats long, which may be as long as a round trip: the question's own, the round's before, the round's, and a heartbeat
/// that was under way.
const ASK_WITHIN_HEARTBEATS: u32 = 4;

impl Group {
    /// The index that a linearizable read which begins now has to wait for; asked of the leader.
    pub(super) async fn read_index(&self) -> Result<u64, ReadError> {
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
            .0
            .into_inner();
        Ok(reply.index)
    }

    pub(super) async fn wait_applied(
        &self,
        index: u64,
        deadline: Instant,
    ) -> Result<(), ReadError> {
        let mut applied = self.state.applied_watch();
        match tokio::time::timeout_at(deadline, applied.wait_for(|at| *at >= index)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(stopping()),
            Err(_) => Err(ReadError::Timeout),
        }
    }
}

/// One ReadIndex round: a quorum answers a heartbeat sent after the round began. LeaseRead is not
/// used: it can be stale after a pause or a follower's restart. Afterwards the store must have said lately that this life is the newest:
/// the quorum may be one that was left behind (I13).
pub(super) async fn leader_read_index(
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
