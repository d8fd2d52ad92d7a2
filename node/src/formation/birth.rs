//! The birth of a cluster, in two phases.
//!
//! The first member by name makes the identities and hands one to every other (`Prepare`); when every node has it on disk
//! it says so (`Commence`), and only then does any group run. An id is therefore never handed out twice after a vote may
//! have been cast under it (I14).
//!
//! Crash points: before `Prepare` is on every disk nothing has run, and the coordinator begins again with the same
//! identities. A node writes down that it has started (`Initialized`, by [`crate::serve`]) after its groups are on disk
//! and before any of them can vote; from then on a lost disk is a lost id. Every member of the birth initializes its groups
//! with the same first entry, which is harmless to repeat.

use std::collections::BTreeMap;
use std::time::Duration;

use confman_bootstrap::facts::{LocalIdentity, Stage as LocalStage};
use confman_snapshot::model::{ClusterId, NodeInfo};
use confman_store::datadir::{Facts, Identity, IdentityState, MemberAtBirth};
use tonic::Status;

use super::{Established, Formation, StartError, node_info};
use crate::peer::client::{Purpose, with_deadline};
use crate::peer::desk::{Birth, Stage};
use crate::peer::{Refusal, proto};

const LOOK_AGAIN: Duration = Duration::from_millis(300);

impl Formation<'_> {
    /// Waits a little for birth messages.
    pub(super) async fn listen(&mut self) -> Result<(), StartError> {
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
            created_us: crate::clock::wall_us(),
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
    pub(super) async fn coordinate(
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
            created_us: crate::clock::wall_us(),
            lineage: String::new(),
            incarnation_floor: 0,
        }
    }
}

fn birth_member(node: &proto::Node) -> MemberAtBirth {
    MemberAtBirth {
        id: node.id,
        info: Some(node_info(node)),
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
