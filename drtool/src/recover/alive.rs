//! The last look before a directory is touched: whether anybody lives who must not be recovered from.

use std::collections::BTreeSet;

use confman_cli::failure::Failure;
use confman_client::ErrorKind;

use super::collect::{Caller, ask};
use super::plan::Plan;
use super::role::Role;

use crate::codes;

/// Asks every member of the plan and whoever the operator names.
pub(super) async fn refuse(
    plan: &Plan,
    role: Role,
    given: Vec<String>,
    caller: &Caller,
) -> Result<(), Failure> {
    let urls: BTreeSet<String> = plan.member_urls().into_iter().chain(given).collect();
    let urls: Vec<String> = urls.into_iter().collect();
    for live in ask(&urls, caller).await? {
        let status = live
            .status
            .as_ref()
            .filter(|s| s.cluster_uuid == plan.cluster.uuid);
        let ready = live.readiness.as_ref().is_some_and(|r| r.ready);
        let Some(status) = status else {
            // Who tells no more than that it is ready may be of the new life: then another directory may follow it.
            if ready && live.status.is_none() && role == Role::Survivor {
                return Err(alive(&format!("a node is ready at {}", live.url)));
            }
            continue;
        };
        let name = &status.node.name;
        if status.incarnation > plan.cluster.incarnation
            && (role == Role::Survivor || status.incarnation > plan.new_incarnation)
        {
            let text = format!(
                "{name} at {} is of incarnation {} already",
                live.url, status.incarnation
            );
            return Err(
                codes::refuse("RECOVER_NEWER_LIFE", ErrorKind::Refused, text).with_hint(
                    "somebody has recovered already: start this node, it says how to rejoin",
                ),
            );
        }
        let led = status.groups.iter().find_map(|g| g.leader.as_ref());
        if status.incarnation == plan.cluster.incarnation
            && let Some(leader) = led
        {
            return Err(alive(&format!(
                "{name} at {} follows {}",
                live.url, leader.name
            )));
        }
    }
    Ok(())
}

fn alive(what: &str) -> Failure {
    codes::refuse(
        "RECOVER_QUORUM_ALIVE",
        ErrorKind::Refused,
        format!("a quorum of the cluster lives: {what}"),
    )
    .with_hint("do not recover: bring the missing nodes back, with their directories or empty")
}
