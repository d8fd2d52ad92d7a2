//! The membership for operators: `GET /api/v1/admin/members` and `POST /api/v1/admin/members/changes`.
//!
//! Promises: both are answered by the leader of `__meta/0`, which knows who answers it; a change is refused by the same
//! function that a tool shows as its plan ([`confman_client::members::plan`]), and when the registry is another one than the
//! plan was made from (409). What is accepted is replicated before it is answered; the executors carry it out.

use std::sync::Arc;

use confman_client::members::{self, MemberRefusal};
use confman_client::wire::{
    Change, ChangeAnswer, ChangeIntent, ChangeRequest, ExpectedMember, MemberNode, MemberState,
    MemberWish, Members, ProblemKind, Time,
};
use confman_store::command::{Op, RefusalCode};
use confman_store::membership::{
    BeginChange, ChangeKind, ChangeRecord, ExpectNode, ExpectedRecord, ForgetNode, NodeWish,
    Registry,
};
use confman_store::records::{NodeRecord, NodeState};
use http::StatusCode;

use super::backend::{GroupBackend, MembershipView, ReadMode};
use super::call::Call;
use super::failure::{Answer, Failure};
use super::query::Query;
use super::write::{self, WriteHead};
use super::{Api, call, headers, json, read};

/// A request is a few names.
const BODY_BYTES_MAX: u64 = 16 * 1024;

/// `GET /api/v1/admin/members`.
pub(crate) async fn get(api: &Arc<Api>, call: &mut Call) -> Answer {
    Query::parse(call.uri.query(), &[])?;
    let group = api.backend.meta();
    let forward = headers::flag(&call.headers, confman_client::wire::header::FORWARD)?;
    if let Some(response) = write::elsewhere(api, call, &group, forward).await? {
        return Ok(response);
    }
    let (_, members) = look(api, &group).await?;
    call::json(StatusCode::OK, &members)
}

/// `POST /api/v1/admin/members/changes`: answers when the change is begun; the members say how it goes on.
pub(crate) async fn change(api: &Arc<Api>, call: &mut Call) -> Answer {
    Query::parse(call.uri.query(), &[])?;
    let head = WriteHead::read(call)?;
    head.refuse_conditions()?;
    if !headers::is_json(&call.headers)? {
        return Err(Failure::invalid(
            "content-type",
            "a change is application/json",
        ));
    }
    let group = api.backend.meta();
    if let Some(response) = write::elsewhere(api, call, &group, head.forward).await? {
        return Ok(response);
    }
    let body = call.body()?.collect(BODY_BYTES_MAX, &api.budgets).await?;
    let request = parse(&body.bytes)?;
    let (registry, members) = look(api, &group).await?;
    if let Some(known) = members.change.as_ref().filter(|c| c.id == request.id) {
        return accepted(Some(known.clone()));
    }
    let plan = members::plan(&request.intent, &members, request.allow_less_tolerance)
        .map_err(|refusal| refused(&refusal))?;
    if plan.resumes.is_some() {
        return accepted(members.change);
    }
    if plan.nothing_to_do.is_some() {
        return call::json(
            StatusCode::OK,
            &ChangeAnswer {
                change: None,
                nothing_to_do: plan.nothing_to_do,
            },
        );
    }
    let seen = u64::from_str_radix(&request.registry, 16)
        .ok()
        .filter(|seen| *seen != 0)
        .ok_or_else(|| {
            Failure::invalid(
                "registry",
                "registry is what GET /api/v1/admin/members said",
            )
        })?;
    let op = operation(&request, &registry, seen);
    fail::fail_point!("membership::before-begin");
    let applied = write::propose(api, &call.uri, &group, write::context(call), op).await?;
    fail::fail_point!("membership::after-begin");
    if let Some(refusal) = applied.outcome.as_refused() {
        return Err(match refusal.code() {
            RefusalCode::PreconditionFailed => {
                Failure::new(ProblemKind::MembershipChanged, refusal.detail.clone())
                    .hint("look at the members again and plan anew: somebody else was quicker")
            }
            RefusalCode::Conflict => {
                Failure::new(ProblemKind::Refused, refusal.detail.clone()).code("CHANGE_RUNNING")
            }
            _ => write::refused(refusal),
        });
    }
    let registry = registry_of(&group).await?;
    accepted(registry.change.as_ref().map(change_of))
}

fn accepted(change: Option<Change>) -> Answer {
    call::json(
        StatusCode::ACCEPTED,
        &ChangeAnswer {
            change,
            nothing_to_do: None,
        },
    )
}

fn refused(refusal: &MemberRefusal) -> Failure {
    Failure::new(ProblemKind::Refused, refusal.what.clone())
        .code(refusal.code)
        .hint(refusal.hint.clone())
}

fn parse(body: &[u8]) -> Result<ChangeRequest, Failure> {
    json::check_unique(body).map_err(|e| Failure::invalid("body", e.to_string()))?;
    let request: ChangeRequest = serde_json::from_slice(body)
        .map_err(|e| Failure::invalid("body", format!("it is no change of the membership: {e}")))?;
    let good = (1..=64).contains(&request.id.len())
        && request
            .id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !good {
        return Err(Failure::invalid(
            "id",
            "id is 1 to 64 letters, digits or `-`, drawn by whoever asks",
        ));
    }
    Ok(request)
}

async fn registry_of(group: &Arc<dyn GroupBackend>) -> Result<Registry, Failure> {
    read::blocking(group.state(), |state| state.registry()).await
}

/// The registry as it is now, and what clients are told of it.
async fn look(api: &Api, group: &Arc<dyn GroupBackend>) -> Result<(Registry, Members), Failure> {
    group
        .barrier(&ReadMode::Linearizable)
        .await
        .map_err(read::failure)?;
    let registry = registry_of(group).await?;
    let members = members_of(&registry, api.backend.membership());
    Ok((registry, members))
}

fn members_of(registry: &Registry, view: MembershipView) -> Members {
    Members {
        cluster_uuid: view.cluster_uuid,
        incarnation: view.incarnation,
        registry: format!("{:016x}", registry.fingerprint()),
        nodes: registry
            .nodes
            .iter()
            .map(|node| member_of(node, view.up.contains(&node.id)))
            .collect(),
        expected: registry
            .expected
            .iter()
            .map(|e| ExpectedMember {
                name: e.name.clone(),
                peer_addr: e.peer_addr.clone(),
                since: Time::from_us(e.since_us),
                learner_only: e.learner_only,
                replaces: e.replaces,
            })
            .collect(),
        change: registry.change.as_ref().map(change_of),
        groups: view.groups,
    }
}

fn member_of(node: &NodeRecord, up: bool) -> MemberNode {
    MemberNode {
        id: node.id,
        name: node.name.clone(),
        api_url: node.api_url.clone(),
        peer_addr: node.peer_addr.clone(),
        state: match node.state() {
            NodeState::Joining => MemberState::Joining,
            NodeState::Active => MemberState::Active,
            NodeState::Retired => MemberState::Retired,
        },
        wish: match node.wish() {
            NodeWish::Voter => MemberWish::Voter,
            NodeWish::Learner => MemberWish::Learner,
            NodeWish::Gone => MemberWish::Gone,
        },
        replaces: node.replaces,
        removed_index: Some(node.retired_index).filter(|index| *index > 0),
        admitted_at: Time::from_us(node.admitted_us),
        up,
    }
}

fn change_of(change: &ChangeRecord) -> Change {
    let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    Change {
        id: change.id.clone(),
        kind: change.kind().as_str().to_owned(),
        words: change.words(),
        name: change.name.clone(),
        node_id: Some(change.node_id).filter(|id| *id != 0),
        old_name: some(&change.old_name),
        group: some(&change.group),
        actor: change.actor.clone(),
        begun_at: Time::from_us(change.begun_us),
        ended_at: (!change.is_running()).then(|| Time::from_us(change.ended_us)),
        error: some(&change.error),
    }
}

/// The newest node of a name that is not retired.
fn living<'r>(registry: &'r Registry, name: &str) -> Option<&'r NodeRecord> {
    registry
        .nodes
        .iter()
        .filter(|n| n.name == name && n.state() != NodeState::Retired)
        .max_by_key(|n| n.id)
}

/// The command that begins a change which the planner let pass.
fn operation(request: &ChangeRequest, registry: &Registry, seen: u64) -> Op {
    let id_of = |name: &str| living(registry, name).map_or(0, |n| n.id);
    let name = request.intent.name();
    let mut change = ChangeRecord {
        id: request.id.clone(),
        name: name.to_owned(),
        node_id: id_of(name),
        ..ChangeRecord::default()
    };
    let expected = |peer_addr: &str, learner_only: bool, replaces: Option<u64>| ExpectedRecord {
        name: name.to_owned(),
        peer_addr: peer_addr.to_owned(),
        learner_only,
        replaces,
        ..ExpectedRecord::default()
    };
    let expect = |change: ChangeRecord, record: ExpectedRecord| {
        Op::ExpectNode(ExpectNode {
            record: Some(record),
            change: Some(change),
            registry: seen,
        })
    };
    let kind = match &request.intent {
        ChangeIntent::Add {
            peer_addr,
            learner_only,
            ..
        } => {
            change.set_kind(ChangeKind::Add);
            return expect(change, expected(peer_addr, *learner_only, None));
        }
        ChangeIntent::Replace {
            old_name,
            peer_addr,
            ..
        } => {
            change.set_kind(ChangeKind::Replace);
            change.old_name.clone_from(old_name);
            change.old_id = id_of(old_name);
            if let (0, Some(peer_addr)) = (change.node_id, peer_addr) {
                let record = expected(peer_addr, false, Some(change.old_id));
                return expect(change, record);
            }
            ChangeKind::Replace
        }
        ChangeIntent::Remove { .. } if change.node_id == 0 => {
            return Op::ForgetNode(ForgetNode {
                name: name.to_owned(),
                registry: seen,
            });
        }
        ChangeIntent::Remove { .. } => ChangeKind::Remove,
        ChangeIntent::Promote { .. } => ChangeKind::Promote,
        ChangeIntent::Demote { .. } => ChangeKind::Demote,
        ChangeIntent::TransferLeader { group, .. } => {
            change.group = group.clone().unwrap_or_default();
            ChangeKind::Transfer
        }
    };
    change.set_kind(kind);
    Op::BeginChange(BeginChange {
        change: Some(change),
        registry: seen,
    })
}
