//! Who the new life begins with.

use std::collections::{BTreeMap, BTreeSet};

use confman_cli::failure::Failure;
use confman_snapshot::model::Membership;
use confman_snapshot::repository::OrderMember;
use confman_snapshot::{SnapshotError, SnapshotReader};
use confman_store::keys;
use confman_store::membership::NodeWish;
use confman_store::records::{ClusterRecord, NodeRecord, NodeState};
use prost::Message;

use super::alive::Address;

use crate::codes;

/// Ids given after the snapshot of `__meta/0` are not in it: the new ones begin in the next thousand, and nobody has given
/// a thousand ids since.
const ID_STEP: u64 = 1000;

/// The first id that nobody can have had, when the highest that is known of is `highest`.
pub(super) fn first_id(highest: u64) -> u64 {
    (highest / ID_STEP + 1) * ID_STEP + 1
}

/// What a snapshot of `__meta/0` says of the cluster.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Registry {
    pub(super) cluster: ClusterRecord,
    pub(super) nodes: Vec<NodeRecord>,
}

/// Reads the few chunks that hold the records of the cluster and its nodes. None: it was taken before the cluster was born.
pub(super) async fn registry(reader: &SnapshotReader) -> Result<Option<Registry>, SnapshotError> {
    let (from, to) = (keys::cluster(), keys::node(u64::MAX));
    let mut cluster = None;
    let mut nodes = Vec::new();
    let damaged = |e: prost::DecodeError| SnapshotError::Damaged {
        object: reader.object().to_owned(),
        detail: format!("a record of the cluster does not decode: {e}"),
    };
    for (index, chunk) in reader.manifest().chunks.iter().enumerate() {
        if chunk.last_key < from || chunk.first_key > to {
            continue;
        }
        for (key, value) in reader.chunk(index).await? {
            if key == from {
                cluster = Some(ClusterRecord::decode(value.as_ref()).map_err(damaged)?);
            } else if key > from && key <= to {
                nodes.push(NodeRecord::decode(value.as_ref()).map_err(damaged)?);
            }
        }
    }
    Ok(cluster.map(|cluster| Registry { cluster, nodes }))
}

impl Registry {
    /// The registered nodes that were not retired, the newest id of each name.
    pub(super) fn living(&self) -> Vec<&NodeRecord> {
        let mut by_name: BTreeMap<&str, &NodeRecord> = BTreeMap::new();
        for node in self
            .nodes
            .iter()
            .filter(|n| n.state() != NodeState::Retired)
        {
            let newest = by_name.entry(&node.name).or_insert(node);
            if node.id > newest.id {
                *newest = node;
            }
        }
        by_name.into_values().collect()
    }

    /// Those of them that shall be members. Whether they were at that moment is another thing: one that is being rebuilt is joining, and
    /// so is one that was just added. Who was being taken out is not brought back.
    fn wanted(&self) -> impl Iterator<Item = &NodeRecord> {
        let living = self.living().into_iter();
        living.filter(|node| node.wish() != NodeWish::Gone)
    }

    /// Those of them that are no members yet, under any id.
    pub(super) fn joining(&self) -> impl Iterator<Item = &NodeRecord> {
        let was_member = |name: &str| {
            let mut nodes = self.nodes.iter();
            nodes.any(|n| n.name == name && n.state() != NodeState::Joining)
        };
        self.wanted().filter(move |n| !was_member(&n.name))
    }

    fn is_learner(&self, name: &str) -> bool {
        let mut wanted = self.wanted();
        wanted.any(|node| node.name == name && node.wish() == NodeWish::Learner)
    }
}

/// A member as `NAME=API_URL,PEER_ADDR` gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) name: String,
    pub(super) api_url: String,
    pub(super) peer_addr: String,
}

impl std::str::FromStr for Given {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not NAME=API_URL,PEER_ADDR, such as node1=http://10.0.0.1:6100,10.0.0.1:6101"
            )
        };
        let (name, addresses) = text.split_once('=').ok_or_else(wrong)?;
        let (api_url, peer_addr) = addresses.split_once(',').ok_or_else(wrong)?;
        let (name, api_url, peer_addr) = (name.trim(), api_url.trim(), peer_addr.trim());
        if name.is_empty() || !peer_addr.contains(':') || peer_addr.contains("://") {
            return Err(wrong());
        }
        api_url
            .parse::<confman_client::Endpoint>()
            .map_err(|e| format!("{e}"))?;
        Ok(Self {
            name: name.to_owned(),
            api_url: api_url.to_owned(),
            peer_addr: peer_addr.to_owned(),
        })
    }
}

/// The members of the new life with ids above `highest`, in order of their names, and the first id that is free after them.
pub(super) fn members(
    given: &[Given],
    registry: &Registry,
    highest: u64,
) -> Result<(Vec<OrderMember>, u64), Failure> {
    let mut wanted: Vec<Given> = if given.is_empty() {
        let as_given = |node: &NodeRecord| Given {
            name: node.name.clone(),
            api_url: node.api_url.clone(),
            peer_addr: node.peer_addr.clone(),
        };
        registry.wanted().map(as_given).collect()
    } else {
        given.to_vec()
    };
    wanted.sort_by(|a, b| a.name.cmp(&b.name));
    if wanted.is_empty() {
        return Err(
            codes::usage("NO_MEMBERS", "the snapshot of __meta/0 names no member")
                .with_hint("name the members of the new life with --member NAME=API_URL,PEER_ADDR"),
        );
    }
    for what in [
        |g: &Given| g.name.clone(),
        |g: &Given| g.api_url.clone(),
        |g: &Given| g.peer_addr.clone(),
    ] {
        let mut seen = BTreeSet::new();
        if let Some(twice) = wanted.iter().map(what).find(|w| !seen.insert(w.clone())) {
            return Err(
                codes::usage("ARGUMENT", format!("two members share {twice:?}"))
                    .with_hint("give each its own name and addresses with --member"),
            );
        }
    }
    // Where nobody else is there, somebody has to.
    let nobody_votes = wanted.iter().all(|g| registry.is_learner(&g.name));
    let first = first_id(highest);
    let members: Vec<OrderMember> = (first..)
        .zip(wanted)
        .map(|(id, member)| OrderMember {
            id,
            learner: registry.is_learner(&member.name) && !nobody_votes,
            name: member.name,
            api_url: member.api_url,
            peer_addr: member.peer_addr,
        })
        .collect();
    let next = first + members.len() as u64;
    Ok((members, next))
}

/// Every place where a member was, or is to be.
pub(super) fn addresses<'a>(
    registry: &Registry,
    memberships: impl Iterator<Item = &'a Membership>,
    members: &[OrderMember],
) -> Vec<Address> {
    let registered = registry.living().into_iter().map(|node| Address {
        name: node.name.clone(),
        api_url: node.api_url.clone(),
        peer_addr: node.peer_addr.clone(),
    });
    let recorded = memberships.flat_map(|membership| {
        membership.nodes.values().map(|node| Address {
            name: node.name.clone(),
            api_url: node.api_url.clone(),
            peer_addr: node.peer_addr.clone(),
        })
    });
    let all: BTreeSet<Address> = registered
        .chain(recorded)
        .chain(addresses_of(members))
        .filter(|address| !address.api_url.is_empty())
        .collect();
    all.into_iter().collect()
}

/// Where the members of an order are to be.
pub(super) fn addresses_of(members: &[OrderMember]) -> impl Iterator<Item = Address> {
    members.iter().map(|member| Address {
        name: member.name.clone(),
        api_url: member.api_url.clone(),
        peer_addr: member.peer_addr.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64, name: &str, state: NodeState) -> NodeRecord {
        NodeRecord {
            id,
            name: name.to_owned(),
            api_url: format!("http://{name}:6100"),
            peer_addr: format!("{name}:6101"),
            state: state.into(),
            ..NodeRecord::default()
        }
    }

    fn registry() -> Registry {
        Registry {
            cluster: ClusterRecord::default(),
            nodes: vec![
                node(1, "node1", NodeState::Retired),
                node(2, "node2", NodeState::Active),
                node(4, "node1", NodeState::Active),
                node(5, "node9", NodeState::Joining),
            ],
        }
    }

    #[test]
    fn i14_ids_are_above_every_one_that_can_have_been_given() {
        let (members, next) = members(&[], &registry(), 5).unwrap();
        let named: Vec<(u64, &str)> = members.iter().map(|m| (m.id, m.name.as_str())).collect();
        assert_eq!(named, [(1001, "node1"), (1002, "node2"), (1003, "node9")]);
        assert_eq!(next, 1004);
        let given = ["b=http://b:1,b:2".parse().unwrap()];
        let (again, _) = super::members(&given, &registry(), 1002).unwrap();
        assert_eq!(again[0].id, 2001);
    }

    #[test]
    fn members_are_those_that_shall_be_and_as_what_they_shall_be() {
        let wished = |id, name, state, wish: NodeWish| NodeRecord {
            wish: wish.into(),
            ..node(id, name, state)
        };
        let registry = Registry {
            cluster: ClusterRecord::default(),
            nodes: vec![
                node(1, "node1", NodeState::Active),
                // Rebuilt a moment ago, and the old id not retired yet.
                node(2, "node2", NodeState::Active),
                node(6, "node2", NodeState::Joining),
                wished(3, "node3", NodeState::Active, NodeWish::Learner),
                wished(4, "node4", NodeState::Active, NodeWish::Gone),
                wished(5, "node5", NodeState::Joining, NodeWish::Learner),
                node(7, "node7", NodeState::Joining),
            ],
        };
        let roles = |given: &[Given]| -> Vec<(String, bool)> {
            let (members, _) = members(given, &registry, 7).unwrap();
            members.into_iter().map(|m| (m.name, m.learner)).collect()
        };
        let named = |all: &[(&str, bool)]| -> Vec<(String, bool)> {
            all.iter().map(|(n, l)| ((*n).to_owned(), *l)).collect()
        };
        assert_eq!(
            roles(&[]),
            named(&[
                ("node1", false),
                ("node2", false),
                ("node3", true),
                ("node5", true),
                ("node7", false)
            ])
        );
        let joining: Vec<&str> = registry.joining().map(|n| n.name.as_str()).collect();
        assert_eq!(joining, ["node5", "node7"]);
        // One that moved is what it was; one alone votes.
        let given = |text: &str| text.parse::<Given>().unwrap();
        let (one, three) = (given("node1=http://b:1,b:2"), given("node3=http://c:1,c:2"));
        let moved = [one, three.clone()];
        assert_eq!(roles(&moved), named(&[("node1", false), ("node3", true)]));
        assert_eq!(roles(&[three]), named(&[("node3", false)]));
    }

    #[test]
    fn i19_members_are_taken_as_people_write_them_or_refused() {
        for wrong in [
            "",
            "a",
            "a=b",
            "a=http://b:1",
            "=http://b:1,b:2",
            "a=b:1,b:2",
            "a=http://b:1,http://b:2",
        ] {
            assert!(wrong.parse::<Given>().is_err(), "{wrong}");
        }
        let twice: Vec<Given> = ["a=http://b:1,b:2", "c=http://b:1,b:3"]
            .iter()
            .map(|t| t.parse().unwrap())
            .collect();
        assert!(members(&twice, &registry(), 5).is_err());
    }
}
