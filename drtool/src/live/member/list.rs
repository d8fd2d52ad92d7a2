//! `drtool member list`.

use std::process::ExitCode;

use confman_cli::failure::Failure;
use confman_cli::{escape, output};
use confman_client::wire::{MemberNode, MemberState, MemberWish, Members};

use super::ListArgs;
use super::follow::roles;
use crate::context::Global;

pub(super) async fn run(args: &ListArgs, global: &Global) -> Result<ExitCode, Failure> {
    let client = args.to.client(global.verbose, None)?;
    let answered = client.members().await?;
    global.note(format!("answered by {}", answered.endpoint));
    if global.json {
        output::json(&answered.value)?;
    } else {
        crate::live::status::print(&text(&answered.value, args.all))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The members as people read them.
pub(crate) fn text(members: &Members, all: bool) -> String {
    let mut table = output::table(["NODE", "STATE", "SHALL BE", "UP", "IN", "API", "PEERS"]);
    let shown = members
        .nodes
        .iter()
        .filter(|n| all || n.state != MemberState::Retired);
    for node in shown {
        table.add_row(row(members, node));
    }
    let mut lines: Vec<String> = table.lines().map(|l| l.trim_end().to_owned()).collect();
    for expected in &members.expected {
        let role = if expected.learner_only {
            ", as a learner"
        } else {
            ""
        };
        lines.push(format!(
            "expected: {} at {} since {}{role}",
            expected.name, expected.peer_addr, expected.since
        ));
    }
    if let Some(change) = &members.change {
        let state = match (&change.ended_at, &change.error) {
            (None, _) => "under way".to_owned(),
            (Some(at), None) => format!("done at {at}"),
            (Some(at), Some(why)) => format!("given up at {at}: {why}"),
        };
        lines.push(format!(
            "change: {}, begun by {} at {}: {state}",
            change.words, change.actor, change.begun_at
        ));
    }
    let text = lines.join("\n");
    format!("{}\n", escape::lines(&text))
}

fn row(members: &Members, node: &MemberNode) -> [String; 7] {
    let state = match node.state {
        MemberState::Joining => "joining".to_owned(),
        MemberState::Active => "active".to_owned(),
        MemberState::Retired => match node.removed_index {
            Some(index) => format!("removed at {index}"),
            None => "retired".to_owned(),
        },
    };
    let wish = match (node.state, node.wish) {
        (MemberState::Retired, _) => "-",
        (_, MemberWish::Voter) => "voter",
        (_, MemberWish::Learner) => "learner",
        (_, MemberWish::Gone) => "gone",
    };
    [
        escape::text(&format!("{} ({})", node.name, node.id)).into_owned(),
        state,
        wish.to_owned(),
        if node.up { "yes" } else { "no" }.to_owned(),
        roles(members, node.id),
        escape::text(&node.api_url).into_owned(),
        escape::text(&node.peer_addr).into_owned(),
    ]
}
