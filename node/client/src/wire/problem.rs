//! Errors on the wire: RFC 9457 problem documents, and the one table of their types.

use serde::{Deserialize, Serialize};

/// An RFC 9457 problem document, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// `urn:confman:problem:{slug}`; stable.
    #[serde(rename = "type")]
    pub problem_type: String,
    /// The type in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// The stable name of this refusal, where its kind has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The request id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The field, header or parameter that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The version that is there, where a precondition failed; 0 when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_version: Option<u64>,
}

impl Problem {
    /// A problem of a known kind.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self {
            problem_type: kind.urn(),
            title: kind.title().to_owned(),
            status: kind.status(),
            detail: detail.into(),
            code: None,
            instance: None,
            hint: None,
            field: None,
            current_version: None,
        }
    }

    /// The kind, if this program knows it.
    pub fn kind(&self) -> Option<ProblemKind> {
        ProblemKind::from_urn(&self.problem_type)
    }

    /// With what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With the field that is wrong.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// With the version that is there.
    #[must_use]
    pub fn with_current_version(mut self, version: u64) -> Self {
        self.current_version = Some(version);
        self
    }
}

const URN_PREFIX: &str = "urn:confman:problem:";

macro_rules! problem_kinds {
    ($($(#[$doc:meta])* $kind:ident => $slug:literal, $status:literal, $title:literal;)*) => {
        /// Every type of problem: its slug, its HTTP status and its title.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ProblemKind { $($(#[$doc])* $kind,)* }

        impl ProblemKind {
            /// Every kind, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// The last part of the type's URN.
            pub fn slug(self) -> &'static str { match self { $(Self::$kind => $slug,)* } }

            /// The HTTP status that goes with it.
            pub fn status(self) -> u16 { match self { $(Self::$kind => $status,)* } }

            /// The type in words.
            pub fn title(self) -> &'static str { match self { $(Self::$kind => $title,)* } }
        }
    };
}

problem_kinds! {
    /// The request is not what the interface takes.
    InvalidRequest => "invalid-request", 400, "the request is not valid";
    /// A namespace, key or other name is not allowed.
    InvalidName => "invalid-name", 400, "the name is not allowed";
    /// No API key, or one that is not known.
    Unauthorized => "unauthorized", 401, "an API key is needed";
    /// The API key's role does not allow this.
    Forbidden => "forbidden", 403, "the API key does not allow this";
    /// There is nothing by that name.
    NotFound => "not-found", 404, "not found";
    /// The path exists, with other methods.
    MethodNotAllowed => "method-not-allowed", 405, "the method is not allowed here";
    /// The version token is of an earlier life of the cluster.
    OldIncarnation => "old-incarnation", 409, "the version token is of an earlier life of the cluster";
    /// What was asked for must not be now; `code` says why.
    Refused => "refused", 409, "refused";
    /// The plan was made from a membership that is another one now.
    MembershipChanged => "membership-changed", 409, "the membership has changed since the plan was made";
    /// `If-Match` or `If-None-Match` did not hold.
    PreconditionFailed => "precondition-failed", 412, "the precondition does not hold";
    /// The body is larger than allowed.
    PayloadTooLarge => "payload-too-large", 413, "the body is too large";
    /// The idempotency key was used for another request.
    IdempotencyKeyReused => "idempotency-key-reused", 422, "the idempotency key was used for another request";
    /// The headers are larger than allowed.
    HeadersTooLarge => "headers-too-large", 431, "the headers are too large";
    /// Another node leads; `Location` says which.
    NotLeader => "not-leader", 307, "another node leads";
    /// A defect, or a disk that fails.
    Internal => "internal", 500, "internal error";
    /// The group has no leader now.
    NoLeader => "no-leader", 503, "the group has no leader now";
    /// Some of a deletion is done; sent again it goes on.
    DeletedInPart => "deleted-in-part", 503, "deleted in part";
    /// A snapshot was begun and not made. Whoever asked decides whether it is asked for again.
    SnapshotFailed => "snapshot-failed", 503, "the snapshot failed";
    /// The node cannot do this now.
    Unavailable => "unavailable", 503, "not available now";
    /// The write was not confirmed in time; it may yet happen.
    WriteTimeout => "write-timeout", 504, "the write was not confirmed in time and may yet happen";
    /// The read could not be confirmed in time.
    ReadTimeout => "read-timeout", 504, "the read was not confirmed in time";
}

impl ProblemKind {
    /// The stable `type`.
    pub fn urn(self) -> String {
        format!("{URN_PREFIX}{}", self.slug())
    }

    /// The kind with this `type`.
    pub fn from_urn(urn: &str) -> Option<Self> {
        let slug = urn.strip_prefix(URN_PREFIX)?;
        Self::ALL.iter().copied().find(|kind| kind.slug() == slug)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_urn() {
        for &kind in ProblemKind::ALL {
            assert_eq!(ProblemKind::from_urn(&kind.urn()), Some(kind));
        }
        assert_eq!(ProblemKind::from_urn("about:blank"), None);
        assert_eq!(
            ProblemKind::from_urn("urn:confman:problem:unheard-of"),
            None
        );
    }

    #[test]
    fn absent_fields_stay_out_of_the_document() -> Result<(), serde_json::Error> {
        let json = serde_json::to_value(Problem::new(ProblemKind::NotFound, "no key tax in shop"))?;
        assert_eq!(
            json,
            serde_json::json!({
                "type": "urn:confman:problem:not-found",
                "title": "not found",
                "status": 404,
                "detail": "no key tax in shop",
            })
        );
        Ok(())
    }
}
