//! Whether a message is of this node's own life and for it: judged by its header, before anything that it carries is looked at.
//!
//! Terms cannot tell lives apart: a majority that comes back out of an older life may be at the very term of the new one, or above it,
//! and Raft would follow its leader or count its votes (I13). So none of it gets as far as Raft.

use confman_snapshot::model::ClusterId;
use tonic::Status;

use super::{Refusal, proto};

/// What of a node decides it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own<'a> {
    pub(super) cluster: &'a ClusterId,
    pub(super) lineage: &'a str,
    /// A life that has not begun ends no other.
    pub(super) has_begun: bool,
    pub(super) node_id: u64,
    pub(super) name: &'a str,
}

impl Own<'_> {
    /// Refuses what is of another cluster, another life of it, or for another node.
    pub(super) fn check(&self, header: &proto::Header) -> Result<(), Status> {
        let own = self.cluster;
        if header.cluster_uuid != own.uuid {
            return Err(Refusal::OtherCluster.status(format!(
                "message of cluster {}, this node is of {}",
                escape(&header.cluster_uuid),
                own.uuid
            )));
        }
        if header.incarnation != own.incarnation {
            let detail = format!(
                "message of incarnation {}, this node is of {}",
                header.incarnation, own.incarnation
            );
            return Err(if self.has_begun {
                Refusal::of_incarnation(own.incarnation, detail)
            } else {
                Refusal::OtherIncarnation.status(detail)
            });
        }
        if header.lineage != self.lineage {
            return Err(Refusal::OtherLineage.status(format!(
                "two recoveries made an incarnation {}: {:?} and {:?}, this node's\nhint: decide which one stays, stop the nodes of the other and set their data directories aside",
                own.incarnation,
                escape(&header.lineage),
                self.lineage
            )));
        }
        if header.to_node != self.node_id {
            return Err(Refusal::OtherNode.status(format!(
                "message for node id {}, this is node id {} ({})",
                header.to_node, self.node_id, self.name
            )));
        }
        Ok(())
    }
}

pub(super) fn escape(text: &str) -> String {
    text.chars()
        .take(80)
        .flat_map(char::escape_default)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "9364aa70-e271-4c58-ae67-4d9335cf3d17";

    fn header(incarnation: u64, lineage: &str) -> proto::Header {
        proto::Header {
            cluster_uuid: UUID.to_owned(),
            incarnation,
            lineage: lineage.to_owned(),
            from_node: 2,
            to_node: 20,
            group: "config/0".to_owned(),
            ..proto::Header::default()
        }
    }

    fn refused(header: &proto::Header, has_begun: bool) -> Option<(Refusal, Option<u64>)> {
        let cluster = ClusterId::new(UUID, 2);
        let own = Own {
            cluster: &cluster,
            lineage: "plan-a",
            has_begun,
            node_id: 20,
            name: "node2",
        };
        let status = own.check(header).err()?;
        Some((Refusal::of(&status)?, Refusal::incarnation(&status)))
    }

    /// The old majority came back, was led again until its term was that of the survivor's vote, and still calls it by an id that it
    /// has by chance: what it sends differs from what a peer sends in its header alone.
    #[test]
    fn i13_an_old_majority_of_the_same_term_is_refused_by_its_life_alone() {
        assert_eq!(refused(&header(2, "plan-a"), true), None);
        assert_eq!(
            refused(&header(1, ""), true),
            Some((Refusal::OtherIncarnation, Some(2)))
        );
        assert_eq!(
            refused(&header(3, "plan-a"), true),
            Some((Refusal::OtherIncarnation, Some(2)))
        );
        // Who has not begun refuses as well, and tells nobody that his time is over.
        assert_eq!(
            refused(&header(1, ""), false),
            Some((Refusal::OtherIncarnation, None))
        );
        for lineage in ["", "plan-b"] {
            assert_eq!(
                refused(&header(2, lineage), true),
                Some((Refusal::OtherLineage, None)),
                "{lineage:?}"
            );
        }
        let mut foreign = header(2, "plan-a");
        foreign.cluster_uuid = UUID.replace('9', "8");
        assert_eq!(refused(&foreign, true), Some((Refusal::OtherCluster, None)));
        let mut other = header(2, "plan-a");
        other.to_node = 2;
        assert_eq!(refused(&other, true), Some((Refusal::OtherNode, None)));
    }

    /// A term is in what a message carries: whatever is done with that comes after the check of its header.
    #[test]
    fn i13_no_message_is_decoded_or_reaches_raft_before_its_header_is_checked() {
        let source = include_str!("service.rs");
        let mut checked = Vec::new();
        for function in source.split("\n    async fn ").skip(1) {
            let name = function.split('(').next().unwrap_or_default();
            let first = |what: &[&str]| what.iter().filter_map(|w| function.find(w)).min();
            let Some(used) = first(&[
                "codec::decode",
                "Command::decode",
                ".raft()",
                "group.",
                ".read_index_as_leader(",
                "incoming::",
            ]) else {
                continue;
            };
            let check = first(&["self.group(", "service.group("]);
            assert!(check.is_some_and(|check| check < used), "{name}");
            checked.push(name);
        }
        let all = [
            "vote",
            "pre_vote",
            "append_one",
            "transfer_leader",
            "install_snapshot",
            "read_index",
            "state_at",
            "do_propose",
        ];
        for name in all {
            assert!(checked.contains(&name), "{name} of {checked:?}");
        }
        // In a stream of appends that is so for each of them.
        let stream = source.split("fn append_stream(").nth(1).unwrap_or_default();
        let check = stream.find("check_header(").unwrap();
        assert!(check < stream.find("codec::decode").unwrap());
    }
}
