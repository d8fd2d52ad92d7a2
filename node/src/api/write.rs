//! Writes: from a call to a proposed command, and from its outcome to an answer.
//!
//! Promises: a write is answered by what apply said, or by a problem that says whether it may yet happen; only
//! [`ProposeError::Timeout`] leaves that open. The actor is the key's name, whatever the client sends.

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use confman_client::wire::ProblemKind;
use confman_client::wire::header as names;
use confman_snapshot::ValueHasher;
use confman_store::command::Op;
use confman_store::command::Outcome;
use confman_store::command::Precondition;
use confman_store::command::RefusalCode;
use confman_store::command::Refused;
use http::Uri;
use http::header;

use super::Api;
use super::backend::Applied;
use super::backend::GroupBackend;
use super::backend::LeaderInfo;
use super::backend::ProposeError;
use super::backend::WriteContext;
use super::call::Call;
use super::call::set;
use super::call::set_version;
use super::failure::Failure;
use super::forward;
use super::headers;
use super::headers::WriteCondition;

/// Says that an answer repeats that of the first request with the idempotency key.
pub(crate) const REPLAYED: &str = "idempotency-replayed";

/// What every write reads from its headers before anything else happens.
#[derive(Debug)]
pub(crate) struct WriteHead {
    pub(crate) condition: WriteCondition,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) skip_unchanged: bool,
    pub(crate) forward: bool,
}

impl WriteHead {
    pub(crate) fn read(call: &Call) -> Result<Self, Failure> {
        headers::refuse_codings(&call.headers)?;
        Ok(Self {
            condition: headers::write_condition(&call.headers)?,
            idempotency_key: headers::idempotency_key(&call.headers)?,
            skip_unchanged: headers::flag(&call.headers, names::SKIP_UNCHANGED)?,
            forward: headers::flag(&call.headers, names::FORWARD)?,
        })
    }

    /// For writes that have no entry to put a condition on.
    pub(crate) fn refuse_conditions(&self) -> Result<(), Failure> {
        match self.condition {
            WriteCondition::None => Ok(()),
            _ => Err(Failure::invalid(
                "if-match",
                "this takes no if-match or if-none-match",
            )),
        }
    }

    pub(crate) fn precondition(&self) -> Option<Precondition> {
        match self.condition {
            WriteCondition::None => None,
            WriteCondition::VersionIs(version) => Some(Precondition::version_is(version)),
            WriteCondition::Exists => Some(Precondition::exists()),
            WriteCondition::Absent => Some(Precondition::absent()),
        }
    }
}

/// Who writes, for one command.
pub(crate) fn context(call: &Call) -> WriteContext {
    WriteContext {
        actor: call.identity.name.clone(),
        request_id: call.request_id.clone(),
        correlation_id: call.correlation_id.clone(),
        idempotency_key: None,
        fingerprint: Bytes::new(),
    }
}

/// What an idempotency key stands for: everything of the request that decides what it does.
pub(crate) fn fingerprint(parts: &[&[u8]]) -> Bytes {
    let mut hasher = ValueHasher::new();
    for part in parts {
        // The length keeps ("ab", "c") from being ("a", "bc").
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    Bytes::copy_from_slice(&hasher.finish())
}

/// `None` when this node leads the group; else the answer: forwarded if asked for, else a redirect.
pub(crate) async fn elsewhere(
    api: &Arc<Api>,
    call: &mut Call,
    group: &Arc<dyn GroupBackend>,
    forward: bool,
) -> Result<Option<Response>, Failure> {
    if group.is_leader() {
        return Ok(None);
    }
    match other_leader(api, group.leader()) {
        Some(leader) if forward => forward::whole(api, call, &leader).await.map(Some),
        leader => Err(not_leader(&call.uri, leader)),
    }
}

/// Proposes one command; refusals are still inside the outcome.
pub(crate) async fn propose(
    api: &Api,
    uri: &Uri,
    group: &Arc<dyn GroupBackend>,
    context: WriteContext,
    op: Op,
) -> Result<Applied, Failure> {
    group
        .propose(context, op)
        .await
        .map_err(|error| propose_failure(api, uri, error))
}

pub(crate) fn propose_failure(api: &Api, uri: &Uri, error: ProposeError) -> Failure {
    match error {
        ProposeError::NotLeader { leader } => not_leader(uri, other_leader(api, leader)),
        ProposeError::Timeout => Failure::new(
            ProblemKind::WriteTimeout,
            "the write was proposed and not confirmed: it may yet happen",
        )
        .hint("read the entry, or send the same request again with the same Idempotency-Key"),
        ProposeError::Unavailable(detail) => Failure::busy(detail),
    }
}

/// A node that does not lead any more may still name itself: that is no place to send anybody.
pub(crate) fn other_leader(api: &Api, leader: Option<LeaderInfo>) -> Option<LeaderInfo> {
    leader.filter(|leader| leader.name != api.backend.node_name())
}

pub(crate) fn not_leader(uri: &Uri, leader: Option<LeaderInfo>) -> Failure {
    let Some(leader) = leader else {
        return no_leader();
    };
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let location = format!("{}{target}", leader.api_url.trim_end_matches('/'));
    Failure::new(
        ProblemKind::NotLeader,
        format!("{} leads the group of this namespace", leader.name),
    )
    .hint("send the same request to Location, or ask this node with X-Confman-Forward: true")
    .header(header::LOCATION, &location)
}

pub(crate) fn no_leader() -> Failure {
    Failure::new(
        ProblemKind::NoLeader,
        "the group has no leader now, nothing was written",
    )
    .hint("an election takes some seconds; without a majority of the nodes there is none")
    .retry_after(1)
}

/// What apply refused, as a problem.
pub(crate) fn refused(refused: &Refused) -> Failure {
    let detail = refused.detail.clone();
    match refused.code() {
        RefusalCode::NotFound => Failure::new(ProblemKind::NotFound, detail),
        RefusalCode::PreconditionFailed => Failure::new(ProblemKind::PreconditionFailed, detail)
            .current_version(Some(refused.current_version.unwrap_or(0))),
        RefusalCode::IdempotencyKeyReused => {
            Failure::new(ProblemKind::IdempotencyKeyReused, detail)
                .field(names::IDEMPOTENCY_KEY)
                .hint("use a new key for a new request")
        }
        RefusalCode::StageMissing => {
            Failure::busy("the upload was interrupted, nothing was written")
                .hint("send the request again")
        }
        RefusalCode::Invalid => Failure::new(ProblemKind::InvalidRequest, detail),
        RefusalCode::TooLarge => Failure::too_large(detail),
        RefusalCode::Conflict => {
            Failure::new(ProblemKind::InvalidRequest, detail).status(http::StatusCode::CONFLICT)
        }
        RefusalCode::Unknown => Failure::internal(format!(
            "refused with an unknown code {}: {detail}",
            refused.code
        )),
    }
}

/// An outcome that a command of this kind does not have.
pub(crate) fn unexpected(outcome: &Outcome) -> Failure {
    match outcome.as_refused() {
        Some(found) => refused(found),
        None => Failure::internal(format!("unexpected outcome {outcome}")),
    }
}

/// The headers that every answered write carries.
pub(crate) fn mark(api: &Api, response: &mut Response, applied: &Applied) {
    let original = applied.outcome.replayed_from.as_ref();
    if original.is_some() {
        set(response, REPLAYED, "true");
    }
    set_version(
        response,
        api.backend.incarnation(),
        Some(original.unwrap_or(&applied.position)),
    );
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use confman_client::WRITE_RESENT_MAX;
    use confman_store::IDEMPOTENCY_KEPT;

    /// A write that a client sends again after its key is forgotten is applied twice.
    #[test]
    fn a_key_is_kept_for_longer_than_any_client_sends_its_write_again() {
        // The last try is on its way, and waits at a node for the longest write timeout that can be set.
        let under_way = Duration::from_secs(600 + 60);
        assert!(WRITE_RESENT_MAX + under_way < IDEMPOTENCY_KEPT);
    }
}
