//! What each intent asks for: voters that come and go, and the steps in words.

use std::collections::BTreeSet;

use super::{Comer, MemberPlan, MemberRefusal, Shift, living, needed, refuse};
use crate::wire::{ChangeIntent, MemberNode, MemberState, MemberWish, Members};

fn votes_in(members: &Members, id: u64) -> usize {
    members
        .groups
        .iter()
        .filter(|g| g.voters.contains(&id))
        .count()
}

fn votes_everywhere(members: &Members, id: u64) -> bool {
    votes_in(members, id) == members.groups.len() && members.groups.iter().all(|g| !g.joint)
}

fn up(node: &MemberNode, what: &str) -> Result<(), MemberRefusal> {
    if node.up {
        return Ok(());
    }
    refuse(
        "MEMBER_DOWN",
        format!("{} does not answer the leader: {what}", node.name),
        "look whether its process runs and at its log; start it again with its usual settings",
    )
}

/// What the intent asks for, as voters that come and go; and the steps in words.
pub(super) fn shift(
    intent: &ChangeIntent,
    members: &Members,
    plan: &mut MemberPlan,
) -> Result<Shift, MemberRefusal> {
    match intent {
        ChangeIntent::Add {
            name,
            peer_addr,
            learner_only,
        } => add(name, peer_addr, *learner_only, members, plan),
        ChangeIntent::Promote { name } => promote(name, members, plan),
        ChangeIntent::Demote { name } => demote(name, members, plan),
        ChangeIntent::Remove { name } => remove(name, members, plan),
        ChangeIntent::Replace {
            old_name,
            name,
            peer_addr,
        } => replace(old_name, name, peer_addr.as_deref(), members, plan),
        ChangeIntent::TransferLeader { name, group } => {
            transfer(name, group.as_deref(), members, plan)
        }
    }
}

fn all(members: &Members) -> &'static str {
    if members.groups.len() == 1 {
        "the group"
    } else {
        "every group"
    }
}

fn comes_empty(name: &str, peer_addr: &str, plan: &mut MemberPlan) {
    plan.steps.push(format!(
        "expect an empty node called {name} at {peer_addr}; until it comes nothing else happens"
    ));
    plan.notes.push(format!(
        "start {name} with CONFMAN_NODE_NAME={name}, CONFMAN_PEER_ADVERTISE={peer_addr}, an empty data directory, the cluster's token, keys and store, and CONFMAN_PEERS with the members and itself"
    ));
}

fn promotion(members: &Members, instead_of: Option<&str>, plan: &mut MemberPlan) {
    let old = instead_of.map_or_else(String::new, |old| {
        format!(" in place of {old}, in one change")
    });
    plan.steps.push(format!(
        "when it is at most 500 entries behind and its state hash is that of the leader, let it vote in {}{old}",
        all(members)
    ));
}

fn check_address(peer_addr: &str) -> Result<(), MemberRefusal> {
    let good = peer_addr.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(['/', ' ', '@'])
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if good {
        return Ok(());
    }
    refuse(
        "BAD_ADDRESS",
        format!("{peer_addr:?} is no host and port"),
        "give the address where the node listens for other nodes, such as node4.example:6101",
    )
}

fn check_name(name: &str) -> Result<(), MemberRefusal> {
    let good = (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if good {
        return Ok(());
    }
    refuse(
        "BAD_NAME",
        format!("{name:?} is no name of a node"),
        "a name is 1 to 64 letters, digits, `.`, `_` or `-`, the first a letter or digit",
    )
}

fn add(
    name: &str,
    peer_addr: &str,
    learner_only: bool,
    members: &Members,
    plan: &mut MemberPlan,
) -> Result<Shift, MemberRefusal> {
    check_name(name)?;
    check_address(peer_addr)?;
    if let Some(node) = living(members, name) {
        let wish = if learner_only {
            MemberWish::Learner
        } else {
            MemberWish::Voter
        };
        if node.peer_addr == peer_addr && node.wish == wish && node.state == MemberState::Active {
            plan.nothing_to_do = Some(format!("{name} ({}) is a member", node.id));
            return Ok(Shift::default());
        }
        return refuse(
            "MEMBER_EXISTS",
            format!(
                "{name} is a member as node id {} at {}",
                node.id, node.peer_addr
            ),
            "to move it start it with its new addresses; to change what it is `promote`, `demote` or `remove` it",
        );
    }
    address_free(peer_addr, None, members)?;
    comes_empty(name, peer_addr, plan);
    plan.steps.push(format!(
        "give it a new id, restore it from the store, feed it as a learner in {}",
        all(members)
    ));
    if learner_only {
        plan.notes.push(format!(
            "it does not vote until `drtool member promote {name}`"
        ));
        return Ok(Shift::default());
    }
    promotion(members, None, plan);
    Ok(Shift {
        comes: Some(Comer {
            id: None,
            name: name.to_owned(),
        }),
        goes: BTreeSet::new(),
    })
}

fn address_free(peer_addr: &str, but: Option<u64>, members: &Members) -> Result<(), MemberRefusal> {
    let taken = members
        .nodes
        .iter()
        .find(|n| n.state != MemberState::Retired && n.peer_addr == peer_addr && Some(n.id) != but);
    match taken {
        None => Ok(()),
        Some(node) => refuse(
            "ADDRESS_TAKEN",
            format!(
                "{peer_addr} is the peer address of {} ({})",
                node.name, node.id
            ),
            "give the new node an address of its own",
        ),
    }
}

fn promote(name: &str, members: &Members, plan: &mut MemberPlan) -> Result<Shift, MemberRefusal> {
    let node = needed(members, name)?;
    if node.wish == MemberWish::Voter && votes_everywhere(members, node.id) {
        plan.nothing_to_do = Some(format!("{name} ({}) votes in every group", node.id));
        return Ok(Shift::default());
    }
    up(node, "it could not catch up")?;
    promotion(members, None, plan);
    Ok(Shift {
        comes: Some(Comer {
            id: Some(node.id),
            name: name.to_owned(),
        }),
        goes: BTreeSet::new(),
    })
}

fn leads(members: &Members, id: u64) -> bool {
    members.groups.iter().any(|g| g.leader == Some(id))
}

fn hand_over(node: &MemberNode, members: &Members, plan: &mut MemberPlan) {
    if leads(members, node.id) {
        plan.steps
            .push(format!("{} hands over what it leads", node.name));
    }
}

fn demote(name: &str, members: &Members, plan: &mut MemberPlan) -> Result<Shift, MemberRefusal> {
    let node = needed(members, name)?;
    if node.wish == MemberWish::Learner && votes_in(members, node.id) == 0 {
        plan.nothing_to_do = Some(format!("{name} ({}) is a learner", node.id));
        return Ok(Shift::default());
    }
    hand_over(node, members, plan);
    plan.steps.push(format!(
        "it stops voting and follows on in {}",
        all(members)
    ));
    Ok(Shift {
        comes: None,
        goes: BTreeSet::from([node.id]),
    })
}

/// All ids that a name has, when its newest one goes: a lost disk may have left an older one half replaced.
fn ids_of(members: &Members, name: &str) -> BTreeSet<u64> {
    members
        .nodes
        .iter()
        .filter(|n| n.name == name && n.state != MemberState::Retired)
        .map(|n| n.id)
        .collect()
}

fn remove(name: &str, members: &Members, plan: &mut MemberPlan) -> Result<Shift, MemberRefusal> {
    let Some(node) = living(members, name) else {
        if members.expected.iter().any(|e| e.name == name) {
            plan.steps.push(format!(
                "{name} is not expected any more; it never had an id"
            ));
            return Ok(Shift::default());
        }
        let gone = members
            .nodes
            .iter()
            .filter(|n| n.name == name)
            .max_by_key(|n| n.id);
        if let Some(gone) = gone {
            let at = gone.removed_index.map_or_else(String::new, |index| {
                format!(" at index {index} of __meta/0")
            });
            plan.nothing_to_do = Some(format!("{name} ({}) was removed{at}", gone.id));
            return Ok(Shift::default());
        }
        return needed(members, name).map(|_| Shift::default());
    };
    hand_over(node, members, plan);
    plan.steps.push(format!(
        "it is taken out of {}, __meta/0 last",
        all(members)
    ));
    plan.steps
        .push(format!("node id {} is retired for ever", node.id));
    plan.notes.push(format!(
        "{name} stops by itself and keeps its data; to take it in again: `drtool member add`, then start it with an empty data directory"
    ));
    Ok(Shift {
        comes: None,
        goes: ids_of(members, name),
    })
}

fn replace(
    old_name: &str,
    name: &str,
    peer_addr: Option<&str>,
    members: &Members,
    plan: &mut MemberPlan,
) -> Result<Shift, MemberRefusal> {
    if old_name == name {
        return refuse(
            "SAME_NAME",
            format!("{name} cannot take its own place"),
            "a node that lost its disk needs no command: start it empty under its name",
        );
    }
    let new = living(members, name);
    let Some(old) = living(members, old_name) else {
        if let Some(new) = new
            && members.nodes.iter().any(|n| n.name == old_name)
            && votes_everywhere(members, new.id)
        {
            plan.nothing_to_do = Some(format!("{old_name} is gone and {name} ({}) votes", new.id));
            return Ok(Shift::default());
        }
        return needed(members, old_name).map(|_| Shift::default());
    };
    let id = match (new, peer_addr) {
        (Some(new), _) if new.replaces != Some(old.id) && votes_in(members, new.id) > 0 => {
            return refuse(
                "ALREADY_VOTES",
                format!("{name} ({}) votes already", new.id),
                format!("to have fewer nodes, `drtool member remove {old_name}`"),
            );
        }
        (Some(new), _) => {
            up(new, "it could not catch up")?;
            Some(new.id)
        }
        (None, None) => {
            return refuse(
                "ADDRESS_NEEDED",
                format!("{name} is no member yet, and its address was not given"),
                format!(
                    "`drtool member replace {old_name} {name} HOST:PORT`, with the address where it will listen for other nodes"
                ),
            );
        }
        (None, Some(peer_addr)) => {
            check_name(name)?;
            check_address(peer_addr)?;
            address_free(peer_addr, Some(old.id), members)?;
            comes_empty(name, peer_addr, plan);
            plan.steps.push(format!(
                "give it a new id, restore it from the store, feed it as a learner in {}",
                all(members)
            ));
            None
        }
    };
    hand_over(old, members, plan);
    promotion(members, Some(old_name), plan);
    plan.steps.push(format!(
        "node id {} ({old_name}) is retired for ever",
        old.id
    ));
    plan.notes.push(format!(
        "{old_name} stops by itself, if it runs, and keeps its data"
    ));
    Ok(Shift {
        comes: Some(Comer {
            id,
            name: name.to_owned(),
        }),
        goes: ids_of(members, old_name),
    })
}

fn transfer(
    name: &str,
    group: Option<&str>,
    members: &Members,
    plan: &mut MemberPlan,
) -> Result<Shift, MemberRefusal> {
    let node = needed(members, name)?;
    let wanted: Vec<_> = members
        .groups
        .iter()
        .filter(|g| group.is_none_or(|group| g.group == group))
        .collect();
    if wanted.is_empty() {
        let groups: Vec<&str> = members.groups.iter().map(|g| g.group.as_str()).collect();
        return refuse(
            "GROUP_UNKNOWN",
            format!("there is no group {}", group.unwrap_or_default()),
            format!("there are {}", groups.join(", ")),
        );
    }
    if wanted.iter().all(|g| g.leader == Some(node.id)) {
        plan.nothing_to_do = Some(format!("{name} ({}) leads already", node.id));
        return Ok(Shift::default());
    }
    if let Some(group) = wanted.iter().find(|g| !g.voters.contains(&node.id)) {
        return refuse(
            "NOT_A_VOTER",
            format!("{name} ({}) does not vote in {}", node.id, group.group),
            format!("`drtool member promote {name}` first"),
        );
    }
    up(node, "it could not lead")?;
    for group in wanted.iter().filter(|g| g.leader != Some(node.id)) {
        let from = group
            .leader
            .and_then(|id| members.nodes.iter().find(|n| n.id == id))
            .map_or_else(|| "whoever leads".to_owned(), |n| n.name.clone());
        plan.steps
            .push(format!("{}: {from} hands over to {name}", group.group));
    }
    Ok(Shift::default())
}
