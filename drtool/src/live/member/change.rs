//! Plan, show, ask, send.

use std::process::ExitCode;
use std::time::Duration;

use confman_cli::failure::Failure;
use confman_cli::output;
use confman_client::members::{self, MemberPlan, MemberRefusal};
use confman_client::wire::{Change, ChangeIntent, ChangeRequest, Members};
use confman_client::{Client, ClientError, ErrorKind};
use serde::Serialize;

use super::{ChangeArgs, follow, list};
use crate::codes;
use crate::consent::{self, Consent};
use crate::context::Global;

/// The document of `--json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    /// `planned`, `nothingToDo`, `begun` or `done`.
    outcome: &'static str,
    plan: &'a MemberPlan,
    change: Option<&'a Change>,
}

pub(super) async fn run(
    intent: ChangeIntent,
    how: &ChangeArgs,
    global: &Global,
) -> Result<ExitCode, Failure> {
    let client = how.to.client(global.verbose, None)?;
    let members = client.members().await.map_err(failed)?.value;
    let plan = members::plan(&intent, &members, how.allow_less_tolerance)
        .map_err(|refusal| refused(&refusal))?;
    let shown = consent::show(&plan)?;
    let end = |outcome: &'static str, change: Option<&Change>| {
        if global.json {
            let plan = &plan;
            output::json(&Document {
                outcome,
                plan,
                change,
            })?;
        }
        Ok(ExitCode::SUCCESS)
    };
    if plan.nothing_to_do.is_some() {
        return end("nothingToDo", None);
    }
    if how.plan {
        return end("planned", None);
    }
    let id = match &plan.resumes {
        Some(id) => id.clone(),
        None => {
            let word: String = members.cluster_uuid.chars().take(8).collect();
            // Who comes can go again; what goes is retired for ever, or weakens the cluster.
            let yes = how.yes || !takes(&intent);
            let consent = consent::ask(shown, yes, &word)?;
            match begin(&client, &intent, &consent, how).await? {
                Some(id) => id,
                None => return end("done", None),
            }
        }
    };
    if how.no_wait {
        return end("begun", None);
    }
    let within = Duration::from_secs(how.within);
    let after = follow::to_the_end(&client, &intent, &id, within, global).await?;
    done(&after, global)?;
    end("done", after.change.as_ref().filter(|c| c.id == id))
}

/// Whether it takes something away.
fn takes(intent: &ChangeIntent) -> bool {
    match intent {
        ChangeIntent::Demote { .. }
        | ChangeIntent::Remove { .. }
        | ChangeIntent::Replace { .. } => true,
        ChangeIntent::Add { .. }
        | ChangeIntent::Promote { .. }
        | ChangeIntent::TransferLeader { .. } => false,
    }
}

fn done(members: &Members, global: &Global) -> Result<(), Failure> {
    if global.json {
        return Ok(());
    }
    crate::live::status::print(&list::text(members, false))
}

/// Asks the cluster to begin; gives the change's id, and none when all was done at once.
async fn begin(
    client: &Client,
    intent: &ChangeIntent,
    consent: &Consent<'_, MemberPlan>,
    how: &ChangeArgs,
) -> Result<Option<String>, Failure> {
    let id = uuid::Uuid::new_v4().to_string();
    let request = ChangeRequest {
        id: id.clone(),
        registry: consent.plan().registry.clone(),
        allow_less_tolerance: how.allow_less_tolerance,
        intent: intent.clone(),
    };
    let answer = client.change_members(&request).await.map_err(failed)?.value;
    Ok(answer
        .change
        .filter(|change| change.id == id || intent.is_of(change))
        .map(|change| change.id))
}

fn refused(refusal: &MemberRefusal) -> Failure {
    let kind = match refusal.code {
        "MEMBER_UNKNOWN" | "GROUP_UNKNOWN" => ErrorKind::NotFound,
        "BAD_ADDRESS" | "BAD_NAME" | "SAME_NAME" | "ADDRESS_NEEDED" => ErrorKind::Usage,
        _ => ErrorKind::Refused,
    };
    codes::refuse(refusal.code, kind, refusal.what.clone()).with_hint(refusal.hint.clone())
}

/// A refusal of the node keeps its stable name.
fn failed(error: ClientError) -> Failure {
    let code = error.problem().and_then(|problem| match problem.kind() {
        Some(confman_client::wire::ProblemKind::MembershipChanged) => Some("MEMBERSHIP_CHANGED"),
        _ => codes::find(problem.code.as_deref()?).map(|code| code.name),
    });
    let failure = Failure::from(error);
    match code {
        Some(code) => failure.coded(code),
        None => failure,
    }
}
