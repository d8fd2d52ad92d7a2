//! Which process speaks for which node id: a node's data directory may have been copied, and two processes with one id
//! could vote twice.
//!
//! Every process draws a *boot* when it starts, and every Raft message names the boots of both ends. Two processes
//! exchange Hello before the first message between them, so each knows that the other lived after it was asked; a
//! message that was under way when its sender died proves nothing and changes nothing here.
//!
//! - A boot that is not the known one must introduce itself. When the known process still answers at its address, the
//!   newcomer is refused; when it does not, the newcomer takes its place.
//! - A process whose place was taken is never let in again: it lived on while another one spoke under its id.
//!
//! So a restart, however quick, is never refused: the process before it answers nobody and speaks no more. What is not
//! found: two processes that no peer hears both of, on the two sides of a partition; it is found when that heals.
//!
//! Whoever introduces itself also says what its data directory held when it started. One that holds less than the node is
//! known to have promised ([`Evidence`]) is an older copy, and is refused.
//!
//! Who starts asks everybody, so one peer that remembers is enough; what was promised is remembered across restarts too
//! ([`crate::remembered`]).

mod book;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use confman_store::promises::{GroupPromise, NodePromises};
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::Status;

use self::book::{Book, Newcomer, Unheard};
use super::client::{Channels, Purpose, with_deadline};
use super::evidence::Evidence;
use super::{Refusal, proto};
use crate::clock::{Clock, wall_us};

/// How long an introduction may take: the other side may look for the process that it knows.
const INTRODUCE_WITHIN: Duration = Duration::from_secs(2);
/// How long a process that is asked whether it still lives may take.
const LIVES_WITHIN: Duration = Duration::from_millis(800);
/// [`Evidence`] that several connections add to.
pub(crate) type Promised = Arc<Mutex<Evidence>>;

/// Who this process is, once its data directory has said so.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    pub(crate) node: proto::Node,
    pub(crate) cluster_uuid: String,
    pub(crate) incarnation: u64,
    pub(crate) lineage: String,
}

/// Why a peer does not take this process for the node that it says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejected {
    pub(crate) refusal: Refusal,
    pub(crate) words: String,
}

impl Rejected {
    fn status(&self) -> Status {
        self.refusal.status(self.words.clone())
    }

    /// The same with what an operator can do.
    pub(crate) fn told(&self) -> String {
        format!("{}\nhint: {}", self.words, hint(self.refusal))
    }
}

fn hint(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::OlderDirectory => {
            "a copy from before was put back, or a disk lost what was written: while the others have a quorum, run `drtool set-aside` on this data directory and start the node; it rejoins under a new id and loses nothing. Where they have none, set nothing aside: `drtool recover collect` finds the newest directory"
        }
        _ => {
            "one data directory is a copy of the other: keep the process whose directory is the node's own, stop the other one and set its directory aside; a node that is to be moved is stopped first"
        }
    }
}

/// What one process knows of the others.
pub(crate) struct Acquaintances {
    boot: u64,
    channels: Channels,
    own: Mutex<Option<Own>>,
    /// What its data directory held when it started.
    standings: Mutex<Vec<proto::Standing>>,
    book: Mutex<Book>,
    clock: Clock,
    /// What each node is known to have promised, by group and node id.
    promised: Mutex<HashMap<(String, u64), Promised>>,
    /// By node id, of those that were known before this process started: the process of it that was heard last.
    heard_before: Mutex<HashMap<u64, u64>>,
    /// One introduction to a node at a time.
    introducing: Mutex<HashMap<u64, Arc<tokio::sync::Mutex<()>>>>,
    /// Told when a peer rejects this process.
    rejected: watch::Sender<Option<Rejected>>,
}

impl Acquaintances {
    pub(crate) fn new(boot: u64, channels: Channels) -> Arc<Self> {
        Arc::new(Self {
            boot,
            channels,
            own: Mutex::default(),
            standings: Mutex::default(),
            book: Mutex::default(),
            clock: Clock::default(),
            promised: Mutex::default(),
            heard_before: Mutex::default(),
            introducing: Mutex::default(),
            rejected: watch::channel(None).0,
        })
    }

    /// The boot of this process.
    pub(crate) fn boot(&self) -> u64 {
        self.boot
    }

    /// The clocks of the others, and this machine's.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Says who this process is, and what its data directory holds: from now on it can introduce itself.
    pub(crate) fn become_node(&self, own: Own, standings: Vec<proto::Standing>) {
        *self.standings.lock() = standings;
        *self.own.lock() = Some(own);
    }

    /// What the data directory of this process held when it started.
    pub(crate) fn standings(&self) -> Vec<proto::Standing> {
        self.standings.lock().clone()
    }

    /// What a node is known to have promised in a group, to be added to.
    pub(crate) fn promised(&self, group: &str, id: u64) -> Promised {
        let mut promised = self.promised.lock();
        Arc::clone(promised.entry((group.to_owned(), id)).or_default())
    }

    /// What an earlier process of this node knew.
    pub(crate) fn recall(&self, nodes: &[NodePromises]) {
        for node in nodes {
            self.heard_before.lock().insert(node.id, node.boot);
            for kept in &node.groups {
                self.promised(&kept.group, node.id).lock().recall(kept);
            }
        }
    }

    /// What this process knows, for a later one; in an order of its own, so that what has not changed looks alike.
    pub(crate) fn recollect(&self) -> Vec<NodePromises> {
        let mut nodes: BTreeMap<u64, BTreeMap<String, GroupPromise>> = BTreeMap::new();
        for ((group, id), promised) in &*self.promised.lock() {
            let known = promised.lock().of_group(group);
            nodes.entry(*id).or_default().insert(group.clone(), known);
        }
        // Not one that is refused: it would be let in by who takes it for heard.
        let sound = |id| {
            let book = self.book.lock();
            let known = book.get(id).filter(|known| known.older.is_none());
            known.map(|known| known.boot)
        };
        let boot = |id| sound(id).or_else(|| self.heard_before.lock().get(&id).copied());
        nodes
            .into_iter()
            .map(|(id, groups)| NodePromises {
                id,
                // No process has 0.
                boot: boot(id).unwrap_or(0),
                groups: groups.into_values().collect(),
            })
            .collect()
    }

    /// What is missing in a data directory of a node, as the process of that boot found it when it started. One that an earlier process of
    /// this node heard has promised since.
    fn missing(&self, id: u64, boot: u64, standings: &[proto::Standing]) -> Option<String> {
        if self.heard_before.lock().get(&id) == Some(&boot) {
            return None;
        }
        let promised = self.promised.lock();
        standings.iter().find_map(|standing| {
            let promised = promised.get(&(standing.group.clone(), id))?;
            promised.lock().missing_in(standing)
        })
    }

    /// Told when a peer rejects this process.
    pub(crate) fn rejected(&self) -> watch::Receiver<Option<Rejected>> {
        self.rejected.subscribe()
    }

    /// A peer refused a message of this process for good.
    pub(crate) fn reject(&self, refusal: Refusal, words: &str) {
        self.rejected.send_replace(Some(Rejected {
            refusal,
            words: words.to_owned(),
        }));
    }

    /// The boot of the process known as that node; 0 for none.
    pub(crate) fn boot_of(&self, id: u64) -> u64 {
        self.book.lock().get(id).map_or(0, |k| k.boot)
    }

    /// Whether a message is between this process and the known one of that node.
    pub(crate) fn check(&self, header: &proto::Header) -> Result<(), Status> {
        if header.to_boot != self.boot {
            return Err(Refusal::NotIntroduced.status(format!(
                "the message is for another process of node id {}, or its sender does not know this one",
                header.to_node
            )));
        }
        match self.book.lock().hears(header.from_node, header.from_boot) {
            Ok(()) => Ok(()),
            Err(Unheard::Unknown) => Err(Refusal::NotIntroduced.status(format!(
                "the process that speaks for node id {} has not introduced itself",
                header.from_node
            ))),
            Err(Unheard::Rejected(rejected)) => Err(rejected.status()),
        }
    }

    /// Notes what the process of that boot promised by an answer, unless another one has taken its place: then the answer must not be
    /// counted, and nothing is noted. It may have slept since it was asked, and what it then wrote down the other does not have.
    ///
    /// In one turn of the book: who takes the place is judged with what was noted before, or is found here.
    pub(crate) fn count(&self, id: u64, boot: u64, note: impl FnOnce()) -> Result<(), Status> {
        let book = self.book.lock();
        book.hears(id, boot).map_err(|_| {
            Refusal::NotServing.status(format!(
                "the process that answered for node id {id} is not the one that speaks for it by now"
            ))
        })?;
        note();
        drop(book);
        Ok(())
    }

    /// A process that was just heard of, and lives, says that it is this node.
    /// `answered` when it is the one that answered at that address.
    async fn meet(
        &self,
        (id, boot): (u64, u64),
        addr: &str,
        answered: bool,
        standings: &[proto::Standing],
    ) -> Result<(), Rejected> {
        let judged = self.book.lock().judge(id, boot);
        match judged {
            Newcomer::Welcome => {}
            Newcomer::Gone { addr } => return Err(second(taken(id, &addr))),
            Newcomer::Unless {
                boot: known,
                addr: at,
            } => {
                if !(answered && at == addr) && self.lives(id, known, &at).await {
                    return Err(second(alive(id, &at)));
                }
                tracing::debug!(
                    node_id = id,
                    addr,
                    "another process speaks for the node now"
                );
            }
        }
        let mut book = self.book.lock();
        match book.judge(id, boot) {
            Newcomer::Gone { addr } => return Err(second(taken(id, &addr))),
            Newcomer::Welcome if book.get(id).is_some() => {}
            _ => {
                // With what was promised until now: from here on this process's own promises are added. Judged in the book's turn, see
                // `count`.
                let missing = self.missing(id, boot, standings);
                if let Some(missing) = &missing {
                    tracing::error!(
                        node_id = id,
                        addr,
                        "an older data directory is not let in: {missing}"
                    );
                }
                book.enter(id, boot, addr, missing);
            }
        }
        match book.hears(id, boot) {
            Err(Unheard::Rejected(rejected)) => Err(rejected),
            _ => Ok(()),
        }
    }

    /// Whether the process of that boot answers at the address under that id.
    async fn lives(&self, id: u64, boot: u64, addr: &str) -> bool {
        let Some(own) = self.own.lock().clone() else {
            return false;
        };
        let asked = self.hello(addr, question(&own), LIVES_WITHIN).await;
        asked.is_ok_and(|reply| {
            reply.cluster_uuid == own.cluster_uuid
                && reply.node.is_some_and(|n| n.id == id && n.boot == boot)
        })
    }

    /// Introduces this process to a node unless both know each other.
    pub(crate) async fn introduced(&self, id: u64, addr: &str) -> Result<(), Status> {
        let known = self.book.lock().get(id).map(|k| k.older.clone());
        match known {
            None => self.introduce(id, addr, 0).await,
            Some(None) => Ok(()),
            // A leader that took such a log for the one it knows would count on entries that are not there.
            Some(Some(missing)) => Err(unwilling(&older(id, &missing))),
        }
    }

    /// Calls a peer that knows this process. One that does not, or is another process by now, is told who speaks, and
    /// called once more. Answers with the boot of who answered, for [`Acquaintances::count`].
    pub(crate) async fn call<T, F>(
        &self,
        id: u64,
        addr: &str,
        mut call: impl FnMut() -> F,
    ) -> Result<(T, u64), Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        self.introduced(id, addr).await?;
        let mut boot = self.boot_of(id);
        let answer = match call().await {
            Err(status) if Refusal::of(&status) == Some(Refusal::NotIntroduced) => {
                self.introduce(id, addr, boot).await?;
                boot = self.boot_of(id);
                call().await?
            }
            answer => answer?,
        };
        Ok((answer, boot))
    }

    /// Introduces this process to a node, unless somebody else has done so since it was known as `before`.
    pub(crate) async fn introduce(&self, id: u64, addr: &str, before: u64) -> Result<(), Status> {
        let turn = Arc::clone(self.introducing.lock().entry(id).or_default());
        let _turn = turn.lock().await;
        if before != self.boot_of(id) {
            return Ok(());
        }
        let own = self
            .own
            .lock()
            .clone()
            .ok_or_else(|| Refusal::NotServing.status("this process is no node yet"))?;
        let asked = Instant::now();
        let reply = self
            .hello(addr, self.introduction(&own), INTRODUCE_WITHIN)
            .await?;
        if let Some(rejected) = rejection(&reply) {
            self.rejected.send_replace(Some(rejected.clone()));
            return Err(rejected.status());
        }
        let there = reply.node.clone().unwrap_or_default();
        // Whose life is over is told in answer to the message itself, which comes next.
        let same_life = (reply.incarnation, &reply.lineage) == (own.incarnation, &own.lineage);
        if reply.cluster_uuid != own.cluster_uuid {
            return Err(Refusal::OtherCluster
                .status(format!("{addr} is of cluster {}", reply.cluster_uuid)));
        }
        if !same_life {
            return Ok(());
        }
        if there.id != id {
            return Err(Refusal::OtherNode.status(format!(
                "{addr} is node id {} ({}), not {id}",
                there.id, there.name
            )));
        }
        self.clock.heard(id, reply.time_us, asked);
        if !reply.serving {
            return Err(Refusal::NotServing
                .status(format!("node {} does not run its groups yet", there.name)));
        }
        self.meet((id, there.boot), addr, true, &reply.standings)
            .await
            .map_err(|rejected| unwilling(&rejected))
    }

    /// Asks addresses whether this process is the only one of its node: those of the others, which remember whom they
    /// heard, and those that this node has or had, where another one may answer.
    /// `now` is what this node holds durably, for them to remember.
    pub(crate) async fn ask_around(
        &self,
        addresses: &BTreeSet<String>,
        now: &[proto::Standing],
    ) -> Option<Rejected> {
        let own = self.own.lock().clone()?;
        let question = proto::HelloRequest {
            now: now.to_vec(),
            ..self.introduction(&own)
        };
        let asked = addresses.iter().map(|addr| {
            let (own, question) = (&own, question.clone());
            async move {
                let asked = Instant::now();
                let reply = self.hello(addr, question, INTRODUCE_WITHIN).await.ok()?;
                if reply.cluster_uuid != own.cluster_uuid {
                    return None;
                }
                if let Some(rejected) = rejection(&reply) {
                    return Some(rejected);
                }
                let there = reply.node.unwrap_or_default();
                // Two recoveries may have given one id: those are two lives, and not two processes of one node.
                let same_life =
                    (reply.incarnation, &reply.lineage) == (own.incarnation, &own.lineage);
                let same_node = same_life && there.id == own.node.id;
                if same_node && there.boot != 0 && there.boot != self.boot {
                    return Some(second(alive(own.node.id, addr)));
                }
                let known = there.id != own.node.id && reply.serving;
                if known && same_life {
                    self.clock.heard(there.id, reply.time_us, asked);
                    // It answered just now; whether another process of its id lives is for the two to find out.
                    let met = self.meet((there.id, there.boot), addr, true, &reply.standings);
                    drop(met.await);
                }
                None
            }
        });
        let answers = futures::future::join_all(asked).await;
        answers.into_iter().flatten().next()
    }

    async fn hello(
        &self,
        addr: &str,
        ask: proto::HelloRequest,
        within: Duration,
    ) -> Result<proto::HelloReply, Status> {
        let mut stub = self
            .channels
            .stub(addr, Purpose::Control)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        tokio::time::timeout(within, stub.hello(with_deadline(ask, within)))
            .await
            .map_err(|_| Status::deadline_exceeded(format!("no answer within {within:?}")))?
            .map(tonic::Response::into_inner)
    }

    /// Answers a process that introduces itself; `own` is who this one is.
    pub(crate) async fn answer(&self, own: &Own, ask: &proto::HelloRequest) -> Option<Rejected> {
        let from = ask.from.as_ref()?;
        let same = ask.cluster_uuid == own.cluster_uuid
            && ask.incarnation == own.incarnation
            && ask.lineage == own.lineage;
        if !ask.introducing || !same || from.id == 0 || from.boot == 0 {
            return None;
        }
        if from.id == own.node.id {
            return (from.boot != self.boot).then(|| second(alive(from.id, &own.node.peer_addr)));
        }
        // Before this process knows what it is and what it remembers, nobody can be judged, and whoever was let in would not be judged again.
        // Nothing is sent meanwhile but introductions; who sends more then is asked to introduce itself again.
        if self.own.lock().is_none() {
            return None;
        }
        let met = self.meet((from.id, from.boot), &from.peer_addr, false, &ask.standings);
        if let Err(rejected) = met.await {
            return Some(rejected);
        }
        // As late as the message was under way, and introductions are given up before that matters.
        self.clock.heard(from.id, ask.time_us, Instant::now());
        for standing in &ask.now {
            let promised = self.promised(&standing.group, from.id);
            promised.lock().told(standing);
            tracing::debug!(
                node_id = from.id,
                group = standing.group,
                vote_term = standing.vote_term,
                end = standing.end,
                "told what it holds"
            );
        }
        None
    }

    fn introduction(&self, own: &Own) -> proto::HelloRequest {
        proto::HelloRequest {
            introducing: true,
            standings: self.standings(),
            time_us: wall_us(),
            ..question(own)
        }
    }
}

fn question(own: &Own) -> proto::HelloRequest {
    proto::HelloRequest {
        from: Some(own.node.clone()),
        cluster_uuid: own.cluster_uuid.clone(),
        incarnation: own.incarnation,
        lineage: own.lineage.clone(),
        ..Default::default()
    }
}

/// This process does not speak to a peer: which is that peer's trouble, not its own.
fn unwilling(rejected: &Rejected) -> Status {
    Refusal::NotServing.status(rejected.words.clone())
}

fn second(words: String) -> Rejected {
    Rejected {
        refusal: Refusal::SecondProcess,
        words,
    }
}

fn older(id: u64, missing: &str) -> Rejected {
    Rejected {
        refusal: Refusal::OlderDirectory,
        words: format!(
            "the data directory of node id {id} is older than what the node promised: {missing}"
        ),
    }
}

fn rejection(reply: &proto::HelloReply) -> Option<Rejected> {
    let refusal = Refusal::of_code(&reply.rejected_code)?;
    Some(Rejected {
        refusal,
        words: reply.rejected_reason.clone(),
    })
}

fn alive(id: u64, addr: &str) -> String {
    format!("node id {id} is alive at {addr}, in another process")
}

fn taken(id: u64, addr: &str) -> String {
    format!("another process has taken the place of this one as node id {id}, at {addr}")
}
