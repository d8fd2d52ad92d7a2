//! The peer listener: every message is checked before it reaches Raft.
//!
//! Order of checks: token; then (cluster, incarnation), so that a node of an older life can do no
//! harm (I13); then the node id it is for, since openraft panics on a message for another id and an
//! address may have been reused; then whether the sender's id was retired; then whether the two
//! processes know each other (I14).

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use confman_snapshot::SnapshotRecord;
use confman_store::command::Command;
use futures::{Stream, StreamExt, TryStreamExt};
use prost::Message;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument as _, Span};

use super::desk::{Birth, Desk, Stage};
use super::life::{Own, escape};
use super::proto::peer_server::Peer;
use super::{Refusal, TOKEN_KEY, codec, proto};
use crate::api::backend::{GroupBackend, ProposeError};
use crate::clock::wall_us;
use crate::group::Group;
use crate::node::Node;
use crate::traces::{carry, spans};

type Reply<T> = Result<Response<T>, Status>;
type MessageStream = Pin<Box<dyn Stream<Item = Result<proto::RaftMessage, Status>> + Send>>;

/// Answers peers.
pub(crate) struct Service {
    pub(crate) desk: Arc<Desk>,
}

impl Service {
    fn admit<T>(&self, request: Request<T>) -> Result<T, Status> {
        let presented = request
            .metadata()
            .get(TOKEN_KEY)
            .map(|t| t.as_encoded_bytes().to_vec());
        if !self.desk.token_fits(presented.as_deref()) {
            metrics::counter!("confman_peer_refused_total", "code" => Refusal::Token.code())
                .increment(1);
            return Err(Refusal::Token.status("the peer token is missing or wrong; CONFMAN_CLUSTER_TOKEN is the same on every node"));
        }
        Ok(request.into_inner())
    }

    fn node(&self) -> Result<Arc<Node>, Status> {
        match &*self.desk.stage() {
            Stage::Member(node) => Ok(Arc::clone(node)),
            Stage::Fenced(life) => Err(Refusal::OtherIncarnation.status(format!(
                "node {} fenced itself in incarnation {} of {}",
                self.desk.own.name, life.cluster.incarnation, life.cluster.uuid
            ))),
            Stage::Diverged(_) => Err(Refusal::NotServing.status(format!(
                "node {} serves nothing: its state differs from the recorded one",
                self.desk.own.name
            ))),
            _ => Err(Refusal::NotServing.status(format!(
                "node {} does not run its groups yet",
                self.desk.own.name
            ))),
        }
    }

    fn group(&self, header: Option<&proto::Header>) -> Result<Arc<Group>, Status> {
        let node = self.node()?;
        check_header(&node, header).inspect_err(|status| {
            let code = Refusal::of(status).map_or("invalid", Refusal::code);
            metrics::counter!("confman_peer_refused_total", "code" => code).increment(1);
        })
    }
}

/// The group that a message is for, if its sender may send it.
fn check_header(node: &Node, header: Option<&proto::Header>) -> Result<Arc<Group>, Status> {
    let header = header.ok_or_else(|| Status::invalid_argument("a peer message without header"))?;
    let own = node.cluster();
    if header.cluster_uuid == own.uuid && header.incarnation > own.incarnation {
        node.meet_newer(header.incarnation);
    }
    Own {
        cluster: own,
        lineage: &node.identity().lineage,
        has_begun: node.has_begun(),
        node_id: node.id(),
        name: node.name(),
    }
    .check(header)?;
    if let Some(reason) = node.retired(header.from_node) {
        return Err(Refusal::Retired.status(reason));
    }
    node.meta().acquaintances().check(header)?;
    let group = header.group.parse().ok().and_then(|id| node.group(&id));
    group.ok_or_else(|| Refusal::NotServing.status(format!("no group {}", escape(&header.group))))
}

fn garbled(error: codec::CodecError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Refusal::NotServing.status(format!("Raft has stopped: {error}"))
}

fn body(bytes: Bytes) -> Response<proto::RaftMessage> {
    Response::new(proto::RaftMessage {
        header: None,
        body: bytes,
    })
}

#[tonic::async_trait]
impl Peer for Service {
    async fn hello(&self, request: Request<proto::HelloRequest>) -> Reply<proto::HelloReply> {
        let ask = self.admit(request)?;
        use proto::hello_reply::State;
        let stage = self.desk.stage();
        let mut reply = proto::HelloReply {
            node: Some(self.desk.own.clone()),
            time_us: wall_us(),
            ..Default::default()
        };
        let own = self.desk.own_in(&stage);
        if let Some(own) = &own {
            reply.node = Some(own.node.clone());
        }
        let mut held = |cluster: &confman_snapshot::model::ClusterId, state: State| {
            reply.cluster_uuid.clone_from(&cluster.uuid);
            reply.incarnation = cluster.incarnation;
            reply.state = state.into();
        };
        match &*stage {
            Stage::Unknown => {
                return Err(Refusal::NotServing.status(format!(
                    "node {} has not looked at its data directory, or it is damaged",
                    self.desk.own.name
                )));
            }
            Stage::Empty => {}
            Stage::Forming(cluster) => held(cluster, State::Forming),
            Stage::Starting(life) | Stage::Diverged(life) => {
                held(&life.cluster, State::Member);
                reply.lineage.clone_from(&life.lineage);
                reply.unborn = life.unborn;
                // It acknowledges nothing any more, so there is no living quorum that a new life could end here by mistake.
                if matches!(*stage, Stage::Diverged(_))
                    && ask.cluster_uuid == life.cluster.uuid
                    && ask.incarnation > life.cluster.incarnation
                {
                    self.desk.meet_newer(ask.incarnation);
                }
            }
            Stage::Fenced(life) => {
                held(&life.cluster, State::Fenced);
                // A new life waits for every id of the old one that has not said this. It speaks for no running process.
                reply.node = Some(proto::Node {
                    id: life.node_id,
                    boot: 0,
                    ..self.desk.own.clone()
                });
            }
            Stage::Member(node) => {
                held(node.cluster(), State::Member);
                reply.lineage.clone_from(&node.identity().lineage);
                reply.unborn = !node.has_begun();
                if ask.cluster_uuid == node.cluster().uuid
                    && ask.incarnation > node.cluster().incarnation
                {
                    node.meet_newer(ask.incarnation);
                }
                reply.lives = node.lives();
                reply.leader = node.meta().leader_peer().map(|l| proto::Node {
                    id: l.info.id,
                    name: l.info.name,
                    api_url: l.info.api_url,
                    peer_addr: l.peer_addr,
                    boot: 0,
                });
                reply.serving = true;
                reply.standings = self.desk.acquaintances.standings();
                let same = ask.cluster_uuid == node.cluster().uuid;
                let id = ask.from.as_ref().map_or(0, |n| n.id);
                if same
                    && id != 0
                    && let Some(reason) = node.retired(id)
                {
                    reply.caller_retired = true;
                    reply.caller_retired_reason = reason;
                }
            }
        }
        if let Some(own) = own
            && let Some(rejected) = self.desk.acquaintances.answer(&own, &ask).await
        {
            reply.rejected_code = rejected.refusal.code().to_owned();
            reply.rejected_reason = rejected.words;
        }
        Ok(Response::new(reply))
    }

    async fn prepare(&self, request: Request<proto::PrepareRequest>) -> Reply<proto::PrepareReply> {
        let ask = self.admit(request)?;
        self.birth(|answer| Birth::Prepare(ask, answer)).await?;
        Ok(Response::new(proto::PrepareReply {}))
    }

    async fn commence(
        &self,
        request: Request<proto::CommenceRequest>,
    ) -> Reply<proto::CommenceReply> {
        let ask = self.admit(request)?;
        self.birth(|answer| Birth::Commence(ask, answer)).await?;
        Ok(Response::new(proto::CommenceReply {}))
    }

    async fn join(&self, request: Request<proto::JoinRequest>) -> Reply<proto::JoinReply> {
        let ask = self.admit(request)?;
        let node = self.node()?;
        Ok(Response::new(crate::membership::admit(&node, ask).await?))
    }

    async fn vote(&self, request: Request<proto::RaftMessage>) -> Reply<proto::RaftMessage> {
        let ask = self.admit(request)?;
        let group = self.group(ask.header.as_ref())?;
        let request = codec::decode_vote_request(ask.body).map_err(garbled)?;
        if let Some(header) = &ask.header {
            // It has saved its vote before it asks for others'.
            let promised = group
                .acquaintances()
                .promised(&header.group, header.from_node);
            promised.lock().voted(request.vote.leader_id.term);
        }
        let response = group.raft().vote(request).await.map_err(stopped)?;
        Ok(body(codec::encode_vote_response(&response)))
    }

    async fn pre_vote(&self, request: Request<proto::RaftMessage>) -> Reply<proto::RaftMessage> {
        let ask = self.admit(request)?;
        let group = self.group(ask.header.as_ref())?;
        let request = codec::decode_vote_request(ask.body).map_err(garbled)?;
        let response = group.raft().pre_vote(request).await.map_err(stopped)?;
        Ok(body(codec::encode_vote_response(&response)))
    }

    async fn append_one(&self, request: Request<proto::RaftMessage>) -> Reply<proto::RaftMessage> {
        let ask = self.admit(request)?;
        let group = self.group(ask.header.as_ref())?;
        let request = codec::decode_append(ask.body).map_err(garbled)?;
        group.hear();
        let response = group
            .raft()
            .append_entries(request)
            .await
            .map_err(stopped)?;
        Ok(body(codec::encode_append_response(&response)))
    }

    type AppendStream = MessageStream;

    async fn append(
        &self,
        request: Request<Streaming<proto::RaftMessage>>,
    ) -> Reply<Self::AppendStream> {
        let mut incoming = self.admit(request)?;
        let desk = Arc::clone(&self.desk);
        // Answered at once: the leader opens the stream before it has anything to send.
        let answers = futures::stream::once(async move {
            let Some(first) = incoming.message().await? else {
                return Ok::<MessageStream, Status>(Box::pin(futures::stream::empty()));
            };
            let service = Service { desk };
            let group = service.group(first.header.as_ref())?;
            let node = service.node()?;
            let rest = futures::stream::iter([Ok(first)]).chain(incoming);
            Ok(append_stream(node, &group, rest))
        });
        Ok(Response::new(Box::pin(answers.try_flatten())))
    }

    async fn transfer_leader(
        &self,
        request: Request<proto::RaftMessage>,
    ) -> Reply<proto::RaftMessage> {
        let ask = self.admit(request)?;
        let group = self.group(ask.header.as_ref())?;
        let request = codec::decode_transfer(ask.body).map_err(garbled)?;
        let refused = match group
            .raft()
            .handle_transfer_leader(request)
            .await
            .map_err(stopped)?
        {
            Ok(()) => None,
            Err(refused) => Some(refused.to_string()),
        };
        Ok(body(codec::encode_transfer_result(refused)))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<proto::SnapshotMessage>>,
    ) -> Reply<proto::RaftMessage> {
        let mut parts = self.admit(request)?;
        let first = parts
            .message()
            .await?
            .ok_or_else(|| Status::invalid_argument("a snapshot without head"))?;
        let group = self.group(first.header.as_ref())?;
        let node = self.node()?;
        let Some(proto::snapshot_message::Part::Head(head)) = first.part else {
            return Err(Status::invalid_argument(
                "a snapshot that does not begin with its head",
            ));
        };
        let vote = codec::decode_vote(head.vote.into()).map_err(garbled)?;
        let meta = codec::decode_meta(head.meta.into()).map_err(garbled)?;
        let received = if head.record.is_empty() {
            crate::incoming::streamed(&node, &group, &head.file_id, head.file_bytes, parts).await?
        } else {
            let record = SnapshotRecord::decode(head.record.as_slice())
                .map_err(|e| Status::invalid_argument(format!("decode snapshot record: {e}")))?;
            record
                .check()
                .map_err(|e| Status::invalid_argument(e.to_string()))?;
            crate::incoming::by_reference(&node, &group, record).await?
        };
        let vote = crate::incoming::install(&node, &group, vote, meta, received).await?;
        Ok(body(codec::encode_vote(&vote).into()))
    }

    async fn read_index(
        &self,
        request: Request<proto::ReadIndexRequest>,
    ) -> Reply<proto::ReadIndexReply> {
        let ask = self.admit(request)?;
        let group = self.group(ask.header.as_ref())?;
        let index = group
            .read_index_as_leader()
            .await
            .map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(Response::new(proto::ReadIndexReply { index }))
    }

    async fn state_at(
        &self,
        request: Request<proto::StateAtRequest>,
    ) -> Reply<proto::StateAtReply> {
        let ask = self.admit(request)?;
        let group = self.group(ask.header.as_ref())?;
        let stats = group.state().stats();
        let applied = stats
            .applied
            .ok_or_else(|| Refusal::NotServing.status("nothing is applied yet"))?;
        Ok(Response::new(proto::StateAtReply {
            index: applied.index,
            hash: stats.state_hash.to_vec(),
        }))
    }

    async fn propose(&self, request: Request<proto::ProposeRequest>) -> Reply<proto::ProposeReply> {
        let headers = request.metadata().clone();
        let ask = self.admit(request)?;
        let span = match headers.get(carry::TRACEPARENT) {
            Some(_) => spans::peer_request("Propose"),
            // What nobody traces begins no trace here.
            None => Span::none(),
        };
        carry::adopt(&span, headers.as_ref());
        let answer = self.do_propose(ask).instrument(span.clone()).await;
        spans::peer_answered(&span, &answer);
        answer
    }
}

impl Service {
    async fn do_propose(&self, ask: proto::ProposeRequest) -> Reply<proto::ProposeReply> {
        let group = self.group(ask.header.as_ref())?;
        let command = Command::decode(ask.command.as_slice())
            .map_err(|e| Status::invalid_argument(format!("decode command: {e}")))?;
        if command.op.is_none() {
            return Err(Status::invalid_argument("a command without operation"));
        }
        crate::agreement::check(&group, &command)
            .await
            .map_err(|e| Refusal::StateDiffers.status(e.to_string()))?;
        let applied = group.propose_command(command).await.map_err(|e| match e {
            ProposeError::NotLeader { .. } => Status::failed_precondition(format!(
                "{} does not lead {}",
                self.desk.own.name,
                GroupBackend::id(&*group)
            )),
            ProposeError::Timeout => Status::deadline_exceeded(e.to_string()),
            ProposeError::Unavailable(_) => Status::unavailable(e.to_string()),
        })?;
        Ok(Response::new(proto::ProposeReply {
            term: applied.position.term,
            node: applied.position.node,
            index: applied.position.index,
            outcome: applied.outcome.encode_to_vec(),
        }))
    }
}

/// Feeds checked appends to Raft; what a check refuses ends the stream, with its status behind the
/// answers that are already due.
fn append_stream(
    node: Arc<Node>,
    group: &Group,
    incoming: impl Stream<Item = Result<proto::RaftMessage, Status>> + Send + 'static,
) -> MessageStream {
    let (refused, refusal) = oneshot::channel::<Status>();
    let mut refused = Some(refused);
    let requests = incoming
        .map(move |message| {
            let checked = message.and_then(|message| {
                check_header(&node, message.header.as_ref())?.hear();
                codec::decode_append(message.body).map_err(garbled)
            });
            match checked {
                Ok(request) => Some(request),
                Err(status) => {
                    if let Some(refused) = refused.take() {
                        let _ = refused.send(status);
                    }
                    None
                }
            }
        })
        .take_while(|request| futures::future::ready(request.is_some()))
        .filter_map(futures::future::ready);
    let answers = group
        .raft()
        .stream_append(requests)
        .map(|answer| match answer {
            Ok(result) => Ok(proto::RaftMessage {
                header: None,
                body: codec::encode_append_result(&result),
            }),
            Err(fatal) => Err(stopped(fatal)),
        });
    let ending = futures::stream::once(refusal)
        .filter_map(|status| futures::future::ready(status.ok().map(Err)));
    Box::pin(answers.chain(ending))
}

impl Service {
    async fn birth(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<(), Status>>) -> Birth,
    ) -> Result<(), Status> {
        let busy =
            || Refusal::NotServing.status(format!("node {} is not being born", self.desk.own.name));
        let (answer, answered) = oneshot::channel();
        self.desk
            .births()
            .try_send(make(answer))
            .map_err(|_| busy())?;
        answered.await.map_err(|_| busy())?
    }
}
