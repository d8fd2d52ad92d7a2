//! The store's errors as ends of a command: few kinds, by remedy, each with its exit code and its stable name.

use confman_cli::failure::Failure;
use confman_client::ErrorKind;
use confman_snapshot::error::{Kind, SnapshotError, StoreError};

use crate::codes;

/// How a command ends to which the store said this.
#[must_use]
pub fn store(error: &StoreError) -> Failure {
    told(error.kind, error).seen_by(format!("store {}", error.url))
}

/// How a command ends that could not read or prove a snapshot.
#[must_use]
pub fn snapshot(error: &SnapshotError) -> Failure {
    match error {
        SnapshotError::Store(error) => store(error),
        _ => told(error.kind(), error),
    }
}

/// The exit code's kind and the stable name of a kind of error.
#[must_use]
pub fn named(kind: Kind) -> (ErrorKind, &'static str) {
    match kind {
        Kind::Retry | Kind::Wait => (ErrorKind::Unreachable, "STORE_UNREACHABLE"),
        Kind::Credentials => (ErrorKind::Refused, "STORE_CREDENTIALS"),
        Kind::Configuration => (ErrorKind::Usage, "STORE_CONFIGURATION"),
        Kind::NotFound => (ErrorKind::NotFound, "STORE_NOT_FOUND"),
        Kind::Damaged => (ErrorKind::Damaged, "SNAPSHOT_DAMAGED"),
        Kind::Conflict => (ErrorKind::Refused, "STORE_CONFLICT"),
        Kind::Diverged => (ErrorKind::Damaged, "STATE_HASH_MISMATCH"),
        Kind::Bug => (ErrorKind::Bug, "BUG"),
    }
}

fn told(kind: Kind, error: &dyn std::error::Error) -> Failure {
    let (exit, code) = named(kind);
    let (message, hint) = split(&error.to_string());
    let failure = codes::refuse(code, exit, message);
    match hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

/// The text of an error less its hint, and the hint.
#[must_use]
pub fn split(text: &str) -> (String, Option<String>) {
    match text.split_once("\nhint: ") {
        Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
        None => (text.to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_an_exit_code_by_its_remedy_and_a_page() {
        let all = [
            (Kind::Retry, 6),
            (Kind::Wait, 6),
            (Kind::Credentials, 3),
            (Kind::Configuration, 2),
            (Kind::NotFound, 4),
            (Kind::Damaged, 5),
            (Kind::Conflict, 3),
            (Kind::Diverged, 5),
            (Kind::Bug, 70),
        ];
        for (kind, exit) in all {
            let (error_kind, code) = named(kind);
            assert_eq!(error_kind.exit_code(), exit, "{kind:?}");
            assert!(codes::find(code).is_some(), "{code}");
        }
    }

    #[test]
    fn the_hint_stands_alone() {
        let error = StoreError {
            kind: Kind::Wait,
            operation: "list",
            object: "cluster".to_owned(),
            url: "s3://b".to_owned(),
            detail: "no answer".to_owned(),
            hint: "look at it".to_owned(),
        };
        let Failure::Told { message, hint, .. } = store(&error) else {
            panic!("nothing was told")
        };
        assert_eq!(message, "list \"cluster\" in s3://b: no answer");
        assert_eq!(hint.as_deref(), Some("look at it"));
    }
}
