//! Every refusal and finding by its stable name: what it means and what to do. `drtool explain CODE` reads this.
//!
//! Promises: a command of this program does not fail without a stable name. [`refuse`], [`usage`] and [`local`] want one and
//! are the only way to make a failure here (a lint refuses the others); what the client, the store or the shared part of
//! the command line made gets that of its kind (`of_kind`).

// The one place that may.
#![allow(clippy::disallowed_methods)]

use std::io;
use std::path::Path;

use confman_cli::failure::Failure;
use confman_client::ErrorKind;

/// One stable name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// `UPPER_CASE`, never used for anything else.
    pub name: &'static str,
    /// What it means, in a sentence or two.
    pub meaning: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

/// The codes of one room of the tool.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Whose view its refusals are, where they name nobody.
    pub view: &'static str,
    /// Its table.
    pub codes: &'static [Code],
}

const fn room(view: &'static str, codes: &'static [Code]) -> Room {
    Room { view, codes }
}

/// The codes of all rooms. Each room keeps its own table.
pub const ALL: [Room; 10] = [
    room("this command", COMMON),
    room("the nodes that answered", crate::live::CODES),
    room(
        "this machine and the nodes that answered",
        crate::doctor::CODES,
    ),
    room("the store", crate::store::CODES),
    room(
        "the store and the nodes that answered",
        crate::restore::CODES,
    ),
    room("this machine and the store", crate::drill::CODES),
    room("the data directory", crate::stopped::CODES),
    room(
        "what was collected, and who answers now",
        crate::recover::CODES,
    ),
    room("the data directory", crate::aside::CODES),
    room("the data directory", crate::owner::CODES),
];

/// The codes that belong to no room.
const COMMON: &[Code] = &[
    Code {
        name: "CONSENT_NEEDED",
        meaning: "The command would destroy or replace something, and nobody has agreed to the plan that it printed.",
        remedy: "Read the plan. Run the command again with --yes, or on a terminal and type what it asks for.",
    },
    Code {
        name: "ARGUMENT",
        meaning: "An argument, or two of them together, make no sense; nothing was done.",
        remedy: "The message says which; `drtool COMMAND --help` says what it takes.",
    },
    Code {
        name: "LOCAL_FILE",
        meaning: "A file or directory of this machine could not be read or written.",
        remedy: "The message has the path and what the system said: look at its owner, its rights and the room on its disk, and run the command again.",
    },
    Code {
        name: "TARGET_EXISTS",
        meaning: "Something lies where the command would write; nothing was overwritten.",
        remedy: "Name another place, or move away what is there.",
    },
    Code {
        name: "CODE_UNKNOWN",
        meaning: "There is no code of that name.",
        remedy: "`drtool explain` lists all of them.",
    },
    Code {
        name: "RUNBOOK_UNKNOWN",
        meaning: "There is no runbook of that name.",
        remedy: "`drtool runbook` lists all of them.",
    },
    Code {
        name: "USAGE",
        meaning: "The command line, a setting or a file that says which cluster is meant is wrong; nothing was asked.",
        remedy: "The message says what. `drtool COMMAND --help` says what a command takes, `confman config` shows the settings of this environment.",
    },
    Code {
        name: "CLUSTER_REFUSED",
        meaning: "A node understood the request and refused it; most often for the API key or its role.",
        remedy: "The message has the node's own words. `drtool doctor` says which key is sent and what it may do.",
    },
    Code {
        name: "NOT_FOUND",
        meaning: "The cluster has nothing of that name.",
        remedy: "Check the name; `drtool status` shows the groups and nodes.",
    },
    Code {
        name: "DAMAGED",
        meaning: "Bytes are not what their checksum says.",
        remedy: "Keep them as evidence, and use another copy.",
    },
    Code {
        name: "CLUSTER_UNREACHABLE",
        meaning: "No node answered in time, or none that could.",
        remedy: "`drtool doctor` says which nodes answer and what is wrong with the others.",
    },
    Code {
        name: "OUTCOME_UNKNOWN",
        meaning: "The request was sent and its answer was lost, or it was done in part: it may have happened, or may yet.",
        remedy: "Look before you repeat it; every command of drtool can be run again.",
    },
    Code {
        name: "BUG",
        meaning: "Something happened that never should: a defect of Confman.",
        remedy: "Keep the output, the logs and the directories, and report it. Nothing was changed that the message does not say.",
    },
];

/// How a command ends that refuses, under a stable name.
pub fn refuse(code: &'static str, kind: ErrorKind, message: impl Into<String>) -> Failure {
    debug_assert!(find(code).is_some(), "{code} has no page");
    Failure::new(kind, message).coded(code)
}

/// Something happened that never should.
pub fn bug(message: impl Into<String>) -> Failure {
    refuse("BUG", ErrorKind::Bug, message)
}

/// The command, a setting or a local file is wrong.
pub fn usage(code: &'static str, message: impl Into<String>) -> Failure {
    debug_assert_ne!(code, "BUG", "nobody who types a command can mend a bug");
    refuse(code, ErrorKind::Usage, message)
}

/// A local file or directory that does not do.
pub fn local(doing: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::local(doing, path, error).coded("LOCAL_FILE")
}

/// The name of what was made elsewhere and has none of its own.
pub(crate) fn of_kind(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Usage => "USAGE",
        ErrorKind::Refused => "CLUSTER_REFUSED",
        ErrorKind::NotFound => "NOT_FOUND",
        ErrorKind::Damaged => "DAMAGED",
        ErrorKind::Unreachable => "CLUSTER_UNREACHABLE",
        ErrorKind::Unknown => "OUTCOME_UNKNOWN",
        ErrorKind::Bug => "BUG",
    }
}

/// The same failure, under a stable name in any case, with the remedy of that name's page where it has no
/// hint of its own, and as the view of the page's room where nobody was named who said it.
pub(crate) fn named(failure: Failure) -> Failure {
    let Failure::Told {
        kind,
        message,
        hint,
        code,
        view,
        also,
    } = failure
    else {
        return failure;
    };
    let code = code.unwrap_or_else(|| of_kind(kind));
    Failure::Told {
        kind,
        message,
        hint: hint.or_else(|| Some(find(code)?.remedy.to_owned())),
        code: Some(code),
        view: view.or_else(|| Some(view_of(code)?.to_owned())),
        also: also.into_iter().map(named).collect(),
    }
}

/// The code of that name, whatever its case.
#[must_use]
pub fn find(name: &str) -> Option<&'static Code> {
    ALL.iter()
        .flat_map(|room| room.codes)
        .find(|code| code.name.eq_ignore_ascii_case(name))
}

/// Whose view a refusal of this name is, where it names nobody.
fn view_of(name: &str) -> Option<&'static str> {
    let room = |room: &&Room| room.codes.iter().any(|code| code.name == name);
    ALL.iter().find(room).map(|room| room.view)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_there_once_and_says_what_to_do() {
        let mut names: Vec<&str> = Vec::new();
        for code in ALL.iter().flat_map(|room| room.codes) {
            assert!(
                code.name
                    .bytes()
                    .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_'),
                "{}",
                code.name
            );
            assert!(!names.contains(&code.name), "{} is there twice", code.name);
            assert!(
                !code.meaning.is_empty() && !code.remedy.is_empty(),
                "{}",
                code.name
            );
            names.push(code.name);
        }
        for kind in ErrorKind::ALL {
            assert!(find(of_kind(kind)).is_some(), "{kind:?}");
        }
        assert_eq!(
            find("consent_needed").map(|code| code.name),
            Some("CONSENT_NEEDED")
        );
    }

    #[test]
    fn no_failure_ends_a_command_without_a_name_that_can_be_explained() {
        for kind in ErrorKind::ALL {
            let Failure::Told {
                code, hint, view, ..
            } = named(Failure::new(kind, "made elsewhere"))
            else {
                panic!("{kind:?}")
            };
            assert!(view.is_some(), "{kind:?}");
            let page = find(code.unwrap());
            assert!(page.is_some(), "{kind:?}");
            assert_eq!(hint.as_deref(), page.map(|page| page.remedy), "{kind:?}");
        }
        let own = named(usage("ARGUMENT", "made here"));
        assert!(matches!(
            own,
            Failure::Told {
                code: Some("ARGUMENT"),
                ..
            }
        ));
        let hinted = named(usage("ARGUMENT", "made here").with_hint("do this"));
        assert!(matches!(hinted, Failure::Told { hint: Some(hint), .. } if hint == "do this"));
        let gone = named(Failure::PipeClosed);
        assert!(matches!(gone, Failure::PipeClosed), "nobody to tell");
    }

    #[test]
    fn a_bug_ends_with_the_exit_code_of_a_bug() {
        let document = bug("it broke").document().unwrap();
        assert_eq!(document["error"]["exitCode"], 70, "{document}");
        assert_eq!(document["error"]["code"], "BUG", "{document}");
    }

    #[test]
    fn no_reason_is_lost_on_a_script() {
        let refused = refuse("CONSENT_NEEDED", ErrorKind::Refused, "one")
            .with_also(vec![usage("ARGUMENT", "two"), Failure::usage("three")]);
        let document = named(refused).document().unwrap();
        let reasons = document["error"]["refusals"].as_array().unwrap();
        let codes: Vec<_> = reasons.iter().map(|r| r["code"].clone()).collect();
        assert_eq!(codes, ["CONSENT_NEEDED", "ARGUMENT", "USAGE"], "{document}");
        assert!(reasons.iter().all(|r| r["hint"].is_string()), "{document}");
        assert_eq!(document["error"]["code"], "CONSENT_NEEDED", "{document}");
    }
}
