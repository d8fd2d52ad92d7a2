//! From a data directory to an identity: the loop around `confman_bootstrap::decide`.
//!
//! Facts are gathered, the pure table decides, this room acts and, while the decision is to wait,
//! gathers again. A birth has two phases: the first member by name makes the identities and hands
//! one to every other (`Prepare`); when every node has it on disk it says so (`Commence`), and only
//! then does any group run. An id is therefore never handed out twice after a vote may have been
//! cast under it (I14).
//!
//! Crash points: before `Prepare` is on every disk nothing has run, and the coordinator begins
//! again with the same identities. A node writes down that it has started (`Initialized`, by
//! [`crate::serve`]) after its groups are on disk and before any of them can vote; from then on a
//! lost disk is a lost id. Every member of the birth initializes its groups with the same first
//! entry, which is harmless to repeat.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use confman_bootstrap::facts::{
    LocalFacts, LocalIdentity, PeerAnswer, PeerFact, PeerFacts, Stage as LocalStage,
};
use confman_bootstrap::report::RestoreReport;
use confman_bootstrap::{Decision, HINT_REJOIN, Verdict, decide};
use confman_config::Settings;
use confman_snapshot::model::{ClusterId, GroupId, NodeInfo};
use confman_store::datadir::{DataDir, Facts, Identity, IdentityState, MemberAtBirth};
use tokio::sync::mpsc;
use tonic::Status;

use crate::front::Front;
use crate::ordered::Failed;
use crate::peer::client::{Channels, Purpose, with_deadline};
use crate::peer::desk::{Birth, Desk, Life, Stage};
use crate::peer::{Refusal, proto};
use crate::store_door::StoreDoor;

const HELLO_WITHIN: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// How often the same reason for waiting is said again.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// What a start came to.
pub(crate) enum Established {
    /// Run the groups.
    Run {
        /// Who this node is.
        identity: Identity,
        /// How groups came back from the store, when this node joined anew.
        restored: BTreeMap<GroupId, RestoreReport>,
    },
    /// Serve nothing; keep the data.
    Fenced {
        /// The life that is over.
        cluster: ClusterId,
        /// Why.
        reason: String,
    },
}

/// A start that cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The table refuses.
    #[error("{reason}: {finding}\nhint: {hint}")]
    Refused {
        /// Which facts led there.
        reason: String,
        /// What was found.
        finding: String,
        /// What to do.
        hint: String,
    },
    /// The data directory failed.
    #[error(transparent)]
    Data(#[from] confman_store::StoreError),
    /// The restore that was ordered cannot go on on this machine.
    #[error(transparent)]
    Restore(#[from] confman_bootstrap::RestoreError),
    /// The join failed for good.
    #[error("the cluster does not take this node in: {0}")]
    Join(String),
}

/// What establishing an identity works with.
pub(crate) struct Formation<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) channels: &'a Channels,
    pub(crate) desk: &'a Arc<Desk>,
    pub(crate) store: &'a Arc<StoreDoor>,
    /// Where clients are told what this node waits for.
    pub(crate) front: &'a Front,
    pub(crate) data: &'a mut DataDir,
    pub(crate) births: mpsc::Receiver<Birth>,
    /// Names this process's wish to join: asked again, it gets the same id.
    pub(crate) nonce: String,
    /// An order that could not be carried out.
    pub(crate) failed: Option<Failed>,
    /// The last warning and when it was given.
    pub(crate) warned: Option<(String, Instant)>,
}

impl Formation<'_> {
    /// Gathers facts and acts on them until this node has an identity or cannot get one.
    pub(crate) async fn establish(mut self) -> Result<Established, StartError> {
        let mut said: Option<(String, Instant)> = None;
        loop {
            let facts = self.data.inspect()?;
            self.show_stage(&facts);
            let local = LocalFacts::new(&self.settings.node_name, facts.clone());
            let (peers, hellos) = self.ask_peers(&facts).await;
            let store = self.store.facts().await;
            let verdict = decide(&local, &peers, &store);
            say(&verdict, &mut said);
            self.front.say(verdict.to_string());
            match verdict.decision {
                Decision::Start => {
                    if let Facts::Good(identity) = &facts
                        && let Some(rival) = self.store.rival(identity).await
                    {
                        return self.fence(facts, format!("{rival}\nhint: {HINT_REJOIN}"));
                    }
                    return self.start(facts);
                }
                Decision::Fence { newer, hint } => {
                    // Whoever retired this node's id says why, and what to do.
                    let told = hellos.values().find(|hello| hello.caller_retired);
                    let reason = match told {
                        Some(hello) if newer.is_none() => hello.caller_retired_reason.clone(),
                        _ => verdict.reason,
                    };
                    let reason = match reason.contains("\nhint: ") {
                        true => reason,
                        false => format!("{reason}\nhint: {hint}"),
                    };
                    return self.fence(facts, reason);
                }
                Decision::Refuse { finding, hint } => {
                    return Err(StartError::Refused {
                        reason: verdict.reason,
                        finding,
                        hint,
                    });
                }
                Decision::Rejoin { via, resume, .. } => {
                    if let Some(established) = self.rejoin(&hellos, &via, resume).await? {
                        return Ok(established);
                    }
                }
                Decision::Restore { life, .. } => {
                    if let Some(established) =
                        crate::ordered::carry_out(&mut self, facts, &life).await?
                    {
                        return Ok(established);
                    }
                }
                Decision::SetAside => {
                    let aside = self
                        .data
                        .set_aside(&verdict.reason, crate::group::now_us())?;
                    tracing::warn!(to = %aside.display(), "set aside: {}", verdict.reason);
                    continue;
                }
                Decision::Form {
                    coordinator,
                    resume,
                } if coordinator == self.settings.node_name => {
                    if let Some(established) = self.coordinate(&hellos, facts, resume).await? {
                        return Ok(established);
                    }
                }
                Decision::Form { .. } | Decision::Wait { .. } => {}
            }
            self.listen().await?;
        }
    }

    /// Tells Hello how far the disk has come.
    fn show_stage(&self, facts: &Facts) {
        let stage = match facts {
            Facts::Empty => Stage::Empty,
            Facts::Damaged(_) => Stage::Unknown,
            Facts::Good(identity) => match LocalIdentity::new(identity).stage {
                LocalStage::Forming => Stage::Forming(identity.cluster()),
                LocalStage::Rejoining | LocalStage::Restoring { .. } | LocalStage::Complete => {
                    Stage::Starting(self.life(identity))
                }
                LocalStage::Fenced { .. } => Stage::Fenced(identity.cluster()),
            },
        };
        self.desk.enter(stage);
    }

    fn start(&mut self, facts: Facts) -> Result<Established, StartError> {
        let Facts::Good(identity) = facts else {
            return Err(StartError::Join(
                "a start was decided without an identity".to_owned(),
            ));
        };
        self.desk.enter(Stage::Starting(self.life(&identity)));
        Ok(Established::Run {
            identity,
            restored: BTreeMap::new(),
        })
    }

    /// The life that the directory is of. What its first leader has to propose lies there until that is done.
    fn life(&self, identity: &Identity) -> Life {
        Life {
            cluster: identity.cluster(),
            lineage: identity.lineage.clone(),
            unborn: self.data.paths().incarnation().exists(),
            node_id: identity.node_id,
        }
    }

    fn fence(&mut self, facts: Facts, reason: String) -> Result<Established, StartError> {
        let Facts::Good(mut identity) = facts else {
            return Err(StartError::Join(
                "a fence was decided without an identity".to_owned(),
            ));
        };
        if identity.state() != IdentityState::Fenced {
            identity.set_state(IdentityState::Fenced);
            identity.reason.clone_from(&reason);
            self.data.write_identity(&identity)?;
        }
        let cluster = identity.cluster();
        self.desk.enter(Stage::Fenced(cluster.clone()));
        Ok(Established::Fenced { cluster, reason })
    }

    /// Waits a little for birth messages.
    async fn listen(&mut self) -> Result<(), StartError> {
        let until = tokio::time::Instant::now() + LOOK_AGAIN;
        while let Ok(Some(birth)) = tokio::time::timeout_at(until, self.births.recv()).await {
            match birth {
                Birth::Prepare(ask, answer) => {
                    let taken = self.take_identity(ask);
                    let _ = answer.send(taken);
                }
                Birth::Commence(ask, answer) => {
                    let begun = self.begin(&ask);
                    let _ = answer.send(begun);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// First phase, at a node that does not coordinate.
    fn take_identity(&mut self, ask: proto::PrepareRequest) -> Result<(), Status> {
        let internal = |e: &dyn std::fmt::Display| Status::internal(e.to_string());
        if ask.to_name != self.settings.node_name {
            return Err(Refusal::OtherNode.status(format!(
                "this identity is for {}, this node is {}",
                ask.to_name, self.settings.node_name
            )));
        }
        if ask.shards != self.settings.shards {
            return Err(Status::failed_precondition(format!(
                "the cluster is to be born with {} shards, CONFMAN_SHARDS here is {}",
                ask.shards, self.settings.shards
            )));
        }
        match self.data.inspect().map_err(|e| internal(&e))? {
            Facts::Empty => {}
            Facts::Good(identity)
                if LocalIdentity::new(&identity).stage == LocalStage::Forming
                    && identity.cluster_uuid == ask.cluster_uuid =>
            {
                let members: Vec<MemberAtBirth> = ask.nodes.iter().map(birth_member).collect();
                if identity.members != members {
                    return Err(Status::failed_precondition(format!(
                        "{} has an identity of this birth with other members\nhint: CONFMAN_PEERS was changed while the cluster was being born; nothing has run yet, so clear the data directories and begin again",
                        self.settings.node_name
                    )));
                }
                return Ok(());
            }
            _ => {
                return Err(Refusal::OtherCluster.status(format!(
                    "the data directory of {} is not empty",
                    self.settings.node_name
                )));
            }
        }
        let own = ask
            .nodes
            .iter()
            .find(|m| m.name == self.settings.node_name)
            .ok_or_else(|| {
                Status::invalid_argument(format!(
                    "{} is not among those to be born",
                    self.settings.node_name
                ))
            })?;
        let identity = Identity {
            cluster_uuid: ask.cluster_uuid,
            incarnation: ask.incarnation,
            node_id: own.id,
            name: self.settings.node_name.clone(),
            shards: ask.shards,
            members: ask.nodes.iter().map(birth_member).collect(),
            state: IdentityState::Formed.into(),
            reason: String::new(),
            created_us: crate::group::now_us(),
            lineage: String::new(),
            incarnation_floor: 0,
        };
        self.data
            .write_identity(&identity)
            .map_err(|e| internal(&e))?;
        self.desk.enter(Stage::Forming(identity.cluster()));
        tracing::info!(cluster = %identity.cluster_uuid, node_id = identity.node_id, "identity taken, waiting for all members");
        Ok(())
    }

    /// Second phase, at a node that does not coordinate: the next look at the coordinator shows that
    /// it runs, which decides to start.
    fn begin(&self, ask: &proto::CommenceRequest) -> Result<(), Status> {
        match self.data.inspect() {
            Ok(Facts::Good(identity)) if identity.cluster_uuid == ask.cluster_uuid => Ok(()),
            Ok(_) => Err(Refusal::OtherCluster.status("this node did not take that identity")),
            Err(error) => Err(Status::internal(error.to_string())),
        }
    }

    /// Both phases, at the node that coordinates. `None`: not all nodes are there; look again.
    async fn coordinate(
        &mut self,
        hellos: &BTreeMap<String, proto::HelloReply>,
        facts: Facts,
        resume: Option<ClusterId>,
    ) -> Result<Option<Established>, StartError> {
        let identity = match facts {
            Facts::Good(identity) => identity,
            _ => {
                let identity = self.new_identity(hellos, resume);
                self.data.write_identity(&identity)?;
                self.desk.enter(Stage::Forming(identity.cluster()));
                identity
            }
        };
        if self.store.enabled()
            && let Err(error) = self
                .store
                .claimed(&identity.cluster(), &identity.lineage)
                .await
        {
            self.warn_once(format!("birth waits for the object store: {error}"));
            return Ok(None);
        }
        let nodes: Vec<proto::Node> = identity.members.iter().map(wire_node).collect();
        for peer in &self.settings.peers {
            if peer.name == self.settings.node_name {
                continue;
            }
            let ask = proto::PrepareRequest {
                cluster_uuid: identity.cluster_uuid.clone(),
                incarnation: identity.incarnation,
                shards: identity.shards,
                nodes: nodes.clone(),
                to_name: peer.name.clone(),
            };
            let prepared = match self.channels.stub(&peer.addr, Purpose::Control) {
                Ok(mut stub) => stub
                    .prepare(with_deadline(ask, Duration::from_secs(5)))
                    .await
                    .map(|_| ()),
                Err(e) => Err(Status::invalid_argument(e.to_string())),
            };
            if let Err(status) = prepared {
                self.warn_once(format!(
                    "birth waits for {}: {}",
                    peer.name,
                    status.message()
                ));
                return Ok(None);
            }
        }
        self.desk.enter(Stage::Starting(self.life(&identity)));
        for peer in &self.settings.peers {
            if peer.name == self.settings.node_name {
                continue;
            }
            let ask = proto::CommenceRequest {
                cluster_uuid: identity.cluster_uuid.clone(),
                incarnation: identity.incarnation,
            };
            // A node that misses this sees by Hello that the cluster has been born.
            if let Ok(mut stub) = self.channels.stub(&peer.addr, Purpose::Control)
                && let Err(status) = stub
                    .commence(with_deadline(ask, Duration::from_secs(2)))
                    .await
            {
                tracing::debug!(peer = %peer.name, "commence: {}", status.message());
            }
        }
        tracing::info!(cluster = %identity.cluster_uuid, members = identity.members.len(), shards = identity.shards, "a cluster is born");
        Ok(Some(Established::Run {
            identity,
            restored: BTreeMap::new(),
        }))
    }

    /// Warns when the words are new, and again every now and then.
    pub(crate) fn warn_once(&mut self, text: String) {
        let fresh = self
            .warned
            .as_ref()
            .is_none_or(|(last, when)| *last != text || when.elapsed() > SAY_AGAIN);
        if fresh {
            tracing::warn!("{text}");
            self.warned = Some((text, Instant::now()));
        }
    }

    fn new_identity(
        &self,
        hellos: &BTreeMap<String, proto::HelloReply>,
        resume: Option<ClusterId>,
    ) -> Identity {
        let own = NodeInfo {
            name: self.settings.node_name.clone(),
            api_url: self.settings.api_advertise.clone(),
            peer_addr: self.settings.peer_advertise.clone(),
        };
        let others = hellos
            .values()
            .filter_map(|hello| hello.node.as_ref())
            .map(node_info);
        // Ids follow the names, so that a coordinator that begins again gives the same ones.
        let mut infos: Vec<NodeInfo> = others.chain([own]).collect();
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        let members: Vec<MemberAtBirth> = (1u64..)
            .zip(infos)
            .map(|(id, info)| MemberAtBirth {
                id,
                info: Some(info),
            })
            .collect();
        let named = |m: &&MemberAtBirth| {
            m.info
                .as_ref()
                .is_some_and(|i| i.name == self.settings.node_name)
        };
        let node_id = members.iter().find(named).map_or(1, |m| m.id);
        let cluster = resume.unwrap_or_else(|| ClusterId::new(uuid::Uuid::new_v4().to_string(), 1));
        Identity {
            cluster_uuid: cluster.uuid,
            incarnation: cluster.incarnation,
            node_id,
            name: self.settings.node_name.clone(),
            shards: self.settings.shards,
            members,
            state: IdentityState::Formed.into(),
            reason: String::new(),
            created_us: crate::group::now_us(),
            lineage: String::new(),
            incarnation_floor: 0,
        }
    }

    /// What the other listed members answer; Hello to all at once.
    async fn ask_peers(&self, facts: &Facts) -> (PeerFacts, BTreeMap<String, proto::HelloReply>) {
        let mut from = self.desk.own.clone();
        let mut ask = proto::HelloRequest::default();
        if let Facts::Good(identity) = facts {
            from.id = identity.node_id;
            ask.cluster_uuid.clone_from(&identity.cluster_uuid);
            ask.incarnation = identity.incarnation;
            ask.lineage.clone_from(&identity.lineage);
        }
        ask.from = Some(from);
        let others = self
            .settings
            .peers
            .iter()
            .filter(|p| p.name != self.settings.node_name);
        let asked = others.map(|peer| {
            let ask = ask.clone();
            async move { (peer, hello(self.channels, &peer.addr, ask).await) }
        });
        let answered = futures::future::join_all(asked).await;
        let disputed = disputed(answered.iter().filter_map(|(_, a)| a.as_ref().ok()));
        let mut peers = PeerFacts::default();
        let mut hellos = BTreeMap::new();
        for (peer, answered) in answered {
            let answer = match &answered {
                // An empty node cannot tell which of two recoveries is to stay: nobody's word counts.
                Ok(_) if ask.cluster_uuid.is_empty() && disputed.is_some() => PeerAnswer::Silent {
                    why: disputed.clone().unwrap_or_default(),
                },
                Ok(reply) => peer_answer(&peer.name, reply, &ask),
                Err(why) => PeerAnswer::Silent { why: why.clone() },
            };
            if let Ok(reply) = answered {
                hellos.insert(peer.name.clone(), reply);
            }
            peers.peers.push(PeerFact {
                name: peer.name.clone(),
                answer,
            });
        }
        peers.peers.extend(self.ask_own_place(&ask).await);
        (peers, hellos)
    }

    /// Who answers where this node's own name is listed: this process, or another one when the directory was copied. It
    /// counts only as the word of a newer life of the cluster: that ends this directory wherever it is.
    async fn ask_own_place(&self, ask: &proto::HelloRequest) -> Option<PeerFact> {
        let own = |p: &&confman_config::Peer| p.name == self.settings.node_name;
        let listed = self.settings.peers.iter().find(own)?;
        let reply = hello(self.channels, &listed.addr, ask.clone()).await.ok()?;
        let newer = !ask.cluster_uuid.is_empty()
            && reply.cluster_uuid == ask.cluster_uuid
            && reply.incarnation > ask.incarnation;
        newer.then(|| PeerFact {
            name: format!("{} at {}", listed.name, listed.addr),
            answer: peer_answer(&listed.name, &reply, ask),
        })
    }

    async fn rejoin(
        &mut self,
        hellos: &BTreeMap<String, proto::HelloReply>,
        via: &[String],
        resume: Option<u64>,
    ) -> Result<Option<Established>, StartError> {
        // A leader of this name is this node as it was: the others have not elected another yet.
        let leader = via
            .iter()
            .filter_map(|name| hellos.get(name)?.leader.clone())
            .find(|leader| leader.name != self.settings.node_name);
        let Some(leader) = leader else {
            return Ok(None);
        };
        crate::rejoin::rejoin(self, leader, resume).await
    }
}

/// Asks one address who is there.
pub(crate) async fn hello(
    channels: &Channels,
    addr: &str,
    ask: proto::HelloRequest,
) -> Result<proto::HelloReply, String> {
    let mut stub = channels
        .stub(addr, Purpose::Control)
        .map_err(|e| e.to_string())?;
    let asked =
        tokio::time::timeout(HELLO_WITHIN, stub.hello(with_deadline(ask, HELLO_WITHIN))).await;
    match asked {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err(format!("no answer within {HELLO_WITHIN:?}")),
    }
}

/// Two recoveries that made the same incarnation of the same cluster, when the answers hold both.
fn disputed<'a>(replies: impl Iterator<Item = &'a proto::HelloReply>) -> Option<String> {
    let mut lineages: BTreeMap<(&str, u64), &str> = BTreeMap::new();
    for reply in replies.filter(|r| !r.cluster_uuid.is_empty()) {
        let life = (reply.cluster_uuid.as_str(), reply.incarnation);
        let first = *lineages.entry(life).or_insert(&reply.lineage);
        if first != reply.lineage {
            return Some(format!(
                "two recoveries made incarnation {} of cluster {}: {first:?} and {:?}; stop the nodes of one of them and set their data directories aside",
                reply.incarnation, reply.cluster_uuid, reply.lineage
            ));
        }
    }
    None
}

fn peer_answer(name: &str, reply: &proto::HelloReply, asked: &proto::HelloRequest) -> PeerAnswer {
    let cluster = ClusterId::new(reply.cluster_uuid.clone(), reply.incarnation);
    if reply.cluster_uuid == asked.cluster_uuid {
        // A life that has not begun ends no other.
        if reply.incarnation > asked.incarnation && reply.unborn {
            return PeerAnswer::Silent {
                why: format!(
                    "it is to begin incarnation {}, which has not begun",
                    reply.incarnation
                ),
            };
        }
        if reply.incarnation == asked.incarnation && reply.lineage != asked.lineage {
            return PeerAnswer::Silent {
                why: format!(
                    "it is of another recovery ({:?}) of incarnation {}; this node is of {:?}",
                    reply.lineage, reply.incarnation, asked.lineage
                ),
            };
        }
    }
    let found = reply.node.as_ref().map_or("", |n| n.name.as_str());
    if found != name {
        return PeerAnswer::Silent {
            why: format!("the node there is called {found}, not {name}; check CONFMAN_PEERS"),
        };
    }
    match reply.state() {
        proto::hello_reply::State::Empty => PeerAnswer::Empty,
        proto::hello_reply::State::Forming => PeerAnswer::Forming { cluster },
        proto::hello_reply::State::Member => PeerAnswer::Member {
            cluster,
            leader: reply.leader.as_ref().map(|l| l.name.clone()),
            you_are_retired: reply.caller_retired,
        },
        proto::hello_reply::State::Fenced => PeerAnswer::Fenced { cluster },
    }
}

fn birth_member(node: &proto::Node) -> MemberAtBirth {
    MemberAtBirth {
        id: node.id,
        info: Some(node_info(node)),
    }
}

pub(crate) fn node_info(node: &proto::Node) -> NodeInfo {
    NodeInfo {
        name: node.name.clone(),
        api_url: node.api_url.clone(),
        peer_addr: node.peer_addr.clone(),
    }
}

fn wire_node(member: &MemberAtBirth) -> proto::Node {
    let info = member.info.clone().unwrap_or_default();
    proto::Node {
        id: member.id,
        name: info.name,
        api_url: info.api_url,
        peer_addr: info.peer_addr,
        boot: 0,
    }
}

/// Says a verdict when it is new, and a wait again every now and then.
fn say(verdict: &Verdict, said: &mut Option<(String, Instant)>) {
    let text = match &verdict.decision {
        Decision::Wait { until, hint } => {
            format!("{}; until {until}; hint: {hint}", verdict.reason)
        }
        decision => format!("{}: {}", decision.word(), verdict.reason),
    };
    let fresh = said
        .as_ref()
        .is_none_or(|(last, when)| *last != text || when.elapsed() > SAY_AGAIN);
    if !fresh {
        return;
    }
    match &verdict.decision {
        Decision::Wait { .. } => tracing::warn!(decision = "wait", "{text}"),
        decision => tracing::info!(decision = decision.word(), "{}", verdict.reason),
    }
    for note in &verdict.notes {
        tracing::warn!("{note}");
    }
    *said = Some((text, Instant::now()));
}
