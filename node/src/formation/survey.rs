//! What the listed members answer to Hello, as facts for the table.

use std::collections::BTreeMap;

use confman_bootstrap::facts::{PeerAnswer, PeerFact, PeerFacts};
use confman_snapshot::model::ClusterId;
use confman_store::datadir::Facts;

use super::Formation;
use crate::peer::client::hello;
use crate::peer::proto;

impl Formation<'_> {
    /// What the other listed members answer; Hello to all at once.
    pub(super) async fn ask_peers(
        &self,
        facts: &Facts,
    ) -> (PeerFacts, BTreeMap<String, proto::HelloReply>) {
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
