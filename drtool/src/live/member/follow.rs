//! Follows a change to its end and says what it waits for.

use std::collections::BTreeSet;
use std::time::Duration;

use confman_cli::failure::Failure;
use confman_client::members;
use confman_client::wire::{Change, ChangeIntent, MemberState, Members, ReplicaRole};
use confman_client::{Client, ClientError, Endpoint, ErrorKind};
use indicatif::ProgressBar;
use tokio::time::Instant;

use crate::codes;
use crate::context::Global;

const LOOK: Duration = Duration::from_millis(300);
/// What stands still for so long is asked why.
const ASK_WHY: Duration = Duration::from_secs(2);

/// What a node is in every group, in a few words.
pub(super) fn roles(members: &Members, id: u64) -> String {
    let groups = members.groups.len();
    let votes = members
        .groups
        .iter()
        .filter(|g| g.voters.contains(&id))
        .count();
    let learns = members
        .groups
        .iter()
        .filter(|g| g.learners.contains(&id))
        .count();
    let leads: Vec<&str> = members
        .groups
        .iter()
        .filter(|g| g.leader == Some(id))
        .map(|g| g.group.as_str())
        .collect();
    let mut words = match (votes, learns) {
        (0, 0) => "no group".to_owned(),
        (votes, 0) if votes == groups => "votes in all".to_owned(),
        (0, learns) if learns == groups => "learns in all".to_owned(),
        (votes, learns) => format!("votes in {votes}, learns in {learns} of {groups}"),
    };
    if !leads.is_empty() {
        words.push_str(&format!(", leads {}", leads.join(", ")));
    }
    words
}

/// How far it is, in one line.
fn progress(change: &Change, members: &Members) -> String {
    let Some(id) = change.node_id else {
        let at = members
            .expected
            .iter()
            .find(|e| e.name == change.name)
            .map_or_else(String::new, |e| format!(" at {}", e.peer_addr));
        return format!("waiting for {} to be started{at}", change.name);
    };
    let mut line = format!("{} ({id}) {}", change.name, roles(members, id));
    if let Some(old_name) = &change.old_name {
        let old = members
            .nodes
            .iter()
            .filter(|n| n.name == *old_name && n.state != MemberState::Retired)
            .max_by_key(|n| n.id);
        if let Some(old) = old {
            line.push_str(&format!(
                "; {} ({}) {}",
                old.name,
                old.id,
                roles(members, old.id)
            ));
        }
    }
    line
}

/// Follows the change `id` until it has ended; gives the members then.
pub(super) async fn to_the_end(
    client: &Client,
    intent: &ChangeIntent,
    id: &str,
    within: Duration,
    global: &Global,
) -> Result<Members, Failure> {
    let until = Instant::now() + within;
    // Whose status may be asked with the key is what a node says that has it already.
    let _ = client.status(None).await;
    let bar = global.waiting(&intent.to_string());
    let mut said = String::new();
    let mut since = Instant::now();
    loop {
        match client.members().await {
            Ok(answered) => {
                let members = answered.value;
                match members.change.as_ref().filter(|c| c.id == id) {
                    Some(change) if change.ended_at.is_some() => {
                        ended(change)?;
                        return Ok(members);
                    }
                    Some(change) => {
                        let mut line = progress(change, &members);
                        if since.elapsed() > ASK_WHY {
                            for why in waits(client, &members).await {
                                line.push_str("; ");
                                line.push_str(&why);
                            }
                        }
                        if line != said {
                            say(&line, &bar, global);
                            said = line;
                            since = Instant::now();
                        }
                    }
                    // Another change has begun since: this one was done, or was called off by it.
                    None => return replaced(intent, members),
                }
            }
            Err(error) => {
                let line = format!("the cluster does not answer: {error}");
                if !may_pass(&error) {
                    return Err(error.into());
                }
                if line != said {
                    say(&line, &bar, global);
                    said = line;
                }
            }
        }
        if Instant::now() >= until {
            return Err(codes::refuse("CHANGE_GOES_ON", ErrorKind::Unknown,
                format!("the change has not ended within {} s: {said}", within.as_secs()))
            .with_hint("it goes on without this command; run the same command again to follow it, or `drtool member list` to look"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// An election, a node that restarts.
fn may_pass(error: &ClientError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unreachable | ErrorKind::Unknown | ErrorKind::Bug
    )
}

/// On stderr, as a line that stays; a script that follows the progress gets it with that.
fn say(line: &str, bar: &ProgressBar, global: &Global) {
    let line = confman_cli::escape::text(line);
    bar.set_message(line.clone().into_owned());
    if global.json {
        global.note(line);
    } else {
        bar.suspend(|| eprintln!("  {line}"));
    }
}

fn ended(change: &Change) -> Result<(), Failure> {
    match &change.error {
        None => Ok(()),
        Some(why) => Err(given_up(format!("{} was given up: {why}", change.words))),
    }
}

fn replaced(intent: &ChangeIntent, members: Members) -> Result<Members, Failure> {
    match members::plan(intent, &members, true) {
        Ok(plan) if plan.nothing_to_do.is_some() => Ok(members),
        _ => {
            let other = members.change.as_ref().map_or_else(
                || "it is not written down any more".to_owned(),
                |c| format!("{} by {} took its place", c.words, c.actor),
            );
            Err(given_up(format!("{intent} was called off: {other}")))
        }
    }
}

fn given_up(what: String) -> Failure {
    codes::refuse("CHANGE_GIVEN_UP", ErrorKind::Unknown, what)
        .with_hint("some groups may have changed: `drtool member list` shows what is; every intent can be repeated")
}

/// What the leaders of the groups say that they wait for.
async fn waits(client: &Client, members: &Members) -> BTreeSet<String> {
    let leaders: BTreeSet<u64> = members.groups.iter().filter_map(|g| g.leader).collect();
    let urls = members
        .nodes
        .iter()
        .filter(|n| leaders.contains(&n.id))
        .filter_map(|n| n.api_url.parse::<Endpoint>().ok())
        // Only those that the cluster's own status names get the key.
        .filter(|endpoint| client.known_endpoints().contains(endpoint));
    let mut waits = BTreeSet::new();
    for endpoint in urls {
        let Ok(answered) = client.status(Some(&endpoint)).await else {
            continue;
        };
        for group in answered.value.groups {
            if let (ReplicaRole::Leader, Some(wait)) = (group.role, group.membership_wait) {
                waits.insert(format!("{}: {wait}", group.group));
            }
        }
    }
    waits
}

#[cfg(test)]
mod tests {
    use confman_client::wire::{GroupMembers, MemberNode, MemberWish, Time};

    use super::*;

    fn members() -> Members {
        let node = |id: u64| MemberNode {
            id,
            name: format!("node{id}"),
            api_url: format!("http://n{id}:6100"),
            peer_addr: format!("n{id}:6101"),
            state: MemberState::Active,
            wish: MemberWish::Voter,
            replaces: None,
            removed_index: None,
            admitted_at: Time::from_us(0),
            up: id != 2,
        };
        let group = |name: &str, voters: &[u64], learners: &[u64]| GroupMembers {
            group: name.to_owned(),
            leader: Some(1),
            voters: voters.to_vec(),
            learners: learners.to_vec(),
            joint: false,
        };
        let mut gone = node(5);
        gone.state = MemberState::Retired;
        gone.removed_index = Some(77);
        Members {
            cluster_uuid: "9364aa70".to_owned(),
            incarnation: 1,
            registry: "1".to_owned(),
            nodes: vec![node(1), node(2), node(3), node(4), gone],
            expected: vec![confman_client::wire::ExpectedMember {
                name: "node9".to_owned(),
                peer_addr: "n9:6101".to_owned(),
                since: Time::from_us(0),
                learner_only: true,
                replaces: None,
            }],
            change: Some(Change {
                id: "c".to_owned(),
                kind: "replace".to_owned(),
                words: "replace node3 by node4".to_owned(),
                name: "node4".to_owned(),
                node_id: Some(4),
                old_name: Some("node3".to_owned()),
                group: None,
                actor: "ann".to_owned(),
                begun_at: Time::from_us(0),
                ended_at: None,
                error: None,
            }),
            groups: vec![
                group("__meta/0", &[1, 2, 3], &[4]),
                group("config/0", &[1, 2, 4], &[]),
            ],
        }
    }

    #[test]
    fn a_list_says_who_is_what_and_who_comes() {
        insta::assert_snapshot!(super::super::list::text(&members(), true));
        assert!(!super::super::list::text(&members(), false).contains("node5"));
    }

    #[test]
    fn progress_says_where_both_nodes_are() {
        let mut told = members();
        let change = told.change.clone().unwrap();
        assert_eq!(
            progress(&change, &told),
            "node4 (4) votes in 1, learns in 1 of 2; node3 (3) votes in 1, learns in 0 of 2"
        );
        let waiting = Change {
            node_id: None,
            name: "node9".to_owned(),
            ..change
        };
        assert_eq!(
            progress(&waiting, &told),
            "waiting for node9 to be started at n9:6101"
        );
        told.expected.clear();
        assert_eq!(progress(&waiting, &told), "waiting for node9 to be started");
    }

    #[test]
    fn a_change_that_is_not_ours_any_more_was_done_or_called_off() {
        let mut told = members();
        let remove = ChangeIntent::Remove {
            name: "node5".to_owned(),
        };
        told.change = None;
        assert!(replaced(&remove, told.clone()).is_ok(), "it is removed");
        let remove = ChangeIntent::Remove {
            name: "node3".to_owned(),
        };
        assert!(replaced(&remove, told).is_err());
    }
}
