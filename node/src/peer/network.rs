//! openraft's view of the peers: one network per target and purpose.
//!
//! Appends go over a bidirectional stream, so that the next batch leaves before the last one is
//! acknowledged; an answer that does not come within [`ANSWER_WITHIN`] while something is in flight
//! ends the stream (a black hole, a stopped peer). Votes, heartbeats and leader transfer are unary
//! calls with a deadline. Snapshots go by reference first: the target fetches the object from the
//! store itself; when it cannot, the leader is told to build a local one, and that is streamed.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use confman_snapshot::model::GroupId;
use confman_store::types::{LogId, Member, Snapshot, TypeConfig, Vote};
use confman_store::{SnapshotHandle, StateMachineControl};
use futures::{Stream, StreamExt};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use prost::Message;
use tonic::Status;

use super::acquaintance::Promised;
use super::client::{Purpose, Stub, with_deadline};
use super::{Refusal, codec, proto};
use crate::group::GroupContext;

/// How long a peer may take to answer an append that is in flight.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The pause after an append stream that could not be opened.
const OPEN_AGAIN: Duration = Duration::from_millis(100);
/// How long a peer may take to fetch and install a snapshot by reference, or to take a streamed one.
const INSTALL_WITHIN: Duration = Duration::from_secs(3600);
/// Bytes of a snapshot file in one message.
const PIECE_BYTES: usize = 512 * 1024;

type RpcError = RPCError<TypeConfig>;

/// Makes networks of one group.
#[derive(Clone)]
pub(crate) struct Factory {
    pub(crate) group: GroupId,
    pub(crate) context: GroupContext,
    pub(crate) control: StateMachineControl,
}

/// The network to one target.
pub(crate) struct Network {
    factory: Factory,
    target: u64,
    member: Member,
    purpose: Purpose,
    /// What the target has promised.
    promised: Promised,
}

impl RaftNetworkFactory<TypeConfig> for Factory {
    type Network = Network;

    async fn new_client(&mut self, target: u64, node: &Member) -> Network {
        self.to(target, node, Purpose::Raft)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> Network {
        self.to(target, node, Purpose::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Member) -> Network {
        self.to(target, node, Purpose::Snapshot)
    }
}

impl Factory {
    fn to(&self, target: u64, member: &Member, purpose: Purpose) -> Network {
        let acquaintances = &self.context.acquaintances;
        Network {
            promised: acquaintances.promised(&self.group.to_string(), target),
            factory: self.clone(),
            target,
            member: member.clone(),
            purpose,
        }
    }
}

impl Network {
    fn stub(&self) -> Result<Stub, RpcError> {
        self.factory
            .context
            .channels
            .stub(&self.address(), self.purpose)
            .map_err(|e| RPCError::Unreachable(Unreachable::new(&e)))
    }

    fn address(&self) -> String {
        self.factory.context.address(self.target, &self.member)
    }

    /// Sends one message, to a process that knows this one. Answers with the boot of who answered.
    async fn call<F>(
        &self,
        body: Bytes,
        mut send: impl FnMut(Stub, proto::RaftMessage) -> F,
    ) -> Result<(Bytes, u64), RpcError>
    where
        F: Future<Output = Result<tonic::Response<proto::RaftMessage>, Status>>,
    {
        let stub = self.stub()?;
        let (answer, boot) = self
            .factory
            .context
            .acquaintances
            .call(self.target, &self.address(), || {
                send(stub.clone(), self.message(body.clone()))
            })
            .await
            .map_err(|s| self.failed(&s))?;
        Ok((answer.into_inner().body, boot))
    }

    /// Makes sure that the target knows this process, before a stream to it.
    async fn introduced(&self) -> Result<(), RpcError> {
        let address = self.address();
        let acquaintances = &self.factory.context.acquaintances;
        let introduced = acquaintances.introduced(self.target, &address).await;
        introduced.map_err(|s| self.failed(&s))
    }

    /// After a stream that was refused because the target does not know this process, or is another one by now; `to_boot`
    /// is whom it was for.
    async fn introduce_again(&self, status: &Status, to_boot: u64) {
        if Refusal::of(status) == Some(Refusal::NotIntroduced) {
            let address = self.address();
            let acquaintances = &self.factory.context.acquaintances;
            let introduced = acquaintances
                .introduce(self.target, &address, to_boot)
                .await;
            if let Err(status) = introduced {
                drop(self.failed(&status));
            }
        }
    }

    /// The target holds the log of the leader of `term` up to `matched`, of which that leader had told it `committed_end`
    /// entries to be committed. What this replica has applied by now would say too much: an answer may come late, and the
    /// entries since may be a later leader's, in place of those that were acknowledged.
    fn acked(&self, term: u64, matched: Option<LogId>, committed_end: u64) {
        let mut promised = self.promised.lock();
        match matched {
            Some(matched) => promised.acked(term, matched.index, committed_end),
            None => promised.voted(term),
        }
    }

    /// Notes what an answer promised; an error when another process has taken the place of the one that gave it.
    fn count(&self, boot: u64, note: impl FnOnce()) -> Result<(), RpcError> {
        let acquaintances = &self.factory.context.acquaintances;
        acquaintances
            .count(self.target, boot, note)
            .map_err(|status| self.failed(&status))
    }

    fn header(&self) -> proto::Header {
        self.factory
            .context
            .header(&self.factory.group, self.target)
    }

    fn message(&self, body: Bytes) -> proto::RaftMessage {
        proto::RaftMessage {
            header: Some(self.header()),
            body,
        }
    }

    /// Every failure asks openraft to back off: a peer that refuses or is away is not better off
    /// for being asked again at once.
    fn failed(&self, status: &Status) -> RpcError {
        let what = match Refusal::of(status) {
            Some(refusal) => {
                if refusal == Refusal::Retired {
                    self.factory
                        .context
                        .retired
                        .send_replace(Some(status.message().to_owned()));
                }
                let context = &self.factory.context;
                if matches!(refusal, Refusal::SecondProcess | Refusal::OlderDirectory) {
                    context.acquaintances.reject(refusal, status.message());
                }
                if let Some(newer) =
                    Refusal::incarnation(status).filter(|n| *n > context.incarnation)
                {
                    context.newer.send_replace(Some(format!(
                        "{} is of incarnation {newer} of this cluster, this node is of {}",
                        self.member, context.incarnation
                    )));
                }
                tracing::debug!(
                    group = %self.factory.group, target = self.target, addr = %self.member.peer_addr,
                    code = refusal.code(), "peer refuses: {}", status.message()
                );
                format!(
                    "{} refuses ({}): {}",
                    self.member,
                    refusal.code(),
                    status.message()
                )
            }
            None => format!("{}: {}", self.member, status.message()),
        };
        RPCError::Unreachable(Unreachable::from_string(what))
    }

    fn garbled(&self, error: &codec::CodecError) -> RpcError {
        RPCError::Network(NetworkError::from_string(format!(
            "{}: {error}",
            self.member
        )))
    }
}

impl RaftNetworkV2<TypeConfig> for Network {
    type SnapshotData = SnapshotHandle;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let within = option.hard_ttl();
        let term = rpc.vote.leader_id.term;
        let last = rpc.entries.last().map(|entry| entry.log_id);
        let last = last.or(rpc.prev_log_id);
        let committed = end(rpc.leader_commit);
        let (answer, boot) = self
            .call(codec::encode_append(rpc), |mut stub, message| async move {
                stub.append_one(with_deadline(message, within)).await
            })
            .await?;
        let answer = codec::decode_append_response(answer).map_err(|e| self.garbled(&e))?;
        self.count(boot, || match &answer {
            AppendEntriesResponse::Success => self.acked(term, last, committed),
            AppendEntriesResponse::PartialSuccess(matched) => self.acked(term, *matched, committed),
            AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => {}
        })?;
        Ok(answer)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        Box::pin(async move {
            if self.purpose == Purpose::Heartbeat {
                return openraft::network::stream_append_sequential(self, input, option).await;
            }
            if let Err(error) = self.introduced().await {
                // As below: openraft would be back at once.
                tokio::time::sleep(OPEN_AGAIN).await;
                return Err(error);
            }
            let in_flight = Arc::new(AtomicUsize::new(0));
            // All requests of a stream are of one leader.
            let term = Arc::new(AtomicU64::new(0));
            let term_sent = Arc::clone(&term);
            let committed = Arc::new(AtomicU64::new(0));
            let committed_sent = Arc::clone(&committed);
            let header = self.header();
            let to_boot = header.to_boot;
            let counted = Arc::clone(&in_flight);
            let outgoing = input.map(move |request| {
                counted.fetch_add(1, Ordering::AcqRel);
                term_sent.store(request.vote.leader_id.term, Ordering::Release);
                committed_sent.fetch_max(end(request.leader_commit), Ordering::AcqRel);
                proto::RaftMessage {
                    header: Some(header.clone()),
                    body: codec::encode_append(request),
                }
            });
            let mut stub = self.stub()?;
            let opened = tokio::time::timeout(ANSWER_WITHIN, stub.append(outgoing))
                .await
                .unwrap_or_else(|_| {
                    Err(Status::deadline_exceeded("no answer to an append stream"))
                });
            let answers = match opened {
                Ok(answers) => answers.into_inner(),
                Err(status) => {
                    // openraft backs off between requests of a stream. One that never opened has asked
                    // for none, and would be tried again at once, thousands of times a second.
                    tokio::time::sleep(OPEN_AGAIN).await;
                    return Err(self.failed(&status));
                }
            };
            let network = &*self;
            let replies = futures::stream::unfold(Some(answers), move |answers| {
                let in_flight = Arc::clone(&in_flight);
                let term = Arc::clone(&term);
                let committed = Arc::clone(&committed);
                async move {
                    let mut answers = answers?;
                    let next = next_answer(&mut answers, &in_flight).await;
                    let item = match next {
                        Ok(None) => return None,
                        Ok(Some(message)) => {
                            in_flight.fetch_sub(1, Ordering::AcqRel);
                            let answer = codec::decode_append_result(message.body);
                            let counted = network.count(to_boot, || {
                                if let Ok(Ok(matched)) = &answer {
                                    network.acked(
                                        term.load(Ordering::Acquire),
                                        *matched,
                                        committed.load(Ordering::Acquire),
                                    );
                                }
                            });
                            counted.and_then(|()| answer.map_err(|e| network.garbled(&e)))
                        }
                        Err(status) => {
                            network.introduce_again(&status, to_boot).await;
                            Err(network.failed(&status))
                        }
                    };
                    let go_on = matches!(item, Ok(Ok(_)));
                    Some((item, go_on.then_some(answers)))
                }
            });
            let replies: BoxStream<'s, _> = Box::pin(replies);
            Ok(replies)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let within = option.hard_ttl();
        let (answer, boot) = self
            .call(
                codec::encode_vote_request(&rpc),
                |mut stub, message| async move { stub.vote(with_deadline(message, within)).await },
            )
            .await?;
        let answer = codec::decode_vote_response(answer).map_err(|e| self.garbled(&e))?;
        self.count(boot, || {
            if answer.vote_granted {
                self.promised.lock().voted(rpc.vote.leader_id.term);
            }
        })?;
        Ok(answer)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let within = option.hard_ttl();
        let (answer, _) = self
            .call(
                codec::encode_vote_request(&rpc),
                |mut stub, message| async move {
                    stub.pre_vote(with_deadline(message, within)).await
                },
            )
            .await?;
        codec::decode_vote_response(answer).map_err(|e| self.garbled(&e))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, snapshot) => sent.map_err(StreamingError::from),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let within = option.hard_ttl();
        let (answer, _) = self
            .call(
                codec::encode_transfer(&req),
                |mut stub, message| async move {
                    stub.transfer_leader(with_deadline(message, within)).await
                },
            )
            .await?;
        match codec::decode_transfer_result(answer).map_err(|e| self.garbled(&e))? {
            None => Ok(Ok(())),
            Some(refused) => Err(RPCError::Network(NetworkError::from_string(refused))),
        }
    }
}

/// How many entries a log has that ends with this one.
fn end(last: Option<LogId>) -> u64 {
    last.map_or(0, |last| last.index.saturating_add(1))
}

/// The next answer; an error when something is in flight and nothing comes.
async fn next_answer(
    answers: &mut tonic::Streaming<proto::RaftMessage>,
    in_flight: &AtomicUsize,
) -> Result<Option<proto::RaftMessage>, Status> {
    loop {
        match tokio::time::timeout(ANSWER_WITHIN, answers.message()).await {
            Ok(answer) => return answer,
            Err(_) if in_flight.load(Ordering::Acquire) == 0 => {}
            Err(_) => {
                return Err(Status::deadline_exceeded(format!(
                    "no answer to an append within {ANSWER_WITHIN:?}"
                )));
            }
        }
    }
}

impl Network {
    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<TypeConfig>, RpcError> {
        let group = &self.factory.group;
        self.introduced().await?;
        // Whoever receives a snapshot needs what follows it, and the object itself.
        let _pinned = Pinned::new(&self.factory.context.transfers);
        let header = self.header();
        let offer = Offer {
            vote,
            last: snapshot.meta.last_log_id,
            to_boot: header.to_boot,
        };
        let part = move |part| proto::SnapshotMessage {
            header: Some(header.clone()),
            part: Some(part),
        };
        let mut head = proto::SnapshotHead {
            vote: codec::encode_vote(&vote),
            meta: codec::encode_meta(&snapshot.meta),
            record: Vec::new(),
            file_id: String::new(),
            file_bytes: 0,
        };
        match &snapshot.snapshot {
            SnapshotHandle::Recorded(record) => {
                tracing::info!(%group, target = %self.member, snapshot = %record.id, "snapshot offered by reference");
                head.record = record.encode_to_vec();
                let head = part(proto::snapshot_message::Part::Head(head));
                let answer = self.install(offer, futures::stream::iter([head]));
                answer.await.map_err(|status| {
                    // The target cannot fetch it: the next attempt streams a local one. A target
                    // that is merely away says nothing about the store.
                    if Refusal::of(&status) == Some(Refusal::StoreUnreachable) {
                        tracing::warn!(%group, target = %self.member, "snapshot by reference failed, the leader will stream one: {}", status.message());
                        self.factory.control.prefer_local(true);
                    }
                    self.failed(&status)
                })
            }
            SnapshotHandle::Local(local) => {
                let bytes = local.file_bytes();
                tracing::info!(%group, target = %self.member, snapshot = %local.manifest().id, bytes, "snapshot streamed by the leader");
                head.file_id = local.manifest().id.to_string();
                head.file_bytes = bytes;
                let file = tokio::fs::File::open(local.path()).await.map_err(|e| {
                    RPCError::Network(NetworkError::from_string(format!(
                        "open {}: {e}",
                        local.path().display()
                    )))
                })?;
                let first = part(proto::snapshot_message::Part::Head(head));
                let pieces = tokio_util::io::ReaderStream::with_capacity(file, PIECE_BYTES)
                    // A failed read ends the stream early: the target sees too few bytes and refuses.
                    .take_while(|piece| futures::future::ready(piece.is_ok()))
                    .filter_map(|piece| futures::future::ready(piece.ok()))
                    .map(move |piece| part(proto::snapshot_message::Part::Piece(piece)));
                let answer = self
                    .install(offer, futures::stream::iter([first]).chain(pieces))
                    .await;
                if answer.is_ok() {
                    // The next follower may well reach the store.
                    self.factory.control.prefer_local(false);
                }
                answer.map_err(|status| self.failed(&status))
            }
            other => Err(RPCError::Network(NetworkError::from_string(format!(
                "{other:?} is no snapshot that can be sent"
            )))),
        }
    }

    async fn install(
        &self,
        offer: Offer,
        parts: impl Stream<Item = proto::SnapshotMessage> + Send + 'static,
    ) -> Result<SnapshotResponse<TypeConfig>, Status> {
        let mut stub = self
            .stub()
            .map_err(|e| Status::unavailable(e.to_string()))?;
        let reply = tokio::time::timeout(INSTALL_WITHIN, stub.install_snapshot(parts))
            .await
            .map_err(|_| Status::deadline_exceeded("snapshot was not installed in time"))?;
        let reply = match reply {
            Ok(reply) => reply,
            Err(status) => {
                self.introduce_again(&status, offer.to_boot).await;
                return Err(status);
            }
        };
        let vote = codec::decode_vote(reply.into_inner().body)
            .map_err(|e| Status::data_loss(e.to_string()))?;
        let acquaintances = &self.factory.context.acquaintances;
        acquaintances.count(self.target, offer.to_boot, || {
            // Else it follows a later leader, and took nothing. What a snapshot stands for is committed.
            if vote == offer.vote {
                self.acked(vote.leader_id.term, offer.last, end(offer.last));
            }
        })?;
        Ok(SnapshotResponse::new(vote))
    }
}

/// What a target of a snapshot promises when it takes it.
struct Offer {
    /// Of the leader that sends it.
    vote: Vote,
    /// The last entry that it stands for.
    last: Option<LogId>,
    /// The process that it is for.
    to_boot: u64,
}

/// A snapshot transfer under way, counted while it lives.
struct Pinned(Arc<AtomicUsize>);

impl Pinned {
    fn new(transfers: &Arc<AtomicUsize>) -> Self {
        transfers.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(transfers))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
