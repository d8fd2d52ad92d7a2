//! Accounts of made-up nodes.

use confman_client::wire::{
    ExpectedMember, GroupReadiness, MemberRole, Readiness, ReplicaRole, Status, Time,
};
use serde_json::json;

use super::super::account::{Account, Asked};

/// 2026-11-21T12:00:00Z.
pub(crate) const NOW_US: i64 = 1_795_262_400_000_000;

/// A cluster in the making.
#[derive(Clone)]
pub(crate) struct Town {
    pub(crate) nodes: Vec<Account>,
    /// Names that may join and have not.
    pub(crate) expected: Vec<ExpectedMember>,
}

/// As many nodes as asked for, which agree on everything, in `__meta/0` and the given number of other groups.
pub(crate) fn town(nodes: u64, shards: u32) -> Town {
    let members: Vec<_> = (1..=nodes)
        .map(|id| {
            json!({"id": id, "name": format!("node{id}"), "role": "voter", "apiUrl": format!("http://n{id}:6100"),
                   "peerAddr": format!("n{id}:6101"), "matchedIndex": null})
        })
        .collect();
    let groups: Vec<String> = std::iter::once("__meta/0".to_owned())
        .chain((0..shards).map(|n| format!("config/{n}")))
        .collect();
    let group = |name: &String, id: u64| {
        json!({
            "group": name, "role": if id == 1 { "leader" } else { "follower" }, "term": 4,
            "leader": {"id": 1, "name": "node1", "apiUrl": "http://n1:6100"},
            "lastIndex": 900, "committedIndex": 900, "appliedIndex": 900, "purgedIndex": 500,
            "logEntries": 400, "logBytes": 40_000, "stateHash": {"index": 900, "hash": "ab".repeat(32)},
            "snapshot": {"id": "00000000000000000880-0000000001-0000000004-0a1b2c3d", "index": 880,
                         "time": Time::from_us(NOW_US - 600_000_000).to_string(), "verified": true},
            "snapshotError": null, "restore": null, "members": members,
        })
    };
    let account = |id: u64| {
        let status = json!({
            "clusterUuid": "9364aa70-e271-4c58-ae67-4d9335cf3d17", "incarnation": 1,
            "node": {"id": id, "name": format!("node{id}")}, "ready": true,
            "groups": groups.iter().map(|name| group(name, id)).collect::<Vec<_>>(),
        });
        let status: Status = serde_json::from_value(status).unwrap();
        Account {
            endpoint: format!("http://n{id}:6100"),
            readiness: Some(Readiness {
                ready: true,
                node: Some(status.node.clone()),
                cluster_uuid: Some(status.cluster_uuid.clone()),
                reason: None,
                groups: Vec::new(),
            }),
            status: Some(status),
            hashes: Vec::new(),
            error: None,
            refused: false,
        }
    };
    Town {
        nodes: (1..=nodes).map(account).collect(),
        expected: Vec::new(),
    }
}

impl Town {
    /// What was asked of it.
    pub(crate) fn asked(&self) -> Asked {
        Asked {
            nodes: self.nodes.clone(),
            expected: Some(self.expected.clone()),
        }
    }

    /// The node is of this incarnation.
    pub(crate) fn lives_in(&mut self, node: usize, incarnation: u64) {
        self.status(node).incarnation = incarnation;
    }

    /// The node leads all groups, and is their only member.
    pub(crate) fn alone(&mut self, node: usize) {
        let status = self.status(node);
        let own = status.node.clone();
        for group in &mut status.groups {
            group.role = ReplicaRole::Leader;
            group.members.retain(|member| member.id == own.id);
            if let Some(leader) = &mut group.leader {
                (leader.id, leader.name) = (own.id, own.name.clone());
            }
        }
    }

    /// A node of that number may join.
    pub(crate) fn expect(&mut self, node: usize) {
        self.expected.push(ExpectedMember {
            name: format!("node{node}"),
            peer_addr: format!("n{node}:6101"),
            since: Time::from_us(NOW_US - 60_000_000),
            learner_only: false,
            replaces: None,
        });
    }

    /// The status of a node, counted from 1.
    pub(crate) fn status(&mut self, node: usize) -> &mut Status {
        self.nodes[node - 1].status.as_mut().unwrap()
    }

    /// The node does not answer any more.
    pub(crate) fn silence(&mut self, node: usize) {
        let account = &mut self.nodes[node - 1];
        account.status = None;
        account.readiness = None;
        account.error = Some(format!(
            "GET /api/v1/status: no node could answer within 5.0 s: http://n{node}:6100: connection refused"
        ));
    }

    /// The node runs and serves nothing, and says why.
    pub(crate) fn close(&mut self, node: usize, reason: &str) {
        self.silence(node);
        self.nodes[node - 1].readiness = Some(Readiness {
            ready: false,
            node: None,
            cluster_uuid: None,
            reason: Some(reason.to_owned()),
            groups: Vec::new(),
        });
    }

    /// The node knows no leader, and is not ready.
    pub(crate) fn orphan(&mut self, node: usize) {
        let status = self.status(node);
        status.ready = false;
        for group in &mut status.groups {
            group.leader = None;
            group.role = ReplicaRole::Candidate;
        }
        let groups = status
            .groups
            .iter()
            .map(|g| GroupReadiness {
                group: g.group.clone(),
                ready: false,
                reason: Some(
                    "no leader: nothing was heard from one, or no quorum answers".to_owned(),
                ),
            })
            .collect();
        self.nodes[node - 1].readiness = Some(Readiness {
            ready: false,
            node: None,
            cluster_uuid: None,
            reason: None,
            groups,
        });
    }

    /// The node is a learner in everybody's view.
    pub(crate) fn learner(&mut self, node: u64) {
        for status in self.nodes.iter_mut().filter_map(|a| a.status.as_mut()) {
            let own = status.node.id == node;
            for group in &mut status.groups {
                if own {
                    group.role = ReplicaRole::Learner;
                }
                for member in group.members.iter_mut().filter(|m| m.id == node) {
                    member.role = MemberRole::Learner;
                }
            }
        }
    }
}
