//! The nouns that every package shares: groups, positions, members, clusters.
//!
//! They are our own structs, written to disk and to the wire by `prost` and shown by `serde`; openraft's types
//! change between versions and are converted at the border of `confman-store`, in one place.
//!
//! Not here: anything that does I/O, reads a clock or knows a file name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use confman_lthash::NotAHash;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The topic of the group that holds what belongs to the whole cluster.
pub const META_TOPIC: &str = "__meta";
/// The topic of the groups that hold configuration.
pub const CONFIG_TOPIC: &str = "config";
/// Longest topic name, in bytes.
const TOPIC_BYTES_MAX: usize = 64;

/// Why a piece of text or a stored struct is not what it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {found:?} is not valid: expected {expected}")]
pub struct ModelError {
    /// What was being read, as a noun.
    pub what: &'static str,
    /// What was found.
    pub found: String,
    /// What would have been right.
    pub expected: &'static str,
}

impl ModelError {
    pub(crate) fn new(
        what: &'static str,
        found: impl Into<String>,
        expected: &'static str,
    ) -> Self {
        Self {
            what,
            found: found.into(),
            expected,
        }
    }
}

impl From<NotAHash> for ModelError {
    fn from(error: NotAHash) -> Self {
        let NotAHash {
            what,
            found,
            expected,
        } = error;
        Self {
            what,
            found,
            expected,
        }
    }
}

/// One Raft group: a topic and a partition, written `config/0`.
///
/// A value that came out of [`prost::Message::decode`] is only known to be well formed after [`GroupId::check`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Message)]
pub struct GroupId {
    #[prost(string, tag = "1")]
    topic: String,
    #[prost(uint32, tag = "2")]
    partition: u32,
}

impl GroupId {
    /// The group `__meta/0`.
    pub fn meta() -> Self {
        Self {
            topic: META_TOPIC.to_owned(),
            partition: 0,
        }
    }

    /// The group `config/{partition}`.
    pub fn config(partition: u32) -> Self {
        Self {
            topic: CONFIG_TOPIC.to_owned(),
            partition,
        }
    }

    /// Any group; the topic may hold `a-z 0-9 _ -` only, because it becomes a part of file and object names.
    pub fn new(topic: impl Into<String>, partition: u32) -> Result<Self, ModelError> {
        let group = Self {
            topic: topic.into(),
            partition,
        };
        group.check()?;
        Ok(group)
    }

    /// Whether the topic is one that may become a part of a file or object name.
    pub fn check(&self) -> Result<(), ModelError> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        if self.topic.is_empty()
            || self.topic.len() > TOPIC_BYTES_MAX
            || !self.topic.bytes().all(good)
        {
            return Err(ModelError::new(
                "topic",
                self.topic.clone(),
                "1 to 64 of a-z, 0-9, _ and -",
            ));
        }
        Ok(())
    }

    /// The part before the `/`.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The part after the `/`.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Whether this is `__meta/0`.
    pub fn is_meta(&self) -> bool {
        self.topic == META_TOPIC
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

impl FromStr for GroupId {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        let wrong = || ModelError::new("group", text, "topic/partition, such as config/0");
        let (topic, partition) = text.split_once('/').ok_or_else(wrong)?;
        let number: u32 = partition.parse().map_err(|_| wrong())?;
        // One text per group: `config/00` and `config/+0` are refused.
        if number.to_string() != partition {
            return Err(wrong());
        }
        Self::new(topic, number)
    }
}

impl Serialize for GroupId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GroupId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The position of a log entry: the leader that wrote it (term and node) and its index. Ordered as Raft orders logs.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, prost::Message,
)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// The term of the leader that wrote the entry.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// The id of that leader.
    #[prost(uint64, tag = "2")]
    pub node: u64,
    /// The index of the entry in the log.
    #[prost(uint64, tag = "3")]
    pub index: u64,
}

impl Position {
    /// A position from its three parts.
    pub fn new(term: u64, node: u64, index: u64) -> Self {
        Self { term, node, index }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (term {}, node {})", self.index, self.term, self.node)
    }
}

/// How a member of a group is called and reached.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, prost::Message)]
#[serde(rename_all = "camelCase")]
pub struct NodeInfo {
    /// The operator's name for the node.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The URL that clients use.
    #[prost(string, tag = "2")]
    pub api_url: String,
    /// The `host:port` that other nodes use.
    #[prost(string, tag = "3")]
    pub peer_addr: String,
}

/// The members of a group and where in its log they were written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Membership {
    /// The membership entry; none before the first.
    pub position: Option<Position>,
    /// The voters: one set, or two while a change is under way.
    pub voters: Vec<BTreeSet<u64>>,
    /// All members, learners too, by node id.
    pub nodes: BTreeMap<u64, NodeInfo>,
}

/// [`Membership`] as it is written to disk and to the wire.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MembershipMessage {
    /// See [`Membership::position`].
    #[prost(message, optional, tag = "1")]
    pub position: Option<Position>,
    /// See [`Membership::voters`].
    #[prost(message, repeated, tag = "2")]
    pub voters: Vec<VoterSet>,
    /// See [`Membership::nodes`].
    #[prost(btree_map = "uint64, message", tag = "3")]
    pub nodes: BTreeMap<u64, NodeInfo>,
}

/// One set of voters in a [`MembershipMessage`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct VoterSet {
    /// Node ids, ascending.
    #[prost(uint64, repeated, tag = "1")]
    pub ids: Vec<u64>,
}

impl From<&Membership> for MembershipMessage {
    fn from(membership: &Membership) -> Self {
        Self {
            position: membership.position,
            voters: membership
                .voters
                .iter()
                .map(|set| VoterSet {
                    ids: set.iter().copied().collect(),
                })
                .collect(),
            nodes: membership.nodes.clone(),
        }
    }
}

impl From<Membership> for MembershipMessage {
    fn from(membership: Membership) -> Self {
        Self::from(&membership)
    }
}

impl From<MembershipMessage> for Membership {
    fn from(message: MembershipMessage) -> Self {
        Self {
            position: message.position,
            voters: message
                .voters
                .into_iter()
                .map(|set| set.ids.into_iter().collect())
                .collect(),
            nodes: message.nodes,
        }
    }
}

/// Which cluster, and which of its lives.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, prost::Message)]
#[serde(rename_all = "camelCase")]
pub struct ClusterId {
    /// A UUID in its usual lower case text, born with the cluster.
    #[prost(string, tag = "1")]
    pub uuid: String,
    /// 1 at birth, one more at every recovery that Raft alone could not do.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
}

impl ClusterId {
    /// A cluster id from its two parts; see [`ClusterId::check`].
    pub fn new(uuid: impl Into<String>, incarnation: u64) -> Self {
        Self {
            uuid: uuid.into(),
            incarnation,
        }
    }

    /// Whether the uuid has the one form that may become a part of an object name.
    pub fn check(&self) -> Result<(), ModelError> {
        let bytes = self.uuid.as_bytes();
        let good = bytes.len() == 36
            && bytes.iter().enumerate().all(|(i, b)| match i {
                8 | 13 | 18 | 23 => *b == b'-',
                _ => b.is_ascii_digit() || (b'a'..=b'f').contains(b),
            });
        if good {
            Ok(())
        } else {
            Err(ModelError::new(
                "cluster uuid",
                self.uuid.clone(),
                "a lower case UUID",
            ))
        }
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (incarnation {})", self.uuid, self.incarnation)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn a_group_has_one_text() {
        for group in [
            GroupId::meta(),
            GroupId::config(0),
            GroupId::config(u32::MAX),
        ] {
            assert_eq!(group.to_string().parse::<GroupId>().unwrap(), group);
            let json = serde_json::to_string(&group).unwrap();
            assert_eq!(json, format!("\"{group}\""));
            assert_eq!(serde_json::from_str::<GroupId>(&json).unwrap(), group);
        }
        for text in [
            "",
            "config",
            "config/",
            "/0",
            "config/00",
            "config/+1",
            "config/-1",
            "Config/0",
            "a/b/0",
            "../0",
        ] {
            assert!(text.parse::<GroupId>().is_err(), "{text:?}");
        }
        assert!(GroupId::default().check().is_err());
    }

    #[test]
    fn a_joint_membership_survives_its_message() {
        let membership = Membership {
            position: Some(Position::new(1, 2, 3)),
            voters: vec![[1, 2, 3].into(), [2, 3, 4].into()],
            nodes: [
                (
                    1,
                    NodeInfo {
                        name: "node1".into(),
                        ..NodeInfo::default()
                    },
                ),
                (4, NodeInfo::default()),
            ]
            .into(),
        };
        let bytes = MembershipMessage::from(&membership).encode_to_vec();
        assert_eq!(
            Membership::from(MembershipMessage::decode(bytes.as_slice()).unwrap()),
            membership
        );
    }

    #[test]
    fn positions_order_as_raft_orders_logs() {
        assert!(Position::new(1, 1, 9) < Position::new(2, 1, 3));
        assert!(Position::new(2, 1, 9) < Position::new(2, 2, 3));
        assert!(Position::new(2, 1, 3) < Position::new(2, 1, 4));
    }

    #[test]
    fn a_cluster_uuid_has_one_form() {
        let good = "0d0a3a8e-6d4c-4f0e-9a57-3c1b2d9e8f70";
        ClusterId::new(good, 1).check().unwrap();
        for bad in [
            "",
            "0D0A3A8E-6d4c-4f0e-9a57-3c1b2d9e8f70",
            "../../../../../../../../../../../../",
            &good[1..],
        ] {
            assert!(ClusterId::new(bad, 1).check().is_err(), "{bad}");
        }
    }
}
