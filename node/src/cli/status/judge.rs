//! What is wrong with a cluster, told from what its nodes say. Pure.

use std::collections::{BTreeMap, BTreeSet};

use confman_client::wire::{MemberRole, Status};

use super::NodeView;

/// One line for each thing that is wrong; none when all is well.
pub(super) fn findings(nodes: &[NodeView]) -> Vec<String> {
    let mut found = Vec::new();
    for node in nodes {
        if let Some(error) = &node.error {
            found.push(format!("{} does not answer: {error}", node.endpoint));
        }
    }
    let statuses: Vec<&Status> = nodes
        .iter()
        .filter_map(|node| node.status.as_ref())
        .collect();
    lives(&statuses, &mut found);
    for status in &statuses {
        if !status.ready {
            found.push(format!("{} is not ready", status.node.name));
        }
        for group in &status.groups {
            let who = format!("{} {}", status.node.name, group.group);
            if group.leader.is_none() {
                found.push(format!("{who}: it knows no leader"));
            }
            if let Some(error) = &group.snapshot_error {
                let hint = error
                    .hint
                    .as_ref()
                    .map_or_else(String::new, |hint| format!(" (hint: {hint})"));
                found.push(format!(
                    "{who}: snapshot failed at {} of {}: {}{hint}",
                    error.phase, error.time, error.message
                ));
            }
        }
    }
    hashes(&statuses, &mut found);
    leaders(&statuses, &mut found);
    members(&statuses, &mut found);
    found
}

/// All must be of one cluster and of one life of it.
fn lives(statuses: &[&Status], found: &mut Vec<String>) {
    let lives: BTreeSet<(&str, u64)> = statuses
        .iter()
        .map(|s| (s.cluster_uuid.as_str(), s.incarnation))
        .collect();
    if lives.len() > 1 {
        let lives: Vec<_> = lives
            .iter()
            .map(|(uuid, incarnation)| format!("{uuid} incarnation {incarnation}"))
            .collect();
        found.push(format!(
            "the nodes are of different clusters: {}",
            lives.join(", ")
        ));
    }
}

/// Replicas at the same position have the same state (I2).
fn hashes(statuses: &[&Status], found: &mut Vec<String>) {
    let mut seen: BTreeMap<(&str, u64), BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
    for status in statuses {
        for group in &status.groups {
            let at = (group.group.as_str(), group.state_hash.index);
            seen.entry(at)
                .or_default()
                .entry(&group.state_hash.hash)
                .or_default()
                .push(&status.node.name);
        }
    }
    for ((group, index), hashes) in seen {
        if hashes.len() > 1 {
            let sides: Vec<_> = hashes.values().map(|names| names.join(" and ")).collect();
            found.push(format!(
                "{group}: state differs at {index} between {}",
                sides.join(" / ")
            ));
        }
    }
}

/// In one term there is one leader.
fn leaders(statuses: &[&Status], found: &mut Vec<String>) {
    let mut seen: BTreeMap<(&str, u64), BTreeSet<(u64, &str)>> = BTreeMap::new();
    for status in statuses {
        for group in &status.groups {
            if let Some(leader) = &group.leader {
                seen.entry((&group.group, group.term))
                    .or_default()
                    .insert((leader.id, &leader.name));
            }
        }
    }
    for ((group, term), leaders) in seen {
        if leaders.len() > 1 {
            let names: Vec<_> = leaders
                .iter()
                .map(|(id, name)| format!("{name} ({id})"))
                .collect();
            found.push(format!(
                "{group}: more than one leader in term {term}: {}",
                names.join(", ")
            ));
        }
    }
}

/// Every voter must have answered; by id, because a node that lost its disk keeps its name and gets a new id.
fn members(statuses: &[&Status], found: &mut Vec<String>) {
    let answered: BTreeSet<u64> = statuses.iter().map(|status| status.node.id).collect();
    let mut missing: BTreeMap<(u64, &str), BTreeSet<&str>> = BTreeMap::new();
    for status in statuses {
        for group in &status.groups {
            for member in group
                .members
                .iter()
                .filter(|m| m.role == MemberRole::Voter && !answered.contains(&m.id))
            {
                missing
                    .entry((member.id, &member.name))
                    .or_default()
                    .insert(&group.group);
            }
        }
    }
    for ((id, name), groups) in missing {
        let groups: Vec<_> = groups.into_iter().collect();
        found.push(format!(
            "{name} ({id}), a voter of {}, has not answered",
            groups.join(", ")
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(id: u64, leader: u64, hash: &str) -> NodeView {
        let member = |id: u64| {
            serde_json::json!({"id": id, "name": format!("node{id}"), "role": "voter",
                "apiUrl": format!("http://n{id}"), "peerAddr": format!("n{id}:1"), "matchedIndex": null})
        };
        let status = serde_json::json!({
            "clusterUuid": "c", "incarnation": 1, "node": {"id": id, "name": format!("node{id}")}, "ready": true,
            "groups": [{
                "group": "config/0", "role": if id == leader { "leader" } else { "follower" }, "term": 4,
                "leader": {"id": leader, "name": format!("node{leader}"), "apiUrl": format!("http://n{leader}")},
                "lastIndex": 9, "committedIndex": 9, "appliedIndex": 9, "purgedIndex": 0, "logEntries": 9, "logBytes": 9,
                "stateHash": {"index": 9, "hash": hash}, "snapshot": null, "snapshotError": null, "restore": null,
                "members": [member(1), member(2)],
            }],
        });
        let status = serde_json::from_value(status).unwrap();
        NodeView {
            endpoint: format!("http://n{id}"),
            status: Some(status),
            error: None,
        }
    }

    fn cluster() -> [NodeView; 2] {
        [view(1, 1, "aa"), view(2, 1, "aa")]
    }

    #[test]
    fn nothing_is_wrong_with_a_cluster_that_agrees() {
        assert_eq!(findings(&cluster()), Vec::<String>::new());
    }

    #[test]
    fn i2_replicas_that_differ_at_one_position_are_named() {
        let found = findings(&[view(1, 1, "aa"), view(2, 1, "bb")]);
        assert_eq!(
            found,
            ["config/0: state differs at 9 between node1 / node2"]
        );
    }

    #[test]
    fn a_node_that_does_not_answer_is_a_finding() {
        let mut nodes = cluster();
        nodes[1].status = None;
        nodes[1].error = Some("refused".to_owned());
        let found = findings(&nodes);
        assert_eq!(
            found,
            [
                "http://n2 does not answer: refused",
                "node2 (2), a voter of config/0, has not answered"
            ]
        );
    }

    #[test]
    fn two_leaders_in_a_term_no_leader_and_two_lives_are_findings() {
        assert!(
            findings(&[view(1, 1, "aa"), view(2, 2, "aa")])[0]
                .contains("more than one leader in term 4")
        );
        let mut nodes = cluster();
        let status = nodes[0].status.as_mut().unwrap();
        status.groups[0].leader = None;
        status.ready = false;
        status.incarnation = 2;
        let found = findings(&nodes);
        assert!(found[0].contains("different clusters"), "{found:?}");
        assert_eq!(
            found[1..],
            ["node1 is not ready", "node1 config/0: it knows no leader"]
        );
    }

    #[test]
    fn a_failed_snapshot_is_a_finding_with_its_hint() {
        let mut nodes = cluster();
        nodes[0].status.as_mut().unwrap().groups[0].snapshot_error =
            Some(confman_client::wire::SnapshotError {
                time: confman_client::wire::Time::from_us(0),
                phase: "upload".to_owned(),
                message: "no such bucket".to_owned(),
                hint: Some("create it".to_owned()),
            });
        let expected = "node1 config/0: snapshot failed at upload of 1970-01-01T00:00:00.000000Z: no such bucket (hint: create it)";
        assert_eq!(findings(&nodes), [expected]);
    }
}
