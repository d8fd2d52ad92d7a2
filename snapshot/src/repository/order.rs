//! What empty nodes are told to restore: the words of a restore order, and of its end.
//!
//! An order lies in the cluster object of the life that it begins, so that there is one at most for each life and it appears
//! at once or not at all. It leaves a node no choices: one snapshot of each group, the members with ids that nobody ever had,
//! the term above which they vote. It is spent when its [`OrderDone`] exists, and is never carried out after that.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::cluster::rfc3339;
use crate::model::{ClusterId, GroupId, Membership, NodeInfo, Position};
use crate::record::SnapshotRecord;

/// Newest version of an order. Until 2, every member voted: a node that knows no other must not begin such a life with those that do.
const VERSION: u32 = 2;
/// Version of the word that an order is spent.
const DONE_VERSION: u32 = 1;
/// More members than any cluster has.
const MEMBERS_MAX: usize = 128;
/// Longest name, address or other text in an order, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// What empty nodes do to bring a life of the cluster about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreOrder {
    /// Version of the order's format: [`RestoreOrder::version_for`] its members.
    pub version: u32,
    /// The plan that it was made from, and the lineage of the life that it begins.
    pub plan_id: String,
    /// How many `config/` groups there are.
    pub shards: u32,
    /// The term of the votes that the members start with: well above any that an older life can have used.
    pub term: u64,
    /// One snapshot of every group.
    pub groups: Vec<SnapshotRecord>,
    /// The members of the new life.
    pub members: Vec<OrderMember>,
    /// The first node id that the new life may give: all below were given once.
    pub next_node_id: u64,
    /// Who ordered it.
    pub operator: String,
    /// What is lost, in a sentence or two: goes into the audit history.
    pub summary: String,
}

/// A member of the life that an order begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderMember {
    /// Its id, which no node ever had.
    pub id: u64,
    /// The operator's name for the node that is to be it.
    pub name: String,
    /// The URL that clients use.
    pub api_url: String,
    /// The `host:port` that other nodes use.
    pub peer_addr: String,
    /// It follows and does not vote.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub learner: bool,
}

/// The word that an order is spent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderDone {
    /// Version of this object's format: 1.
    pub version: u32,
    /// The life that the order began.
    #[serde(flatten)]
    pub cluster: ClusterId,
    /// The plan of the order.
    pub plan_id: String,
    /// When it was spent, microseconds since 1970 UTC; RFC 3339 in the object.
    #[serde(rename = "createdAt", with = "rfc3339")]
    pub created_us: i64,
    /// The node that led then.
    pub created_by: String,
}

/// An order that this program does not carry out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// It was made by a newer program.
    #[error("the restore order has version {found}, this program carries out up to {VERSION}")]
    Newer {
        /// Its version.
        found: u32,
    },
    /// It is not one that this package could have made.
    #[error("the restore order is not whole: {0}")]
    Invalid(String),
}

impl RestoreOrder {
    /// The version of an order for these members: the lowest that says all of it, so that nodes of an older version carry out what
    /// they can.
    #[must_use]
    pub fn version_for(members: &[OrderMember]) -> u32 {
        if members.iter().any(|m| m.learner) {
            VERSION
        } else {
            1
        }
    }

    /// Reads an order from what stands in a cluster object, and checks it.
    pub(super) fn read(order: &serde_json::Value, life: &ClusterId) -> Result<Self, OrderError> {
        // The version first: the rest may look otherwise in a newer one.
        let version = order.get("version").and_then(serde_json::Value::as_u64);
        match version.and_then(|v| u32::try_from(v).ok()) {
            Some(found) if found > VERSION => return Err(OrderError::Newer { found }),
            Some(_) => {}
            None => return Err(OrderError::Invalid("it has no version".to_owned())),
        }
        let read = Self::deserialize(order).map_err(|e| OrderError::Invalid(e.to_string()))?;
        read.check(life)?;
        Ok(read)
    }

    /// Whether an order that came from the store can be carried out as the beginning of `life`.
    pub fn check(&self, life: &ClusterId) -> Result<(), OrderError> {
        if self.version > VERSION {
            return Err(OrderError::Newer {
                found: self.version,
            });
        }
        let invalid = |detail: String| Err(OrderError::Invalid(detail));
        let texts = [&self.plan_id, &self.operator, &self.summary];
        if self.plan_id.is_empty() || texts.iter().any(|text| text.len() > 4 * TEXT_BYTES_MAX) {
            return invalid("its texts are empty or too long".to_owned());
        }
        if self.members.is_empty() || self.members.len() > MEMBERS_MAX {
            return invalid(format!("{} members", self.members.len()));
        }
        let names: BTreeSet<&str> = self.members.iter().map(|m| m.name.as_str()).collect();
        let ids: BTreeSet<u64> = self.members.iter().map(|m| m.id).collect();
        if names.len() < self.members.len() || ids.len() < self.members.len() {
            return invalid("two members share a name or an id".to_owned());
        }
        if ids.contains(&0) || ids.iter().any(|id| *id >= self.next_node_id) {
            return invalid("a member's id is zero, or would be given again".to_owned());
        }
        if self.members.iter().all(|m| m.learner) {
            return invalid("no member votes".to_owned());
        }
        if self.version < Self::version_for(&self.members) {
            return invalid("a member does not vote, which its version cannot say".to_owned());
        }
        for member in &self.members {
            let texts = [&member.name, &member.api_url, &member.peer_addr];
            if texts
                .iter()
                .any(|t| t.is_empty() || t.len() > TEXT_BYTES_MAX)
            {
                return invalid(format!(
                    "the name or an address of member {} is empty or too long",
                    member.id
                ));
            }
        }
        self.check_groups(life)
    }

    fn check_groups(&self, life: &ClusterId) -> Result<(), OrderError> {
        let invalid = |detail: String| Err(OrderError::Invalid(detail));
        let mut there = BTreeSet::new();
        for record in &self.groups {
            if let Err(error) = record.check() {
                return invalid(error.to_string());
            }
            if record.cluster_uuid != life.uuid || record.incarnation >= life.incarnation {
                return invalid(format!(
                    "snapshot {} is of {}, which is no older life of {life}",
                    record.id,
                    record.cluster()
                ));
            }
            if record.position.term >= self.term {
                return invalid(format!(
                    "term {} is not above that of snapshot {}",
                    self.term, record.id
                ));
            }
            if !there.insert(&record.group) {
                return invalid(format!("two snapshots of {}", record.group));
            }
        }
        // Bounded by what is there before anything of that size is made.
        let wanted = u64::from(self.shards) + 1;
        let complete = self.shards > 0
            && there.len() as u64 == wanted
            && there.contains(&GroupId::meta())
            && (0..self.shards).all(|partition| there.contains(&GroupId::config(partition)));
        if !complete {
            return invalid(format!(
                "{} snapshots for __meta/0 and {} config groups",
                there.len(),
                self.shards
            ));
        }
        Ok(())
    }

    /// The member that the node of this name is to be.
    pub fn member(&self, name: &str) -> Option<&OrderMember> {
        self.members.iter().find(|member| member.name == name)
    }

    /// The snapshot of one group.
    pub fn record(&self, group: &GroupId) -> Option<&SnapshotRecord> {
        self.groups.iter().find(|record| record.group == *group)
    }

    /// The ids of those who vote.
    pub fn voters(&self) -> impl Iterator<Item = u64> {
        self.members.iter().filter(|m| !m.learner).map(|m| m.id)
    }

    /// The membership that a group has from `position` on.
    pub fn membership(&self, position: Position) -> Membership {
        let nodes: BTreeMap<u64, NodeInfo> = self
            .members
            .iter()
            .map(|member| {
                let info = NodeInfo {
                    name: member.name.clone(),
                    api_url: member.api_url.clone(),
                    peer_addr: member.peer_addr.clone(),
                };
                (member.id, info)
            })
            .collect();
        Membership {
            position: Some(position),
            voters: vec![self.voters().collect()],
            nodes,
        }
    }
}

impl OrderDone {
    /// The end of an order, now.
    pub fn new(
        cluster: ClusterId,
        plan_id: impl Into<String>,
        created_us: i64,
        created_by: impl Into<String>,
    ) -> Self {
        Self {
            version: DONE_VERSION,
            cluster,
            plan_id: plan_id.into(),
            created_us,
            created_by: created_by.into(),
        }
    }
}
