//! A node's own bookkeeping, proposed wherever the group's leader is: here, or over the peer
//! protocol. Clients' writes do not go this way: they are redirected, or forwarded over HTTP.

use std::sync::Arc;

use confman_store::command::{Command, Op, Outcome};
use prost::Message;
use tracing::Instrument as _;

use crate::api::backend::{Applied, ProposeError};
use crate::group::Group;
use crate::node::Node;
use crate::peer::client::{Purpose, with_deadline};
use crate::peer::{Refusal, proto};
use crate::traces::{carry, spans};

/// Bookkeeping that was not done.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ForwardError {
    /// Nobody leads the group, as far as is known here.
    #[error("{0} has no leader")]
    NoLeader(String),
    /// The leader did not confirm it; it may yet happen.
    #[error("{0}")]
    Failed(String),
    /// It was applied and refused, or the leader would not propose it at all.
    #[error("refused: {0}")]
    Refused(String),
}

impl ForwardError {
    /// One lower case word, for traces.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::NoLeader(_) => "no-leader",
            Self::Failed(_) => "failed",
            Self::Refused(_) => "refused",
        }
    }
}

/// Proposes `op` in `group` under this node's name. An outcome that refuses is an error here.
pub(crate) async fn propose(
    node: &Node,
    group: &Arc<Group>,
    op: Op,
) -> Result<Outcome, ForwardError> {
    let command = command(node, op);
    crate::agreement::check(group, &command)
        .await
        .map_err(|e| ForwardError::Refused(e.to_string()))?;
    let outcome = match group.propose_command(command.clone()).await {
        Ok(Applied { outcome, .. }) => outcome,
        Err(ProposeError::NotLeader { .. }) => {
            let leader = group
                .leader_peer()
                .filter(|l| l.info.id != node.id())
                .ok_or_else(|| ForwardError::NoLeader(group.id().to_string()))?;
            at(
                group,
                &command,
                leader.info.id,
                &leader.info.name,
                &leader.peer_addr,
            )
            .await?
        }
        Err(error) => return Err(ForwardError::Failed(error.to_string())),
    };
    done(outcome)
}

/// As [`propose`], at a leader that this node was told of.
pub(crate) async fn propose_at(
    node: &Node,
    group: &Arc<Group>,
    op: Op,
    leader: &proto::Node,
) -> Result<Outcome, ForwardError> {
    let command = command(node, op);
    done(at(group, &command, leader.id, &leader.name, &leader.peer_addr).await?)
}

fn command(node: &Node, op: Op) -> Command {
    Command {
        time_us: 0,
        actor: format!("node:{}", node.name()),
        request_id: uuid::Uuid::new_v4().to_string(),
        correlation_id: String::new(),
        idempotency_key: String::new(),
        fingerprint: bytes::Bytes::new(),
        op: Some(op),
    }
}

fn done(outcome: Outcome) -> Result<Outcome, ForwardError> {
    match outcome.as_refused() {
        Some(refused) => Err(ForwardError::Refused(refused.detail.clone())),
        None => Ok(outcome),
    }
}

async fn at(
    group: &Group,
    command: &Command,
    id: u64,
    name: &str,
    addr: &str,
) -> Result<Outcome, ForwardError> {
    let failed = |e: String| ForwardError::Failed(format!("{name} ({addr}): {e}"));
    let stub = group
        .channels()
        .stub(addr, Purpose::Control)
        .map_err(|e| failed(e.to_string()))?;
    let span = spans::peer_call("Propose", name);
    let ask = || {
        let mut stub = stub.clone();
        let request = proto::ProposeRequest {
            header: Some(group.header(id)),
            command: command.encode_to_vec(),
        };
        let mut request = with_deadline(request, group.write_timeout());
        carry::pass_on(&span, request.metadata_mut().as_mut());
        async move { stub.propose(request).await }
    };
    let answer = group
        .acquaintances()
        .call(id, addr, ask)
        .instrument(span.clone())
        .await;
    spans::peer_answered(&span, &answer);
    let reply = answer
        .map_err(|s| match Refusal::of(&s) {
            Some(Refusal::StateDiffers) => ForwardError::Refused(s.message().to_owned()),
            _ => failed(s.message().to_owned()),
        })?
        .0
        .into_inner();
    Outcome::decode(reply.outcome.as_slice()).map_err(|e| failed(format!("decode outcome: {e}")))
}
