//! The cluster, its nodes, its lives, its recorded snapshots: small records, and what the identity says of the same.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Ctx, Looked, codes, keys};
use crate::membership::{ChangeRecord, ExpectedRecord};
use crate::offline::{OfflineFinding, OfflineGroup, OfflineSeverity};
use crate::records::{
    ClusterRecord, FactsRecord, IncarnationRecord, NodeRecord, NodeState, SnapshotFactRecord,
    SnapshotFailure, SnapshotTask,
};

/// What was read of the cluster so far. There is a record for every node that ever was: few.
#[derive(Default)]
pub(super) struct Registry {
    facts: Option<FactsRecord>,
    cluster: Option<ClusterRecord>,
    /// The active node of each name.
    active: BTreeMap<String, u64>,
}

impl Registry {
    pub(super) fn facts_found(&self) -> Option<&FactsRecord> {
        self.facts.as_ref()
    }

    pub(super) fn facts(&mut self, ctx: &mut Ctx<'_>, key: &[u8], value: Bytes) {
        let Some(facts) = ctx.decode::<FactsRecord>(key, value) else {
            return;
        };
        if facts.last_time_us < facts.first_time_us {
            ctx.damaged(key, "the last command is earlier than the first");
        }
        self.facts = Some(facts);
    }

    pub(super) fn cluster(&mut self, ctx: &mut Ctx<'_>, key: &[u8], value: Bytes) {
        let Some(cluster) = ctx.decode::<ClusterRecord>(key, value) else {
            return;
        };
        if let Some(identity) = ctx.identity {
            let pairs = [
                (
                    "cluster",
                    cluster.uuid.clone(),
                    identity.cluster_uuid.clone(),
                ),
                (
                    "number of config groups",
                    cluster.shards.to_string(),
                    identity.shards.to_string(),
                ),
            ];
            for (what, found, said) in pairs {
                if found != said {
                    let what = format!("the state's {what} is {found}, the identity's {said}");
                    ctx.error(codes::IDENTITY_DISAGREES, what);
                }
            }
            newer_life(ctx, cluster.incarnation);
        }
        self.cluster = Some(cluster);
    }

    pub(super) fn node(&mut self, ctx: &mut Ctx<'_>, key: &[u8], value: Bytes) {
        let Some(node) = ctx.decode::<NodeRecord>(key, value) else {
            return;
        };
        if keys::node(node.id) != key {
            return ctx.damaged(key, "it is of another node id");
        }
        if let Some(cluster) = &self.cluster
            && node.id >= cluster.next_node_id
        {
            let what = format!(
                "node id {} was given, but the next one to give is {}",
                node.id, cluster.next_node_id
            );
            ctx.error(codes::RECORDS_DISAGREE, what);
        }
        if let Some(identity) = ctx.identity
            && identity.node_id == node.id
            && identity.name != node.name
        {
            let what = format!(
                "node id {} is {} in the state, {} in the identity",
                node.id, node.name, identity.name
            );
            ctx.error(codes::IDENTITY_DISAGREES, what);
        }
        if node.state() == NodeState::Active
            && let Some(other) = self.active.insert(node.name.clone(), node.id)
        {
            let what = format!(
                "nodes {other} and {} are both active as {}",
                node.id, node.name
            );
            ctx.error(codes::RECORDS_DISAGREE, what);
        }
    }
}

/// A state can be of an older life than the identity (what a recovery takes over is), never of a newer one.
fn newer_life(ctx: &mut Ctx<'_>, incarnation: u64) {
    if let Some(identity) = ctx.identity
        && incarnation > identity.incarnation
    {
        let what = format!(
            "the state is of incarnation {incarnation}, the identity of {}",
            identity.incarnation
        );
        ctx.error(codes::IDENTITY_DISAGREES, what);
    }
}

pub(super) fn incarnation(ctx: &mut Ctx<'_>, key: &[u8], value: Bytes) {
    let Some(record) = ctx.decode::<IncarnationRecord>(key, value) else {
        return;
    };
    newer_life(ctx, record.incarnation);
    if record
        .position
        .is_none_or(|begun| Some(begun) > ctx.applied)
    {
        ctx.damaged(key, "it stands after the last applied entry, or nowhere");
    }
}

/// Records of which only the form can be checked.
pub(super) fn small(ctx: &mut Ctx<'_>, key: &[u8], value: Bytes) {
    let read = match key.first().copied() {
        Some(keys::TASK) => ctx.decode::<SnapshotTask>(key, value).is_some(),
        Some(keys::FAILURE) => ctx.decode::<SnapshotFailure>(key, value).is_some(),
        Some(keys::EXPECTED) => ctx.decode::<ExpectedRecord>(key, value).is_some(),
        _ => ctx.decode::<ChangeRecord>(key, value).is_some(),
    };
    if read && !ctx.group.is_meta() {
        let what = format!("{} belongs to __meta/0", keys::describe(key));
        ctx.error(codes::RECORDS_DISAGREE, what);
    }
}

pub(super) fn snapshot(ctx: &mut Ctx<'_>, key: &[u8], value: Bytes) {
    let Some(fact) = ctx.decode::<SnapshotFactRecord>(key, value) else {
        return;
    };
    let wrong = match (&fact.record, &fact.membership) {
        (None, _) => Some("it names no snapshot".to_owned()),
        (_, None) => Some("it names no members".to_owned()),
        (Some(record), _) => match record.check() {
            Err(error) => Some(error.to_string()),
            Ok(()) if keys::snapshot(&record.id.to_string()) != key => {
                Some("it is of another id".to_owned())
            }
            Ok(()) if record.group != *ctx.group => Some(format!("it is of {}", record.group)),
            Ok(()) if Some(record.position) >= ctx.applied => {
                Some("it was taken after the last applied entry".to_owned())
            }
            Ok(()) => ctx
                .identity
                .filter(|identity| identity.cluster_uuid != record.cluster_uuid)
                .map(|_| format!("it is of cluster {}", record.cluster_uuid)),
        },
    };
    if let Some(wrong) = wrong {
        let what = format!("{}: {wrong}", keys::describe(key));
        ctx.error(codes::SNAPSHOT_RECORD_DAMAGED, what);
    }
}

/// Whether the node is one of the group, and whether the members are nodes that the cluster knows.
pub(super) fn own_node(group: &OfflineGroup, ctx: &mut Ctx<'_>) {
    let membership = &group.membership;
    if membership.position.is_none() {
        return;
    }
    if let Some(identity) = ctx.identity
        && !membership.nodes.contains_key(&identity.node_id)
    {
        let what = format!(
            "node {} is no member of {}: it was taken out, or has not been taken in yet",
            identity.node_id, group.group
        );
        let finding =
            OfflineFinding::new(OfflineSeverity::Info, codes::NOT_A_MEMBER, ctx.path, what);
        ctx.findings.push(finding);
    }
    let Looked::Found(cluster) = ctx.look::<ClusterRecord>(&keys::cluster()) else {
        return;
    };
    for id in membership.nodes.keys() {
        // A higher one was given after what this state has applied.
        if *id < cluster.next_node_id && !ctx.has(&keys::node(*id)) {
            let what = format!("node {id} is a member, and the cluster knows no such node");
            ctx.error(codes::RECORDS_DISAGREE, what);
        }
    }
}
